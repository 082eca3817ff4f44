# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Tiny Flamingo models that tests share, and what they do with them."""

import functools

import pytest
import torch
from factory import (
    TEXT_CONFIGS,
    prompt,
    tiny_flamingo,
)

from transformers_flamingo import FlamingoModel


families = pytest.mark.parametrize("text", TEXT_CONFIGS)


some_families = pytest.mark.parametrize("text", ["gpt2", "opt_350m", "llama"])


@functools.cache
def shared_model(text: str = "gpt2", vision: str = "clip", **kwargs) -> FlamingoModel:
    """Built once for all tests that only read it."""
    return tiny_flamingo(text, vision, **kwargs)


def run(model: FlamingoModel, input_ids: torch.Tensor, pixel_values: torch.Tensor | None = None, **kwargs):
    with torch.no_grad():
        return model(input_ids=input_ids, pixel_values=pixel_values, **kwargs)


def assert_close(a: torch.Tensor, b: torch.Tensor, atol: float = 2e-5) -> None:
    torch.testing.assert_close(a, b, atol=atol, rtol=1e-4)


def far(a: torch.Tensor, b: torch.Tensor) -> bool:
    return (a - b).abs().max() > 1e-3


def count_encoded_frames(model: FlamingoModel) -> list[int]:
    """A list that gets the number of frames of each later call of the vision encoder."""
    calls = []
    model.vision_model.register_forward_pre_hook(
        lambda module, args, kwargs: calls.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    return calls


def randomized(model: FlamingoModel) -> FlamingoModel:
    """Layer norms as no initialization has them, so that each one counts."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for part in (model.resampler, model.gated_cross_attention):
            for module in part.modules():
                if isinstance(module, torch.nn.LayerNorm):
                    module.weight.uniform_(0.5, 1.5, generator=generator)
                    module.bias.uniform_(-0.5, 0.5, generator=generator)
            for parameter in part.parameters():
                if parameter.ndim == 2:
                    parameter.uniform_(-0.5, 0.5, generator=generator)
    return model


def pad_rows(rows: list[str], side: str) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(map(len, rows))
    padded = [row.rjust(width, "_") if side == "left" else row.ljust(width, "_") for row in rows]
    ids = prompt(*padded)
    mask = torch.tensor([[int(c != "_") for c in row] for row in padded])
    return ids, mask


def pad_images(images: list[torch.Tensor], fill: float = 9.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Each `(N_b, ...)` to one `(B, N, ...)` with its `frame_attention_mask`."""
    num = max(map(len, images))
    pixels = torch.full((len(images), num, *images[0].shape[1:]), fill)
    mask = torch.zeros(len(images), num, dtype=torch.long)
    for b, sample in enumerate(images):
        pixels[b, : len(sample)] = sample
        mask[b, : len(sample)] = 1
    return pixels, mask
