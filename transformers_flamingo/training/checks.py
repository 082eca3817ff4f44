# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Check the arguments of a training before anything is computed."""

import os
from collections.abc import Sequence
from typing import Any

from ..utils.names import count_of
from .arguments import DefaultSize, FlamingoTrainingArguments
from .data_source import DataSource
from .held_out import SCORES, GenerationEvalDataset


#: Fields of `TrainingArguments` that have no effect on a mixture: the only value that they may have, and a remedy.
_WITHOUT_EFFECT: dict[str, tuple[Any, str]] = {
    "dataloader_drop_last": (False, "A mixture has no last batch, because its sources start over. Remove it."),
    "dataloader_in_order": (True, "Resuming requires the batches in order. Remove it."),
    "train_sampling_strategy": (
        "random",
        "A source is shuffled in each epoch. With `data.NAME.streaming` and `data.NAME.shuffle_buffer_size: 0` it is read in the order of "
        "its files. Remove it.",
    ),
    "length_column_name": ("length", "Rows are not grouped by length. Remove it."),
    "remove_unused_columns": (
        False,
        "Columns of images and texts are not arguments of the model, but they are needed. Remove it.",
    ),
    "average_tokens_across_devices": (True, "The tokens of a source are counted over all processes. Remove it."),
    "label_smoothing_factor": (0.0, "It is not supported with a mixture. Remove it."),
    "auto_find_batch_size": (False, "Lower `data.NAME.batch_size` of each source by hand."),
    "use_liger_kernel": (False, "Liger has no kernels for Flamingo. Remove it."),
}


def find_idle_workers(num_workers: int) -> str | None:
    """
    Say so if a process has more workers than CPUs, of which torch warns for each of its loaders.

    Args:
        num_workers (`int`): `dataloader_num_workers` of the training.

    Returns:
        `str` or `None`: a sentence with a remedy.
    """
    has_affinity = hasattr(os, "sched_getaffinity")  # a cluster gives a process some of the CPUs of its machine
    cpus = len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1
    if num_workers <= cpus:
        return None
    return (
        f"`dataloader_num_workers` is {num_workers}, and there {'is' if cpus == 1 else 'are'} {count_of(cpus, 'CPU')}, so workers wait for "
        f"each other. Give `--dataloader_num_workers {cpus}`."
    )


def check_arguments_for_mixture(args: FlamingoTrainingArguments, sources: Sequence[DataSource]) -> None:
    """
    Check that no argument is set that a mixture would ignore.

    Args:
        args ([`FlamingoTrainingArguments`]): The arguments of the trainer.
        sources (`list[DataSource]`): The sources of its mixture.

    Raises:
        ValueError: a field is set that has no effect on a mixture. The message has a remedy.
    """
    size = args.per_device_train_batch_size
    if not isinstance(size, DefaultSize) and any(source.batch_size != size for source in sources):
        fields_to_set = ", ".join(f"`data.{source.name}.batch_size` (now {source.batch_size})" for source in sources)
        raise ValueError(
            f"`per_device_train_batch_size` is {size}, but each source of a mixture has its own batch size, so it would "
            f"have no effect. Remove it, and set {fields_to_set}."
        )
    for name, (value, remedy) in _WITHOUT_EFFECT.items():
        given = getattr(args, name)
        if getattr(given, "value", given) != value:
            raise ValueError(f"`{name}` is {given!r}, which has no effect on a data mixture. {remedy}")
    for name in ("split_batches", "dispatch_batches"):
        if getattr(args.accelerator_config, name):
            raise ValueError(
                f"`accelerator_config` sets `{name}`, which has no effect on a data mixture, because each process makes "
                "its own batches. Remove it."
            )
    for name in ("logging_strategy", "eval_strategy", "save_strategy"):
        if getattr(args, name) == "epoch":
            steps = name.replace("strategy", "steps")
            raise ValueError(
                f"`{name}` is 'epoch', but a mixture has no epochs. Set it to 'steps', and "
                f"`{steps}` to the number of optimizer steps."
            )
    if args.packing and args.include_num_input_tokens_seen == "non_padding":
        raise ValueError(
            "`include_num_input_tokens_seen` is 'non_padding', but packed rows have no attention mask to tell tokens "
            "from padding. Set it to 'all', or remove it: `tokens_per_second` counts without padding."
        )


def check_arguments_without_mixture(args: FlamingoTrainingArguments) -> None:
    """
    Check that no argument is set that only a mixture uses.

    Raises:
        ValueError: a field is set that has no effect on an ordinary dataset.
    """
    for name, value in (("mixture_strategy", "accumulate"), ("skip_bad_samples", False)):
        if getattr(args, name) != value:
            raise ValueError(
                f"`{name}` is {getattr(args, name)!r}, but `train_dataset` is not a DataMixture, so it would have no "
                "effect. Remove it, or pass a DataMixture."
            )


def choose_best_metric(args: FlamingoTrainingArguments, eval_dataset: Any, *, has_own_metrics: bool = False) -> None:
    """
    Check that the evaluation has the metric that chooses the best checkpoint, or detects a plateau.

    If `metric_for_best_model` is needed and not given, it is "loss". With one named evaluation dataset, this means the loss on
    that dataset.

    Args:
        args ([`FlamingoTrainingArguments`]): `metric_for_best_model` is completed in place.
        eval_dataset: The evaluation dataset of the trainer, or a dictionary of datasets or of the [`DataSource`]s of held-out data.
        has_own_metrics (`bool`, *optional*, defaults to `False`):
            Whether the trainer has a `compute_metrics`, whose metrics are not known in advance.

    Raises:
        ValueError: the evaluation does not have the metric. The message names the available ones.
    """
    if (
        args.save_strategy == "best" or args.early_stopping_patience is not None
    ) and args.metric_for_best_model is None:
        args.metric_for_best_model, args.greater_is_better = "loss", False
    metric = args.metric_for_best_model
    if metric is None or has_own_metrics:
        return
    if eval_dataset is None or args.eval_strategy == "no":
        raise ValueError(
            f"`metric_for_best_model` is {metric!r}, but nothing is evaluated during the training, so there is no best "
            "model and no plateau of a metric. Give held-out data (in a recipe, `evaluation`) and `eval_strategy: "
            "steps`, or remove `load_best_model_at_end`, `early_stopping_patience`, `save_strategy: best` and "
            "`metric_for_best_model`, and choose another `lr_scheduler_type`."
        )
    names = []
    for name, rows in eval_dataset.items() if isinstance(eval_dataset, dict) else [("", eval_dataset)]:
        is_generated = isinstance(rows, GenerationEvalDataset | DataSource)
        kinds = ["loss", *SCORES] if is_generated else ["loss"]
        kinds += [f"blind_{kind}" for kind in kinds if is_generated]
        names += [f"{name}_{kind}" if name else kind for kind in kinds]
    if metric.removeprefix("eval_") in names:
        return
    losses = [name for name in names if name.endswith("_loss") and not name.endswith("_blind_loss")]
    if metric.removeprefix("eval_") == "loss" and len(losses) == 1:
        args.metric_for_best_model = losses[0]
        return
    raise ValueError(
        f"`metric_for_best_model` is {metric!r}, which the evaluation does not have, so the training would fail at the first "
        f"evaluation. Set it to one of {', '.join(names)}."
    )
