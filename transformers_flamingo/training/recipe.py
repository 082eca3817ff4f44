# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
r"""
A recipe: a YAML file with the model, the data and the arguments of a training.

    vision: openai/clip-vit-base-patch32     # ModelArguments
    text: gpt2
    model_config: {cross_attention_every_n_layers: 2}
    max_steps: 1000                          # FlamingoTrainingArguments, which are TrainingArguments
    save_steps: ${max_steps}                 # the value of another field
    learning_rate: 1e-4
    data:                                    # the mixture: DataSource by name
      captions: {format: image_text_pairs, path: captions/train, weight: 0.2, batch_size: 16}
      pages: {format: obelics, path: "pages/*.parquet", batch_size: 8}
    evaluation:                              # held-out data: DataSource by name
      captions: {format: image_text_pairs, path: captions/val, batch_size: 16}

`base: other.yaml` starts from another recipe, and `null` removes one of its sources or settings. `???` is a placeholder for a
value that must be given. To use `${` as text, write `\${`.
"""

import os
from argparse import SUPPRESS, ArgumentParser
from collections.abc import Sequence
from dataclasses import MISSING, dataclass, fields, replace
from pathlib import Path
from typing import Any

import yaml

from ..data import FORMATS
from .arguments import DataArguments, FlamingoTrainingArguments, ModelArguments
from .data_source import HELD_OUT, DataSource
from .recipe_file import raise_together, read_recipe_file, show, suggest
from .recipe_parser import RecipeParser, parse_changes, parse_values


_KINDS = (ModelArguments, DataArguments, FlamingoTrainingArguments)
_MAPPING_NAMES = ("model_config", "data", "evaluation")


@dataclass
class Recipe:
    """
    A training that [`run_recipe`] can run.

    Args:
        model ([`ModelArguments`]): The model.
        training ([`FlamingoTrainingArguments`]): The arguments of the trainer.
        data (`list[DataSource]`): The mixture to train on.
        evaluation (`list[DataSource]`): The held-out data.
        text (`str`): The whole recipe as YAML, to run it again, without secrets.
    """

    model: ModelArguments
    training: FlamingoTrainingArguments
    data: list[DataSource]
    evaluation: list[DataSource]
    text: str


def read_recipe(path: str | os.PathLike, arguments: Sequence[str] = ()) -> Recipe:
    """
    Read a recipe.

    Args:
        path (`str`): A file, or the name of a recipe that is shipped or registered, such as `"caption"` or `"miniature"`.
        arguments (`Sequence[str]`, *optional*):
            Changes, as on the command line: `["--max_steps", "10", "--data.captions.weight", "2"]`.

    Raises:
        FileNotFoundError: there is no such recipe.
        ValueError: the recipe has an unknown name, or a value that does not fit. The message says which.
    """
    return parse_recipe(read_recipe_file(Path(path)), arguments)


def parse_recipe(values: dict[str, Any], arguments: Sequence[str] = ()) -> Recipe:
    """Make a recipe from the content of its YAML file. See [`read_recipe`]."""
    item_fields = [f.name for f in fields(DataSource) if f.name != "name"]
    (model, data, training), mappings, text = parse_values(
        values, arguments, _KINDS, _MAPPING_NAMES, _check_sources, item_fields
    )
    sources = {kind: _make_sources(kind, mappings[kind], data.data_root) for kind in ("data", "evaluation")}
    # Not the default, which leaves one evaluation at the end
    if yaml.safe_load(text).get("eval_strategy") == "no":
        sources["evaluation"] = []
    return Recipe(model, training, **sources, text=text)


def read_changes(arguments: Sequence[str]) -> dict[str, dict[str, Any]]:
    """
    Return what a command line changes in the mappings of a recipe: `{"data": {NAME: {FIELD: VALUE}}}` of `--data.NAME.FIELD VALUE`.

    Args:
        arguments (`Sequence[str]`): As in [`read_recipe`]. What is wrong with others is left to it.
    """
    return parse_changes(arguments, _KINDS, _MAPPING_NAMES)


def make_recipe_parser(**kwargs: Any) -> ArgumentParser:
    """
    Make a parser whose help lists everything that can change a recipe on the command line: each field with its default.

    Args:
        **kwargs: Arguments of `argparse.ArgumentParser`, such as `prog`.
    """
    parser = RecipeParser(_KINDS, _MAPPING_NAMES, **kwargs)
    group = parser.add_argument_group(
        "fields of a source", "`data.NAME` is a source of the mixture. For held-out data, write `evaluation.NAME`."
    )
    for f in fields(DataSource):
        if f.name != "name":
            default = SUPPRESS if f.default is MISSING else f.default
            group.add_argument(f"--data.NAME.{f.name}", metavar="VALUE", help=f.metadata["help"], default=default)
    return parser


def _check_sources(mappings: dict[str, Any]) -> None:
    """Raise an error with all that is wrong with the sources of a recipe. A mapping that is not there is not checked."""
    errors: list[Exception] = []
    if not mappings.get("data", True):
        errors = [ValueError("The recipe has no `data`, so there is nothing to train on. Name at least one source.")]
    for kind in ("data", "evaluation"):
        for name in mappings.get(kind, ()):
            try:
                _make_sources(kind, mappings[kind], None, only=name)
            except ValueError as error:
                errors.append(error)
    raise_together(errors)


def _make_sources(kind: str, mapping: dict[str, Any], root: str | None, only: str | None = None) -> list[DataSource]:
    known = [f.name for f in fields(DataSource) if f.name != "name"]
    sources = []
    for name, values in mapping.items():
        if only not in (None, name):
            continue
        shown = show(name)[1:-1]
        if not isinstance(values, dict):
            raise ValueError(
                f"`{kind}.{shown}` is {show(values)}. It must map names to values, at least `format` and `path`."
            )
        errors: list[Exception] = [
            ValueError(f"`{kind}.{shown}` has {show(key)}, which no source has.{suggest(key, known)}")
            for key in values
            if key not in known
        ]
        missing = [key for key in ("format", "path") if key not in values]
        if missing:
            others = [other for other in mapping if other != name]
            hint = suggest(name, others) if others else ""  # the name may be a misspelled one
            errors.append(ValueError(f"`{kind}.{shown}` has no {' and no '.join(map(repr, missing))}. Add it.{hint}"))
        # What is missing must not hide what is wrong with the others
        fillers = {"format": next(iter(FORMATS)), "path": ""} if "options" not in values or "format" in values else {}
        try:
            given = {key: value for key, value in values.items() if key in known}
            source = DataSource(name=name, **{key: fillers[key] for key in missing if key in fillers}, **given)
        except ValueError as error:
            subject = "Data source" if kind == "data" else HELD_OUT
            parts = [str(part) for part in getattr(error, "parts", [error])]
            errors += [ValueError(f"{subject}{part.removeprefix('Data source')}") for part in parts]
        except TypeError:  # its format is missing, without which nothing is known of its options
            pass
        raise_together(errors)
        if root is not None and "://" not in source.path:
            source = replace(source, path=os.path.join(root, source.path))
        sources.append(source)
    return sources
