# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Share of answers that have the form of an answer."""

from collections.abc import Sequence

from transformers_flamingo.evaluation.metrics.base import MetricModule
from transformers_flamingo.evaluation.metrics.checks import check_text
from transformers_flamingo.evaluation.metrics.exact_match import exact_match


def validity_rate(predictions: Sequence[str], candidates: Sequence[Sequence[str]] | None = None) -> float:
    """
    Compute the share of predictions, from 0 to 1, that are possible answers.

    With candidates a prediction is valid if it is one of them as [`exact_match`] compares them, without if it has a letter or
    digit. A low rate means that the model missed the form of the answer, rather than that it lacks the knowledge.

    Args:
        predictions (`Sequence[str]`): One answer per query.
        candidates (`Sequence[Sequence[str]]`, *optional*): The possible answers of each query.

    Raises:
        ValueError: there are no predictions, one is not a text, or there is not one list of candidates for each.
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
                f"There are {len(predictions)} predictions and {len(candidates)} lists of candidates. Give one list for each prediction."
            )
        valid = [exact_match(prediction, known) for prediction, known in zip(predictions, candidates, strict=True)]
    return sum(valid) / len(valid)


class ValidityRate(MetricModule):
    """Share of predictions that are possible answers, from 0 to 1."""

    inputs = "predictions: one text per query. references: the possible answers of each query."

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        return {"validity_rate": validity_rate(predictions, references)}
