# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest
from factory import tiny_config, tiny_text_config, tiny_vision_config
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from transformers_flamingo import FlamingoImageProcessor
from transformers_flamingo.conversion.conversion import (
    MappedKey,
    check_rows,
    format_table,
    load_image_processor,
    load_tokenizer,
)


@pytest.mark.parametrize("name", ["gpt2", "mpt", "llama", "gemma"])
def test_a_directory_without_a_tokenizer_is_refused(tmp_path, name):
    """transformers makes one of special tokens alone, or none."""
    tiny_text_config(name).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no tokenizer in .*--tokenizer"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(("num_tokens", "num_unpadded"), [(99, 0), (98, 0), (90, 1), (60, 0), (93, 0)])
def test_embeddings_for_other_tokens_are_a_warning_padded_ones_are_not(caplog, num_tokens, num_unpadded):
    config = tiny_config()  # 99 rows
    check_rows(config, num_tokens, num_unpadded)
    assert ("embeddings for 99 tokens" in caplog.text) == (num_tokens != 99)
    caplog.clear()
    config.text_config.vocab_size = 104  # padded to a multiple of 8
    check_rows(config, 99)
    check_rows(config, 104)
    config.text_config.vocab_size = 105  # and a token later
    check_rows(config, 100, num_unpadded=1)
    assert caplog.text == ""


def test_special_tokens_without_a_row_are_an_error():
    config = tiny_config()
    config.text_config.vocab_size = 98
    with pytest.raises(ValueError, match="'image_token_id': 98.*embeddings for 98 tokens"):
        check_rows(config, 99)


def test_all_settings_of_a_clip_processor_are_kept(tmp_path):
    settings = {"size": {"shortest_edge": 10}, "crop_size": {"height": 8, "width": 8}}
    settings |= {"resample": 2, "do_normalize": False, "rescale_factor": 1 / 127.5}
    stock = CLIPImageProcessorPil(**settings)
    stock.save_pretrained(tmp_path)
    loaded = load_image_processor(tmp_path, tiny_vision_config(), FlamingoImageProcessor)
    assert type(loaded) is FlamingoImageProcessor
    image = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)  # a crop where both rules agree
    assert np.array_equal(loaded(image)["pixel_values"][0], stock(image)["pixel_values"][0])


def test_an_encoder_that_is_no_clip_keeps_its_own_processor(tmp_path):
    config = tiny_vision_config("siglip")
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="siglip_vision_model it is not known how pixels are scaled"):
        load_image_processor(tmp_path, config, FlamingoImageProcessor)
    stock = SiglipImageProcessorPil(size={"height": 8, "width": 8})
    stock.save_pretrained(tmp_path)
    loaded = load_image_processor(tmp_path, config, FlamingoImageProcessor)
    image = np.full((20, 30, 3), 200, dtype=np.uint8)
    assert np.array_equal(loaded(image)["pixel_values"][0], stock(image)["pixel_values"][0])


def test_a_clip_without_a_processor_gets_clips_and_one_of_another_size_is_an_error(tmp_path):
    config = tiny_vision_config()
    config.save_pretrained(tmp_path)
    loaded = load_image_processor(tmp_path, config, FlamingoImageProcessor)
    assert loaded(np.zeros((20, 30, 3), dtype=np.uint8), return_tensors="pt")["pixel_values"].shape == (1, 3, 8, 8)
    CLIPImageProcessorPil().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="crops to 224 x 224, but its encoder takes 8 x 8"):
        load_image_processor(tmp_path, config)


def test_the_table_as_text():
    table = [MappedKey("a.b", "model.long", (2, 3)), MappedKey("bias", None, (), "an old buffer")]
    assert format_table(table) == (
        "SOURCE  TARGET      SHAPE   REASON\n"
        "a.b     model.long  2x3     converted\n"
        "bias    -           scalar  an old buffer"
    )
