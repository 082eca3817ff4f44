# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo train`: train a model from a recipe."""

import argparse

from .parsing import format_options


HELP = "Train a Flamingo model from a recipe. Any recipe field can be overridden on the command line."


def _format_recipe_options() -> str:
    from transformers_flamingo.training import make_recipe_parser

    return format_options(make_recipe_parser())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the recipe. Its fields are options that `read_recipe` parses, and `--help` lists."""
    parser.add_argument("recipe", metavar="RECIPE", help="YAML file, or the name of a shipped recipe.")
    parser.set_defaults(overrides=[])
    parser.more_help = _format_recipe_options


def run(arguments: argparse.Namespace) -> None:
    """Run the recipe."""
    from transformers_flamingo.training import read_recipe, run_recipe

    recipe = read_recipe(arguments.recipe, arguments.overrides)
    run_recipe(recipe)
    print(f"{recipe.training.output_dir}: the model, its card, samples.jsonl and report/")
