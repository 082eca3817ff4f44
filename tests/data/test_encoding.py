# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Test that images and videos are encoded in batches as one by one, with dropout off, and moved to the device that is asked for."""

import pytest
import torch
from factory import tiny_flamingo, tiny_processor
from PIL import Image

from transformers_flamingo.data.encoding import encode_images


IMAGES = [Image.new("RGB", (8, 8), (40 * i, 10, 200 - 20 * i)) for i in range(6)]
ITEMS = [IMAGES[0], [IMAGES[1], IMAGES[2], IMAGES[3]], [IMAGES[4]], IMAGES[5]]  # images, and videos of 3 frames and 1


@pytest.fixture(scope="module")
def model():
    return tiny_flamingo()


@pytest.mark.parametrize("output", ["pooler_output", "last_hidden_state"])
def test_a_batch_of_images_and_videos_is_encoded_as_one_by_one(model, output):
    batch = encode_images(model, tiny_processor(), ITEMS, output=output)
    for item, encoded in zip(ITEMS, batch, strict=True):
        (alone,) = encode_images(model, tiny_processor(), [item], output=output)
        torch.testing.assert_close(encoded, alone)
    inputs = tiny_processor()(images=[[IMAGES[0]]], return_tensors="pt")
    expected = model.get_image_features(inputs["pixel_values"])[output][0, 0]
    torch.testing.assert_close(batch[0], expected)


def test_features_have_no_padding_and_those_of_videos_have_frames(model):
    image, video, short, other = encode_images(model, tiny_processor(), ITEMS, output="last_hidden_state")
    assert image.shape == other.shape
    assert image.ndim == 2
    assert video.shape == (3, *image.shape)
    assert short.shape == (1, *image.shape)


def test_an_iterator_is_read_one_batch_at_a_time(model):
    events = []

    def images():
        for index, image in enumerate(IMAGES):
            events.append(index)
            yield image

    hook = model.vision_model.register_forward_hook(lambda *_: events.append("encoded"))
    try:
        assert len(encode_images(model, tiny_processor(), images(), batch_size=4)) == 6
    finally:
        hook.remove()
    assert events == [0, 1, 2, 3, "encoded", 4, 5, "encoded"]


def test_results_are_on_the_device_that_is_asked_for_and_have_no_gradient(model):
    (latents,) = encode_images(model, tiny_processor(), IMAGES[:1], device="meta")
    assert latents.device.type == "meta"
    assert not latents.requires_grad


def test_dropout_is_off_meanwhile():
    model = tiny_flamingo().train()
    modes = []
    model.vision_model.register_forward_hook(lambda module, *_: modes.append(module.training))
    encode_images(model, tiny_processor(), IMAGES[:1])
    assert modes == [False]
    assert model.vision_model.training


def test_errors(model):
    with pytest.raises(ValueError, match="`batch_size` is 0"):
        encode_images(model, tiny_processor(), IMAGES, batch_size=0)
    blind = tiny_flamingo()
    blind.vision_model = None
    with pytest.raises(ValueError, match="no vision encoder"):
        encode_images(blind, tiny_processor(), IMAGES)
    assert encode_images(model, tiny_processor(), []) == []
