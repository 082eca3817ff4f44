# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""VQAv2 (Goyal et al. 2017) and OK-VQA (Marino et al. 2019), whose files have the same layout."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from ...data.coco import image_file, read_vqa_answers
from ...few_shot.examples import Example
from ..metrics import normalize_vqa_answer, vqa_accuracy
from ..task import Prediction
from .common import Benchmark, QuestionAnswering


@dataclass(frozen=True)
class _CocoVqa(QuestionAnswering, Benchmark):
    """Questions about images of COCO, with questions and annotations in two files."""

    def _examples(self, split: str) -> list[Example]:
        questions_file, annotations_file = (name for name in self.files if split in name)
        (questions,) = self.read_lists(questions_file, "questions")
        (annotations,) = self.read_lists(annotations_file, "annotations")
        # A dict for each row, so that the error for an id that cannot be a key names its row
        annotated = self.build(
            annotations_file,
            annotations,
            lambda row: dict([read_vqa_answers(row)]),
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
                os.path.join(self.data, image_file(split, row["image_id"])),
                row["question"],
                answers[row["question_id"]],
            ),
        )

    def queries(self) -> Sequence[Example]:
        """Return the examples of the validation split."""
        return self._examples("val2014")

    def support(self) -> Sequence[Example]:
        """Return the examples of the training split."""
        return self._examples("train2014")


@dataclass(frozen=True)
class Vqav2(_CocoVqa):
    """
    VQAv2, validation split, scored by VQA accuracy in percent. The test splits have no public answers. Demonstrations are from
    the training split.

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
    OK-VQA, validation split, scored by VQA accuracy of stemmed answers in percent. Demonstrations are from the training split.

    The annotators' answers in these files are stemmed ("surf", "horse"), so the model's answers must be stemmed too. OpenFlamingo
    lemmatizes plurals and "-ing" forms with WordNet and a tagger, which must be downloaded. Here every word of both sides goes
    through Porter's stemmer (nltk), which needs no data. It also removes other endings, so a few more answers match.

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
        """Compute the VQA accuracy of each stemmed answer, from 0 to 1."""
        return [vqa_accuracy(_stem(p.text), [_stem(answer) for answer in p.example.references]) for p in predictions]


@cache  # the same few answers occur again and again
def _stem(answer: str) -> str:
    from nltk.stem.porter import PorterStemmer  # in the `eval` extra

    stemmer = PorterStemmer()
    return " ".join(stemmer.stem(word) for word in normalize_vqa_answer(answer).split())
