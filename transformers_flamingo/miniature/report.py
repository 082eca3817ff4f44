# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Pictures of a demo run. Needs matplotlib."""

from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image


matplotlib.use("Agg")  # no screen is needed
from matplotlib import pyplot as plt


def plot_losses(path: str | Path, train: list[tuple[int, float]], validation: list[tuple[int, float]]) -> None:
    """Loss against training step, for training batches and for the validation split."""
    figure, axes = plt.subplots(figsize=(7, 4))
    axes.plot(*zip(*train, strict=True), label="training", color="tab:blue", linewidth=1)
    if validation:
        axes.plot(*zip(*validation, strict=True), "o-", label="validation", color="tab:orange")
    axes.set(xlabel="step", ylabel="loss per supervised token (nats)", yscale="log", title="Loss")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    _save(figure, path)


def plot_gates(path: str | Path, history: list[dict], layers: list[int]) -> None:
    """tanh(gate) of each gated block against training step (the paper's figure 6 shows them by layer)."""
    steps = [entry["step"] for entry in history]
    figure, panels = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    for axes, kind, title in zip(panels, ("attn", "ffn"), ("attention gates", "feed-forward gates"), strict=True):
        values = np.array([entry[kind] for entry in history])
        for block, layer in enumerate(layers):
            axes.plot(steps, values[:, block], label=f"before layer {layer}")
        axes.axhline(0, color="black", linewidth=0.5)
        axes.set(xlabel="step", title=title)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("tanh(gate)")
    panels[1].legend()
    _save(figure, path)


def plot_few_shot(path: str | Path, scores: list[dict]) -> None:
    """Accuracy against the number of shots, a panel for each number of words; dashed with images permuted."""
    ways = sorted({score["ways"] for score in scores})
    figure, panels = plt.subplots(1, len(ways), figsize=(5.5 * len(ways), 4), sharey=True, squeeze=False)
    for axes, number in zip(panels.flat, ways, strict=True):
        for index, contrast in enumerate(dict.fromkeys(score["contrast"] for score in scores)):
            chosen = [score for score in scores if (score["contrast"], score["ways"]) == (contrast, number)]
            ticks = [str(score["shots"]) for score in chosen]
            axes.plot(ticks, [score["image"] for score in chosen], "o-", color=f"C{index}", label=contrast)
            axes.plot(ticks, [score["permuted"] for score in chosen], "--", color=f"C{index}", linewidth=1)
        axes.axhline(1 / number, color="black", linewidth=0.5)
        axes.set(xlabel="shots", ylim=(0, 1.02), title=f"{number} words (dashed: images permuted)")
        axes.grid(alpha=0.3)
    panels.flat[0].set_ylabel("accuracy")
    panels.flat[0].legend(title="what differs")
    _save(figure, path)


def plot_captions(
    path: str | Path, images: list[Image.Image], captions: list[str], truths: list[str], columns: int = 4
) -> None:
    """A contact sheet: each picture over the model's caption, green if it is the true one, else red over the truth."""
    rows = -(-len(images) // columns)
    figure, panels = plt.subplots(rows, columns, figsize=(3.2 * columns, 3.1 * rows), squeeze=False)
    for axes in panels.flat:
        axes.axis("off")
    for axes, image, caption, truth in zip(panels.flat, images, captions, truths, strict=False):
        axes.imshow(image, interpolation="nearest")
        is_right = caption == truth
        text = _wrap(caption) if is_right else f"{_wrap(caption)}\n(is: {_wrap(truth)})"
        axes.set_title(text, fontsize=9, color="darkgreen" if is_right else "firebrick")
    _save(figure, path)


def _wrap(text: str, width: int = 30) -> str:
    lines, line = [], ""
    for word in text.split():
        if line and len(line) + 1 + len(word) > width:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return "\n".join([*lines, line])


def _save(figure: plt.Figure, path: str | Path) -> None:
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
