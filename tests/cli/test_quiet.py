# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The output of the commands has no message of other libraries that a user cannot act on."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image
from recipes import SMOKE_RECIPES

from transformers_flamingo_cli import main


# Output of the commands themselves: log entries, the line at the end, progress bars, and that one step is too few for all answers
EXPECTED = re.compile(
    r"^(\{.*\}|Data source '\w+': there are \d+ different answers.*|[\w./\- ]+: .*|\s*|.*\b\d+%\|.*|.* examples/s\]|\d+it \[.*|\[A)$"
)
NOISE = re.compile(
    "warn|deprecat|kernels|mean_resizing|gemm|unrecognized|parallelism|backend|torchvision|fan_in|not initialized",
    re.IGNORECASE,
)


def flamingo(directory: Path, *arguments: str) -> str:
    """Run a command without settings in the environment, and return its output."""
    settings = ("PYTHONWARNINGS", "TRANSFORMERS_VERBOSITY", "TOKENIZERS_PARALLELISM", "DATASETS_VERBOSITY")
    environment = {name: value for name, value in os.environ.items() if name not in settings}
    result = subprocess.run(
        [sys.executable, "-m", "transformers_flamingo_cli", *arguments],
        capture_output=True,
        text=True,
        cwd=directory,
        env={**environment, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.DEVNULL,
    )
    output = result.stdout + result.stderr
    assert result.returncode == 0, output
    return output


@pytest.mark.parametrize("recipe", ["miniature", "lora"])
def test_training_and_captioning_show_nothing_of_other_libraries(tmp_path, recipe):
    assert main(["miniature-data", str(tmp_path / "data"), "--num-pictures", "20", "--num-videos", "2"]) == 0
    options = ["--data_root", "data", "--output_dir", "out", "--max_steps", "1", "--dataloader_num_workers", "1"]
    options += ["--warmup_steps", "0", "--logging_steps", "1"]
    output = flamingo(tmp_path, "train", str(SMOKE_RECIPES / f"{recipe}.yaml"), *options, "--eval_strategy", "no")
    if recipe == "miniature":
        Image.new("RGB", (64, 64), "red").save(tmp_path / "red.png")
        output += flamingo(tmp_path, "caption", "red.png", "--model", "out", "--max-new-tokens", "2")
    lines = [line for line in re.split(r"[\r\n]", output) if NOISE.search(line) or not EXPECTED.match(line)]
    assert lines == []


def test_pretraining_shows_nothing_of_other_libraries(tmp_path):
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
    output = flamingo(tmp_path, "pretrain", "text", "pretraining/text", *options)
    assert [line for line in re.split(r"[\r\n]", output) if NOISE.search(line) or not EXPECTED.match(line)] == []


def test_all_other_messages_are_shown():
    code = """
import logging, sys, warnings
from transformers_flamingo_cli import main
code = main(["train", "gone"]), main(["train", "gone"])
logging.getLogger("bitsandbytes.backends.cpu.ops").warning("Failed to load CPU gemm_4bit_forward from %s", "x")
logging.getLogger("bitsandbytes.backends.cpu.ops").warning("another warning")
logging.getLogger("transformers.modeling_utils").warning("The new embeddings will be initialized from a distribution")
logging.getLogger("transformers.modeling_utils").warning("to act on")
warnings.warn("`is_gradient_checkpointing` is deprecated and will be removed", FutureWarning)
warnings.warn("This DataLoader will create 4 worker processes in total.")
warnings.warn("another deprecation", FutureWarning)
sys.exit(code != (1, 1))
"""
    # In a process where nothing is imported yet, as bitsandbytes writes its message once, at import
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stderr
    lines = output.splitlines()
    ends = ["another warning", "to act on", "FutureWarning: another deprecation"]
    assert len(lines) == 5, output
    assert all(line.startswith("flamingo train: There is no recipe 'gone'") for line in lines[:2])
    assert [line[-len(end) :] for line, end in zip(lines[2:], ends, strict=True)] == ends
