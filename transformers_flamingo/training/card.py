# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Generate the card of a trained model from a record of its training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from ..cards.model_card import FlamingoModelCardData
from ..cards.origins import find_cached_name, find_name
from .adapters import without_adapters
from .arguments import FlamingoTrainingArguments
from .data_source import DataSource
from .held_out import SCORES


_PARTIAL_NOTE = (
    "These are only {content}, and the lines above do not load them. Every command of `flamingo` does (`base_model.json` names the "
    "model that they belong to), and so does `load_flamingo` of `transformers_flamingo.utils.loading`. `flamingo merge FOLDER "
    "DIRECTORY` makes a complete model of them."
)


@dataclass
class TrainingRecord:
    """
    The facts about a training run that its card shows.

    Args:
        model ([`FlamingoModel`] or `PeftModel`): The model.
        args ([`FlamingoTrainingArguments`]): The arguments of the trainer.
        steps (`int`): Number of optimizer steps.
        sources (`Sequence[DataSource]`, *optional*): The sources of the mixture. Empty for another dataset.
        datasets (`Sequence[str]`, *optional*): Names of datasets on the Hub.
        dataset_rows (`Sequence[dict]`, *optional*): Further rows of the table of sources, each with a `name`.
        log_history (`Sequence[dict]`, *optional*): What the trainer logged.
        image_use (`dict`, *optional*): What [`~FlamingoTrainer.image_use_summary`] returns.
        facts (`dict`, *optional*): Other fields of [`FlamingoModelCardData`], such as `license`. Empty ones are not used.
    """

    model: nn.Module
    args: FlamingoTrainingArguments
    steps: int
    sources: Sequence[DataSource] = ()
    datasets: Sequence[str] = ()
    dataset_rows: Sequence[dict[str, Any]] = ()
    log_history: Sequence[Mapping[str, Any]] = ()
    image_use: Mapping[str, Any] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def training_card(record: TrainingRecord) -> FlamingoModelCardData:
    """Collect the facts of a card: the model, its data mixture, its hyperparameters and its last evaluation."""
    is_adapter = hasattr(record.model, "get_base_model")
    content = "the trained parameters" if record.args.save_trainable_only else "adapters" if is_adapter else None
    model = without_adapters(record.model)
    given = {name: value for name, value in record.facts.items() if value}
    if own_name := find_name(model.config.name_or_path):
        given.setdefault("base_model", [own_name])  # what was trained further is this Flamingo, not its backbones
    cached = [name for source in record.sources if (name := find_cached_name(source.path))]
    return FlamingoModelCardData.from_model(
        model,
        data_mixture=[*map(_describe_source, record.sources), *record.dataset_rows],
        datasets=[*record.datasets, *cached],
        hyperparameters=_hyperparameters(record),
        scores=_scores(record.log_history),
        image_use=record.image_use,
        notes=() if content is None else [_PARTIAL_NOTE.format(content=content)],
        **given,
    )


def write_training_card(record: TrainingRecord, directory: str | Path) -> None:
    """Write the card of a training run to `README.md` in a folder, which is created if it does not exist."""
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    training_card(record).save(directory / "README.md")


def _describe_source(source: DataSource) -> dict[str, Any]:
    """Return a row of the table of sources."""
    labels = {"batch_size": "rows per micro-batch", "max_length": "tokens", "max_images": "images"}
    row = {"name": source.name, "format": source.format, "weight": source.weight}
    return row | {label: getattr(source, name) for name, label in labels.items() if getattr(source, name) is not None}


def _hyperparameters(record: TrainingRecord) -> dict[str, Any]:
    """Return the table of hyperparameters."""
    args = record.args
    facts = {
        "steps": record.steps,
        "learning rate": args.learning_rate,
        "learning rate of the gates": args.learning_rate * args.gate_learning_rate_multiplier,
        "learning rate of the resampler": args.learning_rate * args.resampler_learning_rate_multiplier,
        "schedule": getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type),
        "warmup": args.warmup_steps,
        "optimizer": getattr(args.optim, "value", args.optim),
        "betas": f"{args.adam_beta1}, {args.adam_beta2}",
        "weight decay of the gated blocks": args.weight_decay,
        "maximum gradient norm": args.max_grad_norm,
        "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
        "processes": args.world_size,
        "seed": args.seed,
    }
    if not record.sources:
        facts["rows per step"] = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    else:
        facts["mixture"] = args.mixture_strategy
        facts["micro-batches per step and process"] = args.gradient_accumulation_steps
    return facts


def _scores(log_history: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the scores of the last evaluation of each held-out dataset."""
    last: dict[str, float] = {}
    for entry in log_history:
        last.update({name: value for name, value in entry.items() if name.startswith("eval_")})
    scores = []
    for name, value in last.items():
        for metric in SCORES:
            task = name.removeprefix("eval_").removesuffix(f"_{metric}")
            if name == f"eval_{task}_{metric}" and not task.endswith("_blind"):
                blind = last.get(f"eval_{task}_blind_{metric}")
                scores.append({"task": task, "metric": metric, "shots": 0, "value": value, "blind": blind})
    return scores
