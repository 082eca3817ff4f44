# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Check that what all images have in common is taken away, and that the statistics travel with the model."""

import logging

import pytest
import torch
from factory import IMAGE_SIZE, TEXT_CONFIGS, prompt, random_images, tiny_config, tiny_flamingo
from flamingos import assert_close, far, run
from hypothesis import given
from hypothesis import strategies as st
from peft import PeftModel, get_peft_model
from torch import nn
from transformers import AutoModel

from transformers_flamingo import FlamingoModel
from transformers_flamingo.feature_standardization_flamingo import FeatureStatistics, resize_positions
from transformers_flamingo.training import lora_config


P, DV = (IMAGE_SIZE // 4) ** 2, 24


def standardized(model: FlamingoModel, features: torch.Tensor) -> torch.Tensor:
    return model.resampler.standardization(features)


def test_by_default_features_stay_as_they_are():
    model = tiny_flamingo()
    assert model.config.resampler_feature_positions == 0
    assert not any("standardization" in name for name in model.state_dict())
    features = torch.randn(2, 1, P, DV)
    assert standardized(model, features) is features


def test_mean_is_by_position_and_scale_by_channel():
    model, pixels = tiny_flamingo(), random_images(6, 2)
    features = model.get_image_features(pixels).last_hidden_state.flatten(0, 1)
    assert model.calibrate_features(pixels) == 12
    result = standardized(model, features)
    assert_close(result.mean(dim=0), torch.zeros(P, DV))
    assert_close(result.square().mean(dim=(0, 1)), torch.ones(DV))
    mean = features.mean(dim=0)
    assert_close(model.resampler.standardization.mean, mean)
    assert_close(model.resampler.standardization.scale, (features - mean).square().mean(dim=(0, 1)).sqrt())


def test_each_latent_loses_its_mean_over_the_images():
    model, pixels = tiny_flamingo(gates=0.0), random_images(6, 2)
    model.calibrate_features(pixels, standardize_latents=False)
    plain = model.get_image_features(pixels).pooler_output.flatten(0, 1)
    assert not model.config.resampler_standardizes_latents
    model.calibrate_features(pixels)
    assert model.config.resampler_standardizes_latents
    latents = model.get_image_features(pixels).pooler_output.flatten(0, 1)
    mean = plain.mean(dim=0)
    assert_close(latents, (plain - mean) / (plain - mean).square().mean(dim=(0, 1)).sqrt())
    # What is the same for all images no longer makes most of the difference between latents
    assert far(plain.mean(dim=0)[0], plain.mean(dim=0)[1])
    assert_close(latents.mean(dim=0), torch.zeros_like(mean))


def test_a_resampler_without_learned_latents_returns_them_as_they_are():
    model = tiny_flamingo(gates=0.0, resampler_type="mlp")
    model.calibrate_features(random_images(6, 2))
    assert not model.config.resampler_standardizes_latents and model.feature_statistics["latent_mean"] is None


def test_pixels_features_and_videos_are_treated_alike():
    pixels = random_images(4, 2, 3)  # videos of 3 frames
    first, second, third = (tiny_flamingo(gates=0.0) for _ in range(3))
    first.calibrate_features([{"pixel_values": pixels[:2]}, {"input_ids": prompt("a")}, {"pixel_values": pixels[2:]}])
    features = second.get_image_features(pixels).last_hidden_state
    second.calibrate_features([{"mm_encoder_outputs": {"image": {"last_hidden_state": features}}}])
    third.calibrate_features(pixels.flatten(1, 2))
    for name in ("mean", "scale"):
        values = [getattr(model.resampler.standardization, name) for model in (first, second, third)]
        assert_close(values[0], values[1])
        assert_close(values[0], values[2])


def test_padding_is_not_counted():
    model, pixels = tiny_flamingo(gates=0.0), random_images(3, 2)
    mask = torch.tensor([[1, 1], [1, 0], [0, 0]])
    nothing = {"pixel_values": pixels, "frame_attention_mask": torch.zeros(3, 2)}
    assert model.calibrate_features([nothing, {"pixel_values": pixels, "frame_attention_mask": mask}]) == 3
    mean = model.resampler.standardization.mean
    features = model.get_image_features(pixels).last_hidden_state[mask.bool()]
    assert_close(mean, features.mean(dim=0))


def test_reading_stops_at_max_images():
    def batches():
        yield {"pixel_values": random_images(4, 1)}
        yield {"pixel_values": random_images(4, 1, seed=1)}
        raise AssertionError("one batch too many was read")

    assert tiny_flamingo(gates=0.0).calibrate_features(batches(), max_images=8) == 8


@given(st.integers(1, 6), st.integers(1, 6), st.booleans())
def test_statistics_do_not_depend_on_the_batches(first, second, has_other_sizes):
    torch.manual_seed(first * 10 + second)
    features = [torch.randn(first, 4, 3) * 5 + 50, torch.randn(second, 9 if has_other_sizes else 4, 3) * 2 + 40]
    statistics = FeatureStatistics()
    for part in features:
        for row in part:
            statistics.add(row[None])
    mean, scale = statistics.compute()
    if has_other_sizes:  # one mean for all positions
        flat = torch.cat([part.flatten(0, 1) for part in features])[:, None].double()
    else:
        flat = torch.cat(features).double()
    assert_close(mean, flat.mean(dim=0).float(), atol=1e-4)
    expected = (flat - flat.mean(dim=0)).square().mean(dim=(0, 1)).sqrt().float()
    assert_close(scale, expected.clamp(min=0.01 * expected.square().mean().sqrt()), atol=1e-4)


def test_a_channel_that_is_always_the_same_is_not_scaled_up():
    statistics = FeatureStatistics()
    features = torch.randn(8, 4, 3)
    features[..., 1] = 7
    statistics.add(features)
    scale = statistics.compute()[1]
    assert scale[1] == pytest.approx(0.01 * float((scale[[0, 2]].square().sum() / 3).sqrt()), rel=1e-3)


def test_another_grid_gets_the_mean_interpolated():
    # A mean that rises from left to right
    mean = torch.arange(4.0).repeat(4, 1).reshape(16, 1)
    assert torch.equal(resize_positions(mean, 16), mean)
    bigger = resize_positions(mean, 64).reshape(8, 8)
    assert torch.equal(bigger, bigger[:1].expand(8, 8))
    assert bigger[0].tolist() == [0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]
    assert resize_positions(mean, 10).tolist() == [[1.5]]
    assert resize_positions(mean[:1], 10).tolist() == [[0]]


def test_saved_and_loaded_it_is_the_same(tmp_path):
    model, pixels, ids = tiny_flamingo(gates=0.0), random_images(4, 1), prompt("aIb")
    model.calibrate_features(pixels)
    with torch.no_grad():
        for block in model.gated_cross_attention:
            block.attn_gate.fill_(1.0)
    model.save_pretrained(tmp_path)
    loaded, info = FlamingoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    assert loaded.config.resampler_feature_positions == P
    assert torch.equal(run(model, ids, pixels[:1]).logits, run(loaded, ids, pixels[:1]).logits)
    # A model of the same configuration that was not calibrated takes the statistics of a state dict
    fresh = tiny_flamingo(gates=0.0)
    fresh.load_state_dict(model.state_dict())
    assert torch.equal(run(model, ids, pixels[:1]).logits, run(fresh, ids, pixels[:1]).logits)
    fresh.save_pretrained(tmp_path / "again")
    again = AutoModel.from_pretrained(tmp_path / "again")
    assert torch.equal(run(model, ids, pixels[:1]).logits, run(again, ids, pixels[:1]).logits)


def test_a_model_loaded_in_half_precision_keeps_its_statistics(tmp_path):
    model, pixels = tiny_flamingo(gates=0.0), random_images(4, 1)
    model.calibrate_features(pixels)
    model.save_pretrained(tmp_path)
    half = FlamingoModel.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert half.resampler.norm.weight.dtype == torch.bfloat16
    features = torch.randn(2, 1, P, DV)
    assert torch.equal(standardized(half, features), standardized(model, features))
    assert run(half, prompt("aIb"), pixels[:1].bfloat16()).logits.dtype == torch.bfloat16


def test_adapters_bring_their_statistics(tmp_path):
    pixels, ids = random_images(4, 1), prompt("aIb")
    base = tiny_flamingo(gates=0.5)
    model = get_peft_model(base, lora_config(base, r=2))
    model.get_base_model().calibrate_features(pixels)
    model.eval()
    model.save_pretrained(tmp_path)
    expected = run(model, ids, pixels[:1]).logits
    loaded = PeftModel.from_pretrained(tiny_flamingo(gates=0.5), tmp_path).eval()
    assert torch.equal(run(loaded, ids, pixels[:1]).logits, expected)
    merged = loaded.merge_and_unload()
    merged.save_pretrained(tmp_path / "merged")
    merged = FlamingoModel.from_pretrained(tmp_path / "merged")
    assert_close(run(merged, ids, pixels[:1]).logits, expected)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        ([], "by 0 images"),
        (random_images(1, 1), "by 1 images"),
        (random_images(1, 1).expand(4, 1, 3, IMAGE_SIZE, IMAGE_SIZE), "all of them have the same features"),
        (
            [{"mm_encoder_outputs": {"image": {"pooler_output": torch.zeros(1, 1, 5, DV)}}}],
            "latents .* are not enough",
        ),
        ([torch.zeros(3)], "has a Tensor"),
        (
            [{"image": "a.png", "text": "a"}],
            "has rows with 'image', 'text', but .*whose `collate_fn` is a `FlamingoDataCollator`",
        ),
        ([{"pixel_values": random_images(2, 1) * float("nan")}], "NaN or infinity"),
    ],
)
def test_bad_input_is_refused_and_changes_nothing(batches, message):
    model, pixels = tiny_flamingo(gates=0.0), random_images(4, 1)
    model.calibrate_features(pixels)
    before = model.resampler.standardization.mean.clone()
    with pytest.raises(ValueError, match=message):
        model.calibrate_features(batches)
    assert torch.equal(model.resampler.standardization.mean, before)


def test_a_model_that_uses_its_images_says_so(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    model = tiny_flamingo(gates=0.5)
    assert not model.ignores_images()
    model.calibrate_features(random_images(4, 1))
    assert "already uses its images" in caplog.text


@pytest.mark.parametrize("zero", ["gates", "projections"])
@pytest.mark.parametrize("gating", ["tanh", "none"])
def test_a_new_model_ignores_images_where_something_is_zero(zero, gating):
    torch.manual_seed(0)
    config = tiny_flamingo(cross_attention_gating=gating, cross_attention_zero_init=zero).config
    model, ids = FlamingoModel(config).eval(), prompt("aIb", "aIb")
    logits = run(model, ids, random_images(2, 1)).logits
    plain = model.language_model(ids).logits
    assert model.ignores_images() == torch.equal(logits, plain) == (zero == "projections" or gating == "tanh")
    assert far(logits[0], logits[1]) != model.ignores_images()


@pytest.mark.parametrize("zero", ["gates", "projections"])
@pytest.mark.parametrize("text", TEXT_CONFIGS)
def test_every_new_model_is_its_language_model_bit_for_bit(text, zero):
    torch.manual_seed(0)
    model = FlamingoModel(tiny_config(text, cross_attention_zero_init=zero)).eval()
    model.calibrate_features(random_images(4, 1))
    ids = prompt("aIbcd", "abIcd")
    assert torch.equal(run(model, ids, random_images(2, 1)).logits, run(model.language_model, ids).logits)


def test_images_that_hardly_differ_are_learned():
    """Two patterns around one common image, which a model without standardization does not tell apart."""
    generator = torch.Generator().manual_seed(0)
    common, patterns = (torch.randn(n, 1, P, DV, generator=generator) for n in (1, 4))
    features = common * 3 + 0.03 * patterns
    ids, labels = prompt("aIb", "aIc", "aId", "aIe"), torch.full((4, 3), -100)
    labels[:, 2] = ids[:, 2]
    gaps = []
    for is_calibrated in (False, True):
        torch.manual_seed(0)
        model = tiny_flamingo(gates=0.0)
        images = {"image": {"last_hidden_state": features}}
        if is_calibrated:
            model.calibrate_features({"mm_encoder_outputs": images})
        model.freeze_backbones()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
        for _ in range(60):
            loss = model(input_ids=ids, labels=labels, mm_encoder_outputs=images).loss
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        other = {"image": {"last_hidden_state": features.roll(1, dims=0)}}
        with torch.no_grad():
            right, wrong = (
                model(input_ids=ids, labels=labels, mm_encoder_outputs=i).loss.item() for i in (images, other)
            )
        gaps.append(wrong - right)
    assert gaps[0] < 0.1 < 0.5 < gaps[1]
