# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Area under the receiver operating characteristic, from ranks (the Mann-Whitney U statistic)."""

from collections.abc import Sequence

import numpy as np

from transformers_flamingo.evaluation.metrics.base import MetricModule


def roc_auc(scores: Sequence[float], labels: Sequence[int]) -> float:
    """
    Compute the probability, from 0 to 1, that a positive example scores higher than a negative one. Ties count half.

    Args:
        scores (`Sequence[float]`): Higher means more likely positive. Only their order matters.
        labels (`Sequence[int]`): 1 or `True` where positive, 0 or `False` where negative.

    Raises:
        ValueError: the lengths differ, a score is NaN, a label is neither 0 nor 1, or one class is missing.
    """
    try:
        scores, labels = np.asarray(scores, dtype=np.float64), np.asarray(labels)
    except (TypeError, ValueError) as error:
        raise ValueError(f"ROC-AUC needs one number for each label: {error}.") from error
    if scores.ndim != 1 or scores.shape != labels.shape:
        raise ValueError(f"ROC-AUC needs one score per label, not shapes {scores.shape} and {labels.shape}.")
    if np.isnan(scores).any():
        raise ValueError(f"Score {np.isnan(scores).argmax()} is NaN, which cannot be ordered.")
    if not np.isin(labels, (0, 1)).all():
        raise ValueError(f"Labels must be 0 or 1, not {sorted(set(labels.tolist()) - {0, 1})}.")
    positive = labels.astype(bool)
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    if not num_positive or not num_negative:
        raise ValueError(f"ROC-AUC needs both classes, not {num_positive} positives and {num_negative} negatives.")

    _, group, group_size = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(group_size) - (group_size - 1) / 2)[group]  # from 1; ties share their mean rank
    return float((ranks[positive].sum() - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative))


class RocAuc(MetricModule):
    """Area under the ROC curve, from 0 to 1."""

    inputs = "prediction_scores: higher means more likely positive. references: 1 where positive, else 0."
    columns = [{"prediction_scores": "float64", "references": "int32"}]

    def _compute(self, prediction_scores: list[float], references: list[int]) -> dict[str, float]:
        return {"roc_auc": roc_auc(prediction_scores, references)}
