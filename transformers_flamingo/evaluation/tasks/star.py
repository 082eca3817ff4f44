# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""STAR."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ...data import VideoSegment
from ...few_shot.examples import Example
from .common import Benchmark, Choice


@dataclass(frozen=True)
class Star(Choice, Benchmark):
    """
    STAR (Wu et al. 2021), validation split: one of four answers, scored by accuracy in percent. Demonstrations are from the
    training split.

        STAR_train.json    STAR_val.json    Charades_v1_480/{video_id}.mp4

    Args:
        num_frames (`int`, *optional*, defaults to 8): Frames of each segment that are shown.
    """

    num_frames: int = 8

    name = "star"
    split_sizes = {"val": 7098}
    files = ("STAR_train.json", "STAR_val.json")

    def _examples(self, split: str) -> list[Example]:
        file = f"STAR_{split}.json"
        return self.build(file, self.read_json(file), self._example)

    def _example(self, row: dict) -> Example:
        path = os.path.join(self.data, "Charades_v1_480", f"{row['video_id']}.mp4")
        return Example(
            row["question_id"],
            [VideoSegment(path, row["start"], row["end"], self.num_frames)],
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
