# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo pretrain`: train a backbone of your own from a recipe."""

import argparse
from functools import partial

from .parsing import format_options


HELP = "Train a backbone from a recipe. Any recipe field can be overridden on the command line."
BACKBONES = {
    "vision": "Train a vision encoder on images with captions, by contrastive learning.",
    "text": "Train a causal language model on text.",
}


def _format_recipe_options(backbone: str) -> str:
    from transformers_flamingo import pretraining

    kinds = {"vision": pretraining.VisionPretrainingArguments, "text": pretraining.TextPretrainingArguments}
    return format_options(pretraining.make_pretraining_parser(kinds[backbone]))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the two backbones, each with its recipe, whose fields are options that `--help` lists."""
    backbones = parser.add_subparsers(dest="backbone", required=True, metavar="BACKBONE")
    for name, text in BACKBONES.items():
        subparser = backbones.add_parser(name, help=text, description=f"{text} {HELP.partition('. ')[2]}")
        subparser.add_argument("recipe", metavar="RECIPE", help="YAML file, or the name of a shipped recipe.")
        subparser.set_defaults(overrides=[])
        subparser.more_help = partial(_format_recipe_options, name)


def run(arguments: argparse.Namespace) -> None:
    """Run the recipe."""
    from transformers_flamingo import pretraining

    if arguments.backbone == "vision":
        kind, pretrain = pretraining.VisionPretrainingArguments, pretraining.pretrain_vision
    else:
        kind, pretrain = pretraining.TextPretrainingArguments, pretraining.pretrain_text
    options, training = pretraining.read_pretraining_recipe(kind, arguments.recipe, arguments.overrides)
    pretrain(options, training)
    print(f"{training.output_dir}: a {arguments.backbone} backbone for FlamingoModel.from_vision_text_pretrained")
