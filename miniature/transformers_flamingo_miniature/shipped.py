# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Find what this distribution ships: the backbones, their training records, and the recipe that trains on the drawn world.

The library finds these functions through entry points (`transformers_flamingo.utils.plugins`).
"""

import json
from pathlib import Path
from typing import Any


TRAINING_RECORD = "training.json"


def vision_backbone_path() -> Path:
    """Return the folder of the shipped vision encoder, for `AutoModel` and `AutoImageProcessor`."""
    return Path(__file__).parent / "clip"


def text_backbone_path() -> Path:
    """Return the folder of the shipped language model, for `AutoModelForCausalLM` and `AutoTokenizer`."""
    return Path(__file__).parent / "gpt2"


def few_shot_text_backbone_path() -> Path:
    """Return the folder of the language model of the few-shot model, which was trained on longer rows, and reads less well."""
    return Path(__file__).parent / "few_shot_gpt2"


def recipe_path() -> Path:
    """Return the recipe `miniature`, which trains on what `flamingo miniature-data` writes."""
    return Path(__file__).parent / "recipes" / "miniature.yaml"


def read_training_record(model_dir: str | Path) -> dict[str, Any]:
    """Read the `training.json` of a miniature backbone: its settings and its scores."""
    return json.loads((Path(model_dir) / TRAINING_RECORD).read_text(encoding="utf-8"))


def card_template(kind: str) -> Path:
    """
    Return the template of a model card, for [`write_card`](transformers_flamingo.cards.rendering.write_card).

    Args:
        kind (`str`): `"demo"`, `"few-shot"`, `"miniature-clip"` or `"miniature-gpt2"`.
    """
    return Path(__file__).parent / "card_templates" / f"{kind}.md"
