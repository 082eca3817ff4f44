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


def drop_remote_code(model_dir: str | Path) -> None:
    """
    Remove the names of code from the configurations of a saved model, before it is shipped without its `.py` files.

    What is shipped is loaded by the installed package. Names of files that are not there would fail for anyone who copies the
    folder to the Hub.
    """
    from transformers_flamingo.saving_flamingo import write_text

    for path in Path(model_dir).glob("*config.json"):
        config = json.loads(path.read_text(encoding="utf-8"))
        write_text(path, json.dumps(_without_code(config), indent=2, sort_keys=True) + "\n")


def _without_code(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_code(item) for name, item in value.items() if name != "auto_map"}
    return [_without_code(item) for item in value] if isinstance(value, list) else value


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
