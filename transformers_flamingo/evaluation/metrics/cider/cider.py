# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The module of `evaluate.load("<path of this folder>")`."""

import datasets
import evaluate

from .functional import cider_d


class Cider(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="CIDEr-D of captions on Penn-Treebank-like tokens, between 0 and 10.",
            citation="Vedantam, Zitnick and Parikh. CIDEr: Consensus-based Image Description Evaluation. CVPR 2015.",
            inputs_description="predictions: one caption per image. references: a list of captions per image.",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.List(datasets.Value("string"))}
            ),
        )

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        scores = cider_d(predictions, references)
        return {"cider_d": sum(scores) / len(scores)}
