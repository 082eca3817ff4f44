# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""How many answers are answers at all."""

from collections.abc import Sequence

from ..checks import check_text
from ..exact_match.functional import exact_match


def validity_rate(predictions: Sequence[str], candidates: Sequence[Sequence[str]] | None = None) -> float:
    """
    The share of predictions, between 0 and 1, that are one of their candidates as [`exact_match`] compares them, or, without
    candidates, that hold a letter or digit. A low rate says that the form of the answer failed, not the knowledge.

    Args:
        candidates (`Sequence[Sequence[str]]`, *optional*): The possible answers of each query.

    Raises:
        ValueError: There are no predictions, one is not a text, or there is not one list of candidates for each.
    """
    if not predictions:
        raise ValueError("The validity rate of no predictions is undefined.")
    for prediction in predictions:
        check_text(prediction, "A prediction")
    if candidates is None:
        valid = [any(character.isalnum() for character in prediction) for prediction in predictions]
    else:
        if len(candidates) != len(predictions):
            raise ValueError(
                f"{len(predictions)} predictions need as many lists of candidates, not {len(candidates)}."
            )
        valid = [exact_match(prediction, known) for prediction, known in zip(predictions, candidates, strict=True)]
    return sum(valid) / len(valid)
