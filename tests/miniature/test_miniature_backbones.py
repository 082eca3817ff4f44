# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The two miniature backbones: what ships loads and is good; what trains them runs and is reproducible."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from transformers_flamingo_miniature import read_training_record, text_backbone_path, vision_backbone_path
from transformers_flamingo_miniature.backbones import warmup_cosine
from transformers_flamingo_miniature.shipped import few_shot_text_backbone_path
from transformers_flamingo_miniature.vision_backbone import (
    CAPTION_LEVELS,
    build_image_processor,
    clip_loss,
    contrast_batch,
    contrast_set,
    encode_patches,
    partial_captions,
    pixels_of,
    train_vision_backbone,
)
from transformers_flamingo_miniature.world import (
    HELD_OUT_PAIRS,
    SHAPES,
    CountScene,
    PairScene,
    SingleScene,
    VideoScene,
    is_held_out,
    render,
)


SCENE = SingleScene("red", "circle", "small", "striped")


# Contrast sets and the contrastive loss.


def test_partial_captions():
    assert partial_captions(SCENE) == {
        "full": "a small red circle on a striped background",
        "shape": "a circle",
        "color": "something red",
        "rest": "something small on a striped background",
    }
    assert partial_captions(CountScene("red", "bar", 2, "plain")) == {
        "full": "two red bars",
        "shape": "bars",
        "color": "red things",
        "rest": "two things on a plain background",
    }
    assert partial_captions(PairScene("red", "bar", "blue", "ring", "noisy")) == {
        "full": "a red bar left of a blue ring",
        "shape": "a bar left of a ring",
        "color": "something red left of something blue",
        "rest": "one thing left of one thing on a noisy background",
    }
    with pytest.raises(ValueError, match="still scene, not a 'video' scene"):
        partial_captions(VideoScene("red", "bar", "up", "plain"))


def test_contrast_sets_differ_in_one_attribute_and_hold_out_pairs():
    rng = np.random.default_rng(0)
    for _ in range(200):
        scenes = contrast_set(rng)
        assert not any(is_held_out(scene) for scene in scenes)
        values = [vars(scene) for scene in scenes]
        varied = {key for key in values[0] if len({value[key] for value in values}) > 1}
        assert len(varied) <= 1 and len({tuple(value.items()) for value in values}) == len(scenes)


def test_contrast_batch_has_the_asked_size_and_all_kinds():
    scenes, images = contrast_batch(100, np.random.default_rng(0))
    assert len(scenes) == len(images) == 100
    assert set(Counter(scene.kind for scene in scenes)) == {"single", "count", "pair"}


def test_clip_loss_without_repeated_captions_is_clips():
    torch.manual_seed(0)
    image, text = torch.randn(5, 8), torch.randn(5, 8)
    logits, labels = image @ text.T, torch.arange(5)
    expected = (
        torch.nn.functional.cross_entropy(logits, labels) + torch.nn.functional.cross_entropy(logits.T, labels)
    ) / 2
    torch.testing.assert_close(clip_loss(image, text, labels), expected)


def test_clip_loss_spreads_a_repeated_caption_over_its_images():
    # One caption for both images: nothing to choose for the images, and ln 2 is the least for the caption.
    loss = clip_loss(torch.ones(2, 3), torch.ones(1, 3), torch.tensor([0, 0]))
    torch.testing.assert_close(loss, torch.tensor(np.log(2) / 2, dtype=torch.float32))


def test_pixels_are_what_the_image_processor_gives():
    images = [render(SCENE, np.random.default_rng(seed)) for seed in range(3)]
    processor = build_image_processor()
    expected = processor(images=images, return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixels_of(images, processor), expected)


def test_warmup_cosine():
    factors = [warmup_cosine(step, steps=10, warmup_steps=2) for step in (0, 1, 2, 6, 10)]
    np.testing.assert_allclose(factors, [0.5, 1.0, 1.0, 0.5, 0.0], atol=1e-12)


# Training.


def test_vision_training_is_reproducible_and_loads(tmp_path):
    arguments = {"steps": 2, "batch_size": 8, "width": 32, "layers": 1, "probe_size": 0, "progress": False}
    state = torch.get_rng_state()
    records = [train_vision_backbone(tmp_path / name, **arguments) for name in ("first", "second")]
    assert torch.equal(torch.get_rng_state(), state)
    assert records[0]["final_loss"] == records[1]["final_loss"]
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    train_vision_backbone(tmp_path / "other", **arguments, seed=1)
    other = load_file(tmp_path / "other" / "model.safetensors")
    assert not all(torch.equal(first[key], other[key]) for key in first)

    assert json.loads((tmp_path / "first" / "training.json").read_text())["hyperparameters"]["steps"] == 2
    model, info = AutoModel.from_pretrained(tmp_path / "first", output_loading_info=True)
    assert type(model).__name__ == "CLIPVisionModel"
    assert not info["missing_keys"] and not info["unexpected_keys"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda folder: train_vision_backbone(folder, steps=0), "at least 1 step of at least 2 pictures"),
        (lambda folder: train_vision_backbone(folder, batch_size=1), "at least 2 pictures"),
    ],
)
def test_wrong_training_arguments_are_named(tmp_path, call, message):
    with pytest.raises(ValueError, match=message):
        call(tmp_path)


# What ships.


@pytest.fixture(scope="module")
def vision():
    path = vision_backbone_path()
    return AutoModel.from_pretrained(path).eval(), AutoImageProcessor.from_pretrained(path)


def test_shipped_backbones_are_small_and_recorded():
    for path in (vision_backbone_path(), text_backbone_path(), few_shot_text_backbone_path()):
        assert sum(file.stat().st_size for file in path.iterdir()) < 4_000_000
        record = read_training_record(path)
        assert {"seed", "hyperparameters", "versions", "training_seconds", "parameters"} <= record.keys()
    assert read_training_record(vision_backbone_path())["held_out_pairs"] == [list(pair) for pair in HELD_OUT_PAIRS]


def test_shipped_vision_backbone(vision):
    model, processor = vision
    assert type(model).__name__ == "CLIPVisionModel" and isinstance(processor, CLIPImageProcessorPil)
    wide = render(SCENE, np.random.default_rng(0)).convert("L").resize((90, 64))
    assert processor(images=wide, return_tensors="pt")["pixel_values"].shape == (1, 3, 64, 64)
    features = encode_patches(model, pixels_of([render(SCENE, np.random.default_rng(0))], processor))
    assert features.shape == (1, 64, model.config.hidden_size)


def test_shipped_vision_backbone_sees(vision):
    # Without any training on top: the class token of a picture is nearest to the mean class token of its own class,
    # means and pictures both of fresh scenes.
    model, processor = vision
    rng = np.random.default_rng(123)

    def class_tokens(shape: str) -> torch.Tensor:
        scenes = [SingleScene("red", shape, "large", "plain") for _ in range(24)]
        with torch.no_grad():
            return model(pixel_values=pixels_of([render(scene, rng) for scene in scenes], processor)).pooler_output

    shapes = [shape for shape in SHAPES if ("red", shape) not in HELD_OUT_PAIRS]
    tokens = torch.stack([class_tokens(shape) for shape in shapes])  # (shapes, 24, Dv)
    means = tokens[:, :12].mean(1)
    nearest = torch.cdist(tokens[:, 12:].flatten(0, 1), means).argmin(-1)
    assert (nearest == torch.arange(len(shapes)).repeat_interleave(12)).float().mean() > 0.9


def test_shipped_probes_are_good():
    probes = read_training_record(vision_backbone_path())["probes"]
    assert CAPTION_LEVELS.keys() == {"full", "shape", "color", "rest"}
    assert min(probes["seen"][name] for name in ("color", "shape", "size", "background", "count")) > 0.9
    assert probes["held_out"]["color"] > 0.95 and probes["held_out"]["shape"] > 0.5
