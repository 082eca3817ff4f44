# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The stock `Trainer`, extended by mixtures of datasets and exact resuming."""

import copy
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_optimizer import is_optimizer_factory
from transformers.trainer_utils import TrainOutput
from transformers.utils import logging

from ..data.data_collator import FlamingoDataCollator
from ..data.packing import check_packing
from ..modeling_flamingo import FlamingoModel
from ..quantization_flamingo import keep_gradients
from .adapters import without_adapters
from .arguments import FlamingoTrainingArguments
from .calibration import calibrate, calibration_batches
from .callbacks import (
    EarlyStopping,
    EpochCallback,
    ResumeCallback,
    close_progress_bars,
    gate_values,
    summarize_printed_logs,
)
from .checkpointing import lock_output
from .checkpointing_mixin import CheckpointingMixin
from .checks import check_arguments_for_mixture, check_arguments_without_mixture, choose_best_metric
from .held_out_evaluation import GenerationEvalMixin
from .image_use_mixin import ImageUseMixin
from .interruption import InterruptionMixin
from .micro_batch import MixtureBatch
from .mixture import DataMixture
from .optimization import parameter_groups
from .publishing import PublishingMixin
from .run_state import DataPosition, RunState, data_seed
from .schedule_checks import check_schedule, count_epoch_steps, find_doubts
from .sharding import shard_model
from .statistics import count_rows
from .text_checks import check_held_out_texts, check_texts


logger = logging.get_logger(__name__)


class FlamingoTrainer(
    CheckpointingMixin, GenerationEvalMixin, ImageUseMixin, PublishingMixin, InterruptionMixin, Trainer
):
    """
    `Trainer` for a [`FlamingoModel`]. It takes the arguments of `Trainer`, with [`FlamingoTrainingArguments`].

    **Data.** `train_dataset` is a [`DataMixture`], or any dataset that the stock `Trainer` takes. With a mixture, the loss of
    an optimizer step is

        sum over sources k of  lambda_k * (sum of the losses of the tokens of k) / (number of tokens of k),

    over all micro-batches of the step and all processes. So two processes, or two accumulated micro-batches, give the same
    loss as one batch of twice the size. Without `max_steps`, one epoch is one pass over the only source.

    **Features.** Before the first step, a new model estimates the statistics by which it standardizes vision features from a
    sample of the training images ([`~FlamingoModel.calibrate_features`]).

    **Logs** have, in addition to the stock entries, `loss/<source>` (the mean loss of a token, without lambda),
    `tokens_per_second` and `images_per_second` over all processes, `peak_memory_gb` of the process that logs (of its GPU, or
    without one of its memory), `gate/attn/<layer>` and `gate/ffn/<layer>` (tanh of the gates; layers of the language model;
    printed as their mean and range), and, if there are any, `skipped/<source>`, the number of different bad rows skipped so far
    over all processes. Every `image_use_steps` there are
    `image_use/loss/<source>`, the loss of the tokens of a training batch that see an image, `image_use/loss_other_images/<source>`,
    the same with the images of other rows (without a mixture, both without `/<source>`), and `branch/attn/<layer>` and
    `branch/ffn/<layer>`, the size of what a gated block adds to the hidden states, relative to these. With a mixture, `epoch`
    is the number of passes over its only source, and is missing if there are several sources or the length is unknown.
    `learning_rate` is that of all parameters except the gates. In the summary at the end, `train_loss` is the mean over all steps
    of the run, also before it was resumed; speeds are those of this call of `train`. There is no `total_flos`.

    **Images that are not used.** When, after the warm-up and a quarter of the run (at most 500 steps), the loss is the same
    with other images, the trainer warns in words, and again at the end, in the card and in the report of a recipe.

    **Evaluation.** For an `eval_dataset` that is a [`GenerationEvalDataset`], or a dictionary of several, the evaluation
    reports, in addition to `eval_loss`, `eval_exact_match` and `eval_word_f1` of greedy or beam generation, and all three with
    blank images (`eval_blind_loss`, ...): what the text alone gives away. Some generated texts are written to `samples.jsonl`
    in the output directory, and to TensorBoard if it is in use.

    **Resuming is exact**: an interrupted run, killed at any moment, resumes and produces the results of an uninterrupted run,
    bit for bit where the hardware does. Its `manifest.json` shows whether a checkpoint is complete and unchanged;
    `train(resume_from_checkpoint=True)` takes the last one that is. Finding the position in the data takes no time, except for
    streams, which read the current file again up to their position.

    **A training that fails stops** with an error after `max_non_finite_steps` steps with a NaN or infinite loss. Weights that
    are NaN or infinite are never saved, so what was saved before stays, and nothing is published.

    **A look before the first step.** A schedule that cannot work is an error ([`check_schedule`]). With a mixture, some texts of each
    source are read: too many words that the tokenizer does not know are an error, and more answers than steps a warning
    ([`check_texts`] says how many rows are read). `flamingo check` reads all rows.

    **Optimizer.** It has the groups of [`parameter_groups`]: frozen weights do not have optimizer state.

    Raises:
        ValueError: arguments contradict the mixture, or have no effect on it, or the schedule cannot work.
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
                "the fields of TrainingArguments and some more."
            )
        args = copy.copy(args)  # those of the caller stay as they are
        self.mixture = train_dataset if isinstance(train_dataset, DataMixture) else None
        if self.mixture is not None and data_collator is None:
            data_collator = FlamingoDataCollator(self.mixture.processor)
        self._restarts_data = args.ignore_data_skip
        if self.mixture is not None:
            check_arguments_for_mixture(args, self.mixture.sources)
            self._adapt_arguments(args)
            self._check_schedule(args, args.max_steps, model, kwargs.get("optimizers"))
        elif train_dataset is not None:
            check_arguments_without_mixture(args)
        choose_best_metric(args, eval_dataset, has_own_metrics=kwargs.get("compute_metrics") is not None)
        super().__init__(model, args, data_collator, train_dataset, eval_dataset, **kwargs)
        if self.mixture is not None and self.args.n_gpu > 1:
            raise ValueError(
                f"{self.args.n_gpu} GPUs in one process would each get a part of a micro-batch, but its images cannot be split "
                "together with its text. Start one process for each GPU, with `torchrun` or `accelerate launch`."
            )
        self._check_packing()
        keep_gradients(self.model)  # through its evaluations
        self._reset_run()
        self.add_callback(ResumeCallback(self._resume_log))
        summarize_printed_logs(self)
        if args.early_stopping_patience is not None:
            self.add_callback(EarlyStopping(args.early_stopping_patience, args.early_stopping_threshold))
        if self.mixture is not None:
            self.add_callback(EpochCallback(self._count_epochs))

    def _reset_run(self) -> None:
        """Begin a run: at the start of the data, with all counts at 0."""
        position, sources = None, []
        if self.mixture is not None:
            position = DataPosition.at_start(self.mixture, self.args, self._steps_per_source)
            sources = [source.name for source in self.mixture.sources]
        self._run_state = RunState(self.args.device, self.args.max_non_finite_steps, position, sources)

    def _check_packing(self) -> None:
        """Refuse, before anything is computed, to pack where documents would see each other."""
        is_packed = isinstance(self.data_collator, FlamingoDataCollator) and self.data_collator.packing
        if self.args.packing and self.mixture is None and not is_packed:
            raise ValueError(
                "`packing` is set, but `train_dataset` is not a DataMixture and the data collator does not pack. Pass "
                "`data_collator=FlamingoDataCollator(processor, max_length=..., packing=True)`."
            )
        if not (self.args.packing or is_packed):
            return
        if self.mixture is not None:
            self.mixture.with_settings(packing=True)  # raises an error that names a source that cannot be packed
        if self.is_fsdp_enabled:
            self.model.to(self.args.device)  # where it is sharded later, and where all kernels of attention are
        with self.accelerator.autocast():
            check_packing(self._unwrapped())

    def _unwrapped(self) -> FlamingoModel:
        """Return the model that PEFT, compilation and distributed training wrap."""
        return without_adapters(self.accelerator.unwrap_model(self.model, keep_torch_compile=False))

    def _adapt_arguments(self, args: FlamingoTrainingArguments) -> None:
        """Set the arguments that tell the stock loop how a mixture is read."""
        self._steps_per_source = args.gradient_accumulation_steps
        if args.max_steps <= 0:
            args.max_steps = self._count_steps(args)
        if args.mixture_strategy == "accumulate":
            args.gradient_accumulation_steps *= len(self.mixture.sources)
        # The loader itself begins at the right position: the stock loop must not skip anything
        args.ignore_data_skip = True

    def _count_steps(self, args: FlamingoTrainingArguments) -> int:
        """Count the optimizer steps of `num_train_epochs` passes over the only source."""
        source, rows = self.mixture.sources[0], self.mixture.rows[0]
        num_rows = None if source.streaming else len(rows)
        return count_epoch_steps(args, self.mixture.sources, num_rows, self._steps_per_source)

    @staticmethod
    def _check_schedule(args: FlamingoTrainingArguments, max_steps: int, model: Any, optimizers: Any) -> None:
        """Refuse a schedule that cannot work, before anything is computed, and warn of one that is hardly meant."""
        names = [name for name, _ in model.named_parameters()] if isinstance(model, nn.Module) else ["attn_gate"]
        has_gates = any(name.endswith(("attn_gate", "ffn_gate")) for name in names)
        has_own_optimizer = optimizers is not None and optimizers[0] is not None
        check_schedule(args, max_steps, has_own_optimizer=has_own_optimizer, has_gates=has_gates)
        if args.should_log:
            for doubt in find_doubts(args, max_steps):
                logger.warning(doubt)

    # Data.

    def get_train_dataloader(self) -> DataLoader:
        """Return the loader of the mixture from the current position on, or that of `Trainer.get_train_dataloader`."""
        if self.mixture is None:
            return super().get_train_dataloader()
        position = self._run_state.position
        mixture = self.mixture.with_settings(
            seed=data_seed(self.args),
            strategy=self.args.mixture_strategy,
            gradient_accumulation_steps=self._steps_per_source,
            process=self.args.process_index,
            num_processes=self.args.world_size,
            skip_bad_samples=self.args.skip_bad_samples,
            packing=self.args.packing,
            start=position.micro_batch,
            streams={
                int(source): {int(shard): state for shard, state in shards.items()}
                for source, shards in position.streams.items()
            },
        )
        # Without `accelerator.prepare`, which would split each batch among the processes once more
        return mixture.loader(
            self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory and torch.accelerator.is_available(),
            prefetch_factor=self.args.dataloader_prefetch_factor,
            multiprocessing_context=self.args.dataloader_multiprocessing_context,
        )

    def _model_for_encoding(self) -> FlamingoModel:
        """Return the model with what encodes images on the device. A model that will be sharded is not there yet."""
        model = self._unwrapped()
        for part in filter(None, (model.vision_model, model.resampler)):
            part.to(self.args.device)
        return model

    def _cache_features(self) -> None:
        """Encode the images of the sources with `cache_features`."""
        model = self._model_for_encoding()
        # As exact as the training would compute them
        is_exact = model.vision_model is not None and model.vision_model.dtype == torch.float32
        is_exact = is_exact and not (self.args.bf16 or self.args.fp16)
        mixture = self.mixture.with_settings(
            strategy=self.args.mixture_strategy, gradient_accumulation_steps=self._steps_per_source
        )
        with self.args.main_process_first(desc="encoding images"), self.accelerator.autocast():
            # The data are shared with the mixture that has other settings
            mixture.cache_features(
                model,
                skip_bad_samples=self.args.skip_bad_samples,
                batch_size=self.args.per_device_eval_batch_size,
                dtype="float32" if is_exact else "float16",
                max_steps=self.args.max_steps,
            )

    def _calibrate_features(self) -> None:
        """Let a new model standardize its vision features by a sample of the training images, alike in all processes."""
        if self.args.calibrate_features is False or self.train_dataset is None:
            return
        model, dataset = self._model_for_encoding(), self.train_dataset
        if self.mixture is not None:
            dataset = self.mixture.with_settings(
                skip_bad_samples=self.args.skip_bad_samples, packing=self.args.packing
            )
        batches = calibration_batches(
            dataset, self.data_collator, self.args.per_device_train_batch_size, data_seed(self.args)
        )
        with self.accelerator.autocast():
            calibrate(model, batches, self.args.calibrate_features)
        statistics = {name: value for name, value in model.feature_statistics.items() if value is not None}
        if statistics:
            # The sums of two processes may differ in their last bits
            model.set_feature_statistics(broadcast(statistics))

    def get_batch_samples(
        self, epoch_iterator: Iterator, num_batches: int, device: torch.device
    ) -> tuple[list[dict[str, Any]], Any]:
        """
        Read the micro-batches of an optimizer step as `Trainer.get_batch_samples` does, and count them.

        Returns:
            `tuple`: The micro-batches, and the number of tokens to divide by; with a mixture that of each source, over all
            processes.
        """
        statistics, log = self._run_state.statistics, self._run_state.log
        statistics.end_step()
        if self.mixture is None:
            batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
            log.count(batches)
            statistics.rows += sum(map(count_rows, batches))
            return batches, num_items
        batches: list[MixtureBatch] = [next(epoch_iterator) for _ in range(num_batches)]
        num_tokens = torch.zeros(len(self.mixture.sources), dtype=torch.long)
        for batch in batches:
            source = self.mixture.sources[batch.source]
            statistics.rows += source.batch_size
            num_tokens[batch.source] += batch.inputs["labels"][:, 1:].ne(-100).sum()
        for name, message in self._run_state.position.advance(batches, log.sources):
            logger.warning(f"Skipped in data source {name!r}: {message}")
        log.count([batch.inputs for batch in batches])
        log.steps += num_tokens > 0
        num_tokens = self.accelerator.reduce(num_tokens.to(device), reduction="sum")
        return [{**batch.inputs, "source": batch.source} for batch in batches], num_tokens

    # Loss and optimizer.

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | None = None,
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """Compute the loss of a micro-batch of a mixture with the weight of its source, or as `Trainer.compute_loss` does."""
        source = inputs.pop("source", None)
        if source is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        # The model divides the sum over the tokens of this micro-batch by the number of tokens of all of them
        outputs = model(**inputs, num_items_in_batch=num_items_in_batch[source])
        self._run_state.log.add_loss(source, outputs.loss.detach())
        # Gradients are averaged over processes, but must be summed
        loss = outputs.loss * (self.mixture.sources[source].weight * self.args.world_size)
        return (loss, outputs) if return_outputs else loss

    def create_optimizer(self, model=None) -> torch.optim.Optimizer:
        """Create an optimizer with the groups of [`parameter_groups`]. With FSDP2, shard the model before."""
        self._shard()
        if self.optimizer is None:
            optimizer_cls, kwargs = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(
                self.args, self.model if model is None else model
            )
            if is_optimizer_factory(optimizer_cls) or {"params", "model", "optimizer_dict"} & set(kwargs):
                raise ValueError(
                    f"`optim={str(self.args.optim)!r}` makes its own parameter groups, so weight decay would not be limited to "
                    "the gated blocks. Choose an optimizer such as adamw_torch."
                )
            groups = parameter_groups(
                self.model if model is None else model,
                self.args.learning_rate,
                self.args.weight_decay,
                self.args.gate_learning_rate_multiplier,
                self.args.resampler_learning_rate_multiplier,
            )
            self.optimizer = optimizer_cls(groups, **kwargs)
        return self.optimizer

    def _shard(self) -> None:
        """
        Shard the model with FSDP2, if it is in use. The optimizer must be created afterwards, with the sharded parameters.

        accelerate does not change a model that is already sharded. Its own units would mix frozen and trained parameters.
        """
        plugin = getattr(self.accelerator.state, "fsdp_plugin", None)
        if self.is_fsdp_enabled and plugin.fsdp_version == 2 and not isinstance(self.model, FSDPModule):
            self.model.to(self.args.device)
            shard_model(
                self.model,
                mp_policy=plugin.mixed_precision_policy,
                offload_policy=plugin.cpu_offload,
                reshard_after_forward=plugin.reshard_after_forward,
            )

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch=None) -> torch.Tensor:
        """Train as `Trainer.training_step` does, count the loss, and now and then measure whether the images are used."""
        self._measure_image_use(inputs)
        loss = super().training_step(model, inputs, num_items_in_batch)
        self._run_state.statistics.add_loss(loss)
        return loss

    # Logs.

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as `Trainer.log` does, with corrected and additional entries: see [`FlamingoTrainer`]."""
        run = self._run_state
        is_step = "loss" in logs  # the logs of an evaluation and of the summary at the end have other names
        if is_step:
            logs.update(run.log.pop(self.accelerator, run.position.count_skipped() if run.position else {}))
            model = self._unwrapped()
            for kind, values in gate_values(model).items():
                layers = model.config.cross_attention_layer_indices
                logs.update({f"gate/{kind}/{i}": value for i, value in zip(layers, values, strict=bool(values))})
            logs.update(self._pop_image_use())
        elif "train_loss" in logs:
            steps = self.state.global_step
            logs.update(run.statistics.summary(self.accelerator, self._start_time, steps, run.steps_before))
            logs.update(self._pop_image_use())
        logs.pop("total_flos", None)  # see `floating_point_ops`
        stock_epoch = self.state.epoch
        if self.mixture is not None:
            self.state.epoch = self._count_epochs()
        super().log(logs, start_time)
        self.state.epoch = stock_epoch
        if is_step:
            run.statistics.check(self.accelerator, self.state.global_step)

    def _count_epochs(self) -> float | None:
        """Count the passes over the data, or return `None` if there are several sources or the length is unknown."""
        source, *others = self.mixture.sources
        if others or source.streaming:
            return None
        return self._run_state.statistics.rows * self.args.world_size / len(self.mixture.rows[0])

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """
        Return 0, which means unknown.

        The stock estimate, 6 operations per text token and parameter, counts the vision encoder for each token of text
        instead of for its patches, and frozen parts as trained parts.
        """
        return 0

    # The run.

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """
        Train as `Trainer.train` does.

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*):
                A checkpoint, or `True` for the last complete one in `output_dir`.
            trial, ignore_keys_for_eval (*optional*): See `Trainer.train`.

        Raises:
            ValueError: the checkpoint is not complete, there is none, or it is of a run with other data; too much of what would be
                learned is unknown to the tokenizer; or the training failed.
            OSError: another process trains into `output_dir`, or it cannot be written.
        """
        with lock_output(self.args.output_dir) if self.is_world_process_zero() else nullcontext():
            checkpoint = self._find_checkpoint(resume_from_checkpoint)
            if self.mixture is not None:
                self._check_space(self.args.max_steps, checkpoint)
                check_texts(self.mixture, self.args, self.args.max_steps, self._steps_per_source)
                if self.args.should_log:
                    check_held_out_texts(self.eval_dataset)
            if self.mixture is not None and any(source.cache_features for source in self.mixture.sources):
                self._cache_features()
            if checkpoint is None:
                self._calibrate_features()
            self._reset_run()
            if checkpoint:
                process = self.args.process_index
                self._run_state.load(Path(checkpoint), process, restart_data=self._restarts_data)
            self._start_time = time.time()
            try:
                output = super().train(checkpoint, trial, ignore_keys_for_eval)
            except BaseException:
                close_progress_bars(self.callback_handler.callbacks)
                raise
            self._run_state.statistics.check(self.accelerator, self.state.global_step)
            if self.is_world_process_zero():
                self._run_state.image_use.announce_end(self.state.global_step)
        return output._replace(training_loss=output.metrics["train_loss"])

    def set_initial_training_values(self, args: FlamingoTrainingArguments, dataloader: DataLoader) -> tuple:
        """Return what `Trainer.set_initial_training_values` does, with 0 epochs if all steps are already done."""
        num_train_epochs, *others = super().set_initial_training_values(args, dataloader)
        max_steps = others[-1]
        if self.mixture is None:  # whose number of steps was not known before
            self._check_schedule(args, max_steps, self._unwrapped(), (self.optimizer,))
            self._check_space(max_steps, None)
        # Resumed from the checkpoint of its last step, the stock loop would take one step more
        return (0 if self._run_state.steps_before >= max_steps else num_train_epochs, *others)

    def _resume_log(self) -> None:
        """Restore the sum of losses between the last log step and the checkpoint, which the stock loop has just set to 0."""
        if self._run_state.stock_log is not None:
            loss, last_logged = self._run_state.stock_log
            self._tr_loss += loss
            self._globalstep_last_logged = last_logged

    def _save_run_state(self, directory: Path) -> None:
        """Add to a stock checkpoint what it lacks for exact resuming."""
        self._run_state.save(
            directory,
            self.args.process_index,
            step=self.state.global_step,
            loss=self._tr_loss.item(),
            last_logged=self._globalstep_last_logged,
            has_optimizer=not self.args.save_only_model,
        )
