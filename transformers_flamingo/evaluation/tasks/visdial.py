# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""VisDial (Das et al. 2017)."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from ...few_shot.examples import Example
from ..task import Comparison, Prediction, Task
from .common import Benchmark


@dataclass(frozen=True)
class VisDial(Benchmark, Task):
    """
    VisDial v1.0 (Das et al. 2017), validation split: 100 answers are ranked for the round of each dialog that has dense
    annotations, scored by NDCG in percent. The dialog so far is in the prompt. Demonstrations are the first rounds of training
    dialogs.

        visdial_1.0_train.json    visdial_1.0_val.json    visdial_1.0_val_dense_annotations.json
        train2014/    val2014/    VisualDialog_val2018/
    """

    name = "visdial"
    split_sizes = {"val": 2064}
    files = ("visdial_1.0_train.json", "visdial_1.0_val.json", "visdial_1.0_val_dense_annotations.json")
    metric = "NDCG"
    comparison = Comparison(
        source="Flamingo",
        equal="100 answers ranked for the rounds with dense annotations, NDCG on the validation split",
        differences=(
            "demonstrations are first rounds of training dialogs; the paper does not say which",
            "the prompt is ours",
        ),
        verdict="with care",
    )
    generation = None

    def _image(self, image_id: int, split: str) -> str:
        if split == "val":
            name = os.path.join("VisualDialog_val2018", f"VisualDialog_val2018_{image_id:012d}.jpg")
            return os.path.join(self.data, name)
        # The training images are COCO's, of both of its splits
        paths = [os.path.join(self.data, s, f"COCO_{s}_{image_id:012d}.jpg") for s in ("train2014", "val2014")]
        return paths[1] if os.path.exists(paths[1]) else paths[0]

    def _examples(self, split: str, rounds: dict[int, dict] | None) -> list[Example]:
        """Make an example of the annotated round of each dialog in `rounds`, by image; without `rounds` of each first round."""
        file = f"visdial_1.0_{split}.json"
        data = self.read_json(file)
        data = data.get("data") if isinstance(data, dict) else None
        if not isinstance(data, dict) or not all(
            isinstance(data.get(k), list) for k in ("questions", "answers", "dialogs")
        ):
            raise ValueError(
                f"{self.name}: {self.path(file)!r} has no `data` with `questions`, `answers` and `dialogs`. Use the published file."
            )
        return self.build(
            file,
            data["dialogs"],
            lambda dialog: self._example(dialog, split, data["questions"], data["answers"], rounds),
        )

    def _example(
        self, dialog: dict, split: str, questions: list[str], answers: list[str], rounds: dict[int, dict] | None
    ) -> Example | None:
        image_id = dialog["image_id"]
        if rounds is not None and image_id not in rounds:
            return None
        dense = None if rounds is None else rounds[image_id]
        asked = 0 if dense is None else dense["round_id"] - 1
        turns = dialog["dialog"]
        if not 0 <= asked < len(turns):
            raise ValueError(f"round {asked + 1} of image {image_id}, and its dialog has {len(turns)}")
        prompt = f"{dialog['caption']}. " + "".join(
            f"Question:{questions[turn['question']]}? Answer:{answers[turn['answer']]}. " for turn in turns[:asked]
        )
        turn = turns[asked]
        return Example(
            str(image_id),
            [self._image(image_id, split)],
            f"{prompt}Question:{questions[turn['question']]}? Answer:",
            answers[turn["answer"]],
            references=None if dense is None else dense["gt_relevance"],
            candidates=[answers[i] for i in turn["answer_options"]],
        )

    def queries(self) -> Sequence[Example]:
        """Return the rounds of the validation split that have dense annotations."""
        file = "visdial_1.0_val_dense_annotations.json"
        # A dict for each row, so that the error for an id that cannot be a key names its row
        rows = self.build(
            file,
            self.read_json(file),
            lambda row: {
                row["image_id"]: {"round_id": int(row["round_id"]), "gt_relevance": list(row["gt_relevance"])}
            },
        )
        return self._examples("val", {image_id: dense for row in rows for image_id, dense in row.items()})

    def support(self) -> Sequence[Example]:
        """Return the first round of each training dialog."""
        return self._examples("train", None)

    def score_each(self, predictions: Sequence[Prediction]) -> list[float]:
        """Compute the NDCG of each ranking, from 0 to 1."""
        return [ndcg(p.scores, p.example.references) for p in predictions]


def ndcg(scores: Sequence[float], relevance: Sequence[float]) -> float:
    """
    Compute the normalized discounted cumulative gain, from 0 to 1, as VisDial's evaluation does: over the first `k` ranks, where `k`
    is the number of relevant answers.

    Args:
        scores (`Sequence[float]`): Scores of the answers; the highest ranks first.
        relevance (`Sequence[float]`): Relevance of each answer, from 0 to 1.

    Raises:
        ValueError: the lengths differ, or no answer is relevant.
    """
    if len(scores) != len(relevance):
        raise ValueError(f"NDCG needs one score for each relevance, not {len(scores)} scores for {len(relevance)}.")
    if not any(value > 0 for value in relevance):
        raise ValueError("NDCG is undefined where no answer is relevant. Remove the query.")
    count = sum(value > 0 for value in relevance)
    ranked = sorted(range(len(scores)), key=lambda i: -scores[i])[:count]
    ideal = sorted(relevance, reverse=True)[:count]

    def gain(values: Sequence[float]) -> float:
        return sum(value / math.log2(rank + 2) for rank, value in enumerate(values))

    return gain([relevance[i] for i in ranked]) / gain(ideal)
