# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Language models that are not saved on their own: inside multimodal models, and in GGUF files."""

import copy
import json

import pytest
import torch
from factory import (
    END_OF_CHUNK,
    IMAGE,
    VOCAB_SIZE,
    prompt,
    random_images,
    tiny_flamingo,
    tiny_processor,
    tiny_vision_config,
)
from gguf_files import write_gguf
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from transformers_flamingo import FlamingoModel, FlamingoProcessor


def assert_whole(info: dict) -> None:
    for key in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not info[key], (key, info[key])


def test_a_multimodal_model_gives_its_language_model(tmp_path):
    text = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 8,
    }
    text |= {"num_key_value_heads": 2, "vocab_size": VOCAB_SIZE}
    whole = AutoModelForCausalLM.from_config(
        AutoConfig.for_model("gemma3", text_config=text, vision_config=tiny_vision_config("siglip").to_dict())
    )
    whole.generation_config.eos_token_id = 5
    whole.save_pretrained(tmp_path / "gemma3")
    AutoModel.from_config(tiny_vision_config()).save_pretrained(tmp_path / "vision")
    model = FlamingoModel.from_vision_text_pretrained(
        tmp_path / "vision", tmp_path / "gemma3", image_token_id=IMAGE, end_of_chunk_token_id=END_OF_CHUNK
    )
    assert type(model.language_model).__name__ == "Gemma3ForCausalLM"
    assert model.generation_config.eos_token_id == [END_OF_CHUNK, 5, 1]  # 1 is that of its configuration
    assert model.config.text_config.name_or_path == str(tmp_path / "gemma3")
    ids = prompt("abcdef")
    with torch.no_grad():
        assert torch.equal(model(input_ids=ids).logits, whole.eval()(input_ids=ids).logits)
    model.save_pretrained(tmp_path / "joined")
    loaded, info = FlamingoModel.from_pretrained(tmp_path / "joined", output_loading_info=True)
    assert_whole(info)
    with torch.no_grad():
        assert torch.equal(loaded(input_ids=ids).logits, model(input_ids=ids).logits)


def test_a_language_model_that_cannot_be_conditioned_is_refused_before_its_weights_are_read(tmp_path):
    AutoModel.from_config(tiny_vision_config()).save_pretrained(tmp_path / "vision")
    AutoConfig.for_model("musicgen").save_pretrained(tmp_path / "text")  # no weights
    with pytest.raises(ValueError, match="type 'musicgen' cannot be conditioned on images: it makes music"):
        FlamingoModel.from_vision_text_pretrained(tmp_path / "vision", tmp_path / "text")


@pytest.mark.parametrize("size", [3, 30, 3000, -2000], ids=str)
def test_a_damaged_gguf_file(tmp_path, size):
    path = tmp_path / "text" / "tiny.gguf"
    write_gguf(path, ["a red circle", "a blue square"])
    path.write_bytes(path.read_bytes()[:size])
    AutoConfig.for_model("clip_vision_model").save_pretrained(tmp_path / "vision")
    message = "'tiny.gguf' of '.*text' cannot be read .*It is truncated or damaged"
    with pytest.raises(ValueError, match=message):
        FlamingoModel.from_vision_text_pretrained(
            str(tmp_path / "vision"), str(tmp_path / "text"), text_gguf_file="tiny.gguf"
        )


def test_a_gguf_file_that_a_folder_does_not_have(tmp_path):
    AutoConfig.for_model("gpt2").save_pretrained(tmp_path)
    message = "has no 'tiny.gguf'. It has no GGUF file. Give the folder that has it, or leave `text_gguf_file` out"
    for kind in (FlamingoModel, FlamingoProcessor):
        with pytest.raises(FileNotFoundError, match=message):
            kind.from_vision_text_pretrained(str(tmp_path), str(tmp_path), text_gguf_file="tiny.gguf")


def test_a_gguf_file_becomes_ordinary_weights(tmp_path):
    texts = ["a red circle on a blue background", "a green square"]
    bare = write_gguf(tmp_path / "text" / "tiny.gguf", texts)
    AutoModel.from_config(tiny_vision_config()).save_pretrained(tmp_path / "vision")
    tiny_processor().image_processor.save_pretrained(tmp_path / "vision")
    backbones = (tmp_path / "vision", tmp_path / "text")
    processor = FlamingoProcessor.from_vision_text_pretrained(*backbones, text_gguf_file="tiny.gguf")
    model = FlamingoModel.from_vision_text_pretrained(*backbones, text_gguf_file="tiny.gguf")
    assert model.config.image_token_id == processor.image_token_id == bare.config.vocab_size + 1
    assert model.config.end_of_chunk_token_id == processor.end_of_chunk_token_id
    inputs = processor(text=texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**inputs).logits[..., : bare.config.vocab_size]
        rows = bare(inputs["input_ids"][:1], attention_mask=inputs["attention_mask"][:1]).logits
    torch.testing.assert_close(logits[:1], rows)

    model.freeze_backbones()
    model(**inputs, labels=inputs["input_ids"]).loss.backward()
    for part in (model, processor):
        part.save_pretrained(tmp_path / "joined")
    saved = json.loads((tmp_path / "joined" / "config.json").read_text(encoding="utf-8"))
    assert "gguf" not in json.dumps(saved).lower()
    loaded, info = FlamingoModel.from_pretrained(tmp_path / "joined", output_loading_info=True)
    assert_whole(info)
    inputs = FlamingoProcessor.from_pretrained(tmp_path / "joined")(text=texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        assert torch.equal(loaded.eval()(**inputs).logits[..., : bare.config.vocab_size], logits)


@pytest.mark.parametrize("text", ["gpt2", "llama", "opt"])
def test_a_replaced_decoder_is_used_and_conditioned(text):
    """The stock `set_decoder` leaves the decoder of GPT-2 and Llama as it is, without a word."""
    model, other = tiny_flamingo(text), tiny_flamingo(text, seed=1)
    other.gated_cross_attention.load_state_dict(model.gated_cross_attention.state_dict())
    ids, images = prompt("aIbc"), random_images(1, 1)
    features = {"image": model.get_image_features(images)}
    decoder = copy.deepcopy(other.get_decoder())
    model.set_decoder(decoder)
    model.set_output_embeddings(other.get_output_embeddings())
    assert model.get_decoder() is decoder
    with torch.no_grad():
        expected = other(input_ids=ids, mm_encoder_outputs=features).logits
        assert torch.equal(model(input_ids=ids, mm_encoder_outputs=features).logits, expected)
