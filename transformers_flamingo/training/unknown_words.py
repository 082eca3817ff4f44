# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Words that a tokenizer does not know, among those that are learned.

A tokenizer with a closed vocabulary replaces each of them by one token, such as `<|unk|>`. A model that learns it can say
nothing else, whatever the image shows, and its loss falls all the same.
"""

import re
from collections import Counter

import torch

from ..processing_flamingo import FlamingoProcessor


#: Above this share of the supervised tokens, unknown ones are an error.
MAX_UNKNOWN_SHARE = 0.05

_NUM_SHOWN_WORDS = 8


class UnknownWords:
    """
    Counts supervised tokens, and those of them that stand for what the tokenizer does not know.

    A tokenizer without an unknown token, or one that falls back to bytes, has none: its counts stay 0. Where the end-of-sequence
    token is named as the unknown token too, as in GPT-2, the former is not counted.

    Args:
        processor ([`FlamingoProcessor`]): Has the tokenizer.
    """

    def __init__(self, processor: FlamingoProcessor):
        self.processor = processor
        self.supervised = self.unknown = 0
        self.words: Counter[str] = Counter()
        tokenizer = processor.tokenizer
        # Not `tokenizer.unk_token_id`, which logs an error where there is none
        self.token = tokenizer.special_tokens_map.get("unk_token")
        self._id = None if self.token is None else tokenizer.convert_tokens_to_ids(self.token)
        others = [token for name, token in tokenizer.special_tokens_map.items() if name != "unk_token"]
        self._has_other_meaning = self.token in others

    def add(self, text: str, labels: torch.LongTensor) -> None:
        """
        Count the tokens of a row.

        Args:
            text (`str`): Its text.
            labels (`torch.LongTensor` of shape `(T,)`): Its labels, as [`FlamingoDataCollator`] makes them, without padding.
        """
        labels = labels[1:]  # that of the first token is never used
        self.supervised += int((labels != -100).sum())
        if self._id is None or not (labels == self._id).any():
            return
        encoding = self.processor.tokenizer(text, return_offsets_mapping=True, verbose=False)
        for position in (labels == self._id).nonzero().flatten().tolist():
            start, end = encoding["offset_mapping"][position + 1]
            if self._has_other_meaning and text[start:end] == self.token:
                continue
            self.unknown += 1
            self.words[_word_around(text, start, end)] += 1

    @property
    def share(self) -> float:
        """Return the share of unknown tokens among the supervised ones."""
        return self.unknown / max(self.supervised, 1)

    @property
    def is_too_large(self) -> bool:
        """Tell whether too much of what is learned is unknown."""
        return self.share > MAX_UNKNOWN_SHARE

    def describe(self, is_held_out: bool = False) -> str:
        """
        Say which words are unknown, why it matters, and what to do.

        Args:
            is_held_out (`bool`, *optional*, defaults to `False`): Whether the texts are evaluated instead of learned.
        """
        most = self.words.most_common(_NUM_SHOWN_WORDS)
        shown = ", ".join(f"{word!r} ({count})" for word, count in most)
        rest = len(self.words) - len(most)
        if is_held_out:
            kind, effect = (
                "to generate",
                "The model has no word for them, so these answers are wrong whatever it learns.",
            )
        else:
            kind, effect = "to learn", f"The model would learn to answer {self.token!r} instead of them."
        return (
            f"{self.share:.1%} of the tokens {kind} ({self.unknown:,} of {self.supervised:,}) are {self.token!r}, because the "
            f"tokenizer does not know these words: {shown}{f' and {rest:,} others' if rest else ''}. {effect} Choose a `text` "
            "backbone whose tokenizer knows them (most take any text), or train one on your words (`flamingo pretrain text`), or "
            "correct the words."
        )


def _word_around(text: str, start: int, end: int) -> str:
    """Return the word of a text that a token is a part of, or the token if it is no part of a word."""
    token = text[start:end].strip()
    if token and not any(char.isalnum() for char in token):
        return token
    before = re.search(r"\w*$", text[:start])[0] if not text[start:end][:1].isspace() else ""
    return (before + text[start:end] + re.match(r"\w*", text[end:])[0]).strip()
