# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Write and load the checkpoints of `FlamingoTrainer`."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints

from ..compatibility_flamingo import require_private_names
from ..saving_flamingo import disk_errors, update_folder, write_json
from ..utils.folders import call_on_main_process
from ..utils.partial_models import save_base
from ..utils.trainable import TRAINABLE_NAME, load_trainable, save_trainable
from .adapters import name_adapter_base
from .checkpointing import find_damage, get_last_checkpoint, remove_damaged, write_manifest
from .output_checks import check_space
from .statistics import check_weights_are_finite


# The private names of transformers that this file overrides or calls. CONTRIBUTING.md says what each is for.
require_private_names(
    Trainer,
    _get_output_dir=("trial",),
    _issue_warnings_after_load=("load_result",),
    _load_best_model=(),
    _load_from_checkpoint=("resume_from_checkpoint", "model"),
    _save=("output_dir", "state_dict"),
    _save_checkpoint=("model", "trial"),
)


class CheckpointingMixin:
    """
    Mixin of `Trainer` that writes and loads the checkpoints of [`FlamingoTrainer`].

    A checkpoint is complete once it has its manifest, and older ones are deleted only then. The mixin does not need to know
    what the state of a run is: the trainer has `_save_run_state` for that.
    """

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """
        Save the model as `Trainer.save_model` does.

        Raises:
            ValueError: weights are NaN or infinite. A model that was saved before stays.
            OSError: the disk is full or cannot be written. A model that was saved before stays.
        """
        if self._is_publishing:  # it is already saved
            return
        check_weights_are_finite(self.model.parameters(), self.accelerator)
        super().save_model(output_dir, _internal_call)

    def _check_space(self, max_steps: int, checkpoint: str | None) -> None:
        """Raise an error in all processes if what will be saved does not fit on the disk of the main process."""
        step = re.fullmatch(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)", Path(checkpoint or "").name)
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        call_on_main_process(lambda: check_space(model, self.args, max_steps, 0 if step is None else int(step[1])))

    def save_state(self) -> None:
        """Save the state as `Trainer.save_state` does, as valid JSON and with the true epoch."""
        super().save_state()
        if self.is_world_process_zero():
            self._correct_state(Path(self.args.output_dir) / TRAINER_STATE_NAME)

    def _correct_state(self, path: Path) -> None:
        """Rewrite a stock file as valid JSON, which has no NaN, and with the true epoch."""
        state = json.loads(path.read_text(encoding="utf-8"))
        epoch = state["epoch"] if self.mixture is None else self._count_epochs()
        write_json(path, {**state, "epoch": epoch}, indent=2)

    def _find_checkpoint(self, resume_from_checkpoint: str | bool | None) -> str | None:
        """Return the checkpoint to resume from, which is complete, or `None`."""
        if resume_from_checkpoint is True:
            checkpoint = call_on_main_process(lambda: get_last_checkpoint(self.args.output_dir))
            if checkpoint is None:
                raise ValueError(f"There is no complete checkpoint to resume from in {self.args.output_dir!r}.")
            return checkpoint
        if resume_from_checkpoint:
            damage = call_on_main_process(lambda: find_damage(resume_from_checkpoint))
            if damage is not None:
                raise ValueError(
                    f"{str(resume_from_checkpoint)!r} cannot be resumed from: {damage}. Resume from another checkpoint."
                )
        return resume_from_checkpoint or None

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Save a checkpoint with the state of the run, mark it as complete, and delete older ones only then."""
        run_dir = self._get_output_dir(trial=trial)
        directory = Path(run_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        # Before an older checkpoint of this step is deleted
        check_weights_are_finite(self.model.parameters(), self.accelerator)
        if self.args.should_save and directory.exists():
            shutil.rmtree(directory)
        self.accelerator.wait_for_everyone()
        # The stock method would delete older checkpoints before this one is known to be complete
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            with disk_errors(directory):
                super()._save_checkpoint(model, trial)
                self._save_run_state(directory)
        finally:
            self.args.save_total_limit = limit
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            self._correct_state(directory / TRAINER_STATE_NAME)
            write_manifest(directory)
            if limit:
                remove_damaged(run_dir)
            rotate_checkpoints(run_dir, limit, self.state.best_model_checkpoint, use_mtime=True)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        """Save the model, or its trainable parameters only, so that a killed process does not leave half of it."""
        output_dir = self.args.output_dir if output_dir is None else output_dir
        if not self.args.should_save:
            if not self.args.save_trainable_only:
                super()._save(output_dir, state_dict)  # each process holds a part of a sharded model
            return
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        with update_folder(output_dir) as partial:
            has_adapters = hasattr(model, "peft_config")
            if has_adapters or self.args.save_trainable_only:
                save_base(model, partial)
            if not self.args.save_trainable_only:
                super()._save(str(partial), state_dict)
                if has_adapters:
                    name_adapter_base(partial, is_published=self.args.push_to_hub)
                return
            save_trainable(model, partial, state_dict)
            if has_adapters:  # says which layers the trained parameters belong to
                model.peft_config[model.active_adapter].save_pretrained(partial)
                name_adapter_base(partial, is_published=self.args.push_to_hub)
            model.config.save_pretrained(partial)
            if self.processing_class is not None:
                self.processing_class.save_pretrained(partial)
            torch.save(self.args, partial / TRAINING_ARGS_NAME)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Load a checkpoint, which may hold the trainable parameters only."""
        if (Path(resume_from_checkpoint) / TRAINABLE_NAME).is_file() and not self.is_fsdp_enabled:
            load_trainable(self.model if model is None else model, resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        """Load the best checkpoint, which may hold the trainable parameters only."""
        if (Path(self.state.best_model_checkpoint) / TRAINABLE_NAME).is_file() and not self.is_fsdp_enabled:
            load_trainable(self.model, self.state.best_model_checkpoint)
        else:
            super()._load_best_model()

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Raise an error where the stock method warns, because the run would continue with weights that were not loaded."""
        tied = set(getattr(self.model, "all_tied_weights_keys", ()))
        missing = sorted(set(load_result.missing_keys) - tied)
        unexpected = sorted(load_result.unexpected_keys)
        if missing or unexpected:
            raise ValueError(
                f"The checkpoint does not fit the model: it lacks {missing[:8]} ({len(missing)} in all) and has "
                f"{unexpected[:8]} ({len(unexpected)} in all) that the model lacks. The run would continue with other weights: "
                "resume with the model that was saved."
            )
