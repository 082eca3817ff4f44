# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo miniature-backbones`: train a shipped backbone again."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


HELP = "Train a shipped miniature backbone from scratch."

_TEXT_SETTINGS = ("steps", "batch_tokens", "first_row_length", "row_length")


@dataclass(frozen=True)
class MiniatureBackbonesArguments:
    """
    Arguments of `flamingo miniature-backbones`.

    Args:
        backbone (`str`): `"vision"` or `"text"`.
        output_dir (`str`): Folder of the weights, their record and their card.
        seed (`int`, *optional*, defaults to 0): Seed of the data and the weights.
        device (`str`, *optional*, defaults to `"cpu"`): Where to train the language model, `"cpu"` or `"cuda"`.
        steps, batch_tokens, first_row_length, row_length (`int`, *optional*):
            Of the language model, as in [`TextBackboneSettings`], which has the defaults.

    Raises:
        ValueError: the seed is out of range, the settings do not fit, or the vision encoder is given some.
    """

    backbone: Literal["vision", "text"]
    output_dir: str
    seed: int = field(default=0, metadata={"help": "Seed of the data and the weights."})
    device: Literal["cpu", "cuda"] = field(
        default="cpu", metadata={"help": "Where to train the language model, 'cpu' or 'cuda'."}
    )

    steps: int | None = field(
        default=None, metadata={"help": "Optimizer steps of the language model. By default, 3000."}
    )
    batch_tokens: int | None = field(
        default=None, metadata={"help": "Tokens in each step of the language model, at most. By default, 2400."}
    )
    first_row_length: int | None = field(
        default=None, metadata={"help": "Tokens of its rows at the beginning, a multiple of 3. By default, 48."}
    )
    row_length: int | None = field(
        default=None, metadata={"help": "Tokens of its rows at the end, a multiple of 3. By default, 120."}
    )

    def __post_init__(self):
        if self.backbone == "vision":
            if self.device != "cpu":
                raise ValueError(
                    f"`device` is {self.device!r}, but the vision encoder is trained on the CPU. Remove it."
                )
            for name, value in self.text_settings().items():
                raise ValueError(f"`{name}` is {value}, but it is a setting of the language model. Remove it.")
        from ..backbones import check_seed
        from ..text_backbone import TextBackboneSettings

        check_seed(self.seed)
        TextBackboneSettings(**self.text_settings())

    def text_settings(self) -> dict[str, int]:
        """Return the given fields of [`TextBackboneSettings`]."""
        given = {name: getattr(self, name) for name in _TEXT_SETTINGS}
        return {name: value for name, value in given.items() if value is not None}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the backbone, the folder, the seed, the device and the settings of the language model."""
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

        kind, settings = "miniature-clip", {}
    else:
        from ..text_backbone import TextBackboneSettings
        from ..text_backbone import train_text_backbone as train

        kind = "miniature-gpt2"
        settings = {"settings": TextBackboneSettings(**options.text_settings()), "device": options.device}
    output_dir = Path(options.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)  # a wrong path is found before hours of training
    train(output_dir, seed=options.seed, **settings)
    write_card(card_template(kind), read_training_record(output_dir), output_dir / "README.md")
