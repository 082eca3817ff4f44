# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Parts that the pretraining of both backbones shares: the tokenizer, configurations, the training arguments."""

import copy
import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from datasets import Dataset
from huggingface_hub.errors import StrictDataclassError
from transformers import (
    AutoConfig,
    AutoTokenizer,
    GPT2Tokenizer,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging

from ..data import Reader
from ..saving_flamingo import write_folder
from ..training.arguments import SecretFreeTrainingArguments
from ..training.checkpointing import lock_output
from ..training.recipe_file import show, suggest
from ..utils.folders import call_on_main_process
from ..utils.redaction import explain
from .arguments import PretrainingArguments


logger = logging.get_logger(__name__)


@contextmanager
def prepare_run(training: TrainingArguments) -> Iterator[TrainingArguments]:
    """
    Lock the output directory, and give a copy of the arguments that may be changed and saved.

    The caller's arguments stay as they are, and the file that `Trainer` pickles them into, which is published, has no secrets.
    """
    twin = copy.copy(training)
    if type(twin) is TrainingArguments:
        twin.__class__ = SecretFreeTrainingArguments  # it has the same fields
    # The first process locks for all
    with lock_output(twin.output_dir) if twin.process_index == 0 else nullcontext():
        yield twin


def find_checkpoint(training: TrainingArguments) -> str | bool | None:
    """Return what `resume_from_checkpoint` names; `auto` is the last checkpoint, or none if there is none."""
    resume = {"true": True, "false": None, "": None}.get(
        str(training.resume_from_checkpoint).lower(), training.resume_from_checkpoint
    )
    if resume != "auto":
        return resume
    folder = Path(training.output_dir)
    checkpoint = call_on_main_process(lambda: get_last_checkpoint(str(folder)) if folder.is_dir() else None)
    if training.process_index == 0:
        logger.warning(
            f"`resume_from_checkpoint` is auto, and {training.output_dir!r} has no checkpoint: the training starts at step 0."
            if checkpoint is None
            else f"The training resumes from {checkpoint}."
        )
    return checkpoint


def read_text(reader: Reader, row: dict[str, Any]) -> str:
    """Return all text of a row, without its images."""
    return " ".join(filter(None, (chunk.prompt + chunk.text for chunk in reader.read(row))))


def load_tokenizer(
    arguments: PretrainingArguments, rows: Dataset, training: TrainingArguments
) -> PreTrainedTokenizerBase:
    """
    Load the tokenizer that is named, or train one on the texts: byte-level BPE, as GPT-2's, saved in `tokenizer/`.

    Raises:
        ValueError: the tokenizer has no `eos_token`.
    """
    name = arguments.tokenizer or arguments.text
    directory = Path(training.output_dir) / "tokenizer"
    with training.main_process_first(desc="training the tokenizer"):
        if name is None and training.local_process_index == 0:
            reader, blank = arguments.reader, GPT2Tokenizer(pad_token="<pad>")
            texts = (read_text(reader, row) for row in rows)
            with write_folder(directory) as partial:
                blank.train_new_from_iterator(texts, arguments.vocab_size).save_pretrained(partial)
        tokenizer = AutoTokenizer.from_pretrained(name or directory)
    if tokenizer.eos_token is None:
        raise ValueError(
            f"The tokenizer of {name!r} has no `eos_token`, so no text would end. Give another tokenizer."
        )
    return tokenizer


def make_config(values: dict[str, Any], tokenizer: PreTrainedTokenizerBase | None = None) -> PreTrainedConfig:
    """
    Make a configuration from `model_type` and fields.

    Args:
        values (`dict`): `model_type` and fields.
        tokenizer (*optional*): Sets the size of the vocabulary and the special tokens, unless `values` do.

    Raises:
        ValueError: a field is unknown, or its value does not fit.
    """
    config = AutoConfig.for_model(values["model_type"])
    known = {f.name for f in dataclasses.fields(config)} | {*config.attribute_map, "model_type"}
    for name in values:
        if name not in known:
            raise ValueError(
                f"{type(config).__name__} has no {show(name)}, so it would have no effect.{suggest(name, known)}"
            )
    defaults = {}
    if tokenizer is not None:
        defaults = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        defaults["vocab_size"] = len(tokenizer)
    try:
        return AutoConfig.for_model(**{**defaults, **values})
    except StrictDataclassError as error:
        raise ValueError(f"{type(config).__name__} cannot be made of {show(values)}: {explain(error)}") from error


def check_vocabulary(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """
    Check that the model embeds every token of the tokenizer.

    Raises:
        ValueError: it does not.
    """
    if len(tokenizer) > config.vocab_size:
        raise ValueError(
            f"The tokenizer has {len(tokenizer)} tokens, but the model embeds {config.vocab_size}. Give the tokenizer of this "
            "model, or remove `vocab_size` from `text_config`."
        )
