# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""RareAct (Miech et al. 2020)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...data import VideoSegment
from ...few_shot.examples import Example
from ..task import Prediction, Task
from .common import Benchmark


@dataclass(frozen=True)
class RareAct(Benchmark, Task):
    """
    RareAct (Miech et al. 2020): the unusual action ("cut keyboard") that a clip shows, scored by mWAP in percent as in the Flamingo
    paper. The weighted average precision of an action measures how well the clips that show it are separated from the others,
    including hard negatives, of which only the verb or the noun is right. Every row of the file is a query, and every action a
    candidate.

    The score of a clip for an action is its log-probability among all actions. This is our choice: the paper does not say how it
    compares clips. RareAct has no training split and is a task for 0 shots. The text-only demonstrations are `support_actions`,
    also our choice. `accuracy` is over the clips that show their action.

        rareact.csv    (id, video_id, start, end, class_id, verb, noun, annotation)    videos/{video_id}.mp4

    Args:
        num_frames (`int`, *optional*, defaults to 8): Frames of each clip that are shown.
        support_actions (`Sequence[str]`, *optional*): Demonstrations, in the form "verb noun".
    """

    num_frames: int = 8
    support_actions: Sequence[str] = ("open door", "wash dish")

    name = "rareact"
    metric = "mWAP"
    generation = None
    files = ("rareact.csv",)

    @cached_property
    def _rows(self) -> list[dict[str, str]]:
        return self.read_csv("rareact.csv")

    def queries(self) -> Sequence[Example]:
        """Return every row of the file, with all actions as candidates."""
        actions = sorted({f"{row.get('verb')} {row.get('noun')}" for row in self._rows})

        def make(row: dict[str, str]) -> Example:
            path = self.path("videos", f"{row['video_id']}.mp4")
            references = {key: row[key] for key in ("verb", "noun", "video_id")} | {
                "annotation": int(row["annotation"])
            }
            if None in references.values():
                raise ValueError(f"a value is missing: {references}")
            video = VideoSegment(path, float(row["start"]), float(row["end"]), self.num_frames)
            return Example(row["id"], [video], "Output:", references=references, candidates=actions)

        return self.build("rareact.csv", self._rows, make)

    def support(self) -> Sequence[Example]:
        """Return `support_actions` as demonstrations without a video."""
        return [Example(action, [], "Output:", action) for action in self.support_actions]

    def score(self, predictions: Sequence[Prediction]) -> dict[str, float]:
        """Compute the mean weighted average precision over all actions, and the accuracy, both in percent."""
        rows = [p.example.references for p in predictions]
        positive = [p for p in predictions if p.example.references["annotation"] == 1]
        if not positive:
            raise ValueError(f"{self.name}: none of the {len(rows)} clips shows its action. Ask about more of them.")
        likelihoods = np.array([p.scores for p in predictions])
        scores = likelihoods - np.logaddexp.reduce(likelihoods, axis=1, keepdims=True)
        candidates = positive[0].example.candidates
        precisions = []
        for verb, noun in sorted({(row["verb"], row["noun"]) for row in rows if row["annotation"] == 1}):
            kinds = [_kind(row, verb, noun) for row in rows]
            chosen = [i for i, kind in enumerate(kinds) if kind is not None]
            # All clips of one video count as one, separately for positives and both kinds of negatives
            clips = [(kinds[i], rows[i]["video_id"]) for i in chosen]
            counts = Counter(clips)
            precisions.append(
                weighted_average_precision(
                    scores[chosen, candidates.index(f"{verb} {noun}")],
                    [kind == "positive" for kind, _ in clips],
                    [1 / counts[clip] for clip in clips],
                )
            )
        right = [p.text == "{verb} {noun}".format(**p.example.references) for p in positive]
        return {self.metric: 100 * float(np.mean(precisions)), "accuracy": 100 * float(np.mean(right))}


def _kind(row: dict, verb: str, noun: str) -> str | None:
    """Return the kind of a clip for an action, or `None` if it is unknown: a clip that does not show the action it was annotated for."""
    same = (row["verb"] == verb) + (row["noun"] == noun)
    if same == 2:
        return {0: "negative", 1: "positive"}.get(row["annotation"], "hard negative")
    if row["annotation"] != 1:
        return None
    return "hard negative" if same else "negative"


def weighted_average_precision(scores: Sequence[float], labels: Sequence[bool], weights: Sequence[float]) -> float:
    """
    Compute the average precision, from 0 to 1, with weighted examples: precision averaged over the steps of recall. Examples with
    equal scores form one step.

    Args:
        scores (`Sequence[float]`): Higher means more likely positive.
        labels (`Sequence[bool]`): At least one is positive.
        weights (`Sequence[float]`): Above 0.
    """
    scores, labels, weights = np.asarray(scores), np.asarray(labels, dtype=bool), np.asarray(weights)
    _, rank = np.unique(-scores, return_inverse=True)
    found = np.bincount(rank, weights * labels)
    precision = found.cumsum() / np.bincount(rank, weights).cumsum()
    return float((precision * found).sum() / found.sum())
