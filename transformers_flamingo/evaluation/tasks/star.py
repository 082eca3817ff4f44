# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""STAR."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...few_shot.examples import Example
from ..task import Comparison
from .common import Benchmark, Choice
from .videos import VideoFiles


@dataclass(frozen=True)
class Star(Choice, Benchmark):
    """
    STAR (Wu et al. 2021), validation split: one of four answers, scored by accuracy in percent. Demonstrations are from the
    training split.

        STAR_train.json    STAR_val.json
        Charades_v1_480/{video_id}.mp4    (or in Charades_v1/ or videos/; any extension)

    Args:
        num_frames (`int`, *optional*, defaults to 8): Frames of each segment that are shown.
    """

    num_frames: int = 8

    name = "star"
    split_sizes = {"val": 7098}
    files = ("STAR_train.json", "STAR_val.json")
    comparison = Comparison(
        source="Flamingo",
        equal="the four choices ranked by likelihood, accuracy on the validation split",
        differences=(
            "frames of a video: 8, evenly spread over it or its part; the paper shows 30, at 3 per second: `--option num_frames=30`",
            "the prompt is ours",
        ),
        verdict="with care",
    )

    def _examples(self, split: str) -> list[Example]:
        file = f"STAR_{split}.json"
        videos = VideoFiles(self.data, ("Charades_v1_480", "Charades_v1", "videos"))
        return self.build(file, self.read_json(file), lambda row: self._example(row, videos))

    def _example(self, row: dict, videos: VideoFiles) -> Example:
        return Example(
            row["question_id"],
            [videos.segment(row["video_id"], float(row["start"]), float(row["end"]), self.num_frames)],
            f"Question:{row['question']} Answer:",
            row["answer"],
            references=row["answer"],
            candidates=[choice["choice"] for choice in row["choices"]],
        )

    def queries(self) -> Sequence[Example]:
        """Return the examples of the validation split."""
        return self._examples("val")

    def support(self) -> Sequence[Example]:
        """Return the examples of the training split."""
        return self._examples("train")
