# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Hateful Memes."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

from ..metrics import roc_auc
from ..task import Example, Prediction, Task
from .common import Benchmark


@dataclass(frozen=True)
class HatefulMemes(Benchmark, Task):
    """
    Hateful Memes, ROC-AUC in percent of the probability of "yes" among "yes" and "no". Demonstrations are from the
    training split, class-balanced.

        train.jsonl    dev_seen.jsonl    img/

    Args:
        split (`str`, *optional*, defaults to `"dev_seen"`): The split that is scored.
    """

    split: str = "dev_seen"

    name = "hateful_memes"
    files = ("train.jsonl", "{split}.jsonl")
    metric = "ROC-AUC"
    generation = None

    def _examples(self, split: str) -> list[Example]:
        with open(self.path(f"{split}.jsonl"), encoding="utf-8") as file:
            rows = [json.loads(line) for line in file if line.strip()]
        without = [row["id"] for row in rows if "label" not in row]
        if without:
            raise ValueError(f"{self.name}: {len(without)} rows of {split!r} have no label, such as {without[0]}.")
        answers = ("no", "yes")
        return [
            Example(
                str(row["id"]),
                [os.path.join(self.data, row["img"])],
                f"is an image with: '{row['text']}' written on it. Is it hateful? Answer:",
                answers[row["label"]],
                references=row["label"],
                candidates=list(answers),
                group=answers[row["label"]],
            )
            for row in rows
        ]

    def queries(self) -> Sequence[Example]:
        return self._examples(self.split)

    def support(self) -> Sequence[Example]:
        return self._examples("train")

    def score(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        # It orders the queries as the probability of "yes" does, without the ties that rounding to 1 would make
        margins = [p.scores[1] - p.scores[0] for p in predictions]
        return {self.metric: 100 * roc_auc(margins, [p.example.references for p in predictions])}
