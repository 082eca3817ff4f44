# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Find schedules that cannot work, before the first step."""

import math
from collections.abc import Sequence

from transformers import SchedulerType, TrainingArguments

from ..utils.names import count_of
from .arguments import FlamingoTrainingArguments
from .data_source import DataSource


#: The learning rates of optimizers whose steps do not depend on the size of the gradient. Outside of them, weights are destroyed in
#: the first steps, or do not change in the precision of a float.
MIN_LEARNING_RATE, MAX_LEARNING_RATE = 1e-7, 1e-1
#: A gate is trained through tanh: at a rate above this, the first step can open it for good.
MAX_GATE_LEARNING_RATE = 1.0

_NORMALIZED_OPTIMIZERS = ("adam", "lion")
_WITHOUT_WARMUP = (SchedulerType.CONSTANT, SchedulerType.REDUCE_ON_PLATEAU)


def check_schedule(
    args: FlamingoTrainingArguments, max_steps: int, *, has_own_optimizer: bool = False, has_gates: bool = True
) -> None:
    """
    Check that the schedule of a run can work.

    Args:
        args ([`FlamingoTrainingArguments`]): The arguments of the trainer.
        max_steps (`int`): Number of optimizer steps of the run.
        has_own_optimizer (`bool`, *optional*, defaults to `False`):
            Whether the trainer was given an optimizer, whose learning rates are not those of the arguments.
        has_gates (`bool`, *optional*, defaults to `True`): Whether the model has gates.

    Raises:
        ValueError: it cannot. The message has all reasons.
    """
    problems = [*_find_warmup_problems(args, max_steps), *_find_evaluation_problems(args, max_steps)]
    if not has_own_optimizer:
        problems = [*_find_learning_rate_problems(args, has_gates), *problems]
    if problems:
        raise ValueError(" ".join(problems))


def find_doubts(args: FlamingoTrainingArguments, max_steps: int) -> list[str]:
    """
    Return a sentence for each setting that a run can have, but hardly means.

    Args:
        args ([`FlamingoTrainingArguments`]): The arguments of the trainer.
        max_steps (`int`): Number of optimizer steps of the run.
    """
    doubts = []
    logging_steps = _count_steps(args.logging_steps, max_steps)
    if args.logging_strategy == "steps" and logging_steps > max_steps and not args.logging_first_step:
        doubts.append(
            f"`logging_steps` is {args.logging_steps:g}, but the run has {count_of(max_steps, 'optimizer step')}, so no loss is logged and a loss "
            f"of NaN is noticed at the end. Lower `logging_steps` to at most {max_steps}."
        )
    if args.eval_strategy == "steps" and args.eval_delay > max_steps:
        doubts.append(
            f"`eval_delay` is {args.eval_delay:g}, but the run has {count_of(max_steps, 'optimizer step')}, so nothing is evaluated during the "
            "training. Lower `eval_delay`."
        )
    return doubts


def count_epoch_steps(
    args: TrainingArguments, sources: Sequence[DataSource], num_rows: int | None, micro_batches: int
) -> int:
    """
    Count the optimizer steps of `num_train_epochs` passes over the only source of a mixture.

    Args:
        args (`TrainingArguments`): The arguments of the trainer.
        sources (`list[DataSource]`): The sources of the mixture.
        num_rows (`int`, *optional*): Number of rows of the source, `None` for a stream.
        micro_batches (`int`): Micro-batches of a source per optimizer step.

    Raises:
        ValueError: there are several sources, or the source is streamed, so that the length of a pass is unknown.
    """
    source, *others = sources
    if others or num_rows is None:
        raise ValueError(
            "`max_steps` is not given, and the length of an epoch is known only for a single source that is not streamed, "
            f"but the mixture has {[source.name for source in sources]}. Set `max_steps`."
        )
    return math.ceil(args.num_train_epochs * num_rows / (source.batch_size * micro_batches * args.world_size))


def describe_many_answers(num_answers: int, max_steps: int, rows_per_step: float, *, at_least: bool = False) -> str:
    """
    Say that a source has more answers to tell apart than the run has steps, and what to do.

    Args:
        num_answers (`int`): Number of different answers.
        max_steps (`int`): Number of optimizer steps of the run.
        rows_per_step (`float`): Rows of the source in a step, over all processes.
        at_least (`bool`, *optional*, defaults to `False`): Whether there may be more answers than were counted.
    """
    seen = max_steps * rows_per_step / num_answers
    return (
        f"there are {'at least ' if at_least else ''}{num_answers:,} different answers, but the run has {count_of(max_steps, 'optimizer step')} of "
        f"{rows_per_step:g} rows, so an answer is seen {'at most ' if at_least else ''}{seen:.1f} times on average. In so few steps a "
        "model learns which answers there are, and hardly which image has which. Raise `max_steps`, or train on fewer answers."
    )


def _find_warmup_problems(args: FlamingoTrainingArguments, max_steps: int) -> list[str]:
    warmup = args.get_warmup_steps(max_steps)
    if args.lr_scheduler_type in _WITHOUT_WARMUP and warmup:
        return [
            f"`lr_scheduler_type` is {args.lr_scheduler_type.value!r}, which has no warm-up, so `warmup_steps` "
            f"({args.warmup_steps:g}) would have no effect. Choose 'constant_with_warmup', or remove `warmup_steps`."
        ]
    if warmup and warmup >= max_steps:
        return [
            f"`warmup_steps` is {args.warmup_steps:g} and the run has {count_of(max_steps, 'optimizer step')}, so it would end before the "
            f"learning rate reaches `learning_rate` ({args.learning_rate:g}). Lower `warmup_steps`, to {max_steps // 10} for example, or "
            "raise `max_steps`."
        ]
    return []


def _find_evaluation_problems(args: FlamingoTrainingArguments, max_steps: int) -> list[str]:
    if args.load_best_model_at_end and args.eval_strategy == "steps" and args.eval_delay > max_steps:
        return [
            f"`load_best_model_at_end` is set, but `eval_delay` is {args.eval_delay:g} and the run has {count_of(max_steps, 'optimizer step')}, so "
            "nothing is evaluated and no model is the best. Lower `eval_delay`, or remove `load_best_model_at_end`."
        ]
    return []


def _find_learning_rate_problems(args: FlamingoTrainingArguments, has_gates: bool) -> list[str]:
    if not any(name in str(getattr(args.optim, "value", args.optim)).lower() for name in _NORMALIZED_OPTIMIZERS):
        return []  # what is usual differs by orders of magnitude
    rate, multiplier = args.learning_rate, args.gate_learning_rate_multiplier
    problems = []
    if not MIN_LEARNING_RATE <= rate <= MAX_LEARNING_RATE:
        effect = (
            "no weight would change" if rate < MIN_LEARNING_RATE else "the weights would be lost in the first steps"
        )
        problems.append(
            f"`learning_rate` is {rate:g}, so {effect}. Usual are 1e-5 to 1e-2; at least {MIN_LEARNING_RATE:g} and at most "
            f"{MAX_LEARNING_RATE:g} are accepted."
        )
    elif has_gates and rate * multiplier > MAX_GATE_LEARNING_RATE:
        problems.append(
            f"The gates would have the learning rate {rate * multiplier:g} (`learning_rate` {rate:g} times "
            f"`gate_learning_rate_multiplier` {multiplier:g}), so the first step could open them for good. Lower the multiplier to at most "
            f"{MAX_GATE_LEARNING_RATE / rate:g}."
        )
    elif has_gates and rate * multiplier < MIN_LEARNING_RATE:
        problems.append(
            f"The gates would have the learning rate {rate * multiplier:g} (`learning_rate` {rate:g} times "
            f"`gate_learning_rate_multiplier` {multiplier:g}), so they would not move. Raise the multiplier."
        )
    return problems


def _count_steps(value: float, max_steps: int) -> float:
    """Return a number of steps that may be given as a share of the run."""
    return math.ceil(max_steps * value) if value < 1 else value
