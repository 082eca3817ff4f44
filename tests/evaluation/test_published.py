# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Test that the published scores are those in the papers, for every model and number of shots."""

import json
from pathlib import Path

import pytest

from transformers_flamingo.evaluation import published
from transformers_flamingo.evaluation.published import PublishedScore, published_scores


TASKS = json.loads(Path(published.__file__).with_suffix(".json").read_text())


def score(task, model, shots, demonstrations="random"):
    (row,) = [
        row
        for row in published_scores(task)
        if (row.model, row.shots, row.demonstrations) == (model, shots, demonstrations)
    ]
    return row


def test_rows_of_the_papers():
    # The numbers that OpenFlamingo's README quotes at 4 shots.
    models = [
        "3B-vitl-mpt1b",
        "3B-vitl-mpt1b-langinstruct",
        "4B-vitl-rpj3b",
        "4B-vitl-rpj3b-langinstruct",
        "9B-vitl-mpt7b",
    ]
    names = [f"OpenFlamingo-{model}" for model in models]
    assert [score("coco", name, 4).score for name in names] == [77.3, 82.7, 81.8, 85.8, 89.0]
    assert [score("vqav2", name, 4).score for name in names] == [45.8, 45.7, 49.0, 49.0, 54.8]
    assert score("hateful_memes", names[-1], 32, "rices").score == 73.6
    assert score("coco", "Flamingo-80B", 32).score == 113.8
    assert score("coco", names[0], 0) == PublishedScore(
        names[0], 0, 74.9, "Awadalla et al. 2023, Table 11", "random", 0.2
    )


@pytest.mark.parametrize("task", TASKS)
def test_every_row_has_a_source_and_occurs_once(task):
    rows = published_scores(task)
    assert all(row.source and 0 < row.score < 150 for row in rows)
    assert len({(row.model, row.shots, row.demonstrations) for row in rows}) == len(rows)
    assert {row.shots for row in rows} <= {0, 4, 8, 16, 32}
    assert {"Flamingo-3B", "Flamingo-9B", "Flamingo-80B"} <= {row.model for row in rows}


@pytest.mark.parametrize("task", ["coco", "flickr30k", "vqav2", "okvqa", "textvqa", "vizwiz", "hateful_memes"])
def test_openflamingo_is_complete(task):
    rows = [row for row in published_scores(task) if row.model.startswith("OpenFlamingo")]
    assert len(rows) == 5 * 5 * 2  # models, shots, random and RICES
    assert all((row.std is None) == (row.demonstrations == "rices") for row in rows)


def test_an_own_task_has_none():
    assert published_scores("my-captions") == []
