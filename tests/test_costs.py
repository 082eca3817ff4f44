# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Count what the model computes and keeps, independently of the machine: operations, tokens and bytes.

`benchmarks/` measures times.
"""

import pytest
import torch
from allocator import allocator_peak
from factory import IMAGE, prompt, random_images, tiny_flamingo
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from transformers_flamingo import FlamingoModel


LENGTH = 64


def flops(call, *args, **kwargs) -> int:
    """Return the floating-point operations of a call without gradients."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        call(*args, **kwargs)
    return counter.get_total_flops()


def inputs(model: FlamingoModel, num_images: int) -> tuple[dict, torch.Tensor]:
    """Return a prompt with image markers at equal distances from the first token on, and latents `(1, N, L, Dv)`."""
    ids = prompt("abcdefgh" * (LENGTH // 8))
    ids[:, torch.arange(num_images) * LENGTH // max(num_images, 1)] = IMAGE
    with torch.no_grad():
        latents = model.get_image_features(random_images(1, num_images)).pooler_output
    return {"input_ids": ids, "mm_encoder_outputs": {"image": {"pooler_output": latents}}}, latents


def eager(text: str) -> FlamingoModel:
    """Return a tiny model with eager attention, all of whose operations are counted."""
    model = tiny_flamingo(text)
    model.set_attn_implementation("eager")
    return model


def project(model: FlamingoModel, latents: torch.Tensor) -> None:
    """Compute keys and values of the images in all gated blocks."""
    for block in model.gated_cross_attention:
        block.attention.project_context(latents.flatten(0, 1))


@pytest.mark.parametrize("text", ["gpt2", "opt", "llama"])
def test_without_keys_and_values_of_the_images_a_prompt_costs_the_same_with_any_number(text):
    model = eager(text)
    costs = set()
    for num_images in (1, 2, 4, 8, 16, 32):
        batch, latents = inputs(model, num_images)
        costs.add(flops(model, **batch) - flops(project, model, latents))
    assert len(costs) == 1


@pytest.mark.parametrize("marked_at", [(0, 1), (0, 63), (60, 61, 62, 63), (0, 1, 2, 3, 40), (5, 6, 50)])
def test_uneven_texts_cost_at_most_twice_the_attention(marked_at):
    model = eager("gpt2")
    batch, _ = inputs(model, len(marked_at))
    ids = prompt("abcdefgh" * (LENGTH // 8))
    ids[:, list(marked_at)] = IMAGE
    slots = []
    attention = model.gated_cross_attention[0].attention
    attend = attention.attend

    def counted(query, key, value, attention_mask=None):
        slots.append((query.shape[0] * query.shape[2], key.shape[2]))
        return attend(query, key, value, attention_mask)

    attention.attend = counted
    model(**{**batch, "input_ids": ids})
    [(num_slots, num_keys)] = slots
    assert num_slots <= 2 * (LENGTH - marked_at[0])
    assert num_keys == model.config.resampler_num_latents


@pytest.mark.parametrize("text", ["gpt2", "opt", "llama"])
def test_one_more_token_costs_the_same_after_any_number_of_images(text):
    """Check also that it costs as much as the language model plus the gated blocks for one token and one image."""
    model = eager(text)
    costs = []
    for num_images in (1, 4, 32):
        with torch.no_grad():
            cache = model(**inputs(model, num_images)[0], use_cache=True).cache
        costs.append(flops(model, input_ids=prompt("a"), cache=cache))
    assert len(set(costs)) == 1

    ids = prompt("abcdefgh" * (LENGTH // 8))
    with torch.no_grad():
        bare = model.language_model(input_ids=ids, use_cache=True).cache
    blocks, config = model.gated_cross_attention, model.config
    width, inner = config.text_config.hidden_size, config.cross_attention_num_heads * config.cross_attention_head_dim
    weights = 2 * width * inner + 2 * width * width * config.cross_attention_ffn_mult
    scores = 2 * config.resampler_num_latents * inner
    language_model = flops(model.language_model, input_ids=prompt("a"), cache=bare)
    assert costs[0] == language_model + len(blocks) * 2 * (weights + scores)


class Operations(TorchDispatchMode):
    """Record the names of the operations that compute something: a view does not."""

    def __init__(self):
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        is_view = any(value.alias_info is not None for value in function._schema.returns)
        if not is_view and function is not torch.ops.aten._unsafe_view.default:
            self.names.append(function._schema.name.removeprefix("aten::"))
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("num_images", [0, 2])
@pytest.mark.parametrize("fields", [{}, {"cross_attention_gating": "none"}, {"cross_attention_ffn_mult": 0}])
def test_a_gated_block_adds_to_a_step_its_products_and_nothing_for_its_gates(fields, num_images):
    """Gates that are multiplied into the weights would leave as many operations: each branch is scaled and added in one."""
    model = tiny_flamingo(**fields)
    add = "add" if "cross_attention_gating" in fields else "addcmul"
    attention = ["native_layer_norm", "mm", "_scaled_dot_product_flash_attention_for_cpu", "mm", add]
    mlp = ["native_layer_norm", "mm", "gelu", "mm", add]
    expected = attention * (num_images > 0) + mlp * ("cross_attention_ffn_mult" not in fields)
    text = inputs(model, num_images)[0] if num_images else {"input_ids": prompt("abc")}
    state = torch.randn(3, 1, model.config.text_config.hidden_size)
    with torch.no_grad():
        cache = model(**text, use_cache=True).cache
        cache.batch_repeat_interleave(3)  # three beams
        for block, layer in zip(model.gated_cross_attention, cache.layers[-3:], strict=True):
            with Operations() as operations:
                block(state, None, cache=layer)
            assert operations.names == expected


def test_a_training_step_can_be_counted():
    """Expect three products per trained weight and token, and two per frozen weight that a gradient passes."""
    model = eager("gpt2")
    model.freeze_backbones()
    model.train()
    batch, _ = inputs(model, 4)
    with FlopCounterMode(display=False) as forward, torch.no_grad():
        model(**batch, labels=batch["input_ids"])
    with FlopCounterMode(display=False) as step:
        model(**batch, labels=batch["input_ids"]).loss.backward()
    assert 2 * forward.get_total_flops() < step.get_total_flops() < 3 * forward.get_total_flops()


def test_the_gradient_of_the_logits_is_not_copied():
    model = eager("gpt2").train()
    model.freeze_backbones()
    batch, _ = inputs(model, 4)
    with Operations() as operations:
        model(**batch, labels=batch["input_ids"])  # which computes the gradient of each chunk right away
    assert "nll_loss_backward" in operations.names
    assert "select_backward" not in operations.names


@pytest.mark.parametrize("backward", [False, True])
def test_the_first_layer_of_the_resampler_projects_the_latents_once(backward):
    resampler = tiny_flamingo().resampler

    def cost(num_images: int) -> int:
        with FlopCounterMode(display=False) as counter:
            latents = resampler(torch.randn(num_images, 1, 16, 24))
            if backward:
                latents.sum().backward()
        return counter.get_total_flops()

    attention = resampler.layers[0].attention
    num_weights = sum(
        projection.weight.numel() for projection in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    once = 2 * resampler.num_latents * num_weights * (3 if backward else 1)
    for num_images in (2, 5):
        assert cost(num_images) - once == num_images * (cost(1) - once)


def test_a_layer_of_the_resampler_frees_its_attention_before_the_feed_forward_network():
    resampler = tiny_flamingo(resampler_ffn_mult=16).resampler.eval()  # the widest tensors, as at full size
    width, num_patches = 24, 16

    @torch.no_grad()
    def peak(num_images: int) -> int:
        features = torch.randn(num_images, 1, num_patches, width)
        return allocator_peak(lambda: resampler(features))

    # Latents before and after attention and after the network, its two wide tensors, and features with their frame embedding
    of_an_image = 4 * (resampler.num_latents * (3 * width + 2 * 16 * width) + num_patches * width)
    assert peak(20) - peak(10) == 10 * of_an_image


def saved_bytes(model: FlamingoModel, batch: dict) -> int:
    """Return the bytes that autograd keeps for backward, without the parameters. Each piece of memory counts once."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    sizes = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in parameters:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with saved_tensors_hooks(note, lambda tensor: tensor):
        output = model(**batch)
    del output
    return sum(sizes.values())


def test_training_keeps_of_each_image_its_latents_keys_and_values():
    model = tiny_flamingo()
    model.freeze_backbones()
    model.train()
    config = model.config
    kept = {}
    for num_images in (1, 8, 16):
        batch, latents = inputs(model, num_images)
        given = {"image": {"pooler_output": latents.requires_grad_()}}
        batch |= {"mm_encoder_outputs": given, "labels": batch["input_ids"]}
        kept[num_images] = saved_bytes(model, batch)
    inner = config.cross_attention_num_heads * config.cross_attention_head_dim
    num_keys_and_values = 2 * inner * len(model.gated_cross_attention)
    of_an_image = 4 * config.resampler_num_latents * (num_keys_and_values + config.vision_hidden_size)
    assert kept[16] - kept[8] <= 8 * of_an_image * 1.1
    assert kept[8] - kept[1] <= 7 * of_an_image * 1.1


def test_a_gate_keeps_the_input_of_the_last_projection_and_not_the_branch():
    kept = {}
    for gating in ("tanh", "none"):
        model = tiny_flamingo(cross_attention_gating=gating)
        model.freeze_backbones()
        model.train()
        kept[gating] = saved_bytes(model, inputs(model, 1)[0])
    config, num_blocks = model.config, len(model.gated_cross_attention)
    inner = config.cross_attention_num_heads * config.cross_attention_head_dim
    # A gate is one number, and what it scales in the feed-forward network is computed anew
    assert 0 <= kept["tanh"] - kept["none"] - num_blocks * 4 * LENGTH * inner <= num_blocks * 2 * 4
