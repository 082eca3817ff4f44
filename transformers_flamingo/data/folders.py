# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Folders and patterns: which files are data, and which only belong to them.

- A folder of `Dataset.save_to_disk` names its `.arrow` files in `state.json`; others there are caches of earlier runs.
- `img2dataset` writes a log of each shard, `00000.parquet` and `00000_stats.json`, next to the shard.
- An image may have its text in a file of the same name beside it: `a.jpg`, `a.txt`. See [`read_beside`].
- `shards/{00000..00099}.tar` stands for 100 files, as in WebDataset.
"""

import json
import os
import re
from collections.abc import Collection, Iterator
from typing import Any

import fsspec

from ..files_flamingo import read_regular_file
from ..utils.names import count_of
from .columns import ERROR, FILE, ROW
from .utf8 import decode_utf8


#: Suffixes of the texts beside images, which are columns of the rows of [`read_beside`].
BESIDE = ("txt", "json")
#: The column with the name of the folder of an image.
FOLDER = "__folder__"

# More files than that are not named by a pattern, but by a mistake in it
_MAX_EXPANDED = 1_000_000
_MAX_TEXT_BYTES = 2**24
_BRACES = re.compile(r"\{([^{}]*)\}")


def expand_braces(pattern: str) -> list[str]:
    """
    Return the names that a pattern with `{00000..00099}` or `{a,b}` stands for, in order. Other braces are part of the name.

    Raises:
        ValueError: there are too many.
    """
    for match in _BRACES.finditer(pattern):
        numbers = re.fullmatch(r"(\d+)\.\.(\d+)", match[1])
        if numbers is not None:
            first, last = int(numbers[1]), int(numbers[2])
            if abs(last - first) >= _MAX_EXPANDED:
                raise ValueError(f"{pattern!r} stands for {abs(last - first) + 1:,} files. Correct {match[0]!r}.")
            # As in a shell: zeros before the smaller number are kept
            width = (
                max(map(len, numbers.groups())) if any(n.startswith("0") and n != "0" for n in numbers.groups()) else 0
            )
            step = 1 if first <= last else -1
            choices = [f"{number:0{width}}" for number in range(first, last + step, step)]
        elif "," in match[1]:
            choices = match[1].split(",")
        else:
            continue
        rest = expand_braces(pattern[match.end() :])
        if len(choices) * len(rest) > _MAX_EXPANDED:
            raise ValueError(f"{pattern!r} stands for {len(choices) * len(rest):,} files. Correct its braces.")
        return [pattern[: match.start()] + choice + end for choice in choices for end in rest]
    return [pattern]


def saved_files(fs: fsspec.AbstractFileSystem, found: Collection[str]) -> list[str]:
    """
    Return the `.arrow` files of the folders of `Dataset.save_to_disk` and `DatasetDict.save_to_disk` among `found`, if any.

    Raises:
        ValueError: a file that `state.json` names is missing.
    """
    known, files = set(found), []
    for state in found:
        folder, name = os.path.split(state)
        if name != "state.json" or f"{folder}/dataset_info.json" not in known:
            continue
        listed = [f"{folder}/{entry['filename']}" for entry in json.loads(fs.cat_file(state))["_data_files"]]
        missing = [file for file in listed if file not in known]
        if missing:
            raise ValueError(
                f"{state!r} names {count_of(len(listed), 'file')}, and {len(missing):,} of them cannot be found, such as {missing[0]!r}, so rows would be "
                "lost. Copy the folder again."
            )
        files += listed
    return files


def without_logs(files: list[str]) -> list[str]:
    """Return the files without the logs of `img2dataset`, which has one for each shard or folder."""
    stems = [file.removesuffix("_stats.json") for file in files if re.search(r"\d_stats\.json$", file)]
    folders = {os.path.dirname(file) for file in files}
    known = set(files)
    shards = [stem for stem in stems if f"{stem}.tar" in known or stem in folders]
    logs = {f"{stem}{ending}" for stem in shards for ending in ("_stats.json", ".parquet")}
    return [file for file in files if file not in logs]


def without_beside(tables: list[str], media: Collection[str]) -> list[str]:
    """Return the tables without those that describe a single image, as `a.json` beside `a.jpg` does."""
    stems = {os.path.splitext(file)[0] for file in media}
    return [file for file in tables if not (file.lower().endswith(".json") and os.path.splitext(file)[0] in stems)]


def find_unread(found: Collection[str], media: Collection[str]) -> list[str]:
    """Return the files of a folder that are neither images to read nor their texts. Hidden files and notes do not count."""
    known = set(media)
    stems = {os.path.splitext(file)[0] for file in media}
    unread = []
    for file in found:
        stem, suffix = os.path.splitext(file)
        name = os.path.basename(file).lower()
        is_note = name.startswith((".", "readme", "license")) or name in ("thumbs.db", "desktop.ini")
        if file not in known and not is_note and not (suffix.lower()[1:] in BESIDE and stem in stems):
            unread.append(file)
    return unread


def names_beside(file: str) -> list[str]:
    """Return the paths that the texts beside an image may have."""
    stem = os.path.splitext(file)[0]
    return [f"{stem}.{ending}" for suffix in BESIDE for ending in (suffix, suffix.upper())]


def read_beside(file: str) -> Iterator[dict[str, Any]]:
    """Yield the only row of an image or video: its path, the texts beside it, and the name of its folder."""
    row: dict[str, Any] = {"file_name": os.path.basename(file) if "://" in file else file, ERROR: None}
    names = iter(names_beside(file))
    for suffix in BESIDE:
        row[suffix], error = _read_text([next(names), next(names)])
        row[ERROR] = row[ERROR] or error
    yield {**row, FOLDER: os.path.basename(os.path.dirname(file)), FILE: file, ROW: None}


def _read_text(names: list[str]) -> tuple[str | None, str | None]:
    """Return the text of the first file that exists, and the error of one that cannot be read."""
    for name in names:
        try:
            if "://" not in name:
                data = read_regular_file(name, _MAX_TEXT_BYTES)
            else:
                with fsspec.open(name, "rb") as source:
                    data = source.read(_MAX_TEXT_BYTES)
        except FileNotFoundError:
            continue
        except (OSError, ValueError) as error:
            return None, f"{os.path.basename(name)!r} beside it cannot be read ({error})"
        text, error = decode_utf8(data.removeprefix(b"\xef\xbb\xbf"), f"{os.path.basename(name)!r} beside it")
        return text, error
    return None, None


def common_folder(files: Collection[str]) -> str:
    """
    Return the deepest folder that files have in common, with the `/` at its end. The rest of their paths stays when it is copied or renamed,
    so orders and random draws depend on that rest alone.
    """
    # `commonpath` would make `s3:/` of `s3://`
    prefix = os.path.commonprefix(list(files))  # noqa: RUF071
    return prefix[: prefix.rfind("/") + 1]


def class_folders(files: Collection[str]) -> set[str]:
    """Return the names of the folders that files are in."""
    return {os.path.basename(os.path.dirname(file)) for file in files}
