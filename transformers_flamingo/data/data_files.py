# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Data files: the files that a path leads to, their kinds and splits, and how they are opened.

| suffix | kind |
|---|---|
| `.jsonl`, `.json` | `"json"` |
| `.csv`, `.tsv` | `"csv"` |
| `.tar` | `"tar"` |
| `.parquet` | `"parquet"` |

All but `.parquet` may be compressed: `.gz`, `.bz2`, `.xz`, `.zst` (with the package `zstandard`), `.zip` around one file.
[`rows`] reads them.
"""

import itertools
import os
import re
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import fsspec
from fsspec.core import url_to_fs
from transformers.utils import logging

from ..files_flamingo import special_kind


logger = logging.get_logger(__name__)

_KINDS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".tar": "tar"}
_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd", ".zip": "zip"}
# The words that name the split of a file or folder: those of `datasets`, and those that benchmarks use
_SPLITS = {
    "train": ("train", "training", "trainval"),
    "validation": ("validation", "validate", "valid", "val", "dev", "minival", "restval"),
    "test": ("test", "testing", "testdev", "eval", "evaluation", "held[-_ ]?out", "hold[-_ ]?out"),
}
_SPLIT_WORDS = {
    name: re.compile(rf"(?<![a-z])((?:{'|'.join(words)})(?:set)?)(?![a-z])", re.IGNORECASE)
    for name, words in _SPLITS.items()
}


def kind_of(file: str) -> str | None:
    """Return the kind of a data file by its suffix, or `None` for any other file."""
    return _KINDS.get(suffix_of(file))


def suffix_of(file: str) -> str:
    """Return the suffix without that of a compression. A `.parquet` has its own compression, so it keeps both."""
    stem, suffix = os.path.splitext(file.lower())
    if suffix not in _COMPRESSIONS:
        return suffix
    inner = os.path.splitext(stem)[1]
    return suffix if inner == ".parquet" else inner


def find_files(path: str, split: str | None = None) -> list[str]:
    """
    Find the data files that `path` leads to, sorted, as [`Reader.load`] takes them.

    Raises:
        FileNotFoundError: there is no data file, or none of `split`.
        ValueError: the files are of several kinds or several splits, or one is not a regular file.
    """
    if "::" in path:
        raise ValueError(
            f"{path!r} is a chain of file systems ('::'), which is not followed. Unpack or download the files and pass "
            "their folder. A compressed file is read as it is."
        )
    fs, root = url_to_fs(path)
    is_folder = fs.isdir(root)
    found = sorted(fs.find(root) if is_folder else fs.glob(root))
    common = root if is_folder else os.path.dirname(re.split(r"[*?\[]", root)[0])
    files = [file for file in found if kind_of(file) is not None]
    if split is None:
        _refuse_several_splits(path, files, common)
    else:
        word = re.compile("|".join(map(_as_word, split.split("+"))))
        files = [file for file in files if word.search(file.removeprefix(common))]
    if not files:
        of_split = "" if split is None else f" of split {split!r}"
        kinds = ", ".join(_KINDS)
        if not found:
            raise FileNotFoundError(f"{path!r} leads to no file. Give a {kinds} file, a folder or a pattern.")
        raise FileNotFoundError(
            f"{path!r} leads to {len(found)} files, but none is a {kinds} file{of_split}. Check the path. (A folder of "
            "images needs a table next to them, such as a `metadata.csv` with the columns `file_name` and `text`.)"
        )
    kinds = sorted({kind_of(file) for file in files})
    if len(kinds) > 1:
        raise ValueError(
            f"{path!r} leads to files of several kinds ({', '.join(kinds)}), such as {files[0]!r} and {files[-1]!r}: "
            "which of them are the data is unknown. Give a pattern such as 'folder/*.csv'."
        )
    _warn_of_missing_shards(path, files)
    if "file" not in fs.protocol:
        return [fs.unstrip_protocol(file) for file in files]
    for file in files:
        _check_regular(file)
    return files


def _warn_of_missing_shards(path: str, files: list[str]) -> None:
    """Warn if files are numbered `00000-of-00003` and some numbers are missing: a download may have been cut short."""
    series: dict[tuple[str, int], set[int]] = {}
    for file in files:
        if match := re.search(r"^(.*?)(\d+)-of-(\d+)", file):
            series.setdefault((match[1], int(match[3])), set()).add(int(match[2]))
    for (stem, total), numbers in series.items():
        if len(numbers) < total:
            logger.warning(
                f"{path!r} has {len(numbers)} of the {total} files {os.path.basename(stem)}*-of-{total:05}. The others are "
                "missing. Download them if they should be trained on."
            )


def _as_word(split: str) -> str:
    """Return a pattern of `split` as a separate word. Digits may follow letters: `train2014` is of `train`."""
    if not split:
        raise ValueError("`split` has an empty name. Name one, or several with '+', such as 'train+validation'.")
    before, after = ("A-Za-z" if char.isalpha() else "A-Za-z0-9" for char in (split[0], split[-1]))
    return f"(?<![{before}]){re.escape(split)}(?![{after}])"


def _refuse_several_splits(path: str, files: list[str], common: str) -> None:
    """Raise if some files are held out by their names and others are not, or by other words."""
    examples: dict[str, str] = {}  # a file for each word
    groups: dict[frozenset[str], str] = {}
    for file in files:
        found = {name: pattern.findall(file.removeprefix(common)) for name, pattern in _SPLIT_WORDS.items()}
        for word in itertools.chain.from_iterable(found.values()):
            examples.setdefault(word, file)
        groups.setdefault(frozenset(name for name, words in found.items() if words), file)
    if len(groups) == 1 or groups.keys() <= {frozenset(), frozenset({"train"})}:
        return
    shown = [f"{word!r} in {file!r}" for word, file in sorted(examples.items())]
    if frozenset() in groups:
        shown.append(f"no such word in {groups[frozenset()]!r}")
    raise ValueError(
        f"{path!r} leads to files of several splits ({', '.join(shown)}). Read as one source, held-out rows would be "
        "among the others. Choose with `split`, such as `split: train`, or name several: `split: "
        f"{'+'.join(sorted(examples))}`. Or give a narrower path."
    )


def _check_regular(file: str) -> None:
    try:
        kind = special_kind(os.stat(file))
    except OSError as error:
        raise ValueError(f"{file!r} cannot be read ({error}). Fix or remove it.") from error
    if kind is not None:
        raise ValueError(f"{file!r} is {kind}, not a regular file. Remove it, or give a narrower path.")


def stamp(file: str) -> tuple:
    """
    Return a value that changes whenever a file does.

    It is the path, size and inode of a local file, with the times of the last change of its content and of its inode in
    nanoseconds, and the `ukey` of the file system for a remote file.
    """
    fs, path = url_to_fs(file)
    if "file" not in fs.protocol:
        return file, fs.ukey(path)
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # a name with a NUL byte is a ValueError
        return file, None
    return file, status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


@contextmanager
def open_file(file: str) -> Iterator[BinaryIO]:
    """Open a file for reading, decompressed."""
    compression = _COMPRESSIONS.get(os.path.splitext(file.lower())[1])
    with fsspec.open(file, "rb", compression=None if compression == "zip" else compression) as source:
        if compression != "zip":
            yield source
            return
        with zipfile.ZipFile(source) as archive:
            names = [member.filename for member in archive.infolist() if not member.is_dir()]
            if len(names) != 1:
                raise ValueError(
                    f"it is an archive of {len(names)} files {names[:3]}, and only archives of one file are read: unpack it"
                )
            with archive.open(names[0]) as member:
                yield member
