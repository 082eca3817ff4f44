# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Measure in `FlamingoTrainer` whether the model uses its images, and warn when it does not."""

from typing import Any

import torch
from accelerate.utils import send_to_device

from .image_use import measure_swap, plan_swap
from .image_use_history import choose_interval, count_settling_steps, name_branches


class ImageUseMixin:
    """Mixin of `Trainer` that measures on the training batches of [`FlamingoTrainer`] whether the images are used."""

    def _measure_image_use(self, inputs: dict[str, Any]) -> None:
        """Measure a micro-batch, before it is trained on, if that is due. Every process calls this."""
        history, max_steps = self._run_state.image_use, self.state.max_steps
        source = self.mixture.sources[inputs["source"]].name if "source" in inputs else ""
        interval = choose_interval(self.args.image_use_steps, max_steps)
        if not history.is_due(source, self.state.global_step + 1, interval, max_steps):
            return
        inputs = send_to_device({name: value for name, value in inputs.items() if name != "source"}, self.args.device)
        model = self._unwrapped()
        swap = plan_swap(model, inputs)
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            # The processes gather weights together, so all compute the same modules or none does
            is_ready = torch.tensor(int(swap is not None and swap.sources is not None), device=self.args.device)
            if self.accelerator.reduce(is_ready, reduction="sum") < self.args.world_size:
                return
        if swap is not None:
            with self.accelerator.autocast():
                history.add(source, measure_swap(model, inputs, swap))

    def _pop_image_use(self) -> dict[str, float]:
        """Return the entries of a log step, and say once when the images begin or cease to be used. Every process calls this."""
        history, step, max_steps = self._run_state.image_use, self.state.global_step, self.state.max_steps
        if choose_interval(self.args.image_use_steps, max_steps) == 0:
            return {}
        was_used = history.is_used
        settling_steps = count_settling_steps(self.args, max_steps)
        entries = history.pop(self.accelerator, step, settling_steps, name_branches(self._unwrapped()))
        if self.is_world_process_zero():
            history.announce(was_used, step)
        return entries

    def image_use_summary(self) -> dict[str, Any]:
        """
        Return whether the images are used.

        Returns:
            `dict`: `is_used` (`None` if it is not known), `text` (the same in words, and what to do), `step` (of the last
            measurement), and `sources`, each with `name`, `measurements`, `loss`, `swapped_loss` and `swapped_for`.
        """
        return self._run_state.image_use.summary()
