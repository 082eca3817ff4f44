# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""VizWiz (Gurari et al. 2018)."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ...few_shot.examples import Example
from ..task import Comparison
from .common import Benchmark, QuestionAnswering


@dataclass(frozen=True)
class VizWiz(QuestionAnswering, Benchmark):
    """
    VizWiz (Gurari et al. 2018), validation split, scored by VQA accuracy in percent. The prompt does not mention the answer
    "unanswerable". Demonstrations are from the training split.

        Annotations/train.json    Annotations/val.json    train/    val/
    """

    name = "vizwiz"
    split_sizes = {"val": 4319}
    files = ("Annotations/train.json", "Annotations/val.json")
    comparison = Comparison(
        source="OpenFlamingo",
        equal="prompt, 3 beams, cut of the answer, first answer of a demonstration, VQA accuracy; 5 tokens, no word on “unanswerable”",
        differences=(
            "split: validation, which its code scores; the published scores are of test-dev, whose answers are not public",
        ),
        verdict="with care: another split",
    )

    def _examples(self, split: str) -> list[Example]:
        file = os.path.join("Annotations", f"{split}.json")
        return self.build(
            file,
            self.read_json(file),
            lambda row: self.question_example(
                row["image"],
                os.path.join(self.data, split, row["image"]),
                row["question"],
                [answer["answer"] for answer in row["answers"]],
            ),
        )

    def queries(self) -> Sequence[Example]:
        """Return the examples of the validation split."""
        return self._examples("val")

    def support(self) -> Sequence[Example]:
        """Return the examples of the training split."""
        return self._examples("train")
