# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Where the two shipped miniature backbones are, and what their training scripts have in common."""

import json
import math
import platform
from pathlib import Path
from typing import Any

from transformers_flamingo.cards.model_card import package_versions
from transformers_flamingo.saving_flamingo import write_json


TRAINING_RECORD = "training.json"


def vision_backbone_path() -> Path:
    """Folder of the shipped vision backbone, for `AutoModel` and `AutoImageProcessor`."""
    return Path(__file__).parent / "clip"


def text_backbone_path() -> Path:
    """Folder of the shipped language model, for `AutoModelForCausalLM` and `AutoTokenizer`."""
    return Path(__file__).parent / "gpt2"


def library_versions() -> dict[str, str]:
    """Versions of everything that a training result depends on."""
    versions = package_versions("torch", "transformers", "tokenizers", "numpy", "pillow")
    return {"python": platform.python_version()} | versions


def write_training_record(output_dir: str | Path, record: dict[str, Any]) -> None:
    """Write `record` as `training.json` next to the weights. Model cards are generated from this file."""
    write_json(Path(output_dir) / TRAINING_RECORD, record, indent=2)


def read_training_record(model_dir: str | Path) -> dict[str, Any]:
    """Read the `training.json` of a miniature backbone."""
    return json.loads((Path(model_dir) / TRAINING_RECORD).read_text(encoding="utf-8"))


def warmup_cosine(step: int, steps: int, warmup_steps: int) -> float:
    """Learning rate factor: a linear rise over `warmup_steps`, then half a cosine down to 0 at `steps`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))
