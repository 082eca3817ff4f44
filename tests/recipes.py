# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Recipes of the tests, and `flamingo train` in a separate process."""

import os
import subprocess
import sys
from pathlib import Path

import yaml


#: A short version of each shipped recipe, on the miniature world.
SMOKE_RECIPES = Path(__file__).parent / "smoke_recipes"


def miniature_recipe(data: str | Path, output_dir: str | Path) -> dict:
    """Return a recipe that trains in a second; `data` is a folder of `flamingo miniature-data`."""
    return {
        "vision": "miniature",
        "text": "miniature",
        "model_config": {"resampler_num_layers": 1, "resampler_num_latents": 2, "cross_attention_every_n_layers": 3},
        "output_dir": str(output_dir),
        "use_cpu": True,
        "max_steps": 4,
        "logging_steps": 1,
        "save_steps": 2,
        "report_to": "none",
        "dataloader_pin_memory": False,
        "data": {"pairs": {"format": "image_text_pairs", "path": f"{data}/train/pairs.parquet", "batch_size": 1}},
    }


def train_in_process(tmp_path: Path, recipe: dict, *arguments: str, preexec_fn=None, **environment: str):
    """Run `flamingo train` in a separate process, and return its output and exit code."""
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return subprocess.run(
        [sys.executable, "-m", "transformers_flamingo_cli", "train", str(tmp_path / "recipe.yaml"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        preexec_fn=preexec_fn,
        stdin=subprocess.DEVNULL,
        timeout=300,
    )


def message_of(result: subprocess.CompletedProcess) -> str:
    """Return the one line of its error."""
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("flamingo train: "))
    return line
