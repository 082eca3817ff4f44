# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Results as a picture and as rows of a card."""

import json

import pytest
from factory import tiny_flamingo
from huggingface_hub import ModelCard
from PIL import Image

from transformers_flamingo.evaluation.evaluate import weights_fingerprint
from transformers_flamingo.evaluation.published import published_scores
from transformers_flamingo.evaluation.report import card_scores, plot_results, read_results, write_evaluation_card


WEIGHTS = weights_fingerprint(tiny_flamingo())


def summary(task: str, seeds: int = 2, blind: bool = True) -> dict:
    results = [
        {"shots": shots, "mean": 50.0 + shots, "std": 1.5} | ({"blind_mean": 20.0, "blind_std": 0.0} if blind else {})
        for shots in (0, 4)
    ]
    protocol = {"seeds": list(range(seeds))}
    return {
        "task": task,
        "metric": "CIDEr",
        "model": "mine",
        "weights": WEIGHTS,
        "protocol": protocol,
        "results": results,
    }


@pytest.mark.parametrize("blind", [True, False])
def test_rows_of_a_card(blind):
    rows = card_scores(summary("coco", blind=blind))
    assert [(row["task"], row["shots"], row["value"], row["std"]) for row in rows] == [
        ("coco", 0, 50.0, 1.5),
        ("coco", 4, 54.0, 1.5),
    ]
    assert [row["blind"] for row in rows] == ([20.0] * 2 if blind else [None] * 2)
    assert card_scores(summary("coco", seeds=1))[0]["std"] is None


def test_a_card_has_the_results_of_all_tasks(tmp_path):
    for task in ("coco", "vqav2"):
        (tmp_path / task).mkdir()
        (tmp_path / task / "results.json").write_text(json.dumps(summary(task)))
    assert [result["task"] for result in read_results(tmp_path)] == ["coco", "vqav2"]
    write_evaluation_card(tiny_flamingo(), tmp_path, model_name="mine")
    card = ModelCard.load(tmp_path / "README.md")
    assert "| coco | CIDEr | 50.0 (std 1.5), blind 20 | 54.0 (std 1.5), blind 20 |" in card.text
    assert len(card.data.eval_results) == 4
    write_evaluation_card(tiny_flamingo(gates=-0.25), tmp_path)
    assert ModelCard.load(tmp_path / "README.md").data.eval_results is None


@pytest.mark.parametrize("task", ["coco", "miniature_shapes"])
def test_a_picture_with_and_without_published_scores(tmp_path, task):
    plot_results(tmp_path / "shots.png", summary(task), published_scores(task))
    with Image.open(tmp_path / "shots.png") as picture:
        assert picture.format == "PNG" and picture.width > 400
