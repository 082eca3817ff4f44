# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Models with large random weights, so that what they generate varies from step to step and from image to image."""

import functools

import pytest
import torch
from factory import (
    END_OF_CHUNK,
    EOS,
    IMAGE,
    TEXT_CONFIGS,
    prompt,
    random_images,
    tiny_flamingo,
)

from transformers_flamingo import FlamingoModel
from transformers_flamingo.media_cache_flamingo import MediaCacheLayer


families = pytest.mark.parametrize("text", TEXT_CONFIGS)


NEW = 6


LENGTH = {"max_new_tokens": NEW, "min_new_tokens": NEW}  # no early end: all comparisons over the same steps


def lively(text: str = "gpt2", **kwargs) -> FlamingoModel:
    std = "init_std" if text.startswith("opt") else "initializer_range"
    return tiny_flamingo(text, text_kwargs={std: 0.3, **kwargs.pop("text_kwargs", {})}, **kwargs)


@functools.cache
def shared_model(text: str = "gpt2") -> FlamingoModel:
    """Built once for all tests that only read it."""
    return lively(text)


def assert_close(a: torch.Tensor, b: torch.Tensor, atol: float = 1e-3) -> None:
    # Logits are of the order of 10 here.
    torch.testing.assert_close(a, b, atol=atol, rtol=1e-3)


def uncached_greedy(model: FlamingoModel, ids: torch.Tensor, images: torch.Tensor | None, steps: int = NEW, **kwargs):
    """Greedy decoding by forward passes over the whole text, without `generate` and without a cache."""
    logits = []
    mask = kwargs.pop("attention_mask", torch.ones_like(ids))
    for _ in range(steps):
        with torch.no_grad():
            step = model(input_ids=ids, pixel_values=images, attention_mask=mask, use_cache=False, **kwargs).logits
        step = step[:, -1].clone()
        logits.append(step.clone())
        step[:, [IMAGE, END_OF_CHUNK, EOS]] = float("-inf")
        ids = torch.cat([ids, step.argmax(-1, keepdim=True)], dim=1)
        mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
    return ids, torch.stack(logits, dim=1)


def left_padded() -> dict[str, torch.Tensor]:
    """Two images, one, and none."""
    ids = prompt("aIbcdIef", "___Iabcd", "__abcdef")
    pixels = random_images(3, 2)
    return {
        "input_ids": ids,
        "attention_mask": torch.tensor([[1] * 8, [0] * 3 + [1] * 5, [0] * 2 + [1] * 6]),
        "pixel_values": pixels,
        "frame_attention_mask": torch.tensor([[1, 1], [1, 0], [0, 0]]),
    }


def media_layers(cache) -> list[MediaCacheLayer]:
    return [layer for layer in cache.layers if isinstance(layer, MediaCacheLayer)]


def first_turn(model: FlamingoModel, num_images: int = 2):
    rows = {0: "abcde", 1: "aIbcd", 2: "aIbIc"}[num_images]
    images = random_images(1, num_images) if num_images else None
    output = model.generate(
        input_ids=prompt(rows), pixel_values=images, return_dict_in_generate=True, max_new_tokens=4, min_new_tokens=4
    )
    return output.sequences, images, output.cache
