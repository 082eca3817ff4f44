# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Compare the estimate of a training step with what the allocator did in one."""

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from allocator import allocator_peak
from factory import tiny_config
from peft import get_peft_model
from processes import launch
from torch.distributed.tensor import DTensor
from torch.utils.flop_counter import FlopCounterMode

from transformers_flamingo import FlamingoModel
from transformers_flamingo.training import (
    TrainingMemory,
    estimate_training_memory,
    lora_config,
    parameter_groups,
    shard_model,
)
from transformers_flamingo.utils.memory import count_bytes, make_text


# Wide enough that activations are more than the masks, and without dropout, which has its own attention on a CPU
VISION = {"hidden_size": 48, "intermediate_size": 96, "image_size": 56, "patch_size": 7}
OPT = {"hidden_size": 64, "word_embed_proj_dim": 64, "ffn_dim": 256, "dropout": 0.0, "max_position_embeddings": 512}
LLAMA = {"hidden_size": 64, "intermediate_size": 192, "head_dim": 16, "max_position_embeddings": 512}


def config(text: str = "opt"):
    return tiny_config(
        text, text_kwargs={"opt": OPT, "llama": LLAMA}[text], vision_kwargs=VISION, resampler_num_latents=16
    )


def measure(
    flamingo_config, *, batch_size, num_images, text_length, activation_checkpointing=False, lora_rank=None, **kwargs
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
    if activation_checkpointing:
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
    "checkpointing": ("llama", {"activation_checkpointing": True}),
    "kept features": ("opt", {"cached_features": True}),
    "lora": ("llama", {"lora_rank": 8}),
    "lora and checkpointing": ("opt", {"lora_rank": 8, "activation_checkpointing": True}),
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
    repeated = estimate_training_memory(flamingo_config, dtype=torch.float32, activation_checkpointing=True, **batch)
    assert estimate.flops * 1.1 < repeated.flops < estimate.flops * 1.5


def shard_in_two(directory: str) -> None:
    """Train a step of a model that FSDP2 shards, and write down the bytes of the first process."""
    model = FlamingoModel(config())
    model.freeze_backbones()
    shard_model(model)
    optimizer = torch.optim.AdamW(parameter_groups(model, 1e-4))
    input_ids = make_text(model.config, 2, 2, 16)
    model.train()(input_ids=input_ids, labels=input_ids, pixel_values=torch.rand(2, 2, 3, 56, 56)).loss.backward()
    optimizer.step()
    states = [value for values in optimizer.state.values() for value in values.values() if isinstance(value, DTensor)]
    record = {
        "weights": sum(p.to_local().numel() * 4 for p in model.parameters()) + count_bytes(*model.buffers()),
        "gradients": sum(p.grad.to_local().numel() * 4 for p in model.parameters() if p.grad is not None),
        "optimizer": sum(value.to_local().numel() * 4 for value in states),
    }
    if dist.get_rank() == 0:
        Path(directory, "bytes.json").write_text(json.dumps(record))


def test_shards_are_those_of_fsdp2(tmp_path):
    assert launch(shard_in_two, str(tmp_path), world_size=2) == [0, 0]
    estimate = estimate_training_memory(
        config(), batch_size=2, num_images=2, text_length=16, num_gpus=2, sharding="fsdp2", dtype=torch.float32
    )
    record = json.loads((tmp_path / "bytes.json").read_text())
    assert record == {name: getattr(estimate, name) for name in record}


def test_what_more_gpus_change():
    kwargs = {"batch_size": 2, "num_images": 2, "text_length": 16}
    alone = estimate_training_memory(config(), **kwargs)
    replicated = estimate_training_memory(config(), num_gpus=8, **kwargs)
    parts = ("weights", "gradients", "optimizer", "activations", "flops")
    assert [getattr(replicated, name) for name in parts] == [getattr(alone, name) for name in parts]
    assert (alone.buffers, replicated.buffers) == (0, alone.gradients)  # DDP copies the gradients to its buckets
    assert replicated.total - alone.total == alone.gradients

    # 2 bytes of the weight, 4 of the gradient, 4 of the weight in float32 and 8 of the state, as DeepSpeed counts
    zero3 = estimate_training_memory(config(), num_gpus=2, sharding="zero3", **kwargs)
    trained = alone.gradients / 4
    assert zero3.gradients == pytest.approx(4 * trained / 2, rel=1e-3)
    assert zero3.optimizer == pytest.approx(12 * trained / 2, rel=1e-3)
    assert zero3.weights == pytest.approx((alone.weights - 2 * trained) / 2, rel=1e-2)

    # FLOP follow the work of a GPU
    assert alone.steps_per_day(1e12, 0.5) == 86_400 * 0.5e12 / alone.flops
    accumulated = estimate_training_memory(config(), gradient_accumulation_steps=4, **kwargs)
    assert accumulated.flops == 4 * alone.flops
    assert alone.total <= accumulated.total <= alone.total + alone.gradients


def test_a_quantized_language_model():
    kwargs = {"batch_size": 2, "num_images": 2, "text_length": 16}
    full = estimate_training_memory(config("llama"), **kwargs)
    layers = 3 * (
        64 * 64 * 2 + 64 * 32 * 2 + 3 * 64 * 192
    )  # those of the decoder, without embeddings, norms and the head
    for name, size in (("4bit", 0.5625), ("8bit", 1)):
        estimate = estimate_training_memory(config("llama"), quantization=name, **kwargs)
        assert full.weights - estimate.weights == layers * (2 - size)
        assert estimate.buffers == 64 * 192 * 2  # the largest matrix, as it is computed with


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sharding": "fsdp1"}, "`sharding` is 'fsdp1'. It can be 'ddp', 'fsdp2', 'zero3'."),
        ({"optimizer": "adam"}, "`optimizer` is 'adam'"),
        ({"num_gpus": 0}, "`num_gpus` is 0"),
        ({"train_text": True, "lora_rank": 8}, "keep frozen"),
        ({"cached_features": True, "train_vision": True}, "trains the encoder whose features"),
        ({"quantization": "4bit", "num_gpus": 8, "sharding": "fsdp2"}, "quantized weights are not sharded"),
    ],
)
def test_what_cannot_be_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        estimate_training_memory(config(), **change)


@pytest.mark.parametrize(("peak", "utilization"), [(0, 0.4), (1e12, 0), (1e12, 1.5)])
def test_a_speed_that_cannot_be_is_refused(peak, utilization):
    memory = TrainingMemory(1, 1, 1, 1, 1, 1, 1, 1)
    with pytest.raises(ValueError, match="a share from 0 to 1"):
        memory.steps_per_day(peak, utilization)
