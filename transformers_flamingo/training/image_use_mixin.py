# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Measure in `FlamingoTrainer` whether the model uses its images, and warn when it does not."""

from typing import Any

import torch
from transformers.utils import logging

from .image_use import measure_swap, plan_swap
from .image_use_history import choose_interval


logger = logging.get_logger(__name__)


class ImageUseMixin:
    """Mixin of `Trainer` that measures on the training batches of [`FlamingoTrainer`] whether the images are used."""

    _warned_at: int | None = None  # the step

    def _measure_image_use(self, inputs: dict[str, Any]) -> None:
        """Measure a micro-batch, before it is trained on, if that is due. Every process calls this."""
        history, max_steps = self._run_state.image_use, self.state.max_steps
        source = self.mixture.sources[inputs["source"]].name if "source" in inputs else ""
        interval = choose_interval(self.args, max_steps)
        if not history.is_due(source, self.state.global_step + 1, interval, max_steps):
            return
        inputs = self._prepare_inputs({name: value for name, value in inputs.items() if name != "source"})
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
        history, was_used = self._run_state.image_use, self._run_state.image_use.is_used
        if choose_interval(self.args, self.state.max_steps) == 0:
            return {}
        model = self._unwrapped()
        names = []
        for kind in ("attn", "ffn") if model.config.cross_attention_ffn_mult > 0 else ("attn",):
            names += [f"branch/{kind}/{layer}" for layer in model.config.cross_attention_layer_indices]
        step = self.state.global_step
        entries = history.pop(self.accelerator, step, self.args.get_warmup_steps(self.state.max_steps), names)
        if history.is_used != was_used and self.is_world_process_zero():
            log = logger.info if history.is_used else logger.warning
            log(f"Step {step}: {history.describe()}")
            self._warned_at = step
        return entries

    def image_use_summary(self) -> dict[str, Any]:
        """
        Return whether the images are used.

        Returns:
            `dict`: `is_used` (`None` if it is not known), `text` (the same in words, and what to do), `step` (of the last
            measurement), and `sources`, each with `name`, `measurements`, `loss`, `swapped_loss` and `swapped_for`.
        """
        return self._run_state.image_use.summary()

    def _report_image_use(self) -> None:
        """Repeat at the end of the training that the images are not used, unless this has just been said."""
        history = self._run_state.image_use
        if history.is_used is False and self._warned_at != self.state.global_step and self.is_world_process_zero():
            logger.warning(f"At the end of the training: {history.describe()}")
