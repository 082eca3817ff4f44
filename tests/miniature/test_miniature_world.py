# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The drawn world: words follow from scenes exactly, and a picture shows what its scene says."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from transformers_flamingo_miniature.world import (
    ALL_PAIRS,
    COLORS,
    HELD_OUT_PAIRS,
    IMAGE_SIZE,
    QUESTION_TOPICS,
    SCENE_KINDS,
    SEEN_PAIRS,
    SHAPES,
    VIDEO_FRAMES,
    CountScene,
    PairScene,
    SingleScene,
    VideoScene,
    answer_prompt,
    answer_text,
    is_held_out,
    render,
    render_video,
    sample_scene,
)


RED_CIRCLE = SingleScene("red", "circle", "small", "striped")


def pixels(scene, seed=0) -> np.ndarray:
    return np.asarray(render(scene, np.random.default_rng(seed))).astype(int)


@pytest.mark.parametrize(
    ("scene", "caption"),
    [
        (RED_CIRCLE, "a small red circle on a striped background"),
        (PairScene("red", "circle", "blue", "bar", "plain"), "a red circle left of a blue bar"),
        (PairScene("orange", "ring", "white", "cross", "plain"), "an orange ring left of a white cross"),
        (CountScene("red", "circle", 3, "plain"), "three red circles"),
        (CountScene("cyan", "cross", 2, "plain"), "two cyan crosses"),
        (CountScene("orange", "bar", 1, "plain"), "one orange bar"),
        (VideoScene("orange", "square", "up", "noisy"), "an orange square moves up"),
    ],
)
def test_caption(scene, caption):
    assert scene.caption == caption


def test_questions_of_each_kind():
    assert [tuple(question) for question in RED_CIRCLE.questions] == [
        ("color", "what color?", "red"),
        ("shape", "what shape?", "circle"),
        ("size", "what size?", "small"),
        ("background", "what background?", "striped"),
    ]
    assert [tuple(question) for question in PairScene("red", "circle", "blue", "bar", "plain").questions] == [
        ("position", "is the circle left or right of the bar?", "left"),
        ("position", "is the bar left or right of the circle?", "right"),
        ("color", "what color is the circle?", "red"),
        ("color", "what color is the bar?", "blue"),
    ]
    assert CountScene("red", "circle", 4, "plain").questions[0] == ("count", "how many?", "four")
    assert VideoScene("red", "circle", "up", "plain").questions[0] == ("direction", "which way does it move?", "up")


def test_answer_text():
    assert answer_prompt("what color?") == "question: what color? answer:"
    assert answer_text("what color?", "red") == "question: what color? answer: red"


@given(kind=st.sampled_from(SCENE_KINDS), seed=st.integers(0, 2**32))
@settings(max_examples=60)
def test_sampled_scenes(kind, seed):
    scene = sample_scene(kind, np.random.default_rng(seed), SEEN_PAIRS)
    assert scene == sample_scene(kind, np.random.default_rng(seed), SEEN_PAIRS)
    assert scene.kind == kind and not is_held_out(scene)
    assert {question.topic for question in scene.questions} <= set(QUESTION_TOPICS)
    for color, shape in scene.pairs:
        assert color in scene.caption.split() and any(word.startswith(shape) for word in scene.caption.split())


def test_held_out_pairs():
    assert len(HELD_OUT_PAIRS) == len(set(HELD_OUT_PAIRS)) == 8
    assert len(ALL_PAIRS) == 48 and set(SEEN_PAIRS) == set(ALL_PAIRS) - set(HELD_OUT_PAIRS)
    assert Counter(color for color, _ in HELD_OUT_PAIRS) == dict.fromkeys(COLORS, 1)
    assert {shape for _, shape in HELD_OUT_PAIRS} == set(SHAPES)
    assert is_held_out(SingleScene("red", "triangle", "small", "plain")) and not is_held_out(RED_CIRCLE)
    assert is_held_out(PairScene("red", "circle", "green", "ring", "plain"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replace(RED_CIRCLE, color="pink"), "Unknown color 'pink'.*red, green"),
        (lambda: replace(RED_CIRCLE, shape="star"), "Unknown shape 'star'"),
        (lambda: replace(RED_CIRCLE, size="huge"), "Unknown size 'huge'"),
        (lambda: CountScene("red", "circle", 5, "plain"), "Unknown count 5.*1, 2, 3, 4"),
        (lambda: VideoScene("red", "circle", "north", "plain"), "Unknown direction 'north'"),
        (lambda: PairScene("red", "circle", "blue", "circle", "plain"), "two shapes of a PairScene must differ"),
        (lambda: sample_scene("trio", np.random.default_rng(0)), "Unknown scene kind 'trio'"),
        (lambda: sample_scene("pair", np.random.default_rng(0), (("red", "bar"),)), "needs two different shapes"),
        (lambda: render(VideoScene("red", "bar", "up", "plain"), np.random.default_rng(0)), "use `render_video`"),
        (lambda: render_video(RED_CIRCLE, np.random.default_rng(0)), "use `render`"),
    ],
)
def test_wrong_input_is_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_picture_is_determined_by_scene_and_seed():
    image = render(RED_CIRCLE, np.random.default_rng(0))
    assert (image.mode, image.size) == ("RGB", (IMAGE_SIZE, IMAGE_SIZE))
    assert np.array_equal(pixels(RED_CIRCLE), pixels(RED_CIRCLE))
    assert not np.array_equal(pixels(RED_CIRCLE, seed=0), pixels(RED_CIRCLE, seed=1))


@pytest.mark.parametrize("change", [{"shape": "ring"}, {"color": "blue"}, {"size": "large"}, {"background": "plain"}])
def test_one_attribute_changes_only_its_part_of_the_picture(change):
    # A contrast set: everything that the words do not mention is equal, because the seed is.
    changed = np.abs(pixels(RED_CIRCLE) - pixels(replace(RED_CIRCLE, **change))).sum(-1) > 0
    is_object = np.abs(pixels(RED_CIRCLE) - pixels(replace(RED_CIRCLE, color="white"))).sum(-1) > 0
    assert changed.any()
    if "background" in change:
        assert changed[~is_object].mean() > 0.8
    elif "size" not in change:
        # Object and shadow of the other shape reach a little further than the circle.
        rows, columns = np.nonzero(changed)
        center = [axis.mean() for axis in np.nonzero(is_object)]
        assert np.hypot(rows - center[0], columns - center[1]).max() < 16


@pytest.mark.parametrize("color", COLORS)
def test_object_has_its_color(color):
    # The pixels in which "white" and "red" objects differ most lie inside the object: their mean is nearest to the
    # color in question.
    nominal = {name: pixels(SingleScene(name, "circle", "large", "plain"), seed=3) for name in COLORS}
    inside = np.abs(nominal["white"] - nominal["blue"]).sum(-1) > 120
    seen = pixels(SingleScene(color, "circle", "large", "noisy"), seed=4)
    at = (
        np.abs(
            pixels(SingleScene("white", "circle", "large", "noisy"), 4)
            - pixels(SingleScene("blue", "circle", "large", "noisy"), 4)
        ).sum(-1)
        > 120
    )
    distance = {name: np.abs(nominal[name][inside].mean(0) - seen[at].mean(0)).sum() for name in COLORS}
    assert min(distance, key=distance.get) == color


@given(count=st.integers(1, 4), shape=st.sampled_from(SHAPES), seed=st.integers(0, 2**32))
@settings(max_examples=25)
def test_counted_objects_never_touch(count, shape, seed):
    scene = CountScene("white", shape, count, "plain")
    mask = np.abs(pixels(scene, seed) - pixels(replace(scene, color="blue"), seed)).sum(-1) > 150
    assert _count_components(mask) == count


def _count_components(mask: np.ndarray) -> int:
    todo, components = {tuple(place) for place in np.argwhere(mask)}, 0
    while todo:
        components += 1
        stack = [todo.pop()]
        while stack:
            row, column = stack.pop()
            near = {(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & todo
            todo -= near
            stack += near
    return components


def test_pair_is_left_and_right():
    scene = PairScene("red", "circle", "blue", "bar", "plain")
    for seed in range(10):
        for field, half in (("left_color", np.s_[:, 33:]), ("right_color", np.s_[:, :31])):
            changed = np.abs(pixels(scene, seed) - pixels(replace(scene, **{field: "white"}), seed)).sum(-1)
            assert changed.any() and not changed[half].any()


@pytest.mark.parametrize(
    ("direction", "step"), [("left", (0, -9)), ("right", (0, 9)), ("up", (-9, 0)), ("down", (9, 0))]
)
def test_video_moves(direction, step):
    scene = VideoScene("white", "square", direction, "dotted")
    frames = render_video(scene, np.random.default_rng(0))
    others = render_video(replace(scene, color="blue"), np.random.default_rng(0))
    assert len(frames) == VIDEO_FRAMES
    centers = []
    for frame, other in zip(frames, others, strict=True):
        difference = np.abs(np.asarray(frame).astype(int) - np.asarray(other)).sum(-1)
        centers.append(np.argwhere(difference > 150).mean(0))
    assert np.allclose(np.diff(centers, axis=0), step, atol=0.6)
