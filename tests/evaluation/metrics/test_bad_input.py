# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Test that no predictions, values that are not texts and lists that do not match are clear errors instead of scores."""

import pytest

from transformers_flamingo.evaluation import metrics
from transformers_flamingo.evaluation.metrics import metric_path


TEXTS = {
    "exact_match": metrics.exact_match,
    "open_ended_match": metrics.open_ended_match,
    "rouge_l": metrics.rouge_l,
    "vqa_accuracy": metrics.vqa_accuracy,
}


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(
    ("prediction", "references"),
    [
        (None, ["a"] * 4),
        (3, ["a"] * 4),
        (["a"], ["a"] * 4),
        ("a", []),
        ("a", None),
        ("a", 3),
        ("a", ["a", None, "a", "a"]),
    ],
)
def test_one_prediction(name, prediction, references):
    with pytest.raises(ValueError, match="must be a|at least 4 answers"):
        TEXTS[name](prediction, references)


@pytest.mark.parametrize(("prediction", "reference"), [(None, "a"), ("a", None), ("a", ["a"])])
def test_word_f1(prediction, reference):
    with pytest.raises(ValueError, match="must be a text"):
        metrics.word_f1(prediction, reference)


@pytest.mark.parametrize("metric", [metrics.cider_d, metrics.bleu])
@pytest.mark.parametrize(
    ("predictions", "references"),
    [
        ([], []),
        (["a"], []),
        (["a"], [["a"], ["b"]]),
        ([None], [["a"]]),
        (["a"], [[]]),
        (["a"], ["a"]),
        (["a"], [[None]]),
    ],
)
def test_captions(metric, predictions, references):
    with pytest.raises(ValueError, match="list of references|must be a|list of captions"):
        metric(predictions, references)


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        ([], []),
        ([0.1], [1, 0]),
        ([0.1, None], [1, 0]),
        ([0.1, "x"], [1, 0]),
        ([0.1, 0.2], [1, 1]),
        ([0.1, 0.2], [2, 0]),
    ],
)
def test_roc_auc(scores, labels):
    with pytest.raises(ValueError, match="ROC-AUC|NaN|Labels"):
        metrics.roc_auc(scores, labels)


@pytest.mark.parametrize(
    ("predictions", "candidates"), [([], None), ([None], None), (["a"], []), (["a"], [[]]), (["a"], [["a"], ["b"]])]
)
def test_validity_rate(predictions, candidates):
    with pytest.raises(ValueError, match="undefined|must be a|lists of candidates"):
        metrics.validity_rate(predictions, candidates)


def test_bleu_of_no_order():
    with pytest.raises(ValueError, match="`max_order` is 0"):
        metrics.bleu(["a"], [["a"]], max_order=0)


@pytest.mark.parametrize("name", [*TEXTS, "cider", "bleu", "validity_rate", "word_f1"])
def test_a_module_of_nothing(name, tmp_path):
    evaluate = pytest.importorskip("evaluate")
    module = evaluate.load(str(metric_path(name)), cache_dir=str(tmp_path))
    with pytest.raises(ValueError, match="prediction"):
        module._compute([], [])  # `compute` of `evaluate` looks at the first item of some
