# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Prepare the pictures that four houses drew of the same things, and two backbones, for the recipes of this folder.

    pip install -r benchmarks/real_pictures/requirements.txt
    python benchmarks/real_pictures/prepare.py real-pictures --views 8

needs `npm` and `pip`, which get the packages by their names. The folder then holds

    images/HOUSE/      the drawings on white, and with `--views` augmented views of the training houses
    train.jsonl        names: three houses
    test.jsonl         the same names of the house that is never trained on
    held_out.jsonl     80 names that no house shows in training, for few shots
    episodes_train.jsonl, lookups_train.jsonl   made-up words for the things of train.jsonl (episodes.py)
    questions_*.jsonl  questions about the pictures of train.jsonl and test.jsonl
    chat_*.jsonl       turns of a chat about them
    smollm2/, efficientnet-lite0/
    prepared.json      versions, numbers of rows, and times
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from episodes import add_arguments, check_numbers, write_episodes
from packages import EFFICIENTNET, HOUSES, NAMES, SMOLLM2, NpmPackage, PackageError, get_packages
from pictures import (
    TEST_HOUSE,
    Split,
    Thing,
    augment,
    caption_row,
    chat_row,
    image_name,
    on_white,
    question_rows,
    split_things,
    write_rows,
)


def write_pictures(
    packages: dict[str, Path], output: Path, split: Split, test_house: str, num_views: int
) -> dict[str, int]:
    """
    Write images and rows.

    Args:
        packages (`dict[str, Path]`): The unpacked package of each house.
        output (`Path`): The folder to write.
        split ([`Split`]): The names.
        test_house (`str`): The house that is not trained on.
        num_views (`int`): Number of augmented views of each image of a training house.

    Returns:
        `dict[str, int]`: The number of rows of each file.

    Raises:
        FileNotFoundError: a house has no drawing of a thing.
    """
    jobs = []
    for house, package in packages.items():
        (output / "images" / house).mkdir(parents=True, exist_ok=True)
        folder = package / "package" / "img" / house / "64"
        for thing in [*split.trained, *split.held_out]:
            jobs.append((folder, output, house, thing, num_views if house != test_house else 0))
    # A process for each core, and none that copies threads of torch, which `starts.py` has running
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for _ in pool.map(write_views, *zip(*jobs, strict=True), chunksize=16):
            pass
    training = [
        (house, thing, view)
        for view in range(num_views + 1)
        for house in packages
        if house != test_house
        for thing in split.trained
    ]
    test = [(test_house, thing, 0) for thing in split.trained]
    rows: dict[str, Sequence[Any]] = {
        "held_out": [
            caption_row(house, thing, view)
            for view in range(num_views + 1)
            for house in packages
            if house != test_house or view == 0
            for thing in split.held_out
        ]
    }
    for name, pictures in (("train", training), ("test", test)):
        rows[name] = [caption_row(*picture) for picture in pictures]
        rows[f"questions_{name}"] = [row for picture in pictures for row in question_rows(*picture)]
        rows[f"chat_{name}"] = [chat_row(*picture) for picture in pictures]
    return {name: write_rows(output / f"{name}.jsonl", content) for name, content in rows.items()}


def write_views(folder: Path, output: Path, house: str, thing: Thing, num_views: int) -> None:
    """
    Write the drawing of a thing by a house, and augmented views of it.

    Args:
        folder (`Path`): The drawings of the house.
        output, house, num_views: As in [`write_pictures`].
        thing ([`Thing`]): The thing.
    """
    drawing = on_white(folder / thing.file)
    drawing.save(output / image_name(house, thing))
    for view in range(1, 1 + num_views):
        augment(drawing, f"{house}/{thing.file}/{view}").save(output / image_name(house, thing, view))


def write_backbones(folders: dict[NpmPackage, Path], output: Path) -> dict[str, str]:
    """Write both backbones that are not there yet, and return what is known about them."""
    from backbones import write_efficientnet, write_smollm2

    facts = {}
    if not (output / "efficientnet-lite0" / "preprocessor_config.json").is_file():
        write_efficientnet(folders[EFFICIENTNET], output / "efficientnet-lite0")
    if not (output / "smollm2" / "tokenizer.json").is_file():
        facts["capital_of_france"] = write_smollm2(folders[SMOLLM2], output / "smollm2")
    return facts


def prepare(arguments: argparse.Namespace) -> dict[str, Any]:
    """
    Prepare the folder, and return its record.

    Raises:
        PackageError: a package cannot be had.
        ValueError: the options do not fit.
    """
    started, times = time.perf_counter(), {}

    def lap(name: str) -> None:
        times[name] = round(time.perf_counter() - started - sum(times.values()), 1)

    if arguments.views < 0:
        raise ValueError(f"`--views` is {arguments.views}. It is a number of augmented views: at least 0.")
    check_numbers(arguments.episodes, arguments.lookups)
    output, packages = Path(arguments.output), [NAMES, *HOUSES.values()]
    packages += [] if arguments.no_backbones else [SMOLLM2, EFFICIENTNET]
    downloads = Path(arguments.downloads or output / "downloads")
    folders = get_packages(packages, downloads, is_offline=arguments.downloads is not None)
    lap("packages")
    entries = json.loads((folders[NAMES] / "package" / "emoji.json").read_text(encoding="utf-8"))
    split = split_things(entries, list(HOUSES), arguments.rows)
    houses = {house: folders[package] for house, package in HOUSES.items()}
    rows = write_pictures(houses, output, split, arguments.test_house, arguments.views)
    rows |= write_episodes(output, arguments.episodes, arguments.lookups)
    lap("pictures")
    facts = {} if arguments.no_backbones else write_backbones(folders, output)
    lap("backbones")
    record = {
        "packages": {package.name: package.version for package in packages},
        "test_house": arguments.test_house,
        "names": len(split.trained),
        "held_out_names": len(split.held_out),
        "views": arguments.views,
        "rows": rows,
        "seconds": times,
        **facts,
    }
    (output / "prepared.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", help="folder to write")
    parser.add_argument("--downloads", help="folder that has the files of the packages already: nothing is downloaded")
    parser.add_argument(
        "--views", type=int, default=0, help="augmented views of each drawing of a training house (default: 0)"
    )
    parser.add_argument(
        "--rows",
        type=int,
        help="training images without their views, three for each name (default: all 870 of three categories). 300 is a part of "
        "them, and 3000 takes further categories",
    )
    parser.add_argument(
        "--test-house", choices=HOUSES, default=TEST_HOUSE, help="house that is not trained on (default: %(default)s)"
    )
    add_arguments(parser)
    parser.add_argument("--no-backbones", action="store_true", help="pictures only")
    return parser


def main() -> None:
    """Prepare the folder."""
    parser = make_parser()
    try:
        record = prepare(parser.parse_args())
    except (PackageError, ValueError, OSError) as error:
        parser.error(str(error))
    except Exception as error:
        if type(error).__name__ != "BackboneError":  # its module imports torch, which the help should not
            raise
        parser.error(str(error))
    json.dump(record, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
