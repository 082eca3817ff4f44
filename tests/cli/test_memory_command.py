# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo memory`: what it prints for a saved model, of which it reads no weights, and for a shape."""

import re

import pytest
from factory import tiny_config

from transformers_flamingo.training import estimate_training_memory
from transformers_flamingo.training.shapes import SHAPES, shape_config
from transformers_flamingo_cli import main


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> str:
    """Return a folder with a configuration alone."""
    folder = tmp_path_factory.mktemp("saved")
    tiny_config("opt").save_pretrained(folder)
    return str(folder)


def run(capsys, *arguments: str) -> dict[str, str]:
    """Run the command, and return its lines by their beginnings."""
    assert main(["memory", *arguments]) == 0
    return dict(re.split(r"  +", line, maxsplit=1) for line in capsys.readouterr().out.splitlines() if "  " in line)


def test_a_training(saved, capsys):
    batch = ["--batch_size", "4", "--images", "2", "--text_length", "16"]
    lines = run(capsys, saved, *batch, "--gpus", "8", "--peak_tflops", "1", "--utilization", "0.5")
    estimate = estimate_training_memory(tiny_config("opt"), batch_size=4, num_images=2, text_length=16, num_gpus=8)
    steps = estimate.steps_per_day(1e12, 0.5)
    assert lines["peak on each GPU"] == f"{estimate.total / 2**30:.2f} GiB"
    assert lines["steps per day"] == f"{steps:,.0f}, which are {steps * 32:,.0f} texts and {steps * 64:,.0f} images"
    assert list(lines)[1:6] == ["weights", "gradients", "optimizer", "activations", "buffers"]
    assert lines["batch on each GPU"] == "4 texts of 16 tokens and 2 images"


def test_embeddings_that_are_not_trained(tmp_path, capsys):
    config = tiny_config("opt", cross_attention_layers=[1])  # below the block there is a layer
    config.save_pretrained(tmp_path)
    arguments = [str(tmp_path), "--text_length", "64", "--peak_tflops", "1", "--utilization", "1"]
    found = []
    for option, trains in (("--train_token_embeddings", True), ("--no_train_token_embeddings", False)):
        steps = run(capsys, *arguments, option)["steps per day"].split(", which")[0]
        expected = estimate_training_memory(config, text_length=64, train_token_embeddings=trains)
        assert steps == f"{expected.steps_per_day(1e12, 1):,.0f}"
        found.append(expected.flops)
    assert found[1] < 0.98 * found[0]


@pytest.mark.parametrize(("size", "answer"), [("24", "It fits in 24 GiB"), ("2", "It does not fit in 2 GiB")])
def test_whether_a_generation_fits(saved, capsys, size, answer):
    assert main(["memory", saved, "--inference", "--text_length", "16", "--gpu_memory", size]) == 0
    out = capsys.readouterr().out
    assert answer in out
    assert "cache of a token" in out and "optimizer" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["2b"], "Shapes are 1b, 3b, 9b, 80b"),
        (["1b", "--gpus", "0"], "`gpus` is 0, but it must be at least 1"),
        (["1b", "--train_text", "--lora_rank", "8"], "keep frozen"),
        (["1b", "--train_token_embeddings", "false", "--lora_rank", "8"], "runs through all layers anyway"),
        (["1b", "--sharding", "fsdp2"], "there is one GPU"),
        (["1b", "--inference", "--gpus", "8", "--lora_rank", "8"], "`gpus` and `lora_rank` would have no effect"),
        (["1b", "--beams", "3"], "`beams` would have no effect: give what is only of a generation with `inference`"),
        (["1b", "--text_length", "2"], "one token for the marker of each image"),
    ],
)
def test_an_error_is_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["memory", *arguments])
    errors = capsys.readouterr().err
    assert message in errors and errors.count("\n") == 1


def test_shapes_are_as_large_as_they_are_called():
    widths = {name: shape_config(name).text_config.hidden_size for name in SHAPES}
    assert widths == {"1b": 960, "3b": 2048, "9b": 4096, "80b": 8192, "caption": 2048, "lora": 4096}
    assert len(shape_config("80b").cross_attention_layer_indices) == 12
    assert {name: len(shape_config(name).cross_attention_layer_indices) for name in ("3b", "caption", "lora")} == {
        "3b": 24,
        "caption": 12,
        "lora": 8,
    }
    with pytest.raises(ValueError, match="no shape '2b'"):
        shape_config("2b")
