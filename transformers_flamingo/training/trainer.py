# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The stock `Trainer`, for a mixture of data sets, with resuming that is exact."""

import copy
import json
import math
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME, TRAINING_ARGS_NAME
from transformers.trainer_optimizer import is_optimizer_factory
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, rotate_checkpoints
from transformers.utils import logging

from ..compatibility_flamingo import require_private_names
from ..data.data_collator import FlamingoDataCollator
from ..data.packing import check_packing
from ..modeling_flamingo import FlamingoModel
from ..saving_flamingo import disk_errors, update_folder, write_json
from .arguments import FlamingoTrainingArguments
from .callbacks import EpochCallback, close_progress_bars
from .card import write_training_card
from .checkpointing import (
    TRAINABLE_NAME,
    agree,
    find_damage,
    get_last_checkpoint,
    load_trainable,
    lock_output,
    remove_damaged,
    save_trainable,
    write_manifest,
)
from .checks import check_arguments_for_mixture, check_arguments_without_mixture, choose_best_metric
from .figures import LogWindow, RunFigures, check_weights_are_finite, count_rows
from .held_out_evaluation import HeldOutEvaluationMixin
from .mixture import DataMixture, MixtureBatch
from .optimization import parameter_groups
from .publishing import PublishingMixin
from .sharding import shard_model


logger = logging.get_logger(__name__)

# The private names of transformers that this file overrides or calls. CONTRIBUTING.md says what each is for.
require_private_names(
    Trainer,
    _get_output_dir=("trial",),
    _issue_warnings_after_load=("load_result",),
    _load_best_model=(),
    _load_from_checkpoint=("resume_from_checkpoint", "model"),
    _prepare_for_training=("max_steps", "train_dataloader", "resume_from_checkpoint"),
    _run_epoch=(),
    _save=("output_dir", "state_dict"),
    _save_checkpoint=("model", "trial"),
)


class FlamingoTrainer(HeldOutEvaluationMixin, PublishingMixin, Trainer):
    """
    `Trainer` for a [`FlamingoModel`]. It takes the arguments of `Trainer`, with [`FlamingoTrainingArguments`].

    **Data.** `train_dataset` is a [`DataMixture`], or anything that the stock `Trainer` takes. With a mixture, the
    loss of an optimizer step is

        sum over sources k of  lambda_k * (sum of the losses of the tokens of k) / (number of tokens of k),

    over all micro-batches of the step and all processes. So two processes or two accumulated micro-batches give what
    one batch of twice the size gives. Without `max_steps`, one epoch is one pass over the only source.

    **Logs** have, next to the stock entries, `loss/<source>` (the mean loss of a token, without lambda), `tokens_per_second`
    and `images_per_second` over all processes, `peak_memory_gb` of the GPU of the process that logs,
    `gate/attn/<layer>` and `gate/ffn/<layer>` (tanh of the gates; layers of the language model), and
    `skipped/<source>`, the number of bad rows skipped so far over all processes, where there are any. With a mixture, `epoch`
    is the number of passes over its only source, and is missing where there are several or no length. `learning_rate` is
    that of all but the gates. In the summary at the end, `train_loss` is the mean over all steps of the run, resumed or not;
    speeds are those of this call of `train`. There is no `total_flos`.

    **Evaluation.** For an `eval_dataset` of [`HeldOut`] rows, or a dictionary of several, there are beside `eval_loss`
    `eval_exact_match` and `eval_word_f1` of greedy or beam generation, and all three once more with blank images
    (`eval_blind_loss`, ...): what the text alone gives away. Some generated texts go to `samples.jsonl` in the output
    directory, and to TensorBoard where it is in use.

    **Resuming is exact**: a run that was killed at any moment and is resumed computes what one never stopped computes,
    bit for bit where the hardware does. A checkpoint that was cut short, or whose bytes have changed since, is known by its
    `manifest.json`; `train(resume_from_checkpoint=True)` takes the last one that is whole. Finding the place in the
    data takes no time, but for streams, which read the current file again up to their place.

    **A training that fails stops**: with an error after `max_non_finite_steps` steps whose loss is NaN or infinite. Weights
    that are NaN or infinite are never saved, so what was saved before stays, and nothing is published.

    **Optimizer.** Groups of [`parameter_groups`]: frozen weights have no state.

    Raises:
        ValueError: arguments that contradict the mixture, or have no effect on it.
    """

    args: FlamingoTrainingArguments

    def __init__(
        self,
        model=None,
        args: FlamingoTrainingArguments | None = None,
        data_collator=None,
        train_dataset=None,
        eval_dataset=None,
        **kwargs,
    ):
        if not isinstance(args, FlamingoTrainingArguments):
            raise ValueError(
                f"`args` is of type {type(args).__name__}. FlamingoTrainer needs FlamingoTrainingArguments, which has "
                "the fields of TrainingArguments and some of its own."
            )
        args = copy.copy(args)  # the caller's stay as they are
        self.mixture = train_dataset if isinstance(train_dataset, DataMixture) else None
        if self.mixture is not None and data_collator is None:
            data_collator = FlamingoDataCollator(self.mixture.processor)
        self._restarts_data = args.ignore_data_skip
        if self.mixture is not None:
            check_arguments_for_mixture(args, self.mixture.sources)
            self._adapt_arguments(args)
        elif train_dataset is not None:
            check_arguments_without_mixture(args)
        choose_best_metric(args, eval_dataset, has_own_metrics=kwargs.get("compute_metrics") is not None)
        super().__init__(model, args, data_collator, train_dataset, eval_dataset, **kwargs)
        if self.mixture is not None and self.args.n_gpu > 1:
            raise ValueError(
                f"{self.args.n_gpu} GPUs in one process would each get a part of a micro-batch, whose images do not "
                "split with its text. Start one process for each, with `torchrun` or `accelerate launch`."
            )
        self._check_packing()
        self._data_state: dict[str, Any] | None = None
        self._window = LogWindow(0)
        self._figures = RunFigures(self.args.device, self.args.max_non_finite_steps)
        self._skipped: dict[str, int] = {}
        if self.mixture is not None:
            self.add_callback(EpochCallback(self._count_epochs))

    def _check_packing(self) -> None:
        """Before anything is computed, refuse to pack where documents would see each other."""
        is_packed = isinstance(self.data_collator, FlamingoDataCollator) and self.data_collator.packing
        if self.args.packing and self.mixture is None and not is_packed:
            raise ValueError(
                "`packing` is set, but `train_dataset` is no DataMixture and the data collator does not pack. Pass "
                "`data_collator=FlamingoDataCollator(processor, max_length=..., packing=True)`."
            )
        if not (self.args.packing or is_packed):
            return
        if self.mixture is not None:
            self.mixture.configure(packing=True)  # which names the source that cannot be
        if self.is_fsdp_enabled:
            self.model.to(self.args.device)  # where it would be sharded later, and attention has all its kernels
        with self.accelerator.autocast():
            check_packing(self._unwrapped())

    def _unwrapped(self) -> FlamingoModel:
        """The model that `peft`, compilation and processes wrap."""
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        return model.get_base_model() if hasattr(model, "get_base_model") else model

    def _adapt_arguments(self, args: FlamingoTrainingArguments) -> None:
        self._steps_per_source = args.gradient_accumulation_steps
        if args.max_steps <= 0:
            args.max_steps = self._count_steps(args)
        if args.mixture_strategy == "accumulate":
            args.gradient_accumulation_steps *= len(self.mixture.sources)
        # The loader itself begins at the right place: nothing is left to skip
        args.ignore_data_skip = True

    def _count_steps(self, args: FlamingoTrainingArguments) -> int:
        source, *others = self.mixture.sources
        if others or source.streaming:
            raise ValueError(
                "`max_steps` is not given, and the length of an epoch is known only of a single source that is not "
                f"streamed, but the mixture has {[source.name for source in self.mixture.sources]}. Give `max_steps`."
            )
        rows_per_step = source.batch_size * self._steps_per_source * args.world_size
        return math.ceil(args.num_train_epochs * len(self.mixture.rows[0]) / rows_per_step)

    # Data.

    def get_train_dataloader(self) -> DataLoader:
        if self.mixture is None:
            return super().get_train_dataloader()
        state = self._data_state or {}
        self.mixture.configure(
            seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
            strategy=self.args.mixture_strategy,
            gradient_accumulation_steps=self._steps_per_source,
            process=self.args.process_index,
            num_processes=self.args.world_size,
            skip_bad_samples=self.args.skip_bad_samples,
            packing=self.args.packing,
            start=state.get("micro_batch", 0),
            streams={
                int(source): {int(share): place for share, place in places.items()}
                for source, places in state.get("streams", {}).items()
            },
        )
        # Not through `accelerator.prepare`, which would split each batch among the processes once more
        return self.mixture.loader(
            self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory and torch.accelerator.is_available(),
            prefetch_factor=self.args.dataloader_prefetch_factor,
            multiprocessing_context=self.args.dataloader_multiprocessing_context,
        )

    def _cache_features(self) -> None:
        model = self._unwrapped()
        for part in filter(None, (model.vision_model, model.resampler)):
            part.to(self.args.device)  # where those of a model that will be sharded are not yet
        # As exact as what the training would compute
        is_exact = model.vision_model is not None and model.vision_model.dtype == torch.float32
        is_exact = is_exact and not (self.args.bf16 or self.args.fp16)
        with self.args.main_process_first(desc="encoding images"), self.accelerator.autocast():
            self.mixture.cache_features(
                model,
                skip_bad_samples=self.args.skip_bad_samples,
                batch_size=self.args.per_device_eval_batch_size,
                dtype="float32" if is_exact else "float16",
            )

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Any]:
        self._figures.end_step()
        if self.mixture is None:
            batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
            self._window.count(batches)
            self._figures.rows += sum(map(count_rows, batches))
            return batches, num_items
        batches: list[MixtureBatch] = [next(epoch_iterator) for _ in range(num_batches)]
        num_tokens = torch.zeros(len(self.mixture.sources), dtype=torch.long)
        for batch in batches:
            name = self.mixture.sources[batch.source].name
            self._figures.rows += self.mixture.sources[batch.source].batch_size
            num_tokens[batch.source] += batch.inputs["labels"][:, 1:].ne(-100).sum()
            for message in batch.skipped:
                logger.warning(f"Skipped in data source {name!r}: {message}")
            self._skipped[name] = self._skipped.get(name, 0) + len(batch.skipped)
            if batch.stream is not None:
                share, place = batch.stream
                self._data_state["streams"].setdefault(str(batch.source), {})[str(share)] = place
        self._data_state["micro_batch"] += num_batches
        self._window.count([batch.inputs for batch in batches])
        self._window.steps += num_tokens > 0
        num_tokens = self.accelerator.reduce(num_tokens.to(device), reduction="sum")
        return [{**batch.inputs, "source": batch.source} for batch in batches], num_tokens

    def _new_data_state(self) -> dict[str, Any]:
        """Where the data stands, and all that this place depends on."""
        sources = self.mixture.sources
        setup = {
            "seed": self.args.seed if self.args.data_seed is None else self.args.data_seed,
            "strategy": self.args.mixture_strategy,
            "gradient_accumulation_steps": self._steps_per_source,
            "processes": self.args.world_size,
            # Of a path its end: data may be moved
            "sources": json.loads(
                json.dumps([{**asdict(source), "path": os.path.basename(source.path)} for source in sources])
            ),
            # The permutation of a source that is not streamed depends on the number of its rows
            "rows": [
                None if source.streaming else len(rows)
                for source, rows in zip(sources, self.mixture.rows, strict=True)
            ],
        }
        if any(source.streaming for source in sources):
            setup["dataloader_num_workers"] = self.args.dataloader_num_workers
        return {"setup": setup, "micro_batch": 0, "streams": {}, "skipped": {}}

    # Loss.

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        source = inputs.pop("source", None)
        if source is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        # The model divides the sum over its tokens by the number of all
        outputs = model(**inputs, num_items_in_batch=num_items_in_batch[source])
        self._window.add_loss(source, outputs.loss.detach())
        # Gradients are averaged over processes, and the sum is wanted
        loss = outputs.loss * (self.mixture.sources[source].weight * self.args.world_size)
        return (loss, outputs) if return_outputs else loss

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        if self.optimizer is None:
            optimizer_cls, kwargs = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(
                self.args, self.model if model is None else model
            )
            if is_optimizer_factory(optimizer_cls) or {"params", "model", "optimizer_dict"} & set(kwargs):
                raise ValueError(
                    f"`optim={str(self.args.optim)!r}` makes its own parameter groups, so weight decay would act on more "
                    "than the gated blocks. Choose an optimizer such as adamw_torch."
                )
            groups = parameter_groups(
                self.model if model is None else model,
                self.args.learning_rate,
                self.args.weight_decay,
                self.args.gate_learning_rate_multiplier,
            )
            self.optimizer = optimizer_cls(groups, **kwargs)
        return self.optimizer

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch=None) -> torch.Tensor:
        """Train as `Trainer.training_step` does, and count the loss."""
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._figures.add_loss(loss)
        return loss

    # Logs.

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as `Trainer.log` does, with entries that it gets wrong corrected and those that it lacks added."""
        is_step = "loss" in logs  # the evaluation's and the summary at the end have other names
        if is_step:
            logs.update(self._window.drain(self))
        elif "train_loss" in logs:
            steps, before = self.state.global_step, self._steps_before
            logs.update(self._figures.summary(self.accelerator, self._start_time, steps, before))
        logs.pop("total_flos", None)  # see `floating_point_ops`
        stock_epoch = self.state.epoch
        if self.mixture is not None:
            self.state.epoch = self._count_epochs()
        super().log(logs, start_time)
        self.state.epoch = stock_epoch
        if is_step:
            self._figures.check(self.accelerator, self.state.global_step)

    def _count_epochs(self) -> float | None:
        """Count the passes over the data; `None` where there is more than one source or no length."""
        source, *others = self.mixture.sources
        if others or source.streaming:
            return None
        return self._figures.rows * self.args.world_size / len(self.mixture.rows[0])

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """
        Return 0, which says that it is not known.

        The stock estimate, 6 operations per text token and parameter, counts the vision encoder once for each token of
        text and not for its patches, and frozen parts as trained ones.
        """
        return 0

    def create_model_card(self, *args, **kwargs) -> None:
        """Write a generated card: facts of the model, its data mixture, hyperparameters, and last evaluation."""
        if self.is_world_process_zero():
            write_training_card(self)

    # Checkpoints.

    def train(self, resume_from_checkpoint: str | bool | None = None, *args, **kwargs):
        """
        As `Trainer.train`.

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*):
                A checkpoint, or `True` for the last one in `output_dir` that is whole.

        Raises:
            ValueError: the checkpoint is not whole, there is none, or it is of a run whose data differ.
        """
        with lock_output(self.args.output_dir) if self.is_world_process_zero() else nullcontext():
            checkpoint = self._find_checkpoint(resume_from_checkpoint)
            self._window = LogWindow(0 if self.mixture is None else len(self.mixture.sources))
            self._figures = RunFigures(self.args.device, self.args.max_non_finite_steps)
            self._saved_window = None
            self._skipped = {}
            if self.mixture is not None:
                if any(source.cache_features for source in self.mixture.sources):
                    self._cache_features()
                self._data_state = self._new_data_state()
            self._steps_before = 0
            if checkpoint:
                self._load_run_state(Path(checkpoint))
            self._start_time = time.time()
            try:
                output = super().train(checkpoint or None, *args, **kwargs)
            except BaseException:
                close_progress_bars(self.callback_handler.callbacks)
                raise
            self._figures.check(self.accelerator, self.state.global_step)
        return output._replace(training_loss=output.metrics["train_loss"])

    def _find_checkpoint(self, asked: str | bool | None) -> str | None:
        if asked is True:
            checkpoint = agree(lambda: get_last_checkpoint(self.args.output_dir))
            if checkpoint is None:
                raise ValueError(f"There is no checkpoint to resume from in {self.args.output_dir!r} that is whole.")
            return checkpoint
        if asked:
            damage = agree(lambda: find_damage(asked))
            if damage is not None:
                raise ValueError(f"{str(asked)!r} cannot be resumed from: {damage}. Resume from another checkpoint.")
        return asked or None

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        run_dir = self._get_output_dir(trial=trial)
        directory = Path(run_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        # Before the older one of this step is gone, if there is one
        check_weights_are_finite(self.model.parameters(), self.accelerator)
        if self.args.should_save and directory.exists():
            shutil.rmtree(directory)
        self.accelerator.wait_for_everyone()
        # The stock method would delete older checkpoints before this one is known to be whole
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

    def save_state(self) -> None:
        """Save the state as `Trainer.save_state` does, as valid JSON with a true epoch."""
        super().save_state()
        if self.is_world_process_zero():
            self._correct_state(Path(self.args.output_dir) / TRAINER_STATE_NAME)

    def _correct_state(self, path: Path) -> None:
        """Make the stock file valid JSON, which has no NaN, and its epoch true."""
        state = json.loads(path.read_text(encoding="utf-8"))
        write_json(
            path, {**state, "epoch": state["epoch"] if self.mixture is None else self._count_epochs()}, indent=2
        )

    def _run_state_file(self, directory: Path) -> Path:
        return directory / f"run_state_{self.args.process_index}.json"

    def _save_run_state(self, directory: Path) -> None:
        """What stock checkpoints lack: the place in the data, and the losses since the last log."""
        state = {
            "data": None if self.mixture is None else {**self._data_state, "skipped": self._skipped},
            "figures": {**self._figures.state(), "steps": self.state.global_step},
            "has_optimizer": not self.args.save_only_model,
            "window": {
                **self._window.state(),
                "loss": self._tr_loss.item(),
                "last_logged": self._globalstep_last_logged,
            },
        }
        write_json(self._run_state_file(directory), state)

    def _load_run_state(self, directory: Path) -> None:
        file = self._run_state_file(directory)
        if not file.is_file():
            raise ValueError(
                f"There is no {file.name} in {str(directory)!r}: the run had fewer processes, or another trainer."
            )
        state = json.loads(file.read_text(encoding="utf-8"))
        if not state["has_optimizer"]:
            raise ValueError(
                f"{str(directory)!r} was saved with `save_only_model`: without the state of its optimizer the run would continue "
                "as another one. Begin a new run with it as the model (in a recipe, `model`)."
            )
        self._saved_window = state["window"]
        self._figures.load(state["figures"])
        self._steps_before = state["figures"]["steps"]
        if self.mixture is None or self._restarts_data:
            return
        there, here = (state["data"] or {}).get("setup"), self._data_state["setup"]
        if there != here:
            changed = [name for name in here if (there or {}).get(name) != here[name]]
            raise ValueError(
                f"The checkpoint {str(directory)!r} is of a run with other {', '.join(changed)}: "
                f"{ {name: (there or {}).get(name) for name in changed} } there, "
                f"{ {name: here[name] for name in changed} } here. Its place in the data means nothing now. Resume "
                "with the same, or begin the data anew with `ignore_data_skip=True`."
            )
        self._data_state = state["data"]
        self._skipped = state["data"]["skipped"]

    def _run_epoch(self, *args, **kwargs) -> None:
        if self.state.global_step >= self.state.max_steps:
            # Resumed from its last checkpoint, the stock loop would take one step more
            self.control.should_training_stop = True
            return
        if self._saved_window is not None:  # once, when `train` has set its own to 0
            loss = self._saved_window["loss"]
            self._tr_loss += math.nan if loss is None else loss  # JSON has no NaN
            self._globalstep_last_logged = self._saved_window["last_logged"]
            self._window.load(self._saved_window)
            self._saved_window = None
        super()._run_epoch(*args, **kwargs)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """
        Save the model as `Trainer.save_model` does.

        Raises:
            ValueError: weights are NaN or infinite. A model that was saved before stays.
            OSError: the disk is full or cannot be written. A model that was saved before stays.
        """
        if self._is_publishing:  # it is saved already
            return
        check_weights_are_finite(self.model.parameters(), self.accelerator)
        super().save_model(output_dir, _internal_call)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        output_dir = self.args.output_dir if output_dir is None else output_dir
        if not self.args.should_save:
            if not self.args.save_trainable_only:
                super()._save(output_dir, state_dict)  # where a model is sharded, each process has a part in it
            return
        with update_folder(output_dir) as partial:
            if not self.args.save_trainable_only:
                super()._save(str(partial), state_dict)
                return
            model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
            save_trainable(model, partial, state_dict)
            model.config.save_pretrained(partial)
            if self.processing_class is not None:
                self.processing_class.save_pretrained(partial)
            torch.save(self.args, partial / TRAINING_ARGS_NAME)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if (Path(resume_from_checkpoint) / TRAINABLE_NAME).is_file() and not self.is_fsdp_enabled:
            load_trainable(self.model if model is None else model, resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        if (Path(self.state.best_model_checkpoint) / TRAINABLE_NAME).is_file() and not self.is_fsdp_enabled:
            load_trainable(self.model, self.state.best_model_checkpoint)
        else:
            super()._load_best_model()

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """The stock method warns, and the run goes on with weights that were not loaded."""
        tied = set(getattr(self.model, "all_tied_weights_keys", ()))
        missing = sorted(set(load_result.missing_keys) - tied)
        if missing or load_result.unexpected_keys:
            raise ValueError(
                f"The checkpoint does not fit the model: it lacks {missing[:8]} ({len(missing)} in all) and has "
                f"{sorted(load_result.unexpected_keys)[:8]} ({len(load_result.unexpected_keys)} in all) too many. "
                "Nothing may be left out, or the run would go on with other weights: resume with the model that was "
                "saved."
            )

    # Sharding.

    def _prepare_for_training(self, max_steps: int, train_dataloader: DataLoader, resume_from_checkpoint: str | None):
        plugin = getattr(self.accelerator.state, "fsdp_plugin", None)
        if self.is_fsdp_enabled and plugin.fsdp_version == 2 and not isinstance(self.model, FSDPModule):
            # accelerate leaves a sharded model as it is. Its own units would mix frozen and trained parameters
            self.model.to(self.args.device)
            shard_model(
                self.model,
                mp_policy=plugin.mixed_precision_policy,
                offload_policy=plugin.cpu_offload,
                reshard_after_forward=plugin.reshard_after_forward,
            )
        return super()._prepare_for_training(max_steps, train_dataloader, resume_from_checkpoint)
