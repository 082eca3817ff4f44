# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo miniature-data`: write the drawn world to disk, for the recipe `miniature`."""

import argparse
from pathlib import Path


HELP = "Draw the miniature world and write it in published layouts, to train on."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the folder, the sizes and the seed."""
    from transformers_flamingo_cli import POSITIVE, SEED

    parser.add_argument("output_dir", metavar="DIRECTORY", help="folder for train/, validation/ and the test splits")
    parser.add_argument(
        "--num-pictures", type=POSITIVE, default=8000, help="pictures of the train split (default: %(default)s)"
    )
    parser.add_argument(
        "--num-videos", type=POSITIVE, default=1000, help="videos of the train split (default: %(default)s)"
    )
    parser.add_argument("--seed", type=SEED, default=0, help="seed of the world (default: %(default)s)")


def run(arguments: argparse.Namespace) -> None:
    """Write all splits and print the path of each file."""
    from ..files import SPLITS, write_training_files

    for split, share in SPLITS.items():
        paths = write_training_files(
            Path(arguments.output_dir) / split,
            split,
            num_pictures=max(int(arguments.num_pictures * share), 1),
            num_videos=max(int(arguments.num_videos * share), 1),
            seed=arguments.seed,
        )
        for path in paths.values():
            print(path, flush=True)
