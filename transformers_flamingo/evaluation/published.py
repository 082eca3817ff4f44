# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""List the scores that Flamingo (Alayrac et al. 2022) and OpenFlamingo (Awadalla et al. 2023) report, for comparison."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PublishedScore:
    """
    One published number.

    Args:
        model (`str`): `"Flamingo-9B"`, or the name of a released OpenFlamingo checkpoint.
        shots (`int`): Demonstrations with images; at 0 there were two of text alone.
        score (`float`): On the scale of the papers: CIDEr times 100, all others in percent.
        source (`str`): Paper and table.
        demonstrations (`str`, *optional*): `"random"` or `"rices"`; `None` where not recorded here.
        std (`float`, *optional*): Over three seeds; `None` where not given.
    """

    model: str
    shots: int
    score: float
    source: str
    demonstrations: str | None = None
    std: float | None = None


def published_scores(task: str) -> list[PublishedScore]:
    """
    The published scores on a task, by its name on the command line; none where nothing was published. Those of NExT-QA,
    `"nextqa_open_ended"`, are the WUPS of open-ended answers, which the task `nextqa` does not compute.
    """
    series = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8")).get(task, [])
    return [
        PublishedScore(entry["model"], shots, score, entry["source"], entry["demonstrations"], std)
        for entry in series
        for shots, score, std in zip(
            entry["shots"], entry["score"], entry.get("std") or [None] * len(entry["shots"]), strict=True
        )
    ]
