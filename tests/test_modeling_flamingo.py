# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The model's forward pass: which image a token sees, what an image, a video, or a feature becomes, and that nothing
is left behind.

Unless a test says otherwise the gates are open: with closed gates a Flamingo is its language model and most of these
tests could not fail.
"""

import copy
import functools
import pickle
import threading

import pytest
import torch
from factory import (
    BOS,
    DROPS_KEYWORDS,
    END_OF_CHUNK,
    IMAGE,
    IMAGE_SIZE,
    PAD,
    TEXT_CONFIGS,
    VISION_CONFIGS,
    VOCAB_SIZE,
    open_gates,
    prompt,
    random_images,
    tiny_config,
    tiny_flamingo,
    tiny_text_config,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.cache_utils import DynamicLayer

from transformers_flamingo import FlamingoConfig, FlamingoModel, modeling_flamingo
from transformers_flamingo.modeling_flamingo import (
    MediaCacheLayer,
    _build_mask_layout,
    _build_segment_layout,
    compute_media_index,
)


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


# ---------------------------------------------------------------------------------------------------------------------
# Which image a token sees
# ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "phi"),
    [
        ("abc", [0, 0, 0]),
        ("Iab", [1, 1, 1]),
        ("abIc", [0, 0, 1, 1]),
        ("abI", [0, 0, 1]),
        ("IIab", [1, 2, 2, 2]),
        ("aIbIIc", [0, 1, 1, 2, 3, 3]),
        ("I", [1]),
    ],
)
def test_media_index_truth_table(text, phi):
    assert compute_media_index(prompt(text) == IMAGE).tolist() == [phi]


@pytest.mark.parametrize(
    ("text", "documents", "phi"),
    [
        ("aIbIcd", "000000", [0, 1, 1, 2, 2, 2]),
        ("aIbcId", "000111", [0, 1, 1, 0, 2, 2]),
        ("Iabcde", "011222", [1, 0, 0, 0, 0, 0]),
        ("abIIcd", "001122", [0, 0, 1, 2, 0, 0]),
        ("IIaIbc", "000112", [1, 2, 2, 3, 3, 0]),
        ("aIIIbI", "011012", [0, 1, 2, 3, 0, 4]),  # a number that comes again is another document
    ],
)
def test_a_packed_document_sees_its_own_images(text, documents, phi):
    documents = torch.tensor([[int(c) for c in documents]])
    assert compute_media_index(prompt(text) == IMAGE, documents).tolist() == [phi]


@pytest.mark.parametrize(
    ("media_index", "message"),
    [
        ([[0, 1, 2], [0, 1, 1]], "is 2 at token 2 of sample 0, which has 1 images"),
        ([[0, 1, 1], [0, 2, 3]], "is 3 at token 2 of sample 1, which has 2 images"),
        ([[0, -1, 1], [0, 1, 1]], "is -1 at token 1 of sample 0"),
        ([[0, 1, 1]], r"has shape \(1, 3\), but the text has \(2, 3\)"),
    ],
)
def test_media_index_names_images_that_are_there(media_index, message):
    model, ids, images = shared_model(), prompt("aIb", "IcI"), random_images(2, 2)
    with pytest.raises(ValueError, match=message):
        run(
            model,
            ids,
            images,
            frame_attention_mask=torch.tensor([[1, 0], [1, 1]]),
            media_index=torch.tensor(media_index),
        )
    with pytest.raises(ValueError, match="which has 0 images"):
        run(model, ids, media_index=torch.tensor([[0, 1, 1], [0, 0, 0]]))


def test_packed_documents_are_not_cached():
    with pytest.raises(ValueError, match="leave out `use_cache`"):
        run(shared_model(), prompt("abcd"), position_ids=torch.tensor([[0, 1, 0, 1]]), use_cache=True)
    assert run(shared_model(), prompt("abcd"), position_ids=torch.tensor([[0, 1, 0, 1]])).cache is None
    assert run(shared_model(), prompt("abcd"), position_ids=torch.tensor([[0, 1, 2, 3]])).cache is not None


@pytest.mark.parametrize(
    ("text", "mask", "phi"),
    [
        # Padding on either side, even by the image token itself, marks nothing.
        ("__aIb", "00111", [0, 0, 0, 1, 1]),
        ("aIb__", "11100", [0, 1, 1, 1, 1]),
        ("IIaIb", "00111", [0, 0, 0, 1, 1]),
        ("aIbII", "11100", [0, 1, 1, 1, 1]),
    ],
)
def test_padding_marks_no_image(text, mask, phi):
    model, ids = shared_model(), prompt(text)
    attention_mask = torch.tensor([[int(c) for c in mask]])
    assert compute_media_index(model._find_markers(ids, None, attention_mask)).tolist() == [phi]
    embeds = model.get_input_embeddings()(ids)
    assert compute_media_index(model._find_markers(None, embeds, attention_mask)).tolist() == [phi]
    assert_close(
        run(model, ids, random_images(1, 1), attention_mask=attention_mask).logits[attention_mask.bool()],
        run(model, prompt("aIb"), random_images(1, 1)).logits[0],
    )


def reference_attention(block, hidden_states, latents, media_index, past):
    """The rule, token by token: softmax over the `L` keys of one image, or 0. Also the keys of the last image."""
    batch_size, length, _ = hidden_states.shape
    attention = block.attention
    attended = torch.zeros_like(hidden_states)
    last_keys = []
    for b in range(batch_size):
        key_values = {}
        if past is not None:
            key_values[0] = (past.keys[b], past.values[b])
        for n in range(latents.shape[1]):
            key_values[n + 1] = tuple(x[0] for x in attention.project_context(latents[b : b + 1, n]))
        for t in range(length):
            phi = int(media_index[b, t])
            if phi not in key_values:
                continue
            key, value = key_values[phi]  # (heads, L, head_dim)
            query = attention.split_heads(attention.q_proj(block.norm(hidden_states[b : b + 1, t : t + 1])))[0]
            weights = (query @ key.transpose(1, 2) * attention.scaling).softmax(-1)
            attended[b, t] = attention.o_proj((weights @ value).transpose(0, 1).flatten())
        last = max(int(media_index[b].max()), 0)
        last_keys.append(key_values[last][0] if last in key_values else torch.zeros_like(key_values[1][0]))
    hidden_states = hidden_states + block.attn_gate.tanh() * attended
    return hidden_states + block.ffn_gate.tanh() * block.mlp(hidden_states), torch.stack(last_keys)


@st.composite
def marked_batches(draw):
    batch_size = draw(st.integers(1, 4))
    length = draw(st.integers(1, 12))
    density = draw(st.sampled_from([0.1, 0.3, 0.8]))
    seed = draw(st.integers(0, 2**31 - 1))
    generator = torch.Generator().manual_seed(seed)
    markers = torch.rand(batch_size, length, generator=generator) < density
    mask = torch.ones(batch_size, length, dtype=torch.bool)
    side = draw(st.sampled_from(["none", "left", "right"]))
    for row in mask:
        pad = int(torch.randint(0, length, (1,), generator=generator))
        if side == "left":
            row[:pad] = False
        elif side == "right":
            row[length - pad :] = False
    return markers & mask, mask, draw(st.booleans()), generator


@settings(max_examples=120, suppress_health_check=list(HealthCheck))
@given(batch=marked_batches())
@torch.no_grad()
def test_both_layouts_are_the_rule(batch):
    """Segments, mask and a loop over tokens agree on any pattern of markers, padding and cached images."""
    markers, is_text, is_cached, generator = batch
    block = shared_model().gated_cross_attention[0]
    batch_size, length = markers.shape
    media_index = compute_media_index(markers).masked_fill(~is_text, -1)
    num_media = int(media_index.max().clamp(min=1)) + 1  # one more than any sample has: padding among the images
    hidden_states = torch.randn(batch_size, length, 32, generator=generator)
    latents = torch.randn(batch_size, num_media, 5, 24, generator=generator)

    def cache_layer():
        layer = MediaCacheLayer(DynamicLayer())
        if is_cached:
            past = torch.Generator().manual_seed(1)
            keys, values = (torch.randn(batch_size, 2, 5, 8, generator=past) for _ in range(2))
            layer.lazy_initialization(keys, values)
        return layer

    expected, expected_keys = reference_attention(
        block, hidden_states, latents, media_index, cache_layer() if is_cached else None
    )
    masked_cache, segment_cache = cache_layer(), cache_layer()
    mask_layout = _build_mask_layout(media_index, latents, latents.dtype)
    masked = block(hidden_states, latents, layout=mask_layout, cache=masked_cache)
    layout, seen = _build_segment_layout(media_index, is_cached, num_past_tokens=7)
    if layout is None:
        assert int(media_index.max()) <= 0
        segmented = block(hidden_states, None, cache=segment_cache)
    else:
        num_seen = int(media_index.max())
        seen_latents = latents[:, :num_seen].flatten(0, 1)[seen]
        segmented = block(hidden_states, seen_latents, layout=layout, cache=segment_cache)
        assert_close(segment_cache.keys, expected_keys)
        assert_close(segment_cache.values, masked_cache.values)
        # The bound of the docstring: at most about twice as many slots as tokens.
        num_tokens = int((media_index >= (0 if is_cached else 1)).sum())
        assert len(layout.token_index) <= 2 * num_tokens + length
        last = [row.nonzero().max().item() for row in markers if row.any()]
        assert layout.last_media_position == 7 + max(last)
    assert_close(segmented[is_text], expected[is_text])
    assert_close(masked[is_text], expected[is_text])
    assert_close(masked_cache.keys, expected_keys)


def randomised(model: FlamingoModel) -> FlamingoModel:
    """Layer norms as no initialisation has them, so that each one counts."""
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
    resampler = randomised(tiny_flamingo()).resampler
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


@torch.no_grad()
def test_gated_block_is_the_papers():
    """Figure 4: `x += tanh(gate) * attention(LN(x), latents)`, then `x += tanh(gate) * ffn(LN(x))`."""
    model = randomised(tiny_flamingo())
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
    model = FlamingoModel(tiny_config(text)).eval()  # as initialised
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


@families
def test_an_image_moves_only_what_follows_its_marker(text):
    model = shared_model(text)
    ids = prompt("abIcdIIefIgh", "IaIbcdIefghI")
    images = random_images(2, 4)
    before = run(model, ids, images).logits
    for sample in range(2):
        marks = (ids[sample] == IMAGE).nonzero().flatten().tolist()
        for k, mark in enumerate(marks):
            changed = images.clone()
            changed[sample, k] += 1.0
            after = run(model, ids, changed).logits
            assert torch.equal(after[1 - sample], before[1 - sample])
            assert torch.equal(after[sample, :mark], before[sample, :mark])
            # Each token from the marker to the next one has it in view.
            end = [*marks, ids.shape[1]][k + 1]
            assert ((after - before)[sample, mark:end].abs().amax(-1) > 1e-5).all()


def test_a_token_sees_the_last_image_and_no_other():
    """What the one gated block returns moves for the tokens of the changed image alone."""
    model = shared_model(cross_attention_layers=(2,))
    seen = []
    block = model.gated_cross_attention[0]
    handle = block.register_forward_hook(lambda module, args, output: seen.append(output))
    try:
        ids, images = prompt("aIbcIde"), random_images(1, 2)
        run(model, ids, images)
        changed = images.clone()
        changed[0, 0] += 1.0
        run(model, ids, changed)
    finally:
        handle.remove()
    moved = (seen[0] - seen[1])[0].abs().amax(-1) > 1e-6
    assert moved.tolist() == [False, True, True, True, False, False, False]


@families
def test_text_alone_equals_the_same_text_followed_by_an_image(text):
    model = shared_model(text)
    alone = run(model, prompt("abcde")).logits
    followed = run(model, prompt("abcdeIfg"), random_images(1, 1)).logits
    assert_close(followed[:, :5], alone)
    # The feed-forward branch runs without an image: this is not the language model.
    with torch.no_grad():
        bare = model.language_model(prompt("abcde")).logits
    assert far(alone, bare)


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


@families
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_padded_batch_equals_its_samples_one_by_one(text, side):
    model = shared_model(text)
    rows = ["aIbcdIefghijk", "Iab", "abcdef", "abcdIIe"]
    images = [random_images(row.count("I"), seed=i) for i, row in enumerate(rows)]
    ids, mask = pad_rows(rows, side)
    pixels, frame_mask = pad_images(images)
    batch = run(model, ids, pixels, frame_attention_mask=frame_mask, attention_mask=mask).logits
    for b, row in enumerate(rows):
        alone = run(model, prompt(row), images[b][None] if len(images[b]) else None).logits[0]
        assert_close(batch[b][mask[b].bool()], alone)


def test_padding_images_may_stand_anywhere_and_hold_anything():
    model = shared_model()
    pixels = torch.full((1, 3, 3, IMAGE_SIZE, IMAGE_SIZE), float("nan"))
    pixels[0, 1] = random_images(1)[0]
    padded = run(model, prompt("aIb"), pixels, frame_attention_mask=torch.tensor([[0, 1, 0]]))
    # The image is the first real one, so it belongs to the first marker.
    assert_close(padded.logits, run(model, prompt("aIb"), pixels[:, 1:2]).logits)


@pytest.mark.parametrize(
    ("rows", "num_images", "message"),
    [
        (["aIb", "abc"], [1, 1], r"sample 1: 0 markers, 1 images"),
        (["aIb", "IIc"], [1, 1], r"sample 1: 2 markers, 1 images"),
        (["abc", "abc"], [2, 1], r"sample 0: 0 markers, 2 images; sample 1: 0 markers, 1 images"),
    ],
)
def test_counts_that_differ_are_an_error_naming_sample_and_counts(rows, num_images, message):
    model = shared_model()
    pixels, mask = pad_images([random_images(n) for n in num_images])
    inputs = {"input_ids": prompt(*rows), "pixel_values": pixels, "frame_attention_mask": mask}
    with pytest.raises(ValueError, match=message):
        model(**inputs)
    with pytest.raises(ValueError, match=message):
        model.generate(**inputs, max_new_tokens=1)


def test_markers_without_any_image_are_an_error():
    model = shared_model()
    for call in (model, functools.partial(model.generate, max_new_tokens=1)):
        with pytest.raises(ValueError, match="sample 0: 1 markers, 0 images"):
            call(input_ids=prompt("aIb"))
        with pytest.raises(ValueError, match="2 samples, but images were given for 1"):
            call(input_ids=prompt("aIb", "aIb"), pixel_values=random_images(1, 1))


def test_wrong_inputs_are_errors():
    model, ids = shared_model(), prompt("aIb")
    images = random_images(1, 1)
    with pytest.raises(ValueError, match="exactly one of `input_ids` and `inputs_embeds`"):
        model(pixel_values=images)
    with pytest.raises(ValueError, match="exactly one"):
        model(input_ids=ids, inputs_embeds=torch.zeros(1, 3, 32), pixel_values=images)
    with pytest.raises(ValueError, match=r"\(1, 3, 8, 8\).*must be \(B, N, C, H, W\)"):
        model(input_ids=ids, pixel_values=images[0])
    with pytest.raises(ValueError, match=r"`frame_attention_mask` has shape \(1, 2\)"):
        model(input_ids=ids, pixel_values=images, frame_attention_mask=torch.ones(1, 2))
    with pytest.raises(ValueError, match="has no 1"):
        model(input_ids=prompt("ab"), pixel_values=images, frame_attention_mask=torch.zeros(1, 1))
    with pytest.raises(ValueError, match="not both"):
        model(
            input_ids=ids,
            pixel_values=images,
            mm_encoder_outputs={"image": {"pooler_output": torch.zeros(1, 1, 5, 24)}},
        )


def test_padding_is_never_encoded():
    model = tiny_flamingo()
    calls = count_encoded_frames(model)
    pixels, mask = pad_images([random_images(3), random_images(1)])
    run(model, prompt("aIIIb", "aIbcd"), pixels, frame_attention_mask=mask)
    assert calls == [4]
    # Videos of 2 and 1 real frames among (2, 2, 3) places.
    frame_mask = torch.tensor([[[1, 1, 0], [0, 0, 0]], [[1, 0, 0], [0, 0, 0]]])
    run(model, prompt("aIb", "Iab"), random_images(2, 2, 3), frame_attention_mask=frame_mask)
    assert calls == [4, 3]


@pytest.mark.parametrize("vision", VISION_CONFIGS)
@pytest.mark.parametrize("strategy", ["default", "full"])
def test_vision_encoders(vision, strategy):
    model = shared_model(vision=vision, vision_feature_select_strategy=strategy)
    features = model.get_image_features(random_images(2, 1))
    num_class_tokens = 0 if vision == "siglip" or strategy == "default" else 1
    num_patches = (IMAGE_SIZE // 4) ** 2 + num_class_tokens
    assert features.last_hidden_state.shape == (2, 1, num_patches, 24)
    assert features.pooler_output.shape == (2, 1, 5, 24)
    with torch.no_grad():
        direct = model.vision_model(pixel_values=random_images(2)).last_hidden_state
    assert_close(features.last_hidden_state[:, 0], direct[:, -num_patches:])
    logits = run(model, prompt("aIb", "aIb"), random_images(2, 1)).logits
    assert far(logits[0], logits[1])


# ---------------------------------------------------------------------------------------------------------------------
# Video
# ---------------------------------------------------------------------------------------------------------------------


def test_one_image_is_a_video_of_one_frame():
    model, images = shared_model(), random_images(2, 2)
    ids = prompt("aIbI", "IaIb")
    assert_close(run(model, ids, images).logits, run(model, ids, images[:, :, None]).logits)


def test_images_and_videos_of_different_lengths_in_one_batch_equal_one_by_one():
    model = shared_model()
    # Sample 0: an image and a video of 6 frames (more than the 4 embeddings); sample 1: a video of 3; sample 2: text.
    image, long, short = random_images(1, seed=1), random_images(6, seed=2), random_images(3, seed=3)
    pixels = torch.full((3, 2, 6, 3, IMAGE_SIZE, IMAGE_SIZE), 9.0)
    mask = torch.zeros(3, 2, 6, dtype=torch.long)
    for (b, n), frames in {(0, 0): image, (0, 1): long, (1, 0): short}.items():
        pixels[b, n, : len(frames)] = frames
        mask[b, n, : len(frames)] = 1
    ids = prompt("aIbcI", "abIcd", "abcde")
    batch = run(model, ids, pixels, frame_attention_mask=mask).logits

    latents = torch.cat([model.get_image_features(x[None, None]).pooler_output for x in (image, long)], dim=1)
    alone = run(model, ids[:1], mm_encoder_outputs={"image": {"pooler_output": latents}}).logits
    assert_close(batch[:1], alone)
    assert_close(batch[1:2], run(model, ids[1:2], short[None, None]).logits)
    assert_close(batch[2:], run(model, ids[2:]).logits)


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


# ---------------------------------------------------------------------------------------------------------------------
# Features instead of pixels
# ---------------------------------------------------------------------------------------------------------------------


def test_image_features_can_be_computed_once_and_passed():
    model, images = shared_model(), random_images(2, 2)
    ids = prompt("aIbI", "IabI")
    expected = run(model, ids, images)
    features = model.get_image_features(images)
    assert_close(expected.image_hidden_states, features.pooler_output)
    for image in (
        features,
        {"pooler_output": features.pooler_output},
        {"last_hidden_state": features.last_hidden_state},
    ):
        assert_close(run(model, ids, mm_encoder_outputs={"image": image}).logits, expected.logits)


def test_latents_depend_on_the_image_alone():
    model = shared_model()
    images = random_images(3, 2)
    together = model.get_image_features(images).pooler_output
    for b in range(3):
        for n in range(2):
            alone = model.get_image_features(images[b : b + 1, n : n + 1]).pooler_output
            assert_close(together[b, n], alone[0, 0])


@pytest.mark.parametrize("trains_vision", [False, True])
def test_many_images_are_encoded_in_chunks_unless_they_need_gradients(trains_vision, monkeypatch):
    model = tiny_flamingo()
    images = random_images(1, 5)
    expected = model.get_image_features(images, output_hidden_states=True)
    monkeypatch.setattr(modeling_flamingo, "ENCODER_CHUNK_SIZE", 2)
    sizes = []
    model.vision_model.register_forward_pre_hook(
        lambda m, args, kwargs: sizes.append(len(kwargs["pixel_values"])), with_kwargs=True
    )
    if not trains_vision:
        model.freeze_backbones()
    features = model.get_image_features(images, output_hidden_states=True)
    assert sizes == ([5] if trains_vision else [2, 2, 1])
    torch.testing.assert_close(features.pooler_output, expected.pooler_output)
    torch.testing.assert_close(features.last_hidden_state, expected.last_hidden_state)
    assert features.attentions is None
    for states, other in zip(features.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(states, other)


def test_get_image_features_marks_padding_with_0():
    model = shared_model()
    features = model.get_image_features(random_images(2, 2), torch.tensor([[1, 1], [1, 0]]))
    assert features.image_attention_mask.tolist() == [[True, True], [True, False]]
    assert (features.pooler_output[1, 1] == 0).all() and (features.last_hidden_state[1, 1] == 0).all()
    assert features.pooler_output[1, 0].abs().max() > 0
    assert isinstance(model.get_image_features(random_images(1, 1), return_dict=False), tuple)


@functools.cache
def model_without_vision() -> FlamingoModel:
    torch.manual_seed(0)
    config = FlamingoConfig(
        vision_hidden_size=20,
        text_config=tiny_text_config(),
        resampler_num_layers=1,
        resampler_num_latents=5,
        resampler_num_frames=4,
        cross_attention_num_heads=2,
        cross_attention_head_dim=8,
    )
    return open_gates(FlamingoModel(config)).eval()


def test_features_of_an_encoder_of_your_own():
    model = model_without_vision()
    image_id = model.config.image_token_id
    assert model.vision_model is None
    ids = torch.tensor([[5, image_id, 6, 7], [image_id, 5, image_id, 8]])
    features = torch.randn(2, 2, 11, 20, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([[1, 0], [1, 1]])

    def logits(ids, features, mask=None):
        image = {"last_hidden_state": features}
        return run(model, ids, mm_encoder_outputs={"image": image}, frame_attention_mask=mask).logits

    batch = logits(ids, features, mask)
    assert_close(batch[:1], logits(ids[:1], features[:1, :1]))
    assert_close(batch[1:], logits(ids[1:], features[1:]))
    assert far(batch[:1], logits(ids[:1], -features[:1, :1]))
    # Frames: (B, N, F, P, Dv)
    video = features[:1, :1, None].repeat(1, 1, 3, 1, 1)
    frames = torch.tensor([[[1, 0, 0]]])
    assert_close(logits(ids[:1], video, frames), batch[:1])
    # Training.
    loss = model(
        input_ids=ids,
        labels=ids,
        mm_encoder_outputs={"image": {"last_hidden_state": features}},
        frame_attention_mask=mask,
    ).loss
    loss.backward()
    assert model.resampler.latents.grad.abs().max() > 0
    model.zero_grad()


def test_features_of_a_wrong_shape_are_an_error_that_says_what_is_needed():
    model = model_without_vision()
    ids = torch.tensor([[model.config.image_token_id]])
    with pytest.raises(ValueError, match="no vision encoder.*mm_encoder_outputs"):
        model(input_ids=ids, pixel_values=random_images(1, 1))
    for image in (
        {"last_hidden_state": torch.zeros(1, 11, 20)},
        {"last_hidden_state": torch.zeros(1, 1, 11, 24)},
        {"pooler_output": torch.zeros(1, 5, 20)},
        {},
    ):
        with pytest.raises(ValueError, match="Dv = 20"):
            model(input_ids=ids, mm_encoder_outputs={"image": image})
    with pytest.raises(ValueError, match="a Tensor, but it must be"):
        model(input_ids=ids, mm_encoder_outputs={"image": torch.zeros(1, 1, 5, 20)})


# ---------------------------------------------------------------------------------------------------------------------
# A transformers model
# ---------------------------------------------------------------------------------------------------------------------


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


@some_families
def test_attentions_and_hidden_states(text):
    model = tiny_flamingo(text)
    model.set_attn_implementation("eager")
    ids = prompt("aIbcd")
    output = run(model, ids, random_images(1, 1), output_attentions=True, output_hidden_states=True)
    assert [a.shape for a in output.attentions] == [(1, 4, 5, 5)] * 3
    assert [h.shape[:2] for h in output.hidden_states] == [(1, 5)] * 4
    as_tuple = run(model, ids, random_images(1, 1), return_dict=False)
    assert isinstance(as_tuple, tuple) and torch.equal(as_tuple[0], output.logits)


@pytest.mark.parametrize("text", ["gpt2", "opt", "llama", "gemma3"])
@pytest.mark.parametrize("use_reentrant", [True, False])
@pytest.mark.parametrize("frozen", [False, True])
def test_gradient_checkpointing_gives_the_same_gradients(text, use_reentrant, frozen):
    model = tiny_flamingo(text, gates=0.5).train()
    if frozen:
        model.freeze_backbones()
    ids = prompt("aIbcd", "IabcI"[:5])
    ids[1, 4] = 7
    inputs = {"input_ids": ids, "pixel_values": random_images(2, 1), "labels": ids}

    def gradients():
        model.zero_grad()
        torch.manual_seed(0)  # dropout
        model(**inputs).loss.backward()
        return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    plain = gradients()
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": use_reentrant})
    assert model.is_activation_checkpointing
    checkpointed = gradients()
    assert set(plain) <= set(checkpointed)
    for name, gradient in plain.items():
        assert_close(checkpointed[name], gradient)
    assert not frozen or not any(name.startswith("vision_model") for name in checkpointed)
    model.activation_checkpointing_disable()
    assert set(gradients()) == set(plain)


@pytest.mark.parametrize(
    ("text", "backend"), [("gpt2", "aot_eager"), ("opt", "eager"), ("llama", "eager"), ("gemma3", "eager")]
)
def test_compiled_forward_equals_eager(text, backend):
    model = tiny_flamingo(text)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    ids, mask = pad_rows(["aIbcdIef", "Iabcd"], "right")
    pixels, frame_mask = pad_images([random_images(2), random_images(1)])
    kwargs = {"attention_mask": mask, "frame_attention_mask": frame_mask, "use_cache": False}
    expected = run(model, ids, pixels, **kwargs).logits
    with torch.no_grad():
        got = compiled(input_ids=ids, pixel_values=pixels, **kwargs).logits
    assert_close(got[mask.bool()], expected[mask.bool()])
    torch._dynamo.reset()


def test_compiled_packed_documents_equal_eager():
    model = tiny_flamingo()
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    ids, images, positions = prompt("aIbcdIef"), random_images(1, 2), torch.tensor([[0, 1, 2, 0, 1, 2, 3, 0]])
    expected = run(model, ids, images, position_ids=positions).logits
    with torch.no_grad():
        assert_close(compiled(input_ids=ids, pixel_values=images, position_ids=positions).logits, expected)
    assert far(run(model, ids, images).logits[:, 3:], expected[:, 3:])
    torch._dynamo.reset()


def test_compiled_training_step_equals_eager():
    model = tiny_flamingo()
    model.freeze_backbones()
    ids, images = prompt("aIbcd"), random_images(1, 1)
    gradients = []
    torch._dynamo.reset()
    for call in (model, torch.compile(model, fullgraph=True, backend="aot_eager")):
        model.zero_grad()
        call(input_ids=ids, pixel_values=images, labels=ids, use_cache=False).loss.backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name in gradients[0]:
        assert_close(gradients[0][name], gradients[1][name])
    torch._dynamo.reset()


@some_families
def test_logits_to_keep(text):
    model = shared_model(text)
    ids, images = prompt("aIbcdef", "abIcdef"), random_images(2, 1)
    full = run(model, ids, images).logits
    assert_close(run(model, ids, images, logits_to_keep=1).logits, full[:, -1:])
    assert_close(run(model, ids, images, logits_to_keep=3).logits, full[:, -3:])
    assert_close(run(model, ids, images, logits_to_keep=torch.tensor([1, 4])).logits, full[:, [1, 4]])


def test_inputs_embeds_equal_input_ids():
    model, images = shared_model(), random_images(2, 2)
    ids = prompt("aIbcI", "IIabc")
    embeds = model.get_input_embeddings()(ids)
    assert_close(run(model, None, images, inputs_embeds=embeds).logits, run(model, ids, images).logits)


@pytest.mark.parametrize("text", ["gpt2", "gemma", "gemma3"])
def test_inputs_embeds_find_markers_where_embeddings_are_scaled(text):
    model = shared_model(text)
    ids, images = prompt("aIbcI"), random_images(1, 2)
    embeds = model.get_input_embeddings()(ids)
    assert_close(run(model, None, images, inputs_embeds=embeds).logits, run(model, ids, images).logits)


def test_loss_is_the_mean_over_supervised_tokens():
    model = shared_model()
    ids, images = prompt("aIbcde", "Iabcde"), random_images(2, 1)
    labels = ids.clone()
    labels[0, :3] = -100
    labels[1, 4:] = -100
    output = run(model, ids, images, labels=labels)
    targets = labels[:, 1:].flatten()
    expected = torch.nn.functional.cross_entropy(output.logits[:, :-1].flatten(0, 1), targets)
    assert_close(output.loss, expected)
    assert (targets != -100).sum() == 3 + 3
    # With gradient accumulation, the Trainer divides by the tokens of all micro batches.
    scaled = run(model, ids, images, labels=labels, num_items_in_batch=torch.tensor(24))
    assert_close(scaled.loss, expected * 6 / 24)
    assert model.loss_type == "ForCausalLM"


def test_one_batch_equals_accumulated_micro_batches():
    model = shared_model()
    ids, images = prompt("aIbcde", "Iabcde", "abIcde"), random_images(3, 1)
    labels = ids.clone()
    labels[0, :4] = -100
    whole = run(model, ids, images, labels=labels).loss
    num_items = (labels[:, 1:] != -100).sum()
    parts = [
        run(model, ids[i : i + 1], images[i : i + 1], labels=labels[i : i + 1], num_items_in_batch=num_items).loss
        for i in range(3)
    ]
    assert_close(sum(parts), whole)


@some_families
def test_use_cache(text):
    model = shared_model(text)
    ids, images = prompt("aIbc"), random_images(1, 1)
    assert run(model, ids, images, use_cache=False).cache is None
    cache = run(model, ids, images).cache
    assert cache.get_seq_length() == 4
    assert len(cache.layers) == 3 + 3


@families
def test_a_forward_over_a_cache_equals_one_over_all(text):
    """The conversation in pieces: text, an image, text, two images and text, in a padded batch."""
    model = shared_model(text)
    ids = prompt("abcdIefgIIhij", "IabcdefgIhijk")
    images = random_images(2, 3)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    full = run(model, ids, images, frame_attention_mask=mask).logits
    pieces, cache, used = [], None, [0, 0]
    for start, end in ((0, 2), (2, 5), (5, 6), (6, 9), (9, 13)):
        piece = ids[:, start:end]
        counts = (piece == IMAGE).sum(1).tolist()
        new = [images[b, used[b] : used[b] + n] for b, n in enumerate(counts)]
        used = [u + n for u, n in zip(used, counts, strict=True)]
        kwargs = {}
        if any(counts):
            kwargs["pixel_values"], kwargs["frame_attention_mask"] = pad_images(new)
        output = run(model, piece, cache=cache, use_cache=True, **kwargs)
        cache = output.cache
        pieces.append(output.logits)
    assert_close(torch.cat(pieces, dim=1), full)


# Embeddings.


@pytest.mark.parametrize("text", ["gpt2", "opt_350m", "llama", "gemma"])
@pytest.mark.parametrize("tied", [True, False])
def test_embeddings(text, tied, tmp_path):
    model = tiny_flamingo(text, text_kwargs={"tie_word_embeddings": tied})
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    assert embeddings is model.language_model.get_input_embeddings()
    assert head is model.language_model.get_output_embeddings()
    assert (embeddings.weight is head.weight) == tied
    old = embeddings.weight.detach().clone()

    resized = model.resize_token_embeddings(VOCAB_SIZE + 6)
    assert resized.weight.shape[0] == VOCAB_SIZE + 6
    assert resized is model.get_input_embeddings()
    assert model.get_output_embeddings().weight.shape[0] == VOCAB_SIZE + 6
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tied
    assert torch.equal(resized.weight[:VOCAB_SIZE], old)
    assert model.config.text_config.vocab_size == VOCAB_SIZE + 6
    assert model.language_model.config.vocab_size == VOCAB_SIZE + 6
    ids, images = prompt("aIbc"), random_images(1, 1)
    output = run(model, ids, images, labels=ids)
    assert output.logits.shape[-1] == VOCAB_SIZE + 6 and output.loss.isfinite()
    model.save_pretrained(tmp_path)
    loaded = FlamingoModel.from_pretrained(tmp_path).eval()
    assert_close(run(loaded, ids, images).logits, output.logits)

    new = torch.nn.Embedding(VOCAB_SIZE + 6, embeddings.weight.shape[1])
    model.set_input_embeddings(new)
    assert model.get_input_embeddings() is new


def test_a_vocabulary_without_the_special_tokens_is_an_error():
    with pytest.raises(ValueError, match="`image_token_id` is 120.*99 rows.*from_vision_text_pretrained"):
        FlamingoModel(tiny_config(image_token_id=120))


# Language models that do not fit.


@pytest.mark.parametrize("text", DROPS_KEYWORDS)
def test_a_language_model_that_drops_keywords_is_never_compiled_without_its_images(text):
    model = tiny_flamingo(text)
    torch._dynamo.reset()
    with pytest.raises(Exception, match="did not pass the images down"):
        torch.compile(model, backend="eager", fullgraph=True)(
            input_ids=prompt("aIb"), pixel_values=random_images(1, 1), use_cache=False
        )
    torch._dynamo.reset()


@pytest.mark.parametrize(
    ("model_type", "kwargs", "message"),
    [
        ("ctrl", {"n_embd": 32, "n_head": 4, "n_layer": 2}, "no list of 2 decoder layers"),
        ("mamba", {"hidden_size": 32, "num_hidden_layers": 2}, "keeps no keys and values"),
        ("openai-gpt", {"n_embd": 32, "n_head": 4, "n_layer": 2}, "keeps no keys and values"),
    ],
)
def test_a_language_model_that_cannot_be_conditioned_is_a_clear_error(model_type, kwargs, message):
    config = FlamingoConfig(
        vision_config=tiny_config().vision_config,
        text_config=AutoConfig.for_model(model_type, vocab_size=VOCAB_SIZE, **kwargs),
        image_token_id=IMAGE,
        end_of_chunk_token_id=END_OF_CHUNK,
    )
    with pytest.raises(ValueError, match=f"cannot be conditioned on images: .*{message}"):
        FlamingoModel(config)


# ---------------------------------------------------------------------------------------------------------------------
# No state
# ---------------------------------------------------------------------------------------------------------------------


def test_calls_do_not_remember_each_other():
    model = shared_model()
    first, second = random_images(1, 1, seed=1), random_images(1, 1, seed=2)
    ids = prompt("aIbcd")
    before = run(model, ids, first).logits
    run(model, ids, second)
    run(model, prompt("abc"))
    model.generate(input_ids=ids, pixel_values=second, max_new_tokens=3)
    assert torch.equal(run(model, ids, first).logits, before)


@pytest.mark.parametrize("text", ["gpt2", "gpt_neo"])
def test_two_threads_get_what_they_get_alone(text):
    model = tiny_flamingo(text)
    ids = [prompt("aIbcI"), prompt("IabIc")]
    images = [random_images(1, 2, seed=1), random_images(1, 2, seed=2)]

    def generate(i):
        return model.generate(
            input_ids=ids[i], pixel_values=images[i], max_new_tokens=12, min_new_tokens=12, output_logits=True,
            return_dict_in_generate=True,
        )  # fmt: skip

    alone = [generate(i) for i in range(2)]
    assert far(torch.stack(alone[0].logits), torch.stack(alone[1].logits))
    results = [[], []]
    barrier = threading.Barrier(2)

    def work(i):
        barrier.wait()
        for _ in range(4):
            results[i].append(generate(i))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(2):
        assert len(results[i]) == 4
        for result in results[i]:
            assert torch.equal(result.sequences, alone[i].sequences)
            assert_close(torch.stack(result.logits), torch.stack(alone[i].logits))


def attributes(model):
    """Everything that modules hold besides parameters, buffers and children, as something that can be compared."""
    skip = {"_parameters", "_buffers", "_modules", "config", "generation_config"}
    return {name: {k: repr(v) for k, v in m.__dict__.items() if k not in skip} for name, m in model.named_modules()}


@pytest.mark.parametrize("where", ["language_model.transformer.h.1", "gated_cross_attention.1", "resampler.layers.0"])
@pytest.mark.parametrize("text", ["gpt2", "gpt_neo"])
def test_an_interrupted_call_leaves_nothing(where, text):
    model = tiny_flamingo(text)
    ids, images = prompt("aIbcd"), random_images(1, 1)
    before = run(model, ids, images).logits
    with torch.no_grad():
        bare = model.language_model(ids).logits
    held = attributes(model)

    def interrupt(module, args):
        raise KeyboardInterrupt

    handle = model.get_submodule(where).register_forward_pre_hook(interrupt)
    for call in (model, functools.partial(model.generate, max_new_tokens=2)):
        with pytest.raises(KeyboardInterrupt):
            call(input_ids=ids, pixel_values=images)
    handle.remove()
    assert attributes(model) == held
    assert torch.equal(run(model, ids, images).logits, before)
    with torch.no_grad():
        assert torch.equal(model.language_model(ids).logits, bare)


@pytest.mark.parametrize("text", ["gpt2", "llama", "gpt_neo"])
def test_the_language_model_alone_stays_stock(text):
    """Called by itself, also after multimodal calls, it is the plain language model: no image, no gated block."""
    model = shared_model(text)
    bare = AutoModelForCausalLM.from_config(tiny_text_config(text)).eval()
    bare.load_state_dict(model.language_model.state_dict())
    run(model, prompt("aIb"), random_images(1, 1))
    with torch.no_grad():
        assert torch.equal(model.language_model(prompt("abc")).logits, bare(prompt("abc")).logits)
        got, expected = (m.generate(prompt("abc"), max_new_tokens=5) for m in (model.language_model, bare))
    assert torch.equal(got, expected)


@pytest.mark.parametrize("frozen", [False, True])
def test_copies_and_pickles_are_whole_and_independent(frozen):
    model = tiny_flamingo()
    if frozen:
        model.freeze_backbones()
    ids, images = prompt("aIbcd"), random_images(1, 1)
    before = run(model, ids, images).logits
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(run(other, ids, images).logits, before)
        with torch.no_grad():
            for parameter in other.parameters():
                parameter.add_(0.1)
        assert far(run(other, ids, images).logits, before)
        assert torch.equal(run(model, ids, images).logits, before)


def test_two_models_may_share_one_language_model():
    """Each applies its own blocks, at its own layers."""
    first = tiny_flamingo(seed=1)
    config = tiny_config(cross_attention_layers=[1])
    torch.manual_seed(2)
    alone = open_gates(FlamingoModel(config)).eval()
    alone.language_model.load_state_dict(first.language_model.state_dict())
    ids, images = prompt("aIbcd"), random_images(1, 1)
    before, expected = run(first, ids, images).logits, run(alone, ids, images).logits
    second = FlamingoModel(config, language_model=first.language_model)
    second.load_state_dict(alone.state_dict())
    second.eval()
    assert_close(run(first, ids, images).logits, before)
    assert_close(run(second, ids, images).logits, expected)


def test_bos_and_pad_are_ordinary_text():
    """Without a mask, nothing is taken for padding."""
    model = shared_model()
    ids = torch.tensor([[PAD, BOS, IMAGE, 5, PAD]])
    assert_close(
        run(model, ids, random_images(1, 1)).logits,
        run(model, ids, random_images(1, 1), attention_mask=torch.ones_like(ids)).logits,
    )


def test_a_compiled_forward_refuses_a_wrong_number_of_images():
    model = torch.compile(tiny_flamingo(), fullgraph=True, backend="eager")
    images = random_images(2, 1)
    with torch.no_grad():
        assert model(input_ids=prompt("aIbc", "Iabc"), pixel_values=images).logits.isfinite().all()
        with pytest.raises(RuntimeError, match="`<image>` markers in the text differs"):
            model(input_ids=prompt("aIbc", "abcd"), pixel_values=images)


@pytest.mark.parametrize("text", TEXT_CONFIGS)
def test_the_base_model_is_the_model_without_its_head(text):
    model = tiny_flamingo(text)
    ids, images = prompt("aIbcd", "_Ixyz"), random_images(2, 1)
    inputs = {"input_ids": ids, "attention_mask": (ids != 0).long(), "pixel_values": images}
    heads_input = []
    handle = model.get_output_embeddings().register_forward_pre_hook(lambda _, args: heads_input.append(args[0]))
    with torch.no_grad():
        model(**inputs)
        handle.remove()
        body = model.base_model(**inputs).last_hidden_state
        other = model.base_model(**{**inputs, "pixel_values": images.flip(0)}).last_hidden_state
    torch.testing.assert_close(body, heads_input[0])
    assert (body - other)[:, -1].abs().amax(dim=-1).min() > 1e-4
