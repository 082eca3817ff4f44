# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Pretraining of a causal language model."""

import copy
from contextlib import nullcontext
from itertools import chain
from typing import Any

import torch
from datasets import Dataset, Features, List, Value
from torch import nn
from torch.nn import functional as F
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)
from transformers.trainer_utils import TrainOutput

from ..data import Reader
from ..data.columns import rows_of
from ..saving_flamingo import update_folder
from ..training.callbacks import StopAtNaNCallback
from ..training.statistics import check_weights_are_finite
from .arguments import TextPretrainingArguments
from .parts import check_vocabulary, load_tokenizer, make_config, prepare_run, read_text


class TextBackboneTrainer(Trainer):
    """
    `Trainer` of a causal language model on rows of tokens. It stops with an error if a loss or a weight is not finite.

    Args:
        model (`PreTrainedModel`): The language model.
        training (`TrainingArguments`): Arguments of the trainer.
        rows (`datasets.Dataset` or `torch.utils.data.Dataset`):
            Rows of one length `T`: `input_ids`; *optionally* `labels`, if they are not the `input_ids`, and `loss_weights`, a
            number for each token; and any other argument of the model, such as `position_ids`.
        tokenizer (`PreTrainedTokenizerBase`): The tokenizer, which is saved with the model.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        training: TrainingArguments,
        rows: Dataset | torch.utils.data.Dataset,
        tokenizer: PreTrainedTokenizerBase,
    ):
        training = copy.copy(training)
        training.remove_unused_columns = False  # `loss_weights` is not an argument of the model
        super().__init__(
            model,
            training,
            train_dataset=rows,
            # DataCollatorForLanguageModeling would ignore padding, which is the end-of-sequence token of many tokenizers
            data_collator=_collate_rows,
            processing_class=tokenizer,
            callbacks=[StopAtNaNCallback()],
        )

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """
        Train, as `Trainer.train`.

        Raises:
            ValueError: the loss, or a weight at the end, is not finite.
        """
        result = super().train(*args, **kwargs)
        check_weights_are_finite(self.model.parameters(), self.accelerator)
        return result

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """Compute the loss of the model, or with `loss_weights` `(B, T)` the weighted mean over the tokens of a micro-batch."""
        if "loss_weights" not in inputs:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        # The first token of a row is not predicted
        labels, weights = (inputs[name][:, 1:] for name in ("labels", "loss_weights"))  # (B, T - 1)
        outputs = model(**{name: value for name, value in inputs.items() if name not in ("labels", "loss_weights")})
        losses = F.cross_entropy(outputs.logits[:, :-1].transpose(1, 2).float(), labels, reduction="none")
        loss = (losses * weights).sum() / (weights * (labels != -100)).sum()
        if num_items_in_batch is not None:  # `Trainer` divides by the number of micro-batches only if this is `None`
            loss = loss / self.current_gradient_accumulation_steps
        return (loss, outputs) if return_outputs else loss


def pretrain_text(arguments: TextPretrainingArguments, training: TrainingArguments) -> Trainer:
    """
    Train a causal language model on texts.

    Texts are concatenated, each followed by the end-of-sequence token, and cut into rows of `block_size` tokens. The last
    tokens of every 1000 texts that do not fill a row are dropped. Afterwards `training.output_dir` holds the model with its
    tokenizer, for [`FlamingoModel.from_vision_text_pretrained`].

    Args:
        arguments ([`TextPretrainingArguments`]): The data and the model.
        training (`TrainingArguments`): Arguments of the trainer.

    Returns:
        `Trainer`, after its training.

    Raises:
        ValueError: the parts do not fit together, or the texts do not fill a row.
        BadSampleError: a row cannot be read. The message names file and row.
    """
    with prepare_run(training) as training:
        set_seed(training.seed)
        rows = arguments.load()
        tokenizer = load_tokenizer(arguments, rows, training)
        if arguments.text is not None:
            model = AutoModelForCausalLM.from_pretrained(arguments.text)
        else:
            model = AutoModelForCausalLM.from_config(make_config(arguments.text_config, tokenizer))
        check_vocabulary(model.config, tokenizer)
        positions = getattr(model.config, "max_position_embeddings", None)
        if positions is not None and arguments.block_size > positions:
            raise ValueError(
                f"`block_size` is {arguments.block_size}, but the model has {positions} positions. Lower `block_size`."
            )
        with training.main_process_first(desc="tokenizing"):
            blocks = rows.map(
                _cut_blocks,
                batched=True,
                remove_columns=rows.column_names,
                features=Features({"input_ids": List(Value("int32"))}),
                fn_kwargs={"reader": arguments.reader, "tokenizer": tokenizer, "block_size": arguments.block_size},
                desc="Tokenizing",
            )
        if len(blocks) == 0:
            raise ValueError(
                f"The texts in {arguments.data_path!r} fill no row of {arguments.block_size} tokens. Lower `block_size`."
            )
        trainer = TextBackboneTrainer(model, training, blocks, tokenizer)
        trainer.train(resume_from_checkpoint=training.resume_from_checkpoint)
        saving = update_folder(training.output_dir) if training.should_save else nullcontext(training.output_dir)
        with saving as directory:
            trainer.save_model(str(directory), _internal_call=True)
        if training.push_to_hub:
            trainer.push_to_hub()
        return trainer


def _cut_blocks(
    batch: dict[str, list], reader: Reader, tokenizer: PreTrainedTokenizerBase, block_size: int
) -> dict[str, list[list[int]]]:
    texts = [read_text(reader, row) for row in rows_of(batch)]
    # `verbose=False`: no warning about texts longer than the model's context, because they are cut below
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
    tokens = list(chain.from_iterable([*ids, tokenizer.eos_token_id] for ids in encoded))
    ends = range(block_size, len(tokens) + 1, block_size)
    return {"input_ids": [tokens[end - block_size : end] for end in ends]}


def _collate_rows(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    return default_data_collator([{"labels": row["input_ids"], **row} for row in rows])
