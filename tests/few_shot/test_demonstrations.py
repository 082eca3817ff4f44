# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Test the choice of demonstrations for a query, and the prompt that is built from them."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from factory import tiny_flamingo, tiny_processor
from hypothesis import given
from hypothesis import strategies as st
from transformers import CLIPConfig, CLIPModel
from words import RankedWords, Words, draw_image, example

from transformers_flamingo.data import VideoSegment
from transformers_flamingo.few_shot.demonstrations import Demonstrations, make_draw_keys, permute_demonstrations
from transformers_flamingo.few_shot.examples import Example
from transformers_flamingo.few_shot.prompts import build_prompt
from transformers_flamingo.few_shot.retrieval import ImageEmbedder


SUPPORT = [example(i) for i in range(100, 140)]


def ids(examples) -> list[str]:
    return [e.id for e in examples]


@given(seed=st.integers(0, 5), count=st.integers(0, 20), order=st.permutations(range(6)))
def test_random_demonstrations_depend_on_seed_and_query_alone(seed, count, order):
    queries = [example(i) for i in range(6)]
    first = Demonstrations(SUPPORT, seed=seed, support_size=20)
    again = Demonstrations(SUPPORT, seed=seed, support_size=20)
    expected = {query.id: ids(first.choose(query, count)) for query in queries}
    for index in order:
        assert ids(again.choose(queries[index], count)) == expected[queries[index].id]
    for chosen in expected.values():
        assert len(set(chosen)) == count
        assert set(chosen) <= set(ids(first.pool))
    assert len(first.pool) == 20
    if count > 10:
        assert len({tuple(chosen) for chosen in expected.values()}) == 6


def test_fixed_demonstrations_are_the_same_for_all_queries_and_others_for_another_seed():
    def of(seed: int, number: int) -> list[str]:
        return ids(Demonstrations(SUPPORT, selection="fixed", seed=seed).choose(example(number), 5))

    assert of(0, 1) == of(0, 2) != of(1, 1)


@pytest.mark.parametrize("selection", ["random", "fixed"])
@pytest.mark.parametrize("balanced", [False, True])
def test_fewer_demonstrations_are_the_first_of_more(selection, balanced):
    chooser = Demonstrations(SUPPORT, selection=selection, balanced=balanced)
    for number in range(4):
        most = ids(chooser.choose(example(number), 32))
        for count in (0, 1, 4, 8, 16, 31):
            assert ids(chooser.choose(example(number), count)) == most[:count]


def test_demonstrations_are_a_uniform_draw_in_random_order():
    # 3,000 queries, 6 examples in 2 groups, 4 shots: each example is at each place as often as at any other
    support = [example(i, group=f"g{i % 2}") for i in range(100, 106)]
    for balanced in (False, True):
        chooser = Demonstrations(support, balanced=balanced)
        places = Counter(
            (place, shown) for i in range(3000) for place, shown in enumerate(ids(chooser.choose(example(i), 4)))
        )
        assert len(places) == 4 * 6
        assert all(abs(number - 500) < 100 for number in places.values())  # 5 standard deviations
        orders = Counter(tuple(e.group for e in chooser.choose(example(i), 4)) for i in range(3000))
        assert len(orders) == (4 if balanced else 14)  # rounds of both groups; all but four of one group


def test_questions_about_one_image_have_the_same_demonstrations():
    def ask(number: int, image) -> Example:
        return Example(str(number), [image], "w4")

    drawn = draw_image(1)
    queries = [
        ask(0, "a.png"),
        ask(1, "b.png"),
        ask(2, Path("a.png")),
        ask(3, drawn),
        ask(4, drawn),
        Example("5", [], "w4"),
    ]
    queries += [ask(6, {"path": "b.png", "bytes": None}), ask(7, {"path": "b.png", "bytes": b"x"})]
    queries += [ask(8, VideoSegment("v.mp4", 0, 1)), ask(9, VideoSegment("v.mp4", 1, 2)), ask(10, ["a.png", "b.png"])]
    by_image = make_draw_keys(queries)
    assert by_image == {str(i): str(i) for i in range(11)} | {"2": "0", "6": "1"}
    assert make_draw_keys(queries, by="query") == {str(i): str(i) for i in range(11)}
    # The demonstrations of a query do not depend on the other queries that are asked
    assert make_draw_keys(queries[2:3], queries) == {"2": "0"}
    chooser = Demonstrations(SUPPORT, draw_keys=by_image)
    assert (
        ids(chooser.choose(queries[0], 8)) == ids(chooser.choose(queries[2], 8)) != ids(chooser.choose(queries[1], 8))
    )


@given(size=st.integers(1, 7), count=st.integers(1, 40))
def test_groups_of_queries_have_the_same_demonstrations(size, count):
    queries = [Example(str(i), [f"{i // 2}.png"], "w4") for i in range(count)]
    keys = make_draw_keys(queries, size=size)
    assert keys == {**make_draw_keys(queries[::-1], queries, size=size)}  # the order does not matter
    groups = Counter(keys.values())
    assert sum(number < size for number in groups.values()) <= 1  # the rest
    assert max(groups.values()) <= size + 1
    assert all(keys[str(i)] == keys[str(i + 1)] for i in range(0, count - 1, 2))  # an image is in one group


@pytest.mark.parametrize("selection", ["random", "fixed"])
def test_balanced_demonstrations(selection):
    chooser = Demonstrations(SUPPORT, selection=selection, balanced=True)
    for count in (3, 4, 6, 8):
        groups = Counter(e.group for e in chooser.choose(example(1), count))
        assert max(groups.values()) - min(groups.values()) <= 1
        assert len(groups) == 3
    # No group is always the one that comes first
    firsts = {Demonstrations(SUPPORT, balanced=True).choose(example(i), 1)[0].group for i in range(20)}
    assert firsts == {"g0", "g1", "g2"}


def test_rices_shows_the_most_similar_last():
    def embed(examples, kind):
        angles = np.array([int(e.id) for e in examples]) / 100
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)

    chooser = Demonstrations(SUPPORT, selection="rices", embed=embed)
    assert ids(chooser.choose(example(110), 4))[-1] == "110"
    assert ids(chooser.choose(example(97), 3)) == ["102", "101", "100"]
    balanced = Demonstrations(SUPPORT, selection="rices", embed=embed, balanced=True)
    assert ids(balanced.choose(example(97), 4)) == ["103", "102", "101", "100"]


def test_the_embedder_finds_the_same_image():
    embed = ImageEmbedder(tiny_flamingo(), tiny_processor(), batch_size=4)
    chooser = Demonstrations(SUPPORT, selection="rices", embed=embed)
    for number in (103, 120, 139):
        assert chooser.choose(example(number), 2)[-1].id == str(number)
    vectors = embed(SUPPORT[:2], "support")
    assert np.linalg.norm(vectors, axis=1) == pytest.approx([1, 1], abs=1e-5)
    frames = Example("v", [[draw_image(100), draw_image(101)]], "")
    expected = vectors.sum(axis=0)
    assert embed([frames], "query")[0] @ (expected / np.linalg.norm(expected)) == pytest.approx(1, abs=1e-3)
    with pytest.raises(ValueError, match="query 't' has no image"):
        embed([Example("t", [], "w4")], "query")


def test_the_prompt():
    processor = tiny_processor()
    shots = [example(100), example(101)]
    prompt = build_prompt(processor, example(1), shots, separator=Words.demonstration_separator)
    assert prompt.prefix == "<image>w4 w6w10 w22<|endofchunk|> <image>w4 w7w11 w23<|endofchunk|> "
    assert prompt.query == "<image>w4 w6"
    assert [item.key for item in prompt.media] == [("support", "100", 0), ("support", "101", 0), ("query", "1", 0)]
    text_only = build_prompt(
        processor, example(1), shots, text_only=True, separator=RankedWords.demonstration_separator
    )
    assert text_only.text == "w4 w6w10 w22<|endofchunk|>w4 w7w11 w23<|endofchunk|><image>w4 w6"
    assert len(text_only.prefix_media) == 0


def test_permutations_of_demonstrations():
    shown = [example(i) for i in range(4)]
    got = permute_demonstrations(shown, 6, seed=0)
    assert ids(got[0]) == ["0", "1", "2", "3"]
    assert len({tuple(ids(order)) for order in got}) == 6
    assert permute_demonstrations(shown, 6, seed=0) == got
    assert len(permute_demonstrations(shown[:2], 6, seed=0)) == 2
    assert permute_demonstrations([], 6, seed=0) == [[]]
    many = permute_demonstrations([example(i) for i in range(32)], 6, seed=1)
    assert len({tuple(ids(order)) for order in many}) == 6
    assert all(sorted(ids(order)) == sorted(ids(many[0])) for order in many)


def test_errors():
    with pytest.raises(ValueError, match="`selection` is 'best'"):
        Demonstrations(SUPPORT, selection="best")
    with pytest.raises(ValueError, match="needs `embed`"):
        Demonstrations(SUPPORT, selection="rices")
    with pytest.raises(ValueError, match="41 demonstrations are asked for, and the pool has 40"):
        Demonstrations(SUPPORT).choose(example(1), 41)
    with pytest.raises(ValueError, match="1 examples have no answer to show, such as '7'"):
        Demonstrations([example(7, answer=None)])
    with pytest.raises(ValueError, match="'7' has no group"):
        Demonstrations([example(7, group=None)], balanced=True)


def test_only_a_whole_model_of_two_towers_compares_images(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        ImageEmbedder(tiny_flamingo(), tiny_processor(), clip=str(tmp_path / "gone"))
    tiny_flamingo().save_pretrained(tmp_path / "flamingo")
    with pytest.raises(ValueError, match="of type 'flamingo', which cannot compare images"):
        ImageEmbedder(tiny_flamingo(), tiny_processor(), clip=str(tmp_path / "flamingo"))
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_hidden_layers": 1}
    config = CLIPConfig(
        text_config={**sizes, "vocab_size": 9},
        vision_config={**sizes, "image_size": 8, "patch_size": 4},
        projection_dim=4,
    )
    clip = CLIPModel(config)
    state = {name: tensor for name, tensor in clip.state_dict().items() if name != "visual_projection.weight"}
    clip.save_pretrained(tmp_path / "clip", state_dict=state)
    with pytest.raises(ValueError, match="lacks 1 weights, such as visual_projection.weight"):
        ImageEmbedder(tiny_flamingo(), tiny_processor(), clip=str(tmp_path / "clip"))
