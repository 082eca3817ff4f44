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
