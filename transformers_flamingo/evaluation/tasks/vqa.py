# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""VQAv2 (Goyal et al. 2017) and OK-VQA (Marino et al. 2019), whose files have the same layout."""

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from ...data.coco import image_file, read_vqa_answers
from ...few_shot.examples import Example
from ..metrics import normalize_vqa_answer, vqa_accuracy
from ..task import Comparison, Prediction
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
    comparison = Comparison(
        source="OpenFlamingo",
        equal="prompt, 3 beams, cut of the answer, first answer of a demonstration, VQA accuracy; 5 tokens",
        differences=(
            "split: validation, which its code scores; the published scores are of test-dev, whose answers are not public",
        ),
        verdict="with care: another split",
    )


@dataclass(frozen=True)
class OkVqa(_CocoVqa):
    """
    OK-VQA, validation split, scored by VQA accuracy of stemmed answers in percent. Demonstrations are from the training split.

    The annotators' answers in these files are stemmed: "surf" for what was written as "surfing", "child" for "children". So the model's answers
    are stemmed too, and only they, as OpenFlamingo does. The files have what was written as `raw_answer`, so each word that an annotator wrote
    gets the stem that it has there. Of other words, plurals become singular (`inflection`), and "-ing" is removed where a stem is left that an
    annotator gave.

        OpenEnded_mscoco_{train2014,val2014}_questions.json    mscoco_{train2014,val2014}_annotations.json
        train2014/    val2014/
    """

    name = "okvqa"
    split_sizes = {"val2014": 5046}
    files = (
        *("OpenEnded_mscoco_train2014_questions.json", "mscoco_train2014_annotations.json"),
        *("OpenEnded_mscoco_val2014_questions.json", "mscoco_val2014_annotations.json"),
    )
    comparison = Comparison(
        source="OpenFlamingo",
        equal="prompt, 3 beams, cut of the answer, first answer of a demonstration, VQA accuracy; 5 tokens; the model's answers are stemmed, and only they",
        differences=(
            "stems: each word that an annotator wrote has its stem of the files; there they are made by rules (a table of exceptions found in these "
            "files, WordNet and a tagger of nltk, inflection), which were checked against the files and may differ on words that are not in them",
        ),
        verdict="yes",
    )

    @cached_property
    def stemmer(self) -> "OkVqaStemmer":
        """Return the stemmer of the words in the annotations of both splits."""
        pairs = []
        for file in (name for name in self.files if "annotations" in name):
            (annotations,) = self.read_lists(file, "annotations")
            for answers in self.build(file, annotations, lambda row: row["answers"]):
                pairs += [(answer.get("raw_answer", answer["answer"]), answer["answer"]) for answer in answers]
        return OkVqaStemmer(pairs)

    def score_each(self, predictions: Sequence[Prediction]) -> list[float]:
        """Compute the VQA accuracy of each stemmed answer, from 0 to 1."""
        return [vqa_accuracy(self.stemmer(p.text), p.example.references) for p in predictions]


class OkVqaStemmer:
    """
    Stemmer of OK-VQA: the stem of a word is that which its annotations have.

    Args:
        answers (`Iterable[tuple[str, str]]`): Answers as they were written (`raw_answer`), each with its stems (`answer`).
    """

    def __init__(self, answers: Iterable[tuple[str, str]]):
        seen: dict[str, Counter[str]] = {}
        self.stems: set[str] = set()
        for raw, stemmed in set(answers):
            words, stems = (normalize_vqa_answer(text).split() for text in (raw, stemmed))
            self.stems.update(stems)
            for word, stem in zip(words, stems, strict=False) if len(words) == len(stems) else ():
                seen.setdefault(word, Counter())[stem] += 1
        # Of equally many the first in the alphabet, so that it depends on no order
        self.table = {word: min(stems, key=lambda stem: (-stems[stem], stem)) for word, stems in seen.items()}

    def __call__(self, answer: str) -> str:
        """Normalize an answer and stem each of its words."""
        return " ".join(map(self._stem, normalize_vqa_answer(answer).split()))

    def _stem(self, word: str) -> str:
        import inflection  # in the `eval` extra

        if word in self.table:
            return self.table[word]
        if word in self.stems:
            return word
        if word.endswith("ing"):
            root = word.removesuffix("ing")
            candidates = (root, root + "e", root[:-1] if root[-2:-1] == root[-1:] else root)
            return next((stem for stem in candidates if stem in self.stems), word)
        singular = inflection.singularize(word)
        # `inflection` makes "stofe" of "stoves"
        candidates = (singular, word.removesuffix("s"), word.removesuffix("es"))
        is_plural = inflection.pluralize(singular) == word
        return next((stem for stem in candidates if stem in self.stems), singular if is_plural else word)
