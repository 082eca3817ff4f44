# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Draw the parts of a Flamingo and the inside of a gated block: `python docs/figures/architecture.py`."""

from drawing import DATA, FIGURES, FROZEN, INK, TRAINED, draw_arrow, draw_box, new_diagram, save
from matplotlib.patches import Circle, Rectangle


def draw_architecture() -> None:
    """Draw images and text from below to the next token on top, with one gated block in large on the right."""
    figure, axes = new_diagram(9.4, 5.6)

    # Images: from pixels to latents
    for number in range(3):
        axes.add_patch(Rectangle((0.45 + 0.62 * number, 0.35), 0.5, 0.5, fc=DATA, ec=INK, lw=0.9))
        axes.text(0.7 + 0.62 * number, 0.6, f"image {number + 1}", ha="center", va="center", fontsize=6.5, color=INK)
    draw_box(axes, 0.35, 1.3, 2.1, 0.6, "vision encoder", FROZEN)
    draw_box(axes, 0.35, 2.5, 2.1, 0.75, "Perceiver resampler", TRAINED)
    draw_arrow(axes, (1.4, 0.9), (1.4, 1.32))
    draw_arrow(axes, (1.4, 1.9), (1.4, 2.52))
    axes.text(1.5, 2.2, "features\n(N, F, P, Dv)", fontsize=7, color=INK, va="center")
    axes.text(
        1.4, 3.62, "latents (N, L, Dv): 64 for each\nimage, whatever its size", fontsize=7, color=INK, ha="center"
    )

    # Text: through the language model, with gated blocks in between
    draw_box(axes, 3.0, 0.3, 2.6, 0.6, "<image>dax<|endofchunk|><image>", DATA, fontsize=7.2, family="monospace")
    draw_box(axes, 3.3, 1.3, 2.0, 0.5, "embeddings", FROZEN)
    draw_box(axes, 3.3, 2.1, 2.0, 0.5, "gated block", TRAINED)
    draw_box(axes, 3.3, 2.7, 2.0, 0.5, "decoder layer", FROZEN)
    axes.text(4.3, 3.36, "$\\cdots$", ha="center", va="center", fontsize=12, color=INK)
    draw_box(axes, 3.3, 3.55, 2.0, 0.5, "gated block", TRAINED)
    draw_box(axes, 3.3, 4.15, 2.0, 0.5, "decoder layer", FROZEN)
    axes.text(4.3, 5.3, "next token", ha="center", va="center", fontsize=9, color=INK)
    for start, end in ((0.9, 1.32), (1.8, 2.12), (4.65, 5.14)):
        draw_arrow(axes, (4.3, start), (4.3, end))
    axes.plot([2.45, 2.85, 2.85], [2.87, 2.87, 3.8], color=INK, lw=1.1)
    axes.plot([2.85, 2.85], [2.87, 2.35], color=INK, lw=1.1)
    draw_arrow(axes, (2.85, 2.35), (3.32, 2.35))
    draw_arrow(axes, (2.85, 3.8), (3.32, 3.8))

    # A gated block in large
    axes.add_patch(Rectangle((6.2, 0.55), 3.0, 4.75, fc="white", ec=INK, lw=0.9, ls=(0, (4, 3))))
    axes.text(7.7, 5.06, "a gated block", ha="center", fontsize=9, color=INK)
    for y in (2.1, 2.6):
        axes.plot([5.32, 6.2], [2.35, 0.55 if y == 2.1 else 5.3], color=INK, lw=0.7, ls=(0, (4, 3)))
    x = 6.75
    draw_arrow(axes, (x, 0.75), (x, 4.85))
    axes.text(x - 0.1, 0.85, "x", ha="right", fontsize=9, color=INK, style="italic")
    for low, name, gate in (
        (1.2, "cross-attention\nto one image's latents", "attn_gate"),
        (3.1, "feed-forward\nnetwork", "ffn_gate"),
    ):
        draw_box(axes, 7.2, low, 1.75, 0.7, name, TRAINED, fontsize=8)
        draw_box(axes, 7.2, low + 0.85, 1.75, 0.42, f"$\\times$ tanh({gate})", TRAINED, fontsize=7.5)
        draw_arrow(axes, (x, low + 0.12), (7.22, low + 0.12))
        draw_arrow(axes, (8.07, low + 0.68), (8.07, low + 0.88))
        draw_arrow(axes, (7.22, low + 1.06), (x + 0.11, low + 1.06))
        axes.add_patch(Circle((x, low + 1.06), 0.11, fc="white", ec=INK, lw=0.9, zorder=3))
        axes.text(x, low + 1.055, "+", ha="center", va="center", fontsize=9, color=INK, zorder=4)

    # Legend
    for left, color, name in ((0.35, TRAINED, "trained"), (1.35, FROZEN, "frozen")):
        draw_box(axes, left, 4.85, 0.3, 0.26, "", color)
        axes.text(left + 0.36, 4.98, name, va="center", fontsize=8.5, color=INK)
    save(figure, FIGURES / "architecture.svg")


if __name__ == "__main__":
    draw_architecture()
