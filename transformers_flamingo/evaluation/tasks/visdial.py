# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""VisDial."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass

from ..task import Example, Prediction, Task
from .common import Benchmark


@dataclass(frozen=True)
class VisDial(Benchmark, Task):
    """
    VisDial v1.0, validation split: 100 answers ranked for the round of each dialogue that has dense annotations, NDCG in
    percent. The dialogue so far stands in the prompt. Demonstrations are whole first rounds of training dialogues.

        visdial_1.0_train.json    visdial_1.0_val.json    visdial_1.0_val_dense_annotations.json
        train2014/    val2014/    VisualDialog_val2018/
    """

    name = "visdial"
    files = ("visdial_1.0_train.json", "visdial_1.0_val.json", "visdial_1.0_val_dense_annotations.json")
    metric = "NDCG"
    generation = None

    def _image(self, image_id: int, split: str) -> str:
        if split == "val":
            name = os.path.join("VisualDialog_val2018", f"VisualDialog_val2018_{image_id:012d}.jpg")
            return os.path.join(self.data, name)
        # The training images are COCO's, of both of its splits
        paths = [os.path.join(self.data, s, f"COCO_{s}_{image_id:012d}.jpg") for s in ("train2014", "val2014")]
        return paths[1] if os.path.exists(paths[1]) else paths[0]

    def _examples(self, split: str, rounds: dict[int, dict]) -> list[Example]:
        data = self.read_json(f"visdial_1.0_{split}.json")["data"]
        questions, answers = data["questions"], data["answers"]
        examples = []
        for dialog in data["dialogs"]:
            image_id = dialog["image_id"]
            if rounds and image_id not in rounds:
                continue
            asked = rounds[image_id]["round_id"] - 1 if rounds else 0
            turns = dialog["dialog"]
            prompt = f"{dialog['caption']}. " + "".join(
                f"Question:{questions[turn['question']]}? Answer:{answers[turn['answer']]}. " for turn in turns[:asked]
            )
            turn = turns[asked]
            examples.append(
                Example(
                    str(image_id),
                    [self._image(image_id, split)],
                    f"{prompt}Question:{questions[turn['question']]}? Answer:",
                    answers[turn["answer"]],
                    references=rounds[image_id]["gt_relevance"] if rounds else None,
                    candidates=[answers[i] for i in turn["answer_options"]],
                )
            )
        return examples

    def queries(self) -> Sequence[Example]:
        dense = self.read_json("visdial_1.0_val_dense_annotations.json")
        return self._examples("val", {row["image_id"]: row for row in dense})

    def support(self) -> Sequence[Example]:
        return self._examples("train", {})

    def score_each(self, predictions: Sequence[Prediction]) -> list[float]:
        return [ndcg(p.scores, p.example.references) for p in predictions]


def ndcg(scores: Sequence[float], relevance: Sequence[float]) -> float:
    """Normalised discounted cumulative gain over as many places as there are relevant answers, as VisDial has it."""
    count = sum(value > 0 for value in relevance)
    ranked = sorted(range(len(scores)), key=lambda i: -scores[i])[:count]
    ideal = sorted(relevance, reverse=True)[:count]

    def gain(values: Sequence[float]) -> float:
        return sum(value / math.log2(place + 2) for place, value in enumerate(values))

    return gain([relevance[i] for i in ranked]) / gain(ideal)
