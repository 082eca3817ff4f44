# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Episodes that bind new words to images (fast binding, Tsimpoukelli et al. 2021), in the paper's few-shot format:

    <image>dax<|endofchunk|><image>wug<|endofchunk|><image>     dax or wug?

Words and color-shape pairs of the three splits are disjoint. The language model has read all words, but a test word never
stood next to an image in training, and no picture of a test pair was ever trained on, not even by the vision tower.
"""

from typing import NamedTuple

import numpy as np
from PIL import Image

from transformers_flamingo.processing_flamingo import FlamingoProcessor

from .tokenizer import HELD_OUT_NONSENSE_WORDS, NONSENSE_WORDS
from .world import BACKGROUNDS, HELD_OUT_PAIRS, SEEN_PAIRS, SIZES, SingleScene, render


Pair = tuple[str, str]

SHOTS = (0, 1, 2, 4, 8, 16, 32)
# Where the examples of the query's word stand among the others.
ORDERS = ("first", "last")
CONTRASTS = ("pair", "color", "shape")
# Each color once, like the held-out pairs, and none of them.
VALIDATION_PAIRS = (
    ("red", "ring"),
    ("green", "bar"),
    ("blue", "cross"),
    ("yellow", "circle"),
    ("purple", "square"),
    ("orange", "triangle"),
    ("cyan", "bar"),
    ("white", "ring"),
)
PAIRS: dict[str, tuple[Pair, ...]] = {
    "train": tuple(pair for pair in SEEN_PAIRS if pair not in VALIDATION_PAIRS),
    "validation": VALIDATION_PAIRS,
    "test": HELD_OUT_PAIRS,
}
WORDS = {"train": NONSENSE_WORDS[:12], "validation": NONSENSE_WORDS[12:16], "test": HELD_OUT_NONSENSE_WORDS}
# Color and shape are learned by their own words, never together.
FIELDS = {"pair": 0, "color": 0, "shape": 1}
# At least one more than the shots: no picture comes twice in an episode.
_PICTURES_PER_PAIR = {"train": 80, "validation": 40, "test": 40}


class FewShotEpisode(NamedTuple):
    """An episode: the pair and the word of each picture, those of the query last, and the words to rank."""

    pairs: tuple[Pair, ...]
    words: tuple[str, ...]
    candidates: tuple[str, ...]


def sample_few_shot_episode(
    split: str, contrast: str, ways: int, shots: int, rng: np.random.Generator, balanced: bool = True
) -> FewShotEpisode:
    """
    Draw an episode. A way is one color-shape pair under one word; its pictures differ in all that remains.

    Args:
        split (`str`): `"train"`, `"validation"` or `"test"`: the split whose words and pairs are used.
        contrast (`str`):
            The difference between the ways. `"pair"`: the color, and mostly the shape too; all pairs are of the split.
            `"color"`: only the color, with one shape throughout. `"shape"`: only the shape. For the last two, the
            query's pair is of the split and the others are of the split or of `"train"`.
        ways, shots (`int`): Number of words, and of examples before the query.
        rng (`numpy.random.Generator`): Source of randomness.
        balanced (`bool`):
            Whether examples are spread over the ways as evenly as possible. Otherwise each is drawn independently, for
            training: nothing then follows from which word was shown less often.

    Raises:
        ValueError: `split` or `contrast` is unknown, or has fewer ways.
    """
    if split not in PAIRS or contrast not in CONTRASTS:
        raise ValueError(
            f"Unknown split {split!r} or contrast {contrast!r}: splits are {', '.join(PAIRS)}, contrasts "
            f"{', '.join(CONTRASTS)}."
        )
    split_pairs, field = PAIRS[split], FIELDS[contrast]
    query = split_pairs[rng.integers(len(split_pairs))]
    if contrast == "pair":
        others = [pair for pair in split_pairs if pair[0] != query[0]]
    else:
        known = dict.fromkeys((*split_pairs, *PAIRS["train"]))
        others = [pair for pair in known if pair[field] != query[field] and pair[1 - field] == query[1 - field]]
    # One pair of each color (or shape), by chance.
    others = list({others[i][field]: others[i] for i in rng.permutation(len(others))}.values())
    most = min(len(WORDS[split]), len(others) + 1)
    if not 2 <= ways <= most:
        raise ValueError(f"Episodes of {split!r} by {contrast!r} have 2 to {most} ways, but `ways` is {ways}.")
    pairs = [query, *(others[i] for i in rng.permutation(len(others))[: ways - 1])]
    words = [str(word) for word in rng.choice(WORDS[split], size=ways, replace=False)]
    if balanced:
        shown = [*rng.permutation(np.resize(rng.permutation(ways), shots)), 0]
    else:
        shown = rng.integers(ways, size=shots + 1)
    return FewShotEpisode(
        tuple(pairs[way] for way in shown),
        tuple(words[way] for way in shown),
        tuple(words[i] for i in rng.permutation(ways)),
    )


def reorder(episode: FewShotEpisode, order: str) -> FewShotEpisode:
    """
    Move the examples of the query's word to the beginning or to the end, for what their place does.

    Args:
        episode ([`FewShotEpisode`]): The episode.
        order (`str`): `"first"` (`MMOO`: matching, others) or `"last"` (`OOMM`).

    Raises:
        ValueError: `order` is unknown.
    """
    if order not in ORDERS:
        raise ValueError(f"Unknown order {order!r}: the examples of the query's word stand {' or '.join(ORDERS)}.")
    *examples, query = zip(episode.pairs, episode.words, strict=True)
    examples.sort(key=lambda example: (example[1] == query[1]) is (order == "last"))
    pairs, words = zip(*examples, query, strict=True)
    return FewShotEpisode(pairs, words, episode.candidates)


def few_shot_prompt(episode: FewShotEpisode, processor: FlamingoProcessor) -> str:
    """Return the text of an episode, without the query's word."""
    return "".join(processor.few_shot_text([(1, word) for word in episode.words[:-1]]))


class PicturePool:
    """
    Pictures of single objects for one split: the same number of each of its pairs and of the training pairs.

    `images` are the pictures, and `sizes` says of each whether its object is small or large.

    Args:
        split (`str`): The split. Splits do not share pictures.
        seed (`int`): Seed of the pictures.
        per_pair (`int`, *optional*): Pictures of each pair.
    """

    def __init__(self, split: str, seed: int, per_pair: int | None = None):
        rng = np.random.default_rng([seed, list(PAIRS).index(split)])
        self.per_pair = per_pair or _PICTURES_PER_PAIR[split]
        self._first: dict[Pair, int] = {}
        self.images: list[Image.Image] = []
        self.sizes: list[str] = []
        for color, shape in dict.fromkeys((*PAIRS[split], *PAIRS["train"])):
            self._first[color, shape] = len(self.images)
            for _ in range(self.per_pair):
                scene = SingleScene(color, shape, str(rng.choice(SIZES)), str(rng.choice(BACKGROUNDS)))
                self.images.append(render(scene, rng))
                self.sizes.append(scene.size)

    def draw(self, pairs: tuple[Pair, ...], rng: np.random.Generator) -> list[int]:
        """Draw a different picture for each of these pairs, and return their indices in `images`."""
        numbers = rng.choice(self.per_pair, size=len(pairs), replace=False)
        return [self._first[pair] + int(number) for pair, number in zip(pairs, numbers, strict=True)]
