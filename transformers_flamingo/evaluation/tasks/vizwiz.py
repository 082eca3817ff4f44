# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""VizWiz."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ..task import Example
from .common import Benchmark, QuestionAnswering


@dataclass(frozen=True)
class VizWiz(QuestionAnswering, Benchmark):
    """
    VizWiz, validation split. The prompt says nothing of "unanswerable". Demonstrations are from the training split.

        Annotations/train.json    Annotations/val.json    train/    val/
    """

    name = "vizwiz"
    files = ("Annotations/train.json", "Annotations/val.json")

    def _examples(self, split: str) -> list[Example]:
        return [
            self.question_example(
                row["image"],
                os.path.join(self.data, split, row["image"]),
                row["question"],
                [answer["answer"] for answer in row["answers"]],
            )
            for row in self.read_json("Annotations", f"{split}.json")
        ]

    def queries(self) -> Sequence[Example]:
        return self._examples("val")

    def support(self) -> Sequence[Example]:
        return self._examples("train")
