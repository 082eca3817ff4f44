# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Pretraining of a causal language model."""

from contextlib import nullcontext
from itertools import chain
from typing import Any

import torch
from datasets import Dataset, Features, List, Value
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Trainer,
    TrainingArguments,
    default_data_collator,
    set_seed,
)

from ..data import Reader
from ..data.columns import rows_of
from ..saving_flamingo import update_folder
from ..training.callbacks import StopAtNaNCallback
from ..training.interruption import stopping_on_signals
from ..training.statistics import check_weights_are_finite
from .arguments import TextPretrainingArguments
from .parts import check_vocabulary, find_checkpoint, load_tokenizer, make_config, prepare_run, read_text


def train_language_model(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset | torch.utils.data.Dataset,
    training: TrainingArguments,
    trainer_class: type[Trainer] = Trainer,
    stops_on_signals: bool = False,
) -> Trainer:
    """
    Train a causal language model on rows of token ids, and save it with its tokenizer into `training.output_dir`.

    Args:
        model (`PreTrainedModel`): The language model.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer, which is only saved.
        rows (`datasets.Dataset` or `torch.utils.data.Dataset`):
            `input_ids` `(T,)`, all of one length. Optionally `labels` where they differ from the `input_ids`, such as -100
            for tokens without a loss, and other arguments of the model, such as `position_ids`.
        training (`TrainingArguments`): Arguments of the trainer.
        trainer_class (`type[Trainer]`, *optional*): The trainer, for your own `compute_loss`.
        stops_on_signals (`bool`, *optional*, defaults to `False`):
            Whether Ctrl-C and SIGTERM end the training after the step, with a checkpoint.

    Returns:
        `Trainer`, after its training.

    Raises:
        ValueError: the loss or the weights are not finite. The model is not saved then.
        TrainingInterrupted: a signal ended the training.
    """
    with prepare_run(training) as training:
        training.remove_unused_columns = False  # a trainer may read columns that the model does not
        trainer = trainer_class(
            model,
            training,
            train_dataset=rows,
            # Not DataCollatorForLanguageModeling: it ignores padding in the loss, and for many tokenizers that is the end of
            # the sequence
            data_collator=_collate_rows,
            processing_class=tokenizer,
            callbacks=[StopAtNaNCallback()],
        )
        with stopping_on_signals(trainer, stops_on_signals):
            trainer.train(resume_from_checkpoint=find_checkpoint(training))
        check_weights_are_finite(model.parameters(), trainer.accelerator)
        saving = update_folder(training.output_dir) if training.should_save else nullcontext(training.output_dir)
        with saving as directory:
            trainer.save_model(str(directory), _internal_call=True)
        if training.push_to_hub:
            trainer.push_to_hub()
        return trainer


def pretrain_text(
    arguments: TextPretrainingArguments, training: TrainingArguments, *, stops_on_signals: bool = False
) -> Trainer:
    """
    Train a causal language model on texts.

    Texts are concatenated, each followed by the end-of-sequence token, and cut into rows of `block_size` tokens. The last
    tokens of every 1000 texts that do not fill a row are dropped. Afterwards `training.output_dir` holds the model with its
    tokenizer, for [`FlamingoModel.from_vision_text_pretrained`].

    Args:
        arguments ([`TextPretrainingArguments`]): The data and the model.
        training (`TrainingArguments`): Arguments of the trainer.
        stops_on_signals (`bool`, *optional*, defaults to `False`): As in [`train_language_model`].

    Returns:
        `Trainer`, after its training.

    Raises:
        TrainingInterrupted: a signal ended the training.
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
        return train_language_model(model, tokenizer, blocks, training, stops_on_signals=stops_on_signals)


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
