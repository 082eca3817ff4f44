# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Exported graphs give what the model gives: images, prompt and steps with a static cache."""

import pytest
import torch
from factory import open_gates, prompt, random_images, tiny_flamingo
from transformers import StaticCache
from transformers.exporters import DynamoConfig, DynamoExporter, ExportedModel, OnnxConfig, OnnxExporter

from transformers_flamingo.conditioning_flamingo import passes_keywords
from transformers_flamingo.image_features_flamingo import FlamingoImageFeatures, real_images_first
from transformers_flamingo.utils.exporting import export_for_generation


LENGTH = 16


def export(exporter, config, model) -> ExportedModel:
    inputs = {"input_ids": prompt("aIbIc"), "pixel_values": random_images(1, 2)}
    return export_for_generation(exporter, model, inputs, config, max_cache_len=LENGTH)


def check(exported: ExportedModel, model) -> None:
    """Compare with the model on another prompt and other images of the same shapes, step by step."""
    ids, images = prompt("IabIc", seed=1), random_images(1, 2, seed=1)
    runners = exported.runners
    latents = runners["image_encoder"](pixel_values=images)["pooler_output"]
    torch.testing.assert_close(latents, model.get_image_features(images).pooler_output, rtol=1e-4, atol=1e-5)
    features = FlamingoImageFeatures(
        pooler_output=latents, image_attention_mask=torch.ones(latents.shape[:2], dtype=torch.bool)
    )
    cache = StaticCache(config=model.config.text_config, max_cache_len=LENGTH)
    outputs = runners["prefill"](
        input_ids=ids,
        position_ids=torch.arange(ids.shape[1])[None],
        mm_encoder_outputs={"image": features},
        cache=cache,
    )
    expected = model(input_ids=ids, pixel_values=images, use_cache=False).logits
    torch.testing.assert_close(outputs["logits"], expected, rtol=1e-3, atol=1e-4)
    for _ in range(3):
        token = outputs["logits"][:, -1:].argmax(dim=-1)
        position = ids.shape[1]
        ids = torch.cat([ids, token], dim=1)
        outputs = runners["decode"](
            input_ids=token,
            position_ids=torch.tensor([[position]]),
            attention_mask=(torch.arange(LENGTH) <= position)[None, None, None],
            cache=outputs["cache"],
        )
        expected = model(input_ids=ids, pixel_values=images, use_cache=False).logits[:, -1:]
        torch.testing.assert_close(outputs["logits"], expected, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_the_graphs_of_torch_export(tmp_path):
    model = open_gates(tiny_flamingo("llama"))
    exported = export(DynamoExporter(), DynamoConfig(), model)
    assert list(exported.components) == ["image_encoder", "prefill", "decode"]
    check(exported, model)


@torch.no_grad()
def test_the_graphs_of_onnx(tmp_path):
    for name in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(name)
    model = open_gates(tiny_flamingo("llama"))
    export(OnnxExporter(), OnnxConfig(), model).save_pretrained(tmp_path)
    check(ExportedModel.from_pretrained(tmp_path), model)


def test_what_is_missing_or_too_long_is_an_error():
    inputs = {"input_ids": prompt("aIb"), "pixel_values": random_images(1, 1)}
    model = tiny_flamingo("llama")
    with pytest.raises(ValueError, match=r"needs `input_ids` and `pixel_values`.*Got \['input_ids'\]"):
        export_for_generation(None, model, {"input_ids": prompt("ab")}, DynamoConfig(), max_cache_len=8)
    with pytest.raises(ValueError, match="`max_cache_len` is 3, but the prompt has 3 tokens"):
        export_for_generation(None, model, inputs, DynamoConfig(), max_cache_len=3)


def test_a_cache_that_is_longer_than_the_positions_is_an_error():
    inputs = {"input_ids": prompt("aIb"), "pixel_values": random_images(1, 1)}
    model = tiny_flamingo("gpt2")
    with pytest.raises(
        ValueError, match=f"`max_cache_len` is 999, but .* positions for {model.max_text_length} tokens"
    ):
        export_for_generation(None, model, inputs, DynamoConfig(), max_cache_len=999)


@pytest.mark.parametrize("text", ["mpt", "bloom", "falcon", "gpt_neo"])
def test_a_language_model_that_drops_keywords_is_an_error(text):
    inputs = {"input_ids": prompt("aIb"), "pixel_values": random_images(1, 1)}
    with pytest.raises(ValueError, match="ForCausalLM cannot be exported with images: it drops keywords"):
        export_for_generation(None, tiny_flamingo(text), inputs, DynamoConfig(), max_cache_len=8)


@pytest.mark.parametrize("text", ["gpt2", "opt", "llama", "gptj"])
def test_language_models_that_pass_keywords_on(text):
    assert passes_keywords(tiny_flamingo(text).language_model)


@pytest.mark.parametrize("wanted", ["111", "011", "101", "0110", "000", "100101"])
def test_images_are_ordered_as_a_stable_sort_orders_them(wanted):
    """ONNX has no stable sort."""
    mask = torch.tensor([[c == "1" for c in wanted], [c == "1" for c in wanted[::-1]]])
    latents = torch.arange(mask.numel(), dtype=torch.float).reshape(*mask.shape, 1, 1)
    order = (~mask).long().argsort(dim=1, stable=True)
    got = real_images_first(FlamingoImageFeatures(pooler_output=latents), mask)
    assert torch.equal(got.pooler_output, latents.take_along_dim(order[:, :, None, None], dim=1))
    assert torch.equal(got.image_attention_mask, mask.take_along_dim(order, dim=1))
