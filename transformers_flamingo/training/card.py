# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The generated card of a trained model."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cards.model_card import FlamingoModelCardData
from .held_out import SCORES


if TYPE_CHECKING:
    from .trainer import FlamingoTrainer


_ADAPTER_NOTE = (
    "These are adapters. Load them by `peft.PeftModel.from_pretrained(model, DIRECTORY)` on the model they were trained on, "
    "which for two backbones is `FlamingoModel.from_vision_text_pretrained(vision, text, **model_config)`, as in "
    "`recipe.yaml`."
)


_TRAINABLE_NOTE = (
    "These are the trained parameters alone, and the lines above do not load them: build the model as `recipe.yaml` says "
    "(`build_model`), then call `load_trainable(model, DIRECTORY)`, both of `transformers_flamingo.training`."
)


def training_card(trainer: "FlamingoTrainer") -> FlamingoModelCardData:
    """What is known of a training run: the model, its data mixture, its hyperparameters and its last evaluation."""
    model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
    is_adapter = hasattr(model, "get_base_model")
    return FlamingoModelCardData.from_model(
        model.get_base_model() if is_adapter else model,
        data_mixture=_mixture(trainer),
        hyperparameters=_hyperparameters(trainer),
        scores=_scores(trainer.state.log_history),
        notes=[_TRAINABLE_NOTE] if trainer.args.save_trainable_only else [_ADAPTER_NOTE] if is_adapter else (),
    )


def write_training_card(trainer: "FlamingoTrainer") -> None:
    """Write it to `README.md` in the output directory."""
    directory = Path(trainer.args.output_dir)
    directory.mkdir(parents=True, exist_ok=True)
    training_card(trainer).save(directory / "README.md")


def _mixture(trainer: "FlamingoTrainer") -> list[dict[str, Any]]:
    if trainer.mixture is None:
        return []
    names = {"batch_size": "rows per micro-batch", "max_length": "tokens", "max_images": "images"}
    rows = []
    for source in trainer.mixture.sources:
        row = {"name": source.name, "format": source.format, "weight": source.weight}
        row |= {label: getattr(source, name) for name, label in names.items() if getattr(source, name) is not None}
        rows.append(row)
    return rows


def _hyperparameters(trainer: "FlamingoTrainer") -> dict[str, Any]:
    args, state = trainer.args, trainer.state
    facts = {
        "steps": state.global_step,
        "learning rate": args.learning_rate,
        "learning rate of the gates": args.learning_rate * args.gate_learning_rate_multiplier,
        "schedule": getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type),
        "warm-up": args.warmup_steps,
        "optimizer": getattr(args.optim, "value", args.optim),
        "betas": f"{args.adam_beta1}, {args.adam_beta2}",
        "weight decay of the gated blocks": args.weight_decay,
        "largest norm of a gradient": args.max_grad_norm,
        "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
        "processes": args.world_size,
        "seed": args.seed,
    }
    if trainer.mixture is None:
        facts["rows per step"] = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    else:
        facts["mixture"] = args.mixture_strategy
        facts["micro-batches per step and process"] = args.gradient_accumulation_steps
    return facts


def _scores(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those of the last evaluation, of each held-out set."""
    last: dict[str, float] = {}
    for entry in history:
        last.update({name: value for name, value in entry.items() if name.startswith("eval_")})
    scores = []
    for name, value in last.items():
        for metric in SCORES:
            task = name.removeprefix("eval_").removesuffix(f"_{metric}")
            if name == f"eval_{task}_{metric}" and not task.endswith("_blind"):
                blind = last.get(f"eval_{task}_blind_{metric}")
                scores.append({"task": task, "metric": metric, "shots": 0, "value": value, "blind": blind})
    return scores
