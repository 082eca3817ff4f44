# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The layers are those of the paper, written out once more."""

import gc
import weakref

import pytest
import torch
from factory import (
    DROPS_KEYWORDS,
    open_gates,
    prompt,
    random_images,
    tiny_config,
    tiny_flamingo,
    tiny_text_config,
)
from flamingos import assert_close, families, far, pad_images, pad_rows, randomized, run, shared_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM

from transformers_flamingo import FlamingoModel
from transformers_flamingo.layers_flamingo import FlamingoMLP


def written_out(weights: dict[str, torch.Tensor], num_heads: int):
    """The parts of both new modules in plain tensor operations, from their parameters by name."""

    def norm(name, x):
        x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return x * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def attention(name, x, context):
        query, key, value = (
            torch.stack((y @ weights[f"{name}.{p}_proj.weight"].T).chunk(num_heads, -1), -3)
            for p, y in (("q", x), ("k", context), ("v", context))
        )
        scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5
        heads = scores.softmax(-1) @ value
        return torch.cat(heads.unbind(-3), -1) @ weights[f"{name}.o_proj.weight"].T

    def mlp(name, x):
        hidden = norm(f"{name}.norm", x) @ weights[f"{name}.fc1.weight"].T
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / 2**0.5))
        return hidden @ weights[f"{name}.fc2.weight"].T

    return norm, attention, mlp


@torch.no_grad()
def test_resampler_is_the_papers():
    """Figure 5: keys and values from features and latents, both normed; a frame embedding; norms and residuals."""
    resampler = randomized(tiny_flamingo()).resampler
    weights = resampler.state_dict()
    norm, attention, mlp = written_out(weights, num_heads=2)
    features = torch.randn(2, 3, 7, 24, generator=torch.Generator().manual_seed(0))
    x = weights["latents"].expand(2, -1, -1)
    context = (features + weights["frame_embeddings"][:3, None]).flatten(1, 2)
    for i in range(2):
        layer = f"layers.{i}"
        queries = norm(f"{layer}.norm_latents", x)
        both = torch.cat([norm(f"{layer}.norm_features", context), queries], dim=1)
        x = x + attention(f"{layer}.attention", queries, both)
        x = x + mlp(f"{layer}.mlp", x)
    assert_close(resampler(features), norm("norm", x))


def test_latents_that_are_shared_have_the_gradients_of_copies():
    resampler = randomized(tiny_flamingo()).resampler.double()
    features = torch.randn(3, 14, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    layer, weights = resampler.layers[0], (resampler.latents, *resampler.layers[0].parameters())
    results = []
    for latents in (resampler.latents[None], resampler.latents.repeat(3, 1, 1)):
        output = layer(latents, features)
        results.append((output, torch.autograd.grad(output.square().sum(), weights)))
    (shared, shared_gradients), (copied, copied_gradients) = results
    torch.testing.assert_close(shared, copied)
    torch.testing.assert_close(shared_gradients, copied_gradients)


@torch.no_grad()
def test_gated_block_is_the_papers():
    """Figure 4: `x += tanh(gate) * attention(LN(x), latents)`, then `x += tanh(gate) * ffn(LN(x))`."""
    model = randomized(tiny_flamingo())
    calls = []
    block = model.gated_cross_attention[1]
    block.attn_gate.fill_(-1.5)
    block.ffn_gate.fill_(2.0)
    block.register_forward_hook(lambda module, args, output: calls.append((args[0], output)))
    images = random_images(2, 1)
    run(model, prompt("Iabcd", "Iefgh"), images)
    norm, attention, mlp = written_out(block.state_dict(), num_heads=2)
    [(x, output)] = calls
    latents = model.get_image_features(images).pooler_output[:, 0]
    x = x + torch.tanh(torch.tensor(-1.5)) * attention("attention", norm("norm", x), latents)
    x = x + torch.tanh(torch.tensor(2.0)) * mlp("mlp", x)
    assert_close(output, x)


@families
def test_closed_gates_are_the_bare_language_model_bit_for_bit(text):
    torch.manual_seed(0)
    model = FlamingoModel(tiny_config(text)).eval()  # as initialized
    bare = AutoModelForCausalLM.from_config(tiny_text_config(text)).eval()
    bare.load_state_dict(model.language_model.state_dict())
    ids = prompt("aIbcIdefghijk", "IabcdIefghijk")
    with torch.no_grad():
        expected = bare(ids)
    assert torch.equal(run(model, ids, random_images(2, 2)).logits, expected.logits)
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0
    with torch.no_grad():
        padded = bare(ids, attention_mask=mask)
    got = run(model, ids, random_images(2, 2), attention_mask=mask)
    assert torch.equal(got.logits[mask.bool()], padded.logits[mask.bool()])
    # And it is the gates that do it.
    assert far(run(open_gates(model), ids, random_images(2, 2)).logits, expected.logits)


def test_closed_gates_get_gradients_and_nothing_else_of_their_block_does():
    model = tiny_flamingo(gates=0.0)
    ids = prompt("aIbcd")
    model(input_ids=ids, pixel_values=random_images(1, 1), labels=ids).loss.backward()
    for block in model.gated_cross_attention:
        assert block.attn_gate.grad.abs() > 0 and block.ffn_gate.grad.abs() > 0
        assert block.attention.q_proj.weight.grad.abs().max() == 0


def test_frame_embeddings_are_interpolated_beyond_their_number():
    resampler = tiny_flamingo().resampler  # 4 frame embeddings
    with torch.no_grad():
        resampler.frame_embeddings.copy_(torch.tensor([0.0, 10.0, 30.0, 60.0])[:, None].expand(4, 24))
    mask = torch.tensor([[1] * 7, [1] * 4 + [0] * 3, [1] * 2 + [0] * 5, [1] + [0] * 6, [1] * 5 + [0] * 2]).bool()
    with torch.no_grad():
        values = resampler._frame_embeddings(5, 7, mask)
    assert (values == values[..., :1]).all()
    expected = [
        [0, 5, 10, 20, 30, 45, 60],  # 7 frames: every half step
        [0, 10, 30, 60],  # as many as there are
        [0, 10],  # fewer: the first ones, not stretched
        [0],
        [0, 7.5, 20, 37.5, 60],  # 5 frames: steps of 3/4
    ]
    for row, wanted in zip(values[..., 0], expected, strict=True):
        assert_close(row[: len(wanted)], torch.tensor(wanted, dtype=torch.float))
    with torch.no_grad():
        assert_close(resampler._frame_embeddings(1, 7, None)[0], values[0])


def test_frame_embeddings_tell_frames_apart_and_without_them_order_does_not_matter():
    video = random_images(1, 1, 3)
    with_order, without = shared_model(), tiny_flamingo(resampler_num_frames=0)
    assert without.resampler.frame_embeddings is None
    assert "resampler.frame_embeddings" not in without.state_dict()
    with torch.no_grad():
        with_order.resampler.frame_embeddings.normal_(generator=torch.Generator().manual_seed(0))
    for model, matters in ((with_order, True), (without, False)):
        forward, backward = (model.get_image_features(v).pooler_output for v in (video, video.flip(2)))
        assert far(forward, backward) == matters
    shared_model.cache_clear()


def test_one_frame_embedding_serves_any_number_of_frames():
    model = tiny_flamingo(resampler_num_frames=1)
    assert torch.isfinite(model.get_image_features(random_images(1, 1, 3)).pooler_output).all()


@families
def test_eager_and_sdpa_agree(text):
    model = tiny_flamingo(text)
    ids, mask = pad_rows(["aIbcdIef", "Iab"], "left")
    pixels, frame_mask = pad_images([random_images(2), random_images(1)])
    inputs = {"attention_mask": mask, "frame_attention_mask": frame_mask}
    logits = {}
    for implementation in ("eager", "sdpa"):
        model.set_attn_implementation(implementation)
        configs = [model.config, model.vision_model.config]
        if text not in DROPS_KEYWORDS:  # whose attention is not set through the interface
            configs.append(model.language_model.config)
        for config in configs:
            assert config._attn_implementation == implementation
        logits[implementation] = run(model, ids, pixels, **inputs).logits[mask.bool()]
    assert_close(logits["eager"], logits["sdpa"])


@pytest.mark.parametrize("implementation", ["flash_attention_2", "flex_attention"])
def test_attention_that_was_not_tried_is_refused(implementation):
    config = tiny_config()
    with pytest.raises((ValueError, ImportError)):
        FlamingoModel._from_config(config, attn_implementation=implementation)


@pytest.mark.parametrize("num_layers", [1, 2, 6])
def test_untrained_latents_differ_between_images_and_among_themselves(num_layers):
    """
    Of the variance, a good part is between images, and another between the latents of an image.

    With a standard deviation of 1, 6 % was between images with one layer, and with one of .02, 2 % between latents.
    """
    torch.manual_seed(0)
    resampler = FlamingoModel(tiny_config(resampler_num_layers=num_layers)).resampler
    latents = resampler(torch.randn(32, 1, 1, 24) * 2 + torch.randn(32, 1, 16, 24))
    total = latents.flatten(0, 1).var(dim=0).mean()
    assert latents.var(dim=0).mean() > 0.3 * total
    assert latents.var(dim=1).mean() > 0.3 * total


def test_the_output_of_an_activation_is_computed_anew_for_backward():
    """It is the widest tensor of a block. Gradients are the same to the bit, and no product is computed twice."""
    torch.manual_seed(0)
    mlp = FlamingoMLP(8, 32, "gelu")
    inputs = torch.randn(2, 3, 8)
    kept, gradients, products = [], [], []
    mlp.act.register_forward_hook(lambda module, args, output: kept.append(weakref.ref(output)))
    for is_training in (True, False):
        mlp.train(is_training)
        kept.clear()
        with FlopCounterMode(display=False) as counter:
            output = mlp(inputs)
            gc.collect()
            assert (kept[0]() is None) == is_training
            output.square().sum().backward()
        products.append(counter.get_total_flops())
        gradients.append([parameter.grad for parameter in mlp.parameters()])
        mlp.zero_grad()
    assert all(map(torch.equal, *gradients))
    assert products[0] == products[1]
