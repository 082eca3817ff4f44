# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo miniature-data`: write the drawn world to disk, for the recipe `miniature`."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path

from . import MAX_SEED


HELP = "Draw the miniature world and write it in published layouts, to train on."


@dataclass(frozen=True)
class MiniatureDataArguments:
    """
    Arguments of `flamingo miniature-data`.

    Args:
        output_dir (`str`): Folder for `train/`, `validation/` and the test splits.
        num_pictures (`int`, *optional*, defaults to 8000): Number of pictures in the train split.
        num_videos (`int`, *optional*, defaults to 1000): Number of videos in the train split.
        seed (`int`, *optional*, defaults to 0): Seed of the world.

    Raises:
        ValueError: a value is out of range.
    """

    output_dir: str
    num_pictures: int = field(default=8000, metadata={"help": "Number of pictures in the train split."})
    num_videos: int = field(default=1000, metadata={"help": "Number of videos in the train split."})
    seed: int = field(default=0, metadata={"help": "Seed of the world."})

    def __post_init__(self):
        from transformers_flamingo_cli.parsing import check_range

        check_range(self, "num_pictures", 1)
        check_range(self, "num_videos", 1)
        check_range(self, "seed", 0, MAX_SEED)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folder, and an option for each other field of [`MiniatureDataArguments`]."""
    from transformers_flamingo_cli.parsing import add_fields

    parser.add_argument("output_dir", metavar="DIRECTORY", help="Folder for train/, validation/ and the test splits.")
    add_fields(parser, MiniatureDataArguments, exclude=["output_dir"])


def run(arguments: argparse.Namespace) -> None:
    """Write all splits and print the path of each file."""
    from transformers_flamingo_cli.parsing import read_fields

    from ..files import SPLITS, write_training_files

    options = read_fields(MiniatureDataArguments, arguments)
    for split, share in SPLITS.items():
        paths = write_training_files(
            Path(options.output_dir) / split,
            split,
            num_pictures=max(int(options.num_pictures * share), 1),
            num_videos=max(int(options.num_videos * share), 1),
            seed=options.seed,
        )
        for path in paths.values():
            print(path, flush=True)
