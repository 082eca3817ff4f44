# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""YouCook2."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ..task import Example
from ..video import Video
from .common import Benchmark, Captioning


@dataclass(frozen=True)
class YouCook2(Captioning, Benchmark):
    """
    YouCook2, a sentence for each segment of the validation videos. Demonstrations are from the training videos.

        youcookii_annotations_trainval.json    videos/{id}.mp4

    Args:
        num_frames (`int`, *optional*, defaults to 8): Frames of each segment that are shown.
    """

    num_frames: int = 8

    name = "youcook2"
    files = ("youcookii_annotations_trainval.json",)

    def _examples(self, subset: str) -> list[Example]:
        database = self.read_json(self.files[0])["database"]
        return [
            self.caption_example(
                f"{video}/{segment['id']}",
                Video(os.path.join(self.data, "videos", f"{video}.mp4"), *segment["segment"], self.num_frames),
                [segment["sentence"]],
            )
            for video, entry in database.items()
            if entry["subset"] == subset
            for segment in entry["annotations"]
        ]

    def queries(self) -> Sequence[Example]:
        return self._examples("validation")

    def support(self) -> Sequence[Example]:
        return self._examples("training")
