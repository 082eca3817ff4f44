# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""iVQA (Yang et al. 2021)."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ...data import VideoSegment
from ...few_shot.examples import Example
from ..metrics import normalize_vqa_answer
from ..task import Prediction
from .common import Benchmark, QuestionAnswering


@dataclass(frozen=True)
class Ivqa(QuestionAnswering, Benchmark):
    """
    iVQA (Yang et al. 2021), test split. An answer that two or more of the five annotators gave scores 1, an answer of a single
    annotator 1/2; the result is the mean in percent. The prompt is that of VQA. Demonstrations are from the training split.

        train.csv    test.csv    (video_id, start, end, question, answer1 ... answer5)    videos/{video_id}.mp4

    Args:
        num_frames (`int`, *optional*, defaults to 8): Frames of each segment that are shown.
    """

    num_frames: int = 8

    name = "ivqa"
    split_sizes = {"test": 2000}
    files = ("train.csv", "test.csv")

    def _examples(self, split: str) -> list[Example]:
        return self.build(f"{split}.csv", enumerate(self.read_csv(f"{split}.csv")), self._example)

    def _example(self, numbered: tuple[int, dict[str, str]]) -> Example:
        number, row = numbered
        path = os.path.join(self.data, "videos", f"{row['video_id']}.mp4")
        return self.question_example(
            number,
            VideoSegment(path, float(row["start"]), float(row["end"]), self.num_frames),
            row["question"],
            [row[f"answer{i}"] for i in range(1, 6) if row.get(f"answer{i}")],
        )

    def queries(self) -> Sequence[Example]:
        """Return the examples of the test split."""
        return self._examples("test")

    def support(self) -> Sequence[Example]:
        """Return the examples of the training split."""
        return self._examples("train")

    def score_each(self, predictions: Sequence[Prediction]) -> list[float]:
        """Score each answer by the number of annotators who gave it, 0, 1/2 or 1."""
        counts = [
            sum(normalize_vqa_answer(p.text) == normalize_vqa_answer(answer) for answer in p.example.references)
            for p in predictions
        ]
        return [min(count / 2, 1.0) for count in counts]
