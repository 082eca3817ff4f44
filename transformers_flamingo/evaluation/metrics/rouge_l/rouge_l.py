# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The module of `evaluate.load("<path of this folder>")`."""

import datasets
import evaluate

from ..checks import check_pairs
from .functional import rouge_l


class RougeL(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="ROUGE-L F1 with the closest reference, between 0 and 1.",
            citation="Lin. ROUGE: A Package for Automatic Evaluation of Summaries. 2004.",
            inputs_description="predictions: one text per query. references: a text, or a list of those that count, per query.",
            features=[
                datasets.Features(
                    {"predictions": datasets.Value("string"), "references": datasets.List(datasets.Value("string"))}
                ),
                datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")}),
            ],
        )

    def _compute(self, predictions: list[str], references: list[str] | list[list[str]]) -> dict[str, float]:
        check_pairs(predictions, references)
        scores = [rouge_l(*pair) for pair in zip(predictions, references, strict=True)]
        return {"rouge_l": sum(scores) / len(scores)}
