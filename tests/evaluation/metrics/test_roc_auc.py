# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Test ROC-AUC by hand and against the count of all pairs."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformers_flamingo.evaluation.metrics import roc_auc


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ([0.1, 0.2, 0.8, 0.9], [0, 0, 1, 1], 1.0),
        ([0.9, 0.8, 0.2, 0.1], [0, 0, 1, 1], 0.0),
        ([0.5, 0.5], [0, 1], 0.5),
        # Pairs (0.35, 0.1) right, (0.35, 0.4) wrong, (0.8, 0.1) and (0.8, 0.4) right: 3 of 4.
        ([0.1, 0.4, 0.35, 0.8], [0, 0, 1, 1], 0.75),
        # (0.4, 0.4) counts half, (0.4, 0.1) one: 1.5 of 2.
        ([0.1, 0.4, 0.4], [False, False, True], 0.75),
        ([-math.inf, math.inf], [0, 1], 1.0),
    ],
)
def test_by_hand(scores, labels, expected):
    assert roc_auc(scores, labels) == pytest.approx(expected)


EXAMPLES = st.lists(
    st.tuples(st.integers(-3, 3) | st.floats(allow_nan=False), st.booleans()), min_size=2, max_size=30
).filter(lambda rows: len({label for _, label in rows}) == 2)


@given(EXAMPLES)
def test_equals_the_count_of_all_pairs(rows):
    positive = [score for score, label in rows if label]
    negative = [score for score, label in rows if not label]
    won = sum((p > n) + 0.5 * (p == n) for p in positive for n in negative)
    scores, labels = zip(*rows, strict=True)
    assert roc_auc(scores, labels) == pytest.approx(won / len(positive) / len(negative))
    assert roc_auc(scores, [not label for label in labels]) == pytest.approx(1 - roc_auc(scores, labels))


@given(EXAMPLES, st.data())
def test_the_order_of_examples_does_not_matter(rows, data):
    shuffled = data.draw(st.permutations(rows))
    assert roc_auc(*zip(*shuffled, strict=True)) == pytest.approx(roc_auc(*zip(*rows, strict=True)))


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([0.1, 0.2], [1, 1], "both classes, not 2 positives and 0 negatives"),
        ([], [], "both classes"),
        ([0.1], [0, 1], r"shapes \(1,\) and \(2,\)"),
        ([0.1, math.nan], [0, 1], "Score 1 is NaN"),
        ([0.1, 0.2], [1, 2], r"must be 0 or 1, not \[2\]"),
    ],
)
def test_what_has_no_area_is_an_error(scores, labels, message):
    with pytest.raises(ValueError, match=message):
        roc_auc(scores, labels)
