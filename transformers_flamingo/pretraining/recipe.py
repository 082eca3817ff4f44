# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Recipes of the pretraining of a backbone: YAML files, as those of a training."""

import os
from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from ..training.arguments import SecretFreeTrainingArguments
from ..training.recipe_file import read_recipe_file
from ..training.recipe_parser import RecipeParser, parse_values
from .arguments import TextPretrainingArguments, VisionPretrainingArguments


_Arguments = VisionPretrainingArguments | TextPretrainingArguments


def read_pretraining_recipe(
    kind: type[_Arguments], path: str | os.PathLike, arguments: Sequence[str] = ()
) -> tuple[_Arguments, TrainingArguments]:
    """
    Read a recipe for [`pretrain_vision`] or [`pretrain_text`].

    Args:
        kind (`type`): [`VisionPretrainingArguments`] or [`TextPretrainingArguments`].
        path, arguments: As in [`~training.read_recipe`].

    Returns:
        `tuple`: the arguments of the function.

    Raises:
        FileNotFoundError: there is no such recipe.
        ValueError: the recipe has an unknown name, or a value that does not fit. The message says which.
    """
    kinds, mapping_names = _get_fields(kind)
    (pretraining, training), _, _ = parse_values(read_recipe_file(Path(path)), arguments, kinds, mapping_names)
    return pretraining, training


def make_pretraining_parser(kind: type[_Arguments], **kwargs: Any) -> ArgumentParser:
    """
    Make a parser whose help lists everything that can change a recipe on the command line: each field with its default.

    Args:
        kind (`type`): [`VisionPretrainingArguments`] or [`TextPretrainingArguments`].
        **kwargs: Arguments of `argparse.ArgumentParser`, such as `prog`.
    """
    return RecipeParser(*_get_fields(kind), **kwargs)


def _get_fields(kind: type) -> tuple[tuple[type, type], list[str]]:
    """Return the dataclasses of a recipe, and the names of the fields that map names to values."""
    return (kind, SecretFreeTrainingArguments), [
        f.name for f in fields(kind) if f.name.endswith(("_config", "_options"))
    ]
