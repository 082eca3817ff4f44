# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo train`: a short version of every shipped recipe, from the command line to the loaded result."""

import json
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from PIL import Image
from recipes import SMOKE_RECIPES
from transformers import AutoModelForImageTextToText, AutoProcessor

from transformers_flamingo import FlamingoModel
from transformers_flamingo.training import ModelArguments, build_model, load_trainable, parse_recipe, read_recipe
from transformers_flamingo_cli import main
from transformers_flamingo_miniature import text_backbone_path, vision_backbone_path


ABLATIONS = Path(__file__).parents[2] / "benchmarks" / "ablations"  # not in the source distribution
MINIATURE = SMOKE_RECIPES / "miniature.yaml"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    directory = tmp_path_factory.mktemp("data")
    assert main(["miniature-data", str(directory), "--num-pictures", "12", "--num-videos", "2"]) == 0
    return str(directory)


def flamingo_train(recipe: Path, data: str, output_dir, *arguments: str) -> None:
    assert main(["train", str(recipe), "--data_root", data, "--output_dir", str(output_dir), *arguments]) == 0


def logits(model, processor) -> torch.Tensor:
    inputs = processor(images=[[Image.new("RGB", (64, 64), "red")]], text=["<image>a red"], return_tensors="pt")
    with torch.no_grad():
        return model.eval()(**inputs).logits


@pytest.mark.parametrize("name", sorted(path.stem for path in SMOKE_RECIPES.glob("*.yaml")))
def test_a_smoke_recipe_trains_evaluates_and_saves(name, data, tmp_path, capsys):
    flamingo_train(SMOKE_RECIPES / f"{name}.yaml", data, tmp_path)
    recipe = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    samples = ", samples.jsonl" if "evaluation" in recipe else ""
    assert f"{tmp_path}: the model, its card{samples} and report/" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert any(f"loss/{source}" in entry for entry in metrics["log"] for source in recipe["data"])
    for source in recipe.get("evaluation", {}):
        assert 0 <= metrics["scores"][f"eval_{source}_blind_word_f1"] <= 1
    plots = {path.name for path in (tmp_path / "report").glob("*.png")}
    expected = {"loss.png", "gates.png", "branches.png", "image_use.png"}
    assert plots == expected | ({"scores.png"} if "evaluation" in recipe else set())
    assert {source["name"] for source in metrics["image_use"]["sources"]} <= set(recipe["data"])
    card = (tmp_path / "README.md").read_text()
    assert all(f"| {source} |" in card for source in recipe["data"])
    assert metrics["image_use"]["text"] in card
    if name == "lora":
        backbones = str(vision_backbone_path()), str(text_backbone_path())
        base = FlamingoModel.from_vision_text_pretrained(*backbones, **recipe["model_config"])
        model = PeftModel.from_pretrained(base, tmp_path)
        assert "flamingo merge" in card
    else:
        model = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert logits(model, AutoProcessor.from_pretrained(tmp_path)).isfinite().all()


@pytest.mark.parametrize("name", sorted(path.stem for path in ABLATIONS.glob("*.yaml")))
def test_an_ablation_can_be_built(name):
    values = read_recipe(ABLATIONS / f"{name}.yaml", ["--use_cpu"]).model
    model, processor = build_model(values)
    assert all(getattr(model.config, field) == value for field, value in (values.model_config or {}).items())
    assert logits(model, processor).isfinite().all()


# `test_ablations_flamingo.py` trains all kinds of models, and `test_trainer_mixture.py` all mixtures.
@pytest.mark.parametrize("name", ["resampler-mlp", "round-robin", "text-from-scratch", "vanilla-cross-attention"])
def test_an_ablation_trains(name, data, tmp_path):
    recipe = read_recipe(ABLATIONS / f"{name}.yaml", ["--use_cpu"])
    small = [f"--data.{source.name}.batch_size=1" for source in recipe.data]
    off = ["--eval_strategy", "no", "--save_strategy", "no", "--evaluation_max_rows", "1", "--use_cpu"]
    flamingo_train(
        ABLATIONS / f"{name}.yaml",
        data,
        tmp_path,
        *("--max_steps", "2", "--warmup_steps", "1", "--logging_steps", "1"),
        *small,
        *off,
    )
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    sources = {key for entry in metrics["log"] for key in entry if key.startswith("loss/")}
    steps = 2 if name == "round-robin" else len(recipe.data)
    assert len(sources) == steps


def test_a_run_resumes_only_if_the_recipe_says_so(data, tmp_path, capsys):
    flamingo_train(MINIATURE, data, tmp_path / "whole", "--resume_from_checkpoint", "auto")
    flamingo_train(MINIATURE, data, tmp_path / "parts", "--max_steps", "4")
    (tmp_path / "parts" / "checkpoint-4" / "manifest.json").unlink()
    arguments = ["--data_root", data, "--output_dir", str(tmp_path / "parts")]
    assert main(["train", str(MINIATURE), *arguments]) == 1
    assert "has checkpoints of another run" in capsys.readouterr().err
    flamingo_train(MINIATURE, data, tmp_path / "parts", "--resume_from_checkpoint", "auto")
    whole, parts = (AutoModelForImageTextToText.from_pretrained(tmp_path / name) for name in ("whole", "parts"))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))


def test_documents_are_packed(data, tmp_path):
    flamingo_train(MINIATURE, data, tmp_path, "--packing")
    assert yaml.safe_load((tmp_path / "recipe.yaml").read_text())["packing"] is True
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert all(entry["loss"] > 0 for entry in metrics["log"] if "loss" in entry)


def test_only_trainable_parameters_are_saved(data, tmp_path):
    flamingo_train(MINIATURE, data, tmp_path, "--save_trainable_only")
    assert not (tmp_path / "model.safetensors").exists()
    recipe = parse_recipe(yaml.safe_load((tmp_path / "recipe.yaml").read_text()))
    model, processor = build_model(recipe.model)
    before = logits(model, processor)
    load_trainable(model, tmp_path)
    assert not torch.equal(logits(model, processor), before)


def test_a_saved_flamingo_is_trained_further(data, tmp_path, capsys):
    flamingo_train(MINIATURE, data, tmp_path / "first")
    saved = AutoModelForImageTextToText.from_pretrained(tmp_path / "first")
    values = ModelArguments(model=str(tmp_path / "first"))
    model, processor = build_model(values)
    assert torch.equal(logits(model, processor), logits(saved, processor))
    # By a recipe of two backbones, and with a part of the model alone
    further = ["--model", str(tmp_path / "first"), "--save_trainable_only"]
    flamingo_train(SMOKE_RECIPES / "caption.yaml", data, tmp_path / "second", *further)
    recipe = yaml.safe_load((tmp_path / "second" / "recipe.yaml").read_text())
    assert recipe["model"] == str(tmp_path / "first") and not {"vision", "text", "model_config"} & recipe.keys()
    Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
    assert main(["caption", str(tmp_path / "red.png"), "--model", str(tmp_path / "second")]) == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"{tmp_path / 'red.png'}: ")
