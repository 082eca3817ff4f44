# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""MosaicGPT, the language model of OpenFlamingo-3B, compared with an independent computation from its published keys."""

import json
import re

import pytest
import torch
import torch.nn.functional as F
from factory import PAD, VOCAB_SIZE, prompt, random_images, tiny_flamingo, tiny_processor, tiny_tokenizer
from peers import OPEN_FLAMINGO, trained_keys
from transformers import AutoModelForImageTextToText

from transformers_flamingo import FlamingoConfig, FlamingoModel
from transformers_flamingo.conversion import convert_open_flamingo
from transformers_flamingo.conversion.backbones import load_language_model, load_text_config
from transformers_flamingo.conversion.mosaic_gpt import mosaic_gpt_config


D, HEADS, LAYERS = 32, 4, 3
CONFIG = {
    "model_type": "mosaic_gpt",
    "architectures": ["MosaicGPT"],
    "auto_map": {"AutoModelForCausalLM": "mosaic_gpt.MosaicGPT"},
    "d_model": D,
    "n_heads": HEADS,
    "n_layers": LAYERS,
    "mlp_ratio": 4,
    "max_seq_len": 64,
    "vocab_size": VOCAB_SIZE + 5,
    "alibi": True,
    "alibi_bias_max": 8,
    "attn_qk_ln": True,
    "attn_clip_qkv": None,
    "attn_impl": "torch",
    "no_bias": True,
    "low_precision_layernorm": True,
    "logit_scale": None,
    "embedding_fraction": 1.0,
    "softmax_scale": None,
    "tokenizer_name": "EleutherAI/gpt-neox-20b",
}


def mosaic_weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    weights = {"transformer.wte.weight": torch.randn(CONFIG["vocab_size"], D)}
    for i in range(LAYERS):
        block = f"transformer.blocks.{i}"
        shapes = {
            "attn.Wqkv": (3 * D, D),
            "attn.out_proj": (D, D),
            "mlp.mlp_up": (4 * D, D),
            "mlp.mlp_down": (D, 4 * D),
        }
        weights |= {f"{block}.{name}.weight": torch.randn(shape) * D**-0.5 for name, shape in shapes.items()}
        for norm in ("ln_1", "ln_2", "attn.q_ln", "attn.k_ln"):
            weights[f"{block}.{norm}.weight"] = 1 + 0.5 * torch.randn(D)
    return weights | {"transformer.ln_f.weight": 1 + 0.5 * torch.randn(D)}


def mosaic_logits(w: dict[str, torch.Tensor], ids: torch.Tensor) -> torch.Tensor:
    """Compute the logits of MosaicGPT (MosaicML, 2023), `(B, T, V)`, from its description and keys."""

    def norm(x, name):
        return F.layer_norm(x, (D,), w[f"{name}.weight"])

    length = ids.shape[1]
    distance = torch.arange(length) - torch.arange(length)[:, None]  # key - query
    slopes = 2.0 ** (-8 * torch.arange(1, HEADS + 1) / HEADS)
    bias = (slopes[:, None, None] * distance).masked_fill(distance > 0, float("-inf"))
    x = w["transformer.wte.weight"][ids]
    for i in range(LAYERS):
        block = f"transformer.blocks.{i}"
        q, k, v = F.linear(norm(x, f"{block}.ln_1"), w[f"{block}.attn.Wqkv.weight"]).chunk(3, dim=-1)
        q, k = norm(q, f"{block}.attn.q_ln"), norm(k, f"{block}.attn.k_ln")
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (q, k, v))
        scores = q @ k.transpose(-1, -2) / (D // HEADS) ** 0.5 + bias
        x = x + F.linear((scores.softmax(-1) @ v).transpose(1, 2).flatten(2), w[f"{block}.attn.out_proj.weight"])
        hidden = F.gelu(F.linear(norm(x, f"{block}.ln_2"), w[f"{block}.mlp.mlp_up.weight"]))
        x = x + F.linear(hidden, w[f"{block}.mlp.mlp_down.weight"])
    return norm(x, "transformer.ln_f") @ w["transformer.wte.weight"].T


@pytest.fixture
def text_dir(tmp_path):
    directory = tmp_path / "text"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(CONFIG))
    torch.save(mosaic_weights(), directory / "pytorch_model.bin")
    return directory


def test_the_language_model_has_the_logits_of_mosaic_gpt(text_dir):
    model = load_language_model(text_dir, load_text_config(text_dir), torch.float32).eval()
    ids = torch.randint(VOCAB_SIZE, (2, 20))
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, mosaic_logits(mosaic_weights(), ids), atol=1e-4, rtol=1e-4)


def converted(directory, text_dir, trained, keys):
    """Convert a checkpoint with these keys and the vision encoder of `trained`, and load the result."""
    torch.save(keys, directory / "checkpoint.pt")
    trained.vision_model.save_pretrained(directory / "vision")
    tiny_processor().image_processor.save_pretrained(directory / "vision")
    tiny_tokenizer().save_pretrained(directory / "tokenizer")
    options = {"vision": directory / "vision", "text": text_dir, "tokenizer": directory / "tokenizer"}
    convert_open_flamingo(directory / "checkpoint.pt", directory / "out", **options, cross_attention_every_n_layers=1)
    return AutoModelForImageTextToText.from_pretrained(directory / "out").eval()


def test_a_converted_3b_sees_images_generates_and_saves(text_dir, tmp_path):
    trained = tiny_flamingo("mpt", **OPEN_FLAMINGO)
    embedding = torch.randn(VOCAB_SIZE, D)
    keys = trained_keys(trained, "transformer.blocks") | {"lang_encoder.transformer.wte.weight": embedding}
    model = converted(tmp_path, text_dir, trained, keys)
    ids = prompt("abcdefg")
    weights = mosaic_weights() | {"transformer.wte.weight": embedding}
    with torch.no_grad():
        language_logits = model.language_model(ids).logits
    torch.testing.assert_close(language_logits, mosaic_logits(weights, ids), atol=1e-4, rtol=1e-4)
    ids = prompt("IabE__", "abIcdI")
    images = {"pixel_values": random_images(2, 2), "frame_attention_mask": torch.tensor([[1, 0], [1, 1]])}
    full = model(ids, (ids != PAD).long(), **images, use_cache=False).logits
    steps = model.generate(ids[1:], pixel_values=images["pixel_values"][1:], max_new_tokens=4, do_sample=False)
    logits = model(steps, pixel_values=images["pixel_values"][1:]).logits
    logits[..., model.config.image_token_id] = float("-inf")  # never generated
    assert torch.equal(logits.argmax(-1)[0, 5:-1], steps[0, 6:])
    assert full.isfinite().all()

    model.save_pretrained(tmp_path / "again")
    reloaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "again").eval()
    assert torch.equal(reloaded(ids, (ids != PAD).long(), **images, use_cache=False).logits, full)


def test_a_mosaic_gpt_that_was_fine_tuned_is_converted(text_dir, tmp_path):
    trained = tiny_flamingo("mpt", **OPEN_FLAMINGO)
    torch.manual_seed(1)
    weights = {key: torch.rand_like(value) for key, value in mosaic_weights().items()}
    weights["transformer.wte.weight"] = torch.randn(VOCAB_SIZE, D)
    peer = {re.sub(r"(blocks\.\d+)\.", r"\1.decoder_layer.", key): value for key, value in weights.items()}
    keys = trained_keys(trained, "transformer.blocks") | {f"lang_encoder.{key}": value for key, value in peer.items()}
    model = converted(tmp_path, text_dir, trained, keys)
    ids = prompt("abcdefg")
    with torch.no_grad():
        logits = model.language_model(ids).logits
    torch.testing.assert_close(logits, mosaic_logits(weights, ids), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("setting", [{"alibi_bias_max": 16}, {"prefix_lm": True}, {"mlp_ratio": 2}])
def test_a_setting_that_mpt_lacks_is_named(setting):
    with pytest.raises(ValueError) as error:
        mosaic_gpt_config(CONFIG | setting)
    assert str(setting) in str(error.value) and "no_bias" not in str(error.value)


def test_a_stock_mpt_that_would_ignore_the_norms_is_refused(text_dir):
    config = load_text_config(text_dir)
    model = load_language_model(text_dir, config, torch.float32)
    kwargs = {"vision_hidden_size": 24, "image_token_id": VOCAB_SIZE - 1, "end_of_chunk_token_id": VOCAB_SIZE - 2}
    flamingo_config = FlamingoConfig(text_config=config, **kwargs)
    FlamingoModel(flamingo_config, language_model=model)
    stock = type(model)(config)
    with pytest.raises(ValueError, match="no layer norm of queries and keys"):
        FlamingoModel(flamingo_config, language_model=stock)


@pytest.mark.parametrize(
    ("name", "value"), [("alibi", False), ("attn_clip_qkv", 6.0), ("no_bias", False), ("mlp_ratio", 2)]
)
def test_settings_that_transformers_lacks_are_refused(text_dir, name, value):
    (text_dir / "config.json").write_text(json.dumps(CONFIG | {name: value}))
    with pytest.raises(ValueError, match=name):
        load_text_config(text_dir)
