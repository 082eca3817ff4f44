# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The stock `Trainer`, for a mixture of data sets, with resuming that is exact."""

import copy
import json
import math
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.integrations import TensorBoardCallback
from transformers.trainer_optimizer import is_optimizer_factory
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, EvalLoopOutput, rotate_checkpoints
from transformers.utils import logging

from ..modeling_flamingo import FlamingoModel
from .arguments import FlamingoTrainingArguments
from .callbacks import gate_values
from .card import write_training_card
from .checkpointing import (
    TRAINABLE_NAME,
    find_damage,
    get_last_checkpoint,
    load_trainable,
    remove_damaged,
    remove_manifest,
    save_trainable,
    write_manifest,
)
from .data_collator import FlamingoDataCollator
from .held_out import SCORES, HeldOut, Question
from .mixture import DataMixture, MixtureBatch
from .optimization import parameter_groups
from .packing import check_packing
from .sharding import shard_model


logger = logging.get_logger(__name__)

# Of each evaluation so many generated texts are kept, in this file of the output directory
NUM_SAMPLES = 8
SAMPLES_NAME = "samples.jsonl"


class FlamingoTrainer(Trainer):
    """
    `Trainer` for a [`FlamingoModel`]. It takes the arguments of `Trainer`, with [`FlamingoTrainingArguments`].

    **Data.** `train_dataset` is a [`DataMixture`], or anything that the stock `Trainer` takes. With a mixture, the
    loss of an optimizer step is

        sum over sources k of  lambda_k * (sum of the losses of the tokens of k) / (number of tokens of k),

    over all micro-batches of the step and all processes. So two processes or two accumulated micro-batches give what
    one batch of twice the size gives. Without `max_steps`, one epoch is one pass over the only source.

    **Logs** have, beside the stock entries, `loss/<source>` (the mean loss of a token, without lambda), `tokens_per_second`
    and `images_per_second` over all processes, `peak_memory_gb` of the GPU of the process that logs,
    `gate/attn/<layer>` and `gate/ffn/<layer>` (tanh of the gates; layers of the language model), and
    `skipped/<source>`, the number of bad rows skipped so far over all processes, where there are any.

    **Evaluation.** For an `eval_dataset` of [`HeldOut`] rows, or a dictionary of several, there are beside `eval_loss`
    `eval_exact_match` and `eval_word_f1` of greedy or beam generation, and all three once more with blank images
    (`eval_blind_loss`, ...): what the text alone gives away. Some generated texts go to `samples.jsonl` in the output
    directory, and to TensorBoard where it is in use.

    **Resuming is exact**: a run that was killed at any moment and is resumed computes what one never stopped computes,
    bit for bit where the hardware does. A checkpoint that was cut short is known by its missing or differing
    `manifest.json`; `train(resume_from_checkpoint=True)` takes the last one that is whole. Finding the place in the
    data takes no time, but for streams, which read the current file again up to their place.

    **Optimizer.** Groups of [`parameter_groups`]: frozen weights have no state.

    Raises:
        ValueError: arguments that contradict the mixture.
    """

    args: FlamingoTrainingArguments

    def __init__(self, model=None, args: FlamingoTrainingArguments | None = None, *positional, **kwargs):
        if not isinstance(args, FlamingoTrainingArguments):
            raise ValueError(
                f"`args` is of type {type(args).__name__}. FlamingoTrainer needs FlamingoTrainingArguments, which has "
                "the fields of TrainingArguments and some of its own."
            )
        # train_dataset is the fourth argument of `Trainer`
        mixture = kwargs.get("train_dataset") or (positional[1] if len(positional) > 1 else None)
        self.mixture = mixture if isinstance(mixture, DataMixture) else None
        if self.mixture is not None and not positional:  # data_collator is the third argument of `Trainer`
            kwargs.setdefault("data_collator", FlamingoDataCollator(self.mixture.processor))
        self._restarts_data = args.ignore_data_skip
        if self.mixture is not None:
            args = self._arguments_for_mixture(args)
        super().__init__(model, args, *positional, **kwargs)
        if self.mixture is not None and self.args.n_gpu > 1:
            raise ValueError(
                f"{self.args.n_gpu} GPUs in one process would each get a part of a micro-batch, whose images do not "
                "split with its text. Start one process for each, with `torchrun` or `accelerate launch`."
            )
        self._check_packing()
        self._data_state: dict[str, Any] | None = None
        self._window = _LogWindow(0)
        self._skipped: dict[str, int] = {}

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

    def _arguments_for_mixture(self, args: FlamingoTrainingArguments) -> FlamingoTrainingArguments:
        for name in ("label_smoothing_factor", "auto_find_batch_size"):
            if getattr(args, name):
                raise ValueError(f"`{name}` is not supported with a data mixture. Leave it out.")
        args = copy.copy(args)  # the caller's stay as they are
        self._steps_per_source = args.gradient_accumulation_steps
        if args.max_steps <= 0:
            args.max_steps = self._count_steps(args)
        if args.mixture_strategy == "accumulate":
            args.gradient_accumulation_steps *= len(self.mixture.sources)
        # The loader itself begins at the right place: nothing is left to skip
        args.ignore_data_skip = True
        return args

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
        if self.mixture is None:
            batches, num_items = super().get_batch_samples(epoch_iterator, num_batches, device)
            self._window.count(batches)
            return batches, num_items
        batches: list[MixtureBatch] = [next(epoch_iterator) for _ in range(num_batches)]
        num_tokens = torch.zeros(len(self.mixture.sources), dtype=torch.long)
        for batch in batches:
            name = self.mixture.sources[batch.source].name
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

    # Logs.

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:  # and not the evaluation's or the summary at the end
            logs.update(self._window.drain(self))
        super().log(logs, start_time)

    # Evaluation.

    def prediction_step(self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, *args, **kwargs):
        """As `Trainer.prediction_step`; where the loss alone is wanted no logits are kept."""
        if prediction_loss_only and "labels" in inputs:
            inputs = {**inputs, "skip_logits": True}
        return super().prediction_step(model, inputs, prediction_loss_only, *args, **kwargs)

    def evaluation_loop(self, dataloader: DataLoader, *args, **kwargs) -> EvalLoopOutput:
        """As `Trainer.evaluation_loop`; of [`HeldOut`] rows also the blind loss, and how well their texts are generated."""
        output = super().evaluation_loop(dataloader, *args, **kwargs)
        rows = dataloader.dataset
        if not isinstance(rows, HeldOut):
            return output
        prefix = kwargs.get("metric_key_prefix", "eval")
        blind = super().evaluation_loop(self.get_eval_dataloader(rows.blind()), *args, **kwargs)
        output.metrics[f"{prefix}_blind_loss"] = blind.metrics[f"{prefix}_loss"]
        questions = [rows.question(index) for index in range(len(rows))]
        texts = {"": self._generate(rows), "blind_": self._generate(rows.blind())}
        for condition, answers in texts.items():
            for name, score in SCORES.items():
                values = [score(answer, q.reference) for answer, q in zip(answers, questions, strict=True)]
                output.metrics[f"{prefix}_{condition}{name}"] = sum(values) / len(values)
        self._log_samples(rows.source.name, questions, texts[""], texts["blind_"])
        return output

    @torch.no_grad()
    def _generate(self, rows: HeldOut) -> list[str]:
        """How the model goes on with each prompt; the processes share the work."""
        model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False).eval()
        world_size, batch_size = self.args.world_size, self.args.per_device_eval_batch_size
        # The same number of batches for each process: sharded weights are gathered together
        mine = [(i * world_size + self.args.process_index) % len(rows) for i in range(-(-len(rows) // world_size))]
        texts = []
        for start in range(0, len(mine), batch_size):
            questions = [rows.question(index) for index in mine[start : start + batch_size]]
            inputs = rows.processor(
                images=[q.images for q in questions] if any(q.images for q in questions) else None,
                text=[q.prompt for q in questions],
                padding=True,
                padding_side="left",
                return_tensors="pt",
            ).to(self.args.device)
            with self.compute_loss_context_manager():
                generated = model.generate(
                    **inputs,
                    max_new_tokens=self.args.generation_max_new_tokens,
                    num_beams=self.args.generation_num_beams,
                    do_sample=False,
                )
            new = generated[:, inputs["input_ids"].shape[1] :]
            texts += [t.strip() for t in rows.processor.batch_decode(new, skip_special_tokens=True)]
        # (process, i) -> i * world_size + process
        by_process = [texts] if world_size == 1 else gather_object([texts])
        return [text for group in zip(*by_process, strict=True) for text in group][: len(rows)]

    def _log_samples(self, name: str, questions: list[Question], texts: list[str], blind: list[str]) -> None:
        if not self.is_world_process_zero():
            return
        samples = [
            {
                "step": self.state.global_step,
                "source": name,
                "prompt": q.prompt,
                "text": text,
                "blind": b,
                "is": q.reference,
            }
            for q, text, b in zip(questions[:NUM_SAMPLES], texts, blind, strict=False)
        ]
        directory = Path(self.args.output_dir)
        directory.mkdir(parents=True, exist_ok=True)
        with open(directory / SAMPLES_NAME, "a", encoding="utf-8") as file:
            file.writelines(json.dumps(sample, ensure_ascii=False) + "\n" for sample in samples)
        lines = [f"{s['prompt']}[{s['text']}], blind [{s['blind']}], is [{s['is']}]" for s in samples]
        logger.info("\n".join([f"Step {self.state.global_step}, {name}:", *lines]))
        for callback in self.callback_handler.callbacks:
            if isinstance(callback, TensorBoardCallback) and callback.tb_writer is not None:
                callback.tb_writer.add_text(f"samples/{name}", "\n\n".join(lines), self.state.global_step)

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
        if resume_from_checkpoint is True:
            resume_from_checkpoint = get_last_checkpoint(self.args.output_dir)
            if resume_from_checkpoint is None:
                raise ValueError(f"There is no checkpoint to resume from in {self.args.output_dir!r} that is whole.")
        elif resume_from_checkpoint:
            damage = find_damage(resume_from_checkpoint)
            if damage is not None:
                raise ValueError(f"{resume_from_checkpoint!r} cannot be resumed from: {damage}.")
        self._window = _LogWindow(0 if self.mixture is None else len(self.mixture.sources))
        self._saved_window = None
        self._skipped = {}
        if self.mixture is not None:
            if any(source.cache_features for source in self.mixture.sources):
                self._cache_features()
            self._data_state = self._new_data_state()
        if resume_from_checkpoint:
            self._load_run_state(Path(resume_from_checkpoint))
        return super().train(resume_from_checkpoint or None, *args, **kwargs)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        run_dir = self._get_output_dir(trial=trial)
        directory = Path(run_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.args.should_save:
            remove_manifest(directory)
        self.accelerator.wait_for_everyone()
        # The stock method would delete older checkpoints before this one is known to be whole
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        self._save_run_state(directory)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            write_manifest(directory)
            if limit:
                remove_damaged(run_dir)
            rotate_checkpoints(run_dir, limit, self.state.best_model_checkpoint, use_mtime=True)

    def _run_state_file(self, directory: Path) -> Path:
        return directory / f"run_state_{self.args.process_index}.json"

    def _save_run_state(self, directory: Path) -> None:
        """What stock checkpoints lack: the place in the data, and the losses since the last log."""
        state = {
            "data": None if self.mixture is None else {**self._data_state, "skipped": self._skipped},
            "window": {
                **self._window.state(),
                "loss": self._tr_loss.item(),
                "last_logged": self._globalstep_last_logged,
            },
        }
        self._run_state_file(directory).write_text(json.dumps(state))

    def _load_run_state(self, directory: Path) -> None:
        file = self._run_state_file(directory)
        if not file.is_file():
            raise ValueError(
                f"There is no {file.name} in {str(directory)!r}: the run had fewer processes, or another trainer."
            )
        state = json.loads(file.read_text())
        self._saved_window = state["window"]
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
            self._tr_loss += self._saved_window["loss"]
            self._globalstep_last_logged = self._saved_window["last_logged"]
            self._window.load(self._saved_window)
            self._saved_window = None
        super()._run_epoch(*args, **kwargs)

    def _maybe_log_save_evaluate(self, *args, **kwargs) -> None:
        if self.mixture is not None:
            self.state.epoch = self.state.global_step / self.state.max_steps
        super()._maybe_log_save_evaluate(*args, **kwargs)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if not self.args.save_trainable_only:
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            output_dir = Path(self.args.output_dir if output_dir is None else output_dir)
            output_dir.mkdir(parents=True, exist_ok=True)
            model = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
            save_trainable(model, output_dir, state_dict)
            model.config.save_pretrained(output_dir)
            if self.processing_class is not None:
                self.processing_class.save_pretrained(output_dir)
            torch.save(self.args, output_dir / "training_args.bin")

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


class _LogWindow:
    """What is counted between two logs. Losses are sums over this process's micro-batches, one for each source."""

    def __init__(self, num_sources: int):
        self.losses: list[torch.Tensor | float] = [0.0] * num_sources
        self.steps = torch.zeros(num_sources, dtype=torch.long)
        self._restart()

    def _restart(self) -> None:
        self.tokens = self.images = 0
        self.start = time.perf_counter()

    def count(self, batches: list[dict[str, Any]]) -> None:
        for inputs in batches:
            if "attention_mask" in inputs:
                self.tokens += int(inputs["attention_mask"].sum())
            elif "position_ids" in inputs:  # packed: position 0 is the first of a document, or padding
                self.tokens += int((inputs["position_ids"] > 0).sum() + (inputs["position_ids"] == 1).sum())
            mask = inputs.get("frame_attention_mask")
            self.images += int(mask.sum()) if mask is not None else 0

    def add_loss(self, source: int, loss: torch.Tensor) -> None:
        self.losses[source] = self.losses[source] + loss

    def state(self) -> dict[str, Any]:
        return {"losses": [float(loss) for loss in self.losses], "steps": self.steps.tolist()}

    def load(self, state: dict[str, Any]) -> None:
        self.losses = list(state["losses"])
        self.steps = torch.tensor(state["steps"], dtype=torch.long)

    def drain(self, trainer: FlamingoTrainer) -> dict[str, float]:
        """The entries for the log, over all processes. Every process calls it."""
        device = trainer.args.device
        names = [] if trainer.mixture is None else [source.name for source in trainer.mixture.sources]
        counts = [self.tokens, self.images, *(trainer._skipped.get(name, 0) for name in names)]
        sums = torch.tensor(
            [*counts, *map(float, self.losses)], dtype=torch.float32 if device.type == "mps" else torch.float64
        )
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
        self.__init__(len(self.losses))
        return entries
