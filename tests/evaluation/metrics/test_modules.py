# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Test that each file loads with `evaluate.load(path)`, offline, and gives the score of the plain function."""

import importlib.util
import os
import subprocess
import sys

import pytest

from transformers_flamingo.evaluation import metrics
from transformers_flamingo.evaluation.metrics import metric_path


evaluate = pytest.importorskip("evaluate")

CAPTIONS = {"predictions": ["a red cat sits", "a dog"], "references": [["a red cat sits", "the cat"], ["dogs"]]}
ANSWERS = {"predictions": ["two", "cat"], "references": [["2"] * 4, ["cat", "dog", "dog", "dog"]]}
MATCHES = {"predictions": ["Two.", "cat"], "references": [["two"], ["dog"]]}
CASES = {
    "cider": (CAPTIONS, {"cider_d": sum(metrics.cider_d(**CAPTIONS)) / 2}),
    "bleu": (CAPTIONS, {"bleu": metrics.bleu(**CAPTIONS)}),
    "rouge_l": (CAPTIONS, {"rouge_l": 0.5}),
    "vqa_accuracy": (
        ANSWERS,
        {"vqa_accuracy": (1 + 1 / 4) / 2},
    ),  # second: left out themselves 0, left in 3 * 1/3, over 4
    "exact_match": (MATCHES, {"exact_match": 0.5}),
    "open_ended_match": (MATCHES, {"open_ended_match": 0.5}),
    "validity_rate": (MATCHES, {"validity_rate": 0.5}),
    "word_f1": ({"predictions": ["A red cat.", "dog"], "references": ["red dog", "dog"]}, {"word_f1": 0.75}),
    "roc_auc": ({"prediction_scores": [0.1, 0.9, 0.5], "references": [0, 1, 1]}, {"roc_auc": 1.0}),
}


@pytest.mark.parametrize("name", CASES)
def test_module_gives_the_score_of_the_function(name, tmp_path):
    inputs, expected = CASES[name]
    module = evaluate.load(str(metric_path(name)), cache_dir=str(tmp_path))
    assert module.compute(**inputs) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["exact_match", "open_ended_match", "rouge_l"])
def test_one_reference_need_not_be_a_list(name, tmp_path):
    module = evaluate.load(str(metric_path(name)), cache_dir=str(tmp_path))
    assert module.compute(predictions=["Two.", "cat"], references=["two", "dog"]) == {name: 0.5}


def test_bleu_takes_its_order(tmp_path):
    module = evaluate.load(str(metric_path("bleu")), cache_dir=str(tmp_path))
    assert module.compute(**CAPTIONS, max_order=1) == {"bleu": metrics.bleu(**CAPTIONS, max_order=1)}


def test_exact_match_takes_its_normalization(tmp_path):
    module = evaluate.load(str(metric_path("exact_match")), cache_dir=str(tmp_path))
    inputs = {"predictions": ["A cat!", "dog"], "references": ["cat", "dog"]}
    assert module.compute(**inputs) == {"exact_match": 0.5}
    assert module.compute(**inputs, normalization="squad") == {"exact_match": 1.0}


def test_plain_functions_do_without_evaluate(monkeypatch):
    monkeypatch.setitem(sys.modules, "evaluate", None)
    monkeypatch.delitem(sys.modules, "transformers_flamingo.evaluation.metrics.base")
    monkeypatch.setattr(metrics, "base", metrics.base)  # restored: the import below sets it
    spec = importlib.util.spec_from_file_location("alone", metric_path("exact_match"))
    alone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(alone)
    assert alone.exact_match("Yes.", "yes")
    assert not hasattr(alone.ExactMatch, "compute")


def test_all_metrics_are_tested_and_an_unknown_one_lists_them():
    with pytest.raises(ValueError, match="no metric 'meteor'") as error:
        metric_path("meteor")
    assert str(error.value).endswith(f"known metrics are {', '.join(sorted(CASES))}.")


def test_loads_in_a_new_process_with_an_empty_cache_and_no_network(tmp_path):
    program = """
import socket, sys
def refuse(*args, **kwargs): raise AssertionError("a metric reached for the network")
socket.socket.connect = refuse
import evaluate
module = evaluate.load(sys.argv[1])
print(module.compute(predictions=["red cat", "red dog"], references=[["red cat"], ["blue dog"]]))
"""
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    output = subprocess.run(
        [sys.executable, "-c", program, str(metric_path("cider"))],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert output.returncode == 0, output.stderr
    assert output.stdout.strip() == "{'cider_d': 3.125}"  # (5 + 1.25) / 2
