# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Stop a training on Ctrl-C and SIGTERM: after the current step, with a checkpoint, and with a word on how to go on.

`enable_jit_checkpoint` of `Trainer` saves on SIGTERM in the middle of a step, whose batches were read and whose gradients are
lost, so a resumed run would skip them. Here the step is finished, and all processes stop after the same one.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput
from transformers.utils import logging


logger = logging.get_logger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)
#: A launcher passes Ctrl-C on to processes that the terminal has already sent it to: so soon, it is the same Ctrl-C.
SAME_SECONDS = 3.0
#: A worker outlives a SIGTERM by this many seconds, in which the training finishes its step and saves.
WORKER_SECONDS = 120


class TrainingInterrupted(KeyboardInterrupt):
    """
    The training was stopped by a signal, and has saved a checkpoint.

    Args:
        message (`str`): What happened, and how to go on.
        signal_number (`int`): The signal.
    """

    def __init__(self, message: str, signal_number: int):
        super().__init__(message)
        self.signal_number = signal_number


class InterruptionCallback(TrainerCallback):
    """
    Stops a training after the step in which a process gets SIGINT (Ctrl-C) or SIGTERM, as soon as a checkpoint is saved.

    A second Ctrl-C stops at once, without a checkpoint. An evaluation that is due at that step is left out: what sends SIGTERM
    may not wait for it.

    Args:
        accelerator (`Accelerator`): Of the trainer: the processes agree on the step.
    """

    def __init__(self, accelerator: Accelerator):
        self.accelerator = accelerator
        self.received: int | None = None
        self._stops = False
        self._since = 0.0
        self._process = os.getpid()
        self._previous: dict[int, Any] = {}

    def on_train_begin(self, args, state, control, **kwargs):
        """Listen to the signals. Python lets only the main thread do that."""
        self.received, self._stops, self._process = None, False, os.getpid()
        if not self._previous and threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._receive) for number in SIGNALS}

    def on_step_end(self, args, state, control, **kwargs):
        """Let the loop save and stop, if any process got a signal."""
        received = self.received or 0
        if args.world_size > 1:
            numbers = torch.tensor([received], device=args.device)
            received = int(self.accelerator.gather(numbers).max())
        if received:
            self.received, self._stops = received, True
            control.should_save, control.should_evaluate, control.should_training_stop = True, False, True

    def on_save(self, args, state, control, **kwargs):
        """
        End the training, when the checkpoint is complete.

        Raises:
            TrainingInterrupted: always, after a signal.
        """
        if not self._stops:
            return
        self.restore()
        name = "Ctrl-C" if self.received == signal.SIGINT else signal.Signals(self.received).name
        checkpoint = Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        remedy = "To go on, give the same command with `--resume_from_checkpoint auto`."
        if args.save_only_model:
            remedy = (
                "It cannot be resumed, because `save_only_model` leaves the optimizer out. Train from it: `--model`."
            )
        raise TrainingInterrupted(
            f"stopped by {name} after step {state.global_step} of {state.max_steps}. {checkpoint} is complete. {remedy}",
            self.received,
        )

    def restore(self) -> None:
        """Give the signals back to who had them before the training."""
        for number, handler in self._previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self._previous = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        # A worker that was forked from the process of the training, which needs it until the step is done
        if os.getpid() != self._process:
            return
        if self.received is None:
            self.received, self._since = number, time.monotonic()
            if self.accelerator.is_main_process:
                again = " Ctrl-C once more stops at once, without it." if number == signal.SIGINT else ""
                logger.warning(f"Stopping after this step, with a checkpoint.{again}")
        elif number == signal.SIGINT and time.monotonic() - self._since > SAME_SECONDS * (
            self.accelerator.num_processes > 1
        ):
            self.restore()
            raise KeyboardInterrupt


class InterruptionMixin:
    """Mixin of `Trainer`: what `enable_jit_checkpoint` does in [`FlamingoTrainer`], and `flamingo train` always."""

    _interruption: InterruptionCallback | None = None

    def __init__(self, model: Any, args: Any, *others: Any, **kwargs: Any):
        is_enabled, args.enable_jit_checkpoint = args.enable_jit_checkpoint, False  # else the stock one would be added
        super().__init__(model, args, *others, **kwargs)
        self.args.enable_jit_checkpoint = is_enabled
        if is_enabled:
            self.stop_on_signals()

    def stop_on_signals(self) -> None:
        """Let Ctrl-C and SIGTERM end `train` with a checkpoint and a [`TrainingInterrupted`]."""
        if self._interruption is None:
            self._interruption = InterruptionCallback(self.accelerator)
            self.add_callback(self._interruption)

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train as `Trainer.train` does, and give the signals back however it ends."""
        try:
            return super().train(*args, **kwargs)
        finally:
            if self._interruption is not None:
                self._interruption.restore()


@contextmanager
def stopping_on_signals(trainer: Trainer, is_wanted: bool = True) -> Iterator[None]:
    """
    Let Ctrl-C and SIGTERM end the training of a stock `Trainer` as [`InterruptionMixin`] does, for as long as the block lasts.

    Args:
        trainer (`Trainer`): The trainer.
        is_wanted (`bool`, *optional*, defaults to `True`): Otherwise nothing happens.

    Raises:
        TrainingInterrupted: a signal ended the training, which has saved a checkpoint.
    """
    if not is_wanted:
        yield
        return
    callback = InterruptionCallback(trainer.accelerator)
    trainer.add_callback(callback)
    make_loader = trainer.get_train_dataloader

    def make_outliving_loader() -> DataLoader:
        loader = make_loader()
        loader.worker_init_fn = partial(_start_worker, then=loader.worker_init_fn)
        return loader

    trainer.get_train_dataloader = make_outliving_loader
    try:
        yield
    finally:
        callback.restore()
        del trainer.get_train_dataloader


def _start_worker(worker: int, then: Callable[[int], None] | None) -> None:
    outlive_signals(worker)
    if then is not None:
        then(worker)


def outlive_signals(worker: int) -> None:
    """
    Let a worker of a `DataLoader` outlive Ctrl-C and SIGTERM, which terminals and clusters send to all processes of a run.

    The training needs it until its step is done. It ends its workers itself, and they notice when it is gone.

    Args:
        worker (`int`): Its number.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Not ignored for good: a worker that hangs is ended by a SIGTERM of its parent, which waits for it
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(WORKER_SECONDS))
