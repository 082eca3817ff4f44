# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Load a tokenizer, and give it the special tokens of Flamingo.

The file travels with a checkpoint as remote code: it stays flat and imports nothing of its own package.
"""

import os
from collections.abc import Mapping
from typing import Any

from transformers import AutoTokenizer
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.tokenization_utils_base import PreTrainedTokenizerBase


PAD_TOKEN = "<PAD>"

# SentencePiece's names of its own pieces. Many copies of LLaMA-1 name them "" in their tokenizer_config.json.
_SENTENCEPIECE_TOKENS = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


def load_tokenizer(name_or_path: str | os.PathLike, **kwargs) -> PreTrainedTokenizerBase:
    """
    Load a tokenizer as `AutoTokenizer` does, and unset special tokens that its files call `""`.

    transformers looks up the id of an unknown token as that of the unknown token. Where that is `""`, the look-up never
    ends.

    Args:
        name_or_path (`str` or `os.PathLike`): Hub id or folder.
        kwargs: Arguments of `AutoTokenizer.from_pretrained`.

    Raises:
        `OSError`, `ValueError`: there is no tokenizer; the message is that of `AutoTokenizer`.
    """
    config = get_tokenizer_config(name_or_path, **kwargs)
    # A special token is saved as a string, or as a dict with `content`
    tokens = {name: config.get(name) for name in PreTrainedTokenizerBase.SPECIAL_TOKENS_ATTRIBUTES}
    contents = {name: token.get("content") if isinstance(token, Mapping) else token for name, token in tokens.items()}
    empty = [name for name, content in contents.items() if content == ""]
    # Unset before loading: some tokenizer classes look up the ids of their special tokens while they are built
    tokenizer = AutoTokenizer.from_pretrained(name_or_path, **{**dict.fromkeys(empty), **kwargs})
    return unset_empty_tokens(tokenizer, restore=empty)


def unset_empty_tokens(
    tokenizer: PreTrainedTokenizerBase, restore: list[str] | None = None
) -> PreTrainedTokenizerBase:
    """
    Set special tokens that are `""` to SentencePiece's name for them if the vocabulary has it, and otherwise to `None`.

    Args:
        tokenizer ([`PreTrainedTokenizerBase`]): The tokenizer. It is changed in place, and returned.
        restore (`list[str]`, *optional*): Names of special tokens that were `""` before they were unset.
    """
    names = [name for name, token in tokenizer.special_tokens_map.items() if token == ""]
    names += [name for name in restore or [] if tokenizer.special_tokens_map.get(name) is None]
    vocabulary = tokenizer.get_vocab() if names else {}
    for name in names:
        token = _SENTENCEPIECE_TOKENS.get(name)
        setattr(tokenizer, name, token if token in vocabulary else None)
    return tokenizer


def add_flamingo_tokens(tokenizer: PreTrainedTokenizerBase, image_token: str | None, end_of_chunk_token: str) -> None:
    """
    Add the special tokens that a tokenizer lacks, in place, in OpenFlamingo's order, and set it to pad on the left.

    The order gives the ids of OpenFlamingo's checkpoints. A token that exists keeps its id.

    Args:
        tokenizer ([`PreTrainedTokenizerBase`]): The tokenizer.
        image_token (`str`, *optional*): Marks an image. `None` if images are marked by ordinary text.
        end_of_chunk_token (`str`): Ends the text of an image.
    """
    unset_empty_tokens(tokenizer)
    if end_of_chunk_token not in tokenizer.all_special_tokens:
        # Without the second argument, the tokenizer would lose the extra special tokens that it has
        extra: dict[str, Any] = {"extra_special_tokens": [end_of_chunk_token]}
        tokenizer.add_special_tokens(extra, replace_extra_special_tokens=False)
    if image_token is not None:
        # As a token with a name, `tokenizer.image_token`, which stock clients read. It is saved with the tokenizer.
        # The list of names belongs to the class, so the tokenizer gets its own.
        if "image_token" not in tokenizer.SPECIAL_TOKENS_ATTRIBUTES:
            tokenizer.SPECIAL_TOKENS_ATTRIBUTES = [*tokenizer.SPECIAL_TOKENS_ATTRIBUTES, "image_token"]
        tokenizer.add_special_tokens({"image_token": image_token})
    # Not `tokenizer.pad_token is None`, which logs an error
    if "pad_token" not in tokenizer.special_tokens_map:
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    # An attribute, because `tokenizer.json` remembers the side of the last padded call: a checkpoint that a `Trainer`
    # saved after right padding would otherwise generate with right padding.
    tokenizer.padding_side = "left"
