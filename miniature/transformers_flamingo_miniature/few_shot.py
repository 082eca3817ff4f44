# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
`flamingo demo --few-shot`: a small Flamingo that learns new words from the examples in its prompt, with gates that started
at 0. Episodes are in [`few_shot_episodes`], the training is in [`few_shot_training`].
"""

import json
import math
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, set_seed

from transformers_flamingo.cards.plotting import ShotCurve, ShotPanel, plot_shots
from transformers_flamingo.cards.rendering import write_card
from transformers_flamingo.data.encoding import encode_images
from transformers_flamingo.modeling_flamingo import FlamingoModel
from transformers_flamingo.processing_flamingo import FlamingoProcessor
from transformers_flamingo.saving_flamingo import update_folder, write_json

from .backbones import check_seed, library_versions
from .evaluation import derangement
from .few_shot_episodes import (
    CONTRASTS,
    ORDERS,
    SHOTS,
    FewShotEpisode,
    PicturePool,
    few_shot_prompt,
    reorder,
    sample_few_shot_episode,
)
from .few_shot_training import EXAMPLES, STAGES, build_few_shot_flamingo, train_few_shot
from .shipped import card_template


def few_shot_model_path() -> Path:
    """Return the folder of the shipped model, for `AutoModelForImageTextToText` and `AutoProcessor`."""
    return Path(__file__).parent / "few_shot_model"


@dataclass(frozen=True)
class FewShotArguments:
    """
    Settings of `flamingo demo --few-shot`.

    Args:
        output_dir (`str`): Folder of the report and, with `from_scratch`, of the model.
        seed (`int`): Seed of pictures, episodes, initial weights and order.
        from_scratch (`bool`): Train the Flamingo on two shipped backbones, instead of loading the shipped one.
        text_backbone (`str`, *optional*):
            With `from_scratch`, the folder of another language model, as `flamingo miniature-backbones text` writes it.
        split (`str`): Split to measure on. What is chosen is chosen on `"validation"`.
        episodes (`int`): Episodes behind each figure.
        scale (`float`): Length of all training stages, as a multiple.
    """

    output_dir: str = field(default="flamingo-few-shot", metadata={"help": "Folder of the report and the model."})
    seed: int = field(
        default=0, metadata={"help": "Seed of the pictures, the episodes, the initial weights and the order."}
    )
    from_scratch: bool = field(default=False, metadata={"help": "Train the model instead of loading the shipped one."})
    text_backbone: str | None = field(
        default=None,
        metadata={
            "help": "Folder of the language model to train on, from 'flamingo miniature-backbones text'. By default, that of the shipped few-shot model."
        },
    )
    split: str = field(default="test", metadata={"help": "Split to measure on, 'validation' or 'test'."})
    episodes: int = field(default=500, metadata={"help": "Number of episodes behind each score."})
    scale: float = field(default=1.0, metadata={"help": "Factor on the length of all training stages."})

    def __post_init__(self):
        check_seed(self.seed)
        if self.text_backbone is not None and not self.from_scratch:
            raise ValueError(
                f"`text_backbone` is {self.text_backbone!r}, but the shipped model has its language model. Add `from_scratch`."
            )
        if self.split not in ("validation", "test"):
            raise ValueError(f"`split` is {self.split!r}, but it must be 'validation' or 'test'.")
        if self.episodes < 2:
            raise ValueError(f"`episodes` is {self.episodes}, but images can only be permuted among two or more.")
        if not 0 < self.scale < math.inf:
            raise ValueError(f"`scale` is {self.scale}, but it must be above 0.")


@torch.inference_mode()
def rank_words(
    model: FlamingoModel, processor: FlamingoProcessor, episodes: list[FewShotEpisode], latents: torch.Tensor
) -> list[str]:
    """
    Return for each episode the word of it with the highest log-likelihood after the prompt.

    Args:
        model, processor: The Flamingo.
        episodes (`list[FewShotEpisode]`): Episodes with the same number of shots and of ways.
        latents (`torch.Tensor` of shape `(len(episodes), N, L, Dv)`): Their pictures, from [`encode_images`].
    """
    inputs = processor(text=[few_shot_prompt(episode, processor) for episode in episodes], return_tensors="pt")
    images = {"image": {"pooler_output": latents}}
    logits = model(**inputs.to(model.device), mm_encoder_outputs=images, logits_to_keep=1).logits[:, -1]
    # Each word is one token, and all share the normalizer: their logits rank as their log-likelihoods.
    ids = [processor.tokenizer.convert_tokens_to_ids(list(episode.candidates)) for episode in episodes]
    best = logits.gather(1, torch.tensor(ids, device=logits.device)).argmax(dim=1)
    return [episode.candidates[index] for episode, index in zip(episodes, best.tolist(), strict=True)]


def evaluate_few_shot(
    model: FlamingoModel,
    processor: FlamingoProcessor,
    *,
    split: str = "test",
    episodes: int = 500,
    seed: int = 0,
    ways: tuple[int, ...] = (2, 4),
    shots: tuple[int, ...] = SHOTS,
    pool: PicturePool | None = None,
) -> list[dict[str, Any]]:
    """
    Measure the accuracy for each contrast, number of ways and number of shots, on new pictures.

    Args:
        model, processor: The Flamingo.
        split (`str`): Whose words and pairs: `"validation"` or `"test"`.
        episodes (`int`): Episodes behind each figure.
        seed (`int`): Seed of pictures and episodes.
        ways, shots (`tuple[int]`): The numbers of words, and of examples.
        pool (`PicturePool`, *optional*): Pictures to use instead of new ones.

    Returns:
        `list[dict]`, each with `contrast`, `ways`, `shots`, `n`; `image`, the accuracy, and `permuted`, the accuracy
        with the pictures of another episode (chance, if the model looks); the accuracy on parts of the episodes: `small`
        and `large` objects in the query's picture, its word `shown` by an example or `not_shown`; and `first` and `last`,
        with the examples of the query's word there ([`reorder`]). `None` stands for no such episodes. Chance is 1 / `ways`.
    """
    model.eval()
    pool = pool or PicturePool(split, seed)
    latents = torch.stack(encode_images(model, processor, pool.images, batch_size=128))
    scores = []
    for contrast in CONTRASTS:
        for number_of_ways in ways:
            for number_of_shots in shots:
                rng = np.random.default_rng([seed, CONTRASTS.index(contrast), number_of_ways, number_of_shots])
                drawn = [
                    sample_few_shot_episode(split, contrast, number_of_ways, number_of_shots, rng)
                    for _ in range(episodes)
                ]
                pictures = torch.tensor([pool.draw(episode.pairs, rng) for episode in drawn])  # (episodes, N)
                score = {"contrast": contrast, "ways": number_of_ways, "shots": number_of_shots, "n": episodes}
                right = _are_right(model, processor, drawn, latents[pictures])
                others = pictures[derangement(episodes, rng)]
                score |= {
                    "image": float(right.mean()),
                    "permuted": float(_are_right(model, processor, drawn, latents[others]).mean()),
                    **_score_parts(right, drawn, [pool.sizes[index] for index in pictures[:, -1]]),
                    **dict.fromkeys(ORDERS),
                }
                for order in ORDERS if number_of_shots > 1 else ():
                    moved = [reorder(episode, order) for episode in drawn]
                    indices = torch.tensor([pool.draw(episode.pairs, rng) for episode in moved])
                    score[order] = float(_are_right(model, processor, moved, latents[indices]).mean())
                scores.append(score)
    return scores


def _are_right(
    model: FlamingoModel, processor: FlamingoProcessor, episodes: list[FewShotEpisode], latents: torch.Tensor
) -> np.ndarray:
    answers = rank_words(model, processor, episodes, latents)
    return np.array([answer == episode.words[-1] for answer, episode in zip(answers, episodes, strict=True)])


def _score_parts(right: np.ndarray, episodes: list[FewShotEpisode], sizes: list[str]) -> dict[str, float | None]:
    is_large = np.array([size == "large" for size in sizes])
    is_shown = np.array([episode.words[-1] in episode.words[:-1] for episode in episodes])
    parts = {"small": ~is_large, "large": is_large, "shown": is_shown, "not_shown": ~is_shown}
    return {name: float(right[part].mean()) if part.any() else None for name, part in parts.items()}


def format_few_shot(scores: list[dict[str, Any]]) -> str:
    """Format the scores of [`evaluate_few_shot`] as a table to print."""
    lines = []
    for contrast, ways in dict.fromkeys((score["contrast"], score["ways"]) for score in scores):
        chosen = [score for score in scores if (score["contrast"], score["ways"]) == (contrast, ways)]
        if not lines:
            lines.append(f"{'shots':24}" + "".join(f"{score['shots']:8d}" for score in chosen))
        for condition in ("image", "permuted"):
            label = f"{contrast}, {ways} words" if condition == "image" else "   images permuted"
            lines.append(f"{label:24}" + "".join(f"{score[condition]:8.3f}" for score in chosen))
    return "\n".join(lines)


def plot_few_shot(path: str | Path, scores: list[dict[str, Any]]) -> None:
    """Plot accuracy against the number of shots, one panel per number of words; dotted with the images permuted."""
    panels = []
    for ways in sorted({score["ways"] for score in scores}):
        curves = []
        for index, contrast in enumerate(dict.fromkeys(score["contrast"] for score in scores)):
            chosen = [score for score in scores if (score["contrast"], score["ways"]) == (contrast, ways)]
            for condition, style in (("image", "measured"), ("permuted", "control")):
                label = f"differ in {contrast}" + ("" if condition == "image" else ", images permuted")
                values = {score["shots"]: score[condition] for score in chosen}
                curves.append(ShotCurve(label, values, f"C{index}", style))
        panels.append(ShotPanel(f"{ways} words", curves, chance=1 / ways))
    plot_shots(path, panels, "accuracy", limits=(0, 1.02))


def run_few_shot(arguments: FewShotArguments) -> dict[str, Any]:
    """
    Evaluate the shipped model, or train one from scratch first, and write a report.

    Returns:
        What is written to `metrics.json`: `scores` as [`evaluate_few_shot`] gives them, and the record of the training.
    """
    output_dir = Path(arguments.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    if arguments.from_scratch:
        model_dir = output_dir / "model"
        training = _train_from_scratch(model_dir, arguments, output_dir)
    else:
        model_dir = few_shot_model_path()
        training = json.loads((model_dir / "metrics.json").read_text(encoding="utf-8"))["training"]

    print(
        f"\nBinding new words in {arguments.episodes} episodes for each figure, split {arguments.split}.", flush=True
    )
    processor = AutoProcessor.from_pretrained(model_dir)
    model = AutoModelForImageTextToText.from_pretrained(model_dir)
    scores = evaluate_few_shot(
        model, processor, split=arguments.split, episodes=arguments.episodes, seed=arguments.seed
    )
    # Folders of this machine say nothing elsewhere
    folders = {"output_dir": None, "text_backbone": arguments.text_backbone and Path(arguments.text_backbone).name}
    metrics = {"arguments": asdict(arguments) | folders, "training": training, "scores": scores}
    write_json(output_dir / "metrics.json", metrics)
    plot_few_shot(output_dir / "few_shot.png", scores)
    if arguments.from_scratch:
        plot_few_shot(model_dir / "few_shot.png", scores)  # its card shows it
        write_json(model_dir / "metrics.json", metrics)
        write_card(card_template("few-shot"), metrics, model_dir / "README.md")
    print(format_few_shot(scores), flush=True)
    print(f"The report is in {output_dir}/: metrics.json, few_shot.png; the model is in {model_dir}/", flush=True)
    return metrics


def _train_from_scratch(model_dir: Path, arguments: FewShotArguments, output_dir: Path) -> dict[str, Any]:
    start = time.perf_counter()
    set_seed(arguments.seed)
    model, processor = build_few_shot_flamingo(arguments.text_backbone)
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(f"\nTraining a Flamingo: {trained:,} parameters. All gates are at 0.", flush=True)
    gates = train_few_shot(model, processor, seed=arguments.seed, scale=arguments.scale, output_dir=output_dir)
    with update_folder(model_dir) as partial:
        model.save_pretrained(partial)
        processor.save_pretrained(partial)
    return {
        "trained_parameters": trained,
        "frozen_parameters": model.num_parameters() - trained,
        "stages": {name: stage._asdict() for name, stage in STAGES.items()},
        "examples": list(EXAMPLES),
        "gates": gates,
        "device": model.device.type,
        "seconds": round(time.perf_counter() - start, 1),
        "versions": library_versions(),
    }
