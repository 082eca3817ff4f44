# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Figures of training runs and evaluations: curves, gates, scores against shots, captioned images. Needs matplotlib.

Every figure of this project is drawn here, so that they share one style. Each function writes an image file and returns the figure,
for a notebook or for a test. `pyplot` is not used: its backend and its list of open figures belong to the user.
"""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image


Curve = Sequence[tuple[int, float]]  # step and value

_BLIND = ", blind"
_RIGHT, _WRONG = "darkgreen", "firebrick"


def plot_losses(path: str | Path, training: Mapping[str, Curve], held_out: Mapping[str, Curve]) -> Figure:
    """
    Plot loss against training step, of the training batches and, dashed, of held-out rows.

    Args:
        path (`str` or `Path`): The image file to write.
        training, held_out (`Mapping[str, Curve]`):
            Curves by source. The curve `"NAME, blind"`, measured with blank images, has the color of `"NAME"`, dotted.
    """
    figure, (axes,) = _new_figure(9, 4)
    for name, curve in training.items():
        axes.plot(*zip(*curve, strict=True), label=name, linewidth=1)
    _plot_with_blind(axes, {f"held out: {name}": curve for name, curve in held_out.items()}, "o--")
    axes.set(xlabel="step", ylabel="loss per supervised token (nats)", yscale="log", title="Loss")
    axes.grid(alpha=0.3, which="both")
    _add_legend_on_the_right(axes)
    return _save(figure, path)


def plot_scores(path: str | Path, scores: Mapping[str, Curve]) -> Figure:
    """
    Plot scores of generated texts, from 0 to 1, against training step.

    Args:
        path (`str` or `Path`): The image file to write.
        scores (`Mapping[str, Curve]`): Curves by name; `"NAME, blind"` as for [`plot_losses`].
    """
    figure, (axes,) = _new_figure(9, 4)
    _plot_with_blind(axes, scores, "o-")
    axes.set(xlabel="step", ylabel="score", ylim=(-0.02, 1.02), title="Texts generated for held-out rows")
    _add_legend_on_the_right(axes)
    return _save(figure, path)


def plot_image_use(path: str | Path, own: Mapping[str, Curve], swapped: Mapping[str, Curve]) -> Figure:
    """
    Plot the loss of training batches with their own images and, dashed, with wrong ones: the distance is what images tell.

    Args:
        path (`str` or `Path`): The image file to write.
        own (`Mapping[str, Curve]`): The loss with the own images, by source.
        swapped (`Mapping[str, Curve]`):
            The loss with the images of other rows (`"NAME, other"`) or with blank ones (`"NAME, blank"`), in the color of
            `"NAME"`.
    """
    figure, (axes,) = _new_figure(9, 4)
    colors = {}
    for name, curve in own.items():
        (line,) = axes.plot(*zip(*curve, strict=True), "o-", label=f"{name}: own images", markersize=3)
        colors[name] = line.get_color()
    for name, curve in swapped.items():
        source, _, kind = name.rpartition(", ")
        style = {"other": "s--", "blank": "s:"}[kind]
        axes.plot(
            *zip(*curve, strict=True), style, label=f"{source}: {kind} images", markersize=3, color=colors[source]
        )
    axes.set(xlabel="step", ylabel="loss per token that sees an image (nats)", yscale="log")
    axes.set_title("Training batches with their own images and with wrong ones", fontsize=10)
    axes.grid(alpha=0.3, which="both")
    _add_legend_on_the_right(axes)
    return _save(figure, path)


def plot_gates(path: str | Path, history: Sequence[Mapping[str, Any]], layers: Sequence[int]) -> Figure:
    """
    Plot tanh(gate) of each gated block against training step (the paper's figure 6 shows them by layer).

    Args:
        path (`str` or `Path`): The image file to write.
        history (`Sequence[Mapping]`): Entries of [`GateHistoryCallback`]: `step`, `attn` and `ffn`, the last two by block.
            `ffn` is empty for blocks without a feed-forward branch.
        layers (`Sequence[int]`): The decoder layer that each block precedes.
    """
    return _plot_blocks(path, history, layers, "tanh(gate)", ("attention gates", "feed-forward gates"))


def plot_branches(path: str | Path, history: Sequence[Mapping[str, Any]], layers: Sequence[int]) -> Figure:
    """
    Plot the size of what each gated block adds to the hidden states, relative to these, against training step.

    Args:
        path (`str` or `Path`): The image file to write.
        history (`Sequence[Mapping]`): As for [`plot_gates`], with the relative sizes of the branches.
        layers (`Sequence[int]`): The decoder layer that each block precedes.
    """
    titles = ("attention branches, with their gates", "feed-forward branches, with their gates")
    # A feed-forward branch may be far larger, and it is the attention that brings the images
    return _plot_blocks(path, history, layers, "rms(branch) / rms(hidden states)", titles, share_scale=False)


def _plot_blocks(
    path: str | Path,
    history: Sequence[Mapping[str, Any]],
    layers: Sequence[int],
    value_name: str,
    titles: tuple[str, str],
    *,
    share_scale: bool = True,
) -> Figure:
    """Plot a value of both branches of each gated block against training step, from the first block (dark) to the last."""
    figure, panels = _new_figure(11, 4, columns=2, share_scale=share_scale)
    steps = [entry["step"] for entry in history]
    colors = matplotlib.colormaps["viridis"].resampled(256)(np.linspace(0, 0.9, len(layers)))
    for axes, kind, title in zip(panels, ("attn", "ffn"), titles, strict=True):
        curves = list(zip(*(entry[kind] for entry in history), strict=True))
        for curve, layer, color in zip(curves, layers, colors, strict=bool(curves)):
            axes.plot(steps, curve, label=f"before layer {layer}", color=color, linewidth=1.2)
        axes.axhline(0, color="black", linewidth=0.5)
        axes.set(xlabel="step", title=title)
    panels[0].set_ylabel(value_name)
    handles, labels = panels[0].get_legend_handles_labels()
    columns = -(-len(labels) // 16)
    _add_legend_on_the_right(panels[1], handles, labels, ncols=columns)
    return _save(figure, path)


@dataclass(frozen=True)
class ShotCurve:
    """
    Scores at several numbers of shots: one line of [`plot_shots`].

    Args:
        label (`str`): Entry of the legend; without it (`""`) the line has none.
        scores (`Mapping[int, float]`): Scores by number of shots.
        color (`str`, *optional*): By default the next one of the color map.
        style (`str`): `"measured"`, `"control"` (dotted: no images, or the wrong ones) or `"published"` (thin).
        spread (`Mapping[int, float]`, *optional*): Standard deviations by number of shots.
    """

    label: str
    scores: Mapping[int, float]
    color: str | None = None
    style: Literal["measured", "control", "published"] = "measured"
    spread: Mapping[int, float] | None = None


@dataclass(frozen=True)
class ShotPanel:
    """
    A pair of axes of [`plot_shots`].

    Args:
        title (`str`): The title.
        curves (`Sequence[ShotCurve]`): The lines.
        chance (`float`, *optional*): Where to draw the line of chance.
    """

    title: str
    curves: Sequence[ShotCurve]
    chance: float | None = None


_LINE_STYLES = {
    "measured": {"fmt": "o-", "markersize": 4},
    "control": {"fmt": "o:", "markersize": 3, "linewidth": 1.2},
    "published": {"fmt": ".-", "linewidth": 0.8, "alpha": 0.6},
}


def plot_shots(
    path: str | Path, panels: Sequence[ShotPanel], score_name: str, limits: tuple[float, float] | None = None
) -> Figure:
    """
    Plot scores against number of shots.

    Args:
        path (`str` or `Path`): The image file to write.
        panels (`Sequence[ShotPanel]`): Axes from left to right, which share the score axis and the first one's legend.
        score_name (`str`): Label of the score axis.
        limits (`tuple[float, float]`, *optional*): Range of the score axis.
    """
    figure, all_axes = _new_figure(5 * len(panels) + 6, 4.5, columns=len(panels))
    for axes, panel in zip(all_axes, panels, strict=True):
        # Shots double: equal distances between them, 0 included
        place = {shots: i for i, shots in enumerate(sorted({s for curve in panel.curves for s in curve.scores}))}
        axes.set_prop_cycle(color=matplotlib.colormaps["tab20"].colors)
        for curve in panel.curves:
            shots = sorted(curve.scores)
            options = {} if curve.color is None else {"color": curve.color}
            axes.errorbar(
                [place[count] for count in shots],
                [curve.scores[count] for count in shots],
                yerr=None if curve.spread is None else [curve.spread[count] for count in shots],
                label=curve.label or "_nolegend_",
                capsize=3,
                **_LINE_STYLES[curve.style],
                **options,
            )
        if panel.chance is not None:
            axes.axhline(panel.chance, color="black", linewidth=0.5)
        axes.set_xticks(list(place.values()), [str(count) for count in place])
        axes.set(xlabel="shots")
        axes.set_title(panel.title, fontsize=9)
    all_axes[0].set_ylabel(score_name)
    if limits is not None:
        all_axes[0].set_ylim(limits)
    _add_legend_on_the_right(all_axes[-1], *all_axes[0].get_legend_handles_labels())
    return _save(figure, path)


def plot_captions(
    path: str | Path, images: Sequence[Image.Image], captions: Sequence[str], truths: Sequence[str], columns: int = 4
) -> Figure:
    """
    Draw a contact sheet: each image under its generated caption, green if it is right, otherwise red with the right one.

    Args:
        path (`str` or `Path`): The image file to write.
        images (`Sequence[PIL.Image.Image]`): The images.
        captions, truths (`Sequence[str]`): The generated and the right caption of each image.
        columns (`int`, *optional*, defaults to 4): Number of images in a row.
    """
    rows = -(-len(images) // columns)
    figure, panels = _new_figure(3.2 * columns, 3.1 * rows, rows=rows, columns=columns, share_scale=False)
    for axes in panels:
        axes.axis("off")
    for axes, image, caption, truth in zip(panels, images, captions, truths, strict=False):
        axes.imshow(image, interpolation="nearest")
        is_right = caption == truth
        text = textwrap.fill(caption, 30)
        if not is_right:
            text += f"\n(is: {textwrap.fill(truth, 30)})"
        axes.set_title(text, fontsize=9, color=_RIGHT if is_right else _WRONG)
    return _save(figure, path)


def _new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, *, share_scale: bool = True
) -> tuple[Figure, list[Axes]]:
    """Return a figure of this size in inches and its axes, row by row. By default a row has one vertical scale."""
    figure = Figure(figsize=(width, height), dpi=110, layout="tight")
    panels = list(figure.subplots(rows, columns, sharey="row" if share_scale else False, squeeze=False).flat)
    for axes in panels:
        axes.grid(alpha=0.3)
    return figure, panels


def _plot_with_blind(axes: Axes, curves: Mapping[str, Curve], style: str) -> None:
    """Plot each curve in its own color, and its blind twin dotted in the same color."""
    colors: dict[str, Any] = {}
    for name, curve in curves.items():
        color = colors.get(name.replace(_BLIND, ""))
        line_style = "o:" if _BLIND in name else style
        (line,) = axes.plot(*zip(*curve, strict=True), line_style, label=name, markersize=3, color=color)
        colors[name] = line.get_color()


def _add_legend_on_the_right(axes: Axes, *handles_and_labels: Iterable[Any], **kwargs: Any) -> None:
    place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1), "borderaxespad": 0}
    axes.legend(*handles_and_labels, fontsize=8, **place, **kwargs)


def _save(figure: Figure, path: str | Path) -> Figure:
    figure.savefig(path)
    return figure
