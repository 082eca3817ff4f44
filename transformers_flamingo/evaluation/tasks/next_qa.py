# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""NExT-QA."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ...few_shot.examples import Example
from ..task import Comparison
from .common import Benchmark, Choice
from .videos import VideoFiles


@dataclass(frozen=True)
class NextQa(Choice, Benchmark):
    """
    NExT-QA (Xiao et al. 2021), multiple choice, validation split: one of five answers, scored by accuracy in percent. The
    Flamingo paper reports the WUPS of open-ended answers, which needs WordNet and is not computed here. Demonstrations are from
    the training split.

        train.csv    val.csv    (video, question, answer, qid, a0 ... a4)    map_vid_vidorID.json
        NExTVideo/*/{video}.mp4    (or in videos/; any extension)

    Args:
        num_frames (`int`, *optional*, defaults to 8): Frames of each video that are shown.
    """

    num_frames: int = 8

    name = "nextqa"
    split_sizes = {"val": 4996}
    files = ("train.csv", "val.csv", "map_vid_vidorID.json")
    comparison = Comparison(
        source="Flamingo",
        equal="videos and questions",
        differences=(
            "multiple choice and its accuracy; the paper scores open-ended answers by WUPS, which needs WordNet",
        ),
        verdict="no: another task and metric",
    )

    @cached_property
    def _names(self) -> dict[str, str]:
        return self.read_json("map_vid_vidorID.json")

    def _examples(self, split: str) -> list[Example]:
        videos = VideoFiles(self.data, ("NExTVideo", "videos"))
        return self.build(f"{split}.csv", self.read_csv(f"{split}.csv"), lambda row: self._example(row, videos))

    def _example(self, row: dict[str, str], videos: VideoFiles) -> Example:
        candidates = [row[f"a{i}"] for i in range(5)]
        if row["answer"] not in {str(i) for i in range(5)}:
            raise ValueError(f"the answer is {row['answer']!r}, not 0 to 4")
        answer = candidates[int(row["answer"])]
        published = self._names[row["video"]]
        known = row["video"] in videos.files
        return Example(
            f"{row['video']}/{row['qid']}",
            [videos.segment(row["video"] if known else published, num_frames=self.num_frames)],
            f"Question:{row['question']}? Answer:",
            answer,
            references=answer,
            candidates=candidates,
        )

    def queries(self) -> Sequence[Example]:
        """Return the examples of the validation split."""
        return self._examples("val")

    def support(self) -> Sequence[Example]:
        """Return the examples of the training split."""
        return self._examples("train")
