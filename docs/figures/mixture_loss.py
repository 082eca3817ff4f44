# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Draw one optimizer step of a mixture: `python docs/figures/mixture_loss.py`."""

from drawing import DATA, FIGURES, FROZEN, INK, TRAINED, draw_arrow, draw_box, new_diagram, save


SOURCES = (("captions", 16, 0.2), ("pages", 8, 1.0), ("videos", 4, 0.03))


def draw_mixture_loss() -> None:
    """Draw a row for each source, from its batch to its gradient, and their sum on the right."""
    figure, axes = new_diagram(9.4, 3.2)
    for row, (name, size, weight) in enumerate(SOURCES):
        y = 2.35 - 0.95 * row
        draw_box(axes, 0.2, y, 1.5, 0.6, name, DATA)
        draw_box(axes, 2.2, y, 1.7, 0.6, f"a batch of {size}", DATA, fontsize=8.5)
        draw_box(axes, 4.4, y, 1.9, 0.6, "mean loss\nper learned token", FROZEN, fontsize=8)
        draw_arrow(axes, (1.72, y + 0.3), (2.22, y + 0.3))
        draw_arrow(axes, (3.92, y + 0.3), (4.42, y + 0.3))
        draw_arrow(axes, (6.32, y + 0.3), (7.5, 1.7 - 0.15 * (row - 1)))
        axes.text(6.4, y + (0.42 if row < 2 else 0.02), f"$\\times$ {weight}", fontsize=8.5, color=INK)
    draw_box(axes, 7.5, 1.3, 1.7, 0.7, "sum of gradients,\none step", TRAINED, fontsize=8)
    save(figure, FIGURES / "mixture-loss.svg")


if __name__ == "__main__":
    draw_mixture_loss()
