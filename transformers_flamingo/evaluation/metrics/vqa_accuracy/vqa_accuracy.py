# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The module of `evaluate.load("<path of this folder>")`."""

import datasets
import evaluate

from ..checks import check_pairs
from .functional import vqa_accuracy


class VqaAccuracy(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="VQA accuracy with the official normalisation of answers, between 0 and 1.",
            citation="Antol et al. VQA: Visual Question Answering. ICCV 2015.",
            inputs_description="predictions: one answer per question. references: the answers of all annotators per question.",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.List(datasets.Value("string"))}
            ),
        )

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        check_pairs(predictions, references)
        scores = [vqa_accuracy(*pair) for pair in zip(predictions, references, strict=True)]
        return {"vqa_accuracy": sum(scores) / len(scores)}
