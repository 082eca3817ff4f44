# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Counts behind the figures that a training logs: between two logs, and over the whole run."""

import math
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from accelerate import Accelerator
from accelerate.utils import find_batch_size
from torch import nn
from transformers.trainer_utils import speed_metrics

from .callbacks import gate_values


if TYPE_CHECKING:
    from .trainer import FlamingoTrainer


def count_rows(inputs: dict[str, Any]) -> int:
    """Count the rows of a batch, or the documents in its packed rows."""
    if "attention_mask" not in inputs and "position_ids" in inputs:
        return int((inputs["position_ids"] == 1).sum())  # position 0 is padding too
    return find_batch_size(inputs)


def _float_dtype(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64


class RunFigures:
    """
    What this process has trained on since the run began, resumed or not.

    Nothing waits for the accelerator but `check`, `summary` and `state`, which are called where it is waited for anyway.

    Args:
        device (`torch.device`): Where losses are.
        max_non_finite_steps (`int`): See [`FlamingoTrainingArguments`].
    """

    def __init__(self, device: torch.device, max_non_finite_steps: int):
        self.max_non_finite_steps = max_non_finite_steps
        self.rows = self.rows_before = 0
        self._loss = torch.zeros((), dtype=_float_dtype(device), device=device)
        self._non_finite_steps = torch.zeros((), dtype=torch.long, device=device)
        self._step_is_finite: torch.Tensor | None = None

    def add_loss(self, loss: torch.Tensor) -> None:
        """Count the loss of a micro-batch, as it is trained."""
        self._loss += loss
        is_finite = loss.isfinite()
        self._step_is_finite = is_finite if self._step_is_finite is None else self._step_is_finite & is_finite

    def end_step(self) -> None:
        """Note that the micro-batches since the last call were those of one optimizer step."""
        if self._step_is_finite is not None:
            self._non_finite_steps = torch.where(self._step_is_finite, 0, self._non_finite_steps + 1)
            self._step_is_finite = None

    def check(self, accelerator: Accelerator, step: int) -> None:
        """
        Raise if the training has failed for good. Every process calls it.

        Raises:
            ValueError: the loss of too many steps in a row is NaN or infinite.
        """
        self.end_step()
        has_failed = accelerator.reduce((self._non_finite_steps >= self.max_non_finite_steps).long(), reduction="sum")
        if has_failed.item():
            raise ValueError(
                f"The loss has been NaN or infinite for the last {max(int(self._non_finite_steps), self.max_non_finite_steps)} "
                f"optimizer steps up to step {step}, so the training is stopped: nothing is learned from here on. Lower "
                "`learning_rate` or `gate_learning_rate_multiplier`, lower `max_grad_norm`, or train in `bf16` instead of "
                "`fp16`, and resume from the last checkpoint, whose weights are finite, with `resume_from_checkpoint`. "
                "(`max_non_finite_steps` sets the number of steps.)"
            )

    def summary(self, accelerator: Accelerator, start_time: float, steps: int, steps_before: int) -> dict[str, float]:
        """
        Return the entries of the summary at the end of the training. Every process calls it.

        Args:
            start_time (`float`): When this call of `train` began, as `time.time()`.
            steps (`int`): Optimizer steps of the run.
            steps_before (`int`): Those of them that were done when this call began.

        Returns:
            `train_loss`, the mean over all steps of the run, and speeds of this call: `train_runtime` (seconds),
            `train_samples_per_second` (rows over all processes) and `train_steps_per_second`.
        """
        rows = torch.tensor(float(self.rows - self.rows_before), dtype=self._loss.dtype, device=self._loss.device)
        loss, rows = accelerator.reduce(torch.stack([self._loss, rows]), reduction="sum").tolist()
        mean = loss / accelerator.num_processes / max(steps, 1)
        return {
            **speed_metrics("train", start_time, num_samples=rows, num_steps=steps - steps_before),
            "train_loss": mean,
        }

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of it."""
        return {"rows": self.rows, "loss": self._loss.item()}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from the `state` in a checkpoint."""
        self.rows = self.rows_before = state["rows"]
        self._loss.fill_(_number(state["loss"]))


def check_weights_are_finite(parameters: Iterable[nn.Parameter], accelerator: Accelerator) -> None:
    """
    Raise if a trained weight is NaN or infinite. Every process calls it, before a model is saved.

    Raises:
        ValueError: one is.
    """
    tensors = [p.detach() for p in parameters if p.requires_grad]
    tensors = [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors]
    flags = [tensor.isfinite().all() for tensor in tensors if tensor.numel()]
    is_finite = torch.stack([flag.to(accelerator.device) for flag in flags]).all() if flags else torch.tensor(True)
    num_bad = accelerator.reduce((~is_finite).long().to(accelerator.device), reduction="sum")
    if num_bad.item():
        raise ValueError(
            "Weights of the model have become NaN or infinite, so it is not saved and not published; what was saved before "
            "stays. Lower `learning_rate` or `gate_learning_rate_multiplier`, and resume from the last checkpoint with "
            "`resume_from_checkpoint`."
        )


def _number(value: float | None) -> float:
    return math.nan if value is None else value  # JSON has no NaN


class LogWindow:
    """Count between two logs. Losses are sums over this process's micro-batches, one for each source."""

    def __init__(self, num_sources: int):
        self._num_sources = num_sources
        self.restart()

    def restart(self) -> None:
        """Begin anew."""
        self.losses: list[torch.Tensor | float] = [0.0] * self._num_sources
        self.steps = torch.zeros(self._num_sources, dtype=torch.long)
        self.tokens = self.images = 0
        self.start = time.perf_counter()

    def count(self, batches: Sequence[dict[str, Any]]) -> None:
        """Count the tokens and images of micro-batches, padding aside."""
        for inputs in batches:
            if "attention_mask" in inputs:
                self.tokens += int(inputs["attention_mask"].sum())
            elif "position_ids" in inputs:  # packed: position 0 is the first of a document, or padding
                self.tokens += int((inputs["position_ids"] > 0).sum() + (inputs["position_ids"] == 1).sum())
            mask = inputs.get("frame_attention_mask")
            self.images += int(mask.sum()) if mask is not None else 0

    def add_loss(self, source: int, loss: torch.Tensor) -> None:
        """Count the loss of a micro-batch of a source, without its weight."""
        self.losses[source] = self.losses[source] + loss

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint keeps of it."""
        return {"losses": [float(loss) for loss in self.losses], "steps": self.steps.tolist()}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from the `state` in a checkpoint."""
        self.losses = [_number(loss) for loss in state["losses"]]
        self.steps = torch.tensor(state["steps"], dtype=torch.long)

    def drain(self, trainer: "FlamingoTrainer") -> dict[str, float]:
        """Return the entries for the log, over all processes, and begin anew. Every process calls it."""
        device = trainer.args.device
        names = [] if trainer.mixture is None else [source.name for source in trainer.mixture.sources]
        counts = [self.tokens, self.images, *(trainer._skipped.get(name, 0) for name in names)]
        sums = torch.tensor([*counts, *map(float, self.losses)], dtype=_float_dtype(device))
        sums = trainer.accelerator.reduce(sums.to(device), reduction="sum").tolist()
        (tokens, images), skipped, losses = sums[:2], sums[2 : len(counts)], sums[len(counts) :]
        seconds = max(time.perf_counter() - self.start, 1e-9)
        steps = self.steps.tolist()
        entries = {f"loss/{name}": losses[i] / steps[i] for i, name in enumerate(names) if steps[i]}
        entries.update({f"skipped/{name}": int(skipped[i]) for i, name in enumerate(names) if skipped[i]})
        entries.update({"tokens_per_second": tokens / seconds, "images_per_second": images / seconds})
        if device.type == "cuda":
            entries["peak_memory_gb"] = torch.cuda.max_memory_allocated(device) / 2**30
        model = trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)
        entries.update(
            {
                f"gate/{kind}/{layer}": value
                for kind, values in gate_values(model).items()
                for layer, value in zip(model.config.cross_attention_layer_indices, values, strict=bool(values))
            }
        )
        self.restart()
        return entries
