# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Published scores of Flamingo (Alayrac et al. 2022) and OpenFlamingo (Awadalla et al. 2023), for comparison."""

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PublishedScore:
    """
    A published score.

    Args:
        model (`str`): `"Flamingo-9B"`, or the name of a released OpenFlamingo checkpoint.
        shots (`int`): Number of demonstrations with images. At 0 there were two without images.
        score (`float`): Score on the scale of the papers: CIDEr times 100, all others in percent.
        source (`str`): Paper and table.
        demonstrations (`str`, *optional*): `"random"` or `"rices"`. `None` if it is not recorded here.
        std (`float`, *optional*): Standard deviation over three seeds. `None` if it was not published.
    """

    model: str
    shots: int
    score: float
    source: str
    demonstrations: str | None = None
    std: float | None = None


def published_scores(task: str) -> list[PublishedScore]:
    """
    Return the published scores on a task, an empty list if there are none.

    Args:
        task (`str`): Name of the task on the command line. `"nextqa_open_ended"` has the WUPS of open-ended answers to NExT-QA,
            which the task `nextqa` does not compute.
    """
    series = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8")).get(task, [])
    return [
        PublishedScore(entry["model"], shots, score, entry["source"], entry["demonstrations"], std)
        for entry in series
        for shots, score, std in zip(
            entry["shots"], entry["score"], entry.get("std") or [None] * len(entry["shots"]), strict=True
        )
    ]
