# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Train on data of which only the path is known: its format is found out, and a recipe is filled in."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers.utils import CONFIG_NAME

from ..data import FORMATS, Detection, detect_format
from ..data.data_files import SeveralSplitsError
from ..data.detection import look_at
from ..utils.partial_models import find_partial
from .recipe import read_changes
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
    path: str,
    evaluation: str | None = None,
    *,
    format: str | None = None,
    split: str | None = None,
    options: dict[str, Any] | None = None,
    prefix: str = "--",
) -> tuple[dict[str, Any], dict[str, Any] | None, list[str]]:
    """
    Find out format and split of the data to train on and to evaluate on.

    Args:
        path (`str`): The data, as [`~data.Reader.load`] takes it. If it has several splits, that of the training is trained on, and
            the validation data, or else the test data, is evaluated on.
        evaluation (`str`, *optional*): Held-out data at another path; `"null"` for none.
        format, split, options (*optional*): The format of `path`, the split to read of it, and options of its reader, if they are known.
            The held-out data gets the same options if its format has them.
        prefix (`str`, *optional*, defaults to `"--"`): How the flags of the command begin that give these three.

    Returns:
        `tuple`: fields of the [`DataSource`] to train on, those of the held-out one or `None`, and a sentence for each decision.

    Raises:
        FileNotFoundError, ValueError: as [`~data.detect_format`]; or the path is that of a saved model.
    """
    refuse_model(path)
    held_out = None
    try:
        found = _detect(path, split, format, options, prefix)
    except SeveralSplitsError as error:
        other = next((name for name in ("validation", "test") if name in error.words), None)
        if "train" not in error.words or other is None:
            raise SeveralSplitsError(f"{error} Here, `split` is given as `{prefix}split`.", error.words) from error
        split, held_out = ("+".join(error.words[name]) for name in ("train", other))
        found = _detect(path, split, format, options, prefix)
    lines = [found.describe()]
    source = {"format": found.format, "path": path, **({} if split is None else {"split": split})}
    source |= {"options": options} if options else {}
    if evaluation == "null":
        return source, None, [*lines, "no held-out data, as asked for: nothing is evaluated"]
    if evaluation is not None:
        flags = {"format_flag": f"{prefix}format", "options_flag": f"{prefix}options"}
        # Of the same layout, the same has to be said
        same = format if format in FORMATS and _reads(format, evaluation, options) else None
        other = (
            Detection(same, evaluation, "as the data to train on")
            if same is not None
            else detect_format(evaluation, options=options, **flags)
        )
        known = {} if not options or other.format != found.format else {"options": options}
        return source, {"format": other.format, "path": evaluation, **known}, [*lines, other.describe()]
    if held_out is None:
        lines.append("no held-out data, so nothing is evaluated: give --evaluation PATH")
        return source, None, lines
    lines.append(f"trained on: split {split!r}; evaluated on: split {held_out!r}")
    return source, {**source, "split": held_out}, lines


def _detect(
    path: str, split: str | None, format: str | None, options: dict[str, Any] | None, prefix: str
) -> Detection:
    """Return the format that was found or given, after a look at the splits of the files."""
    if format is None:
        return detect_format(
            path, split, options=options, format_flag=f"{prefix}format", options_flag=f"{prefix}options"
        )
    if format in FORMATS:  # otherwise the source says which there are
        FORMATS[format]().find(path, split)
    return Detection(format, path, "as asked for")


def _reads(format: str, path: str, options: dict[str, Any] | None) -> bool:
    return any(look.name == format and look.fits for look in look_at(path, None, options))


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
    path: str,
    recipe: str | os.PathLike | None = None,
    evaluation: str | None = None,
    arguments: Sequence[str] = (),
) -> tuple[dict[str, Any], list[str]]:
    """
    Fill in the only source of a recipe with data of which only the path is known.

    Args:
        path, evaluation: As in [`find_sources`].
        recipe (`str`, *optional*): A file or a name, as in [`read_recipe`]; by default [`DEFAULT_RECIPE`].
        arguments (`Sequence[str]`, *optional*): The command line, as in [`parse_recipe`]: what it says of the source is known.

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
    ((name, settings),) = given.items()
    source, held_out, lines = _find_with(path, evaluation, name, arguments)
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


def _find_with(path: str, evaluation: str | None, name: str, arguments: Sequence[str]) -> tuple:
    """Find the sources with what the command line says of the source `name`."""
    of_sources = read_changes(arguments).get("data") or {}
    for other, fields in of_sources.items():
        if other != name and isinstance(fields, dict) and not {"format", "path"} <= fields.keys():
            raise ValueError(
                f"`--data.{other}` changes no source: `--data PATH` is the source {name!r}, so give `--data.{name}.FIELD`."
            )
    changes = of_sources.get(name) or {}
    known = {key: changes[key] for key in ("format", "options") if changes.get(key) is not None}
    if not isinstance(known.get("options", {}), dict) or not isinstance(known.get("format", ""), str):
        known = {}  # which the source refuses in words
    prefix = f"--data.{name}."
    try:
        return find_sources(path, evaluation, **known, prefix=prefix)
    except SeveralSplitsError:
        split = changes.get("split")
        if not isinstance(split, str):
            raise
        return find_sources(path, evaluation, **known, split=split, prefix=prefix)


def _fill(settings: dict[str, Any], source: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a source with another format and path."""
    if settings.get("format") == source["format"]:
        options = {**(settings.get("options") or {}), **source.get("options", {})}
        kept = {key: value for key, value in settings.items() if key not in ("split", "options")}
        return {**kept, **source, **({"options": options} if options else {})}
    kept = {key: value for key, value in settings.items() if key not in ("options", "split", "max_images")}
    return {**kept, **_BUDGETS.get(source["format"], {}), **source}


def _held_out_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """Return what held-out rows have in common with those of the training; they cannot be streamed."""
    not_common = ("streaming", "shuffle_buffer_size", "weight", "cache_features")
    return {key: value for key, value in settings.items() if key not in not_common}
