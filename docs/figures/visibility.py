# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Draw which image each token of two texts sees: `python docs/figures/visibility.py`."""

import torch
from drawing import DATA, FIGURES, INK, TRAINED, new_diagram, save
from matplotlib.patches import Rectangle

from transformers_flamingo.visibility_flamingo import compute_media_index


SHOTS = ["<image>", "a", "cat", "<|endofchunk|>", "<image>", "two", "dogs", "<|endofchunk|>", "<image>"]
PAGE = ["This", "is", "<image>", "my", "cat", ".", "<image>", "<image>", "And", "two", "dogs"]


def draw_visibility() -> None:
    """Draw a few-shot prompt and a page: a row for each image, a column for each token."""
    figure, axes = new_diagram(9.4, 4.3)
    for top, title, tokens in ((3.85, "a few-shot prompt", SHOTS), (1.75, "a page with images", PAGE)):
        seen = compute_media_index(torch.tensor([[token == "<image>" for token in tokens]]))[0].tolist()
        axes.text(0.2, top + 0.12, title, fontsize=9.5, color=INK, weight="bold")
        for column, (token, image) in enumerate(zip(tokens, seen, strict=True)):
            x = 1.3 + 0.72 * column
            is_long = len(token) > 8
            axes.text(
                x + 0.33,
                top - 0.17,
                token,
                fontsize=5.2 if is_long else 6.6,
                ha="center",
                family="monospace",
                color=INK,
            )
            for row in range(1, max(seen) + 1):
                y = top - 0.25 - 0.36 * row
                axes.add_patch(Rectangle((x, y), 0.66, 0.3, fc=TRAINED if row == image else DATA, ec=INK, lw=0.6))
            axes.text(x + 0.33, top - 0.5 - 0.36 * max(seen), str(image), fontsize=8, ha="center", color=INK)
        for row in range(1, max(seen) + 1):
            axes.text(1.2, top - 0.1 - 0.36 * row, f"image {row}", fontsize=7.5, ha="right", va="center", color=INK)
        axes.text(1.2, top - 0.44 - 0.36 * max(seen), "media_index", fontsize=7.5, ha="right", va="center", color=INK)
    save(figure, FIGURES / "visibility.svg")


if __name__ == "__main__":
    draw_visibility()
