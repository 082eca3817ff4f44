# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The cache of the last image, in every kind of cache that transformers has."""

import copy

import pytest
import torch
from decoding import (
    LENGTH,
    NEW,
    assert_close,
    left_padded,
    lively,
    media_layers,
    shared_model,
)
from factory import (
    open_gates,
    prompt,
    random_images,
    tiny_text_config,
)
from torch._dynamo.utils import counters
from transformers import (
    Cache,
    CompileConfig,
    DynamicCache,
    StaticCache,
)
from transformers.cache_utils import QuantizedLayer

from transformers_flamingo.media_cache_flamingo import MediaCacheLayer


@pytest.mark.parametrize("num_images", [1, 2, 5])
def test_the_media_cache_has_one_image_however_many_there_were(num_images):
    model = shared_model()
    ids, images = prompt("aI" * num_images + "b"), random_images(1, num_images)
    output = model.generate(input_ids=ids, pixel_values=images, return_dict_in_generate=True, **LENGTH)
    layers = media_layers(output.cache)
    assert [tuple(layer.keys.shape) for layer in layers] == [(1, 2, 5, 8)] * 3
    assert [tuple(layer.values.shape) for layer in layers] == [(1, 2, 5, 8)] * 3
    # It is the last image, and only that.
    last = model.get_image_features(images[:, -1:]).pooler_output
    for layer, block in zip(layers, model.gated_cross_attention, strict=True):
        key, value = block.attention.project_context(last[:, 0])
        assert_close(layer.keys, key, atol=1e-4)
        assert_close(layer.values, value, atol=1e-4)
    # It holds no more memory than it shows, such as a view of all images would.
    assert layers[0].keys.untyped_storage().nbytes() <= 2 * layers[0].keys.numel() * 4
    assert output.cache.get_seq_length() == ids.shape[1] + NEW - 1


@pytest.mark.parametrize("text", ["gpt2", "opt", "llama", "gemma3"])
@pytest.mark.parametrize("num_beams", [1, 2])
def test_a_static_cache(text, num_beams):
    model = shared_model(text)
    inputs = left_padded()
    expected = model.generate(**inputs, num_beams=num_beams, **LENGTH)
    got = model.generate(**inputs, num_beams=num_beams, cache_implementation="static", **LENGTH)
    assert got.tolist() == expected.tolist()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="an offloaded cache needs a GPU to move its layers to")
@pytest.mark.parametrize("implementation", ["offloaded", "offloaded_static"])
def test_an_offloaded_cache(implementation):
    model = lively("llama").cuda()
    inputs = {name: value.cuda() for name, value in left_padded().items()}
    expected = model.generate(**inputs, **LENGTH)
    got = model.generate(**inputs, cache_implementation=implementation, disable_compile=True, **LENGTH)
    assert got.tolist() == expected.tolist()


@pytest.mark.parametrize("text", ["gpt2", "llama"])
def test_static_cache_with_compiled_steps(text):
    model = lively(text)
    inputs = left_padded()
    expected = model.generate(**inputs, **LENGTH)
    compile_config = CompileConfig(fullgraph=True, dynamic=False, backend="eager", mode=None)
    compile_config._compile_all_devices = True
    torch._dynamo.reset()
    counters.clear()
    for _ in range(2):
        got = model.generate(**inputs, cache_implementation="static", compile_config=compile_config, **LENGTH)
        assert got.tolist() == expected.tolist()
    assert counters["stats"]["unique_graphs"] == 1  # nothing is compiled again, for a step or for the next prompt
    torch._dynamo.reset()


@pytest.mark.parametrize("text", ["gpt2", "opt_350m", "llama"])
def test_a_static_cache_can_be_used_again(text):
    model = shared_model(text)
    cache = StaticCache(config=model.config.get_text_config(), max_cache_len=32)
    for seed in (1, 2):
        ids, images = prompt("aIbcd"), random_images(1, 1, seed=seed)
        expected = model.generate(input_ids=ids, pixel_values=images, **LENGTH)
        assert model.generate(input_ids=ids, pixel_values=images, cache=cache, **LENGTH).tolist() == (
            expected.tolist()
        )
        cache.reset()
    # Nothing of the last image is left for a prompt without one.
    text_only = prompt("abcde")
    expected = model.generate(input_ids=text_only, **LENGTH)
    assert model.generate(input_ids=text_only, cache=cache, **LENGTH).tolist() == expected.tolist()


class RoundedLayer(QuantizedLayer):
    """A quantized layer that needs no quantization library: it rounds, finely enough for equal tokens."""

    def _quantize(self, tensor, axis):
        return tensor.to(torch.float32).mul(2**16).round()

    def _dequantize(self, tensor):
        return tensor / 2**16


@pytest.mark.parametrize("text", ["gpt2", "llama"])
def test_a_quantized_cache(text):
    """The image is kept as it is next to the quantized text."""
    model = shared_model(text)
    inputs = left_padded()
    cache = Cache(layers=[RoundedLayer(residual_length=4) for _ in range(3)])
    expected = model.generate(**inputs, **LENGTH)
    assert model.generate(**inputs, cache=cache, **LENGTH).tolist() == expected.tolist()
    assert [type(layer) for layer in cache.layers] == [RoundedLayer] * 3 + [MediaCacheLayer] * 3


@pytest.mark.parametrize("make_cache", [DynamicCache, lambda: DynamicCache(config=tiny_text_config())])
def test_a_cache_of_ones_own(make_cache):
    model, cache = shared_model(), make_cache()
    ids, images = prompt("aIbcd"), random_images(1, 1)
    expected = model.generate(input_ids=ids, pixel_values=images, **LENGTH)
    got = model.generate(input_ids=ids, pixel_values=images, cache=cache, **LENGTH)
    assert got.tolist() == expected.tolist()
    assert len(media_layers(cache)) == 3


def test_a_prefix_is_used_again_by_deep_copies_of_its_cache():
    """The shots of a few-shot prompt are run once; each query continues from a copy, and leaves the prefix as it was."""
    model = shared_model()
    shots, shot_images = prompt("IabEIbaE"), random_images(1, 2)
    with torch.no_grad():
        prefix = model(input_ids=shots, pixel_values=shot_images, use_cache=True, logits_to_keep=1).cache
    for seed in (3, 4, 3):
        query = random_images(1, 1, seed=seed)
        ids = torch.cat([shots, prompt("Ic")], dim=1)
        expected = model.generate(input_ids=ids, pixel_values=torch.cat([shot_images, query], dim=1), **LENGTH)
        got = model.generate(input_ids=ids, pixel_values=query, cache=copy.deepcopy(prefix), **LENGTH)
        assert got.tolist() == expected.tolist()
    assert prefix.get_seq_length() == 8


@pytest.mark.parametrize("text", ["gpt2", "opt", "llama"])
def test_a_cache_follows_its_batch(text):
    model = shared_model(text)
    ids, images = prompt("aIbcd", "Iabcd", "abcde"), random_images(3, 1)
    mask = torch.tensor([[1], [1], [0]])
    with torch.no_grad():
        cache = model(input_ids=ids, pixel_values=images, frame_attention_mask=mask, use_cache=True).cache
        next_ids = prompt("e", "f", "g")
        expected = model(input_ids=next_ids, cache=copy.deepcopy(cache)).logits

        for order, change in (
            ([2, 0], lambda c: c.batch_select_indices(torch.tensor([2, 0]))),
            ([0, 0, 1, 1, 2, 2], lambda c: c.batch_repeat_interleave(2)),
            ([1, 1, 0], lambda c: c.reorder_cache(torch.tensor([1, 1, 0]))),
        ):
            changed = copy.deepcopy(cache)
            change(changed)
            got = model(input_ids=next_ids[order], cache=changed).logits
            assert_close(got, expected[order])
        # Repeated rows have one image between them, until they are mixed.
        for order, num_kept, change in (
            ([0, 0, 1, 1, 2, 2], 3, lambda c: None),
            ([0, 0, 1, 1, 2, 2], 3, lambda c: c.reorder_cache(torch.tensor([1, 0, 2, 2, 5, 4]))),
            ([0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2], 3, lambda c: c.batch_repeat_interleave(2)),
            ([1, 1, 0, 0, 2, 2], 6, lambda c: c.reorder_cache(torch.tensor([2, 3, 0, 1, 4, 5]))),
            ([0, 0], 2, lambda c: c.batch_select_indices(torch.tensor([0, 1]))),
            ([0, 2, 1], 3, lambda c: c.batch_select_indices(torch.tensor([1, 4, 3]))),
        ):
            changed = copy.deepcopy(cache)
            changed.batch_repeat_interleave(2)
            change(changed)
            assert {len(layer.keys) for layer in media_layers(changed)} == {num_kept}
            # A second image for all of them, and no image
            newer, images = (
                prompt("eIg")[[0] * len(order)],
                random_images(1, 1, seed=5).expand(len(order), -1, -1, -1, -1),
            )
            expected_newer = model(input_ids=newer, pixel_values=images, cache=pick(cache, order)).logits
            got = model(input_ids=newer, pixel_values=images, cache=copy.deepcopy(changed)).logits
            assert_close(got, expected_newer)
            assert_close(model(input_ids=next_ids[order], cache=changed).logits, expected[order])
        # A sample without an image sees exactly nothing, also in a batch of others that have one.
        alone = model(input_ids=ids[2:], use_cache=True).cache
        assert_close(expected[2:], model(input_ids=next_ids[2:], cache=alone).logits)


def pick(cache, order: list[int]):
    """A copy of a cache with these of its rows."""
    picked = copy.deepcopy(cache)
    picked.batch_select_indices(torch.tensor(order))
    return picked


def test_a_crop_keeps_the_image_or_is_an_error():
    model = shared_model()
    ids, images = prompt("aIbcIdefg"), random_images(1, 2)
    with torch.no_grad():
        full = model(input_ids=ids, pixel_values=images, use_cache=True)
        cropped = copy.deepcopy(full.cache)
        cropped.crop(-3)  # "efg" goes
        assert cropped.get_seq_length() == 6
        again = model(input_ids=prompt("efg"), cache=cropped).logits
        assert_close(again, full.logits[:, 6:])
        whole = copy.deepcopy(full.cache)
        whole.crop(-4)  # all that follows the last marker, which itself stays
        assert whole.get_seq_length() == 5
        with pytest.raises(ValueError, match="cropped to 4 tokens.*marked at position 4.*deepcopy"):
            copy.deepcopy(full.cache).crop(-5)
        # After the crop of a text-only continuation the image is still known.
        longer = model(input_ids=prompt("hij"), cache=full.cache).cache
        longer.crop(-6)
        assert_close(model(input_ids=prompt("efg"), cache=longer).logits, full.logits[:, 6:])
        # Without images any crop will do.
        text = model(input_ids=prompt("abcd"), use_cache=True).cache
        text.crop(-4)
        assert text.get_seq_length() == 0


def test_a_reset_cache_holds_no_image():
    model = shared_model()
    with torch.no_grad():
        cache = model(input_ids=prompt("aIb"), pixel_values=random_images(1, 1), use_cache=True).cache
        assert all(layer.is_initialized for layer in media_layers(cache))
        cache.reset()
    assert all(layer.keys is None and not layer.is_initialized for layer in media_layers(cache))


@pytest.mark.parametrize("implementation", ["dynamic", "static"])
def test_a_text_is_continued_with_the_gates_that_its_model_has_now(implementation):
    """A static cache stays with the model from one call of `generate()` to the next."""
    model, inputs = lively(), left_padded()
    kwargs = {"cache_implementation": implementation, "disable_compile": True, **LENGTH}
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    before = model.generate(**inputs, **kwargs).tolist()
    after = open_gates(model, -0.3).generate(**inputs, **kwargs).tolist()
    assert after == open_gates(lively(), -0.3).generate(**inputs, **LENGTH).tolist() != before
    assert open_gates(model).generate(**inputs, **kwargs).tolist() == before
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_a_text_in_an_emptied_cache_sees_the_gates_that_its_model_has_now():
    model, ids = lively(), prompt("abcd")
    with torch.no_grad():
        cache = model(input_ids=ids, use_cache=True).cache
        cache.crop(-4)
        open_gates(model, -0.3)
        expected = model(input_ids=prompt("abcde"), use_cache=False).logits
        assert_close(model(input_ids=ids, cache=cache).logits, expected[:, :4])
        assert_close(model(input_ids=prompt("e"), cache=cache).logits, expected[:, 4:])


def test_a_gradient_reaches_the_gates_through_a_step():
    model = lively()
    with torch.no_grad():
        cache = model(input_ids=prompt("aIb"), pixel_values=random_images(1, 1), use_cache=True).cache
        model(input_ids=prompt("c"), cache=cache)
    model(input_ids=prompt("d"), cache=cache).logits.sum().backward()
    for block in model.gated_cross_attention:
        assert block.attn_gate.grad.abs() > 0 and block.ffn_gate.grad.abs() > 0


def test_a_language_model_cannot_write_over_the_image():
    """Some models write to more cache layers than they have decoder layers."""
    cache = shared_model()(input_ids=prompt("aIb"), pixel_values=random_images(1, 1), use_cache=True).cache
    states = torch.zeros(1, 4, 1, 8)
    with pytest.raises(ValueError, match="writes to more cache layers than it has decoder layers"):
        cache.update(states, states, shared_model().config.text_config.num_hidden_layers)
