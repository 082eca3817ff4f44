# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Check before a training that what it will save fits on the disk."""

import math
import shutil
from pathlib import Path

from torch import nn
from transformers import TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging


logger = logging.get_logger(__name__)

# Bytes of optimizer state per byte of a trained parameter, by a part of the optimizer's name
_OPTIMIZER_STATES = {"8bit": 0.5, "4bit": 0.25, "adafactor": 0.1, "ademamix": 3.0, "adam": 2.0}


def estimate_checkpoint(model: nn.Module, args: TrainingArguments) -> tuple[int, int]:
    """
    Estimate the sizes of the saved model and of a checkpoint, in bytes.

    Args:
        model (`nn.Module`): The model, frozen as it is trained.
        args (`TrainingArguments`): The arguments of the trainer.
    """
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    everything = sum(p.numel() * p.element_size() for p in model.parameters())
    is_part = getattr(args, "save_trainable_only", False) or hasattr(model, "peft_config")
    weights = trained if is_part else everything
    optimizer = str(getattr(args.optim, "value", args.optim))
    states = next((size for name, size in _OPTIMIZER_STATES.items() if name in optimizer), 1.0)
    return weights, weights + (0 if args.save_only_model else int(states * trained))


def check_space(model: nn.Module, args: TrainingArguments, max_steps: int, first_step: int = 0) -> None:
    """
    Check that a checkpoint and the final model fit on the disk, and warn if all checkpoints that will be kept do not.

    Args:
        model (`nn.Module`): The model, frozen as it is trained.
        args (`TrainingArguments`): The arguments of the trainer.
        max_steps (`int`): Number of optimizer steps of the run.
        first_step (`int`, *optional*, defaults to 0): How many of them are done.

    Raises:
        OSError: they do not fit. The message has their size and the free space.
    """
    directory = Path(args.output_dir).absolute()
    place = next(path for path in (directory, *directory.parents) if path.exists())
    free = shutil.disk_usage(place).free
    weights, checkpoint = estimate_checkpoint(model, args)
    saves = _count_saves(args, max_steps) - _count_saves(args, first_step, max_steps)
    needed = weights + (checkpoint if saves else 0)
    remedies = "Free some space, give an `output_dir` on another disk, or save less: `save_trainable_only: true`"
    if needed > free:
        what = "A checkpoint and the model at the end take" if saves else "The model at the end takes"
        raise OSError(
            f"{what} about {format_size(needed)}, and the disk of {str(args.output_dir)!r} has {format_size(free)} left, so the training would "
            f"fail when it saves. Nothing was trained. {remedies}."
        )
    kept = saves if not args.save_total_limit else min(saves, args.save_total_limit + 1)
    reclaimed = sum(map(_folder_size, directory.glob(f"{PREFIX_CHECKPOINT_DIR}-*"))) if args.save_total_limit else 0
    if (total := weights + kept * checkpoint - reclaimed) > free:
        logger.warning(
            f"The {kept} checkpoints that are kept at a time and the model at the end take about {format_size(total)}, and the disk of "
            f"{str(args.output_dir)!r} has {format_size(free)} left. {remedies}, a lower `save_total_limit`, or less often (`save_steps`)."
        )


def _count_saves(args: TrainingArguments, steps: int, max_steps: int | None = None) -> int:
    """Count the checkpoints in the first `steps` steps of a run of `max_steps`."""
    if args.save_strategy == "no":
        return 0
    if args.save_strategy == "epoch":
        return math.ceil(args.num_train_epochs * steps / (max_steps or steps or 1))
    interval = args.eval_steps or 1 if args.save_strategy == "best" else args.save_steps
    interval = interval if interval >= 1 else max(1, math.ceil((max_steps or steps) * interval))
    # The last step is saved too
    return math.ceil(steps / interval) if max_steps is None else int(steps // interval)


def _folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def format_size(num_bytes: float) -> str:
    """Format a number of bytes in GB or MB."""
    return f"{num_bytes / 1e9:.1f} GB" if num_bytes >= 1e8 else f"{num_bytes / 1e6:.1f} MB"
