# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Top-1 accuracy of generated answers to open questions, as in video question answering (Alayrac et al. 2022)."""

from collections.abc import Sequence

from transformers_flamingo.evaluation.metrics.base import ONE_REFERENCE, SEVERAL_REFERENCES, MetricModule, mean_score
from transformers_flamingo.evaluation.metrics.checks import as_references, check_text
from transformers_flamingo.evaluation.metrics.vqa_accuracy import normalize_vqa_answer


def open_ended_match(prediction: str, references: str | Sequence[str]) -> bool:
    """
    Check whether the prediction is one of the references after [`normalize_vqa_answer`]: "Two dogs." is "2 dogs".

    The whole answer must match: a reference that merely occurs in a longer answer does not count.

    Args:
        prediction (`str`): The answer.
        references (`str` or `Sequence[str]`): The right answer, or all that count as right.

    Raises:
        ValueError: the prediction is not a text, or there are no references.
    """
    check_text(prediction, "The prediction")
    return normalize_vqa_answer(prediction) in map(normalize_vqa_answer, as_references(references))


class OpenEndedMatch(MetricModule):
    """Share of predictions that are one of their references after VQA normalization, from 0 to 1."""

    source = "Alayrac et al. Flamingo: a Visual Language Model for Few-Shot Learning. NeurIPS 2022."
    inputs = "predictions: one text per query. references: a text, or a list of those that count as right, per query."
    columns = [SEVERAL_REFERENCES, ONE_REFERENCE]

    def _compute(self, predictions: list[str], references: list[str] | list[list[str]]) -> dict[str, float]:
        return {"open_ended_match": mean_score(open_ended_match, predictions, references)}
