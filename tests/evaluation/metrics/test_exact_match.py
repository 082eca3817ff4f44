# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Test exact match, the F1 of words and the validity rate, on pairs."""

import pytest

from transformers_flamingo.evaluation.metrics import exact_match, validity_rate, word_f1


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


@pytest.mark.parametrize(
    ("prediction", "reference", "exact", "f1"),
    [
        ("A red circle.", "red circle", True, 1.0),
        ("red circle", "a blue circle", False, 0.5),
        ("", "red", False, 0.0),
        ("the", "", True, 1.0),
        ("red red", "red", False, 2 / 3),
    ],
)
def test_scores_of_words_as_squad_compares_them(prediction, reference, exact, f1):
    assert exact_match(prediction, reference, normalization="squad") is exact
    assert word_f1(prediction, reference) == pytest.approx(f1)


def test_the_normalizations_differ_in_articles_and_punctuation():
    assert [exact_match("the dog!", "dog", normalization=name) for name in ("case", "squad")] == [False, True]
    with pytest.raises(ValueError, match="`normalization` is 'vqa'. It can be case, squad"):
        exact_match("a", "a", normalization="vqa")


def test_validity_is_independent_of_being_right():
    assert validity_rate(["Yes.", "no", "maybe", ""], [["yes", "no"]] * 4) == 0.5
    assert validity_rate(["red", "blue"], [["red"], ["red"]]) == 0.5


def test_without_candidates_an_answer_must_say_something():
    assert validity_rate(["a dog", " ", "...", "7"]) == 0.5


@pytest.mark.parametrize(
    ("predictions", "candidates", "message"),
    [
        ([], None, "no predictions"),
        (["yes"], [["yes"], ["no"]], "There are 1 predictions and 2 lists of candidates"),
    ],
)
def test_validity_of_nothing_is_an_error(predictions, candidates, message):
    with pytest.raises(ValueError, match=message):
        validity_rate(predictions, candidates)
