# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Which image a token sees: the rule, its two layouts, and markers that do not fit the images."""

import functools

import pytest
import torch
from factory import (
    IMAGE,
    IMAGE_SIZE,
    prompt,
    random_images,
    tiny_flamingo,
)
from flamingos import assert_close, families, far, pad_images, run, shared_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers.cache_utils import DynamicLayer

from transformers_flamingo.media_cache_flamingo import MediaCacheLayer
from transformers_flamingo.visibility_flamingo import build_mask_layout, build_segment_layout, compute_media_index


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
    with pytest.raises(ValueError, match="Omit `use_cache`"):
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
    assert compute_media_index(model.find_markers(ids, None, attention_mask)).tolist() == [phi]
    embeds = model.get_input_embeddings()(ids)
    assert compute_media_index(model.find_markers(None, embeds, attention_mask)).tolist() == [phi]
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
    mask_layout = build_mask_layout(media_index, latents, latents.dtype)
    masked = block(hidden_states, latents, layout=mask_layout, cache=masked_cache)
    layout, seen = build_segment_layout(media_index, is_cached, num_past_tokens=7)
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


@pytest.mark.parametrize("text", ["gpt2", "gemma", "gemma3"])
def test_inputs_embeds_find_markers_where_embeddings_are_scaled(text):
    model = shared_model(text)
    ids, images = prompt("aIbcI"), random_images(1, 2)
    embeds = model.get_input_embeddings()(ids)
    assert_close(run(model, None, images, inputs_embeds=embeds).logits, run(model, ids, images).logits)


def test_a_compiled_forward_refuses_a_wrong_number_of_images():
    model = torch.compile(tiny_flamingo(), fullgraph=True, backend="eager")
    images = random_images(2, 1)
    with torch.no_grad():
        assert model(input_ids=prompt("aIbc", "Iabc"), pixel_values=images).logits.isfinite().all()
        with pytest.raises(RuntimeError, match="`<image>` markers in the text differs"):
            model(input_ids=prompt("aIbc", "abcd"), pixel_values=images)
