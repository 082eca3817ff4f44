# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""What to watch while a Flamingo trains."""

import math
from collections.abc import Callable, Iterable

from torch import nn
from transformers import TrainerCallback


def gate_values(model: nn.Module) -> dict[str, list[float]]:
    """`{"attn": [...], "ffn": [...]}`: tanh of the gates, in the order of the layers; empty where there are none.

    Sharded gates are gathered.
    """
    values = {}
    for kind in ("attn", "ffn"):
        gates = [
            parameter.detach()
            for name, parameter in model.named_parameters()
            if name.endswith(f"{kind}_gate") and ".original_module." not in name  # peft keeps an untrained copy
        ]
        gates = [gate.full_tensor() if hasattr(gate, "full_tensor") else gate for gate in gates]
        values[kind] = [gate.float().tanh().item() for gate in gates]
    return values


class GateHistoryCallback(TrainerCallback):
    """
    Records how far the gates are open, every `logging_steps` steps.

    `history` is a list of `{"step": int, "attn": [...], "ffn": [...]}` with `tanh(gate)` of each gated block, in the
    order of the layers (paper, figure 6). A gate that stays at 0 is a block the model does not use. The lists of a
    model without gates are empty.
    """

    def __init__(self):
        self.history: list[dict] = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        self._record(state.global_step, model)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        every = state.logging_steps
        if (every and state.global_step % every == 0) or state.global_step == state.max_steps:
            self._record(state.global_step, model)

    def _record(self, step: int, model) -> None:
        self.history.append({"step": step, **gate_values(getattr(model, "module", model))})


class EpochCallback(TrainerCallback):
    """
    Keep `state.epoch` true where the stock loop, which does not know the length of its data, counts the run as one epoch.

    Args:
        count_epochs (`Callable[[], float | None]`): Passes over the data since the run began; `None` if it is not known.
    """

    def __init__(self, count_epochs: Callable[[], float | None]):
        self.count_epochs = count_epochs

    def on_step_end(self, args, state, control, **kwargs):
        epoch = self.count_epochs()
        if epoch is not None:
            state.epoch = epoch

    on_train_begin = on_step_end


class StopAtNaNCallback(TrainerCallback):
    """
    Stop a training of the stock `Trainer` that has failed for good.

    Args:
        max_non_finite_logs (`int`): Number of logs in a row whose loss, or norm of the gradient, is NaN or infinite.

    Raises:
        ValueError: that number is reached.
    """

    def __init__(self, max_non_finite_logs: int = 3):
        self.max_non_finite_logs = max_non_finite_logs
        self.count = 0

    def on_log(self, args, state, control, logs=None, **kwargs):
        if "loss" not in (logs or {}):
            return
        # In half precision, gradients overflow now and then until the scale fits: such a step is skipped
        values = [float(logs["loss"]), 0.0 if args.fp16 else float(logs.get("grad_norm", 0.0))]
        self.count = 0 if all(map(math.isfinite, values)) else self.count + 1
        if self.count >= self.max_non_finite_logs:
            raise ValueError(
                f"The loss or the norm of its gradient was NaN or infinite in the last {self.count} logs up to step "
                f"{state.global_step}, so the training is stopped: nothing is learned from here on. Lower `learning_rate`, or "
                "train in `bf16` instead of `fp16`."
            )


def close_progress_bars(callbacks: Iterable[TrainerCallback]) -> None:
    """Close the bars that a training left open, so that an error does not begin in the line of one."""
    for callback in callbacks:
        for bar in (getattr(callback, "training_bar", None), getattr(callback, "prediction_bar", None)):
            if hasattr(bar, "close"):
                bar.close()
