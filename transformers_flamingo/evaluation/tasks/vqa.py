# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""VQAv2 and OK-VQA, which share the layout of their files."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from ..metrics import normalize_vqa_answer, vqa_accuracy
from ..task import Example, Prediction
from .common import Benchmark, QuestionAnswering


@dataclass(frozen=True)
class _CocoVqa(QuestionAnswering, Benchmark):
    def _examples(self, split: str) -> list[Example]:
        questions_file, annotations_file = (name for name in self.files if split in name)
        (questions,) = self.read_lists(questions_file, "questions")
        (annotations,) = self.read_lists(annotations_file, "annotations")
        # A dict for each row, so that an id that cannot be a key is an error of that row
        annotated = self.build(
            annotations_file,
            annotations,
            lambda row: {row["question_id"]: [answer["answer"] for answer in row["answers"]]},
        )
        answers = {question_id: given for row in annotated for question_id, given in row.items()}
        missing = self.build(
            questions_file, questions, lambda row: None if row["question_id"] in answers else row["question_id"]
        )
        if missing:
            raise ValueError(
                f"{self.name}: {len(missing)} questions of {split} have no annotation, such as {missing[0]}. The two "
                "files are not of the same split."
            )
        return self.build(
            questions_file,
            questions,
            lambda row: self.question_example(
                row["question_id"],
                os.path.join(self.data, split, f"COCO_{split}_{row['image_id']:012d}.jpg"),
                row["question"],
                answers[row["question_id"]],
            ),
        )

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
    split_sizes = {"val2014": 214354}
    files = (
        *("v2_OpenEnded_mscoco_train2014_questions.json", "v2_mscoco_train2014_annotations.json"),
        *("v2_OpenEnded_mscoco_val2014_questions.json", "v2_mscoco_val2014_annotations.json"),
    )


@dataclass(frozen=True)
class OkVqa(_CocoVqa):
    """
    OK-VQA, validation split. Demonstrations are from the training split.

    The annotators' answers in these files are stemmed ("surf", "horse"), so a model's must be. OpenFlamingo lemmatises
    plurals and "-ing" forms with WordNet and a tagger, which are downloads. Here every word of both sides goes through
    Porter's stemmer (nltk), which needs no data, and takes off other endings too: a few more answers agree.

        OpenEnded_mscoco_{train2014,val2014}_questions.json    mscoco_{train2014,val2014}_annotations.json
        train2014/    val2014/
    """

    name = "okvqa"
    split_sizes = {"val2014": 5046}
    files = (
        *("OpenEnded_mscoco_train2014_questions.json", "mscoco_train2014_annotations.json"),
        *("OpenEnded_mscoco_val2014_questions.json", "mscoco_val2014_annotations.json"),
    )

    def score_each(self, predictions: Sequence[Prediction]) -> list[float]:
        return [vqa_accuracy(_stem(p.text), [_stem(answer) for answer in p.example.references]) for p in predictions]


@cache  # the same few answers are repeated
def _stem(answer: str) -> str:
    from nltk.stem.porter import PorterStemmer  # the only task that needs it

    stemmer = PorterStemmer()
    return " ".join(stemmer.stem(word) for word in normalize_vqa_answer(answer).split())
