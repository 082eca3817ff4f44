# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Exact match and the validity rate, on pairs."""

import pytest

from transformers_flamingo.evaluation.metrics import exact_match, validity_rate


@pytest.mark.parametrize(
    ("prediction", "references", "expected"),
    [
        ("yes", "yes", True),
        (" Yes. ", "yes", True),
        ("great  white\nshark", ["tench", "Great White Shark"], True),
        ("STRASSE", "straße", True),
        ("", "yes", False),
        ("A cat", "A", False),
        ("two", "2", False),
    ],
)
def test_exact_match(prediction, references, expected):
    assert exact_match(prediction, references) is expected


def test_validity_is_independent_of_being_right():
    assert validity_rate(["Yes.", "no", "maybe", ""], [["yes", "no"]] * 4) == 0.5
    assert validity_rate(["red", "blue"], [["red"], ["red"]]) == 0.5


def test_without_candidates_an_answer_must_say_something():
    assert validity_rate(["a dog", " ", "...", "7"]) == 0.5


@pytest.mark.parametrize(
    ("predictions", "candidates", "message"),
    [
        ([], None, "no predictions"),
        (["yes"], [["yes"], ["no"]], "1 predictions need as many lists of candidates, not 2"),
    ],
)
def test_validity_of_nothing_is_an_error(predictions, candidates, message):
    with pytest.raises(ValueError, match=message):
        validity_rate(predictions, candidates)
