# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo miniature-backbones`: train a shipped backbone again."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


HELP = "Train one of the two shipped miniature backbones from scratch."


@dataclass(frozen=True)
class MiniatureBackbonesArguments:
    """
    Arguments of `flamingo miniature-backbones`.

    Args:
        backbone (`str`): `"vision"` or `"text"`.
        output_dir (`str`): Folder of the weights, their record and their card.
        seed (`int`, *optional*, defaults to 0): Seed of the data and the weights.
        device (`str`, *optional*, defaults to `"cpu"`): Where to train the language model, `"cpu"` or `"cuda"`.

    Raises:
        ValueError: the seed is out of range, or the vision encoder is to be trained on a GPU.
    """

    backbone: Literal["vision", "text"]
    output_dir: str
    seed: int = field(default=0, metadata={"help": "Seed of the data and the weights."})
    device: Literal["cpu", "cuda"] = field(
        default="cpu", metadata={"help": "Where to train the language model, 'cpu' or 'cuda'."}
    )

    def __post_init__(self):
        if self.device != "cpu" and self.backbone == "vision":
            raise ValueError(f"`device` is {self.device!r}, but the vision encoder is trained on the CPU. Remove it.")
        from ..backbones import check_seed

        check_seed(self.seed)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the backbone, the folder, the seed and the device."""
    from transformers_flamingo_cli.parsing import add_fields

    parser.add_argument("backbone", choices=["vision", "text"], help="Which backbone to train.")
    parser.add_argument("output_dir", metavar="DIRECTORY", help="Folder of the weights, their record and their card.")
    add_fields(parser, MiniatureBackbonesArguments, exclude=["backbone", "output_dir"])


def run(arguments: argparse.Namespace) -> None:
    """Train the backbone and write its weights, its record and its card."""
    from transformers_flamingo.cards.rendering import write_card
    from transformers_flamingo_cli.parsing import read_fields

    from ..shipped import card_template, read_training_record

    options = read_fields(MiniatureBackbonesArguments, arguments)
    if options.backbone == "vision":
        from ..vision_backbone import train_vision_backbone as train

        kind = "miniature-clip"
    else:
        from ..text_backbone import train_text_backbone as train

        kind = "miniature-gpt2"
    output_dir = Path(options.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)  # a wrong path is found before hours of training
    train(output_dir, seed=options.seed, **({"device": options.device} if options.backbone == "text" else {}))
    write_card(card_template(kind), read_training_record(output_dir), output_dir / "README.md")
