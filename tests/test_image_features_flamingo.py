# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""From images, videos or features to latents."""

import functools

import pytest
import torch
from factory import (
    IMAGE_SIZE,
    VISION_CONFIGS,
    open_gates,
    prompt,
    random_images,
    tiny_flamingo,
    tiny_text_config,
)
from flamingos import assert_close, count_encoded_frames, far, pad_images, run, shared_model

from transformers_flamingo import FlamingoConfig, FlamingoModel, image_features_flamingo


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
    monkeypatch.setattr(image_features_flamingo, "ENCODER_CHUNK_SIZE", 2)
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
