# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Compare the estimate of a training step with what the allocator did in one."""

import os
from itertools import accumulate

import pytest
import torch
from factory import tiny_config
from peft import get_peft_model
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from transformers_flamingo import FlamingoModel
from transformers_flamingo.training import estimate_training_memory, lora_config, parameter_groups
from transformers_flamingo.utils.memory import count_bytes, make_text


# Otherwise the profiler prints a line whenever it starts and stops
os.environ.setdefault("KINETO_LOG_LEVEL", "99")

# Wide enough that activations are more than the masks, and without dropout, which has its own attention on a CPU
VISION = {"hidden_size": 48, "intermediate_size": 96, "image_size": 56, "patch_size": 7}
OPT = {"hidden_size": 64, "word_embed_proj_dim": 64, "ffn_dim": 256, "dropout": 0.0, "max_position_embeddings": 512}
LLAMA = {"hidden_size": 64, "intermediate_size": 192, "head_dim": 16, "max_position_embeddings": 512}


def config(text: str = "opt"):
    return tiny_config(
        text, text_kwargs={"opt": OPT, "llama": LLAMA}[text], vision_kwargs=VISION, resampler_num_latents=16
    )


def allocator_peak(case) -> int:
    """Return the peak of the bytes that `case` allocates and has not freed."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        case()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))


def measure(
    flamingo_config, *, batch_size, num_images, text_length, gradient_checkpointing=False, lora_rank=None, **kwargs
):
    """Return the bytes of the weights, of the state of the optimizer and of all in a step of a real model, and their peak."""
    flamingo = FlamingoModel(flamingo_config)
    if lora_rank is None:
        flamingo.freeze_backbones(**{name: kwargs[name] for name in ("train_token_embeddings",) if name in kwargs})
        model = flamingo
        model.unfreeze_backbones(vision_model=False, language_model=kwargs.get("train_text", False))
    else:
        model = get_peft_model(flamingo, lora_config(flamingo, r=lora_rank, lora_alpha=2 * lora_rank))
    model.train()
    if gradient_checkpointing:
        flamingo.activation_checkpointing_enable()
    size = flamingo_config.vision_config.image_size
    input_ids = make_text(flamingo_config, batch_size, num_images, text_length)
    batch = {"input_ids": input_ids, "labels": input_ids}
    pixels = torch.rand(batch_size, num_images, 3, size, size)
    if kwargs.get("cached_features"):
        with torch.no_grad():
            features = flamingo.get_image_features(pixels).last_hidden_state
        batch["mm_encoder_outputs"] = {"image": {"last_hidden_state": features}}
    elif num_images > 0:
        batch["pixel_values"] = pixels
    inputs = [features if kwargs.get("cached_features") else pixels, input_ids]
    optimizer = torch.optim.AdamW(parameter_groups(model, 1e-4), fused=True)

    def step():
        model(**batch).loss.backward()
        optimizer.step()

    step()
    optimizer.zero_grad()
    gradients = sum(p.numel() * 4 for p in model.parameters() if p.requires_grad)
    state = sum(value.numel() * 4 for values in optimizer.state.values() for value in values.values())
    weights = count_bytes(*model.parameters(), *model.buffers())
    return weights, gradients, state, weights + state + count_bytes(*inputs) + allocator_peak(step)


CASES = {
    "two images": ("opt", {}),
    "eight images": ("llama", {"num_images": 8}),
    "long text": ("llama", {"num_images": 1, "text_length": 512}),
    "text alone": ("opt", {"num_images": 0}),
    "checkpointing": ("llama", {"gradient_checkpointing": True}),
    "kept features": ("opt", {"cached_features": True}),
    "lora": ("llama", {"lora_rank": 8}),
    "lora and checkpointing": ("opt", {"lora_rank": 8, "gradient_checkpointing": True}),
    "no token embeddings": ("opt", {"train_token_embeddings": False}),
    "language model": ("llama", {"train_text": True}),
}


@pytest.mark.parametrize("case", CASES)
def test_an_estimate_is_what_the_allocator_did(case):
    text, kwargs = CASES[case]
    kwargs = {"batch_size": 4, "num_images": 2, "text_length": 64, **kwargs}
    weights, gradients, state, peak = measure(config(text), **kwargs)
    estimate = estimate_training_memory(config(text), dtype=torch.float32, **kwargs)
    assert estimate.weights == pytest.approx(weights, rel=1e-3)  # the rows of the new tokens count twice
    assert estimate.gradients == gradients
    assert estimate.optimizer == pytest.approx(state, rel=1e-3)  # without the step of each parameter
    assert estimate.total == pytest.approx(peak, rel=0.04)


def test_flops_are_those_of_all_products():
    flamingo_config = tiny_config("opt", text_kwargs=OPT, vision_kwargs=VISION)
    batch = {"batch_size": 2, "num_images": 2, "text_length": 16}
    model = FlamingoModel(flamingo_config)
    model.freeze_backbones()
    model.train()
    model.set_attn_implementation("eager")  # plain products, which torch counts
    input_ids = make_text(flamingo_config, **batch)
    pixels = torch.rand(2, 2, 3, 56, 56)
    with FlopCounterMode(display=False) as counter:
        model(input_ids=input_ids, labels=input_ids, pixel_values=pixels).loss.backward()
    estimate = estimate_training_memory(flamingo_config, dtype=torch.float32, **batch)
    assert estimate.flops == counter.get_total_flops()
    repeated = estimate_training_memory(flamingo_config, dtype=torch.float32, gradient_checkpointing=True, **batch)
    assert estimate.flops * 1.1 < repeated.flops < estimate.flops * 1.5
