# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Exact match with one of several references."""

from collections.abc import Sequence

from ..checks import as_references, check_text


def exact_match(prediction: str, references: str | Sequence[str]) -> bool:
    """
    Whether the prediction is one of the references, case, surrounding and repeated white space and a final full stop aside.

    Args:
        references (`str` or `Sequence[str]`): The right answer, or all that count as right.

    Raises:
        ValueError: The prediction is not a text, or there are no references.
    """
    check_text(prediction, "The prediction")
    return _normalize(prediction) in map(_normalize, as_references(references))


def _normalize(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".").rstrip()
