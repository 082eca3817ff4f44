# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""MSVD-QA and MSRVTT-QA, which share the layout of their questions."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ...data import VideoSegment
from ...few_shot.examples import Example
from .common import Benchmark, OpenEnded


@dataclass(frozen=True)
class _VideoQa(OpenEnded, Benchmark):
    """Questions about videos, in the JSON files that MSVD-QA and MSRVTT-QA share."""

    num_frames: int = 8

    files = ("train_qa.json", "test_qa.json")

    def _video(self, row: dict) -> str:
        raise NotImplementedError

    def _examples(self, split: str) -> list[Example]:
        file = f"{split}_qa.json"
        return self.build(
            file,
            self.read_json(file),
            lambda row: self.question_example(
                row["id"],
                VideoSegment(os.path.join(self.data, self._video(row)), num_frames=self.num_frames),
                row["question"],
                [row["answer"]],
            ),
        )

    def queries(self) -> Sequence[Example]:
        """Return the examples of the test split."""
        return self._examples("test")

    def support(self) -> Sequence[Example]:
        """Return the examples of the training split."""
        return self._examples("train")


@dataclass(frozen=True)
class MsvdQa(_VideoQa):
    """
    MSVD-QA (Xu et al. 2017), test split, scored by accuracy in percent: an answer is right if it is the annotated one. The prompt
    is that of VQA. Demonstrations are from the training split.

        train_qa.json    test_qa.json    youtube_mapping.txt    YouTubeClips/*.avi

    Args:
        num_frames (`int`, *optional*, defaults to 8): Frames of each video that are shown.
    """

    name = "msvd_qa"
    split_sizes = {"test": 13157}
    files = (*_VideoQa.files, "youtube_mapping.txt")

    @cached_property
    def _names(self) -> dict[str, str]:
        with open(self.path("youtube_mapping.txt"), encoding="utf-8") as file:
            pairs = [line.split() for line in file if line.strip()]
        wrong = [number for number, pair in enumerate(pairs) if len(pair) != 2]
        if wrong:
            raise ValueError(
                f"{self.name}: {self.path('youtube_mapping.txt')!r}, row {wrong[0]} is not a pair of names: {pairs[wrong[0]]}. Use "
                "the published file."
            )
        return {number: name for name, number in pairs}

    def _video(self, row: dict) -> str:
        return os.path.join("YouTubeClips", self._names[f"vid{row['video_id']}"] + ".avi")


@dataclass(frozen=True)
class MsrvttQa(_VideoQa):
    """
    MSRVTT-QA (Xu et al. 2017), test split. Everything but the files is as in [`MsvdQa`].

        train_qa.json    test_qa.json    TrainValVideo/video*.mp4    TestVideo/video*.mp4
    """

    name = "msrvtt_qa"
    split_sizes = {"test": 72821}

    def _video(self, row: dict) -> str:
        name = f"video{row['video_id']}.mp4"
        in_test = os.path.join("TestVideo", name)
        is_test = os.path.exists(os.path.join(self.data, in_test))
        return in_test if is_test else os.path.join("TrainValVideo", name)
