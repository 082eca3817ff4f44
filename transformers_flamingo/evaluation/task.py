# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Interface of an evaluation task: its examples, kind of answer and score."""

import copy
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from ..few_shot.examples import Example, GenerationSettings


@dataclass(frozen=True)
class Prediction:
    """
    Answer of a model to a query.

    Args:
        example (`Example`): The query.
        text (`str`): The generated text after [`Task.postprocess`], or the candidate that ranks first.
        scores (`list[float]`, *optional*): Log-likelihood of each candidate, if they were ranked.
    """

    example: Example
    text: str
    scores: list[float] | None = None


@dataclass(frozen=True)
class Comparison:
    """
    Compare a task with what the papers scored: the facts of a row of the table in `docs/evaluation.md`.

    Args:
        source (`str`): What it is compared with: `"OpenFlamingo"`, whose code is public, or `"Flamingo"`, of which there is a paper only.
        equal (`str`): What is equal.
        differences (`tuple[str, ...]`): What is not, whatever the settings are.
        settings (`Mapping[str, Any]`): Settings of [`EvaluationConfig`] with which the published scores were made, besides those of a protocol.
        verdict (`str`): Whether scores may be compared, beginning with `"yes"`, `"with care"` or `"no"`.
    """

    source: str
    equal: str
    differences: tuple[str, ...]
    verdict: str
    settings: Mapping[str, Any] = field(default_factory=dict)


class Task(ABC):
    """
    A benchmark in its published files, and its protocol.

    A subclass is a dataclass in a small file of `tasks/`, whose fields say where the files are. The existence of annotations is
    checked when a task is made, that of media before the first prediction.

    Attributes:
        name (`str`): Name on the command line.
        metric (`str`): Name of the score that is the result, a key of what [`~Task.score`] returns.
        demonstration_separator (`str`): Text after the `<|endofchunk|>` of each demonstration.
        generation (`GenerationSettings`, *optional*): Settings of generation. `None` if candidates are ranked.
        length_normalized (`bool`): Whether candidates are ranked by the mean log-likelihood of their tokens instead of the sum.
        num_text_demonstrations (`int`): Number of demonstrations without their images that show the form of an answer at 0 shots.
        split_sizes (`Mapping[str, int]`): Number of queries in each split of the benchmark, beginning with the split of the
            papers. A score over fewer queries is marked as that of a subset. Empty for custom data.
        comparison (`Comparison`, *optional*): What it shares with the papers' evaluation. `None` if they have no such task.
        path_fields (`tuple[str, ...]`): Fields that hold a path.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    demonstration_separator: ClassVar[str] = ""
    generation: ClassVar[GenerationSettings | None] = None
    length_normalized: ClassVar[bool] = True
    num_text_demonstrations: ClassVar[int] = 2
    split_sizes: ClassVar[Mapping[str, int]] = {}
    comparison: ClassVar[Comparison | None] = None
    path_fields: ClassVar[tuple[str, ...]] = ("data", "support_data", "media_root")

    @property
    def scored_split(self) -> str | None:
        """Return the scored split: the field `split`, or the first one in `split_sizes`."""
        return getattr(self, "split", None) or next(iter(self.split_sizes), None)

    @abstractmethod
    def queries(self) -> Sequence[Example]:
        """Return the examples to score, in the order of the benchmark, without decoding images."""

    @abstractmethod
    def support(self) -> Sequence[Example]:
        """Return the examples to draw demonstrations from. None of them is scored."""

    def subset(self, queries: Sequence[Example], number: int) -> list[Example]:
        """Draw a random subset of about `number` of the queries, always the same, in their order."""
        chosen = np.random.default_rng(0).choice(len(queries), number, replace=False)
        return [queries[i] for i in sorted(chosen)]

    def describe(self) -> str:
        """Return the task and its fields as a text, in which a folder has one name: `./x` is `x`, and a link is what it leads to."""
        described = copy.copy(self)
        for name in self.path_fields:
            value = getattr(self, name, None)
            if isinstance(value, str | os.PathLike) and "://" not in str(value):
                object.__setattr__(described, name, os.path.realpath(value))
        return repr(described)

    def postprocess(self, text: str) -> str:
        """Extract the answer from a generated text."""
        return text.strip()

    def score_each(self, predictions: Sequence[Prediction]) -> list[float] | None:
        """Score each prediction, if the metric is the mean of such scores. Otherwise return `None`."""
        return None

    def score(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """
        Score all predictions.

        Returns:
            `dict[str, float]`: Scores by name, among them `metric`, on the scale in which they are published.

        Raises:
            ValueError: there are no predictions.
        """
        if not predictions:
            raise ValueError(f"{self.name}: there are no predictions to score.")
        scores = self.score_each(predictions)
        if scores is None:
            raise NotImplementedError(f"{type(self).__name__} has neither `score` nor `score_each`.")
        return {self.metric: 100 * sum(scores) / len(scores)}
