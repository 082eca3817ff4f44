# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Check fields of `TrainingArguments` whose own checks stop at the first error, name no field, or come with the first step."""

from collections.abc import Iterator
from dataclasses import MISSING, fields
from enum import Enum
from typing import Any

from transformers import TrainingArguments
from transformers.trainer_utils import HubStrategy, IntervalStrategy, SaveStrategy, SchedulerType
from transformers.training_args import OptimizerNames

from .recipe_file import show, suggest


_CHOICES: dict[str, type[Enum]] = {
    "eval_strategy": IntervalStrategy,
    "logging_strategy": IntervalStrategy,
    "save_strategy": SaveStrategy,
    "hub_strategy": HubStrategy,
    "lr_scheduler_type": SchedulerType,
    "optim": OptimizerNames,
}
_MAX_SEED = 2**32 - 1  # of numpy


def find_stock_errors(args: TrainingArguments) -> Iterator[str]:
    """
    Yield a message for each field that cannot have its value. It gets a value that fits, so that the checks of `TrainingArguments`,
    which follow, find what else is wrong.

    Args:
        args (`TrainingArguments`): The arguments, before their `__post_init__`. They must not be used if anything was yielded.
    """
    yield from _find_wrong_choices(args)
    yield from _find_wrong_numbers(args)
    strategies = {name: _plain(getattr(args, name)) for name in ("eval_strategy", "save_strategy")}
    if args.load_best_model_at_end and strategies["save_strategy"] not in ("best", strategies["eval_strategy"]):
        yield (
            f"`load_best_model_at_end` is true, but `eval_strategy` is {strategies['eval_strategy']!r} and `save_strategy` "
            f"{strategies['save_strategy']!r}: a model is saved where it is not evaluated, or the other way round. Give "
            "`--eval_strategy steps` and `--save_strategy steps`, or remove `load_best_model_at_end`."
        )
        args.load_best_model_at_end = False


def _find_wrong_choices(args: TrainingArguments) -> Iterator[str]:
    defaults = {f.name: f.default for f in fields(args)}
    for name, kind in _CHOICES.items():
        value, known = _plain(getattr(args, name)), [choice.value for choice in kind]
        if value not in known:
            yield f"`{name}` is {show(value)}.{suggest(str(value), known)}"
            setattr(args, name, "no" if defaults[name] is MISSING else defaults[name])
            if name in ("eval_strategy", "save_strategy"):  # which belong to what was meant
                args.load_best_model_at_end = False
            if name == "eval_strategy" and _plain(args.lr_scheduler_type) in ("reduce_lr_on_plateau", "greedy"):
                args.lr_scheduler_type = defaults["lr_scheduler_type"]
    given = args.report_to if isinstance(args.report_to, list) else [args.report_to]
    known = _trackers()
    for value in given:
        if isinstance(value, str) and value not in known:
            yield f"`report_to` is {show(value)}.{suggest(value, known)}"
            args.report_to = "none"


def _find_wrong_numbers(args: TrainingArguments) -> Iterator[str]:
    if _plain(args.logging_strategy) == "steps" and args.logging_steps <= 0:
        yield (
            f"`logging_steps` is {args.logging_steps:g}, but it must be above 0. To log nothing, give `--logging_strategy no`."
        )
        args.logging_steps = 1
    if args.max_steps < 1 and args.max_steps != -1:
        yield (
            f"`max_steps` is {args.max_steps}, but a training has at least 1 step. Without it, or with -1, `num_train_epochs` is the "
            "length of the training. To look at data and schedule without training, run `flamingo check`."
        )
        args.max_steps = -1
    for name in ("seed", "data_seed"):
        value = getattr(args, name)
        if value is not None and not 0 <= value <= _MAX_SEED:
            yield f"`{name}` is {value}, but it must be from 0 to {_MAX_SEED}."
            setattr(args, name, 0)
    if args.dataloader_num_workers < 0:
        yield (
            f"`dataloader_num_workers` is {args.dataloader_num_workers}. Give a number of worker processes, or 0 to read the data in the "
            "process that trains."
        )
        args.dataloader_num_workers = 0


def _trackers() -> list[str]:
    from transformers.integrations import INTEGRATION_TO_CALLBACK

    return ["all", "none", *INTEGRATION_TO_CALLBACK]


def _plain(value: Any) -> Any:
    return getattr(value, "value", value)
