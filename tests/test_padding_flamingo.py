# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Check that a padded batch needs no mask: not every client forwards `frame_attention_mask`."""

import pytest
import torch
from factory import prompt, random_images, tiny_flamingo
from flamingos import assert_close, count_encoded_frames, pad_rows, run, shared_model

from transformers_flamingo import FlamingoModel
from transformers_flamingo.padding_flamingo import find_real_images
from transformers_flamingo.training import measure_image_use


ROWS = ["aIbIc", "deIf", "ghi"]
MASK = torch.tensor([[1, 1], [1, 0], [0, 0]])


def batch(side: str = "right", frames: tuple[int, ...] = ()) -> dict[str, torch.Tensor]:
    """Return three samples with 2, 1 and 0 images, padded with zeros as the processor does it."""
    ids, attention_mask = pad_rows(ROWS, side)
    pixels = random_images(3, 2, *frames)
    pixels[MASK == 0] = 0
    return {"input_ids": ids, "attention_mask": attention_mask, "pixel_values": pixels}


@pytest.mark.parametrize("frames", [(), (3,)], ids=["images", "videos"])
def test_forward_needs_no_mask(frames):
    inputs = batch(frames=frames)
    model = tiny_flamingo()
    expected = run(model, frame_attention_mask=MASK, **inputs)
    encoded = count_encoded_frames(model)
    got = run(model, **inputs)
    assert encoded == [3 * (frames or (1,))[0]], "padding is not encoded"
    torch.testing.assert_close(got.logits, expected.logits, rtol=0, atol=0)
    torch.testing.assert_close(got.image_hidden_states, expected.image_hidden_states, rtol=0, atol=0)
    body = model.base_model(**inputs).last_hidden_state
    torch.testing.assert_close(model.base_model(frame_attention_mask=MASK, **inputs).last_hidden_state, body)


def test_gradients_need_no_mask():
    gradients = []
    for mask in (None, MASK):
        model = tiny_flamingo().train()
        inputs = batch()
        model(**inputs, labels=inputs["input_ids"], frame_attention_mask=mask).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("kwargs", [{}, {"num_beams": 2}, {"num_return_sequences": 2, "num_beams": 2}], ids=str)
def test_generation_needs_no_mask(kwargs):
    model, inputs = shared_model(), batch("left")
    settings = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None, **kwargs}
    expected = model.generate(**inputs, frame_attention_mask=MASK, **settings)
    assert torch.equal(model.generate(**inputs, **settings), expected)


def test_the_images_of_a_conversation_that_goes_on_may_be_padded():
    """The second turn gives new images to one sample alone."""
    model = shared_model()
    rows = torch.cat([prompt("aIb", "cId"), prompt("eIf", "ghi")], dim=1)
    pixels = random_images(2, 2)
    pixels[1, 1] = 0
    settings = {"max_new_tokens": 3, "do_sample": False, "eos_token_id": None}
    expected = model.generate(input_ids=rows, pixel_values=pixels, **settings)[:, rows.shape[1] :]
    for images, whole in ((pixels, True), (pixels[:, 1:], True), (pixels[:, 1:], False)):
        cache = run(model, rows[:, :3], pixels[:, :1], use_cache=True).cache
        ids = rows if whole else rows[:, 3:]
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(rows), "pixel_values": images}
        got = model.generate(**inputs, cache=cache, **settings)
        assert torch.equal(got[:, ids.shape[1] :], expected)


def test_rows_without_images_of_a_larger_batch_are_text():
    """TRL cuts a batch into pieces, and a piece may have only the padding."""
    model, ids = shared_model(), prompt("ab", "cd")
    blank = torch.zeros(2, 2, 3, 8, 8)
    expected = run(model, ids).logits
    torch.testing.assert_close(run(model, ids, blank).logits, expected, rtol=0, atol=0)
    settings = {"max_new_tokens": 2, "do_sample": False, "eos_token_id": None}
    assert torch.equal(
        model.generate(input_ids=ids, pixel_values=blank, **settings), model.generate(input_ids=ids, **settings)
    )


def test_a_black_image_is_an_image():
    """Without normalization black is 0, as padding is. The markers tell them apart."""
    model = shared_model()
    pixels = random_images(2, 2)
    pixels[0, 1] = pixels[1] = 0
    ids = prompt("IaIb", "Iabc")
    expected = run(model, ids, pixels, frame_attention_mask=torch.tensor([[1, 1], [1, 0]])).logits
    torch.testing.assert_close(run(model, ids, pixels).logits, expected, rtol=0, atol=0)
    expected = run(model, prompt("Iab", "Icd"), pixels[:, :1], frame_attention_mask=torch.ones(2, 1)).logits
    torch.testing.assert_close(run(model, prompt("Iab", "Icd"), pixels[:, :1]).logits, expected, rtol=0, atol=0)
    # All of a batch is not padding
    assert find_real_images(torch.zeros(2, 2, 3, 8, 8)).all()
    features = model.get_image_features(torch.zeros(2, 1, 3, 8, 8))
    assert features.pooler_output.any() and features.image_attention_mask.all()


def test_an_image_too_many_is_still_an_error():
    pixels = random_images(2, 2)
    with pytest.raises(ValueError, match="sample 1: 1 markers, 2 images"):
        run(shared_model(), prompt("IaIb", "Iabc"), pixels)
    pixels[1, 0] = 0
    with pytest.raises(ValueError, match="sample 1: 1 markers, 2 images"):
        run(shared_model(), prompt("IaIb", "Iabc"), pixels)
    with pytest.raises(ValueError, match="sample 1: 3 markers, 2 images"):
        run(shared_model(), prompt("IaIb", "IIIc"), pixels)


def test_features_are_those_of_the_real_images():
    model, pixels = shared_model(), batch()["pixel_values"]
    features = model.get_image_features(pixels)
    expected = model.get_image_features(pixels, MASK)
    assert torch.equal(features.image_attention_mask, MASK.bool())
    assert_close(features.pooler_output, expected.pooler_output)


def test_what_reads_batches_of_other_trainers_needs_no_mask():
    inputs = batch()
    inputs["labels"] = inputs["input_ids"]
    model = tiny_flamingo()
    assert measure_image_use(model, inputs) == measure_image_use(model, {**inputs, "frame_attention_mask": MASK})
    statistics = []
    for mask in ({}, {"frame_attention_mask": MASK}):
        model: FlamingoModel = tiny_flamingo()
        assert model.calibrate_features([{**inputs, **mask}]) == 3
        statistics.append(model.feature_statistics)
    given, expected = statistics
    assert all(torch.equal(given[name], expected[name]) for name in expected)
