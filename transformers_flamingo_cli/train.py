# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo train`: train a model from a recipe."""

import argparse

from .parsing import Parser, add_recipe


HELP = "Train a Flamingo model from a recipe. Any recipe field can be overridden on the command line."


def _list_fields() -> argparse.ArgumentParser:
    from transformers_flamingo.training import make_recipe_parser

    return make_recipe_parser()


def add_arguments(parser: Parser) -> None:
    """Add the recipe, whose fields are options that `read_recipe` parses."""
    add_recipe(parser, _list_fields)


def run(arguments: argparse.Namespace) -> None:
    """Run the recipe."""
    from transformers_flamingo.training import read_recipe, run_recipe

    recipe = read_recipe(arguments.recipe, arguments.overrides)
    metrics = run_recipe(recipe)
    if metrics["image_use"]["is_used"] is not False:  # which is a warning
        print(metrics["image_use"]["text"])
    print(f"{recipe.training.output_dir}: the model, its card, samples.jsonl and report/")
