# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Test that prompts which share a part of their demonstrations have the answers that each has alone, and compute it once."""

import pytest
import torch
from factory import TEXT_CONFIGS, tiny_flamingo, tiny_processor
from hypothesis import given
from hypothesis import strategies as st
from words import draw_image

from transformers_flamingo.few_shot.batching import Row, batch_continued, batch_whole, find_trunks, make_rows
from transformers_flamingo.few_shot.engine import FewShotEngine
from transformers_flamingo.few_shot.examples import GenerationSettings
from transformers_flamingo.few_shot.prompts import MediaItem, Prompt
from transformers_flamingo.few_shot.shared_prefixes import can_align


# These drop tokens of a long text from the cache
SLIDING = ("gemma3",)
CANDIDATES = ["w20 w21", "w10 w11 w12", "w50", "w10 w13"]


def item(number: int) -> MediaItem:
    return MediaItem(number, draw_image(number))


def shot(number: int) -> str:
    return "<image>" + " ".join(f"w{20 + number * 3 + i}" for i in range(2 + number % 4)) + "<|endofchunk|>"


def prompt(shots: list[int], number: int, length: int, shows: bool = True) -> Prompt:
    """Return a query of `length` words after some demonstrations. Without `shows` it has no image and sees the last of these."""
    text = ("<image>" if shows else "") + " ".join(f"w{60 + (number + i) % 30}" for i in range(length))
    media = (item(100 + number),) if shows else ()
    return Prompt("".join(map(shot, shots)), text, tuple(map(item, shots)), media)


def nested(counts=(1, 2, 5), queries: int = 3, **kwargs) -> list[Prompt]:
    """Return prompts of each query with some of its own five demonstrations, always the first."""
    asked = []
    for number in range(queries):
        shots = [(number * 5 + i) % 13 for i in range(5)]
        asked += [prompt(shots[:count], number, 1 + number % 3, **kwargs) for count in counts]
    return asked


def engine(text: str = "gpt2", **kwargs) -> FewShotEngine:
    return FewShotEngine(tiny_flamingo(text=text, gates=0.7), tiny_processor(), **kwargs)


def watch_tokens(few_shots: FewShotEngine) -> list[tuple[int, ...]]:
    """Return a list that gets the shape of the tokens of each forward pass."""
    shapes: list[tuple[int, ...]] = []
    few_shots.model.language_model.register_forward_pre_hook(
        lambda module, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    return shapes


# Prompts with images of their own; with text alone, which sees an image that only the longest prefix has in its cache; a mix
ASKED = {
    "images": nested(),
    "text": nested(shows=False),
    "mixed": [
        *nested(queries=2),
        *nested(queries=2, shows=False),
        Prompt("w4 w5<|endofchunk|>", "w6"),
        Prompt("", "w7"),
    ],
}


# All families, and absolute, rotary and ALiBi positions more closely
CASES = [(text, "mixed", (3,)) for text in TEXT_CONFIGS]
CASES += [(text, kind, (1, 3)) for text in ("gpt2", "opt", "llama", "mpt") for kind in ("images", "text")]


@pytest.mark.parametrize(("text", "kind", "all_num_beams"), CASES)
def test_answers_are_those_of_each_prompt_alone(text, kind, all_num_beams):
    asked = ASKED[kind]
    together = engine(text, batch_size=3)
    alone = FewShotEngine(together.model, together.processor, batch_size=1, shares_prefix=False)
    candidates = [CANDIDATES[: 1 + index % 4] for index in range(len(asked))]
    expected = [alone.rank([one], [row])[0] for one, row in zip(asked, candidates, strict=True)]
    for got, row in zip(together.rank(asked, candidates), expected, strict=True):
        assert got == pytest.approx(row, abs=1e-4)
    for num_beams in all_num_beams:
        settings = GenerationSettings(max_new_tokens=3, num_beams=num_beams)
        texts = [alone.generate([one], settings)[0] for one in asked]
        assert together.generate(asked, settings) == texts
    assert len(set(texts)) > 1


@pytest.mark.parametrize("text", TEXT_CONFIGS)
def test_the_most_shots_are_computed_once_for_fewer(text):
    few_shots = engine(text, batch_size=4)
    assert can_align(few_shots.model) == (text not in SLIDING)
    shapes = watch_tokens(few_shots)
    asked = nested(queries=2)
    few_shots.rank(asked, [["w10"]] * len(asked))
    lengths = [len(ids) for ids in few_shots._token_ids([one.text for one in asked])]
    if text in SLIDING:  # nothing to share: each text whole
        assert sum(rows * tokens for rows, tokens in shapes) >= sum(lengths)
        return
    trunks = [len(ids) for ids in few_shots._token_ids([one.prefix for one in asked])][2::3]
    assert shapes[0] == (2, max(trunks))
    # The queries have an image and 1 or 2 words
    assert sorted(shapes[1:]) in ([(2, 3), (4, 3)], [(2, 2), (4, 3)])
    assert few_shots.num_encoded == len({one.key for each in asked for one in each.media})


@pytest.mark.parametrize("num_beams", [1, 3])
def test_a_query_is_computed_once_for_all_its_beams(num_beams):
    few_shots = engine(batch_size=8)
    shapes = watch_tokens(few_shots)
    asked = [prompt([1, 2, 3], number, 2) for number in range(4)]
    few_shots.generate(asked, GenerationSettings(max_new_tokens=2, num_beams=num_beams, extra={"min_new_tokens": 2}))
    assert shapes[1:] == [(4, 3), (4 * num_beams, 1)]


def test_one_prefix_is_kept_for_the_next_call_and_serves_fewer_shots():
    few_shots = engine(batch_size=2)
    shapes = watch_tokens(few_shots)
    few_shots.rank([prompt([1, 2, 3], 0, 2)], [["w10"]])
    assert len(shapes) == 2
    few_shots.rank([prompt([1, 2], 1, 2), prompt([1, 2, 3], 2, 2)], [["w10"]] * 2)
    assert len(shapes) == 3
    few_shots.rank([prompt([1, 2, 3, 4], 3, 2)], [["w10"]])
    assert len(shapes) == 5
    # More prefixes than are computed together are not kept: each query of a random protocol has its own
    few_shots.rank(nested(queries=3), [["w10"]] * 9)
    assert few_shots._kept is None


def test_prompts_with_a_prefix_of_their_own_are_computed_whole():
    few_shots = engine(batch_size=4)
    shapes = watch_tokens(few_shots)
    few_shots.rank([prompt([n], n, 2) for n in range(4)], [["w10"]] * 4)
    assert len(shapes) == 1


def test_padding_of_unequal_queries_is_not_computed_between_prefix_and_query():
    rows = [Row(i, [0] * (20 + n), ("p", ()), 20, 4) for i, n in enumerate([2, 9, 3, 4, 6])]
    batches = [([row.num_new for row in batch], width) for batch, width in batch_continued(rows, 8)]
    # At most 4 tokens see the last image of the prefix, so a query of 2 tokens computes 6 at most
    assert batches == [([2, 3, 4, 6], 6), ([9], 9)]
    equal = [([row.num_new for row in batch], width) for batch, width in batch_continued(rows, 8, aligns=False)]
    assert equal == [([n], n) for n in (2, 3, 4, 6, 9)]


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=20), size=st.integers(1, 4), pads=st.booleans())
def test_batches_have_each_row_once(lengths, size, pads):
    rows = [Row(i, [0] * (n + 10), ("p" * (n % 2 + 1), ()), 10 - n % 3, 3) for i, n in enumerate(lengths)]
    for batches in (
        list(batch_whole(rows, size, pads=pads)),
        [batch for batch, _ in batch_continued(rows, size, aligns=pads)],
    ):
        assert sorted(row.index for batch in batches for row in batch) == list(range(len(rows)))
        assert max(map(len, batches)) <= size
    for batch, width in batch_continued(rows, size):
        assert all(row.num_new <= width <= row.num_new + row.num_after_marker for row in batch)


def test_trunks():
    one, two, three = item(1), item(2), item(3)
    a, ab, abc = ("a", (one,)), ("ab", (one, two)), ("abc", (one, two, three))
    other_image, other_text, other_begin = ("ab", (three, two)), ("b", ()), ("abd", (two,))
    found = find_trunks([ab, a, other_begin, abc, other_text, other_image, a])
    assert {key: trunk for key, trunk in found.items() if key != trunk} == {a: abc, ab: abc}
    # Either of two continuations
    assert find_trunks([a, ab, ("ab", (one, three))])[a] in (ab, ("ab", (one, three)))


def test_a_tokenizer_that_merges_the_query_into_the_prefix_shares_nothing():
    words = {"x": 1, "y": 2, "xy": 3}

    def tokenize(texts):
        return [[words[text]] if text in words else [9, *(words[c] for c in text)] for text in texts]

    merged, apart = Prompt("x", "y"), Prompt("x", "xx")
    assert make_rows([merged], tokenize, [98]) == [Row(0, [3])]
    assert make_rows([apart], tokenize, [98])[0].trunk is None  # [1] is not the beginning of [9, 1, 1, 1]


def test_a_prompt_may_end_with_its_prefix():
    few_shots = engine(batch_size=2)
    asked = [Prompt(shot(1) + shot(2), "", (item(1), item(2))), Prompt(shot(1) + shot(2), "w4", (item(1), item(2)))]
    alone = FewShotEngine(few_shots.model, few_shots.processor, shares_prefix=False)
    expected = [alone.rank([one], [["w10", "w11"]])[0] for one in asked]
    for got, row in zip(few_shots.rank(asked, [["w10", "w11"]] * 2), expected, strict=True):
        assert got == pytest.approx(row, abs=1e-4)


def test_positions_that_count_padding_have_batches_of_equal_lengths(monkeypatch):
    model = tiny_flamingo(gates=0.7)
    monkeypatch.setattr(model, "_counts_padding", True)
    few_shots = FewShotEngine(model, tiny_processor(), batch_size=4)
    asked = [*nested(queries=2), Prompt("", "w4"), Prompt("", "w4 w5"), Prompt("", "w5 w6")]
    alone = engine(batch_size=1, shares_prefix=False)
    expected = [alone.rank([one], [["w10", "w11"]])[0] for one in asked]
    for got, row in zip(few_shots.rank(asked, [["w10", "w11"]] * len(asked)), expected, strict=True):
        assert got == pytest.approx(row, abs=1e-4)


def test_few_kept_images_are_enough():
    asked = [*nested(queries=2), *nested(queries=2, shows=False)]
    candidates = [["w10", "w11"]] * len(asked)
    expected = engine(batch_size=3).rank(asked, candidates)
    for got, row in zip(engine(batch_size=3, max_cached_media=1).rank(asked, candidates), expected, strict=True):
        assert got == pytest.approx(row, abs=1e-5)


def test_the_kept_prefix_does_not_change():
    few_shots = engine(batch_size=4)
    few_shots.rank([prompt([1, 2, 3], 0, 2)], [["w10"]])
    kept = few_shots._kept
    before = [layer.keys.clone() for layer in kept.cache.layers]
    few_shots.generate([prompt([1, 2, 3][:n], n, n) for n in (1, 2, 3)], GenerationSettings(max_new_tokens=3))
    few_shots.rank([prompt([1, 2, 3][:n], n, n) for n in (1, 2, 3)], [CANDIDATES] * 3)
    assert few_shots._kept is kept
    assert all(torch.equal(layer.keys, states) for layer, states in zip(kept.cache.layers, before, strict=True))
