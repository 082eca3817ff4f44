# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""ROUGE-L (Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries"), by rouge_score."""

from collections.abc import Sequence

from transformers_flamingo.evaluation.metrics.base import ONE_REFERENCE, SEVERAL_REFERENCES, MetricModule, mean_score
from transformers_flamingo.evaluation.metrics.checks import as_references, check_text


def rouge_l(prediction: str, references: str | Sequence[str]) -> float:
    """
    Compute the ROUGE-L F1 with the closest reference, from 0 to 1. (coco-caption's ROUGE-L differs: it weighs recall by 1.2.)

    Args:
        prediction (`str`): The text.
        references (`str` or `Sequence[str]`): One or more texts to compare with.

    Raises:
        ValueError: the prediction is not a text, or there are no references.
    """
    from rouge_score.rouge_scorer import RougeScorer  # in the `eval` extra

    check_text(prediction, "The prediction")
    return RougeScorer(["rougeL"]).score_multi(as_references(references), prediction)["rougeL"].fmeasure


class RougeL(MetricModule):
    """ROUGE-L F1 with the closest reference, the mean over all predictions, from 0 to 1."""

    source = "Lin. ROUGE: A Package for Automatic Evaluation of Summaries. 2004."
    inputs = "predictions: one text per query. references: a text, or a list of those that count as right, per query."
    columns = [SEVERAL_REFERENCES, ONE_REFERENCE]

    def _compute(self, predictions: list[str], references: list[str] | list[list[str]]) -> dict[str, float]:
        return {"rouge_l": mean_score(rouge_l, predictions, references)}
