# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Rows of data files, with the file and the place of each.

| file | a row is |
|---|---|
| `.jsonl` | one line, parsed by [`parse_record`] |
| `.json` | one item of the list in the file, or of what a format makes of it, parsed by [`parse_record`] |
| `.csv`, `.tsv` | its columns, all of them strings |
| `.tar` | the files of one key, as in WebDataset; read by [`webdataset`] |
| `.parquet`, `.arrow` | its columns; read by `datasets`. The number of a class (`ClassLabel`) becomes its name |
| an image or video | the file, with the texts beside it; read by [`folders`] |

A file that is cut short or damaged is an error that names it: the rows after the damage would silently be lost. An error
of a single row, such as a caption that is not UTF-8, is in the column `ERROR` of that row, and `Reader.read` raises it.

JSON is parsed row by row because records of one file may differ in their types (`id` is a number in one and a string in
another, `content` a string or a list), which one Arrow schema refuses.
"""

import codecs
import csv
import glob
import io
import json
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from typing import Any, BinaryIO

from datasets import ClassLabel, Dataset, DatasetInfo, Features, Image, Value, Video, load_dataset
from datasets.exceptions import DatasetGenerationError
from datasets.fingerprint import Hasher

from .columns import ERROR, FILE, JSON, ROW, TAR_FILE, TAR_KEY
from .data_files import kind_of, open_file, stamp, suffix_of
from .folders import BESIDE, FOLDER, names_beside, read_beside
from .utf8 import decode_utf8, is_utf8
from .webdataset import tar_samples


def read_rows(
    files: list[str],
    members: dict[str, Any] | None = None,
    columns: tuple[str, ...] = (),
    make_records: Callable[[Any, str], Iterable[Any]] | None = None,
) -> Iterator[dict[str, Any]]:
    """
    Read the rows of files of one kind, one after the other.

    Args:
        files (`list[str]`): What [`find_files`] returned.
        members (`dict`, *optional*): The suffixes of members to read from `.tar` files, with their features.
        columns (`tuple[str, ...]`, *optional*): Columns that each row of a table gets, `None` if its file has no such column.
        make_records (`Callable`, *optional*):
            Makes a list of records of the content of a `.json` file that is not one, given its path.

    Yields:
        `dict[str, Any]`: the columns of a row, and those of [`columns`] that say where it is from.

    Raises:
        ValueError: a file cannot be read to its end. The message names it.
    """
    for file in files:
        kind = kind_of(file)
        try:
            if kind == "tar":
                yield from tar_samples(file, members)
            elif kind in ("parquet", "arrow"):
                yield from _column_rows(file, kind)
            elif kind == "csv":
                yield from _table_rows(file, columns)
            elif kind == "media":
                yield from read_beside(file)
            elif suffix_of(file) == ".jsonl":
                yield from _json_lines(file)
            else:
                yield from _json_list(file, make_records)
        except Exception as error:  # each compression, parser and remote file system has its own
            raise _unreadable(file, error) from error


def load_rows(
    files: list[str],
    members: dict[str, Any] | None = None,
    make_records: Callable[[Any, str], Iterable[Any]] | None = None,
    companions: list[str] | None = None,
) -> list[Dataset]:
    """
    Read files of one kind into `datasets`' cache, or reuse what is there if none of them has changed ([`stamp`]).

    Args:
        files, members, make_records: As in [`read_rows`].
        companions (`list[str]`, *optional*): Other files that `make_records` reads.

    Returns:
        `list[datasets.Dataset]`: the rows, in one or several parts.

    Raises:
        ValueError: a file cannot be read to its end, or there is no row.
    """
    kind = kind_of(files[0])
    stamps = [stamp(file) for file in files]
    if kind in ("parquet", "arrow"):
        return [_load_columns(file, kind, Hasher.hash(of_file)) for file, of_file in zip(files, stamps, strict=True)]
    stamps += [stamp(file) for file in companions or []]
    place = {FILE: Value("string"), ROW: Value("int64")}
    columns: tuple[str, ...] = ()
    if members is not None:
        features = {**members, TAR_KEY: Value("string"), TAR_FILE: Value("string")}
    elif kind == "media":
        stamps += [stamp(name) for file in files for name in names_beside(file)]
        features = {**dict.fromkeys(("file_name", *BESIDE, FOLDER), Value("string")), **place}
    elif kind == "csv":
        columns = tuple(dict.fromkeys(name for file in files for name in _header(file)))
        features = {**{name: Value("string") for name in columns}, **place}
    else:
        features = {JSON: Value("string"), **place}
    features = Features({**features, ERROR: Value("string")})
    maker = getattr(make_records, "__qualname__", None)
    try:
        rows = Dataset.from_generator(
            read_rows,
            features=features,
            gen_kwargs={"files": files, "members": members, "columns": columns, "make_records": make_records},
            # By default it would depend on the function and its arguments, but files change, and so does what is read
            fingerprint=Hasher.hash((stamps, str(features), maker, version("transformers-flamingo"))),
            writer_batch_size=100,  # a row may hold images
        )
    except DatasetGenerationError as error:
        raise (error.__cause__ or error) from None
    except ValueError as error:  # `datasets` refuses to make a dataset without rows
        raise ValueError(
            f"There is no row in {files[0]!r} and the {len(files) - 1} files after it ({error}). Check the path."
        ) from error
    return [rows]


def _load_columns(file: str, kind: str, name: str) -> Dataset:
    try:
        if kind == "arrow" and "://" not in file:  # where it is, as `load_from_disk` does
            features = Dataset.from_file(file).features
            rows = Dataset.from_file(file, info=DatasetInfo(features=undecoded(features)))
        else:
            # The name is part of the key in the cache, which otherwise has only the path and the second of the last change
            rows = load_dataset(kind, name=name, data_files=[glob.escape(file)], split="train")
            rows = rows.cast(undecoded(rows.features))
    except Exception as error:  # pyarrow's, a remote file system's, or that of `datasets` around it
        raise _unreadable(file, error.__cause__ or error) from error
    for column, classes in _classes(rows.features).items():
        names = [_name_of(classes, number) for number in rows[column]]
        rows = rows.remove_columns(column).add_column(column, names, feature=Value("string"))
    rows = rows.add_column(FILE, [file] * len(rows), feature=Value("string"))
    return rows.add_column(ROW, list(range(len(rows))), feature=Value("int64"))


def _column_rows(file: str, kind: str) -> Iterator[dict[str, Any]]:
    rows = load_dataset(kind, data_files=[glob.escape(file)], split="train", streaming=True)
    rows = rows.cast(undecoded(rows.features))
    classes = _classes(rows.features)
    # `iter`, because plain iteration in a DataLoader's worker would split this file among the workers, although it is
    # this worker's own shard, and rows would be lost
    for number, batch in enumerate(rows.iter(batch_size=1)):
        row = {name: values[0] for name, values in batch.items()}
        named = {column: _name_of(of_column, row[column]) for column, of_column in classes.items()}
        yield {**row, **named, FILE: file, ROW: number}


def _classes(features: Features) -> dict[str, ClassLabel]:
    return {name: feature for name, feature in features.items() if isinstance(feature, ClassLabel)}


def _name_of(classes: ClassLabel, number: int | None) -> str | None:
    """Return the name of a class; `None` for -1, with which `datasets` marks rows without one."""
    return None if number is None or number < 0 else classes.int2str(number)


def undecoded(feature: Any) -> Any:
    """Return `feature` with its images and videos as bytes and path, so that a corrupt one is reported for its own row."""
    if isinstance(feature, dict):
        inner = {name: undecoded(value) for name, value in feature.items()}
        return Features(inner) if isinstance(feature, Features) else inner
    if isinstance(feature, Image | Video):
        return type(feature)(decode=False)
    if hasattr(feature, "feature"):
        return type(feature)(undecoded(feature.feature))
    return feature


def _json_lines(file: str) -> Iterator[dict[str, Any]]:
    with open_file(file) as source:
        for number, line in enumerate(source):
            line = line.removeprefix(codecs.BOM_UTF8) if number == 0 else line
            if line.strip():
                text, error = decode_utf8(line, "it")
                yield {JSON: text, ERROR: error, FILE: file, ROW: number}


def _json_list(file: str, make_records: Callable[[Any, str], Iterable[Any]] | None = None) -> Iterator[dict[str, Any]]:
    with open_file(file) as source:
        text = source.read().decode("utf-8-sig")
    try:
        records = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error}). With one record per line, it must be named .jsonl") from error
    if make_records is not None:
        records = make_records(records, file)
    elif not isinstance(records, list):
        raise ValueError(f"it holds a {type(records).__name__} instead of a list of records{_show_keys(records)}")
    for number, item in enumerate(records):
        yield {JSON: json.dumps(item), ERROR: None, FILE: file, ROW: number}


def _show_keys(content: Any) -> str:
    return f": it has {', '.join(map(repr, list(content)[:6]))}" if isinstance(content, dict) and content else ""


def _table(source: BinaryIO, file: str) -> tuple[list[str], Any]:
    """Return the header of a table and an iterator of its rows. Bytes that are not UTF-8 become surrogates."""
    text = io.TextIOWrapper(source, encoding="utf-8-sig", errors="surrogateescape", newline="")
    rows = csv.reader(text, delimiter="\t" if suffix_of(file) == ".tsv" else ",", strict=True)
    names = next(rows, [])
    if not names or len(set(names)) < len(names) or not is_utf8("".join(names)):
        raise ValueError(f"its first line should name each column once, in UTF-8, but it is {names}")
    return names, rows


def _header(file: str) -> list[str]:
    try:
        with open_file(file) as source:
            return _table(source, file)[0]
    except Exception as error:  # each compression and remote file system has its own
        raise _unreadable(file, error) from error


def _table_rows(file: str, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    # As strings, with no word for a missing value: a caption may be "007", "None" or "NA"
    with open_file(file) as source:
        names, rows = _table(source, file)
        for number, values in enumerate(filter(None, rows)):
            error = None
            if len(values) != len(names):
                error = f"it has {len(values)} values for the {len(names)} columns {names}: a text with a comma needs quotes"
            elif not is_utf8("".join(values)):
                error = "it is not UTF-8"
            values = dict.fromkeys(names) if error else dict(zip(names, values, strict=True))
            yield {**dict.fromkeys(columns), **values, ERROR: error, FILE: file, ROW: number}


def _unreadable(file: str, error: Exception) -> ValueError:
    return ValueError(
        f"{file!r} cannot be read to its end ({type(error).__name__}: {error}). It is damaged, cut short, or not what its "
        "name says, so rows would be lost. Fetch it again, or remove it."
    )
