# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Build datasets of the miniature world, with an image column.

Each row is one scene with its picture, its caption, its questions and the attributes that they follow from, so that the same rows
serve training on captions, training on questions, and exact measurement of every attribute.
"""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict, Features, Image, List, Value

from .world import (
    ALL_PAIRS,
    BACKGROUNDS,
    COUNTS,
    DIRECTIONS,
    HELD_OUT_PAIRS,
    SEEN_PAIRS,
    SIZES,
    CountScene,
    PairScene,
    Scene,
    SingleScene,
    VideoScene,
    render,
    render_video,
)


SPLITS = ("train", "validation", "test", "test_unseen")
DEFAULT_KINDS = {"single": 0.5, "count": 0.25, "pair": 0.25}

_WORDS = Value("string")
_QUESTIONS = List({"topic": _WORDS, "question": _WORDS, "answer": _WORDS})
# Attributes that a scene does not have are None. For a pair, `color` and `shape` are the left object's.
IMAGE_FEATURES = Features(
    {
        "image": Image(),
        "kind": _WORDS,
        "caption": _WORDS,
        "questions": _QUESTIONS,
        "color": _WORDS,
        "shape": _WORDS,
        "size": _WORDS,
        "background": _WORDS,
        "count": Value("int32"),
        "right_color": _WORDS,
        "right_shape": _WORDS,
    }
)
VIDEO_FEATURES = Features(
    {
        "frames": List(Image()),
        "kind": _WORDS,
        "caption": _WORDS,
        "questions": _QUESTIONS,
        "color": _WORDS,
        "shape": _WORDS,
        "background": _WORDS,
        "direction": _WORDS,
    }
)


def _endless(items: list[Any], rng: np.random.Generator) -> Iterator[Any]:
    """Yield all items in random order, then all again in another order, and so on: balanced over every prefix."""
    while True:
        for index in rng.permutation(len(items)):
            yield items[index]


def balanced_scenes(
    kind: str, size: int, rng: np.random.Generator, pairs: tuple[tuple[str, str], ...] = ALL_PAIRS
) -> list[Scene]:
    """
    Draw `size` scenes of one kind in which every combination of attributes occurs equally often, give or take one.

    In a pair scene this holds for the left object with the background; the right object is drawn from those of another
    shape.

    Args:
        kind (`str`): `"single"`, `"pair"`, `"count"` or `"video"`.
        size (`int`): Number of scenes.
        rng (`numpy.random.Generator`): The source of chance.
        pairs (`tuple`, *optional*, defaults to `ALL_PAIRS`): The color-shape pairs to choose from.

    Raises:
        ValueError: the kind is unknown, or a pair scene is asked for and all pairs have one shape.
    """
    third = {"single": SIZES, "count": COUNTS, "video": DIRECTIONS, "pair": (None,)}
    if kind not in third:
        raise ValueError(f"Unknown scene kind {kind!r}: the miniature world has {', '.join(third)}.")
    combinations = _endless(list(product(pairs, third[kind], BACKGROUNDS)), rng)
    scenes: list[Scene] = []
    for _, ((color, shape), value, background) in zip(range(size), combinations, strict=False):
        if kind == "pair":
            others = [pair for pair in pairs if pair[1] != shape]
            if not others:
                raise ValueError(f"A pair scene needs two different shapes, but every pair given is a {shape}.")
            scenes.append(PairScene(color, shape, *others[rng.integers(len(others))], background))
        else:
            scene_class = {"single": SingleScene, "count": CountScene, "video": VideoScene}[kind]
            scenes.append(scene_class(color, shape, value, background))
    return scenes


def _row(scene: Scene) -> dict[str, Any]:
    """Return a scene as a row, without its picture."""
    pair = isinstance(scene, PairScene)
    return {
        "kind": scene.kind,
        "caption": scene.caption,
        "questions": [question._asdict() for question in scene.questions],
        "color": scene.left_color if pair else scene.color,
        "shape": scene.left_shape if pair else scene.shape,
        "size": getattr(scene, "size", None),
        "background": scene.background,
        "count": getattr(scene, "count", None),
        "right_color": scene.right_color if pair else None,
        "right_shape": scene.right_shape if pair else None,
        "direction": getattr(scene, "direction", None),
    }


def _dataset(rows: list[dict[str, Any]], features: Features) -> Dataset:
    # Not `Dataset.from_generator`: its cache is keyed by the generator's arguments and would outlive a change of the
    # world. The pictures of a few thousand rows are only a few MB.
    return Dataset.from_dict({name: [row[name] for row in rows] for name in features}, features=features)


def _shares(size: int, kinds: Mapping[str, float]) -> dict[str, int]:
    """Split `size` among `kinds` in proportion to their weights; the remainder goes to the first ones."""
    total = sum(kinds.values())
    counts = {kind: int(size * weight / total) for kind, weight in kinds.items()}
    for kind in list(counts)[: size - sum(counts.values())]:
        counts[kind] += 1
    return counts


def _rng(seed: int, split: str, media: str) -> np.random.Generator:
    if split not in SPLITS:
        raise ValueError(f"Unknown split {split!r}: known splits are {', '.join(SPLITS)}.")
    # One stream per split and type of media: the test pictures stay the same when the training split grows.
    return np.random.default_rng([seed, SPLITS.index(split), ("image", "video").index(media)])


def _pairs_of(split: str) -> tuple[tuple[str, str], ...]:
    return HELD_OUT_PAIRS if split == "test_unseen" else SEEN_PAIRS


def build_image_split(split: str, size: int, *, seed: int = 0, kinds: Mapping[str, float] = DEFAULT_KINDS) -> Dataset:
    """
    Draw one split of still pictures.

    Args:
        split (`str`): One of `SPLITS`. Pictures of `"test_unseen"` show held-out color-shape pairs only, and pictures of all
            other splits show none of them.
        size (`int`): Number of rows.
        seed (`int`): Seed of the world; equal arguments give equal rows.
        kinds (`Mapping`): Share of each kind of scene: `"single"`, `"count"`, `"pair"`. Kinds are shuffled together.

    Returns:
        `datasets.Dataset` with the columns of `IMAGE_FEATURES`. One row reads

            {"image": <64x64 RGB>, "kind": "single", "caption": "a small red circle on a striped background",
             "questions": [{"topic": "color", "question": "what color?", "answer": "red"}, ...],
             "color": "red", "shape": "circle", "size": "small", "background": "striped",
             "count": None, "right_color": None, "right_shape": None}

    Raises:
        ValueError: an argument is unknown or out of range.
    """
    if size < 1:
        raise ValueError(f"A split needs at least one row: got {size=}.")
    unknown = set(kinds) - set(DEFAULT_KINDS)
    if unknown or not kinds or min(kinds.values()) < 0 or sum(kinds.values()) <= 0:
        raise ValueError(
            f"`kinds` gives the share of each kind of still scene ({', '.join(DEFAULT_KINDS)}), not all of them 0: "
            f"got {dict(kinds)}."
        )
    rng = _rng(seed, split, "image")
    scenes = [
        scene
        for kind, count in _shares(size, kinds).items()
        for scene in balanced_scenes(kind, count, rng, _pairs_of(split))
    ]
    rows = [_row(scenes[i]) | {"image": render(scenes[i], rng)} for i in rng.permutation(size)]
    return _dataset(rows, IMAGE_FEATURES)


def build_video_split(split: str, size: int, *, seed: int = 0) -> Dataset:
    """
    Draw one split of videos, each a list of frames in the column `frames`.

    Args:
        split (`str`): One of `SPLITS`, as in [`build_image_split`].
        size (`int`): Number of rows.
        seed (`int`): Seed of the world; equal arguments give equal rows.

    Returns:
        `datasets.Dataset` with the columns of `VIDEO_FEATURES`.
    """
    if size < 1:
        raise ValueError(f"A split needs at least one row: got {size=}.")
    rng = _rng(seed, split, "video")
    scenes = balanced_scenes("video", size, rng, _pairs_of(split))
    return _dataset([_row(scene) | {"frames": render_video(scene, rng)} for scene in scenes], VIDEO_FEATURES)


def build_image_dataset(
    *,
    train_size: int = 6000,
    validation_size: int = 500,
    test_size: int = 1000,
    seed: int = 0,
    kinds: Mapping[str, float] = DEFAULT_KINDS,
) -> DatasetDict:
    """
    Draw all splits of still pictures: train, validation, test (seen pairs) and test_unseen (held-out pairs).

    Args:
        train_size, validation_size, test_size (`int`): Numbers of rows; `test_size` is that of both test splits.
        seed (`int`): Seed of the world.
        kinds (`Mapping`): Share of each kind of scene, as in [`build_image_split`].
    """
    sizes = {"train": train_size, "validation": validation_size, "test": test_size, "test_unseen": test_size}
    return DatasetDict(
        {split: build_image_split(split, size, seed=seed, kinds=kinds) for split, size in sizes.items()}
    )


def build_video_dataset(
    *, train_size: int = 1000, validation_size: int = 100, test_size: int = 200, seed: int = 0
) -> DatasetDict:
    """
    Draw all splits of videos, as [`build_image_dataset`] does of pictures.

    Args:
        train_size, validation_size, test_size (`int`): Numbers of rows; `test_size` is that of both test splits.
        seed (`int`): Seed of the world.
    """
    sizes = {"train": train_size, "validation": validation_size, "test": test_size, "test_unseen": test_size}
    return DatasetDict({split: build_video_split(split, size, seed=seed) for split, size in sizes.items()})
