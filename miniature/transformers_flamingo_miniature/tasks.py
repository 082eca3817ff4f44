# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Evaluation tasks over the miniature world. Pictures are drawn on demand, so no files are needed."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers_flamingo.evaluation.tasks.common import Captioning, Choice, OpenEnded
from transformers_flamingo.few_shot.examples import Example, GenerationSettings

from .data import SPLITS, build_image_split
from .world import SHAPES, answer_prompt


_SUPPORT_SPLIT = "validation"


@dataclass(frozen=True)
class _Miniature:
    """
    Base of the tasks over the miniature world.

    Args:
        split (`str`, *optional*, defaults to `"test"`): `"test"`, or `"test_unseen"` for color-shape pairs that no picture was
            trained on.
        num_queries (`int`, *optional*, defaults to 200): Number of pictures to ask about.
        num_support (`int`, *optional*, defaults to 200): Number of pictures to choose demonstrations from.
        seed (`int`, *optional*, defaults to 0): Seed of the world.

    Raises:
        ValueError: the split is unknown, or is `"validation"`, which demonstrations come from.
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
                f"{self.name} has no queries in split {self.split!r}: they are in {', '.join(known)}. Demonstrations come "
                f"from {_SUPPORT_SPLIT!r}."
            )

    def _make_examples(self, row: dict, number: int) -> list[Example]:
        """Return the examples of one row of [`build_image_split`]."""
        raise NotImplementedError

    def _examples(self, split: str, size: int) -> list[Example]:
        pictures = build_image_split(split, size, seed=self.seed)
        return [example for number, row in enumerate(pictures) for example in self._make_examples(row, number)]

    def queries(self) -> Sequence[Example]:
        """Draw the pictures of the split and return their examples."""
        return self._examples(self.split, self.num_queries)

    def support(self) -> Sequence[Example]:
        """Draw the pictures of the validation split and return their examples."""
        return self._examples(_SUPPORT_SPLIT, self.num_support)


@dataclass(frozen=True)
class MiniatureCaptions(_Miniature, Captioning):
    """Caption drawn pictures, with one reference each."""

    name = "miniature_captions"

    def _make_examples(self, row: dict, number: int) -> list[Example]:
        return [Example(str(number), [row["image"]], "", row["caption"], references=[row["caption"]])]


@dataclass(frozen=True)
class MiniatureQuestions(_Miniature, OpenEnded):
    """Answer questions about drawn pictures in a word."""

    name = "miniature_questions"

    def _make_examples(self, row: dict, number: int) -> list[Example]:
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
    """Name the shape in a picture of one object, by ranking all shapes."""

    name = "miniature_shapes"
    generation = None

    def _make_examples(self, row: dict, number: int) -> list[Example]:
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
