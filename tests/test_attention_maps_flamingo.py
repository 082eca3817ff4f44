# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""What the model looked at: weights and maps are those of a plain computation, and asking for them changes nothing else."""

import math

import pytest
import torch
from decoding import LENGTH, NEW, left_padded, lively
from factory import IMAGE, prompt, random_images, tiny_flamingo
from flamingos import assert_close, pad_images, pad_rows, randomized, run
from test_feature_maps_flamingo import make_model
from torch import nn
from transformers.cache_utils import DynamicLayer

from transformers_flamingo.attention_maps_flamingo import SEEN, attention_maps, find_patch_grid
from transformers_flamingo.media_cache_flamingo import MediaCacheLayer
from transformers_flamingo.visibility_flamingo import build_mask_layout, build_segment_layout


def softmax_weights(attention, query: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """The weights `(heads, queries, keys)` of one sequence to another, head by head."""
    queries, keys = attention.q_proj(query), attention.k_proj(context)
    size = attention.head_dim
    heads = range(0, queries.shape[-1], size)
    scores = torch.stack([queries[:, h : h + size] @ keys[:, h : h + size].T for h in heads])
    return (scores / math.sqrt(size)).softmax(dim=-1)


@torch.no_grad()
def plain_resampler_weights(model, features: torch.Tensor, real: list[bool]) -> list[torch.Tensor]:
    """The weights `(heads, L, F * P + L)` of each layer, for one image or video `(F, P, Dv)`, over its real frames alone."""
    resampler = model.resampler
    frames, patches, _ = features.shape
    num_latents, kind = resampler.num_latents, resampler.resampler_type
    seen = features[real]
    if resampler.frame_embeddings is not None:
        seen = seen + resampler.frame_embeddings[: len(seen), None]
    seen = seen.flatten(0, 1)
    places = [f * patches + p for f in range(frames) if real[f] for p in range(patches)]
    places += range(frames * patches, frames * patches + num_latents)
    found = []
    latents = resampler.latents
    sequence = torch.cat([seen, latents])
    for layer in resampler.layers:
        if kind == "perceiver":
            normed = layer.norm_latents(latents)
            weights = softmax_weights(layer.attention, normed, torch.cat([layer.norm_features(seen), normed]))
            latents = layer(latents[None], seen[None])[0]
        else:
            normed = layer.norm_latents(sequence)
            weights = softmax_weights(layer.attention, normed[-num_latents:], normed)
            sequence = layer(sequence[None])[0]
        full = torch.zeros(*weights.shape[:2], frames * patches + num_latents)
        full[:, :, places] = weights
        found.append(full)
    return found


@torch.no_grad()
def plain_token_weights(model, outputs, hidden_states: dict[int, torch.Tensor], ids, mask) -> list[torch.Tensor]:
    """The weights `(B, heads, T, L)` of each block, one token after the other."""
    found = []
    for block, states in zip(model.gated_cross_attention, hidden_states.values(), strict=True):
        weights = torch.zeros(len(ids), model.config.cross_attention_num_heads, ids.shape[1], 5)
        for b, row in enumerate(ids):
            image = 0
            for t, token in enumerate(row):
                image += int(token == IMAGE)
                if image and mask[b, t]:
                    latents = outputs.image_hidden_states[b, image - 1]
                    weights[b, :, t] = softmax_weights(block.attention, block.norm(states[b, t : t + 1]), latents)[
                        :, 0
                    ]
        found.append(weights)
    return found


def block_inputs(model) -> dict[int, torch.Tensor]:
    """A dictionary that gets the hidden states that enter each gated block."""
    inputs: dict[int, torch.Tensor] = {}
    for index, block in enumerate(model.gated_cross_attention):
        block.register_forward_pre_hook(lambda module, args, index=index: inputs.__setitem__(index, args[0]))
    return inputs


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("text", ["gpt2", "mpt"])
def test_weights_and_maps_of_padded_samples_are_plain_softmax(text, implementation):
    model = randomized(tiny_flamingo(text))
    model.set_attn_implementation({"": implementation})
    inputs = block_inputs(model)
    ids, mask = pad_rows(["aIbcdIef", "Iab"], "right" if text == "mpt" else "left")
    pixels, frame_mask = pad_images([random_images(2), random_images(1, seed=1)])
    kwargs = {"attention_mask": mask, "frame_attention_mask": frame_mask}
    silent = run(model, ids, pixels, **kwargs)
    outputs = run(model, ids, pixels, output_cross_attentions=True, **kwargs)
    assert torch.equal(outputs.logits, silent.logits)
    assert not set(SEEN) & set(silent)
    assert "attentions" not in outputs

    expected = plain_token_weights(model, outputs, inputs, ids, mask)
    for weights, plain in zip(outputs.cross_attentions, expected, strict=True):
        assert_close(weights, plain)
    features = model.get_image_features(pixels, frame_mask).last_hidden_state
    patches = torch.zeros(2, 2, 5, 4)
    for b, n in ((0, 0), (0, 1), (1, 0)):
        layers = plain_resampler_weights(model, features[b, n][None], [True])
        for weights, plain in zip(outputs.resampler_attentions, layers, strict=True):
            assert_close(weights[b, n], plain)
        patches[b, n] = torch.stack(layers).mean(dim=(0, 1))[:, :4]
    assert not any(weights[1, 1].any() for weights in outputs.resampler_attentions)

    maps = attention_maps(outputs)
    assert maps.shape == (2, 8, 1, 2, 2)
    patches /= patches.sum(dim=-1, keepdim=True)
    looked = torch.stack(expected).mean(dim=(0, 2))
    for b, row in enumerate(ids):
        image = 0
        for t, token in enumerate(row):
            image += int(token == IMAGE)
            plain = looked[b, t] @ patches[b, image - 1] if image and mask[b, t] else torch.zeros(4)
            assert_close(maps[b, t].flatten(), plain)


@pytest.mark.parametrize("kind", ["perceiver", "transformer"])
def test_videos_with_padded_frames(kind):
    model = randomized(tiny_flamingo(resampler_type=kind))
    videos, frame_mask = random_images(2, 1, 3), torch.tensor([[[1, 1, 0]], [[1, 1, 1]]])
    outputs = run(model, prompt("Iab", "aIb"), videos, frame_attention_mask=frame_mask, output_cross_attentions=True)
    features = model.get_image_features(videos, frame_mask).last_hidden_state
    for b in range(2):
        layers = plain_resampler_weights(model, features[b, 0], frame_mask[b, 0].bool().tolist())
        for weights, plain in zip(outputs.resampler_attentions, layers, strict=True):
            assert_close(weights[b, 0], plain)
    maps = attention_maps(outputs)
    assert maps.shape == (2, 3, 3, 2, 2)
    assert_close(maps.flatten(2).sum(dim=-1), torch.tensor([[1.0, 1, 1], [0, 1, 1]]))
    assert not maps[0, :, 2].any()


def test_a_resampler_without_attention_shows_its_pooling():
    model = tiny_flamingo(resampler_type="mlp", resampler_num_latents=2)
    frame_mask = torch.tensor([[[1, 0]]])
    outputs = run(
        model, prompt("Ia"), random_images(1, 1, 2), frame_attention_mask=frame_mask, output_cross_attentions=True
    )
    (weights,) = outputs.resampler_attentions
    # Two latents of four patches: the first two and the last two, of the one real frame; nothing of latents
    expected = [[0.5, 0.5, 0, 0] + [0] * 6, [0, 0, 0.5, 0.5] + [0] * 6]
    assert_close(weights[0, 0, 0], torch.tensor(expected))
    looked = torch.stack(outputs.cross_attentions).mean(dim=(0, 2))[0]
    assert_close(attention_maps(outputs)[0, :, 0].flatten(1), looked.repeat_interleave(2, dim=1) / 2)


def test_the_map_of_a_convolutional_encoder_has_its_rows_and_columns():
    model = make_model("resnet")
    pixels = torch.randn(1, 1, 3, 16, 32)
    outputs = run(model, prompt("Ia"), pixels, output_cross_attentions=True)
    rows, columns = model.vision_model(pixel_values=pixels[0]).last_hidden_state.shape[2:]
    assert rows < columns
    assert outputs.patch_grid.tolist() == [[[1, rows, columns]]]
    assert attention_maps(outputs).shape == (1, 2, 1, rows, columns)


@pytest.mark.parametrize("vision", ["clip", "siglip"])
def test_tokens_before_the_patches_have_no_place_in_a_map(vision):
    model = tiny_flamingo(vision=vision, vision_feature_select_strategy="full")
    outputs = run(model, prompt("Ia"), random_images(1, 1), output_cross_attentions=True)
    maps = attention_maps(outputs)
    assert maps.shape == (1, 2, 1, 2, 2)
    assert_close(maps.sum(dim=(2, 3, 4)), torch.ones(1, 2))
    assert outputs.resampler_attentions[0].shape[-1] == (5 if vision == "clip" else 4) + 5


@pytest.mark.parametrize(
    ("num_tokens", "image_size", "patch_size", "map_size", "grid"),
    [
        (257, (224, 224), 14, (), (16, 16)),
        (128, (64, 128), (8, 8), (), (8, 16)),
        (8, (64, 128), 4, (), (2, 4)),  # Swin merges 8 x 8 patches
        (15, (20, 36), 4, (), (3, 5)),  # 5 x 9 patches, halved and rounded up
        (49, (224, 224), None, (), (7, 7)),
        (49, None, None, (), (7, 7)),
        (6, (99, 99), None, (2, 3), (2, 3)),
        (6, None, None, (), None),
    ],
)
def test_rows_and_columns_are_found(num_tokens, image_size, patch_size, map_size, grid):
    assert find_patch_grid(num_tokens, image_size, patch_size, map_size) == grid


def test_features_passed_again_and_latents_alone():
    model = tiny_flamingo()
    ids, pixels = prompt("aIb"), random_images(1, 1)
    expected = attention_maps(run(model, ids, pixels, output_cross_attentions=True))
    features = model.get_image_features(pixels, output_cross_attentions=True)
    for given in (features, {"last_hidden_state": features.last_hidden_state}):
        outputs = run(model, ids, mm_encoder_outputs={"image": given}, output_cross_attentions=True)
        assert_close(attention_maps(outputs), expected)
    latents = {"pooler_output": features.pooler_output}
    outputs = run(model, ids, mm_encoder_outputs={"image": latents}, output_cross_attentions=True)
    assert len(outputs.cross_attentions) == 3
    with pytest.raises(ValueError, match="`outputs` has no `resampler_attentions`.*get_image_features"):
        attention_maps(outputs)
    with pytest.raises(ValueError, match="no `cross_attentions`.*output_cross_attentions=True"):
        attention_maps(run(model, ids, pixels))
    with pytest.raises(ValueError, match="9 patches, but the images have 4"):
        attention_maps(run(model, ids, pixels, output_cross_attentions=True), grid=(1, 3, 3))


def test_text_alone_looks_at_nothing():
    outputs = run(tiny_flamingo(), prompt("abc"), output_cross_attentions=True)
    assert [weights.shape for weights in outputs.cross_attentions] == [(1, 2, 3, 5)] * 3
    assert not any(weights.any() for weights in outputs.cross_attentions)
    assert not attention_maps(outputs).any()


def test_output_attentions_asks_for_both_kinds():
    model = tiny_flamingo()
    model.set_attn_implementation("eager")
    outputs = run(model, prompt("aIb"), random_images(1, 1), output_attentions=True)
    assert [len(outputs[name]) for name in ("attentions", "cross_attentions", "resampler_attentions")] == [3, 3, 2]
    features = model.get_image_features(random_images(1, 1), output_attentions=True)
    assert (len(features.attentions), len(features.resampler_attentions)) == (2, 2)
    body = model.base_model(prompt("aIb"), pixel_values=random_images(1, 1), output_attentions=True)
    assert len(body.cross_attentions) == 3


GENERATIONS = [
    {},
    {"num_beams": 3},
    {"num_beams": 3, "num_return_sequences": 2},
    {"use_cache": False},
    {"prefill_chunk_size": 3},
    {"do_sample": True, "num_return_sequences": 2},
]


@pytest.mark.parametrize("kwargs", GENERATIONS, ids=str)
def test_maps_of_generated_tokens_are_those_of_one_forward_pass(kwargs):
    model = lively("llama")
    inputs = left_padded()
    torch.manual_seed(0)
    silent = model.generate(**inputs, **LENGTH, **kwargs)
    torch.manual_seed(0)
    asked = {"output_cross_attentions": True, "return_dict_in_generate": True}
    outputs = model.generate(**inputs, **asked, **LENGTH, **kwargs)
    assert torch.equal(outputs.sequences, silent)
    maps = attention_maps(outputs)
    check_against_forward(model, inputs, outputs.sequences, maps)


def check_against_forward(model, inputs: dict, sequences: torch.Tensor, maps: torch.Tensor) -> None:
    """Compare maps of generated tokens with those of the whole text, whose token `t` predicts the next."""
    repeats = len(sequences) // len(inputs["input_ids"])
    repeated = {name: value.repeat_interleave(repeats, dim=0) for name, value in inputs.items()}
    mask = nn.functional.pad(repeated.pop("attention_mask"), (0, NEW), value=1)
    repeated["input_ids"] = sequences
    outputs = run(model, **repeated, attention_mask=mask, output_cross_attentions=True)
    assert_close(maps, attention_maps(outputs)[:, -NEW - 1 : -1])


def test_maps_of_assisted_decoding():
    model = lively("gpt2")
    inputs = {"input_ids": prompt("aIbcbcbcb"), "pixel_values": random_images(1, 1)}
    outputs = model.generate(
        **inputs, **LENGTH, prompt_lookup_num_tokens=3, output_cross_attentions=True, return_dict_in_generate=True
    )
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    assert len(outputs.cross_attentions) == NEW
    check_against_forward(model, inputs, outputs.sequences, attention_maps(outputs))


def test_an_assistant_is_not_asked_what_it_looked_at():
    model = lively("gpt2")
    inputs = {"input_ids": prompt("aIbcb"), "pixel_values": random_images(1, 1)}
    outputs = model.generate(
        **inputs,
        **LENGTH,
        assistant_model=lively("gpt2").language_model,
        output_cross_attentions=True,
        return_dict_in_generate=True,
    )
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    check_against_forward(model, inputs, outputs.sequences, attention_maps(outputs))


def test_a_conversation_that_continues_from_its_cache():
    model = lively("gpt2")
    images = random_images(1, 3)
    whole = prompt("aIbIcdIe")
    expected = attention_maps(run(model, whole, images, output_cross_attentions=True))
    first = run(model, whole[:, :5], images[:, :2], use_cache=True)
    second = run(model, whole[:, 5:], images[:, 2:], cache=first.cache, output_cross_attentions=True)
    assert second.media_index.tolist() == [[0, 1, 1]]
    with pytest.raises(ValueError, match="image of an earlier call.*image_features"):
        attention_maps(second)
    earlier = model.get_image_features(images[:, :2], output_cross_attentions=True)
    assert_close(attention_maps(second, image_features=earlier), expected[:, 5:])


@pytest.mark.parametrize("num_beams", [1, 2])
def test_a_generation_that_continues_from_its_cache(num_beams):
    model = lively("gpt2")
    images = random_images(2, 1)
    asked = {"output_cross_attentions": True, "return_dict_in_generate": True, "num_beams": num_beams, **LENGTH}
    texts = prompt("aIbc", "Iabc"), prompt("aIbcde", "Iabcde")
    expected = model.generate(texts[1], pixel_values=images, **asked)
    cache = run(model, texts[0], images, use_cache=True).cache
    if num_beams > 1:
        cache.batch_repeat_interleave(num_beams)
    outputs = model.generate(texts[1], cache=cache, **asked)
    assert torch.equal(outputs.sequences, expected.sequences)
    features = model.get_image_features(images, output_cross_attentions=True)
    assert_close(attention_maps(outputs, image_features=features), attention_maps(expected))


def test_a_cached_sample_without_an_image_looks_at_nothing():
    model = lively("gpt2")
    pixels, frame_mask = pad_images([random_images(1), random_images(0)])
    first = run(model, prompt("aIb", "abc"), pixels, frame_attention_mask=frame_mask, use_cache=True)
    outputs = run(model, prompt("d", "d"), cache=first.cache, output_cross_attentions=True)
    for weights in outputs.cross_attentions:
        assert_close(weights.sum(dim=-1)[:, :, 0], torch.tensor([[1.0, 1.0], [0.0, 0.0]]))


@pytest.mark.parametrize("is_cached", [False, True])
@torch.no_grad()
def test_both_layouts_give_the_same_weights(is_cached):
    block = tiny_flamingo().gated_cross_attention[0]
    media_index = torch.tensor([[-1, 0, 1, 1, 2], [0, 0, 0, 0, 0], [1, 2, 2, 2, 2]])
    hidden_states, latents = torch.randn(3, 5, 32), torch.randn(3, 2, 5, 24)
    found = []
    for layout in (build_mask_layout(media_index, latents, latents.dtype), None):
        cache = MediaCacheLayer(DynamicLayer())
        if is_cached:
            generator = torch.Generator().manual_seed(1)
            keys = torch.randn(3, 2, 5, 8, generator=generator)
            keys[2] = 0  # a sample without an image
            cache.lazy_initialization(keys, keys)
        seen = latents
        if layout is None:
            layout, index = build_segment_layout(media_index, is_cached, num_past_tokens=0)
            seen = latents.flatten(0, 1)[index]
        found.append(block(hidden_states, seen, layout=layout, cache=cache, output_attentions=True)[1])
    is_text = (media_index >= 0)[:, None, :, None]
    assert_close(found[0] * is_text, found[1])
    expected = (media_index > 0) | (is_cached & (media_index == 0) & torch.tensor([[1], [1], [0]]).bool())
    assert_close(found[1].sum(dim=-1), expected[:, None].expand(-1, 2, -1).float())


def test_weights_are_part_of_the_graph_with_checkpointing_too():
    """So that a loss on where the model looks can be trained."""
    gradients = []
    for checkpoints in (False, True):
        model = tiny_flamingo().train()
        if checkpoints:
            model.activation_checkpointing_enable()
        outputs = model(prompt("aIb"), pixel_values=random_images(1, 1), output_cross_attentions=True)
        (outputs.cross_attentions[-1][..., 0].sum() + outputs.resampler_attentions[0][..., 0].sum()).backward()
        gradients.append(model.resampler.latents.grad)
    assert gradients[0].abs().max() > 0
    assert_close(*gradients)


def test_a_generation_that_returns_tokens_alone_says_that_asking_has_no_effect(caplog):
    model = tiny_flamingo()
    model.generate(prompt("aIb"), pixel_values=random_images(1, 1), max_new_tokens=1, output_cross_attentions=True)
    assert "return_dict_in_generate=True" in caplog.text


@pytest.mark.parametrize("text", ["gpt2", "opt", "llama"])
def test_a_training_step_may_ask_for_them(text):
    """The loss is computed in chunks then, from outputs that have more than the decoder's own."""
    model, ids, pixels = tiny_flamingo(text).train(), prompt("aIbcE"), random_images(1, 1)
    torch.manual_seed(0)  # of dropout
    plain = model(input_ids=ids, pixel_values=pixels, labels=ids)
    torch.manual_seed(0)
    seen = model(input_ids=ids, pixel_values=pixels, labels=ids, output_cross_attentions=True)
    assert plain.logits is None and torch.equal(plain.loss, seen.loss)
    assert attention_maps(seen).shape[:2] == ids.shape


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ((1, 1, 2), "2 patches, but the images have"),
        ((2, 2), "the numbers of frames, rows and columns"),
        ((1, 0, 0), "of at least 1"),
        ((1, -7, -7), "of at least 1"),
    ],
)
def test_a_wrong_grid_is_refused(grid, message):
    model, ids, pixels = tiny_flamingo(), prompt("aIb"), random_images(1, 1)
    outputs = model(input_ids=ids, pixel_values=pixels, output_cross_attentions=True)
    with pytest.raises(ValueError, match=message):
        attention_maps(outputs, grid=grid)


def test_a_wrong_grid_is_refused_without_an_image_too():
    outputs = tiny_flamingo()(input_ids=prompt("ab"), output_cross_attentions=True)
    with pytest.raises(ValueError, match="the numbers of frames, rows and columns"):
        attention_maps(outputs, grid=(2, 2))


def test_tokens_alone_do_not_say_where_the_model_looked():
    with pytest.raises(ValueError, match="`generate\\(\\)` also with `return_dict_in_generate=True`"):
        attention_maps(torch.ones(1, 3))
