# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Data files: the files that a path leads to, their kinds and splits, and how they are opened.

| suffix | kind |
|---|---|
| `.jsonl`, `.json` | `"json"` |
| `.csv`, `.tsv` | `"csv"` |
| `.tar` | `"tar"` |
| `.parquet` | `"parquet"` |
| `.arrow`, as `Dataset.save_to_disk` writes them | `"arrow"` |
| images and videos, each of them a row, where there is no table | `"media"` |

All but the last three may be compressed: `.gz` (`.tgz`), `.bz2`, `.xz`, `.zst` (with the package `zstandard`), `.zip` around one
file. [`rows`] reads them, and [`folders`] knows what the files of a folder are.
"""

import glob
import itertools
import os
import re
import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from typing import BinaryIO, NoReturn

import fsspec
from fsspec.core import url_to_fs
from transformers.utils import logging

from ..files_flamingo import special_kind
from ..utils.names import count_of
from .folders import expand_braces, find_unread, saved_files, without_beside, without_logs


logger = logging.get_logger(__name__)

#: Suffixes of the files that are read as images and as videos.
IMAGE_SUFFIXES = ("jpg", "jpeg", "jfif", "png", "webp", "gif", "bmp", "tif", "tiff", "avif", "jp2", "ppm")
VIDEO_SUFFIXES = ("mp4", "webm", "mkv", "mov", "avi")

_TABLES = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".tar": "tar"}
_KINDS = {**_TABLES, ".arrow": "arrow", **{f".{suffix}": "media" for suffix in IMAGE_SUFFIXES + VIDEO_SUFFIXES}}
_COMPRESSIONS = {".gz": "gzip", ".tgz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd", ".zip": "zip"}
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


_has_warnings = ContextVar("has_warnings", default=True)


@contextmanager
def without_warnings() -> Iterator[None]:
    """Find files without a word about others, as for a look at them."""
    token = _has_warnings.set(False)
    try:
        yield
    finally:
        _has_warnings.reset(token)


def kind_of(file: str) -> str | None:
    """Return the kind of a data file by its suffix, or `None` for any other file."""
    return _KINDS.get(suffix_of(file))


def suffix_of(file: str) -> str:
    """Return the suffix without that of a compression. A `.parquet` has its own compression, so it keeps both."""
    stem, suffix = os.path.splitext(file.lower())
    if suffix not in _COMPRESSIONS:
        return suffix
    inner = ".tar" if suffix == ".tgz" else os.path.splitext(stem)[1]
    return inner if inner in _TABLES and inner != ".parquet" else suffix


# What systems and editors leave in folders: .ipynb_checkpoints, __MACOSX, ._1.jpg. `datasets` does not read it either.
_HIDDEN = re.compile(r"(^|/)(\.|__)")


def find_files(
    path: str,
    split: str | None = None,
    *,
    media: Collection[str] = (),
    names: str | None = None,
) -> list[str]:
    """
    Find the data files that `path` leads to, sorted, as [`Reader.load`] takes them.

    Args:
        path (`str`): A file, a folder (without names below it that begin with `.` or `__`), or a pattern: `*`, `?` and `[0-9]`, and `{00000..00099}` and `{a,b}`, each file or
            folder of which must exist. What exists by its whole name is not a pattern.
        split (`str`, *optional*): As in [`Reader.load`].
        media (`Collection[str]`, *optional*): Suffixes of images or videos that are rows themselves if there are no tables.
        names (`str`, *optional*): Pattern of the names of tables that are read of a folder. By default all are.

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
    found, common = _list_files(fs, path, root)
    images = [file for file in found if file.lower().endswith(tuple(f".{suffix}" for suffix in media))]
    tables = saved_files(fs, found)
    if not tables:
        tables = [file for file in found if kind_of(file) not in (None, "media")]
        tables = without_beside(without_logs(tables), images)
        if names is not None and found != [root]:
            tables = [file for file in tables if re.search(names, os.path.basename(file))]
    files = tables or images
    # An image may be named as a split is, so of an image only the folders below `path` count
    labels = {file: file.removeprefix(common) if tables else _folder_of(file, common) for file in files}
    if split is None:
        _refuse_several_splits(path, labels)
    else:
        word = re.compile("|".join(map(_as_word, split.split("+"))))
        files = [file for file in files if word.search(labels[file])]
    if not files:
        _raise_no_files(path, found, split)
    kinds = sorted({kind_of(file) for file in files})
    if len(kinds) > 1:
        raise ValueError(
            f"{path!r} leads to files of several kinds ({', '.join(kinds)}), such as {files[0]!r} and {files[-1]!r}: "
            "which of them are the data is unknown. Give a pattern such as 'folder/*.csv'."
        )
    if _has_warnings.get():
        _warn_of_missing_shards(path, files)
    if kinds == ["media"] and _has_warnings.get():
        _warn_of_unread(
            path, [file for file in found if split is None or word.search(_folder_of(file, common))], files
        )
    if "file" not in fs.protocol:
        return [fs.unstrip_protocol(file) for file in files]
    for file in files:
        _check_regular(file)
    return files


def _list_files(fs: fsspec.AbstractFileSystem, path: str, root: str) -> tuple[list[str], str]:
    """Return the files that a path leads to, and the folder whose own name says nothing about them."""
    if fs.isdir(root):
        return sorted(_files_at(fs, root)), root
    if fs.exists(root):  # also with brackets in its name
        return [root], os.path.dirname(root)
    found, missing = [], []
    patterns = expand_braces(root)
    for pattern in patterns:
        files = [pattern] if len(patterns) > 1 and fs.exists(pattern) else fs.glob(_escape_folders(fs, pattern))
        missing += [] if files else [pattern]
        found += files
    if found and missing:
        raise FileNotFoundError(
            f"{path!r} stands for {count_of(len(patterns), 'name')}, and there is no file for {len(missing):,} of them, such as {missing[0]!r}. Fetch "
            "them, or give a pattern without them."
        )
    # Each folder was named, or there is nothing else
    if len(patterns) > 1 or not any(kind_of(file) for file in found):
        found = [file for name in found for file in ([name] if kind_of(name) else _files_at(fs, name))]
    return sorted(set(found)), os.path.dirname(re.split(r"[*?\[{]", root)[0])


def _files_at(fs: fsspec.AbstractFileSystem, name: str) -> list[str]:
    """Return the files of a folder, or the file itself."""
    if not fs.isdir(name):
        return [name]
    return [file for file in fs.find(name) if not _HIDDEN.search(file.removeprefix(name))]


def _escape_folders(fs: fsspec.AbstractFileSystem, pattern: str) -> str:
    """Escape the brackets of folders that exist: `data [1]/*.csv`."""
    folder, parts = "", pattern.split("/")
    while "[" in pattern and len(parts) > 1 and (not parts[0] or fs.isdir(f"{folder}{parts[0]}")):
        folder += f"{parts.pop(0)}/"
    return glob.escape(folder) + "/".join(parts)


def _folder_of(file: str, common: str) -> str:
    return os.path.dirname(file.removeprefix(common)) + "/"


def _raise_no_files(path: str, found: list[str], split: str | None) -> NoReturn:
    of_split = "" if split is None else f" of split {split!r}"
    kinds = ", ".join((*_TABLES, ".arrow"))
    if not found:
        raise FileNotFoundError(f"{path!r} leads to no file. Give a {kinds} file, a folder or a pattern.")
    endings = ", ".join(sorted({os.path.splitext(file)[1].lower() or "none" for file in found})[:8])
    raise FileNotFoundError(
        f"{path!r} leads to {count_of(len(found), 'file')}, but none is a {kinds} file{of_split} that this format reads; the endings are {endings}. "
        "Check the path. (A folder of images needs a table next to them, such as a `metadata.csv` with the columns `file_name` and "
        "`text`, or a `.txt` beside each, or a folder for each class: docs/data-formats.md.)"
    )


def _warn_of_unread(path: str, found: list[str], files: list[str]) -> None:
    unread = find_unread(found, files)
    if unread:
        logger.warning_once(  # several formats may look at one folder
            f"{path!r} has {count_of(len(unread), 'other file')} that {'is' if len(unread) == 1 else 'are'} not read, such as {unread[0]!r}."
        )


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


def _refuse_several_splits(path: str, labels: dict[str, str]) -> None:
    """Raise if some files are held out by their names and others are not, or by other words."""
    examples: dict[str, str] = {}  # a file for each word
    groups: dict[frozenset[str], str] = {}
    for file, label in labels.items():
        found = find_splits(label)
        for word in itertools.chain.from_iterable(found.values()):
            examples.setdefault(word, file)
        groups.setdefault(frozenset(name for name, words in found.items() if words), file)
    if len(groups) <= 1 or groups.keys() <= {frozenset(), frozenset({"train"})}:
        return
    shown = [f"{word!r} in {file!r}" for word, file in sorted(examples.items())]
    if frozenset() in groups:
        shown.append(f"no such word in {groups[frozenset()]!r}")
    is_class = frozenset() in groups and all(kind_of(file) == "media" for file in labels)
    word = min(examples)
    hint = f" If {word!r} is a class, and no split, rename its folder, such as to {f'{word}s'!r}." if is_class else ""
    raise SeveralSplitsError(
        f"{path!r} leads to files of several splits ({', '.join(shown)}). Read as one source, held-out rows would be "
        "among the others. Choose with `split`, such as `split: train`, or name several: `split: "
        f"{'+'.join(sorted(examples))}`. Or give a narrower path.{hint}",
        {} if frozenset() in groups else _words_of_splits(labels),
    )


def _words_of_splits(labels: dict[str, str]) -> dict[str, list[str]]:
    words: dict[str, set[str]] = {}
    for label in labels.values():
        for name, of_name in find_splits(label).items():
            if of_name:
                words.setdefault(name, set()).update(of_name)
    return {name: sorted(of_name) for name, of_name in words.items()}


class SeveralSplitsError(ValueError):
    """
    Files or rows of several splits, of which none was chosen.

    Attributes:
        words (`dict[str, list[str]]`): For each of train, validation and test the words that choose it; empty if some files are of none.
    """

    def __init__(self, message: str, words: dict[str, list[str]]):
        super().__init__(message)
        self.words = words


@lru_cache(4096)
def find_splits(label: str) -> dict[str, list[str]]:
    """Return the words in the name of a file or folder that say to which split it belongs: train, validation or test."""
    return {name: pattern.findall(label) for name, pattern in _SPLIT_WORDS.items()}


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


def is_compressed(file: str) -> bool:
    """Return whether [`open_file`] decompresses a file. Such a file is read from its beginning."""
    return os.path.splitext(file.lower())[1] in _COMPRESSIONS


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
