# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The module of `evaluate.load("<path of this folder>")`."""

import datasets
import evaluate

from .functional import validity_rate


class ValidityRate(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Share of predictions that are possible answers, between 0 and 1.",
            citation="",
            inputs_description="predictions: one text per query. references: the possible answers of each query.",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.List(datasets.Value("string"))}
            ),
        )

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        return {"validity_rate": validity_rate(predictions, references)}
