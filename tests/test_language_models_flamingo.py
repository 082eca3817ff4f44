# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Language models that do not fit are refused at construction, with the reason."""

import pytest
import torch
from factory import END_OF_CHUNK, IMAGE, VOCAB_SIZE, open_gates, prompt, random_images, tiny_vision_config
from transformers import AutoConfig, HieraConfig, ViTMAEConfig, ViTMAEModel

from transformers_flamingo import FlamingoConfig, FlamingoModel
from transformers_flamingo.language_models_flamingo import find_max_text_length


BERT = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
GEMMA = {
    **{name: BERT[name] for name in ("hidden_size", "intermediate_size", "num_attention_heads")},
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}


def config(model_type: str, **fields) -> FlamingoConfig:
    return FlamingoConfig(
        vision_config=tiny_vision_config(),
        text_config=AutoConfig.for_model(model_type, vocab_size=VOCAB_SIZE, **fields),
        resampler_num_layers=1,
        resampler_num_latents=4,
        image_token_id=IMAGE,
        end_of_chunk_token_id=END_OF_CHUNK,
    )


@pytest.mark.parametrize(
    "model_type", ["bert", "roberta", "electra", "big_bird", "roformer", "rembert", "xlm-roberta"]
)
def test_an_encoder_is_refused_until_it_is_a_decoder(model_type):
    fields = BERT | ({"attention_type": "original_full"} if model_type == "big_bird" else {})
    with pytest.raises(ValueError, match="its tokens see the tokens after them.*`is_decoder=True`"):
        FlamingoModel(config(model_type, **fields))
    model = open_gates(FlamingoModel(config(model_type, is_decoder=True, **fields))).eval()
    ids = prompt("aIbcd")
    other = ids.clone()
    other[0, 4] = 50
    images = random_images(1, 1)
    with torch.no_grad():
        first, second = (model(input_ids=i, pixel_values=images, use_cache=False).logits[:, :4] for i in (ids, other))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-5)


def test_bidirectional_attention_is_refused():
    with pytest.raises(ValueError, match="see the tokens after them.*bidirectional attention"):
        FlamingoModel(config("gemma3_text", use_bidirectional_attention=True, **GEMMA))
    FlamingoModel(config("gemma3_text", use_bidirectional_attention=False, **GEMMA))


@pytest.mark.parametrize(
    ("model_type", "fields", "message"),
    [
        (
            "gemma3n_text",
            {"vocab_size_per_layer_input": VOCAB_SIZE, "num_kv_shared_layers": 0, **GEMMA},
            "streams of hidden states .`altup_num_inputs",
        ),
        ("deepseek_v4", {"hidden_size": 32, "num_hidden_layers": 2}, "streams of hidden states .`hc_mult"),
        (
            "hy_v4",
            {"hidden_size": 32, "num_hidden_layers": 2, "pad_token_id": 0},
            "streams of hidden states .`hc_mult",
        ),
        ("prophetnet", {"hidden_size": 32, "num_decoder_layers": 2}, "several streams of hidden states"),
        (
            "recurrent_gemma",
            {"hidden_size": 32, "num_hidden_layers": 3, "lru_width": 32},
            "keeps its state in its modules",
        ),
        ("minimax", {"num_hidden_layers": 2, "num_local_experts": 2, **BERT}, "only its own cache class"),
        ("xlstm", {"hidden_size": 32, "num_heads": 4, "num_hidden_layers": 2}, "only its own cache class"),
        ("dory", {"num_hidden_layers": 2}, "more cache layers"),
    ],
)
def test_what_would_fail_in_its_first_forward_is_refused_at_construction(model_type, fields, message):
    text_config = AutoConfig.for_model(model_type)
    fields = {name: value for name, value in fields.items() if name in text_config.to_dict()}
    with torch.device("meta"), pytest.raises(ValueError, match=f"cannot be conditioned on images: .*{message}"):
        FlamingoModel(config(model_type, **fields))


@pytest.mark.parametrize(
    ("model_type", "fields", "expected"),
    [
        ("roberta", {"is_decoder": True, **BERT}, 64 - 2),  # positions start behind the padding id, 1
        ("biogpt", BERT, 64),
        (
            "trocr",
            {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4, "max_position_embeddings": 64},
            64,
        ),
        ("gpt_bigcode", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}, 64),
        ("codegen", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "rotary_dim": 4}, 64),
        ("xglm", {"d_model": 32, "num_layers": 2, "attention_heads": 4, "max_position_embeddings": 64}, None),
    ],
)
def test_the_longest_text_of_a_family(model_type, fields, expected):
    model = FlamingoModel(config(model_type, **fields)).eval()
    assert model.max_text_length == find_max_text_length(model.language_model) == expected
    length = 70 if expected is None else expected
    ids = torch.randint(5, 90, (1, length + 1))
    with torch.no_grad():
        model(input_ids=ids[:, :length], use_cache=False)
        if expected is not None:
            with pytest.raises((IndexError, RuntimeError)):  # the language model itself cannot
                model.language_model(input_ids=ids, use_cache=False)


def test_a_vision_encoder_that_hides_patches_is_refused():
    vision = ViTMAEConfig(
        hidden_size=24, intermediate_size=32, num_hidden_layers=1, num_attention_heads=4, image_size=8, patch_size=4
    )
    text = config("gpt2", n_embd=32, n_layer=2, n_head=4).text_config
    fields = {"image_token_id": IMAGE, "end_of_chunk_token_id": END_OF_CHUNK}
    with pytest.raises(
        ValueError, match="ViTMAEModel, which does not fit: with `mask_ratio=0.75`.*ViTModel.from_pretrained"
    ):
        FlamingoModel(FlamingoConfig(vision_config=vision, text_config=text, **fields))
    # A given model has a configuration of its own
    given = ViTMAEModel(vision)
    vision = ViTMAEConfig(**{**vision.to_dict(), "mask_ratio": 0.0})
    with pytest.raises(ValueError, match="ViTMAEModel, which does not fit: with `mask_ratio=0.75`"):
        FlamingoModel(FlamingoConfig(vision_config=vision, text_config=text, **fields), vision_model=given)


def test_a_vision_encoder_that_hides_patches_only_in_pretraining_is_taken():
    sizes = {"patch_size": [1, 1], "patch_stride": [1, 1], "patch_padding": [0, 0], "masked_unit_size": [2, 2]}
    vision = HieraConfig(embed_dim=8, image_size=[8, 8], depths=[1, 1], num_heads=[1, 1], num_query_pool=1, **sizes)
    assert vision.mask_ratio > 0
    text = config("gpt2", n_embd=32, n_layer=2, n_head=4).text_config
    fields = {"image_token_id": IMAGE, "end_of_chunk_token_id": END_OF_CHUNK}
    model = open_gates(FlamingoModel(FlamingoConfig(vision_config=vision, text_config=text, **fields))).eval()
    with torch.no_grad():
        first, second = (model(input_ids=prompt("aIb"), pixel_values=random_images(1, 1)).logits for _ in range(2))
    assert torch.equal(first, second)


def test_a_cache_of_sliding_layers_alone_gives_what_no_cache_gives():
    """Moshi sizes its mask by the first cache layer that does not slide: it must not take that of the image."""
    fields = BERT | {"sliding_window": 16, "head_dim": 8, "ffn_dim": 48, "num_key_value_heads": 4}
    model = open_gates(FlamingoModel(config("moshi", **fields))).eval()
    ids, images = prompt("aIbcdefghi"), random_images(1, 1)
    with torch.no_grad():
        expected = model(input_ids=ids, pixel_values=images, use_cache=False).logits[:, 5:]
        cache = model(input_ids=ids[:, :5], pixel_values=images, use_cache=True).cache
        got = model(input_ids=ids[:, 5:], cache=cache).logits
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("model_type", ["trocr", "bart", "marian"])
def test_padding_that_would_move_positions_is_refused(model_type):
    fields = {"d_model": 32, "decoder_layers": 2, "decoder_attention_heads": 4, "decoder_ffn_dim": 48}
    fields |= {"max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    if model_type != "trocr":
        fields |= {
            "encoder_layers": 2,
            "num_hidden_layers": 2,
            "decoder_start_token_id": 2,
            "forced_eos_token_id": None,
        }
    model = FlamingoModel(config(model_type, **fields)).eval()
    ids = prompt("abc")
    with torch.no_grad():
        alone = model(input_ids=ids).logits
        padded = {"input_ids": prompt("abc__"), "attention_mask": torch.tensor([[1, 1, 1, 0, 0]])}
        torch.testing.assert_close(model(**padded).logits[:, :3], alone, rtol=1e-4, atol=1e-5)
        with pytest.raises(ValueError, match="padding on the left, and .* takes no `position_ids`"):
            model(input_ids=prompt("__abc"), attention_mask=torch.tensor([[0, 0, 1, 1, 1]]))
