# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""MSVD-QA and MSRVTT-QA, which share the layout of their questions."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ...few_shot.examples import Example
from ..task import Comparison
from .common import Benchmark, OpenEnded
from .videos import VideoFiles


@dataclass(frozen=True)
class _VideoQa(OpenEnded, Benchmark):
    """
    Questions about videos, in the JSON files that MSVD-QA and MSRVTT-QA share.

    Args:
        num_frames (`int`, *optional*, defaults to 8): Frames of each video that are shown.
    """

    num_frames: int = 8

    files = ("train_qa.json", "test_qa.json")
    folders = ("videos",)
    extension = ".mp4"
    comparison = Comparison(
        source="Flamingo",
        equal="top-1 accuracy of one annotated answer on the test split",
        differences=(
            "frames of a video: 8, evenly spread over it or its part; the paper shows 30, at 3 per second: `--option num_frames=30`",
            "an answer is right if it is equal after the normalization of VQA",
            "prompt and generation are those of OpenFlamingo's tasks of this kind, not the paper's",
        ),
        verdict="with care",
    )

    def _video(self, row: dict) -> str:
        """Return the name of a video, without folder and extension."""
        raise NotImplementedError

    def _examples(self, split: str) -> list[Example]:
        file = f"{split}_qa.json"
        videos = VideoFiles(self.data, self.folders)
        return self.build(
            file,
            self.read_json(file),
            lambda row: self.question_example(
                row["id"],
                videos.segment(self._video(row), num_frames=self.num_frames, extension=self.extension),
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

        train_qa.json    test_qa.json    youtube_mapping.txt
        YouTubeClips/{YouTube id}_{start}_{end}.avi, a clip, or the whole YouTubeClips/{YouTube id}.mp4
            (or in videos/ or video/; any extension)
    """

    name = "msvd_qa"
    split_sizes = {"test": 13157}
    files = (*_VideoQa.files, "youtube_mapping.txt")
    folders = ("YouTubeClips", "videos", "video")
    extension = ".avi"

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
        return self._names[f"vid{row['video_id']}"]


@dataclass(frozen=True)
class MsrvttQa(_VideoQa):
    """
    MSRVTT-QA (Xu et al. 2017), test split. Everything but the files is as in [`MsvdQa`].

        train_qa.json    test_qa.json
        TrainValVideo/video{video_id}.mp4    TestVideo/video{video_id}.mp4    (or all in videos/ or video/; any extension)
    """

    name = "msrvtt_qa"
    split_sizes = {"test": 72821}

    folders = ("TrainValVideo", "TestVideo", "videos", "video")

    def _video(self, row: dict) -> str:
        return f"video{row['video_id']}"
