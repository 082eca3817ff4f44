# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The module of `evaluate.load("<path of this folder>")`."""

import datasets
import evaluate

from ..checks import check_pairs
from .functional import open_ended_match


class OpenEndedMatch(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Share of predictions that are one of their references after VQA normalisation, between 0 and 1.",
            citation="Alayrac et al. Flamingo: a Visual Language Model for Few-Shot Learning. NeurIPS 2022.",
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
        scores = [open_ended_match(*pair) for pair in zip(predictions, references, strict=True)]
        return {"open_ended_match": sum(scores) / len(scores)}
