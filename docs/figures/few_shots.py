# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Draw what the shipped few-shot model answers, and which demonstrations each way of choosing shows: `python docs/figures/few_shots.py`.

The words are made up. The model was never trained on a picture of these things, nor on an image next to these words.
"""

import numpy as np
from drawing import FIGURES, INK, save
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from transformers_flamingo import FewShotPredictor
from transformers_flamingo_miniature.few_shot import few_shot_model_path
from transformers_flamingo_miniature.few_shot_episodes import PicturePool, sample_few_shot_episode


# The first seed is shown, whatever comes out
SEED = 0


def show(axes: Axes, image: Image.Image, text: str, is_answer: bool = False) -> None:
    """Show an image with a text below it; an answer of the model has a bold frame."""
    axes.imshow(image, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(text, fontsize=9, color=INK, weight="bold" if is_answer else "normal")
    for spine in axes.spines.values():
        spine.set(color="#e08214" if is_answer else INK, linewidth=3 if is_answer else 0.8)


def draw_example(model, processor) -> None:
    """Draw three demonstrations, a query, and the answer."""
    rng = np.random.default_rng(SEED)
    episode = sample_few_shot_episode("test", "pair", ways=2, shots=3, rng=rng)
    pool = PicturePool("test", seed=SEED)
    *shots, query = [pool.images[index] for index in pool.draw(episode.pairs, rng)]
    *words, expected = episode.words
    demonstrations = list(zip(shots, words, strict=True))
    predictor = FewShotPredictor(
        model, processor, demonstrations, task="classify", candidates=episode.candidates, prompt="", separator=""
    )
    prediction = predictor(query)
    print(f"expected {expected}, answered {prediction.text}: {prediction.probabilities}")

    figure = Figure(figsize=(6.4, 2.1), layout="constrained")
    panels = figure.subplots(1, 4)
    for axes, (image, word) in zip(panels[:3], demonstrations, strict=True):
        show(axes, image, word)
    show(panels[3], query, prediction.text, is_answer=True)
    panels[0].set_title("three demonstrations", loc="left", fontsize=9, color=INK)
    panels[3].set_title("a query, and its answer", loc="left", fontsize=9, color=INK)
    save(figure, FIGURES / "few-shot-example.png")


def draw_protocol(model, processor) -> None:
    """Draw a row for each way of choosing demonstrations: those that the query gets, and its answer."""
    rng = np.random.default_rng(SEED)
    episode = sample_few_shot_episode("test", "pair", ways=2, shots=16, rng=rng)
    pool = PicturePool("test", seed=SEED)
    *shots, query = [pool.images[index] for index in pool.draw(episode.pairs, rng)]
    *words, expected = episode.words
    demonstrations = list(zip(shots, words, strict=True))
    settings = {
        "task": "classify",
        "candidates": episode.candidates,
        "prompt": "",
        "separator": "",
        "top_k": 4,
        "seed": SEED,
    }
    figure = Figure(figsize=(7, 5.9), layout="constrained")
    rows = figure.subplots(4, 5)
    for axes, name in zip(rows, ("fixed", "random", "rices", "blind"), strict=True):
        selection = "rices" if name == "blind" else name
        shown, asked = demonstrations, query
        if name == "blind":
            blank = Image.new("RGB", query.size, (128, 128, 128))
            chosen = FewShotPredictor(model, processor, demonstrations, selection="rices", **settings)(
                query
            ).demonstrations
            shown, asked, selection = [(blank, words[index]) for index in chosen], blank, "fixed"
        prediction = FewShotPredictor(model, processor, shown, selection=selection, **settings)(asked)
        print(
            f"{name}: {prediction.text} ({prediction.score:.2f}), expected {expected}; shown {prediction.demonstrations}"
        )
        for panel, index in zip(axes, prediction.demonstrations, strict=False):
            show(panel, *shown[index])
        show(axes[-1], asked, f"{prediction.text}  ({prediction.score:.0%})", is_answer=True)
        axes[0].set_ylabel(name, fontsize=10, color=INK)
    rows[0][-1].set_title(f"query: {expected}", fontsize=9, color=INK)
    save(figure, FIGURES / "few-shot-protocol.png")


def draw_few_shots() -> None:
    """Draw both figures by the shipped model."""
    path = few_shot_model_path()
    model = AutoModelForImageTextToText.from_pretrained(path).eval()
    processor = AutoProcessor.from_pretrained(path)
    draw_example(model, processor)
    draw_protocol(model, processor)


if __name__ == "__main__":
    draw_few_shots()
