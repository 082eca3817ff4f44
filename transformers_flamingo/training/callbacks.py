# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Training callbacks."""

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any

from torch import nn
from transformers import EarlyStoppingCallback, PrinterCallback, ProgressCallback, Trainer, TrainerCallback


def gate_values(model: nn.Module) -> dict[str, list[float]]:
    """
    Return tanh of the gates, gathered where they are sharded.

    Returns:
        `dict`: `{"attn": [...], "ffn": [...]}`, each in the order of the layers; empty lists for a model without gates.
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
    order of the layers (paper, figure 6). A gate that stays at 0 is a block that the model does not use. The lists of a
    model without gates are empty.
    """

    def __init__(self):
        self.history: list[dict] = []

    def on_train_begin(self, args, state, control, model=None, **kwargs):
        """Record the gates before the first step."""
        self._record(state.global_step, model)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        """Record the gates every `logging_steps` steps and after the last step."""
        every = state.logging_steps
        if (every and state.global_step % every == 0) or state.global_step == state.max_steps:
            self._record(state.global_step, model)

    def _record(self, step: int, model) -> None:
        """Add an entry to the history."""
        self.history.append({"step": step, **gate_values(getattr(model, "module", model))})


class EpochCallback(TrainerCallback):
    """
    Corrects `state.epoch`: the stock loop does not know the length of a mixture and counts the whole run as one epoch.

    Args:
        count_epochs (`Callable[[], float | None]`):
            Returns the passes over the data since the run began, or `None` if their number is unknown.
    """

    def __init__(self, count_epochs: Callable[[], float | None]):
        self.count_epochs = count_epochs

    def on_step_end(self, args, state, control, **kwargs):
        """Set the epoch, unless it is unknown."""
        epoch = self.count_epochs()
        if epoch is not None:
            state.epoch = epoch

    on_train_begin = on_step_end


class ResumeCallback(TrainerCallback):
    """
    Restores what the stock loop sets to 0 when it begins, after it has done so.

    Args:
        resume (`Callable[[], None]`): Restores it.
    """

    def __init__(self, resume: Callable[[], None]):
        self.resume = resume

    def on_train_begin(self, args, state, control, **kwargs):
        """Restore it: nothing has been trained or evaluated yet."""
        self.resume()


class EarlyStopping(EarlyStoppingCallback):
    """
    Stops a training whose metric does not get better, as `EarlyStoppingCallback` does.

    It counts from the log, so a run that is resumed stops where the uninterrupted run does, and it needs no
    `load_best_model_at_end`. Evaluations of other held-out data do not count.
    """

    def on_train_begin(self, args, state, control, **kwargs):
        """Count the evaluations before the run was resumed."""
        self.early_stopping_patience_counter = 0
        best, state.best_metric = state.best_metric, None
        for entry in state.log_history:
            if (value := entry.get(_metric_name(args))) is not None:
                self.check_metric_value(args, state, control, value)
                is_better = state.best_metric is None or (value > state.best_metric) == bool(args.greater_is_better)
                state.best_metric = value if is_better else state.best_metric
        state.best_metric = best

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        """Count this evaluation, if it has the metric."""
        if _metric_name(args) in metrics:
            super().on_evaluate(args, state, control, metrics, **kwargs)


def _metric_name(args: Any) -> str:
    return f"eval_{args.metric_for_best_model.removeprefix('eval_')}"


def summarize_layers(logs: dict[str, Any]) -> dict[str, Any]:
    """Return logs with the mean and the range of the gates and branches, instead of those of each layer."""
    values: dict[str, list[float]] = defaultdict(list)
    for name, value in logs.items():
        if (found := re.fullmatch(r"((?:gate|branch)/\w+)/\d+", name)) is not None:
            values[found[1]].append(value)
    if not any(len(layers) > 1 for layers in values.values()):
        return logs
    rest = {name: value for name, value in logs.items() if name.rpartition("/")[0] not in values}
    return rest | {
        name: f"{sum(layers) / len(layers):.3g} ({min(layers):.3g} to {max(layers):.3g})"
        for name, layers in values.items()
    }


class _SummarizedProgress(ProgressCallback):
    def on_log(self, args, state, control, logs=None, **kwargs):
        super().on_log(args, state, control, logs=summarize_layers(logs), **kwargs)


class _SummarizedPrinter(PrinterCallback):
    def on_log(self, args, state, control, logs=None, **kwargs):
        if state.is_world_process_zero:  # the stock one prints on each machine
            super().on_log(args, state, control, logs=dict(summarize_layers(logs)), **kwargs)


def summarize_printed_logs(trainer: Trainer) -> None:
    """Let a trainer print [`summarize_layers`]. Its log, its report and trackers such as TensorBoard have all layers."""
    for stock, own in ((ProgressCallback, _SummarizedProgress), (PrinterCallback, _SummarizedPrinter)):
        if trainer.pop_callback(stock) is not None:
            trainer.add_callback(own)


class StopAtNaNCallback(TrainerCallback):
    """
    Stops a training of the stock `Trainer` that has failed for good.

    Args:
        max_non_finite_logs (`int`): Number of consecutive logs with a NaN or infinite loss or norm of the gradient.

    Raises:
        ValueError: that number is reached.
    """

    def __init__(self, max_non_finite_logs: int = 3):
        self.max_non_finite_logs = max_non_finite_logs
        self.count = 0

    def on_log(self, args, state, control, logs=None, **kwargs):
        """Count consecutive logs that are not finite, and raise an error when there are too many."""
        if "loss" not in (logs or {}):
            return
        # In half precision, gradients overflow now and then until the loss scale fits: such a step is skipped
        values = [float(logs["loss"]), 0.0 if args.fp16 else float(logs.get("grad_norm", 0.0))]
        self.count = 0 if all(map(math.isfinite, values)) else self.count + 1
        if self.count >= self.max_non_finite_logs:
            raise ValueError(
                f"The loss or the norm of its gradient was NaN or infinite in the last {self.count} logs up to step "
                f"{state.global_step}, so the training is stopped: the model would not learn anything from here on. Lower "
                "`learning_rate`, or train in `bf16` instead of `fp16`."
            )


def close_progress_bars(callbacks: Iterable[TrainerCallback]) -> None:
    """Close the progress bars that a training left open, so that an error message starts on its own line."""
    for callback in callbacks:
        for bar in (getattr(callback, "training_bar", None), getattr(callback, "prediction_bar", None)):
            if hasattr(bar, "close"):
                bar.close()
