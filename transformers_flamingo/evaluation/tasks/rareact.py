# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""RareAct (Miech et al. 2020)."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest

import numpy as np

from ...few_shot.examples import Example
from ..task import Comparison, Prediction, Task
from .common import Benchmark
from .videos import VideoFiles


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

        rareact.csv    (id, video_id, start, end, class_id, verb, noun, annotation)
        videos/{video_id}.mp4, or cut out: videos/{video_id}_{start}_{end}.mp4    (or in rareact/ or video/; any extension)

    Args:
        num_frames (`int`, *optional*, defaults to 8): Frames of each clip that are shown.
        support_actions (`Sequence[str]`, *optional*): Demonstrations, in the form "verb noun".
    """

    num_frames: int = 8
    support_actions: Sequence[str] = ("open door", "wash dish")

    name = "rareact"
    metric = "mWAP"
    generation = None
    split_sizes = {"all": 7607}
    files = ("rareact.csv",)
    comparison = Comparison(
        source="Flamingo",
        equal="mWAP, by the rules of the published script",
        differences=(
            "frames of a video: 8, evenly spread over it or its part; the paper shows 30, at 3 per second: `--option num_frames=30`",
            "a clip's score for an action is its log-probability among all 149; the paper does not say how it compares clips",
            "text-only demonstrations `support_actions`, for the dataset has none",
        ),
        verdict="with care",
    )

    @cached_property
    def _rows(self) -> list[dict[str, str]]:
        return self.read_csv("rareact.csv")

    def queries(self) -> Sequence[Example]:
        """Return every row of the file, with all actions as candidates."""
        actions = sorted({f"{row.get('verb')} {row.get('noun')}" for row in self._rows})
        videos = VideoFiles(self.data, ("videos", "video", "rareact"))

        def make(row: dict[str, str]) -> Example:
            references = {key: row[key] for key in ("verb", "noun", "video_id")} | {
                "annotation": int(row["annotation"])
            }
            if None in references.values():
                raise ValueError(f"a value is missing: {references}")
            video = videos.segment(row["video_id"], float(row["start"]), float(row["end"]), self.num_frames)
            return Example(row["id"], [video], "Output:", references=references, candidates=actions)

        return self.build("rareact.csv", self._rows, make)

    def support(self) -> Sequence[Example]:
        """Return `support_actions` as demonstrations without a video."""
        return [Example(action, [], "Output:", action) for action in self.support_actions]

    def subset(self, queries: Sequence[Example], number: int) -> list[Example]:
        """
        Draw about `number` queries by their actions, always the same, in their order: all clips of one random action, then of the next.

        Clips count for the precision of an action only if it is shown in one of them. Of random clips most would not count, and few actions
        would have a clip that shows them. The last action may be cut, and then has as many clips that show it as others.
        """
        by_action: dict[tuple[str, str], tuple[list[int], list[int]]] = {}
        for index, query in enumerate(queries):
            row = query.references
            shows = by_action.setdefault((row["verb"], row["noun"]), ([], []))
            shows[row["annotation"] != 1].append(index)
        shown = [rows for _, rows in sorted(by_action.items()) if rows[0]]
        chosen: list[int] = []
        for i in np.random.default_rng(0).permutation(len(shown)):
            in_turn = [index for pair in zip_longest(*shown[i]) for index in pair if index is not None]
            chosen += in_turn[: number - len(chosen)]
        return [queries[i] for i in sorted(chosen)]

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
