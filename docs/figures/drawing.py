# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The style of the diagrams in the docs: colors of what is trained and what is frozen, boxes, arrows, and files that do not change by themselves."""

from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch


FIGURES = Path(__file__).parent

# Readable without color too: what is trained has a bold frame
FROZEN, TRAINED, DATA, INK = "#dbe7f3", "#fbd9b0", "#f4f4f4", "#26323f"


def new_diagram(width: float, height: float) -> tuple[Figure, Axes]:
    """Return a figure of this size in inches, and axes without ticks, in the same unit."""
    figure = Figure(figsize=(width, height))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, width), ylim=(0, height))
    axes.set_axis_off()
    return figure, axes


def draw_box(
    axes: Axes, x: float, y: float, width: float, height: float, text: str, color: str = DATA, **kwargs
) -> None:
    """Draw a rounded box with its lower left corner at `(x, y)` and a text in the middle."""
    line_width = 1.8 if color == TRAINED else 0.9
    shape = FancyBboxPatch(
        (x + 0.05, y + 0.05), width - 0.1, height - 0.1, boxstyle="round,pad=0.05", fc=color, ec=INK, lw=line_width
    )
    axes.add_patch(shape)
    axes.text(x + width / 2, y + height / 2, text, ha="center", va="center", color=INK, **({"fontsize": 9} | kwargs))


def draw_arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float], **kwargs) -> None:
    """Draw an arrow from `start` to `end`."""
    style = {"arrowstyle": "-|>", "mutation_scale": 9, "color": INK, "lw": 1.1, "shrinkA": 0, "shrinkB": 0}
    axes.add_patch(FancyArrowPatch(start, end, **(style | kwargs)))


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure. An SVG has the same bytes in each run of one release of matplotlib."""
    path = Path(path)
    metadata = {"Date": None} if path.suffix == ".svg" else {"Software": None}
    with matplotlib.rc_context({"svg.hashsalt": path.stem}):
        figure.savefig(path, metadata=metadata, dpi=160, facecolor="white")
