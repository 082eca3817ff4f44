# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Measure which parts get a gradient in the first steps of a new model: `python docs/figures/first_step.py`."""

import torch
from drawing import FIGURES, save
from matplotlib.figure import Figure
from PIL import Image
from transformers import set_seed

from transformers_flamingo import FlamingoModel, FlamingoProcessor
from transformers_flamingo_miniature import text_backbone_path, vision_backbone_path


# The first that fits a name
PARTS = {
    "resampler": "resampler.",
    "embeddings": "input_token_rows.",
    "gates": "_gate",
    "last projections": ("attention.o_proj.weight", "mlp.fc2.weight"),
    "other weights": "gated_cross_attention.",
}


def find_part(name: str) -> str:
    """Return which part of a Flamingo a trained parameter belongs to."""
    for part, key in PARTS.items():
        if name.startswith(key) if key[-1] == "." else name.endswith(key):
            return part
    raise ValueError(f"The figure does not know which part {name!r} belongs to. Add it to `PARTS`.")


def measure(zero_init: str, steps: int) -> list[dict[str, float]]:
    """Return the norm of the gradient of each part in each step of SGD, from the start that `zero_init` names."""
    set_seed(0)
    vision, text = vision_backbone_path(), text_backbone_path()
    processor = FlamingoProcessor.from_vision_text_pretrained(vision, text)
    model = FlamingoModel.from_vision_text_pretrained(vision, text, cross_attention_zero_init=zero_init)
    model.freeze_backbones()
    images = [[Image.new("RGB", (64, 64), color)] for color in ("red", "blue")]
    inputs = processor(
        images=images, text=["<image>a red circle", "<image>a blue square"], return_tensors="pt", padding=True
    )
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD([parameter for _, parameter in named], lr=0.1)
    history = []
    for _ in range(steps):
        optimizer.zero_grad()
        model(**inputs, labels=inputs["input_ids"]).loss.backward()
        norms = dict.fromkeys(PARTS, 0.0)
        for name, parameter in named:
            norms[find_part(name)] += parameter.grad.square().sum().item()
        history.append({part: total**0.5 for part, total in norms.items()})
        optimizer.step()
    return history


def draw_first_step() -> None:
    """Draw a panel for each start."""
    figure = Figure(figsize=(8.4, 3.2), layout="constrained")
    for axes, zero_init in zip(figure.subplots(1, 2, sharey=True), ("gates", "projections"), strict=True):
        history = measure(zero_init, 3)
        for step, norms in enumerate(history, 1):
            print(f"{zero_init}, step {step}: " + ", ".join(f"{part} {norm:.1e}" for part, norm in norms.items()))
        places = torch.arange(len(PARTS)).tolist()
        for step, norms in enumerate(history):
            axes.bar([place + 0.27 * (step - 1) for place in places], norms.values(), 0.25, label=f"step {step + 1}")
        axes.set(title=f'cross_attention_zero_init="{zero_init}"', yscale="log", ylim=(1e-2, 2e2))
        axes.set_xticks(places, [part.replace(" ", "\n") for part in PARTS], fontsize=8)
        axes.grid(alpha=0.3, axis="y")
    figure.axes[0].set_ylabel("norm of the gradient")
    figure.axes[1].legend(frameon=False, fontsize=8)
    save(figure, FIGURES / "first-step.svg")


if __name__ == "__main__":
    draw_first_step()
