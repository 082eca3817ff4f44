# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""iVQA (Yang et al. 2021)."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...few_shot.examples import Example
from ..metrics import normalize_vqa_answer
from ..task import Comparison, Prediction
from .common import Benchmark, QuestionAnswering
from .videos import VideoFiles


@dataclass(frozen=True)
class Ivqa(QuestionAnswering, Benchmark):
    """
    iVQA (Yang et al. 2021), test split. An answer that two or more of the five annotators gave scores 1, an answer of a single
    annotator 1/2; the result is the mean in percent. The prompt is that of VQA. Demonstrations are from the training split.

        train.csv    test.csv    (video_id, start, end, question, answer1 ... answer5)
        videos/{video_id}.mp4, or cut out: videos/{video_id}_{start}_{end}.mp4    (or in video/; any extension)

    Args:
        num_frames (`int`, *optional*, defaults to 8): Frames of each segment that are shown.
    """

    num_frames: int = 8

    name = "ivqa"
    split_sizes = {"test": 2000}
    files = ("train.csv", "test.csv")
    comparison = Comparison(
        source="Flamingo",
        equal="score by the number of annotators who gave an answer, test split",
        differences=(
            "frames of a video: 8, evenly spread over it or its part; the paper shows 30, at 3 per second: `--option num_frames=30`",
            "prompt and generation are those of OpenFlamingo's tasks of this kind, not the paper's",
        ),
        verdict="with care",
    )

    def _examples(self, split: str) -> list[Example]:
        videos = VideoFiles(self.data, ("videos", "video"))
        rows = enumerate(self.read_csv(f"{split}.csv"))
        return self.build(f"{split}.csv", rows, lambda row: self._example(row, videos))

    def _example(self, numbered: tuple[int, dict[str, str]], videos: VideoFiles) -> Example:
        number, row = numbered
        return self.question_example(
            number,
            videos.segment(row["video_id"], float(row["start"]), float(row["end"]), self.num_frames),
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
