# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Few shots: does a model learn a made-up word from the examples of its prompt?

The words of an episode are ranked by their likelihood after the prompt, to the end of the chunk. Beside it is the baseline without a
language model: the word of the shot that is nearest by mean features.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from episodes import Episode, draw_evaluation_episodes
from neighbors import mean_features
from pictures import read_rows

from transformers_flamingo.cards.plotting import ShotCurve, ShotPanel, plot_shots
from transformers_flamingo.few_shot.engine import FewShotEngine
from transformers_flamingo.few_shot.prompts import MediaItem, Prompt
from transformers_flamingo.processing_flamingo import FlamingoProcessor


WAYS, SHOTS = (2, 4, 8), (0, 1, 2, 4, 8, 16, 32)
NUM_EPISODES = 500
PLOT = "real-pictures-few-shots.png"


def make_prompt(
    episode: Episode, images: Sequence[str], processor: FlamingoProcessor, data: Path, space: str = " "
) -> Prompt:
    """
    Make the prompt of an episode, open for the word of the query.

    Args:
        episode ([`Episode`]): The episode.
        images (`Sequence[str]`): The paths of the pictures to show, one for each example: its own, or those of another episode.
        processor ([`FlamingoProcessor`]): The processor of the model.
        data (`Path`): The folder that the paths start from.
        space (`str`, *optional*, defaults to `" "`): What comes before each word.
    """
    texts = processor.few_shot_text([(1, space + example.word) for example in episode.shots])
    *shown, query = (MediaItem(image, str(data / image), f"The picture {image!r}") for image in images)
    return Prompt(*texts, prefix_media=tuple(shown), query_media=(query,))


def own_images(episode: Episode) -> list[str]:
    """Return the pictures of an episode, that of the query last."""
    return [example.image for example in episode.examples]


def pictures_of_others(episodes: Sequence[Episode]) -> list[list[str]]:
    """
    Return for each episode the pictures of the next one, which say nothing about its words.

    Raises:
        ValueError: there is only one episode.
    """
    if len(episodes) < 2:
        raise ValueError("Pictures can only be permuted among two or more episodes. Give more with `--episodes`.")
    images = [own_images(episode) for episode in episodes]
    return [*images[1:], images[0]]


def rank_words(
    engine: FewShotEngine,
    episodes: Sequence[Episode],
    images: Sequence[Sequence[str]],
    data: Path,
    space: str = " ",
) -> list[str]:
    """
    Return for each episode the word of it with the highest likelihood after the prompt, to the end of the chunk.

    Args:
        engine ([`FewShotEngine`]): The model. Each picture is encoded once.
        episodes (`Sequence[Episode]`): The episodes.
        images, data, space: As in [`make_prompt`], for each episode.
    """
    end = engine.processor.end_of_chunk_token
    prompts = [
        make_prompt(episode, shown, engine.processor, data, space)
        for episode, shown in zip(episodes, images, strict=True)
    ]
    candidates = [[space + word + end for word in episode.words] for episode in episodes]
    scores = engine.rank(prompts, candidates, length_normalized=False)
    return [
        episode.words[max(range(len(row)), key=row.__getitem__)]  # their order tells nothing, so a tie is a guess
        for row, episode in zip(scores, episodes, strict=True)
    ]


def nearest_accuracy(episodes: Sequence[Episode], features: Mapping[str, torch.Tensor]) -> float:
    """
    Return the accuracy of the word of the shot whose picture is most similar to that of the query, by the cosine.

    Where no shot is given, it is that of guessing.

    Args:
        episodes (`Sequence[Episode]`): The episodes.
        features (`Mapping[str, torch.Tensor]`): The features of each picture, of shape `(width,)`.
    """
    right = 0.0
    for episode in episodes:
        if not episode.shots:
            right += 1 / len(episode.words)
            continue
        keys = torch.stack([features[example.image] for example in episode.shots])
        similarity = torch.nn.functional.cosine_similarity(keys, features[episode.query.image][None], dim=1)
        right += episode.shots[int(similarity.argmax())].word == episode.query.word
    return right / len(episodes)


def standardized_features(engine: FewShotEngine, data: Path) -> dict[str, torch.Tensor]:
    """
    Compute the mean features of all pictures held out, standardized by those of the training drawings.

    Returns:
        `dict[str, torch.Tensor]`: The features of each picture, of shape `(width,)`.
    """
    held_out = [row["image"] for row in read_rows(data / "held_out.jsonl")]
    drawings = [row["image"] for row in read_rows(data / "train.jsonl") if row["view"] == 0]
    encoder, image_processor = engine.model.vision_model, engine.processor.image_processor
    shown, known = (
        mean_features(encoder, image_processor, [data / image for image in images]) for images in (held_out, drawings)
    )
    deviation = known.std(dim=0)
    shown = (shown - known.mean(dim=0)) / torch.where(deviation > 0, deviation, 1.0)
    return dict(zip(held_out, shown, strict=True))


def check_options(data: Path, ways: Sequence[int], shots: Sequence[int], count: int, test_house: str) -> None:
    """
    Check that all episodes can be drawn, before the first of them is answered.

    Args:
        data, ways, shots, count, test_house: As in [`measure_few_shots`].

    Raises:
        ValueError: there is only one episode, or as in [`draw_evaluation_episode`].
        FileNotFoundError: there are no things held out.
    """
    if count < 2:
        raise ValueError(f"`--episodes` is {count}. Pictures are permuted among episodes: at least 2.")
    if min(shots) < 0:
        raise ValueError(f"`--shots` has {min(shots)}. It is a number of examples before the query: at least 0.")
    for number in ways:
        for length in shots:
            draw_evaluation_episodes(data, number, length, 1, test_house)


def measure_few_shots(
    engine: FewShotEngine,
    data: Path,
    *,
    test_house: str,
    ways: Sequence[int] = WAYS,
    shots: Sequence[int] = SHOTS,
    count: int = NUM_EPISODES,
    space: str = " ",
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """
    Measure the accuracy for each number of words and of shots.

    Args:
        engine ([`FewShotEngine`]): The model. `shares_prefix=False` answers episodes together, which share no examples.
        data (`Path`): What `prepare.py` wrote.
        test_house (`str`): The house of the queries.
        ways, shots (`Sequence[int]`, *optional*): The numbers of words, and of examples before the query.
        count (`int`, *optional*): Episodes behind each figure.
        space (`str`, *optional*, defaults to `" "`): What comes before each word.

    Returns:
        `tuple[dict, list[dict]]`: `episodes`, `pictures_of_each_thing`, and `scores` with `ways`, `shots` and the accuracies
        `right`, `permuted` (with the pictures of another episode) and `neighbors`; and a row for each episode.
    """
    features = standardized_features(engine, data)
    scores, details = [], []
    for number in ways:
        for length in shots:
            episodes = draw_evaluation_episodes(data, number, length, count, test_house)
            truths = [episode.query.word for episode in episodes]
            score: dict[str, Any] = {"ways": number, "shots": length}
            answers = {}
            for kind, images in (
                ("right", list(map(own_images, episodes))),
                ("permuted", pictures_of_others(episodes)),
            ):
                answers[kind] = rank_words(engine, episodes, images, data, space)
                hits = [answer == truth for answer, truth in zip(answers[kind], truths, strict=True)]
                score[kind] = sum(hits) / len(hits)
            score["neighbors"] = nearest_accuracy(episodes, features)
            scores.append(score)
            details += [
                {
                    "ways": number,
                    "shots": length,
                    "words": [example.word for example in episode.examples],
                    "names": [example.name for example in episode.examples],
                    "images": own_images(episode),
                    "answer": answer,
                }
                for episode, answer in zip(episodes, answers["right"], strict=True)
            ]
    rows = [row for row in read_rows(data / "held_out.jsonl") if row["house"] != test_house]
    things = len({row["text"] for row in rows})
    return {
        "episodes": count,
        "things": things,
        "pictures_of_each_thing": len(rows) // things,
        "scores": scores,
    }, details


def plot_few_shots(path: Path, scores: Sequence[Mapping[str, Any]]) -> None:
    """Plot accuracy against the number of shots, one panel for each number of words."""
    curves = {
        "right": ("right pictures", "C0", "measured"),
        "permuted": ("pictures of another episode", "C0", "control"),
    }
    curves["neighbors"] = ("nearest shot by mean features", "C1", "published")
    panels = [
        ShotPanel(
            f"{ways} words",
            [
                ShotCurve(label, {s["shots"]: s[kind] for s in scores if s["ways"] == ways}, color, style)
                for kind, (label, color, style) in curves.items()
            ],
            chance=1 / ways,
        )
        for ways in dict.fromkeys(score["ways"] for score in scores)
    ]
    plot_shots(path, panels, "accuracy", limits=(0, 1.02))
