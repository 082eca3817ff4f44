# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
The help of `flamingo train`, and the page of the docs, which has every field of a recipe.

    python tests/training/test_recipe_help.py     # writes docs/recipe-fields.md
"""

from dataclasses import fields
from pathlib import Path

import pytest

from transformers_flamingo.training import DataSource, FlamingoTrainingArguments, ModelArguments
from transformers_flamingo.training.recipe_help import COMMON, describe_common_fields, fields_page
from transformers_flamingo_cli import main


PAGE = Path(__file__).parents[2] / "docs" / "recipe-fields.md"


def test_the_page_is_that_of_the_classes():
    assert PAGE.read_text(encoding="utf-8") == fields_page(), f"write it: python {Path(__file__).name}"


def test_the_page_has_every_field():
    page = PAGE.read_text(encoding="utf-8")
    names = [f.name for kind in (ModelArguments, FlamingoTrainingArguments) for f in fields(kind) if f.init]
    names += [f"data.NAME.{f.name}" for f in fields(DataSource) if f.name != "name"]
    assert [name for name in names if f"| `{name}` |" not in page] == []


def test_the_short_help_has_what_recipes_are_made_of():
    text = describe_common_fields()
    stock = [f.name for f in fields(FlamingoTrainingArguments) if f.init]
    assert set(COMMON) < set(stock)
    for name in (*COMMON, "lora_target_modules", "early_stopping_patience", "data.NAME.weight"):
        assert f"  --{name}" in text
    assert "--hub_token" not in text and "%%" not in text
    assert "flamingo train caption --model DIRECTORY" in text


@pytest.mark.parametrize(("option", "has_all"), [("--help", False), ("--help_all", True), ("--help-all", True)])
def test_the_command_shows_the_common_fields_or_all(option, has_all, capsys):
    with pytest.raises(SystemExit) as error:
        main(["train", option])
    assert error.value.code == 0
    text = capsys.readouterr().out
    assert ("--adam_beta1" in text) is has_all
    assert "--lora_dropout" in text


if __name__ == "__main__":
    PAGE.write_text(fields_page(), encoding="utf-8")
