# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""F1 of the words of an answer (Rajpurkar et al. 2016, "SQuAD: 100,000+ Questions for Machine Comprehension of Text")."""

from collections import Counter

from transformers_flamingo.evaluation.metrics.base import ONE_REFERENCE, MetricModule, mean_score
from transformers_flamingo.evaluation.metrics.checks import check_text
from transformers_flamingo.evaluation.metrics.exact_match import squad_words


def word_f1(prediction: str, reference: str) -> float:
    """
    Compute the harmonic mean of precision and recall of the words of an answer, from 0 to 1.

    Words are compared as [`squad_words`] gives them, repetitions included. Two texts without any words score 1.

    Raises:
        ValueError: one is not a text.
    """
    check_text(prediction, "The prediction")
    check_text(reference, "The reference")
    predicted, expected = Counter(squad_words(prediction)), Counter(squad_words(reference))
    common = (predicted & expected).total()
    return 2 * common / (predicted.total() + expected.total()) if common else float(not predicted and not expected)


class WordF1(MetricModule):
    """F1 of the words of each prediction, the mean over all, from 0 to 1."""

    source = "Rajpurkar et al. SQuAD: 100,000+ Questions for Machine Comprehension of Text. EMNLP 2016."
    inputs = "predictions: one text per query. references: a text per query."
    columns = [ONE_REFERENCE]

    def _compute(self, predictions: list[str], references: list[str]) -> dict[str, float]:
        return {"word_f1": mean_score(word_f1, predictions, references)}
