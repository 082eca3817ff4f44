# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo pretrain`: train a backbone from a recipe."""

import argparse
from functools import partial

from .parsing import Parser, add_recipe


HELP = "Train a backbone from a recipe. Any recipe field can be overridden on the command line."
BACKBONES = {
    "vision": "Train a vision encoder on images with captions, by contrastive learning.",
    "text": "Train a causal language model on text.",
}


def _arguments_class(backbone: str) -> type:
    from transformers_flamingo import pretraining

    kinds = {"vision": pretraining.VisionPretrainingArguments, "text": pretraining.TextPretrainingArguments}
    return kinds[backbone]


def _list_fields(backbone: str) -> argparse.ArgumentParser:
    from transformers_flamingo.pretraining import make_pretraining_parser

    return make_pretraining_parser(_arguments_class(backbone))


def add_arguments(parser: Parser) -> None:
    """Add the two backbones, each with its recipe, whose fields are options."""
    backbones = parser.add_subparsers(dest="backbone", required=True, metavar="BACKBONE")
    for name, text in BACKBONES.items():
        subparser = backbones.add_parser(name, help=text, description=f"{text} {HELP.partition('. ')[2]}")
        add_recipe(subparser, partial(_list_fields, name))


def run(arguments: argparse.Namespace) -> None:
    """Run the recipe."""
    from transformers_flamingo import pretraining

    pretrain = {"vision": pretraining.pretrain_vision, "text": pretraining.pretrain_text}[arguments.backbone]
    options, training = pretraining.read_pretraining_recipe(
        _arguments_class(arguments.backbone), arguments.recipe, arguments.overrides
    )
    pretrain(options, training, stops_on_signals=True)
    print(f"{training.output_dir}: a {arguments.backbone} backbone for FlamingoModel.from_vision_text_pretrained")
