# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Test what is said of scores that are not those of the papers, and that the page about it is made from the tasks."""

import re

import pytest
from evaluation_tasks import PAGE, START, make_sections

from transformers_flamingo.evaluation.comparison import describe_differences, judge_comparability
from transformers_flamingo.evaluation.published import published_scores
from transformers_flamingo.evaluation.report import describe_comparability, plot_title
from transformers_flamingo.evaluation.task_help import describe_task, task_fields, task_title
from transformers_flamingo.evaluation.tasks import TASKS


THEIRS = {
    "selection": "random",
    "support_size": 2048,
    "is_support_subset": True,
    "balanced": False,
    "num_orders": 1,
    "rices_clip": None,
    "rices_faiss": None,
}
WHOLE = {"is_subset": False, "is_published_split": True, "num_queries": 5000, "num_available": 5000, "split": "test"}


def differences(name: str, scored: dict | None = None, **protocol) -> list[str]:
    task = object.__new__(TASKS[name])
    return describe_differences(task, THEIRS | protocol, WHOLE | (scored or {}))


def test_the_page_is_current():
    before, start, sections = PAGE.read_text(encoding="utf-8").partition(START)
    assert start + sections == make_sections(), "run `PYTHONPATH=.:tests python tests/evaluation_tasks.py`"
    assert "## What it costs" in before


@pytest.mark.parametrize("name", [name for name, task in TASKS.items() if task.comparison])
def test_every_published_benchmark_says_how_it_compares(name):
    comparison = TASKS[name].comparison
    assert comparison.source in ("OpenFlamingo", "Flamingo")
    assert re.match(r"(yes|with care|no)\b", comparison.verdict)
    # What may be compared has no difference but in the names of things, and what may not says why
    assert comparison.differences or comparison.verdict == "yes"


def test_which_tasks_compare():
    compared = {name: task.comparison.source for name, task in TASKS.items() if task.comparison}
    theirs = {"coco", "flickr30k", "vqav2", "okvqa", "textvqa", "vizwiz", "hateful_memes", "imagenet"}
    assert {name for name, source in compared.items() if source == "OpenFlamingo"} == theirs
    assert set(TASKS) - set(compared) == {"captioning", "question_answering", "classification"}
    assert all(compared.get(name) for name in TASKS if published_scores(name))


def test_their_protocol_differs_in_nothing_but_the_task():
    assert differences("textvqa") == []
    assert differences("captioning", balanced=True) == []  # there is nothing to compare with
    assert differences("coco") == list(TASKS["coco"].comparison.differences)


@pytest.mark.parametrize(
    ("protocol", "scored", "said"),
    [
        ({}, {"is_subset": True, "num_queries": 1000}, "1,000 queries instead of 5,000"),
        ({}, {"is_published_split": False, "split": "val"}, "split val, not that of the papers"),
        ({"selection": "fixed"}, {}, "one set of demonstrations for all queries, not one for each"),
        ({"support_size": 100}, {}, "demonstrations from 100 examples, not 2,048"),
        ({"balanced": True}, {}, "`balanced` is True, there False"),
        (
            {"selection": "rices", "rices_clip": "openai/clip-vit-large-patch14"},
            {},
            "nearest of 2,048 examples, not of the whole training set",
        ),
        (
            {"selection": "rices", "is_support_subset": False},
            {},
            "images compared by the model's own vision encoder, not by CLIP ViT-L/14 (`rices_clip`)",
        ),
        (
            {
                "selection": "rices",
                "is_support_subset": False,
                "rices_clip": "openai/clip-vit-large-patch14",
                "rices_faiss": "HNSW32",
            },
            {},
            "nearest images found by HNSW32 of faiss, which may be approximate",
        ),
    ],
)
def test_each_setting_that_differs_is_said(protocol, scored, said):
    assert differences("textvqa", scored, **protocol) == [said]


def test_their_rices_is_not_said():
    settings = {"selection": "rices", "is_support_subset": False, "rices_clip": "openai/clip-vit-large-patch14"}
    assert differences("textvqa", **settings) == []


def test_hateful_memes_were_scored_in_6_orders_and_unbalanced():
    facts = list(TASKS["hateful_memes"].comparison.differences)
    assert differences("hateful_memes", num_orders=6) == facts
    said = differences("hateful_memes", balanced=True)
    assert said == ["`balanced` is True, there False", "`num_orders` is 1, there 6", *facts]
    assert "its published 0-shot scores are of that fault" in facts[0]


def test_a_plot_says_what_the_verdict_is():
    protocol = {"selection": "random", "support_size": 2048}
    summary = {"task": "vqav2", "num_queries": 5, "results": [{"scores": {"0": {}}}], "protocol": protocol}
    title = plot_title({**summary, "comparable": "with care: another split"}, has_published=True)
    assert title.endswith("\ncomparable with the published scores: with care: another split")
    assert "comparable" not in plot_title({**summary, "comparable": "yes"}, has_published=True)
    assert "comparable" not in plot_title({**summary, "comparable": "with care"}, has_published=False)


def test_a_subset_is_not_comparable_whatever_the_task():
    scored = {"is_subset": True, "num_queries": 12, "num_available": 214354, "is_published_split": True}
    task = TASKS["vqav2"]
    assert judge_comparability(task, scored) == "no (subset)"
    assert judge_comparability(task, scored | {"is_subset": False}) == task.comparison.verdict
    assert (
        judge_comparability(task, scored | {"is_subset": False, "is_published_split": False}) == "no (another split)"
    )
    assert judge_comparability(TASKS["captioning"], scored) is None


def test_the_fields_of_a_task_are_described():
    for name, task in TASKS.items():
        assert all(text for _, _, text in task_fields(task)), name
        assert len(task_title(task)) > 20, name
    text = describe_task(TASKS["youcook2"])
    assert "youcookii_annotations_trainval.json" in text
    assert "raw_videos/{training,validation}/{recipe}/{id}.mp4" in text
    assert "num_frames (default: 8): Frames of each segment that are shown." in text
    assert "compared with Flamingo: with care" in text


def test_results_are_described_in_a_sentence():
    summary = {
        "task": "vqav2",
        "comparable": "with care: another split",
        "differences": ["split: x", "`balanced` is True"],
    }
    assert describe_comparability(summary) == (
        "vqav2: comparable with published scores: with care: another split. Not as there: split: x; `balanced` is True."
    )
    assert describe_comparability({**summary, "comparable": "yes", "differences": []}) == (
        "vqav2: comparable with published scores: yes."
    )
    assert describe_comparability({**summary, "comparable": None}) is None
    assert describe_comparability({"task": "results of before"}) is None
