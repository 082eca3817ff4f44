# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The whole demo, cut short: every file is written, and the numbers agree with each other."""

import json
import re

import pytest
import torch
from PIL import Image

from transformers_flamingo_cli import main
from transformers_flamingo_miniature.data import build_image_split
from transformers_flamingo_miniature.demo import DemoArguments, build_miniature_flamingo, training_rows


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    directory = tmp_path_factory.mktemp("demo")
    sizes = {"max-steps": 4, "batch-size": 4, "train-size": 16, "test-size": 8, "num-captions": 4}
    arguments = [text for name, value in sizes.items() for text in (f"--{name}", str(value))]
    assert main(["demo", "--output-dir", str(directory), *arguments]) == 0
    return directory


def test_it_writes_the_whole_report(report):
    for name in ("loss.png", "gates.png", "captions.png", "example.png"):
        with Image.open(report / name) as picture:
            assert picture.format == "PNG"
    assert {"config.json", "model.safetensors", "processor_config.json", "README.md"} <= {
        path.name for path in (report / "model").iterdir()
    }


def test_the_numbers_of_the_report(report):
    metrics = json.loads((report / "metrics.json").read_text())
    assert metrics["arguments"]["max_steps"] == 4
    assert [entry["step"] for entry in metrics["gates"]] == [0, 4]
    assert metrics["gates"][0]["attn"] == [0.0] * len(metrics["gates"][0]["attn"])
    assert set(metrics["scores"]) == {"seen", "unseen"}
    assert len(metrics["samples"]) == 4
    model, _ = build_miniature_flamingo()
    assert metrics["num_trained_parameters"] == sum(p.numel() for p in model.parameters() if p.requires_grad)


def test_the_card_shows_the_numbers_of_the_report_and_no_others(report):
    metrics = json.loads((report / "metrics.json").read_text())
    card = (report / "model" / "README.md").read_text()
    rows = re.findall(r"^\| (\S+/\S+) \| (\d+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \| ([\d.]+) \|$", card, flags=re.M)
    expected = [
        (name, str(v["n"]), *(f"{v[key]:.3f}" for key in ("image", "permuted", "blank", "chance")))
        for by_name in metrics["scores"].values()
        for name, v in by_name.items()
    ]
    assert rows == expected
    assert f"{metrics['num_trained_parameters']:,}" in card


def test_the_saved_model_captions_a_file(report, capsys):
    assert main(["caption", str(report / "example.png"), "--model", str(report / "model")]) == 0
    assert "example.png: " in capsys.readouterr().out


def test_training_rows_keep_the_features_of_each_picture_with_its_texts():
    scenes = build_image_split("train", 6, seed=0)
    _, processor = build_miniature_flamingo()
    features = torch.randn(6, 4, 3)
    rows = training_rows(scenes, features, processor)
    assert len(rows) == sum(1 + len(questions) for questions in scenes["questions"])
    for row in rows:
        scene = scenes[row["scene"]]
        assert torch.equal(row["image_features"], features[row["scene"]][None])
        if row["prompt"] == "<image>":
            assert row["completion"] == scene["caption"] + "<|endofchunk|>"
        else:
            answers = {f"<image>question: {q['question']} answer:": q["answer"] for q in scene["questions"]}
            assert row["completion"] == f" {answers[row['prompt']]}<|endofchunk|>"


@pytest.mark.parametrize("wrong", [{"max_steps": 0}, {"test_size": 1}, {"batch_size": -1}])
def test_impossible_arguments(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}` is {next(iter(wrong.values()))}"):
        DemoArguments(**wrong)
