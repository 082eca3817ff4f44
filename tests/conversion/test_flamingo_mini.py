# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Behavior and limits of converted flamingo-mini models. test_golden.py compares their outputs."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from transformers_flamingo.conversion import convert_flamingo_mini


GOLDEN = Path(__file__).parents[1] / "golden" / "flamingo_mini" / "gpt2_every1"
OPTIONS = {"vision": GOLDEN / "vision_base", "text": GOLDEN / "lm_base", "tokenizer": GOLDEN / "tokenizer"}
IMAGE = Image.new("RGB", (40, 33), "red")


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    output_dir = tmp_path_factory.mktemp("mini") / "out"
    convert_flamingo_mini(GOLDEN / "hf", output_dir, **OPTIONS)
    return output_dir


@pytest.fixture(scope="module")
def model(converted):
    return AutoModelForImageTextToText.from_pretrained(converted).eval()


@pytest.fixture(scope="module")
def processor(converted):
    return AutoProcessor.from_pretrained(converted)


def test_a_less_than_sign_marks_an_image_and_must_have_one(model, processor):
    with pytest.raises(ValueError, match="2 `<image>` in its text but 1 images"):
        processor(text=["<image>a < b"], images=[[IMAGE]])
    batch = processor(text=["<image>a < b"], images=[[IMAGE, IMAGE]], return_tensors="pt")
    assert model(**batch).logits.shape[1] == batch["input_ids"].shape[1]
    batch["pixel_values"] = batch["pixel_values"][:, :1]
    with pytest.raises(ValueError, match="2 markers, 1 images"):
        model(**batch)


def test_without_images_a_less_than_sign_is_ordinary_text(model, processor):
    batch = processor(text=["a < b <image>"], return_tensors="pt")
    with torch.no_grad():
        logits = model(**batch).logits
        media_index = torch.zeros_like(batch["input_ids"])
        assert torch.equal(logits, model(**batch, media_index=media_index).logits)
    assert model.generate(**batch, max_new_tokens=2, do_sample=False).shape[1] <= batch["input_ids"].shape[1] + 2


def test_less_than_signs_may_be_generated_and_their_embeddings_stay_frozen(model, processor):
    assert model.generation_config.suppress_tokens is None
    assert model.generation_config.eos_token_id[0] == processor.end_of_chunk_token_id
    frozen = AutoModelForImageTextToText.from_pretrained(model.config._name_or_path)
    frozen.freeze_backbones()
    assert [token_id for token_id, _ in frozen.input_token_rows.items()] == [processor.end_of_chunk_token_id]


def test_truncation_that_would_cut_a_marker_off_is_an_error(processor):
    with pytest.raises(ValueError, match="truncation"):
        processor(text=["a long text before <image>"], images=[[IMAGE]], truncation=True, max_length=4)


def test_the_card_states_the_limitation(converted):
    text = ModelCard.load(converted / "README.md").text
    assert "every token `<`" in text and "flamingo-mini" in text


def test_embeddings_that_were_trained_apart_stay_untied(tmp_path):
    shutil.copytree(GOLDEN / "hf", tmp_path / "hf")
    weights = torch.load(tmp_path / "hf" / "pytorch_model.bin", weights_only=True)
    weights["flamingo.lm_head.weight"] = weights["flamingo.lm_head.weight"] + 1
    torch.save(weights, tmp_path / "hf" / "pytorch_model.bin")
    convert_flamingo_mini(tmp_path / "hf", tmp_path / "out", **OPTIONS)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    difference = model.get_output_embeddings().weight - model.get_input_embeddings().weight
    torch.testing.assert_close(difference, torch.ones_like(difference))


def test_a_sharded_source(tmp_path):
    shutil.copytree(GOLDEN / "hf", tmp_path / "hf")
    weights = torch.load(tmp_path / "hf" / "pytorch_model.bin", weights_only=True)
    (tmp_path / "hf" / "pytorch_model.bin").unlink()
    index = {}
    for number in range(3):
        name = f"pytorch_model-{number + 1:05d}-of-00003.bin"
        part = {key: weights[key] for key in sorted(weights)[number::3]}
        torch.save(part, tmp_path / "hf" / name)
        index |= dict.fromkeys(part, name)
    (tmp_path / "hf" / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    table = convert_flamingo_mini(tmp_path / "hf", tmp_path / "out", **OPTIONS, dry_run=True)
    assert {row.source for row in table} == weights.keys()


def test_a_text_directory_without_a_tokenizer_is_refused(tmp_path):
    (tmp_path / "text").mkdir()
    shutil.copy(GOLDEN / "lm_base" / "config.json", tmp_path / "text")
    options = {"vision": GOLDEN / "vision_base", "text": tmp_path / "text"}
    with pytest.raises(ValueError, match="no tokenizer in .*text. Pass one as .*--tokenizer"):
        convert_flamingo_mini(GOLDEN / "hf", tmp_path / "out", **options)
    assert os.listdir(tmp_path) == ["text"]


def test_an_impossible_config_is_refused(tmp_path):
    shutil.copytree(GOLDEN / "hf", tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config | {"resampler_num_latents": 0}))
    with pytest.raises(ValueError, match="`resampler_num_latents` is 0"):
        convert_flamingo_mini(tmp_path / "hf", tmp_path / "out", **OPTIONS)


def test_a_video_may_have_more_frames_than_embeddings(model, processor):
    """flamingo-mini cannot read such a video. Here its frame embeddings are interpolated."""
    batch = processor(text=["<image>a"], videos=[[[IMAGE] * 9]], return_tensors="pt")
    assert model.config.resampler_num_frames < 9 and model(**batch).logits.isfinite().all()


def test_another_kind_of_model_is_refused(tmp_path):
    with pytest.raises(ValueError, match="is a file. Pass the directory"):
        convert_flamingo_mini(GOLDEN / "hf" / "pytorch_model.bin", tmp_path / "out", **OPTIONS)
    with pytest.raises(ValueError, match="not a flamingo-mini model.*lacks clip_model_type, lm"):
        convert_flamingo_mini(GOLDEN / "lm_base", tmp_path / "out", **OPTIONS)


def test_a_folder_without_a_configuration_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty' has no config\.json, so it is not a saved flamingo-mini model"):
        convert_flamingo_mini(tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out").exists()
