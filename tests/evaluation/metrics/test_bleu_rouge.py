# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Test the inputs and options of the libraries that compute BLEU and ROUGE-L."""

import math

import pytest

from transformers_flamingo.evaluation.metrics import bleu, rouge_l


pytest.importorskip("sacrebleu")
pytest.importorskip("rouge_score")


def test_bleu_by_hand():
    # "a red cat sits" and "a red cat ran": 3 of 4 tokens, 2 of 3 pairs, 1 of 2 triples; equal length.
    assert bleu(["a red cat sits"], [["a red cat ran"]], max_order=3) == pytest.approx(
        (3 / 4 * 2 / 3 * 1 / 2) ** (1 / 3)
    )
    # Three tokens against five: all right, brevity penalty exp(1 - 5/3).
    assert bleu(["a red cat"], [["a red cat sits down"]], max_order=1) == pytest.approx(math.exp(1 - 5 / 3))


def test_bleu_counts_over_the_corpus_with_any_number_of_references():
    # 1-grams: "a cat" 2 of 2 by the second reference, "a dog" 1 of 2: 3 of 4, not the mean of two scores.
    # The same length is in the references of both, so there is no brevity penalty.
    assert bleu(["a cat", "a dog"], [["the bird sang", "a cat"], ["a fish"]], max_order=1) == pytest.approx(3 / 4)


def test_bleu_is_on_the_tokens_of_cider_and_reaches_one():
    assert bleu(["The man's dog runs, fast."], [["the man 's dog runs fast"]]) == 1
    assert bleu(["x y z w"], [["the man 's dog runs fast"]]) == 0


def test_bleu_without_references_is_an_error():
    with pytest.raises(ValueError, match="prediction 0 must be a list of captions"):
        bleu(["a"], [[]])


def test_rouge_l_takes_the_closest_reference():
    # Longest common subsequence "red cat", 2 of 3 and 2 of 4 tokens: F1 = 2 * 2 / (3 + 4).
    assert rouge_l("red big cat", "a red fat cat") == pytest.approx(4 / 7)
    assert rouge_l("red big cat", ["bird", "a red fat cat"]) == pytest.approx(4 / 7)
    assert rouge_l("Red cat.", ["red cat"]) == 1
