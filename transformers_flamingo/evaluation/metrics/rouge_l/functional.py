# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""ROUGE-L (Lin 2004), by rouge_score."""

from collections.abc import Sequence

from ..checks import as_references, check_text


def rouge_l(prediction: str, references: str | Sequence[str]) -> float:
    """
    The ROUGE-L F1 with the closest reference, between 0 and 1. (coco-caption's ROUGE-L differs: it weighs recall by 1.2.)

    Args:
        references (`str` or `Sequence[str]`): One or more texts to compare with.

    Raises:
        ValueError: The prediction is not a text, or there are no references.
    """
    from rouge_score.rouge_scorer import RougeScorer  # of the `eval` extra

    check_text(prediction, "The prediction")
    return RougeScorer(["rougeL"]).score_multi(as_references(references), prediction)["rougeL"].fmeasure
