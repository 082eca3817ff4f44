# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The two miniature backbones: what ships loads and is good; what trains them runs and is reproducible."""

import json
from collections import Counter

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoImageProcessor, AutoModel, AutoModelForCausalLM, AutoTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from transformers_flamingo_miniature import read_training_record, text_backbone_path, vision_backbone_path
from transformers_flamingo_miniature.backbones import warmup_cosine
from transformers_flamingo_miniature.text_backbone import (
    TEXT_KINDS,
    Episode,
    _weights,
    all_captions,
    lookup_accuracy,
    sample_episode,
    sample_text,
    text_perplexity,
    train_text_backbone,
)
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
    COLORS,
    HELD_OUT_PAIRS,
    SHAPES,
    CountScene,
    PairScene,
    SingleScene,
    VideoScene,
    answer_prompt,
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


# Text.


def test_episode():
    episode = Episode((("red", "dax"), ("blue", "wug"), ("red", "dax")))
    assert episode.text == "red dax. blue wug. red dax."


@pytest.mark.parametrize("keys", ["color", "shape", "pair"])
@pytest.mark.parametrize("repeat", [False, True])
def test_sampled_episodes_bind_each_key_to_one_word(keys, repeat):
    episode = sample_episode(np.random.default_rng(1), keys, ways=3, examples=12, repeat=repeat)
    assert len(episode.pairs) == 12 and len(set(episode.pairs)) == 3
    assert len({key for key, _ in episode.pairs}) == len({word for _, word in episode.pairs}) == 3
    if repeat:
        assert episode.pairs[:3] == episode.pairs[3:6] == episode.pairs[9:]


def test_wrong_text_arguments_are_named():
    with pytest.raises(ValueError, match="Unknown keys 'sound': an episode binds words to color, shape, pair"):
        sample_episode(np.random.default_rng(0), "sound")
    with pytest.raises(ValueError, match="Unknown kind of text 'poem': known kinds are caption"):
        sample_text("poem", np.random.default_rng(0))


def test_weights_of_bound_words():
    # Token 0 ends a text; 7 and 8 are nonsense words. A word counts more from its second occurrence in its text on.
    rows = torch.tensor([[5, 7, 6, 8, 5, 7, 0, 5, 7, 5, 7]])
    weights = _weights(rows, nonsense=torch.tensor([7, 8]), end=0)
    assert weights.tolist() == [[1, 1, 1, 1, 1, 4, 1, 1, 1, 1, 4]]


def test_blind_text_is_uniform():
    # What a model without eyes can know: the answers of random text are uniform.
    rng = np.random.default_rng(0)
    answers = Counter(sample_text("question", rng).rsplit(" ", 1)[1] for _ in range(6000))
    for group in (COLORS, SHAPES):
        counts = np.array([answers[value] for value in group])
        assert counts.min() / counts.sum() > 0.8 / len(group)


def test_all_captions():
    captions = all_captions()
    # 48 pairs x (2 sizes x 4 backgrounds + 4 counts + 4 directions + 40 objects of another shape)
    assert len(captions) == 48 * (8 + 4 + 4 + 40)
    assert "a small red triangle on a noisy background" in captions
    assert "a red circle left of a blue circle" not in captions


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


def test_text_training_is_reproducible_and_loads(tmp_path):
    arguments = {
        "steps": 2, "max_lookup_steps": 2, "batch_size": 4, "row_length": 32, "width": 32, "layers": 1,
        "evaluation_size": 8, "progress": False,
    }  # fmt: skip
    records = [train_text_backbone(tmp_path / name, **arguments) for name in ("first", "second")]
    first, second = (load_file(tmp_path / name / "model.safetensors") for name in ("first", "second"))
    assert first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)
    assert records[0]["evaluation"] == records[1]["evaluation"]
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path / "first")).__name__ == "GPT2LMHeadModel"
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "first")
    assert tokenizer.tokenize("a red bar") == ["a", "red", "bar"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda folder: train_vision_backbone(folder, steps=0), "at least 1 step of at least 2 pictures"),
        (lambda folder: train_vision_backbone(folder, batch_size=1), "at least 2 pictures"),
        (lambda folder: train_text_backbone(folder, steps=0), "at least 1 step"),
        (lambda folder: train_text_backbone(folder, row_length=512), "do not fit into 512 positions"),
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


@pytest.fixture(scope="module")
def text():
    path = text_backbone_path()
    return AutoModelForCausalLM.from_pretrained(path).eval(), AutoTokenizer.from_pretrained(path)


def test_shipped_backbones_are_small_and_recorded():
    for path in (vision_backbone_path(), text_backbone_path()):
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


def test_shipped_text_backbone(text):
    model, tokenizer = text
    assert type(model).__name__ == "GPT2LMHeadModel"
    assert model.get_input_embeddings().weight.shape[0] == len(tokenizer)
    assert model.config.n_positions >= 512
    record = read_training_record(text_backbone_path())["evaluation"]
    rng = np.random.default_rng(77)
    for kind in TEXT_KINDS[:3]:
        perplexity = text_perplexity(model, tokenizer, [sample_text(kind, rng) for _ in range(200)])
        assert perplexity == pytest.approx(record["perplexity"][kind], rel=0.1)
        assert perplexity < 3.5


def test_shipped_text_backbone_is_blind_but_reads(text):
    model, tokenizer = text
    for question, values in (("what color?", COLORS), ("what shape?", SHAPES)):
        prompt = tokenizer(answer_prompt(question), return_tensors="pt")
        with torch.no_grad():
            probability = model(input_ids=prompt["input_ids"]).logits[0, -1].softmax(-1)
        answers = probability[tokenizer.convert_tokens_to_ids(list(values))]
        assert answers.sum() > 0.98 and answers.max() < 1.5 / len(values)
    rng = np.random.default_rng(5)
    recorded = read_training_record(text_backbone_path())["evaluation"]["lookup"]["color_2_ways"]
    assert lookup_accuracy(model, tokenizer, rng, episodes=200) == pytest.approx(recorded, abs=0.12)
