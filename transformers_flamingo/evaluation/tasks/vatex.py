# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""VATEX."""

from collections.abc import Sequence
from dataclasses import dataclass

from ...few_shot.examples import Example
from ..task import Comparison
from .common import Benchmark, Captioning
from .videos import VideoFiles


@dataclass(frozen=True)
class Vatex(Captioning, Benchmark):
    """
    VATEX (Wang et al. 2019), English captions, public test split, scored by CIDEr times 100. The Flamingo paper reports scores
    on the test split. Demonstrations are from the training split.

        vatex_training_v1.0.json    vatex_public_test_english_v1.1.json
        videos/{videoID}.mp4, a clip, or the whole videos/{YouTube id}.mp4    (or in video/; any extension)

    Args:
        split (`str`, *optional*, defaults to `"public_test_english_v1.1"`):
            The scored split, as in the name of its file. The other one is `"validation_v1.0"`.
        num_frames (`int`, *optional*, defaults to 8): Frames of each video that are shown.
    """

    split: str = "public_test_english_v1.1"
    num_frames: int = 8

    name = "vatex"
    split_sizes = {"public_test_english_v1.1": 6000, "validation_v1.0": 3000}
    files = ("vatex_training_v1.0.json", "vatex_{split}.json")
    comparison = Comparison(
        source="Flamingo",
        equal="CIDEr of the ten English captions",
        differences=(
            "frames of a video: 8, evenly spread over it or its part; the paper shows 30, at 3 per second: `--option num_frames=30`",
            "split: public test, of which not all videos are on the web any more; the paper says test",
            "prompt and generation are those of OpenFlamingo's tasks of this kind, not the paper's",
        ),
        verdict="with care: another split",
    )

    def _examples(self, split: str) -> list[Example]:
        file = f"vatex_{split}.json"
        videos = VideoFiles(self.data, ("videos", "video"))
        return self.build(
            file,
            self.read_json(file),
            lambda row: self.caption_example(
                row["videoID"],
                videos.segment(row["videoID"], num_frames=self.num_frames),
                row["enCap"],
            ),
        )

    def queries(self) -> Sequence[Example]:
        """Return the examples of the scored split."""
        return self._examples(self.split)

    def support(self) -> Sequence[Example]:
        """Return the examples of the training split."""
        return self._examples("training_v1.0")
