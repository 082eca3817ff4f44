# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Tasks over the miniature world, drawn when they are asked for: no files are needed."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers_flamingo.evaluation.task import Example, GenerationSettings
from transformers_flamingo.evaluation.tasks.common import Captioning, Choice, OpenEnded

from .data import SPLITS, build_image_split
from .world import SHAPES, answer_prompt


_SUPPORT_SPLIT = "validation"


@dataclass(frozen=True)
class _Miniature:
    """
    Args:
        split (`str`, *optional*, defaults to `"test"`): `"test"`, or `"test_unseen"`: pairs of colour and shape never
            trained with.
        num_queries, num_support (`int`, *optional*): Pictures that are asked about, and shown.
        seed (`int`, *optional*): Of the world.

    Raises:
        ValueError: the split is `"validation"`, from which demonstrations are, or not known.
    """

    split: str = "test"
    num_queries: int = 200
    num_support: int = 200
    seed: int = 0

    generation = GenerationSettings(max_new_tokens=16, num_beams=1)
    demonstration_separator = ""

    def __post_init__(self):
        known = [split for split in SPLITS if split != _SUPPORT_SPLIT]
        if self.split not in known:
            raise ValueError(
                f"{self.name} has no queries in split {self.split!r}: they are in {', '.join(known)}. Demonstrations are "
                f"from {_SUPPORT_SPLIT!r}."
            )

    def _of(self, row: dict, number: int) -> list[Example]:
        raise NotImplementedError

    def _examples(self, split: str, size: int) -> list[Example]:
        pictures = build_image_split(split, size, seed=self.seed)
        return [example for number, row in enumerate(pictures) for example in self._of(row, number)]

    def queries(self) -> Sequence[Example]:
        return self._examples(self.split, self.num_queries)

    def support(self) -> Sequence[Example]:
        return self._examples(_SUPPORT_SPLIT, self.num_support)


@dataclass(frozen=True)
class MiniatureCaptions(_Miniature, Captioning):
    """Captions of the drawn pictures, one reference each."""

    name = "miniature_captions"

    def _of(self, row: dict, number: int) -> list[Example]:
        return [Example(str(number), [row["image"]], "", row["caption"], references=[row["caption"]])]


@dataclass(frozen=True)
class MiniatureQuestions(_Miniature, OpenEnded):
    """Questions about the drawn pictures, answered in a word."""

    name = "miniature_questions"

    def _of(self, row: dict, number: int) -> list[Example]:
        return [
            Example(
                f"{number}/{i}",
                [row["image"]],
                answer_prompt(question["question"]),
                f" {question['answer']}",
                references=[question["answer"]],
            )
            for i, question in enumerate(row["questions"])
        ]


@dataclass(frozen=True)
class MiniatureShapes(_Miniature, Choice):
    """Which shape a picture of one object shows: ranked."""

    name = "miniature_shapes"
    generation = None

    def _of(self, row: dict, number: int) -> list[Example]:
        asked = [question for question in row["questions"] if question["topic"] == "shape"][:1]
        return [
            Example(
                str(number),
                [row["image"]],
                answer_prompt(question["question"]),
                f" {question['answer']}",
                references=f" {question['answer']}",
                candidates=[f" {shape}" for shape in SHAPES],
                group=question["answer"],
            )
            for question in asked
        ]
