# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo convert`: make a model of this package from a checkpoint of another code base."""

import argparse
import signal
import sys
from dataclasses import dataclass, field
from typing import Literal

from .parsing import add_fields, check_range, read_fields


HELP = "Convert a checkpoint of OpenFlamingo or flamingo-mini."
PEERS = ("open-flamingo", "flamingo-mini")


@dataclass(kw_only=True)
class ConvertArguments:
    """
    Arguments of `flamingo convert`, as in `convert_open_flamingo` and `convert_flamingo_mini`.

    Raises:
        ValueError: the interval of the gated blocks is below 1.
    """

    peer: str
    checkpoint: str
    output_dir: str
    vision: str | None = field(
        default=None,
        metadata={"help": "Name or directory of the vision encoder (default: that of a released checkpoint)"},
    )
    text: str | None = field(
        default=None,
        metadata={"help": "Name or directory of the language model (default: that of a released checkpoint)"},
    )
    tokenizer: str | None = field(
        default=None, metadata={"help": "Name or directory of its tokenizer (default: that of --text)"}
    )
    cross_attention_every_n_layers: int | None = field(
        default=None,
        metadata={"help": "Interval of the gated blocks, for open-flamingo (default: that of a released checkpoint)"},
    )
    dtype: Literal["float32", "bfloat16", "float16"] = field(
        default="float32", metadata={"help": "Data type of the weights that are written."}
    )
    dry_run: bool = field(
        default=False, metadata={"help": "Check the checkpoint and print the mapping of its weights; write nothing."}
    )

    def __post_init__(self):
        check_range(self, "cross_attention_every_n_layers", 1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the code base, the checkpoint, the output folder and the options."""
    parser.add_argument("peer", choices=PEERS, help="The code base that made the checkpoint.")
    parser.add_argument(
        "checkpoint",
        metavar="CHECKPOINT",
        help="File (open-flamingo), directory (flamingo-mini), or Hub name of a released checkpoint.",
    )
    parser.add_argument(
        "output_dir", metavar="DIRECTORY", help="Where to write the model; must be empty if it exists."
    )
    add_fields(parser, ConvertArguments, exclude=["peer", "checkpoint", "output_dir"])


def run(arguments: argparse.Namespace) -> None:
    """Convert the checkpoint, or print the mapping of its weights."""
    options = read_fields(ConvertArguments, arguments)

    import torch

    from transformers_flamingo.conversion import convert_flamingo_mini, convert_open_flamingo, format_table

    keywords = {"vision": options.vision, "text": options.text, "tokenizer": options.tokenizer}
    keywords |= {"dtype": getattr(torch, options.dtype), "dry_run": options.dry_run}
    if options.peer == "open-flamingo":
        keywords["cross_attention_every_n_layers"] = options.cross_attention_every_n_layers
        convert_peer = convert_open_flamingo
    else:
        convert_peer = convert_flamingo_mini
    # The default action ends the process at once, and would leave a half-written directory
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        table = convert_peer(options.checkpoint, options.output_dir, **keywords)
    finally:
        signal.signal(signal.SIGTERM, previous)
    if options.dry_run:
        print(format_table(table))
    else:
        print(f"{options.output_dir}: a Flamingo for AutoModelForImageTextToText.from_pretrained")
