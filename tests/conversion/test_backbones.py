# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Tokenizers and image processors of backbones, and the ones that a conversion refuses."""

import numpy as np
import pytest
from factory import tiny_config, tiny_text_config, tiny_vision_config
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from transformers_flamingo import FlamingoImageProcessor
from transformers_flamingo.conversion.backbones import check_tokenizer_size, load_image_processor, load_tokenizer


@pytest.mark.parametrize("name", ["gpt2", "mpt", "llama", "gemma"])
def test_a_directory_without_a_tokenizer_is_refused(tmp_path, name):
    """transformers makes one that has only special tokens, or none."""
    tiny_text_config(name).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no tokenizer in .*--tokenizer"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(("num_tokens", "num_unpadded"), [(99, 0), (98, 0), (90, 1), (60, 0), (93, 0)])
def test_embeddings_for_other_tokens_give_a_warning_and_padded_ones_do_not(caplog, num_tokens, num_unpadded):
    config = tiny_config()  # 99 rows
    check_tokenizer_size(config, num_tokens, num_unpadded)
    assert ("embeddings for 99 tokens" in caplog.text) == (num_tokens != 99)
    caplog.clear()
    config.text_config.vocab_size = 104  # padded to a multiple of 8
    check_tokenizer_size(config, 99)
    check_tokenizer_size(config, 104)
    config.text_config.vocab_size = 105  # and a token later
    check_tokenizer_size(config, 100, num_unpadded=1)
    assert caplog.text == ""


def test_special_tokens_without_a_row_are_refused():
    config = tiny_config()
    config.text_config.vocab_size = 98
    with pytest.raises(ValueError, match="'image_token_id': 98.*embeddings for 98 tokens"):
        check_tokenizer_size(config, 99)


def test_all_settings_of_a_clip_processor_are_kept(tmp_path):
    settings = {"size": {"shortest_edge": 10}, "crop_size": {"height": 8, "width": 8}}
    settings |= {"resample": 2, "do_normalize": False, "rescale_factor": 1 / 127.5}
    stock = CLIPImageProcessorPil(**settings)
    stock.save_pretrained(tmp_path)
    loaded = load_image_processor(tmp_path, tiny_vision_config(), FlamingoImageProcessor)
    assert type(loaded) is FlamingoImageProcessor
    image = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)  # a crop where both rules agree
    assert np.array_equal(loaded(image)["pixel_values"][0], stock(image)["pixel_values"][0])


def test_an_encoder_that_is_not_a_clip_keeps_its_processor(tmp_path):
    config = tiny_vision_config("siglip")
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="how a siglip_vision_model expects its pixels to be scaled is not known"):
        load_image_processor(tmp_path, config, FlamingoImageProcessor)
    stock = SiglipImageProcessorPil(size={"height": 8, "width": 8})
    stock.save_pretrained(tmp_path)
    loaded = load_image_processor(tmp_path, config, FlamingoImageProcessor)
    image = np.full((20, 30, 3), 200, dtype=np.uint8)
    assert np.array_equal(loaded(image)["pixel_values"][0], stock(image)["pixel_values"][0])


def test_a_clip_without_a_processor_gets_that_of_clip_and_one_of_another_size_is_refused(tmp_path):
    config = tiny_vision_config()
    config.save_pretrained(tmp_path)
    loaded = load_image_processor(tmp_path, config, FlamingoImageProcessor)
    assert loaded(np.zeros((20, 30, 3), dtype=np.uint8), return_tensors="pt")["pixel_values"].shape == (1, 3, 8, 8)
    CLIPImageProcessorPil().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="crops to 224 x 224, but its encoder takes 8 x 8"):
        load_image_processor(tmp_path, config)
