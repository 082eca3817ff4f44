# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Compare the estimate of a generation with what the allocator did in one, and with its cache."""

import pytest
import torch
from allocator import allocator_peak
from factory import VOCAB_SIZE, tiny_config, tiny_flamingo

from transformers_flamingo.utils.memory import count_bytes, estimate_inference_memory, make_text


TEXT = {"hidden_size": 64, "intermediate_size": 192, "head_dim": 16, "max_position_embeddings": 512}
SIZES = {"text_kwargs": TEXT, "vision_kwargs": {"image_size": 56, "patch_size": 7}}


@pytest.mark.parametrize(("num_images", "text_length", "num_beams"), [(2, 256, 1), (8, 128, 3)])
def test_an_estimate_is_what_the_allocator_did(num_images, text_length, num_beams):
    batch = {"batch_size": 4, "num_images": num_images, "text_length": text_length}
    model = tiny_flamingo("llama", **SIZES)
    inputs = {"input_ids": make_text(model.config, **batch)}
    if num_images > 0:
        inputs["pixel_values"] = torch.rand(4, num_images, 3, 56, 56)
    options = {"min_new_tokens": 16, "max_new_tokens": 16, "num_beams": num_beams, "do_sample": False}
    weights = count_bytes(*model.parameters(), *model.buffers())
    peak = weights + count_bytes(*inputs.values()) + allocator_peak(lambda: model.generate(**inputs, **options))
    estimate = estimate_inference_memory(
        model.config, dtype=torch.float32, max_new_tokens=16, num_beams=num_beams, **batch
    )
    assert estimate.weights == weights
    assert estimate.total == pytest.approx(peak, rel=0.1)


def test_the_parts_of_a_cache():
    config = tiny_config("llama", **SIZES)
    estimate = estimate_inference_memory(
        config, batch_size=2, num_images=3, text_length=20, max_new_tokens=10, num_beams=4, dtype=torch.bfloat16
    )
    # 3 layers with 2 heads of 16 for keys and for values, and 3 blocks with 5 latents of 2 heads of 8, in 2 bytes
    assert estimate.cache_per_token == 3 * 2 * 2 * 16 * 2
    assert estimate.media_cache == 3 * 2 * 5 * 2 * 8 * 2
    assert estimate.latents_per_image == 5 * 24 * 2
    # Each beam has its own text, and the beams of a prompt share its image
    assert estimate.cache == 2 * 4 * 30 * estimate.cache_per_token + 2 * estimate.media_cache


def test_a_model_without_a_vision_encoder_gets_features():
    config = tiny_config("llama", text_kwargs=TEXT).to_dict()
    config = type(tiny_config())(**{**config, "vision_config": None})
    estimate = estimate_inference_memory(config, num_images=2, text_length=8, dtype=torch.float32)
    assert estimate.total > estimate.weights > 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 0}, "`batch_size` is 0"),
        ({"text_length": 2, "num_images": 3}, "one token for the marker of each image"),
        ({"num_beams": 0}, "`num_beams` is 0"),
        ({"max_new_tokens": 0}, "`max_new_tokens` is 0"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        estimate_inference_memory(tiny_config(), **change)


def test_markers_are_at_equal_distances():
    config = tiny_config()
    text = make_text(config, 2, 3, 12)
    assert (text == config.image_token_id).nonzero()[:, 1].tolist() == [0, 4, 8] * 2
    assert text.max() < VOCAB_SIZE
    assert not (make_text(config, 1, 0, 4) == config.image_token_id).any()
