# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Test the plot of results and their rows of a card."""

import json

import pytest
from factory import tiny_flamingo
from huggingface_hub import ModelCard
from PIL import Image

from transformers_flamingo.evaluation.published import published_scores
from transformers_flamingo.evaluation.report import (
    card_scores,
    check_results,
    plot_results,
    read_results,
    write_evaluation_card,
)
from transformers_flamingo.utils.fingerprint import fingerprint_weights


WEIGHTS = fingerprint_weights(tiny_flamingo().state_dict())


def summary(task: str, seeds: int = 2, blind: bool = True, **facts) -> dict:
    results = [
        {
            "shots": shots,
            "mean": 50.0 + shots,
            "std": 1.5,
            "scores": {str(seed): {"CIDEr": 50.0} for seed in range(seeds)},
        }
        | (
            {
                "blind_mean": 20.0,
                "blind_std": 0.0,
                "blind_scores": {str(seed): {"CIDEr": 20.0} for seed in range(seeds)},
            }
            if blind
            else {}
        )
        for shots in (0, 4)
    ]
    protocol = {
        "shots": [0, 4],
        "seeds": list(range(seeds)),
        "selection": "random",
        "support_size": 2048,
        "num_orders": 1,
    }
    return {
        "task": task,
        "metric": "CIDEr",
        "model": "mine",
        "weights": WEIGHTS,
        "protocol": protocol,
        "results": results,
        "split": "test",
        "num_queries": 5000,
        "num_available": 5000,
        "is_subset": False,
        **facts,
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
    facts = "test | 5,000 | 0, 1 | random from 2,048"
    assert f"| coco | CIDEr | {facts} | 50.0 (std 1.5), blind 20 | 54.0 (std 1.5), blind 20 |" in card.text
    assert len(card.data.eval_results) == 4
    write_evaluation_card(tiny_flamingo(gates=-0.25), tmp_path)
    assert ModelCard.load(tmp_path / "README.md").data.eval_results is None


SUBSET = {"num_queries": 48, "is_subset": True}


def test_a_subset_says_so_in_the_card(tmp_path):
    (tmp_path / "coco").mkdir()
    compared = {"comparable": "yes", "differences": ["48 queries instead of 5,000"]}
    (tmp_path / "coco" / "results.json").write_text(json.dumps(summary("coco", **SUBSET, **compared)))
    write_evaluation_card(tiny_flamingo(), tmp_path, notes=["Mine."])
    card = ModelCard.load(tmp_path / "README.md")
    assert "Mine." in card.text
    assert "coco: comparable with published scores: yes. Not as there: 48 queries instead of 5,000." in card.text
    assert (
        "| coco, subset of 48 of 5,000 queries | CIDEr, subset | test | 48 | 0, 1 | random from 2,048 |" in card.text
    )
    for result in card.data.eval_results:
        assert result.dataset_name == "coco, subset of 48 of 5,000 queries"
        assert "subset" in result.metric_type and "subset" in result.metric_name
        assert result.dataset_split == "test"
        assert result.dataset_args == {"queries": 48, "seeds": [0, 1], "demonstrations": "random from 2,048"}


def test_how_demonstrations_were_chosen_is_said():
    protocol = {"shots": [4], "seeds": [0], "selection": "rices", "support_size": 100, "num_orders": 6}
    (row, *_) = card_scores(summary("coco", protocol=protocol))
    assert row["demonstrations"] == "rices from 100 in 6 orders"


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({}, None),
        (SUBSET, "subset"),
        ({"num_queries": 6000, "is_subset": True}, "other data"),
        ({"split": "val", "is_published_split": False}, "another split"),
    ],
)
def test_a_plot_says_what_it_shows(tmp_path, facts, expected):
    (axes,) = plot_results(tmp_path / "shots.png", summary("coco", **facts), published_scores("coco")).axes
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    number = facts.get("num_queries", 5000)
    assert f"{number:,} queries; seeds 0, 1; demonstrations random from 2,048" in axes.get_title()
    assert f"split {facts.get('split', 'test')}" in axes.get_title()
    if expected is None:
        assert "mine" in labels and "not comparable" not in axes.get_title()
    else:
        assert f"mine ({expected})" in labels
        assert f"not comparable with the published scores: {expected}" in axes.get_title()


def test_damaged_results_of_another_task_do_not_end_a_card(tmp_path):
    for task, content in (("coco", json.dumps(summary("coco"))), ("vqav2", "{"), ("vizwiz", "[]")):
        (tmp_path / task).mkdir()
        (tmp_path / task / "results.json").write_text(content)
    write_evaluation_card(tiny_flamingo(), tmp_path)
    assert len(ModelCard.load(tmp_path / "README.md").data.eval_results) == 2
    check_results(tmp_path)
    assert [path.name for path in sorted(tmp_path.glob("*/results.json*"))] == [
        "results.json",
        "results.json.damaged",
        "results.json.damaged",
    ]


@pytest.mark.parametrize("task", ["coco", "miniature_shapes"])
def test_a_plot_with_and_without_published_scores(tmp_path, task):
    plot_results(tmp_path / "shots.png", summary(task), published_scores(task))
    with Image.open(tmp_path / "shots.png") as image:
        assert image.format == "PNG" and image.width > 400
