# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The module of `evaluate.load("<path of this folder>")`."""

import datasets
import evaluate

from .functional import bleu


class Bleu(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="Corpus BLEU of captions on Penn-Treebank-like tokens, between 0 and 1.",
            citation="Papineni et al. BLEU: a Method for Automatic Evaluation of Machine Translation. ACL 2002.",
            inputs_description="predictions: one caption per image. references: a list of captions per image.",
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.List(datasets.Value("string"))}
            ),
        )

    def _compute(self, predictions: list[str], references: list[list[str]], max_order: int = 4) -> dict[str, float]:
        return {"bleu": bleu(predictions, references, max_order)}
