# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""What an evaluation task is: examples, the text of a prompt, how it is answered, and how answers are scored."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar


@dataclass(frozen=True)
class Example:
    """
    One item of a benchmark, as query or as demonstration.

    Args:
        id (`str`): Its name in the benchmark, unique in its split.
        media (`list`):
            Images in order, each a path, URL, PIL image or an undecoded `{"bytes", "path"}` dict, or a video as a list
            of frames or a [`VideoSegment`]. One `<image>` stands before `prompt` for each.
        prompt (`str`): What stands before the answer: `"Question:What is it? Short answer:"`.
        answer (`str`, *optional*): What completes the prompt when this is a demonstration; `None` if it cannot be one.
        references (`Any`): What the metric compares a prediction with: captions, ten annotators' answers, a label.
        candidates (`list[str]`, *optional*): The possible answers, where the task is answered by ranking them.
        group (`str`, *optional*): The class, for class-balanced demonstrations.
    """

    id: str
    media: list[Any]
    prompt: str
    answer: str | None = None
    references: Any = None
    candidates: list[str] | None = None
    group: str | None = None


@dataclass(frozen=True)
class Prediction:
    """
    What the model answered.

    Args:
        example (`Example`): The query.
        text (`str`): The answer after [`Task.postprocess`]: generated, or the candidate that ranks first.
        scores (`list[float]`, *optional*): Log-likelihood of each candidate, where they were ranked.
    """

    example: Example
    text: str
    scores: list[float] | None = None


@dataclass(frozen=True)
class GenerationSettings:
    """Stock `generate()` arguments; the defaults are OpenFlamingo's, with its `eos` (`<|endofchunk|>` alone)."""

    max_new_tokens: int = 20
    num_beams: int = 3
    length_penalty: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)


class Task(ABC):
    """
    A benchmark in its own layout on disk, and its protocol. A subclass is a dataclass in a small file of `tasks/`,
    whose fields say where the files are. That its annotations are there is checked when it is made, and that all media
    are, before the first prediction.

    Attributes:
        name (`str`): As the command line names it.
        metric (`str`): The score that is the result, a key of what [`~Task.score`] returns.
        demonstration_separator (`str`): Between the `<|endofchunk|>` of a demonstration and what follows.
        generation (`GenerationSettings`, *optional*): How it is answered by generation; `None` if by ranking.
        length_normalised (`bool`): Ranking by the mean over a candidate's tokens, not the sum.
        num_text_demonstrations (`int`): How many demonstrations, without their images, show the form at 0 shots.
        split_sizes (`Mapping[str, int]`): Number of queries in each split of the benchmark, the split of the papers first.
            A score over fewer is marked as one of a subset. Empty for custom data.
    """

    name: ClassVar[str]
    metric: ClassVar[str]
    demonstration_separator: ClassVar[str] = ""
    generation: ClassVar[GenerationSettings | None] = None
    length_normalised: ClassVar[bool] = True
    num_text_demonstrations: ClassVar[int] = 2
    split_sizes: ClassVar[Mapping[str, int]] = {}

    @property
    def scored_split(self) -> str | None:
        """Return the split that is scored: the field `split`, or the only one that the task knows."""
        return getattr(self, "split", None) or next(iter(self.split_sizes), None)

    @abstractmethod
    def queries(self) -> Sequence[Example]:
        """The examples that are scored, in the benchmark's order. Images stay undecoded."""

    @abstractmethod
    def support(self) -> Sequence[Example]:
        """The examples from which demonstrations are drawn; never one that is scored."""

    def postprocess(self, text: str) -> str:
        """The answer in a generated text."""
        return text.strip()

    def score_each(self, predictions: Sequence[Prediction]) -> list[float] | None:
        """The score of each prediction, if the metric is their mean; `None` if it is not."""
        return None

    def score(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """Scores by name, `metric` among them, on the scale in which they are published."""
        if not predictions:
            raise ValueError(f"{self.name}: there are no predictions to score.")
        scores = self.score_each(predictions)
        if scores is None:
            raise NotImplementedError(f"{type(self).__name__} has neither `score` nor `score_each`.")
        return {self.metric: 100 * sum(scores) / len(scores)}
