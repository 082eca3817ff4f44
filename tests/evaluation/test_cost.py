# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Test what is said of the cost of an evaluation: tokens and images before it starts, and the time that is left."""

import pytest
from factory import tiny_processor
from words import RankedWords, Words

from transformers_flamingo.evaluation import cost
from transformers_flamingo.evaluation.cost import (
    CostMeter,
    RunCost,
    describe_cost,
    estimate_images,
    estimate_tokens,
    format_time,
)
from transformers_flamingo.few_shot.demonstrations import Demonstrations


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59, "59 s"),
        (61, "1 min 1 s"),
        (3600, "1 h 0 min"),
        (12_345, "3 h 25 min"),
        (200_000, "2 days 7 h"),
    ],
)
def test_a_time_in_two_units(seconds, text):
    assert format_time(seconds) == text


def test_tokens_of_a_prompt():
    queries, support = Words().queries(), Words().support()
    pool, fixed = Demonstrations(support), Demonstrations(support, selection="fixed")
    # A query is `<image>w4 w5`, a demonstration `<image>w4 w5w10 w20<|endofchunk|> `, without its image at 0 shots; 3 tokens of 2 beams follow
    costs = [estimate_tokens(Words(), tiny_processor(), pool, queries, shots) for shots in (0, 2, 4)]
    assert costs == [3 + 2 * 4 + 6, 3 + 2 * 5 + 6, 3 + 4 * 5 + 6]
    assert estimate_tokens(Words(), tiny_processor(), fixed, queries, 4) == 3 + 6
    # Five queries share their demonstrations
    assert estimate_tokens(Words(), tiny_processor(), pool, queries, 4, 1, 1 / 5) == 3 + 4 + 6
    # Four candidates of 2, 1, 3 and 1 tokens, in each of 6 orders
    assert estimate_tokens(RankedWords(), tiny_processor(), pool, queries, 2, 6) == pytest.approx(6 * (3 + 2 * 5 + 7))


def test_images_are_encoded_once_if_they_are_kept():
    queries, pools = Words().queries(), {seed: Demonstrations(Words().support(), seed=seed) for seed in (0, 1)}
    assert estimate_images(queries, pools, [0, 2], max_cached=100) == 7 + 2 * 12
    assert estimate_images(queries, pools, [0, 2], max_cached=10) == 7 * 2 * 2 + 2 * 12
    fixed = {0: Demonstrations(Words().support(), selection="fixed")}
    assert estimate_images(queries, fixed, [0, 2], max_cached=100) == 7 + 2


def test_the_time_left_is_by_tokens_and_not_by_prompts(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(cost.time, "monotonic", lambda: now[0])
    costs = {"a": RunCost(10, 10.0), "b": RunCost(10, 90.0)}
    with CostMeter("words", costs, is_shown=False) as meter:
        assert meter.seconds_left() is None
        now[0] = 105.0
        meter.advance("a", 5)
        assert meter.seconds_left() == pytest.approx(5 * 950 / 50)
        now[0] = 110.0
        meter.advance("a", 5)
        assert meter.seconds_left() == pytest.approx(10 * 900 / 100)
        now[0] = 150.0
        meter.advance("b", 10)
        assert meter.seconds_left() == 0


def test_each_of_several_processes_answers_its_share(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(cost.time, "monotonic", lambda: now[0])
    with CostMeter("words", {"a": RunCost(9, 1.0)}, num_processes=2, is_shown=False) as meter:
        now[0] = 2.0
        meter.advance("a", 4)
        assert meter.done_tokens == 8
        meter.advance("a", 1)
        assert meter.done_tokens == 9


def test_a_cost_in_words():
    costs = [RunCost(1000, 25.4), RunCost(400, 140.0)]
    assert describe_cost("coco", [0, 4], [3], False, 1000, costs, 3048) == (
        "coco: 1,000 queries x 2 (shots 0, 4) x 1 (seeds 3) x 1 (no blind score) = 2,000 prompts, each about 25 to 140 tokens to compute; about "
        "3,048 images to encode. 600 of the prompts are answered already."
    )
