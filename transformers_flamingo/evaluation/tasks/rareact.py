# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""RareAct."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ..task import Example
from ..video import Video
from .common import Benchmark, Choice


@dataclass(frozen=True)
class RareAct(Choice, Benchmark):
    """
    RareAct: which unusual action ("cut keyboard") a clip shows. All clips annotated as positive are queries, all actions
    candidates; scored by accuracy. The paper reports the mWAP over hard negatives too, which is not computed here.
    RareAct has no training split, and is a task for 0 shots: the demonstrations, of text alone, are actions in the form
    "verb noun" of `support_actions`.

        rareact.csv    (id, video_id, start, end, verb, noun, annotation)    videos/{video_id}.mp4

    Args:
        num_frames (`int`, *optional*, defaults to 8): Frames of each clip that are shown.
    """

    num_frames: int = 8
    support_actions: tuple[str, ...] = ("open door", "wash dish")

    name = "rareact"

    @cached_property
    def _rows(self) -> list[dict[str, str]]:
        return self.read_csv("rareact.csv")

    def queries(self) -> Sequence[Example]:
        actions = sorted({f"{row['verb']} {row['noun']}" for row in self._rows})
        return [
            Example(
                row["id"],
                [
                    Video(
                        os.path.join(self.data, "videos", f"{row['video_id']}.mp4"),
                        float(row["start"]),
                        float(row["end"]),
                        self.num_frames,
                    )
                ],
                "Output:",
                references=f"{row['verb']} {row['noun']}",
                candidates=actions,
            )
            for row in self._rows
            if row["annotation"] == "1"
        ]

    def support(self) -> Sequence[Example]:
        return [Example(action, [], "Output:", action) for action in self.support_actions]
