# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The output of the commands holds nothing of other libraries on which a user cannot act."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from recipes import SMOKE_RECIPES

from transformers_flamingo_cli import main


# What the commands themselves say: entries of the log, the line at the end, bars of progress
OWN = re.compile(r"^(\{.*\}|[\w./\- ]+: .*|\s*|.*\b\d+%\|.*|.* examples/s\]|\d+it \[.*|\[A)$")
NOISE = re.compile(
    "warn|deprecat|kernels|mean_resizing|gemm|unrecognized|parallelism|backend|torchvision|fan_in|not initialized",
    re.IGNORECASE,
)


def flamingo(directory: Path, *arguments: str) -> str:
    """What a command says to a user who has no settings of their own."""
    ours = ("PYTHONWARNINGS", "TRANSFORMERS_VERBOSITY", "TOKENIZERS_PARALLELISM", "DATASETS_VERBOSITY")
    environment = {name: value for name, value in os.environ.items() if name not in ours}
    result = subprocess.run(
        [sys.executable, "-m", "transformers_flamingo_cli", *arguments],
        capture_output=True,
        text=True,
        cwd=directory,
        env={**environment, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
    )
    said = result.stdout + result.stderr
    assert result.returncode == 0, said
    return said


@pytest.mark.parametrize("recipe", ["miniature", "lora"])
def test_training_and_captioning_say_nothing_of_other_libraries(tmp_path, recipe):
    assert main(["miniature-data", str(tmp_path / "data"), "--num-pictures", "20", "--num-videos", "2"]) == 0
    options = ["--data_root", "data", "--output_dir", "out", "--max_steps", "1", "--dataloader_num_workers", "1"]
    said = flamingo(tmp_path, "train", str(SMOKE_RECIPES / f"{recipe}.yaml"), *options, "--eval_strategy", "no")
    if recipe == "miniature":
        Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
        said += flamingo(tmp_path, "caption", "red.png", "--model", "out", "--max-new-tokens", "2")
    lines = [line for line in re.split(r"[\r\n]", said) if NOISE.search(line) or not OWN.match(line)]
    assert lines == []


def test_pretraining_says_nothing_of_other_libraries(tmp_path):
    assert main(["miniature-data", str(tmp_path / "data"), "--num-pictures", "20", "--num-videos", "2"]) == 0
    options = [
        "--data_path",
        "data/train/pairs.parquet",
        "--output_dir",
        "out",
        "--max_steps",
        "1",
        "--use_cpu",
        "true",
    ]
    options += ["--per_device_train_batch_size", "2", "--text_config.num_hidden_layers", "1"]
    said = flamingo(tmp_path, "pretrain", "text", "pretraining/text", *options)
    assert [line for line in re.split(r"[\r\n]", said) if NOISE.search(line) or not OWN.match(line)] == []


def test_all_else_is_heard():
    code = """
import logging, sys, warnings
from transformers_flamingo_cli import main
code = main(["train", "gone"]), main(["train", "gone"])
logging.getLogger("bitsandbytes.backends.cpu.ops").warning("Failed to load CPU gemm_4bit_forward from %s", "x")
logging.getLogger("bitsandbytes.backends.cpu.ops").warning("another warning")
logging.getLogger("transformers.modeling_utils").warning("The new embeddings will be initialized from a distribution")
logging.getLogger("transformers.modeling_utils").warning("to act on")
warnings.warn("`is_gradient_checkpointing` is deprecated and will be removed", FutureWarning)
warnings.warn("another deprecation", FutureWarning)
sys.exit(code != (1, 1))
"""
    # In a process where nothing is imported yet: what bitsandbytes says at import is said once
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    lines = said.splitlines()
    ends = ["another warning", "to act on", "FutureWarning: another deprecation"]
    assert len(lines) == 5, said
    assert all(line.startswith("flamingo train: There is no recipe 'gone'") for line in lines[:2])
    assert [line[-len(end) :] for line, end in zip(lines[2:], ends, strict=True)] == ends
