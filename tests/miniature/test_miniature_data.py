# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Data sets of the miniature world: deterministic, balanced, and nothing held out leaks into training."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from transformers_flamingo_miniature.data import (
    IMAGE_FEATURES,
    SPLITS,
    VIDEO_FEATURES,
    balanced_scenes,
    build_image_dataset,
    build_image_split,
    build_video_dataset,
)
from transformers_flamingo_miniature.world import HELD_OUT_PAIRS, NUMBER_WORDS, SEEN_PAIRS


@pytest.fixture(scope="module")
def dataset():
    return build_image_dataset(train_size=640, validation_size=40, test_size=80)


def shown_pairs(row):
    yield row["color"], row["shape"]
    if row["right_color"] is not None:
        yield row["right_color"], row["right_shape"]


def test_columns_and_sizes(dataset):
    assert {split: len(rows) for split, rows in dataset.items()} == {
        "train": 640,
        "validation": 40,
        "test": 80,
        "test_unseen": 80,
    }
    assert tuple(dataset) == SPLITS
    assert all(rows.features == IMAGE_FEATURES for rows in dataset.values())
    image = dataset["train"][0]["image"]
    assert isinstance(image, Image.Image) and image.size == (64, 64)


def test_held_out_pairs_are_in_the_unseen_split_only(dataset):
    for split, rows in dataset.items():
        allowed = HELD_OUT_PAIRS if split == "test_unseen" else SEEN_PAIRS
        assert all(pair in allowed for row in rows.remove_columns("image") for pair in shown_pairs(row)), split


def test_words_follow_from_attributes(dataset):
    for row in dataset["train"].remove_columns("image"):
        answers = {question["topic"]: question["answer"] for question in row["questions"]}
        if row["kind"] == "single":
            assert (
                row["caption"] == f"a {row['size']} {row['color']} {row['shape']} on a {row['background']} background"
            )
            assert answers == {key: row[key] for key in ("color", "shape", "size", "background")}
            assert row["count"] is None
        elif row["kind"] == "count":
            assert row["caption"].split()[:2] == [NUMBER_WORDS[row["count"]], row["color"]]
            assert answers == {"count": NUMBER_WORDS[row["count"]], "color": row["color"], "shape": row["shape"]}
            assert row["size"] is None
        else:
            assert f"{row['color']} {row['shape']} left of " in row["caption"]
            assert row["caption"].endswith(f" {row['right_color']} {row['right_shape']}")


def test_training_attributes_are_balanced(dataset):
    rows = dataset["train"].remove_columns("image").to_list()
    single = [row for row in rows if row["kind"] == "single"]
    # 320 = 40 seen pairs x 2 sizes x 4 backgrounds: every combination exactly once.
    assert len(single) == len({row["caption"] for row in single}) == 320
    counted = [row for row in rows if row["kind"] == "count"]
    assert Counter(row["kind"] for row in rows) == {"single": 320, "count": 160, "pair": 160}
    assert max(Counter((row["color"], row["shape"], row["count"], row["background"]) for row in counted).values()) == 1


def test_deterministic_and_independent_splits(dataset):
    again = build_image_split("test", 80)
    assert again.remove_columns("image").to_list() == dataset["test"].remove_columns("image").to_list()
    for first, second in zip(again["image"], dataset["test"]["image"], strict=True):
        assert np.array_equal(np.asarray(first), np.asarray(second))
    other = build_image_split("test", 80, seed=1)
    assert other["caption"] != again["caption"]
    pictures = {rows["image"][i].tobytes() for rows in dataset.values() for i in range(40)}
    assert len(pictures) == 4 * 40


def test_kinds_can_be_chosen():
    rows = build_image_split("train", 10, kinds={"single": 1.0, "pair": 2.0})
    assert Counter(rows["kind"]) == {"single": 4, "pair": 6}


@pytest.mark.parametrize("kind", ["single", "count", "pair", "video"])
def test_balanced_scenes_of_all_kinds(kind):
    scenes = balanced_scenes(kind, 200, np.random.default_rng(0), SEEN_PAIRS)
    counts = Counter(scene.pairs[0] for scene in scenes)
    assert len(scenes) == 200 and set(counts) == set(SEEN_PAIRS)


def test_videos():
    dataset = build_video_dataset(train_size=8, validation_size=2, test_size=4)
    assert dataset["train"].features == VIDEO_FEATURES
    row = dataset["train"][0]
    assert len(row["frames"]) == 4 and row["frames"][0].size == (64, 64)
    assert row["caption"].endswith(f"{row['color']} {row['shape']} moves {row['direction']}")
    assert all(
        (row["color"], row["shape"]) in HELD_OUT_PAIRS for row in dataset["test_unseen"].remove_columns("frames")
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: build_image_split("dev", 4), "Unknown split 'dev': known splits are train, validation"),
        (lambda: build_image_split("train", 0), "at least one row"),
        (lambda: build_image_split("train", 4, kinds={"video": 1.0}), "share of each kind of still scene"),
        (lambda: build_image_split("train", 4, kinds={"single": 0.0}), "not all of them 0"),
        (lambda: balanced_scenes("trio", 4, np.random.default_rng(0)), "Unknown scene kind 'trio'"),
    ],
)
def test_wrong_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
