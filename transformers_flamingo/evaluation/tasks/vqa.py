# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""VQAv2 and OK-VQA, which share the layout of their files."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..task import Example
from .common import Benchmark, QuestionAnswering


@dataclass(frozen=True)
class _CocoVqa(QuestionAnswering, Benchmark):
    questions_file: ClassVar[str]
    annotations_file: ClassVar[str]

    def _examples(self, split: str) -> list[Example]:
        questions = self.read_json(self.questions_file.format(split=split))["questions"]
        annotations = self.read_json(self.annotations_file.format(split=split))["annotations"]
        answers = {row["question_id"]: [answer["answer"] for answer in row["answers"]] for row in annotations}
        missing = [row["question_id"] for row in questions if row["question_id"] not in answers]
        if missing:
            raise ValueError(
                f"{self.name}: {len(missing)} questions of {split} have no annotation, such as {missing[0]}. The two "
                "files are not of the same split."
            )
        return [
            self.question_example(
                row["question_id"],
                os.path.join(self.data, split, f"COCO_{split}_{row['image_id']:012d}.jpg"),
                row["question"],
                answers[row["question_id"]],
            )
            for row in questions
        ]

    def queries(self) -> Sequence[Example]:
        return self._examples("val2014")

    def support(self) -> Sequence[Example]:
        return self._examples("train2014")


@dataclass(frozen=True)
class Vqav2(_CocoVqa):
    """
    VQAv2, validation split. The test splits have no public answers. Demonstrations are from the training split.

        v2_OpenEnded_mscoco_{train2014,val2014}_questions.json    v2_mscoco_{train2014,val2014}_annotations.json
        train2014/    val2014/
    """

    name = "vqav2"
    questions_file = "v2_OpenEnded_mscoco_{split}_questions.json"
    annotations_file = "v2_mscoco_{split}_annotations.json"


@dataclass(frozen=True)
class OkVqa(_CocoVqa):
    """
    OK-VQA, validation split. Demonstrations are from the training split. OpenFlamingo stems the model's answers, as
    annotators' are in the `answer` field of these files; answers are compared as they are here.

        OpenEnded_mscoco_{train2014,val2014}_questions.json    mscoco_{train2014,val2014}_annotations.json
        train2014/    val2014/
    """

    name = "okvqa"
    questions_file = "OpenEnded_mscoco_{split}_questions.json"
    annotations_file = "mscoco_{split}_annotations.json"
