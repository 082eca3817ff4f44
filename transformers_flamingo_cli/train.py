# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo train`: train a model from a recipe."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .parsing import Parser, UsageError, add_recipe


if TYPE_CHECKING:
    from transformers_flamingo.training import Recipe


HELP = "Train a Flamingo model from a recipe. Any recipe field can be overridden on the command line."


def _list_fields() -> argparse.ArgumentParser:
    from transformers_flamingo.training import make_recipe_parser

    return make_recipe_parser()


def _list_common_fields() -> str:
    from transformers_flamingo.training.recipe_help import describe_common_fields

    return describe_common_fields()


class _Once(argparse.Action):
    """An option that is given once: of two paths, the first would silently not be read."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values, option_string=None):
        given = getattr(namespace, self.dest)
        if given is not None:
            parser.error(
                f"{option_string} is given twice, {given!r} and {values!r}, and it is one source. For two, write a recipe with both below "
                "`data`, each with a name, `format` and `path` (docs/training.md); or give a folder or a pattern that leads to all files"
            )
        setattr(namespace, self.dest, values)


def add_arguments(parser: Parser) -> None:
    """Add the recipe, whose fields are options that `read_recipe` parses, and `--dry_run`."""
    add_recipe(parser, _list_fields, _list_common_fields)
    parser.allow_abbrev = False  # a field of a recipe may begin with the name of the option
    parser.recipe_for_data = "caption"
    parser.usage = "%(prog)s [-h] [RECIPE] [--data PATH] [--NAME VALUE ...]"
    parser.add_argument(
        "--data",
        action=_Once,
        metavar="PATH",
        help="Train on a file, a folder or a pattern, whose format is found out and said. RECIPE is `caption` if it is not given.",
    )
    parser.add_argument(
        "--evaluation",
        action=_Once,
        metavar="PATH",
        help="Held-out data for `--data PATH` (default: its validation or test split, if it has splits; null for none).",
    )
    parser.add_argument(
        "--dry_run",
        "--dry-run",
        action="store_true",
        help="Only check data and schedule, as `flamingo check` does. No weights are read and nothing is trained.",
    )


def run(arguments: argparse.Namespace) -> None:
    """Run the recipe, or check it."""
    from transformers_flamingo.training import run_recipe
    from transformers_flamingo.training.held_out_evaluation import SAMPLES_NAME
    from transformers_flamingo.training.run import REPORT_NAME

    if arguments.dry_run:
        from transformers_flamingo.training import check_recipe

        from .check import CPU, CheckArguments, report

        recipe = _read_recipe(arguments, [CPU])
        if recipe.training.process_index == 0:  # once, if several processes were started
            report(check_recipe(recipe), CheckArguments(source=arguments.recipe))
        return
    # All processes of a machine read the same recipe, and would say the same of it
    try:
        recipe = _read_recipe(arguments)
    except (OSError, ValueError):
        if os.environ.get("LOCAL_RANK", "0") == "0":
            raise
        sys.exit(1)
    metrics = run_recipe(recipe)
    if recipe.training.process_index != 0:
        return
    if metrics["image_use"]["is_used"] is not False:  # which is a warning
        print(metrics["image_use"]["text"])
    samples = f", {SAMPLES_NAME}" if (Path(recipe.training.output_dir) / SAMPLES_NAME).exists() else ""
    print(f"{recipe.training.output_dir}: the model, its card{samples} and {REPORT_NAME}/")


def _read_recipe(arguments: argparse.Namespace, first: Sequence[str] = ()) -> "Recipe":
    """Read the recipe, with the data of `--data PATH` if it is given."""
    from transformers_flamingo.training import fill_recipe, parse_recipe, read_recipe

    overrides = [*first, *arguments.overrides]
    # A mapping of sources is a field of the recipe, as all others
    is_path = arguments.data is not None and arguments.data != "null" and not arguments.data.startswith("{")
    if is_path:
        values, lines = fill_recipe(arguments.data, arguments.recipe, arguments.evaluation, overrides)
        if os.environ.get("RANK", "0") == "0":
            print("\n".join(lines), flush=True)
        return parse_recipe(values, overrides)
    _check_recipe_name(arguments.recipe)
    for name in ("data", "evaluation"):
        if getattr(arguments, name) is not None:
            overrides.append(f"--{name}={getattr(arguments, name)}")
    return read_recipe(arguments.recipe, overrides)


def _check_recipe_name(name: str) -> None:
    """Say what to do with a folder or a data file that is given in place of a recipe."""
    from transformers_flamingo.data.data_files import kind_of
    from transformers_flamingo.training.found_data import refuse_model
    from transformers_flamingo.training.recipe_file import is_recipe

    kind = "a folder" if Path(name).is_dir() else "a data file" if Path(name).is_file() and kind_of(name) else None
    if kind is not None and not is_recipe(name):  # a folder may have the name of a recipe
        refuse_model(name)
        raise UsageError(f"{name!r} is {kind}, and no recipe. To train on data, give `--data {name}`.")
