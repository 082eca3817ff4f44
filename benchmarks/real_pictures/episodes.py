# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Episodes: made-up words for things, to be learned from the examples of a prompt.

    <image> dafig<|endofchunk|><image> wuzop<|endofchunk|><image> wuzop<|endofchunk|>

`prepare.py` writes those to train on. To draw others for a folder that is prepared already:

    python benchmarks/real_pictures/episodes.py real-pictures --episodes 20000 --lookups 6000

- Training words and test words have no word in common, and none is a word of a name.
- Training episodes are about the things of `train.jsonl`, in drawings and augmented views of the training houses. Some of them begin with
  examples in words (` red apple dafig<|endofchunk|>`), and in a *look-up* all examples are in words and only the last one has an image: from
  there a model can learn what to match an image with.
- Evaluation episodes are about things that no house shows in training. Their shots are of the training houses, and the query is of the
  test house.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pictures import TEST_HOUSE, read_rows, write_rows


ONSETS, VOWELS, ENDS = "bdfgklmnprstvwz", "aeiou", "bfgkpvxz"
NUM_TEST_WORDS, NUM_TRAINING_WORDS = 400, 2000

MAX_WAYS, MAX_SHOTS = 8, 16
NUM_EPISODES, NUM_LOOKUPS = 20_000, 6_000
# Of the training episodes that are not look-ups, those that begin with examples in words
DESCRIBED_SHARE = 0.3


@dataclass(frozen=True)
class Example:
    """
    A picture of a thing under a made-up word.

    Args:
        word (`str`): The word.
        name (`str`): The name of the thing.
        image (`str`): The path of the picture in the prepared folder.
    """

    word: str
    name: str
    image: str


@dataclass(frozen=True)
class Episode:
    """
    Examples in their order, the last of which is the query.

    Args:
        examples (`tuple[Example, ...]`): The examples.
        words (`tuple[str, ...]`): All words of the episode, in an order that tells nothing. Some may not be shown.
    """

    examples: tuple[Example, ...]
    words: tuple[str, ...]

    @property
    def query(self) -> Example:
        """Return the last example, whose word is asked for."""
        return self.examples[-1]

    @property
    def shots(self) -> tuple[Example, ...]:
        """Return the examples before the query."""
        return self.examples[:-1]


@dataclass(frozen=True)
class Words:
    """Made-up words: those to train on, and those to test with."""

    train: tuple[str, ...]
    test: tuple[str, ...]


def make_words(names: Sequence[str]) -> Words:
    """
    Make up words of two syllables. They are the same on each call, but for those that are words of names, which are left out.

    Args:
        names (`Sequence[str]`): The names of all things.
    """
    number = len(ONSETS) ** 2 * len(VOWELS) ** 2 * len(ENDS)
    # Its stream is fixed by NumPy for good, that of `default_rng` is not
    order = np.random.RandomState(0).permutation(number)[: NUM_TEST_WORDS + NUM_TRAINING_WORDS]
    shape = (len(ONSETS), len(VOWELS), len(ONSETS), len(VOWELS), len(ENDS))
    letters = (ONSETS, VOWELS, ONSETS, VOWELS, ENDS)
    words = [
        "".join(part[index] for part, index in zip(letters, indices, strict=True))
        for indices in zip(*np.unravel_index(order, shape), strict=True)
    ]
    real = {word for name in names for word in name.casefold().replace("-", " ").split()}
    test, train = words[:NUM_TEST_WORDS], words[NUM_TEST_WORDS:]
    return Words(*(tuple(word for word in part if word not in real) for part in (train, test)))


def pictures_by_name(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Group rows of captions by their name, in the order of the rows."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["text"], []).append(row)
    return groups


def order_pictures(rows: Sequence[Mapping[str, Any]], rng: np.random.RandomState, drawings_first: bool) -> list[str]:
    """
    Shuffle the pictures of a thing so that one house follows after another, as far as they last.

    Args:
        rows (`Sequence[Mapping]`): Rows of captions of one thing.
        rng (`np.random.RandomState`): Source of randomness.
        drawings_first (`bool`): Whether the drawings themselves come before all augmented views.

    Returns:
        `list[str]`: The paths of the pictures.
    """
    shuffled = [rows[index] for index in rng.permutation(len(rows))]
    houses = {house: turn for turn, house in enumerate(dict.fromkeys(row["house"] for row in shuffled))}
    counts = dict.fromkeys(houses, 0)
    keys = []
    if drawings_first:
        shuffled.sort(key=lambda row: row["view"] > 0)
    for row in shuffled:
        keys.append((drawings_first and row["view"] > 0, counts[row["house"]], houses[row["house"]]))
        counts[row["house"]] += 1
    return [shuffled[index]["image"] for index in sorted(range(len(keys)), key=keys.__getitem__)]


def draw_training_episode(
    things: Mapping[str, Sequence[Mapping[str, Any]]],
    words: Sequence[str],
    rng: np.random.RandomState,
    *,
    max_ways: int = MAX_WAYS,
    max_shots: int = MAX_SHOTS,
) -> Episode:
    """
    Draw an episode to train on: 2 to `max_ways` things, and 2 to `max_shots` examples before the last one.

    The thing of each example is drawn independently, so nothing follows from which word was shown less often. Each example
    has another picture. The last example is of a thing that was shown before.

    Args:
        things (`Mapping[str, Sequence[Mapping]]`): What [`pictures_by_name`] returns.
        words (`Sequence[str]`): The words to draw from.
        rng (`np.random.RandomState`): Source of randomness.
        max_ways, max_shots (`int`, *optional*): The most things, and the most examples before the last one.

    Raises:
        ValueError: there are fewer than two things or words, the maxima are below 2, or things have too few pictures.
    """
    names = list(things)
    most = min(max_ways, len(names), len(words))
    if most < 2 or max_shots < 2:
        raise ValueError(
            f"An episode needs at least 2 things, words and shots, but there are {len(names)} things and {len(words)} words, "
            f"`max_ways` is {max_ways} and `max_shots` is {max_shots}. Give more of what is below 2."
        )
    ways = rng.randint(2, most + 1)
    chosen = [names[index] for index in rng.choice(len(names), size=ways, replace=False)]
    spoken = [words[index] for index in rng.choice(len(words), size=ways, replace=False)]
    left = [order_pictures(things[name], rng, drawings_first=False) for name in chosen]
    if min(map(len, left)) < 2:
        raise ValueError("A thing has a single picture, so it cannot be shown and asked for. Give more pictures.")
    shown: list[int] = []
    examples = []
    for _ in range(rng.randint(2, max_shots + 1)):
        # One picture is kept for the query
        able = [way for way in range(ways) if len(left[way]) > 1]
        if not able:
            break
        shown.append(able[rng.randint(len(able))])
        examples.append(Example(spoken[shown[-1]], chosen[shown[-1]], left[shown[-1]].pop(0)))
    asked = shown[rng.randint(len(shown))]
    examples.append(Example(spoken[asked], chosen[asked], left[asked].pop(0)))
    return Episode(tuple(examples), tuple(spoken[way] for way in rng.permutation(ways)))


def draw_evaluation_episode(
    shots_of: Mapping[str, Sequence[Mapping[str, Any]]],
    queries_of: Mapping[str, Sequence[Mapping[str, Any]]],
    words: Sequence[str],
    ways: int,
    shots: int,
    rng: np.random.RandomState,
) -> Episode:
    """
    Draw an episode to measure with. The words are shown equally often, as far as possible, in a random order.

    A thing shows its drawings, one of each house, before its augmented views, and only after all of these a picture again.

    Args:
        shots_of, queries_of (`Mapping[str, Sequence[Mapping]]`): The pictures of the training houses and of the test
            house, as [`pictures_by_name`] returns them.
        words (`Sequence[str]`): The words to draw from.
        ways, shots (`int`): Number of words, and of examples before the query.
        rng (`np.random.RandomState`): Source of randomness.

    Raises:
        ValueError: there are fewer things or words than ways.
    """
    names = list(queries_of)
    if not 2 <= ways <= min(len(names), len(words)) or shots < 0:
        raise ValueError(
            f"An episode of {ways} ways and {shots} shots cannot be drawn from {len(names)} things and {len(words)} words: it needs at "
            "least 2 ways, as many things and words as ways, and 0 shots or more."
        )
    chosen = [names[index] for index in rng.choice(len(names), size=ways, replace=False)]
    spoken = [words[index] for index in rng.choice(len(words), size=ways, replace=False)]
    pictures = [order_pictures(shots_of[name], rng, drawings_first=True) for name in chosen]
    counts, examples = [0] * ways, []
    for way in rng.permutation(np.resize(rng.permutation(ways), shots)) if shots else ():
        image = pictures[way][counts[way] % len(pictures[way])]
        counts[way] += 1
        examples.append(Example(spoken[way], chosen[way], image))
    asked = rng.randint(ways)
    queries = queries_of[chosen[asked]]
    query = Example(spoken[asked], chosen[asked], queries[rng.randint(len(queries))]["image"])
    return Episode((*examples, query), tuple(spoken[way] for way in rng.permutation(ways)))


def draw_evaluation_episodes(
    data: Path, ways: int, shots: int, count: int, test_house: str = TEST_HOUSE
) -> list[Episode]:
    """
    Draw the evaluation episodes of a prepared folder. They are the same on each call.

    Args:
        data (`Path`): What `prepare.py` wrote.
        ways, shots (`int`): Number of words, and of examples before the query.
        count (`int`): Number of episodes.
        test_house (`str`, *optional*): The house of the queries.

    Raises:
        ValueError: as in [`draw_evaluation_episode`].
    """
    rows = read_rows(data / "held_out.jsonl")
    shots_of = pictures_by_name([row for row in rows if row["house"] != test_house])
    queries_of = pictures_by_name([row for row in rows if row["house"] == test_house])
    words = make_words(names_of(data)).test
    rng = np.random.RandomState([ways, shots])
    return [draw_evaluation_episode(shots_of, queries_of, words, ways, shots, rng) for _ in range(count)]


def names_of(data: Path) -> list[str]:
    """Return the names of all things of a prepared folder, of those held out, too."""
    rows = [row for name in ("train", "held_out") for row in read_rows(data / f"{name}.jsonl")]
    return list(dict.fromkeys(row["text"] for row in rows))


def message_row(episode: Episode, described: int = 0) -> dict[str, Any]:
    """
    Return an episode as a row of the format `messages`, whose text is that of a few-shot prompt with its answer.

    All words after the first image are supervised, also where a word appears for the first time and cannot be known: the
    format has no field for it, and the paper supervises them too.

    Args:
        episode ([`Episode`]): The episode.
        described (`int`, *optional*, defaults to 0): Number of examples, from the first one, with a name instead of an
            image. They are not supervised.
    """
    messages = []
    for index, example in enumerate(episode.examples):
        shown = {"type": "text", "text": example.name} if index < described else {"type": "image"}
        messages.append({"role": "user", "content": [shown]})
        messages.append({"role": "assistant", "content": [{"type": "text", "text": example.word}]})
    images = [example.image for example in episode.examples[described:]]
    return {"messages": messages, "images": images, "ways": len(episode.words), "described": described}


def check_numbers(num_episodes: int, num_lookups: int) -> None:
    """
    Check the options of `add_arguments`.

    Raises:
        ValueError: a number of rows is below 0.
    """
    for name, number in (("episodes", num_episodes), ("lookups", num_lookups)):
        if number < 0:
            raise ValueError(f"`--{name}` is {number}. It is a number of rows to write: at least 0.")


def write_episodes(
    data: Path,
    num_episodes: int = NUM_EPISODES,
    num_lookups: int = NUM_LOOKUPS,
    *,
    max_ways: int = MAX_WAYS,
    max_shots: int = MAX_SHOTS,
    described_share: float = DESCRIBED_SHARE,
) -> dict[str, int]:
    """
    Write `episodes_train.jsonl` and `lookups_train.jsonl` into a prepared folder.

    Args:
        data (`Path`): What `prepare.py` wrote.
        num_episodes, num_lookups (`int`, *optional*): Number of rows. Of fewer, the first ones are the same.
        max_ways, max_shots (`int`, *optional*): As in [`draw_training_episode`].
        described_share (`float`, *optional*): Share of the episodes that begin with examples in words.

    Returns:
        `dict[str, int]`: The number of rows of each file.

    Raises:
        ValueError: a number or the share is out of range, or as in [`draw_training_episode`].
    """
    check_numbers(num_episodes, num_lookups)
    if not 0 <= described_share <= 1:
        raise ValueError(f"`--described-share` is {described_share}. It is a share of the episodes: from 0 to 1.")
    things, words = pictures_by_name(read_rows(data / "train.jsonl")), make_words(names_of(data)).train
    rows: dict[str, list[dict[str, Any]]] = {"episodes_train": [], "lookups_train": []}
    for seed, (name, number) in enumerate(zip(rows, (num_episodes, num_lookups), strict=True)):
        rng = np.random.RandomState([seed])
        for _ in range(number):
            episode = draw_training_episode(things, words, rng, max_ways=max_ways, max_shots=max_shots)
            described, draw = rng.randint(1, len(episode.examples)), rng.random_sample()
            if name == "lookups_train":
                described = len(episode.shots)
            elif draw >= described_share:
                described = 0
            rows[name].append(message_row(episode, described))
    return {name: write_rows(data / f"{name}.jsonl", content) for name, content in rows.items()}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the numbers of rows to a command line."""
    parser.add_argument(
        "--episodes", type=int, default=NUM_EPISODES, help="episodes to train on (default: %(default)s)"
    )
    parser.add_argument(
        "--lookups", type=int, default=NUM_LOOKUPS, help="episodes with examples in words (default: %(default)s)"
    )


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that prepare.py wrote")
    add_arguments(parser)
    parser.add_argument(
        "--max-ways", type=int, default=MAX_WAYS, help="most words of an episode (default: %(default)s)"
    )
    parser.add_argument(
        "--max-shots", type=int, default=MAX_SHOTS, help="most examples before the last one (default: %(default)s)"
    )
    parser.add_argument(
        "--described-share",
        type=float,
        default=DESCRIBED_SHARE,
        help="share of the episodes that begin with examples in words (default: %(default)s)",
    )
    return parser


def main() -> None:
    """Write the episodes of a prepared folder."""
    parser = make_parser()
    arguments = parser.parse_args()
    options = {"max_ways": arguments.max_ways, "max_shots": arguments.max_shots}
    try:
        rows = write_episodes(
            arguments.data,
            arguments.episodes,
            arguments.lookups,
            described_share=arguments.described_share,
            **options,
        )
    except (ValueError, OSError) as error:
        parser.error(str(error))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
