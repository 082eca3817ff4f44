# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo miniature-backbones`: train a shipped backbone again."""

import argparse
from pathlib import Path


HELP = "Train one of the two shipped miniature backbones from scratch."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the backbone, the folder and the seed."""
    from transformers_flamingo_cli import SEED

    parser.add_argument("backbone", choices=["vision", "text"], help="which backbone to train")
    parser.add_argument("output_dir", metavar="DIRECTORY", help="folder of the weights, their record and their card")
    parser.add_argument("--seed", type=SEED, default=0, help="seed of the data and the weights (default: %(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Train the backbone and write its weights, its record and its card."""
    from transformers_flamingo.cards.rendering import write_card

    from ..shipped import card_template, read_training_record

    if arguments.backbone == "vision":
        from ..vision_backbone import train_vision_backbone as train

        kind = "miniature-clip"
    else:
        from ..text_backbone import train_text_backbone as train

        kind = "miniature-gpt2"
    output_dir = Path(arguments.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)  # a wrong path is found before hours of training
    train(output_dir, seed=arguments.seed)
    write_card(card_template(kind), read_training_record(output_dir), output_dir / "README.md")
