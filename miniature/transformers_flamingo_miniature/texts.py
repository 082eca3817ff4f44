# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Texts of the miniature world: captions, questions, and episodes that bind nonsense words to keys.

Their content is uniformly random, so that a model without an image can only guess.

- caption: `a small red circle on a striped background`
- question: `question: what color? answer: red`
- caption and question: `three blue bars. question: how many? answer: three`
- binding: `red dax. blue wug. red dax. blue wug.`
"""

from typing import NamedTuple

import numpy as np

from .tokenizer import NONSENSE_WORDS
from .world import (
    ALL_PAIRS,
    BACKGROUNDS,
    COLORS,
    COUNTS,
    DIRECTIONS,
    SCENE_KINDS,
    SHAPES,
    SIZES,
    CountScene,
    PairScene,
    Scene,
    SingleScene,
    VideoScene,
    answer_text,
    sample_scene,
)


TEXT_KINDS = ("caption", "question", "caption_question", "binding")
KEYS = {
    "color": COLORS,
    "shape": SHAPES,
    "pair": tuple(f"{color} {shape}" for color, shape in ALL_PAIRS),
}


class Episode(NamedTuple):
    """A text that binds nonsense words to keys.

    `pairs` are its (key, word) examples in order. A word is bound to one key throughout.
    """

    pairs: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        """Join the examples: `red dax. blue wug.`"""
        return " ".join(f"{key} {word}." for key, word in self.pairs)


def sample_episode(rng: np.random.Generator, keys: str = "color", ways: int = 2, examples: int = 8) -> Episode:
    """Bind `ways` random nonsense words to as many random keys and draw examples of these bindings.

    Args:
        rng (`numpy.random.Generator`): Source of randomness.
        keys (`str`): What words are bound to: `"color"`, `"shape"` or `"pair"` (a color and a shape).
        ways, examples (`int`): Number of bindings, and of examples.

    Raises:
        ValueError: `keys` is unknown.
    """
    if keys not in KEYS:
        raise ValueError(f"Unknown keys {keys!r}: an episode binds words to {', '.join(KEYS)}.")
    chosen = rng.choice(KEYS[keys], size=ways, replace=False)
    words = rng.choice(NONSENSE_WORDS, size=ways, replace=False)
    return Episode(tuple((str(chosen[i]), str(words[i])) for i in rng.integers(ways, size=examples)))


def sample_text(kind: str, rng: np.random.Generator) -> str:
    """Draw a random text.

    Args:
        kind (`str`): One of `TEXT_KINDS`.
        rng (`numpy.random.Generator`): Source of randomness.

    Raises:
        ValueError: `kind` is unknown.
    """
    if kind == "binding":
        keys = str(rng.choice(tuple(KEYS), p=(0.35, 0.35, 0.3)))
        return sample_episode(rng, keys, ways=int(rng.integers(2, 5)), examples=int(rng.integers(4, 13))).text
    if kind not in TEXT_KINDS:
        raise ValueError(f"Unknown kind of text {kind!r}: known kinds are {', '.join(TEXT_KINDS)}.")
    scene = sample_scene(str(rng.choice(SCENE_KINDS, p=(0.4, 0.25, 0.2, 0.15))), rng)
    if kind == "caption":
        return scene.caption
    asked = scene.questions[rng.integers(len(scene.questions))]
    text = answer_text(asked.question, asked.answer)
    return text if kind == "question" else f"{scene.caption}. {text}"


def all_captions() -> frozenset[str]:
    """Return every caption that the world can produce."""
    scenes: list[Scene] = []
    for color, shape in ALL_PAIRS:
        for background in BACKGROUNDS:
            scenes += [SingleScene(color, shape, size, background) for size in SIZES]
            scenes += [CountScene(color, shape, count, background) for count in COUNTS]
            scenes += [VideoScene(color, shape, direction, background) for direction in DIRECTIONS]
        scenes += [PairScene(color, shape, *other, BACKGROUNDS[0]) for other in ALL_PAIRS if other[1] != shape]
    return frozenset(scene.caption for scene in scenes)
