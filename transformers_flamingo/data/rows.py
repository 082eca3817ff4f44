# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Data files: which of them a path leads to, and the rows in each, with their file and place.

| file | a row is |
|---|---|
| `.jsonl` | one line, parsed by [`parse_record`] |
| `.json` | one item of the list in the file, parsed by [`parse_record`] |
| `.csv`, `.tsv` | its columns, all of them strings |
| `.tar` | the files of one key, as in WebDataset |
| `.parquet` | its columns; read by `datasets` |

All but `.parquet` may be compressed: `.gz`, `.bz2`, `.xz`, `.zst` (with the package `zstandard`), `.zip` around one file.

A file that is cut short or damaged is an error that names it: the rows behind the damage would be lost in silence.
What is wrong with one row only, such as a caption that is not UTF-8, is in the column `ERROR` of that row, and
`Reader.read` raises it as an error of that row.

JSON is parsed row by row because records of one file may differ in their types (`id` a number here and a string there,
`content` a string or a list), which one Arrow schema refuses.
"""

import codecs
import csv
import io
import itertools
import json
import os
import re
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any, BinaryIO

import fsspec
from datasets import Dataset, Features, Image, Value, Video, load_dataset
from datasets.exceptions import DatasetGenerationError
from datasets.fingerprint import Hasher
from fsspec.core import url_to_fs
from transformers.utils import logging

from ..files_flamingo import special_kind


logger = logging.get_logger(__name__)

FILE, ROW, JSON, ERROR = "__file__", "__row__", "__json__", "__error__"
TAR_KEY, TAR_FILE = "__key__", "__url__"

_KINDS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".tar": "tar"}
_COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd", ".zip": "zip"}
# The words by which files and folders tell their split, as in `datasets`, with the names that benchmarks use
_SPLITS = {
    "train": ("train", "training", "trainval"),
    "validation": ("validation", "validate", "valid", "val", "dev", "minival", "restval"),
    "test": ("test", "testing", "testdev", "eval", "evaluation", "held[-_ ]?out", "hold[-_ ]?out"),
}
_SPLIT_WORDS = {
    name: re.compile(rf"(?<![a-z])((?:{'|'.join(words)})(?:set)?)(?![a-z])", re.IGNORECASE)
    for name, words in _SPLITS.items()
}
_MEMBER = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.DOTALL)


def kind_of(file: str) -> str | None:
    """Return the kind of a data file, as its suffix tells it, or `None` for any other file."""
    return _KINDS.get(_suffix(file))


def _suffix(file: str) -> str:
    """Return the suffix below one of compression; a `.parquet` has its own."""
    stem, suffix = os.path.splitext(file.lower())
    if suffix not in _COMPRESSIONS:
        return suffix
    inner = os.path.splitext(stem)[1]
    return suffix if inner == ".parquet" else inner


# Which files


def find_files(path: str, split: str | None = None) -> list[str]:
    """
    Find the data files under `path`, sorted. See [`Reader.load`].

    Raises:
        FileNotFoundError: there are none.
        ValueError: they are of several kinds or several splits, or one is not a regular file.
    """
    if "::" in path:
        raise ValueError(
            f"{path!r} is a chain of file systems ('::'), which is not followed. Unpack or download the files and pass "
            "their folder; a compressed file is read as it is."
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
        raise FileNotFoundError(
            f"{path!r} leads to {len(found)} files, but to no {', '.join(_KINDS)} file{of_split}. Check the path."
        )
    kinds = sorted({kind_of(file) for file in files})
    if len(kinds) > 1:
        raise ValueError(
            f"{path!r} leads to files of several kinds ({', '.join(kinds)}), such as {files[0]!r} and {files[-1]!r}: "
            "which of them are the data? Give a pattern such as 'folder/*.csv'."
        )
    _warn_of_missing_shards(path, files)
    if "file" not in fs.protocol:
        return [fs.unstrip_protocol(file) for file in files]
    for file in files:
        _check_regular(file)
    return files


def _warn_of_missing_shards(path: str, files: list[str]) -> None:
    """Warn where files are numbered `00000-of-00003` and some numbers are missing: a download may have been cut."""
    series: dict[tuple[str, int], set[int]] = {}
    for file in files:
        if match := re.search(r"^(.*?)(\d+)-of-(\d+)", file):
            series.setdefault((match[1], int(match[3])), set()).add(int(match[2]))
    for (stem, total), numbers in series.items():
        if len(numbers) < total:
            logger.warning(
                f"{path!r} has {len(numbers)} of the {total} files {os.path.basename(stem)}*-of-{total:05}: the others are not "
                "trained on. Download them if they should be."
            )


def _as_word(split: str) -> str:
    """Return a pattern of `split` as a separate word, where digits may follow letters: `train2014` is of `train`."""
    if not split:
        raise ValueError("`split` has an empty name. Name one, or several with '+', such as 'train+validation'.")
    before, after = ("A-Za-z" if char.isalpha() else "A-Za-z0-9" for char in (split[0], split[-1]))
    return f"(?<![{before}]){re.escape(split)}(?![{after}])"


def _refuse_several_splits(path: str, files: list[str], common: str) -> None:
    """Raise if some files are held out by their names and others are not, or by other words."""
    examples: dict[str, str] = {}  # of each word a file
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
        "among the others. Choose with `split`, such as `split: train`; for several, name them: `split: "
        f"{'+'.join(sorted(examples))}`. Or give a narrower path."
    )


def _check_regular(file: str) -> None:
    try:
        kind = special_kind(os.stat(file))
    except OSError as error:
        raise ValueError(f"{file!r} cannot be read ({error}). Fix or remove it.") from error
    if kind is not None:
        raise ValueError(f"{file!r} is {kind}, where a regular file should be. Remove it, or give a narrower path.")


def stamp(file: str) -> tuple:
    """
    What changes whenever a local file does: its path, size, inode, and the times of the last change of its content and of
    its inode, in nanoseconds. Of a remote file, what its file system tells.
    """
    fs, path = url_to_fs(file)
    if "file" not in fs.protocol:
        return file, fs.ukey(path)
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # a name that cannot be one is a ValueError
        return file, None
    return file, status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns


# Their rows


def read_rows(
    files: list[str], members: dict[str, Any] | None = None, columns: tuple[str, ...] = ()
) -> Iterator[dict[str, Any]]:
    """
    Read the rows of files of one kind, one after the other.

    Args:
        files (`list[str]`): What [`find_files`] returned.
        members (`dict`, *optional*): Of `.tar` files, the suffixes of members with their features.
        columns (`tuple[str, ...]`, *optional*): Columns that each row of a table has, `None` where its file has none such.

    Raises:
        ValueError: a file cannot be read to its end. The message names it.
    """
    for file in files:
        kind = kind_of(file)
        try:
            if kind == "tar":
                yield from _tar_samples(file, members)
            elif kind == "parquet":
                yield from _parquet_rows(file)
            elif kind == "csv":
                yield from _table_rows(file, columns)
            else:
                yield from (_json_lines if _suffix(file) == ".jsonl" else _json_list)(file)
        except Exception as error:  # each format has its own
            raise _unreadable(file, error) from error


def load_rows(files: list[str], members: dict[str, Any] | None = None) -> list[Dataset]:
    """
    Read files of one kind into `datasets`' cache, or find them there, if none of them has changed ([`stamp`]).

    Args:
        files, members: As in [`read_rows`].

    Returns:
        `list[datasets.Dataset]`, which together have the rows.

    Raises:
        ValueError: a file cannot be read to its end, or there is no row.
    """
    stamps = [stamp(file) for file in files]
    if kind_of(files[0]) == "parquet":
        return [_load_parquet(file, Hasher.hash(of_file)) for file, of_file in zip(files, stamps, strict=True)]
    place = {FILE: Value("string"), ROW: Value("int64")}
    columns: tuple[str, ...] = ()
    if members is not None:
        features = {**members, TAR_KEY: Value("string"), TAR_FILE: Value("string")}
    elif kind_of(files[0]) == "csv":
        columns = tuple(dict.fromkeys(name for file in files for name in _header(file)))
        features = {**{name: Value("string") for name in columns}, **place}
    else:
        features = {JSON: Value("string"), **place}
    features = Features({**features, ERROR: Value("string")})
    try:
        rows = Dataset.from_generator(
            read_rows,
            features=features,
            gen_kwargs={"files": files, "members": members, "columns": columns},
            # Not that of the function and its arguments: the files may change, and so may what is read of them
            fingerprint=Hasher.hash((stamps, str(features), version("transformers-flamingo"))),
            # A row may hold images
            writer_batch_size=100,
        )
    except DatasetGenerationError as error:
        raise (error.__cause__ or error) from None
    except ValueError as error:  # `datasets` refuses to make a dataset without rows
        raise ValueError(
            f"There is no row in {files[0]!r} and the {len(files) - 1} files behind it ({error}). Check the path."
        ) from error
    return [rows]


def _load_parquet(file: str, name: str) -> Dataset:
    try:
        # The name is a part of the place in the cache, which else knows only path and second of the last change
        rows = load_dataset("parquet", name=name, data_files=[file], split="train")
        rows = rows.cast(undecoded(rows.features))
    except Exception as error:  # pyarrow's, or that of `datasets` around it
        raise _unreadable(file, error.__cause__ or error) from error
    rows = rows.add_column(FILE, [file] * len(rows), feature=Value("string"))
    return rows.add_column(ROW, list(range(len(rows))), feature=Value("int64"))


def _parquet_rows(file: str) -> Iterator[dict[str, Any]]:
    rows = load_dataset("parquet", data_files=[file], split="train", streaming=True)
    rows = rows.cast(undecoded(rows.features))
    # `iter`, because plain iteration in a DataLoader's worker would deal this file out among the workers, although it is
    # this worker's own shard, and rows would be lost
    for number, batch in enumerate(rows.iter(batch_size=1)):
        yield {**{name: values[0] for name, values in batch.items()}, FILE: file, ROW: number}


def undecoded(feature: Any) -> Any:
    """Return `feature` with every image and video in it left as bytes and path: a broken one is then an error of its row."""
    if isinstance(feature, dict):
        inner = {name: undecoded(value) for name, value in feature.items()}
        return Features(inner) if isinstance(feature, Features) else inner
    if isinstance(feature, Image | Video):
        return type(feature)(decode=False)
    if hasattr(feature, "feature"):
        return type(feature)(undecoded(feature.feature))
    return feature


@contextmanager
def _open(file: str) -> Iterator[BinaryIO]:
    """Open a file for reading, with what compresses it taken off."""
    compression = _COMPRESSIONS.get(os.path.splitext(file.lower())[1])
    with fsspec.open(file, "rb", compression=None if compression == "zip" else compression) as source:
        if compression != "zip":
            yield source
            return
        with zipfile.ZipFile(source) as archive:
            names = [member.filename for member in archive.infolist() if not member.is_dir()]
            if len(names) != 1:
                raise ValueError(f"it is an archive of {len(names)} files {names[:3]}, where one is read: unpack it")
            with archive.open(names[0]) as member:
                yield member


def _json_lines(file: str) -> Iterator[dict[str, Any]]:
    with _open(file) as source:
        for number, line in enumerate(source):
            line = line.removeprefix(codecs.BOM_UTF8) if number == 0 else line
            if line.strip():
                text, error = _decode(line, "it")
                yield {JSON: text, ERROR: error, FILE: file, ROW: number}


def _json_list(file: str) -> Iterator[dict[str, Any]]:
    with _open(file) as source:
        text = source.read().decode("utf-8-sig")
    try:
        records = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error}). With one record per line, it must be named .jsonl") from error
    if not isinstance(records, list):
        raise ValueError(f"it holds a {type(records).__name__}, where a list of records should be")
    for number, item in enumerate(records):
        yield {JSON: json.dumps(item), ERROR: None, FILE: file, ROW: number}


def _table(source: BinaryIO, file: str) -> tuple[list[str], Any]:
    """Return the header of a table, and the rows behind it. Bytes that are not UTF-8 are surrogates."""
    text = io.TextIOWrapper(source, encoding="utf-8-sig", errors="surrogateescape", newline="")
    rows = csv.reader(text, delimiter="\t" if _suffix(file) == ".tsv" else ",", strict=True)
    names = next(rows, [])
    if not names or len(set(names)) < len(names) or not _is_utf8("".join(names)):
        raise ValueError(f"its first line should name its columns, each once, in UTF-8, but it is {names}")
    return names, rows


def _header(file: str) -> list[str]:
    try:
        with _open(file) as source:
            return _table(source, file)[0]
    except Exception as error:  # each compression has its own
        raise _unreadable(file, error) from error


def _table_rows(file: str, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    # As strings, and no word means "missing": a caption may be "007", "None" or "NA"
    with _open(file) as source:
        names, rows = _table(source, file)
        for number, values in enumerate(filter(None, rows)):
            error = None
            if len(values) != len(names):
                error = (
                    f"{len(values)} values, where the {len(names)} columns are {names}: a comma in a text needs quotes"
                )
            elif not _is_utf8("".join(values)):
                error = "it is not UTF-8"
            values = dict.fromkeys(names) if error else dict(zip(names, values, strict=True))
            yield {**dict.fromkeys(columns), **values, ERROR: error, FILE: file, ROW: number}


# WebDataset


class _Header(tarfile.TarInfo):
    """Raise for a damaged header, which `tarfile` takes for the end of the archive behind the first member."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> tarfile.TarInfo:
        offset = archive.offset
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # a block of zeros, with which an archive ends
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(
                f"no header of a member and no end of the archive at byte {offset}: {error}"
            ) from error


def _tar_samples(file: str, members: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the samples of a `.tar`: neighboring members whose names have the same beginning, up to the first dot."""
    sample, name, count = None, None, 0
    with _open(file) as source, tarfile.open(fileobj=source, mode="r|", tarinfo=_Header) as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # it would keep all headers
            match = _MEMBER.fullmatch(member.name)
            if member.isdir() or match is None:
                continue
            if match[1] != name:
                if sample is not None:
                    yield sample
                name, seen, count = match[1], set(), count + 1
                sample = {**dict.fromkeys(members), TAR_KEY: _printable(name), TAR_FILE: file, ERROR: None}
                if not _is_utf8(name):
                    sample[ERROR] = f"the name of {_printable(member.name)!r} is not UTF-8"
            kind = match[2].lower()
            if kind in seen:
                sample[ERROR] = f"it has two members of the kind {kind!r}, so two samples may have one name"
            elif kind in members:
                _add(sample, kind, archive.extractfile(member) if member.isreg() else None, members[kind])
            seen.add(kind)
        _check_end(archive)
        # The last one only now: it is whole if the archive is
        if sample is not None:
            yield sample
    if count == 0:
        raise ValueError("it holds no member that is named as a sample, KEY.SUFFIX")


def _add(sample: dict[str, Any], kind: str, data: BinaryIO | None, feature: Any) -> None:
    """Put a member into its sample."""
    if data is None:
        sample[ERROR] = f"its member {kind!r} is a link, which is not followed"
    elif isinstance(feature, Image | Video):
        sample[kind] = {"path": f"{sample[TAR_KEY]}.{kind}", "bytes": data.read()}
    else:
        sample[kind], error = _decode(data.read(), f"its member {kind!r}")
        sample[ERROR] = sample[ERROR] or error


def _check_end(archive: tarfile.TarFile) -> None:
    """Make sure that an archive ends with a second block of zeros, and that nothing follows."""
    if len(block := archive.fileobj.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE or block.strip(b"\0"):
        raise tarfile.ReadError("it does not end with two blocks of zeros")
    while block := archive.fileobj.read(1 << 20):
        if block.strip(b"\0"):
            raise tarfile.ReadError("there are data behind its end: two archives in one file?")


# Texts


def _decode(data: bytes, what: str) -> tuple[str | None, str | None]:
    """Return the text, and what is wrong with it."""
    try:
        return data.decode("utf-8"), None
    except UnicodeDecodeError as error:
        return None, f"{what} is not UTF-8 ({error})"


def _is_utf8(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def _printable(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _unreadable(file: str, error: Exception) -> ValueError:
    return ValueError(
        f"{file!r} cannot be read to its end ({type(error).__name__}: {error}). It is damaged, cut short, or not what its "
        "name says, and rows would be lost. Fetch it again, or remove it."
    )
