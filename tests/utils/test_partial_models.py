# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Folders with adapters, or with trained parameters alone, are loaded like a complete model, and `flamingo merge` makes one of them."""

import contextlib
import io
import json
import shutil
from pathlib import Path

import pytest
import torch
from factory import prompt, random_images, tiny_flamingo, tiny_processor, tiny_tokenizer
from runs import source, trainer, write_pairs
from transformers import AutoModelForImageTextToText, AutoProcessor

from transformers_flamingo import FlamingoModel
from transformers_flamingo.training import ModelArguments, build_model
from transformers_flamingo.training.build import read_text_config
from transformers_flamingo.utils.loading import load_flamingo
from transformers_flamingo.utils.partial_models import fetch_partial
from transformers_flamingo_cli import main


# Fields of the model, and of the training
KINDS = {
    "trained": ({}, {"save_trainable_only": True}),
    "trained without embeddings": ({"train_token_embeddings": False}, {"save_trainable_only": True}),
    "adapters": ({"lora_rank": 2}, {}),
    "adapters, trained": ({"lora_rank": 2}, {"save_trainable_only": True}),
}


@pytest.fixture(scope="module")
def backbones(tmp_path_factory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("backbones")
    flamingo = tiny_flamingo("llama")
    flamingo.vision_model.save_pretrained(root / "vision")
    tiny_processor().image_processor.save_pretrained(root / "vision")
    flamingo.language_model.save_pretrained(root / "text")
    tiny_tokenizer().save_pretrained(root / "text")
    return {"vision": str(root / "vision"), "text": str(root / "text")}


@pytest.fixture(scope="module", params=KINDS)
def saved(request, backbones, tmp_path_factory) -> tuple[torch.Tensor, Path]:
    """Return the logits of a trained model, and the folder with its part that was saved."""
    root = tmp_path_factory.mktemp("saved")
    fields, arguments = KINDS[request.param]
    small = {"resampler_num_layers": 1, "resampler_num_latents": 2, "cross_attention_zero_init": "projections"}
    torch.manual_seed(0)
    model, _ = build_model(ModelArguments(**backbones, model_config=small, **fields))
    run = trainer(
        root / "out", [source("a", write_pairs(root / "pairs", 8))], flamingo=model, max_steps=2, **arguments
    )
    with contextlib.redirect_stdout(io.StringIO()):
        run.train()
    run.save_model()
    return logits(model), root / "out"


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.eval()(input_ids=prompt("IabcE"), pixel_values=random_images(1, 1)).logits


def test_it_is_loaded_like_a_complete_model(saved):
    expected, folder = saved
    assert not list(folder.glob("model*.safetensors"))
    model, processor = load_flamingo(folder)
    assert type(model) is FlamingoModel
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-5)
    assert processor.image_token_id == 98
    assert not (logits(FlamingoModel.from_vision_text_pretrained(*read_base(folder))) - expected).abs().max() < 1e-3


def read_base(folder: Path) -> list[str]:
    public = json.loads((folder / "base_model.json").read_text())
    assert (public["vision"], public["text"]) == ("./vision", "./text")
    base = json.loads((folder / "_base_model.json").read_text())  # is not published
    assert Path(base["text"]).is_absolute()
    assert base["config"]["resampler_num_latents"] == 2
    return [base["vision"], base["text"]]


def test_a_recipe_trains_it_further_and_knows_where_it_came_from(saved, tmp_path):
    expected, folder = saved
    arguments = ModelArguments(model=str(folder))
    model, _ = build_model(arguments)
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-5)
    assert model.base_record == {"model": str(folder)}
    assert read_text_config(arguments).max_position_embeddings == 128
    # A part of what was trained further belongs to the first part
    model.freeze_backbones()
    run = trainer(
        tmp_path / "out",
        [source("a", write_pairs(tmp_path / "pairs", 8))],
        flamingo=model,
        max_steps=1,
        save_trainable_only=True,
    )
    with contextlib.redirect_stdout(io.StringIO()):
        run.train()
    run.save_model()
    further = logits(model)
    assert not torch.equal(further, expected)
    torch.testing.assert_close(logits(load_flamingo(tmp_path / "out")[0]), further, rtol=0, atol=1e-5)


def test_merged_it_is_a_complete_model(saved, tmp_path, capsys):
    expected, folder = saved
    assert main(["merge", str(folder), str(tmp_path / "whole")]) == 0
    assert "a complete Flamingo" in capsys.readouterr().out
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "whole")
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-5)
    assert model.config.use_cache and model.generation_config.use_cache is not False  # as it is off in a training
    AutoProcessor.from_pretrained(tmp_path / "whole")
    assert "flamingo merge" in (tmp_path / "whole" / "README.md").read_text()
    with pytest.raises(SystemExit):
        main(["merge", str(tmp_path / "whole"), str(tmp_path / "again")])
    assert "nothing to merge" in capsys.readouterr().err


def test_a_base_that_was_moved_is_named_anew(saved, backbones, tmp_path, capsys):
    expected, folder = saved
    moved = tmp_path / "moved"
    shutil.copytree(folder, moved)
    (moved / "_base_model.json").unlink()  # as it is after a download
    with pytest.raises(
        ValueError,
        match=r"has only .*'\./vision' and '\./text', cannot be loaded.*flamingo merge .* --vision and --text",
    ):
        load_flamingo(moved)
    names = ["--vision", backbones["vision"], "--text", backbones["text"]]
    assert main(["merge", str(moved), str(tmp_path / "whole"), *names]) == 0
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "whole")
    torch.testing.assert_close(logits(model), expected, rtol=0, atol=1e-5)
    assert main(["merge", str(moved), str(tmp_path / "other"), "--base", str(tmp_path / "nowhere")]) == 1
    assert not (tmp_path / "other").exists()
    capsys.readouterr()
    (moved / "base_model.json").unlink()
    if (moved / "trainable.safetensors").exists() and not (moved / "adapter_config.json").exists():
        with pytest.raises(FileNotFoundError, match=r"no base_model\.json that says which model"):
            load_flamingo(moved)


def test_a_name_that_is_no_folder_and_cannot_be_looked_up(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    new = ModelArguments(vision="miniature", text="nope")
    for function in (lambda: fetch_partial("nope"), lambda: load_flamingo("nope"), lambda: build_model(new)):
        with pytest.raises(FileNotFoundError, match="There is no folder 'nope', and the Hub cannot be reached"):
            function()
    (tmp_path / "models--someone--cached" / "snapshots").mkdir(parents=True)
    assert fetch_partial("someone/cached") == "someone/cached"
