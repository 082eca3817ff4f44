# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Statistics that a training logs: between two log steps, and over the whole run."""

import math
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import find_batch_size
from torch import nn
from transformers.trainer_utils import speed_metrics


def count_rows(inputs: dict[str, Any]) -> int:
    """Count the rows of a batch, or the documents in its packed rows."""
    if "attention_mask" not in inputs and "position_ids" in inputs:
        return int((inputs["position_ids"] == 1).sum())  # not 0, which is the position of padding too
    return find_batch_size(inputs)


def _float_dtype(device: torch.device) -> torch.dtype:
    """Return the largest floating-point type of a device."""
    return torch.float32 if device.type == "mps" else torch.float64


def _peak_memory(device: torch.device) -> int | None:
    """Return the most bytes that a GPU had in use, or without one this process; `None` where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type != "cpu" or sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 2**10


def from_json(value: float | None) -> float:
    """Return a number that JSON, which has no NaN, keeps as `null`."""
    return math.nan if value is None else value


class RunStatistics:
    """
    Totals of this process since the run began, including the part before it was resumed.

    Only `check`, `summary` and `state` wait for the accelerator. They are called where the stock loop waits anyway.

    Args:
        device (`torch.device`): The device of the losses.
        max_non_finite_steps (`int`): See [`FlamingoTrainingArguments`].
    """

    def __init__(self, device: torch.device, max_non_finite_steps: int):
        self.max_non_finite_steps = max_non_finite_steps
        self.rows = self.rows_before = 0
        self._loss = torch.zeros((), dtype=_float_dtype(device), device=device)
        self._non_finite_steps = torch.zeros((), dtype=torch.long, device=device)
        self._step_is_finite: torch.Tensor | None = None

    def add_loss(self, loss: torch.Tensor) -> None:
        """Count the loss of a micro-batch, weighted as it is trained."""
        self._loss += loss
        is_finite = loss.isfinite()
        self._step_is_finite = is_finite if self._step_is_finite is None else self._step_is_finite & is_finite

    def end_step(self) -> None:
        """Count the micro-batches since the last call as one optimizer step."""
        if self._step_is_finite is not None:
            self._non_finite_steps = torch.where(self._step_is_finite, 0, self._non_finite_steps + 1)
            self._step_is_finite = None

    def check(self, accelerator: Accelerator, step: int) -> None:
        """
        Raise an error if the training has failed for good. Every process calls this.

        Raises:
            ValueError: the loss of too many consecutive steps is NaN or infinite.
        """
        self.end_step()
        has_failed = accelerator.reduce((self._non_finite_steps >= self.max_non_finite_steps).long(), reduction="sum")
        if has_failed.item():
            raise ValueError(
                f"The loss has been NaN or infinite for the last {max(int(self._non_finite_steps), self.max_non_finite_steps)} "
                f"optimizer steps up to step {step}, so the training is stopped: the model would not learn anything from here "
                "on. Lower `learning_rate` or `gate_learning_rate_multiplier`, lower `max_grad_norm`, or train in `bf16` instead "
                "of `fp16`, and resume from the last checkpoint, whose weights are finite, with `resume_from_checkpoint`. "
                "(`max_non_finite_steps` sets the number of steps.)"
            )

    def summary(self, accelerator: Accelerator, start_time: float, steps: int, steps_before: int) -> dict[str, float]:
        """
        Compute the entries of the summary at the end of the training. Every process calls this.

        Args:
            start_time (`float`): When this call of `train` began, as `time.time()`.
            steps (`int`): Number of optimizer steps of the run.
            steps_before (`int`): How many of them were done when this call began.

        Returns:
            `dict`: `train_loss`, the mean over all steps of the run, and the speed of this call: `train_runtime` (seconds),
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
        """Return the part that a checkpoint keeps."""
        return {"rows": self.rows, "loss": self._loss.item()}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from the `state` in a checkpoint."""
        self.rows = self.rows_before = state["rows"]
        self._loss.fill_(from_json(state["loss"]))


class LogAccumulator:
    """
    Accumulates metrics of this process between two log steps.

    Args:
        sources (`Sequence[str]`): Names of the sources of the mixture, or none for another dataset.
    """

    def __init__(self, sources: Sequence[str] = ()):
        self.sources = list(sources)
        self.reset()

    def reset(self) -> None:
        """Set all counts to 0 and restart the clock."""
        # For each source, the sum of the losses of its micro-batches and the number of steps that had any
        self.losses: list[torch.Tensor | float] = [0.0] * len(self.sources)
        self.steps = torch.zeros(len(self.sources), dtype=torch.long)
        self.tokens = self.images = 0
        self.start = time.perf_counter()

    def count(self, batches: Sequence[dict[str, Any]]) -> None:
        """Count the tokens and images of micro-batches, without padding."""
        for inputs in batches:
            if "attention_mask" in inputs:
                self.tokens += int(inputs["attention_mask"].sum())
            elif "position_ids" in inputs:  # packed: position 0 is the first token of a document, or padding
                self.tokens += int((inputs["position_ids"] > 0).sum() + (inputs["position_ids"] == 1).sum())
            mask = inputs.get("frame_attention_mask")
            self.images += int(mask.sum()) if mask is not None else 0

    def add_loss(self, source: int, loss: torch.Tensor) -> None:
        """Count the loss of a micro-batch of a source, without its weight."""
        self.losses[source] = self.losses[source] + loss

    def pop(self, accelerator: Accelerator, skipped: Mapping[str, int]) -> dict[str, float]:
        """
        Compute the entries of a log step, over all processes, and reset the counts. Every process calls this.

        Args:
            skipped (`dict`): For each source the number of rows that were skipped in the whole run, by any process.

        Returns:
            `dict`: `loss/<source>` and `skipped/<source>` where there is something to report, `tokens_per_second`,
            `images_per_second` and `peak_memory_gb`.
        """
        device = accelerator.device
        sums = torch.tensor([self.tokens, self.images, *map(float, self.losses)], dtype=_float_dtype(device))
        tokens, images, *losses = accelerator.reduce(sums.to(device), reduction="sum").tolist()
        seconds = max(time.perf_counter() - self.start, 1e-9)
        steps = self.steps.tolist()
        entries = {f"loss/{name}": losses[i] / steps[i] for i, name in enumerate(self.sources) if steps[i]}
        entries |= {f"skipped/{name}": skipped[name] for name in self.sources if skipped.get(name)}
        entries |= {"tokens_per_second": tokens / seconds, "images_per_second": images / seconds}
        if (peak := _peak_memory(device)) is not None:
            entries["peak_memory_gb"] = peak / 2**30
        self.reset()
        return entries

    def state(self) -> dict[str, Any]:
        """Return the part that a checkpoint keeps."""
        return {"losses": [float(loss) for loss in self.losses], "steps": self.steps.tolist()}

    def load(self, state: dict[str, Any]) -> None:
        """Continue from the `state` in a checkpoint."""
        self.losses = [from_json(loss) for loss in state["losses"]]
        self.steps = torch.tensor(state["steps"], dtype=torch.long)


def check_weights_are_finite(parameters: Iterable[nn.Parameter], accelerator: Accelerator) -> None:
    """
    Raise an error if a trained weight is NaN or infinite. Every process calls this.

    Raises:
        ValueError: a trained weight is NaN or infinite.
    """
    tensors = [p.detach() for p in parameters if p.requires_grad]
    tensors = [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors]
    flags = [tensor.isfinite().all() for tensor in tensors if tensor.numel()]
    is_finite = torch.stack([flag.to(accelerator.device) for flag in flags]).all() if flags else torch.tensor(True)
    num_bad = accelerator.reduce((~is_finite).long().to(accelerator.device), reduction="sum")
    if num_bad.item():
        raise ValueError(
            "Weights of the model have become NaN or infinite, so the model is not saved and not published; what was saved "
            "before stays. Lower `learning_rate` or `gate_learning_rate_multiplier`, and resume from the last checkpoint with "
            "`resume_from_checkpoint`."
        )
