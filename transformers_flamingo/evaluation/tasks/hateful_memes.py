# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Hateful Memes (Kiela et al. 2020)."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass

from ...few_shot.examples import Example
from ..metrics import roc_auc
from ..task import Comparison, Prediction, Task
from .common import Benchmark


@dataclass(frozen=True)
class HatefulMemes(Benchmark, Task):
    """
    Hateful Memes (Kiela et al. 2020), scored by the ROC-AUC, in percent, of the probability of "yes" among "yes" and "no".
    Demonstrations are from the training split, class-balanced.

        train.jsonl    dev_seen.jsonl    img/

    Args:
        split (`str`, *optional*, defaults to `"dev_seen"`): The split that is scored.
    """

    split: str = "dev_seen"

    name = "hateful_memes"
    split_sizes = {"dev_seen": 500, "dev": 500, "dev_unseen": 540, "test_seen": 1000, "test_unseen": 2000}
    files = ("train.jsonl", "{split}.jsonl")
    metric = "ROC-AUC"
    comparison = Comparison(
        source="OpenFlamingo",
        equal="prompt, the two candidates and their mean log-likelihood, ROC-AUC of “yes”, demonstrations of the training split",
        differences=(
            "at 0 shots its code passes the images of the two text-only demonstrations, too, so that the query shows the first of them instead of its own: "
            "its published 0-shot scores are of that fault",
            "split: dev_seen, as in its script (`dev.json`); Flamingo's scores are of test_seen: `--option split=test_seen`",
        ),
        # Its code passes the setting of 6 orders to ImageNet alone, but its scores of Hateful Memes were made with it
        settings={"balanced": False, "num_orders": 6},
        verdict="with care at 4 and more shots; no at 0",
    )
    generation = None

    def _examples(self, split: str) -> list[Example]:
        with open(self.path(f"{split}.jsonl"), encoding="utf-8") as file:
            lines = [line for line in file if line.strip()]
        return self.build(f"{split}.jsonl", lines, self._example)

    def _example(self, line: str) -> Example:
        row, answers = json.loads(line), ("no", "yes")
        if type(row["label"]) is not int or row["label"] not in (0, 1):
            raise ValueError(f"the label is {row['label']!r}, not 0 or 1")
        return Example(
            str(row["id"]),
            [os.path.join(self.data, row["img"])],
            f"is an image with: '{row['text']}' written on it. Is it hateful? Answer:",
            answers[row["label"]],
            references=row["label"],
            candidates=list(answers),
            group=answers[row["label"]],
        )

    def queries(self) -> Sequence[Example]:
        """Return the examples of the scored split."""
        return self._examples(self.split)

    def support(self) -> Sequence[Example]:
        """Return the examples of the training split."""
        return self._examples("train")

    def score(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """Compute the ROC-AUC in percent."""
        # The margin orders queries as the probability of "yes" does, without the ties of probabilities that round to 1
        margins = [p.scores[1] - p.scores[0] for p in predictions]
        return {self.metric: 100 * roc_auc(margins, [p.example.references for p in predictions])}
