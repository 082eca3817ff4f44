# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Judge from the measurements of a run whether its model uses the images, and say so in words."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any, Literal

import torch
from accelerate import Accelerator
from transformers import TrainingArguments
from transformers.utils import logging

from ..modeling_flamingo import FlamingoModel
from .image_use import ImageUseMeasurement


logger = logging.get_logger(__name__)

Kind = Literal["other", "blank"]
_KINDS: tuple[Kind, ...] = ("other", "blank")
_NUM_SUMS = 4  # of a window: see `_sums`

#: Without `image_use_steps`, a run is measured this many times, but not more often than every 5th and at least every 50th step.
NUM_MEASUREMENTS, MIN_INTERVAL, MAX_INTERVAL = 20, 5, 50
#: How many of the last measurements of each process are judged, and how many are needed.
WINDOW, MIN_COUNT = 5, 3
#: Nothing is judged in the first part of a run, when any model learns the texts first: this share, and at most this number of steps.
SETTLING_SHARE, MAX_SETTLING_STEPS = 0.25, 500
#: The images are used if other images raise the loss by this much, absolutely and relatively.
MIN_DIFFERENCE, MIN_RELATIVE_DIFFERENCE = 0.01, 0.02

REMEDY = (
    "What helps: train longer; look at the data with `flamingo check` (do the images differ, and does the text depend on them?); "
    "lower `resampler_learning_rate_multiplier` to 0.1; raise `learning_rate`; standardize the features (`calibrate_features`), unless the log says that it was done; if the gates stay "
    "near 0 (`gate/...` in the log), let them start open (`cross_attention_zero_init: projections`), or raise "
    "`gate_learning_rate_multiplier`."
)


def choose_interval(image_use_steps: int | None, max_steps: int) -> int:
    """Return every how many optimizer steps to measure, which is `image_use_steps` if it is given; 0 for never."""
    if image_use_steps is not None:
        return image_use_steps
    return min(max(max_steps // NUM_MEASUREMENTS, MIN_INTERVAL), MAX_INTERVAL)


def count_settling_steps(args: TrainingArguments, max_steps: int) -> int:
    """Return during how many steps at the beginning nothing is judged: the warm-up, and the first part of the run."""
    return max(args.get_warmup_steps(max_steps), min(int(max_steps * SETTLING_SHARE), MAX_SETTLING_STEPS))


def name_branches(model: FlamingoModel) -> list[str]:
    """Return the names in the log of all branches of a model, in the order of an [`ImageUseMeasurement`]."""
    config = model.config
    kinds = ("attn", "ffn") if config.cross_attention_ffn_mult > 0 else ("attn",)
    return [f"branch/{kind}/{layer}" for kind in kinds for layer in config.cross_attention_layer_indices]


def _sums(measurement: ImageUseMeasurement) -> list[float]:
    """Return what is added up over measurements: their number, both losses, and the squared difference."""
    difference = measurement.swapped_loss - measurement.loss
    return [1.0, measurement.loss, measurement.swapped_loss, difference**2]


def _judge(sums: Sequence[float], min_count: int) -> bool | None:
    """Tell from summed measurements whether the images are used. `None`: they are too few, or too uncertain."""
    count, loss, swapped_loss, squares = sums
    if count < min_count:
        return None
    mean = (swapped_loss - loss) / count
    if mean < max(MIN_DIFFERENCE, MIN_RELATIVE_DIFFERENCE * loss / count):
        return False
    standard_error = math.sqrt(max(squares / count - mean**2, 0) / count)
    return True if mean >= 2 * standard_error else None


class ImageUseHistory:
    """
    The measurements of this process since the last log step, and the last ones of all processes, which are judged.

    A source is judged by itself, since pages may depend less on their images than captions. The images are used if any source
    uses them.

    Args:
        sources (`Sequence[str]`): Names of the sources of the mixture; `[""]` for another dataset.

    Attributes:
        is_used (`bool`, *optional*): Whether the images are used; `None` as long as it is not known.
        announced_at (`int`, *optional*): The step at which it was last said.
        judged_at (`int`, *optional*): The step of the last measurement that was judged.
    """

    def __init__(self, sources: Sequence[str]):
        self.sources = list(sources)
        self.is_used: bool | None = None
        self.judged_at: int | None = None
        self.announced_at: int | None = None
        self._last_step: dict[str, int] = {}
        self._windows: dict[str, list[list[float]]] = {}  # by source and kind; an entry is one log step
        self._reset()

    def _reset(self) -> None:
        """Forget the measurements since the last log step."""
        self._pending: dict[str, list[float]] = defaultdict(lambda: [0.0] * _NUM_SUMS)
        self._branches: list[float] = []
        self._num_branches = 0

    def is_due(self, source: str, step: int, interval: int, max_steps: int) -> bool:
        """
        Tell whether to measure the micro-batch of a source, and count this as done.

        It is the first one of the source in each interval, since sources may take turns, and the one of the last step.
        """
        last = self._last_step.get(source, 0)
        is_due = interval > 0 and step > last and (step // interval > last // interval or step == max_steps)
        if is_due:
            self._last_step[source] = step
        return is_due

    def add(self, source: str, measurement: ImageUseMeasurement) -> None:
        """Add a measurement of a source."""
        if not (math.isfinite(measurement.loss) and math.isfinite(measurement.swapped_loss)):
            return  # another check stops such a training
        sums = self._pending[_key(source, "blank" if measurement.is_blank else "other")]
        sums[:] = map(sum, zip(sums, _sums(measurement), strict=True))
        branches = [*measurement.attn, *measurement.ffn]
        self._branches = [a + b for a, b in zip(self._branches or [0.0] * len(branches), branches, strict=True)]
        self._num_branches += 1

    def pop(
        self, accelerator: Accelerator | None, step: int, settling_steps: int, branch_names: Sequence[str]
    ) -> dict[str, float]:
        """
        Compute the entries of a log step over all processes, and judge the last measurements. Every process calls this.

        Args:
            accelerator (`Accelerator`, *optional*): Adds up over the processes. `None`: this process is the only one.
            step (`int`): Number of optimizer steps of the run.
            settling_steps (`int`): During these steps, nothing is judged ([`count_settling_steps`]).
            branch_names (`list[str]`): For each branch of the gated blocks its name in the log.

        Returns:
            `dict`: `image_use/loss` and `image_use/loss_other_images` or `image_use/loss_blank_images`, with `/<source>` for
            the sources of a mixture, and the branches; empty if nothing was measured.
        """
        keys = [_key(source, kind) for source in self.sources for kind in _KINDS]
        local = [number for key in keys for number in self._pending[key]]
        local += [self._num_branches, *(self._branches or [0.0] * len(branch_names))]
        total, num_processes = local, 1
        if accelerator is not None and accelerator.num_processes > 1:
            num_processes = accelerator.num_processes
            # MPS lacks this type, but does not train in several processes
            total = torch.tensor(local, dtype=torch.float64, device=accelerator.device)
            total = accelerator.reduce(total, reduction="sum").tolist()
        sums = {key: total[i * _NUM_SUMS : (i + 1) * _NUM_SUMS] for i, key in enumerate(keys)}
        num_branches, *branches = total[len(keys) * _NUM_SUMS :]
        self._reset()
        if step > settling_steps and num_branches:
            self.judged_at = step
            for key, numbers in sums.items():
                self._extend_window(key, numbers, num_processes)
            self._update(MIN_COUNT * num_processes)
        entries = {}
        for source in self.sources:
            suffix = f"/{source}" if source else ""
            for kind in _KINDS:
                count, loss, swapped_loss, _ = sums[_key(source, kind)]
                if count:
                    entries[f"image_use/loss{suffix}"] = loss / count
                    entries[f"image_use/loss_{kind}_images{suffix}"] = swapped_loss / count
                    break  # blank images only if there are no others: both would have one name for another loss
        if num_branches:
            entries |= {name: value / num_branches for name, value in zip(branch_names, branches, strict=True)}
        return entries

    def _extend_window(self, key: str, numbers: list[float], num_processes: int) -> None:
        """Add the measurements of a log step to a window, and drop the oldest that are no longer needed."""
        if not numbers[0]:
            return
        window = self._windows.setdefault(key, [])
        window.append(numbers)
        while sum(entry[0] for entry in window[1:]) >= WINDOW * num_processes:
            del window[0]

    def _update(self, min_count: int) -> None:
        """Judge all sources that have been measured."""
        verdicts = [_judge(sums, min_count) for _, sums in self._last_measurements().values()]
        if True in verdicts:
            self.is_used = True
        elif verdicts and None not in verdicts:
            self.is_used = False

    def _last_measurements(self) -> dict[str, tuple[Kind, list[float]]]:
        """Return for each measured source the sums of its window: that of other images, unless they are the exception."""
        found = {}
        for source in self.sources:
            windows = {kind: self._windows.get(_key(source, kind), []) for kind in _KINDS}
            sums = {kind: list(map(sum, zip(*window, strict=True))) for kind, window in windows.items() if window}
            if sums:
                kind = max(sums, key=lambda kind: (kind == "other" and sums[kind][0] >= MIN_COUNT, sums[kind][0]))
                found[source] = (kind, sums[kind])
        return found

    def describe(self) -> str:
        """Say in words whether the images are used, with the numbers, and what to do if not."""
        parts = []
        for source, (kind, (count, loss, swapped_loss, _)) in self._last_measurements().items():
            other = "another one of the batch" if kind == "other" else "a blank one, as the batch has no other"
            of = f" ({source})" if source else ""
            parts.append(f"{loss / count:.3f} with their own image and {swapped_loss / count:.3f} with {other}{of}")
        if not parts:
            return "It is not known whether the images are used: no batch with images was measured after the beginning of the run."
        losses = f"Up to step {self.judged_at}, tokens that see an image have a loss of {'; '.join(parts)}."
        if self.is_used is None:
            return f"It is not known whether the images are used: the measurements are too few or differ too much. {losses}"
        if self.is_used:
            return f"The images are used. {losses}"
        return f"The images are not used yet. {losses} So the model predicts the text without looking. {REMEDY}"

    def announce(self, was_used: bool | None, step: int) -> None:
        """Log in words when the verdict has changed."""
        if self.is_used != was_used:
            # Who has read the warning must also read that it no longer holds
            log = logger.info if was_used is None and self.is_used else logger.warning
            log(f"Step {step}: {self.describe()}")
            self.announced_at = step

    def announce_end(self, step: int) -> None:
        """Repeat at the end of the training that the images are not used, unless this has just been said."""
        if self.is_used is False and self.announced_at != step:
            logger.warning(f"At the end of the training: {self.describe()}")

    def summary(self) -> dict[str, Any]:
        """Return the result for a report or a card: `is_used`, `text`, and the losses of each source."""
        sources = []
        for source, (kind, (count, loss, swapped_loss, _)) in self._last_measurements().items():
            entry = {"name": source or "training data", "measurements": int(count), "loss": loss / count}
            sources.append({**entry, "swapped_loss": swapped_loss / count, "swapped_for": f"{kind} images"})
        return {"is_used": self.is_used, "text": self.describe(), "step": self.judged_at, "sources": sources}

    def state(self) -> dict[str, Any]:
        """Return the part that a checkpoint keeps."""
        return {
            "is_used": self.is_used,
            "judged_at": self.judged_at,
            "last_step": self._last_step,
            "windows": self._windows,
            "pending": dict(self._pending),
            "branches": self._branches,
            "num_branches": self._num_branches,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from the `state` in a checkpoint."""
        self.is_used, self.judged_at = state["is_used"], state["judged_at"]
        self._last_step, self._windows = state["last_step"], state["windows"]
        self._pending.update(state["pending"])
        self._branches, self._num_branches = state["branches"], state["num_branches"]


def _key(source: str, kind: Kind) -> str:
    """Return the key of the measurements of a source."""
    return f"{kind}/{source}"
