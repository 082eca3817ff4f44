# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""YouCook2 (Zhou et al. 2018)."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from ...few_shot.examples import Example
from ..task import Comparison
from .common import Benchmark, Captioning
from .videos import VideoFiles


@dataclass(frozen=True)
class YouCook2(Captioning, Benchmark):
    """
    YouCook2 (Zhou et al. 2018), a caption for each segment of the validation videos, scored by CIDEr times 100. Demonstrations
    are from the training videos.

        youcookii_annotations_trainval.json    (or in annotations/)
        raw_videos/{training,validation}/{recipe}/{id}.mp4    (or in videos/ or video/, flat or in folders; any extension)

    Args:
        num_frames (`int`, *optional*, defaults to 8): Frames of each segment that are shown.
    """

    num_frames: int = 8

    name = "youcook2"
    split_sizes = {"validation": 3492}
    files = ()
    comparison = Comparison(
        source="Flamingo",
        equal="CIDEr of the sentence of each segment on the validation split",
        differences=(
            "frames of a video: 8, evenly spread over it or its part; the paper shows 30, at 3 per second: `--option num_frames=30`",
            "prompt and generation are those of OpenFlamingo's tasks of this kind, not the paper's",
            "the videos are on YouTube, and each copy lacks others of them",
        ),
        verdict="with care: not all videos are left",
    )

    def __post_init__(self):
        self._find_annotations()

    def _find_annotations(self) -> str:
        """Return the place of the annotations, whose archive unpacks into a folder."""
        name = "youcookii_annotations_trainval.json"
        places = (name, os.path.join("annotations", name))
        for place in places:
            if os.path.exists(self.path(place)):
                return place
        raise FileNotFoundError(f"{self.name} needs {places[0]!r} or {places[1]!r} in {self.data!r}.")

    def _examples(self, subset: str) -> list[Example]:
        file = self._find_annotations()
        videos = VideoFiles(self.data, ("videos", "raw_videos", "video"))
        content = self.read_json(file)
        database = content.get("database") if isinstance(content, dict) else None
        if not isinstance(database, dict):
            raise ValueError(f"{self.name}: {self.path(file)!r} has no `database` of videos. Use the published file.")

        def make(row: tuple[str, dict]) -> list[Example] | None:
            video, entry = row
            if entry["subset"] != subset:
                return None
            return [self._example(video, segment, videos) for segment in entry.get("annotations", ())]

        made = self.build(file, database.items(), make)
        return [example for examples in made for example in examples]

    def _example(self, video: str, segment: dict, videos: VideoFiles) -> Example:
        start, end = segment["segment"]
        shown = videos.segment(video, start, end, self.num_frames)
        return self.caption_example(f"{video}/{segment['id']}", shown, [segment["sentence"]])

    def queries(self) -> Sequence[Example]:
        """Return the examples of the validation split."""
        return self._examples("validation")

    def support(self) -> Sequence[Example]:
        """Return the examples of the training split."""
        return self._examples("training")
