# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Vision encoders that return maps: convolutional networks, whose statistics a frozen encoder keeps."""

import pytest
import torch
from factory import IMAGE, open_gates, prompt, random_images, tiny_config, tiny_text_config
from flamingos import assert_close, far, run
from huggingface_hub.errors import StrictDataclassClassValidationError
from transformers import (
    ConvNextConfig,
    EfficientNetConfig,
    MobileNetV1Config,
    MobileNetV2Config,
    MobileViTConfig,
    MobileViTV2Config,
    RegNetConfig,
    ResNetConfig,
    SamVisionConfig,
    TimmWrapperConfig,
)

from transformers_flamingo import FlamingoConfig, FlamingoModel


# name -> configuration, width
ENCODERS = {
    "resnet": (
        ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", downsample_in_first_stage=True
        ),
        16,
    ),
    "convnext": (ConvNextConfig(patch_size=2, num_stages=2, hidden_sizes=[8, 12], depths=[1, 1]), 12),
    "efficientnet": (
        EfficientNetConfig(
            image_size=8,
            width_coefficient=0.1,
            depth_coefficient=0.1,
            hidden_dim=128,
            in_channels=[32, 16],
            out_channels=[16, 24],
            kernel_sizes=[3, 3],
            strides=[1, 2],
            num_block_repeats=[1, 2],
            expand_ratios=[1, 2],
        ),
        128,
    ),
    "mobilenet_v2": (
        MobileNetV2Config(image_size=8, depth_multiplier=0.05, finegrained_output=False),
        64,
    ),
}


def make_model(name: str, **kwargs) -> FlamingoModel:
    """Build a tiny model with an encoder of `ENCODERS`."""
    vision, _ = ENCODERS[name]
    others = {key: getattr(tiny_config(), key) for key in ("image_token_id", "end_of_chunk_token_id")}
    sizes = {"resampler_num_layers": 1, "resampler_num_latents": 3, "resampler_num_heads": 2, "resampler_head_dim": 8}
    config = FlamingoConfig.from_vision_text_configs(
        vision, tiny_text_config(), **{**others, **sizes, "cross_attention_num_heads": 2, **kwargs}
    )
    torch.manual_seed(0)
    model = open_gates(FlamingoModel(config))
    with torch.no_grad():  # statistics as of a trained encoder, and not the same for each image
        for module in model.vision_model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize("strategy", ["default", "full"])
@pytest.mark.parametrize("name", ENCODERS)
def test_places_of_a_map_are_tokens_row_by_row(name, strategy):
    model = make_model(name, vision_feature_select_strategy=strategy)
    width = ENCODERS[name][1]
    assert model.config.vision_hidden_size == width
    images = random_images(2, 1)
    with torch.no_grad():
        features = model.get_image_features(images)
        direct = model.vision_model(pixel_values=images[:, 0]).last_hidden_state
    height, breadth = direct.shape[2:]
    assert features.last_hidden_state.shape == (2, 1, height * breadth, width)
    for y in range(height):
        for x in range(breadth):
            assert_close(features.last_hidden_state[:, 0, y * breadth + x], direct[:, :, y, x])
    assert features.pooler_output.shape == (2, 1, 3, width)


def test_a_map_of_each_frame_and_the_same_features_passed_again():
    model = make_model("resnet")
    ids, videos = prompt("aIb", "aIb"), random_images(2, 1, 3)
    expected = run(model, ids, videos)
    assert far(expected.logits[0], expected.logits[1])
    features = model.get_image_features(videos).last_hidden_state
    assert features.ndim == 5
    again = run(model, ids, mm_encoder_outputs={"image": {"last_hidden_state": features}})
    assert_close(again.logits, expected.logits)


@pytest.mark.parametrize("name", ["resnet", "efficientnet"])
def test_a_frozen_encoder_keeps_its_statistics_and_features_in_training(name):
    model = make_model(name)
    images, ids = random_images(3, 1), prompt("aIb", "aIc", "aId")
    expected = model.get_image_features(images).last_hidden_state
    before = {key: value.clone() for key, value in model.vision_model.state_dict().items()}
    model.train()
    model.freeze_backbones()
    assert model.training and model.language_model.training and not model.vision_model.training
    model.train()
    assert not model.vision_model.training
    torch.testing.assert_close(model.get_image_features(images).last_hidden_state, expected, rtol=0, atol=0)
    model(input_ids=ids, pixel_values=images, labels=ids.masked_fill(ids == IMAGE, -100)).loss.backward()
    for key, value in model.vision_model.state_dict().items():
        assert torch.equal(value, before[key]), key

    model.unfreeze_backbones(vision_model=True)
    assert model.vision_model.training
    model.get_image_features(images)
    assert any(not torch.equal(value, before[key]) for key, value in model.vision_model.state_dict().items())


def test_the_width_of_a_map_comes_from_the_configuration_of_its_encoder():
    text = tiny_text_config()
    for vision, width in (
        (ResNetConfig(), 2048),
        (RegNetConfig(), 1088),
        (ConvNextConfig(), 768),
        (MobileViTConfig(), 640),
        (EfficientNetConfig(), 2560),
        (MobileNetV1Config(), 1024),
        (MobileNetV2Config(), 1280),
        (MobileNetV2Config(depth_multiplier=0.35), 1280),
        (MobileNetV2Config(depth_multiplier=1.4), 1792),
        (MobileViTV2Config(width_multiplier=2.0), 1024),
        (SamVisionConfig(), 256),
    ):
        assert FlamingoConfig(vision_config=vision, text_config=text).vision_hidden_size == width
    with pytest.raises(StrictDataclassClassValidationError, match=r"TimmWrapperConfig .*the second of a map"):
        FlamingoConfig(vision_config=TimmWrapperConfig(), text_config=text)


def test_features_of_another_width_are_an_error_when_the_model_is_built():
    with pytest.raises(
        ValueError, match=r"shape \(2, 64, 1, 1\) for 2 images.*Build the model with `vision_hidden_size=64`"
    ):
        make_model("mobilenet_v2", vision_hidden_size=32)
