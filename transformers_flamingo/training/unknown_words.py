# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Words that a tokenizer does not know, among those that are learned.

A tokenizer with a closed vocabulary replaces each of them by one token, such as `<|unk|>`. A model that learns it can say
nothing else, whatever the image shows, and its loss falls all the same.
"""

import itertools
import re
from collections import Counter
from typing import Any, Literal

import torch
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from ..data.samples import adds_special_tokens
from ..processing_flamingo import FlamingoProcessor


#: Above this share of the supervised tokens, unknown ones are an error.
MAX_UNKNOWN_SHARE = 0.05

_NUM_SHOWN_WORDS = 8
# Letters that are in no closed vocabulary: of alchemy and of cuneiform
_STRANGE = ("\U0001f71a", "\U00012031")


class UnknownWords:
    """
    Counts supervised tokens, and those of them that stand for what the tokenizer does not know.

    A tokenizer that falls back to bytes knows every text: its counts stay 0. Where the end-of-sequence token is named as the unknown token
    too, as in GPT-2, the former is not counted. Some tokenizers have no token for what they do not know, and drop it: each word
    that loses a letter is counted as one unknown token.

    Args:
        processor ([`FlamingoProcessor`]): Has the tokenizer.
    """

    def __init__(self, processor: FlamingoProcessor):
        self.processor = processor
        self.supervised = self.unknown = 0
        self.words: Counter[str] = Counter()
        self.token, self._drops = _find_unknown_token(processor.tokenizer)
        self._id = None if self.token is None else processor.tokenizer.convert_tokens_to_ids(self.token)
        names = processor.tokenizer.special_tokens_map
        self._has_other_meaning = self.token in [token for name, token in names.items() if name != "unk_token"]

    def add(self, sample: dict[str, Any], labels: torch.LongTensor) -> None:
        """
        Count the tokens of a row.

        Args:
            sample (`dict`): The row, with `text` and `supervised`, as [`~data.document_to_sample`] makes it.
            labels (`torch.LongTensor` of shape `(T,)`): Its labels, as [`FlamingoDataCollator`] makes them, without padding.
        """
        text, labels = sample["text"], labels[1:]  # that of the first token is never used
        self.supervised += int((labels != -100).sum())
        positions = [] if self._id is None else (labels == self._id).nonzero().flatten().tolist()
        if not positions and not self._drops:
            return
        offsets = self.processor.tokenizer(
            text,
            add_special_tokens=adds_special_tokens(sample),
            return_offsets_mapping=True,
            verbose=False,
        )["offset_mapping"]
        unknown = [offsets[position + 1] for position in positions]
        unknown = [
            (start, end) for start, end in unknown if not (self._has_other_meaning and text[start:end] == self.token)
        ]
        words = [_word_around(text, start, end) for start, end in unknown]
        if self._drops:
            words += _dropped_words(text, offsets, sample["supervised"])
            self.supervised += len(words) - len(unknown)
        self.unknown += len(words)
        self.words.update(words)

    @property
    def name(self) -> str | None:
        """Return what becomes of an unknown word, in words; `None` if there is none."""
        if self._drops:
            return "dropped"
        return None if self.token is None else repr(self.token)

    @property
    def share(self) -> float:
        """Return the share of unknown tokens among the supervised ones."""
        return self.unknown / max(self.supervised, 1)

    @property
    def is_too_large(self) -> bool:
        """Tell whether too much of what is learned is unknown."""
        return self.share > MAX_UNKNOWN_SHARE

    def describe(self, purpose: Literal["learn", "generate", "read"] = "learn") -> str:
        """
        Say which words are unknown, why it matters, and what to do.

        Args:
            purpose (`str`, *optional*, defaults to `"learn"`): What the counted tokens are there for.
        """
        most = self.words.most_common(_NUM_SHOWN_WORDS)
        shown = ", ".join(f"{word!r} ({count})" for word, count in most)
        rest = len(self.words) - len(most)
        instead = "leave them out" if self._drops else f"answer {self.token!r} instead of them"
        effect = {
            "learn": f"The model would learn to {instead}.",
            "generate": "The model has no word for them, so these answers are wrong whatever it learns.",
            "read": "The model cannot tell them apart, in questions for example.",
        }[purpose]
        return (
            f"{self.share:.1%} of the tokens to {purpose} ({self.unknown:,} of {self.supervised:,}) are {self.name}, because the tokenizer does not know these words: {shown}{f' and {rest:,} others' if rest else ''}. {effect} Choose a `text` "
            "backbone whose tokenizer knows them (most take any text), or train one on your words (`flamingo pretrain text`), or "
            "correct the words."
        )


def _find_unknown_token(tokenizer: PreTrainedTokenizerBase) -> tuple[str | None, bool]:
    """Return the unknown token of a tokenizer, if it has one, and whether it drops what it does not know."""
    # Not `tokenizer.unk_token`, which logs an error where there is none
    named = tokenizer.special_tokens_map.get("unk_token")
    try:
        first, second = (tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in _STRANGE)
    # A tokenizer without an unknown token may refuse what it does not know, with an error of its own type. So do its rows
    except Exception:
        return named, False
    if named is None and first and first[-1:] == second[-1:]:  # it has one, but its files do not say so
        named = tokenizer.convert_ids_to_tokens(first[-1])
    return named, not first and not second


def _dropped_words(text: str, offsets: list[tuple[int, int]], spans: list[tuple[int, int]]) -> list[str]:
    """Return the words in spans of a text of which a letter is in no token."""
    covered = set(itertools.chain.from_iterable(range(start, end) for start, end in offsets))
    return [
        match[0]
        for start, end in spans
        for match in re.finditer(r"\w+", text[start:end])
        if not covered.issuperset(range(start + match.start(), start + match.end()))
    ]


def _word_around(text: str, start: int, end: int) -> str:
    """Return the word of a text that a token is a part of, or the token if it is not part of a word."""
    token = text[start:end].strip()
    if token and not any(char.isalnum() for char in token):
        return token
    before = re.search(r"\w*$", text[:start])[0] if not text[start:end][:1].isspace() else ""
    return (before + text[start:end] + re.match(r"\w*", text[end:])[0]).strip()
