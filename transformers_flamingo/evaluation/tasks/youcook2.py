# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""YouCook2 (Zhou et al. 2018)."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ...data import VideoSegment
from ...few_shot.examples import Example
from .common import Benchmark, Captioning


@dataclass(frozen=True)
class YouCook2(Captioning, Benchmark):
    """
    YouCook2 (Zhou et al. 2018), a caption for each segment of the validation videos, scored by CIDEr times 100. Demonstrations
    are from the training videos.

        youcookii_annotations_trainval.json    videos/{id}.mp4

    Args:
        num_frames (`int`, *optional*, defaults to 8): Frames of each segment that are shown.
    """

    num_frames: int = 8

    name = "youcook2"
    split_sizes = {"validation": 3492}
    files = ("youcookii_annotations_trainval.json",)

    def _examples(self, subset: str) -> list[Example]:
        content = self.read_json(self.files[0])
        database = content.get("database") if isinstance(content, dict) else None
        if not isinstance(database, dict):
            raise ValueError(
                f"{self.name}: {self.path(self.files[0])!r} has no `database` of videos. Use the published file."
            )

        def make(row: tuple[str, dict]) -> list[Example] | None:
            video, entry = row
            if entry["subset"] != subset:
                return None
            return [self._example(video, segment) for segment in entry.get("annotations", ())]

        videos = self.build(self.files[0], database.items(), make)
        return [example for examples in videos for example in examples]

    def _example(self, video: str, segment: dict) -> Example:
        start, end = segment["segment"]
        path = os.path.join(self.data, "videos", f"{video}.mp4")
        return self.caption_example(
            f"{video}/{segment['id']}", VideoSegment(path, start, end, self.num_frames), [segment["sentence"]]
        )

    def queries(self) -> Sequence[Example]:
        """Return the examples of the validation split."""
        return self._examples("validation")

    def support(self) -> Sequence[Example]:
        """Return the examples of the training split."""
        return self._examples("training")
