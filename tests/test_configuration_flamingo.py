# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The configuration: fields, errors, and equality after saving and loading."""

import json
import logging

import pytest
from factory import END_OF_CHUNK, IMAGE, VOCAB_SIZE, tiny_config, tiny_text_config, tiny_vision_config
from huggingface_hub.errors import (
    StrictDataclassClassValidationError,
    StrictDataclassError,
    StrictDataclassFieldValidationError,
)
from transformers import (
    AutoConfig,
    CLIPConfig,
    CLIPTextConfig,
    CLIPVisionConfig,
    Gemma3Config,
    GPT2Config,
    SiglipConfig,
    TimmWrapperConfig,
)

from transformers_flamingo import FlamingoConfig


def test_defaults_are_those_of_openflamingo_with_two_more_rows_for_the_special_tokens():
    config = FlamingoConfig()
    assert (config.vision_config.model_type, config.text_config.model_type) == ("clip_vision_model", "gpt2")
    assert config.vision_hidden_size == CLIPVisionConfig().hidden_size
    assert (config.end_of_chunk_token_id, config.image_token_id) == (50257, 50258)
    assert config.text_config.vocab_size == 50259
    assert config.cross_attention_layer_indices == list(range(12))
    assert (config.resampler_num_layers, config.resampler_num_latents) == (6, 64)
    assert (config.resampler_num_heads, config.resampler_head_dim) == (8, 64)
    assert (config.cross_attention_num_heads, config.cross_attention_head_dim) == (8, 64)


def test_a_given_text_config_is_not_changed():
    text_config = GPT2Config(vocab_size=10)
    config = FlamingoConfig(text_config=text_config)
    assert (text_config.vocab_size, config.text_config.vocab_size) == (10, 12)


@pytest.mark.parametrize(
    ("every", "layers", "expected"),
    [
        (1, None, [0, 1, 2]),
        (2, None, [1]),
        (3, None, [2]),
        (2, [2, 0], [0, 2]),
        (9, (1,), [1]),
    ],
)
def test_cross_attention_layer_indices(every, layers, expected):
    config = tiny_config(cross_attention_every_n_layers=every, cross_attention_layers=layers)
    assert config.cross_attention_layer_indices == expected


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"cross_attention_layers": [0, 2]},
        {"resampler_num_frames": 0, "use_cache": False},
        {"resampler_type": "mlp", "cross_attention_gating": "none", "cross_attention_ffn_mult": 0},
    ],
)
@pytest.mark.parametrize(("text", "vision"), [("gpt2", "clip"), ("opt_350m", "siglip"), ("gemma3", "dinov2")])
def test_round_trips(tmp_path, text, vision, kwargs):
    config = tiny_config(text, vision, **kwargs)
    assert FlamingoConfig.from_dict(config.to_dict()).to_dict() == config.to_dict()
    config.save_pretrained(tmp_path)
    for loaded in (FlamingoConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert type(loaded) is FlamingoConfig
        assert type(loaded.text_config) is type(config.text_config)
        assert type(loaded.vision_config) is type(config.vision_config)
        # The path is the one thing that differs.
        assert {**loaded.to_dict(), "_name_or_path": ""} == {**config.to_dict(), "_name_or_path": ""}
        assert loaded.cross_attention_layer_indices == config.cross_attention_layer_indices


def test_default_config_round_trips(tmp_path):
    # Two rows are added to the vocabulary once, not once more on each load.
    FlamingoConfig().save_pretrained(tmp_path)
    loaded = FlamingoConfig.from_pretrained(tmp_path)
    assert (loaded.text_config.vocab_size, loaded.image_token_id) == (50259, 50258)


def test_config_without_a_vision_encoder_round_trips(tmp_path):
    config = FlamingoConfig(vision_hidden_size=20, text_config=tiny_text_config())
    assert config.vision_config is None
    config.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()).get("vision_config") is None
    loaded = FlamingoConfig.from_pretrained(tmp_path)
    assert (loaded.vision_config, loaded.vision_hidden_size) == (None, 20)
    assert (loaded.image_token_id, loaded.end_of_chunk_token_id) == (VOCAB_SIZE + 1, VOCAB_SIZE)


def test_sub_configs_may_be_dicts():
    config = FlamingoConfig(
        vision_config=tiny_vision_config("siglip").to_dict(), text_config={"model_type": "gpt2", "vocab_size": 12}
    )
    assert config.vision_config.model_type == "siglip_vision_model"
    assert config.text_config.vocab_size == 14


def test_a_two_tower_config_gives_its_vision_tower():
    vision = {"hidden_size": 24, "num_attention_heads": 4}
    clip = CLIPConfig(text_config=CLIPTextConfig(hidden_size=16).to_dict(), vision_config=vision)
    for two_towers in (clip, SiglipConfig(vision_config=vision)):
        config = FlamingoConfig(vision_config=two_towers, text_config=tiny_text_config())
        assert config.vision_config.model_type == two_towers.vision_config.model_type
        assert config.vision_hidden_size == 24


def test_an_unknown_keyword_is_an_error_that_names_the_known_ones():
    with pytest.raises(TypeError, match=r"\['resampler_num_latent'\].*resampler_num_latents"):
        tiny_config(resampler_num_latent=3)
    # The same from a file: a checkpoint of another version is not loaded with silent defaults.
    with pytest.raises(TypeError, match="perceiver_depth"):
        FlamingoConfig.from_dict({**tiny_config().to_dict(), "perceiver_depth": 2})


def test_what_a_tool_leaves_on_a_config_does_not_make_its_file_unloadable(tmp_path, caplog):
    config = tiny_config()
    config.rms_norm_eps = 1.0
    logger = logging.getLogger("transformers_flamingo")
    logger.addHandler(caplog.handler)
    try:
        config.save_pretrained(tmp_path)
    finally:
        logger.removeHandler(caplog.handler)
    assert "rms_norm_eps" not in json.loads((tmp_path / "config.json").read_text())
    assert not hasattr(FlamingoConfig.from_pretrained(tmp_path), "rms_norm_eps")
    assert any("rms_norm_eps" in message for message in caplog.messages)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"cross_attention_every_n_layers": 0}, "`cross_attention_every_n_layers` is 0"),
        ({"cross_attention_num_heads": 0}, "`cross_attention_num_heads` is 0"),
        ({"cross_attention_head_dim": -1}, "`cross_attention_head_dim` is -1"),
        ({"cross_attention_ffn_mult": -1}, "`cross_attention_ffn_mult` is -1"),
        ({"resampler_num_latents": 0}, "`resampler_num_latents` is 0"),
        ({"resampler_num_heads": 0}, "`resampler_num_heads` is 0"),
        ({"resampler_head_dim": 0}, "`resampler_head_dim` is 0"),
        ({"resampler_ffn_mult": 0}, "`resampler_ffn_mult` is 0"),
        ({"resampler_num_layers": -1}, "`resampler_num_layers` is -1"),
        ({"resampler_num_frames": -1}, "`resampler_num_frames` is -1"),
        ({"cross_attention_layers": [3]}, "decoder layers 0 to 2"),
        ({"cross_attention_layers": [-1]}, "decoder layers 0 to 2"),
        ({"cross_attention_layers": [1, 1]}, "at most once"),
        ({"cross_attention_layers": []}, "no token could see an image"),
        ({"cross_attention_every_n_layers": 4}, "no token could see an image"),
        ({"vision_hidden_size": 25}, "features have width 24"),
        ({"image_token_id": None}, "`image_token_id` is missing"),
        ({"end_of_chunk_token_id": None}, "`end_of_chunk_token_id` is missing"),
        ({"image_token_id": -1}, "`image_token_id` is -1"),
        ({"image_token_id": END_OF_CHUNK}, f"both {END_OF_CHUNK}"),
    ],
)
def test_impossible_values(kwargs, message):
    # huggingface_hub wraps what a `validate_*` method raises; the message stays readable in it.
    with pytest.raises(StrictDataclassClassValidationError, match=message):
        tiny_config(**kwargs)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"vision_feature_select_strategy": "patches"},
        {"cross_attention_gating": "sigmoid"},
        {"resampler_type": "qformer"},
        {"resampler_num_latents": "many"},
        {"cross_attention_layers": "all"},
        {"image_token_id": 1.5},
    ],
)
def test_wrong_types(kwargs):
    with pytest.raises(StrictDataclassFieldValidationError, match=next(iter(kwargs))):
        tiny_config(**kwargs)


def test_zero_layers_and_frames_are_possible():
    config = tiny_config(resampler_num_layers=0, resampler_num_frames=0)
    assert (config.resampler_num_layers, config.resampler_num_frames) == (0, 0)


def test_a_vision_config_without_hidden_size_asks_for_it():
    vision = TimmWrapperConfig()
    with pytest.raises(StrictDataclassClassValidationError, match="Set `vision_hidden_size`"):
        FlamingoConfig(vision_config=vision, text_config=tiny_text_config())
    assert FlamingoConfig(vision_config=vision, text_config=tiny_text_config(), vision_hidden_size=7)


def test_get_text_config_and_token_ids():
    config = tiny_config()
    assert config.get_text_config() is config.text_config
    assert (config.image_token_id, config.end_of_chunk_token_id) == (IMAGE, END_OF_CHUNK)


def test_the_two_backbones_may_be_given_by_position():
    vision, text = tiny_vision_config(), tiny_text_config()
    config = FlamingoConfig(vision, text, resampler_num_layers=1)
    assert config.vision_config.hidden_size == vision.hidden_size
    assert config.text_config.vocab_size == text.vocab_size + 2
    assert config.resampler_num_layers == 1
    with pytest.raises(TypeError, match="positional arguments"):
        FlamingoConfig(vision, text, 1)
    with pytest.raises(TypeError, match="multiple values for argument 'vision_config'"):
        FlamingoConfig(vision, vision_config=vision)


def test_a_text_config_that_joins_several_models_is_refused():
    with pytest.raises(ValueError, match=r"Gemma3Config.*get_text_config"):
        FlamingoConfig(text_config=Gemma3Config())


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("resampler_activation", "sqrelu", "must be one of"),
        ("cross_attention_activation", "swish2", "must be one of"),
        ("image_token_ids", [5], "`image_token_id` .98. must be among them"),
        ("image_token_ids", [98, 97], "must not"),
    ],
)
def test_impossible_values_of_names_and_ids(field, value, message):
    with pytest.raises(StrictDataclassError, match=message):
        tiny_config(**{field: value})
