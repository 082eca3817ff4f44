# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The pages for users of other code bases name fields, options and files of ours that exist."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from transformers_flamingo import FlamingoConfig
from transformers_flamingo_cli import main


DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted((DOCS / "migration").glob("*.md"))


def rows(page: str, header: str) -> list[list[str]]:
    """Return the cells of the table of a page that begins with a header."""
    _, _, rest = page.partition(f"{header}\n")
    table = rest.partition("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in table]


@pytest.fixture(scope="module")
def open_flamingo():
    return (DOCS / "migration" / "open-flamingo.md").read_text(encoding="utf-8")


def test_recipe_fields_exist(open_flamingo):
    known = set(
        re.findall(r"^\| `([\w.]+)` \|", (DOCS / "recipe-fields.md").read_text(encoding="utf-8"), re.MULTILINE)
    )
    table = rows(open_flamingo, "| `train.py` | recipe field | |")
    named = {name for _, cell, _ in table for name in re.findall(r"`([a-z_][\w.]*)[`:]", cell)}
    named -= {"constant_with_warmup", "linear", "cosine"}
    assert len(named) > 20
    of_model = {name.removeprefix("model_config.") for name in named if name.startswith("model_config.")}
    assert of_model <= {field.name for field in fields(FlamingoConfig)}
    plain = {
        re.sub(r"^data\.\w+\.(options\.\w+|(\w+))$", r"data.NAME.\1", name)
        for name in named
        if "model_config" not in name
    }
    assert {re.sub(r"options\.\w+", "options", name) for name in plain} <= known


def test_options_of_evaluate_exist(open_flamingo, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    known = set(re.findall(r"--\w+", capsys.readouterr().out))
    table = rows(open_flamingo, "| `evaluate.py` | `flamingo evaluate` | |")
    named = {option for _, cell, _ in table for option in re.findall(r"--\w+", cell)}
    assert len(named) > 10
    assert named <= known


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_fields_of_the_configuration_exist(path):
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(r"\b((?:cross_attention|resampler|vision_feature)_[a-z_]+)\b", text))
    peers = set(re.findall(r"\bresampler_(?:depth|dim_head|heads|ff_mult|num_time_embeds|act|n_\w+)\b", text))
    assert "cross_attention_every_n_layers" in named
    assert named - peers <= {field.name for field in fields(FlamingoConfig)} | {"cross_attention_layer_indices"}
