# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Measure in the stock `Trainer` whether the model uses its images, and warn when it does not."""

from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from ..modeling_flamingo import FlamingoModel
from .adapters import without_adapters
from .image_use import measure_image_use
from .image_use_history import ImageUseHistory, choose_interval, count_settling_steps, name_branches


class ImageUseCallback(TrainerCallback):
    """
    Measures for the stock `Trainer` whether the model uses its images, as [`FlamingoTrainer`] does by itself.

    The last micro-batch of a step is measured after the step, in the main process ([`measure_image_use`]). When, after the
    warm-up and a quarter of the run (at most 500 steps), the loss is the same with other images, this is said in words, and again at the end. Pass it as
    `Trainer(..., callbacks=[ImageUseCallback()])`. It cannot measure a model whose weights are sharded: [`FlamingoTrainer`] can.

    Args:
        steps (`int`, *optional*): Every how many optimizer steps to measure: `image_use_steps` of [`FlamingoTrainingArguments`].

    Attributes:
        history (`list[dict]`): What [`FlamingoTrainer`] would log: `step`, the losses and the branches.
        verdict ([`ImageUseHistory`]): Whether the images are used; its `summary()` has the numbers and the words.
    """

    def __init__(self, steps: int | None = None):
        self.steps = steps
        self.history: list[dict[str, float]] = []
        self.verdict = ImageUseHistory([""])
        self._inputs: dict[str, Any] | None = None
        self._hook: Any = None

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        """
        Begin to keep the inputs of the last micro-batch.

        Raises:
            ValueError: the model is not a [`FlamingoModel`], or its weights are sharded.
        """
        flamingo = _unwrap(model)
        if not isinstance(flamingo, FlamingoModel):
            raise ValueError(
                f"ImageUseCallback got a {type(flamingo).__name__}, but it measures whether a FlamingoModel uses its images. Remove it."
            )
        if any(isinstance(parameter.data, DTensor) for parameter in flamingo.parameters()):
            raise ValueError(
                "The weights of the model are sharded, and ImageUseCallback measures in one process, which would wait for the "
                "others forever. Use FlamingoTrainer, which measures in all processes, or remove the callback."
            )
        if state.is_world_process_zero:
            self._hook = flamingo.register_forward_pre_hook(self._keep, with_kwargs=True)

    def _keep(self, model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Keep the inputs of a training forward."""
        if model.training and torch.is_grad_enabled():
            self._inputs = kwargs

    def on_step_end(self, args, state, control, model=None, **kwargs):
        """Measure, if that is due, and say when the images begin or cease to be used."""
        inputs, self._inputs = self._inputs, None
        interval = choose_interval(self.steps, state.max_steps)
        if inputs is None or not self.verdict.is_due("", state.global_step, interval, state.max_steps):
            return
        flamingo = _unwrap(model)
        measurement = measure_image_use(flamingo, inputs)
        if measurement is None:
            return
        was_used = self.verdict.is_used
        self.verdict.add("", measurement)
        settling_steps = count_settling_steps(args, state.max_steps)
        entries = self.verdict.pop(None, state.global_step, settling_steps, name_branches(flamingo))
        self.history.append({"step": state.global_step, **entries})
        self.verdict.announce(was_used, state.global_step)

    def on_train_end(self, args, state, control, **kwargs):
        """Repeat that the images are not used."""
        if self._hook is not None:
            self._hook.remove()
        self._hook = self._inputs = None
        self.verdict.announce_end(state.global_step)


def _unwrap(model: nn.Module) -> nn.Module:
    """Return the model that distributed training and PEFT wrap."""
    return without_adapters(getattr(model, "module", model))
