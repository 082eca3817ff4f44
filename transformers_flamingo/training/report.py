# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Pictures of a training run. Needs matplotlib."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image


matplotlib.use("Agg")  # no screen is needed
from matplotlib import pyplot as plt

from .held_out import SCORES


Curve = Sequence[tuple[int, float]]  # step and value


def plot_run(directory: str | Path, log: Sequence[Mapping[str, Any]]) -> None:
    """
    Draw what [`FlamingoTrainer`] logged: `loss.png`, and where there is something to show `gates.png` and `scores.png`.

    Args:
        directory (`str`): Where to.
        log (`Sequence[dict]`): `trainer.state.log_history`.
    """
    directory = Path(directory)
    curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for entry in log:
        for name, value in entry.items():
            if isinstance(value, int | float):
                curves[name].append((entry["step"], value))

    def named(prefix: str, suffix: str = "") -> dict[str, Curve]:
        names = [name for name in curves if name.startswith(prefix) and name.endswith(suffix)]
        return {name.removeprefix(prefix).removesuffix(suffix) or "all": curves[name] for name in names}

    training = named("loss/") or {"training": curves["loss"]}
    held_out = {name.removesuffix("_").replace("_blind", ", blind"): c for name, c in named("eval_", "loss").items()}
    plot_losses(directory / "loss.png", training, held_out)

    gates = {kind: named(f"gate/{kind}/") for kind in ("attn", "ffn")}
    if gates["attn"]:
        layers = [int(layer) for layer in gates["attn"]]
        steps = [step for step, _ in next(iter(gates["attn"].values()))]
        history = [
            {"step": step} | {kind: [curve[i][1] for curve in of_kind.values()] for kind, of_kind in gates.items()}
            for i, step in enumerate(steps)
        ]
        plot_gates(directory / "gates.png", history, layers)

    scores = {name: curve for score in SCORES for name, curve in _scores(named("eval_", score), score).items()}
    if scores:
        plot_scores(directory / "scores.png", scores)


def _scores(curves: Mapping[str, Curve], score: str) -> dict[str, Curve]:
    return {f"{name.removesuffix('_').replace('_blind', ', blind')}: {score}": c for name, c in curves.items()}


def plot_losses(path: str | Path, training: Mapping[str, Curve], held_out: Mapping[str, Curve]) -> None:
    """Loss against training step, of the training batches and, dashed, of held-out rows."""
    figure, axes = plt.subplots(figsize=(9, 4))
    for name, curve in training.items():
        axes.plot(*zip(*curve, strict=True), label=name, linewidth=1)
    _plot_with_blind(axes, {f"held out: {name}": curve for name, curve in held_out.items()}, "o--")
    axes.set(xlabel="step", ylabel="loss per supervised token (nats)", yscale="log", title="Loss")
    axes.grid(alpha=0.3, which="both")
    _legend_beside(axes)
    _save(figure, path)


def plot_scores(path: str | Path, scores: Mapping[str, Curve]) -> None:
    """Scores of generated texts against training step; those with blank images dotted."""
    figure, axes = plt.subplots(figsize=(9, 4))
    _plot_with_blind(axes, scores, "o-")
    axes.set(xlabel="step", ylabel="score", ylim=(-0.02, 1.02), title="Texts generated for held-out rows")
    axes.grid(alpha=0.3)
    _legend_beside(axes)
    _save(figure, path)


def _plot_with_blind(axes: plt.Axes, curves: Mapping[str, Curve], style: str) -> None:
    """Each curve in a colour of its own, and its blind twin in the same, dotted."""
    colors: dict[str, str] = {}
    for name, curve in curves.items():
        color = colors.get(name.replace(", blind", ""))
        line_style = "o:" if ", blind" in name else style
        (line,) = axes.plot(*zip(*curve, strict=True), line_style, label=name, markersize=3, color=color)
        colors[name] = line.get_color()


def _legend_beside(axes: plt.Axes) -> None:
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)


def plot_gates(path: str | Path, history: Sequence[Mapping[str, Any]], layers: Sequence[int]) -> None:
    """tanh(gate) of each gated block against training step (the paper's figure 6 shows them by layer)."""
    steps = [entry["step"] for entry in history]
    figure, panels = plt.subplots(1, 2, figsize=(10, 4), sharey=True)
    for axes, kind, title in zip(panels, ("attn", "ffn"), ("attention gates", "feed-forward gates"), strict=True):
        values = np.array([entry[kind] for entry in history])
        for curve, layer in zip(values.T, layers, strict=bool(values.size)):  # no curves: blocks without feed-forward
            axes.plot(steps, curve, label=f"before layer {layer}")
        axes.axhline(0, color="black", linewidth=0.5)
        axes.set(xlabel="step", title=title)
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("tanh(gate)")
    panels[1].legend(*panels[0].get_legend_handles_labels(), fontsize=8)
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
