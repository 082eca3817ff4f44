# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Exact match with one of several references, after one of two normalizations."""

import re
import string
from collections.abc import Sequence
from typing import Literal

from transformers_flamingo.evaluation.metrics.base import ONE_REFERENCE, SEVERAL_REFERENCES, MetricModule, mean_score
from transformers_flamingo.evaluation.metrics.checks import as_references, check_text


Normalization = Literal["case", "squad"]


def exact_match(prediction: str, references: str | Sequence[str], *, normalization: Normalization = "case") -> bool:
    """
    Check whether the prediction is one of the references.

    Args:
        prediction (`str`): The answer.
        references (`str` or `Sequence[str]`): The right answer, or all that count as right.
        normalization (`str`, *optional*, defaults to `"case"`):
            What is ignored. `"case"`: case, surrounding and repeated white space and a final full stop. `"squad"`: case,
            white space, all punctuation and articles, as SQuAD compares answers (Rajpurkar et al. 2016; its `evaluate-v1.1.py`).

    Raises:
        ValueError: the prediction is not a text, there are no references, or the normalization is unknown.
    """
    check_text(prediction, "The prediction")
    if normalization not in _NORMALIZE:
        raise ValueError(f"`normalization` is {normalization!r}. It can be {', '.join(_NORMALIZE)}.")
    normalize = _NORMALIZE[normalization]
    return normalize(prediction) in map(normalize, as_references(references))


def squad_words(text: str) -> list[str]:
    """Split a text into lower-cased words without punctuation and articles, as SQuAD does."""
    text = text.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


_NORMALIZE = {
    "case": lambda text: " ".join(text.casefold().split()).removesuffix(".").rstrip(),
    "squad": squad_words,
}


class ExactMatch(MetricModule):
    """Share of predictions that are one of their references, from 0 to 1."""

    inputs = "predictions: one text per query. references: a text, or a list of those that count as right, per query."
    columns = [SEVERAL_REFERENCES, ONE_REFERENCE]

    def _compute(
        self,
        predictions: list[str],
        references: list[str] | list[list[str]],
        normalization: Normalization = "case",
    ) -> dict[str, float]:
        return {"exact_match": mean_score(exact_match, predictions, references, normalization=normalization)}
