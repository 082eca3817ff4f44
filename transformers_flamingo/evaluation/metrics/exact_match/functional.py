# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Exact match with one of several references."""

from collections.abc import Sequence


def exact_match(prediction: str, references: str | Sequence[str]) -> bool:
    """
    Whether the prediction is one of the references, case, surrounding and repeated white space and a final full stop aside.

    Args:
        references (`str` or `Sequence[str]`): The right answer, or all that count as right.
    """
    references = [references] if isinstance(references, str) else references
    return _normalize(prediction) in map(_normalize, references)


def _normalize(text: str) -> str:
    return " ".join(text.casefold().split()).removesuffix(".").rstrip()
