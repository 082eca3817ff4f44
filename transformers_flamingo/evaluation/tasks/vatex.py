# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""VATEX."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ..task import Example
from ..video import Video
from .common import Benchmark, Captioning


@dataclass(frozen=True)
class Vatex(Captioning, Benchmark):
    """
    VATEX, English captions of the validation split. Demonstrations are from the training split.

        vatex_training_v1.0.json    vatex_validation_v1.0.json    videos/{videoID}.mp4

    Args:
        num_frames (`int`, *optional*, defaults to 8): Frames of each video that are shown.
    """

    num_frames: int = 8

    name = "vatex"

    def _examples(self, split: str) -> list[Example]:
        return [
            self.caption_example(
                row["videoID"],
                Video(os.path.join(self.data, "videos", f"{row['videoID']}.mp4"), num_frames=self.num_frames),
                row["enCap"],
            )
            for row in self.read_json(f"vatex_{split}_v1.0.json")
        ]

    def queries(self) -> Sequence[Example]:
        return self._examples("validation")

    def support(self) -> Sequence[Example]:
        return self._examples("training")
