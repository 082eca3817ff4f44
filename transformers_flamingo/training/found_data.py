# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Train on data of which only the path is known: its format is found out, and a recipe is filled in."""

import json
import os
from pathlib import Path
from typing import Any

from transformers.utils import CONFIG_NAME

from ..data import FORMATS, Detection, detect_format
from ..data.data_files import SeveralSplitsError
from ..utils.partial_models import find_partial
from .recipe_file import read_recipe_file


#: The recipe that is used if none is given.
DEFAULT_RECIPE = "caption"

# Budgets of formats whose rows are longer than a caption, if the recipe is for captions
_CONVERSATION = {"max_length": 512, "batch_size": 4}
_PAGE = {"max_length": 256, "max_images": 6, "batch_size": 8}
_BUDGETS = {
    **dict.fromkeys(("llava", "messages", "prompt_completion", "cauldron"), _CONVERSATION),
    **dict.fromkeys(("obelics", "mmc4", "parts"), _PAGE),
}


def find_sources(
    path: str, evaluation: str | None = None, *, format: str | None = None, split: str | None = None
) -> tuple[dict[str, Any], dict[str, Any] | None, list[str]]:
    """
    Find out format and split of the data to train on and to evaluate on.

    Args:
        path (`str`): The data, as [`~data.Reader.load`] takes it. If it has several splits, that of the training is trained on, and
            the validation data, or else the test data, is evaluated on.
        evaluation (`str`, *optional*): Held-out data at another path; `"null"` for none.
        format, split (`str`, *optional*): The format of `path`, and the split to read of it, if they are known.

    Returns:
        `tuple`: fields of the [`DataSource`] to train on, those of the held-out one or `None`, and a sentence for each decision.

    Raises:
        FileNotFoundError, ValueError: as [`~data.detect_format`]; or the path is that of a saved model.
    """
    refuse_model(path)
    held_out = None
    try:
        found = _detect(path, split, format)
    except SeveralSplitsError as error:
        other = next((name for name in ("validation", "test") if name in error.words), None)
        if "train" not in error.words or other is None:
            raise
        split, held_out = ("+".join(error.words[name]) for name in ("train", other))
        found = _detect(path, split, format)
    lines = [found.describe()]
    source = {"format": found.format, "path": path, **({} if split is None else {"split": split})}
    if evaluation == "null":
        return source, None, [*lines, "no held-out data, as asked for: nothing is evaluated"]
    if evaluation is not None:
        held_out_found = detect_format(evaluation)
        return source, {"format": held_out_found.format, "path": evaluation}, [*lines, held_out_found.describe()]
    if held_out is None:
        lines.append("no held-out data, so nothing is evaluated: give --evaluation PATH")
        return source, None, lines
    lines.append(f"trained on: split {split!r}; evaluated on: split {held_out!r}")
    return source, {**source, "split": held_out}, lines


def _detect(path: str, split: str | None, format: str | None) -> Detection:
    """Return the format that was found or given, after a look at the splits of the files."""
    if format is None:
        return detect_format(path, split)
    if format in FORMATS:  # otherwise the source says which there are
        FORMATS[format]().find(path, split)
    return Detection(format, path, "as asked for")


def refuse_model(path: str) -> None:
    """
    Refuse a folder with a model in place of data: its files are tables, of which nothing could be learned.

    Raises:
        ValueError: it is one. The message says what to run.
    """
    part = find_partial(path)
    if part is None:
        try:
            kind = json.loads((Path(path) / CONFIG_NAME).read_text(encoding="utf-8"))["model_type"]
        except (OSError, ValueError, KeyError, TypeError):  # it is not one of a model, and may be data
            return
        part = f"a saved model of type {kind!r}"
    raise ValueError(
        f"{path!r} is not data: it has {part}. To look at data as this model will see it, run `flamingo check DATA --model {path}`; to "
        f"train it further, `flamingo train --data DATA --model {path}`."
    )


def default_source_name() -> str:
    """Return the name that data has in a training for which only its path is given."""
    (name,) = read_recipe_file(Path(DEFAULT_RECIPE))["data"]
    return name


def fill_recipe(
    path: str, recipe: str | os.PathLike | None = None, evaluation: str | None = None
) -> tuple[dict[str, Any], list[str]]:
    """
    Fill in the only source of a recipe with data of which only the path is known.

    Args:
        path, evaluation: As in [`find_sources`].
        recipe (`str`, *optional*): A file or a name, as in [`read_recipe`]; by default [`DEFAULT_RECIPE`].

    Returns:
        `tuple`: the values of the recipe, for [`parse_recipe`], and a sentence for each decision.

    Raises:
        FileNotFoundError, ValueError: as [`find_sources`] and [`read_recipe`]; or the recipe has several sources.
    """
    values = read_recipe_file(Path(recipe or DEFAULT_RECIPE))
    given = values.get("data") or {"data": {}}
    if len(given) > 1 or not isinstance(given, dict):
        raise ValueError(
            f"The recipe {str(recipe)!r} has several sources ({', '.join(map(repr, given))}), so `--data {path}` could be any. Give "
            f"`--data.NAME.path {path}` and `--data.NAME.format`."
        )
    if values.get("eval_strategy") == "no":
        if evaluation is None:
            evaluation = "null"  # which the recipe asks for
        elif evaluation != "null":
            del values["eval_strategy"]
    source, held_out, lines = find_sources(path, evaluation)
    ((name, settings),) = given.items()
    trained = _fill(settings, source)
    values.pop("data_root", None)  # the paths are those of the command line
    values["data"], values["evaluation"] = {name: trained}, {}
    if settings.get("format") != source["format"]:
        budgets = ", ".join(
            f"{key} {trained[key]}" for key in ("batch_size", "max_length", "max_images") if key in trained
        )
        lines.append(f"settings of the source: {budgets or 'the defaults'}")
    if held_out is None:
        values["eval_strategy"] = "no"
    else:
        values["evaluation"] = {name: _fill(_held_out_settings(settings), held_out)}
    example = f'--data.{name}.options \'{{"media_root": "FOLDER"}}\''
    lines.append(f"the source is {name!r}: --data.{name}.FIELD changes it, such as {example}")
    return values, lines


def _fill(settings: dict[str, Any], source: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a source with another format and path."""
    if settings.get("format") == source["format"]:
        return {**{key: value for key, value in settings.items() if key != "split"}, **source}
    kept = {key: value for key, value in settings.items() if key not in ("options", "split", "max_images")}
    return {**kept, **_BUDGETS.get(source["format"], {}), **source}


def _held_out_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what held-out rows have in common with those of the training; they cannot be streamed."""
    not_common = ("streaming", "shuffle_buffer_size", "weight", "cache_features")
    return {key: value for key, value in settings.items() if key not in not_common}
