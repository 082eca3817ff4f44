# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Measure the cost of prefill and of a training step with 1 to 32 images in a text of 256 tokens.

    python benchmarks/images_in_prompt.py [--workload small] [--text gpt2] [--tokens 256] [--repeats 5]

"Encode" is the vision encoder and the resampler. "Text" is everything else, measured with given latents. "Keys and values"
is a part of "text", measured alone: the projections of the latents in all gated blocks, which each image needs once, as it
needs its encoding. "Text without" is the difference of the two. Its time and memory must not grow with the number of images.
A training step is the forward and backward pass of a mean loss over all tokens, with frozen backbones.
"""

from collections.abc import Callable
from typing import Any

import common
import torch


NUM_IMAGES = (1, 2, 5, 8, 16, 32)


def main() -> None:
    """Time prefill and training, print both tables and save them if asked to."""
    arguments = common.parser(__doc__, tokens=256).parse_args()
    model = common.build(arguments)
    for mode in ("prefill", "training"):
        if mode == "training":
            model.freeze_backbones()
            model.train()
        cases: dict[str, Callable[[], Any]] = {}
        for n in NUM_IMAGES:
            cases |= {f"{name} {n}": case for name, case in cases_of(model, n, arguments.tokens, mode).items()}
        timings = common.time_in_turns(cases, arguments.repeats, arguments.device)
        peaks = {name: common.peak_bytes(case, arguments.device) for name, case in cases.items()}
        without = {
            n: common.Timing(
                [
                    text - projected
                    for text, projected in zip(
                        timings[f"text {n}"].seconds, timings[f"keys and values {n}"].seconds, strict=True
                    )
                ]
            )
            for n in NUM_IMAGES
        }
        rows = [
            {
                "images": n,
                "encode, ms": common.milliseconds(timings[f"encode {n}"]),
                "text, ms": common.milliseconds(timings[f"text {n}"]),
                "keys and values, ms": common.milliseconds(timings[f"keys and values {n}"]),
                "text without, ms": common.milliseconds(without[n]),
                "spread": common.percent(without[n].spread),
                "over 1 image": f"{without[n].over(without[1]):.2f}",
                "peak of encode, MB": common.megabytes(peaks[f"encode {n}"]),
                "peak of text, MB": common.megabytes(peaks[f"text {n}"]),
                "over 1 image ": f"{peaks[f'text {n}'] / peaks['text 1']:.2f}",
            }
            for n in NUM_IMAGES
        ]
        common.report(arguments, rows, f"{mode}-{arguments.text or arguments.workload}")


def cases_of(model: torch.nn.Module, num_images: int, num_tokens: int, mode: str) -> dict[str, Callable[[], Any]]:
    """Return the parts of a prefill or a training step by name. Each runs forward, and in training backward too."""
    batch = common.inputs(model, num_images, num_tokens)
    pixel_values = batch.pop("pixel_values")
    is_training = mode == "training"
    if is_training:
        batch["labels"] = batch["input_ids"]
    with torch.no_grad():
        latents = model.get_image_features(pixel_values).pooler_output

    def finish(output: torch.Tensor) -> None:
        if is_training:
            output.backward()
            model.zero_grad(set_to_none=True)

    def encode() -> None:
        with torch.set_grad_enabled(is_training):
            finish(model.get_image_features(pixel_values).pooler_output.sum())

    def text() -> None:
        with torch.set_grad_enabled(is_training):
            given = {"image": {"pooler_output": latents.detach().requires_grad_(is_training)}}
            output = model(**batch, mm_encoder_outputs=given)
            finish(output.loss if is_training else output.logits)

    def keys_and_values() -> None:
        with torch.set_grad_enabled(is_training):
            given = latents.flatten(0, 1).detach().requires_grad_(is_training)
            projected = [block.attention.project_context(given) for block in model.gated_cross_attention]
            finish(sum(key.sum() + value.sum() for key, value in projected) if is_training else given)

    return {"encode": encode, "text": text, "keys and values": keys_and_values}


if __name__ == "__main__":
    main()
