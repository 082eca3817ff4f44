# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Inputs that `FlamingoModel` refuses before anything is computed, with the reason."""

import copy
import functools

import numpy as np
import pytest
import torch
from factory import VOCAB_SIZE, prompt, random_images, tiny_flamingo

from transformers_flamingo import FlamingoModel
from transformers_flamingo.checks_flamingo import is_finite


@functools.cache
def shared_model(text: str = "gpt2") -> FlamingoModel:
    """Build a model once for all tests that only read it."""
    return tiny_flamingo(text)


def inputs(**kwargs) -> dict[str, torch.Tensor]:
    return {"input_ids": prompt("aIb"), "pixel_values": random_images(1, 1), **kwargs}


# Masks that do not cover the text.


@pytest.mark.parametrize("text", ["gpt2", "opt", "llama", "bloom"])
@pytest.mark.parametrize("length", [1, 2, 4, 9])
def test_a_mask_of_another_length_than_the_text_is_refused(text, length):
    model = shared_model(text)
    message = rf"`attention_mask` has shape \(1, {length}\), but the text has \(1, 3\), so it must have \(1, 3\)"
    for mask in (torch.ones(1, length), torch.tensor([[0] + [1] * (length - 1)])):
        with pytest.raises(ValueError, match=message):
            model(**inputs(attention_mask=mask.long()))
        with pytest.raises(ValueError, match=message):
            model.generate(**inputs(attention_mask=mask.long()), max_new_tokens=1)


def test_a_mask_for_another_batch_is_refused():
    with pytest.raises(ValueError, match=r"`attention_mask` has shape \(2, 3\), but the text has \(1, 3\)"):
        shared_model()(**inputs(attention_mask=torch.ones(2, 3)))


@pytest.mark.parametrize("length", [1, 3, 5])
def test_a_mask_with_a_cache_covers_the_text_in_it(length):
    model = shared_model()
    with torch.no_grad():
        cache = model(**inputs(), use_cache=True).cache
    message = rf"has shape \(1, {length}\), but the text has \(1, 1\) and 3 tokens are in the cache, so it must have \(1, 4\)"
    with pytest.raises(ValueError, match=message):
        model(input_ids=prompt("c"), cache=cache, attention_mask=torch.ones(1, length))


def test_a_text_without_anything_new_is_refused():
    model = shared_model()
    with torch.no_grad():
        cache = model(**inputs(), use_cache=True).cache
    with pytest.raises(ValueError, match="cache holds 3 tokens and the text has 3, so nothing in it is new"):
        model.generate(input_ids=prompt("aIb"), attention_mask=torch.ones(1, 3), cache=cache, max_new_tokens=1)


def test_the_mask_of_images_is_checked_too():
    with pytest.raises(ValueError, match=r"`frame_attention_mask` has shape \(1, 2\)"):
        shared_model()(**inputs(frame_attention_mask=torch.ones(1, 2)))


@pytest.mark.parametrize("value", [2, -1, 0.5, float("nan"), float("-inf")])
@pytest.mark.parametrize("name", ["attention_mask", "frame_attention_mask"])
def test_a_mask_holds_only_0_and_1(name, value):
    mask = torch.ones(1, 3 if name == "attention_mask" else 1)
    mask[0, 0] = value
    for call in (shared_model(), functools.partial(shared_model().generate, max_new_tokens=1)):
        with pytest.raises(ValueError, match=f"`{name}` holds {value}.*, but it may hold only 1"):
            call(**inputs(**{name: mask}))


@pytest.mark.parametrize("shape", [(3,), (1, 1, 3)])
def test_a_mask_of_other_dimensions_is_refused(shape):
    with pytest.raises(ValueError, match="`attention_mask` has shape .* 2 or 4 dimensions"):
        shared_model()(**inputs(attention_mask=torch.ones(shape)))


@pytest.mark.parametrize("dtype", [torch.bool, torch.int, torch.float])
def test_the_type_of_a_mask_does_not_matter(dtype):
    mask = torch.tensor([[0, 1, 1]])
    with torch.no_grad():
        expected, given = (shared_model()(**inputs(attention_mask=m)).logits for m in (mask, mask.to(dtype)))
    assert torch.equal(given, expected)


# Given positions.


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([[0, 1]], r"`position_ids` has shape \(1, 2\), but the text has \(1, 3\)"),
        ([[0, 1, 128]], "The text has 129 positions, but the language model has positions for 128"),
        ([[-1, 0, 1]], "`position_ids` holds -1, but positions are counted from 0"),
    ],
)
def test_positions_outside_the_table_are_refused(positions, message):
    with pytest.raises(ValueError, match=message):
        shared_model()(**inputs(position_ids=torch.tensor(positions)))


# Texts.


@pytest.mark.parametrize("shape", [(1, 0), (0, 3)])
def test_an_empty_text_is_refused(shape):
    with pytest.raises(ValueError, match=r"`input_ids` has shape .* at least one sample and one token"):
        shared_model()(input_ids=torch.zeros(shape, dtype=torch.long))


def test_an_empty_prompt_is_refused():
    embeds = shared_model().get_input_embeddings()(prompt("a"))[:, :0]
    with pytest.raises(ValueError, match="`inputs_embeds` has shape"):
        shared_model()(inputs_embeds=embeds)


@pytest.mark.parametrize("token_id", [VOCAB_SIZE, VOCAB_SIZE + 1000, -1])
def test_ids_outside_the_vocabulary_are_refused(token_id):
    ids = prompt("aIb")
    ids[0, 2] = token_id
    message = f"`input_ids` holds {token_id} at token 2 of sample 0, but the language model's vocabulary has 99 rows"
    with pytest.raises(ValueError, match=message):
        shared_model()(**inputs(input_ids=ids))
    with pytest.raises(ValueError, match=message):
        shared_model().generate(**inputs(input_ids=ids), max_new_tokens=1)


@pytest.mark.parametrize("skip_logits", [True, False])
@pytest.mark.parametrize("label", [VOCAB_SIZE, -1, -101])
def test_labels_outside_the_vocabulary_are_refused(label, skip_logits):
    labels = prompt("aIb")
    labels[0, 1] = label
    with pytest.raises(ValueError, match=f"`labels` holds {label} at token 1 of sample 0.*be -100"):
        shared_model()(**inputs(labels=labels), skip_logits=skip_logits)


@pytest.mark.parametrize("training", [True, False])
def test_shifted_labels_outside_the_vocabulary_are_refused(training):
    model = copy.deepcopy(shared_model()).train(training)
    with pytest.raises(ValueError, match="`shift_labels` holds 500 at token 0 of sample 0"):
        model(**inputs(labels=prompt("aIb"), shift_labels=torch.full((1, 3), 500)))


@pytest.mark.parametrize("name", ["input_ids", "labels", "media_index"])
@pytest.mark.parametrize("value", [1.0, 0.5])
def test_fractions_are_not_ids(name, value):
    with pytest.raises(ValueError, match=f"`{name}` is of type torch.float32, but it holds whole numbers"):
        shared_model()(**inputs(**{name: torch.full((1, 3), value)}))


@pytest.mark.parametrize("skip_logits", [True, False])
def test_labels_of_another_shape_are_refused(skip_logits):
    with pytest.raises(ValueError, match=r"labels have shape \(1, 4\), but the text has \(1, 3\)"):
        shared_model()(**inputs(labels=prompt("aIbc")), skip_logits=skip_logits)


@pytest.mark.parametrize("name", ["input_ids", "attention_mask", "pixel_values", "frame_attention_mask", "labels"])
def test_arrays_are_refused_by_name(name):
    given = inputs(attention_mask=torch.ones(1, 3), frame_attention_mask=torch.ones(1, 1))
    given["labels"] = prompt("aIb")
    given[name] = given[name].numpy()
    with pytest.raises(ValueError, match=rf"`{name}` is a numpy.ndarray.*return_tensors=\"pt\""):
        shared_model()(**given)


def test_features_as_an_array_are_refused():
    features = np.zeros((1, 1, 4, 24), dtype=np.float32)
    with pytest.raises(ValueError, match=r"`mm_encoder_outputs\['image'\]\['last_hidden_state'\]` is a numpy.ndarray"):
        shared_model()(input_ids=prompt("aIb"), mm_encoder_outputs={"image": {"last_hidden_state": features}})


# Texts that are longer than the positions of the language model.

LIMITED = ("gpt2", "opt", "opt_350m", "mpt", "gptj", "gpt_neo")
UNLIMITED = ("llama", "bloom", "falcon", "gpt_neox", "qwen3")


@pytest.mark.parametrize("text", LIMITED)
def test_the_longest_text_fits_and_a_longer_one_is_refused(text):
    model = shared_model(text)
    assert model.max_text_length == 128
    ids = prompt("a" * 129)
    with torch.no_grad():
        model(input_ids=ids[:, :128])
    with pytest.raises(ValueError, match="The text has 129 tokens, but the language model has positions for 128"):
        model(input_ids=ids)
    with pytest.raises(ValueError, match="The text has 129 tokens, but the language model has positions for 128"):
        model.generate(input_ids=ids, max_new_tokens=1)


@pytest.mark.parametrize("text", UNLIMITED)
def test_computed_positions_have_no_limit(text):
    model = shared_model(text)
    assert model.max_text_length is None
    with torch.no_grad():
        assert model(input_ids=prompt("a" * 130)).logits.isfinite().all()


def test_a_text_too_long_is_refused_before_an_image_is_encoded():
    model = tiny_flamingo()
    model.vision_model.register_forward_pre_hook(lambda *_: pytest.fail("an image was encoded"))
    for call in (model, functools.partial(model.generate, max_new_tokens=1)):
        with pytest.raises(ValueError, match="positions for 128"):
            call(input_ids=prompt("I" + "a" * 128), pixel_values=random_images(1, 1))


def test_padding_does_not_take_up_positions():
    model = shared_model()
    ids, mask = prompt("_" * 50 + "a" * 100), torch.tensor([[0] * 50 + [1] * 100])
    with torch.no_grad():
        padded = model(input_ids=ids, attention_mask=mask).logits[:, 50:]
        torch.testing.assert_close(padded, model(input_ids=ids[:, 50:]).logits, rtol=1e-4, atol=1e-4)
    assert model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=3, eos_token_id=-1).shape == (1, 153)


def test_text_after_a_cache_counts_with_it():
    model = shared_model()
    with torch.no_grad():
        cache = model(input_ids=prompt("a" * 127), use_cache=True).cache
    with pytest.raises(ValueError, match="The text has 129 tokens"):
        model(input_ids=prompt("bc"), cache=cache)


@pytest.mark.parametrize(
    "kwargs", [{"max_new_tokens": 50}, {"max_length": 500}, {}, {"num_beams": 2, "max_new_tokens": 50}]
)
def test_generation_stops_at_the_last_position(kwargs, caplog):
    """The last new token needs no position: it is not fed to the model."""
    model, ids = shared_model(), prompt("a" * 120)
    with caplog.at_level("WARNING"):
        generated = model.generate(input_ids=ids, eos_token_id=-1, **kwargs)
    assert generated.shape[1] == 129
    assert "The text has 120 tokens" in caplog.text and "at most 9 are generated" in caplog.text


def test_generation_within_the_positions_is_not_limited(caplog):
    with caplog.at_level("WARNING"):
        generated = shared_model().generate(input_ids=prompt("a" * 120), eos_token_id=-1, max_new_tokens=9)
    assert generated.shape[1] == 129 and "positions" not in caplog.text


# Pixels and features that are not numbers, or not normalized.


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pixels_that_are_not_finite_are_refused(value):
    pixels = random_images(1, 2)
    pixels[0, 1, 0, 0, 0] = value
    message = "`pixel_values` holds NaN or infinity, first in real image or frame 1 of 2"
    for call in (shared_model(), functools.partial(shared_model().generate, max_new_tokens=1)):
        with pytest.raises(ValueError, match=message):
            call(input_ids=prompt("aIbI"), pixel_values=pixels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64])
def test_values_are_finite_if_each_of_them_is(dtype):
    large = torch.full((3, 4), torch.finfo(dtype).max if dtype.is_floating_point else 7, dtype=dtype)
    assert is_finite(large)  # their sum is not
    for wrong in ([float("nan")], [float("inf")], [float("-inf")], [float("inf"), float("-inf")]):
        if dtype.is_floating_point:
            values = large.clone()
            values[0, : len(wrong)] = torch.tensor(wrong, dtype=dtype)
            assert not is_finite(values)


def test_padding_among_the_images_may_be_anything():
    pixels = random_images(1, 2)
    expected = shared_model()(**inputs(pixel_values=pixels[:, :1])).logits
    pixels[0, 1] = float("nan")
    got = shared_model()(**inputs(pixel_values=pixels, frame_attention_mask=torch.tensor([[1, 0]]))).logits
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("name", "shape"), [("pooler_output", (1, 1, 5, 24)), ("last_hidden_state", (1, 1, 4, 24))])
def test_features_that_are_not_finite_are_refused(name, shape):
    features = torch.full(shape, float("nan"))
    with pytest.raises(ValueError, match=f"`{name}` holds NaN or infinity, first in sample 0 of 1"):
        shared_model()(input_ids=prompt("aIb"), mm_encoder_outputs={"image": {name: features}})


def test_pixels_that_were_not_normalized_are_refused():
    pixels = torch.randint(0, 255, (1, 1, 3, 8, 8), dtype=torch.uint8)
    with pytest.raises(ValueError, match="`pixel_values` is of type torch.uint8, so the pixels were not rescaled"):
        shared_model()(**inputs(pixel_values=pixels))


@pytest.mark.parametrize(("name", "shape"), [("pooler_output", (1, 1, 5, 24)), ("last_hidden_state", (1, 1, 4, 24))])
def test_features_of_whole_numbers_are_refused(name, shape):
    features = torch.ones(shape, dtype=torch.uint8)
    with pytest.raises(ValueError, match=f"'{name}'.* is of type torch.uint8, but features are floats"):
        shared_model()(input_ids=prompt("aIb"), mm_encoder_outputs={"image": {name: features}})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_embeddings_that_are_not_finite_are_refused(value):
    embeds = shared_model().get_input_embeddings()(prompt("ab")).detach()
    embeds[0, 1, 3] = value
    for call in (shared_model(), functools.partial(shared_model().generate, max_new_tokens=1)):
        with pytest.raises(ValueError, match="`inputs_embeds` holds NaN or infinity, first in sample 0 of 1"):
            call(inputs_embeds=embeds)


@pytest.mark.parametrize(("given", "message"), [({"images": {}}, r"a dict with \['images'\]"), ([1], "a list")])
def test_images_under_another_name_are_not_ignored(given, message):
    for call in (shared_model(), functools.partial(shared_model().generate, max_new_tokens=1)):
        with pytest.raises(ValueError, match=f"`mm_encoder_outputs` is {message}"):
            call(input_ids=prompt("ab"), mm_encoder_outputs=given)
