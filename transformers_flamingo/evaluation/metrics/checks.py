# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Checks of the inputs of metrics."""

from collections.abc import Sequence
from typing import Any


def check_text(text: Any, name: str) -> None:
    """
    Check that `text` is a text.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(text, str):
        raise ValueError(f"{name} is {text!r}, but it must be a text. Use an empty text for a missing answer.")


def as_references(references: Any) -> list[str]:
    """
    Return one or several references as a list.

    Raises:
        ValueError: there are none, or one is not a text.
    """
    references = [references] if isinstance(references, str) else references
    if not isinstance(references, Sequence) or not references:
        raise ValueError(
            f"The references are {references!r}, but they must be a text or a list with at least one text. Otherwise nothing could match."
        )
    for reference in references:
        check_text(reference, "A reference")
    return list(references)


def check_pairs(predictions: Sequence[Any], references: Sequence[Any]) -> None:
    """
    Check that there are predictions, and references for each of them.

    Raises:
        ValueError: there are no predictions, or the numbers differ.
    """
    if len(predictions) != len(references) or not len(predictions):
        raise ValueError(
            f"There are {len(predictions)} predictions and references for {len(references)}. Give at least one prediction, and "
            "references for each."
        )
