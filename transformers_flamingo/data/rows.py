# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Rows of data files, with the file and the place of each.

| file | a row is |
|---|---|
| `.jsonl` | one line, parsed by [`parse_record`] |
| `.json` | one item of the list in the file, or of what a format makes of it, parsed by [`parse_record`] |
| `.csv`, `.tsv` | its columns, all of them strings |
| `.tar` | the files of one key, as in WebDataset; read by [`webdataset`] |
| `.parquet`, `.arrow` | its columns; read by [`column_files`]. The number of a class (`ClassLabel`) becomes its name |
| an image or video | the file, with the texts beside it; read by [`folders`] |

A file that is cut short or damaged is an error that names it: the rows after the damage would silently be lost. An error
of a single row, such as a caption that is not UTF-8, is in the column `ERROR` of that row, and `Reader.read` raises it.

JSON is parsed row by row because records of one file may differ in their types (`id` is a number in one and a string in
another, `content` a string or a list), which one Arrow schema refuses.
"""

import codecs
import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from typing import Any, BinaryIO

from datasets import Dataset, Features, Value
from datasets.exceptions import DatasetGenerationError
from datasets.fingerprint import Hasher

from ..utils.names import count_of
from .column_files import column_rows, load_columns
from .columns import ERROR, FILE, JSON, ROW, TAR_FILE, TAR_KEY
from .data_files import kind_of, open_file, stamp, suffix_of
from .errors import ContentError
from .folders import BESIDE, FOLDER, names_beside, read_beside
from .positions import START, Position, open_at
from .utf8 import OTHER_ENCODING, decode_utf8, is_utf8
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
        for row, _ in read_file(file, members, columns, make_records):
            yield row


def read_file(
    file: str,
    members: dict[str, Any] | None = None,
    columns: tuple[str, ...] = (),
    make_records: Callable[[Any, str], Iterable[Any]] | None = None,
    start: Position = START,
) -> Iterator[tuple[dict[str, Any], Position]]:
    """
    Read the rows of a file from a position on. What is before it is not read where the file can seek ([`positions`]).

    Args:
        file (`str`): The file.
        members, columns, make_records: As in [`read_rows`].
        start ([`Position`], *optional*): Where to begin, as an earlier reading of the same file yielded it.

    Yields:
        `tuple[dict[str, Any], Position]`: a row, and the position behind it.

    Raises:
        ValueError: as in [`read_rows`].
    """
    kind = kind_of(file)
    try:
        if kind == "tar":
            yield from tar_samples(file, members, start)
        elif kind in ("parquet", "arrow"):
            yield from column_rows(file, kind, start)
        elif kind == "csv":
            yield from _table_rows(file, columns, start)
        elif kind == "media":
            yield from _count(read_beside(file), start)
        elif suffix_of(file) == ".jsonl":
            yield from _json_lines(file, start)
        else:
            yield from _count(_json_list(file, make_records), start)
    except ContentError as error:
        raise ContentError(f"{file!r} cannot be read: {error}.", error.is_near) from error
    except Exception as error:  # each compression, parser and remote file system has its own
        raise _unreadable(file, error) from error


def _load_columns(file: str, kind: str, name: str) -> Dataset:
    try:
        rows = load_columns(file, kind, name)
    except Exception as error:  # pyarrow's, a remote file system's, or that of `datasets` around it
        raise _unreadable(file, error.__cause__ or error) from error
    rows = rows.add_column(FILE, [file] * len(rows), feature=Value("string"))
    return rows.add_column(ROW, list(range(len(rows))), feature=Value("int64"))


def _count(rows: Iterable[dict[str, Any]], start: Position) -> Iterator[tuple[dict[str, Any], Position]]:
    for number, row in enumerate(rows):
        if number >= start.row:
            yield row, Position(number + 1)


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
        columns = tuple(dict.fromkeys(name for file in files for name in _columns_of(file)))
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
        others = f" and the {len(files) - 1} files after it" if len(files) > 1 else ""
        reason = "" if "corresponds to no data" in str(error) else f" ({error})"
        raise ValueError(f"There is no row in {files[0]!r}{others}{reason}. Check the path.") from error
    return [rows]


def _json_lines(file: str, start: Position) -> Iterator[tuple[dict[str, Any], Position]]:
    with open_at(file, start) as (source, begin):
        byte = begin.byte
        for number, line in enumerate(source, begin.row):
            byte = None if byte is None else byte + len(line)
            line = line.removeprefix(codecs.BOM_UTF8) if number == 0 else line
            if number >= start.row and line.strip():
                text, error = decode_utf8(line, "it")
                yield {JSON: text, ERROR: error, FILE: file, ROW: number}, Position(number + 1, byte)


def _json_list(file: str, make_records: Callable[[Any, str], Iterable[Any]] | None = None) -> Iterator[dict[str, Any]]:
    with open_file(file) as source:
        text = source.read().decode("utf-8-sig")
    if not text.strip():
        raise ContentError("it is empty, and has no row")
    try:
        records = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"it is not JSON ({error}). With one record per line, it must be named .jsonl") from error
    if make_records is not None:
        records = make_records(records, file)
    elif not isinstance(records, list):
        raise ContentError(f"it holds a {type(records).__name__} instead of a list of records{_show_keys(records)}")
    for number, item in enumerate(records):
        yield {JSON: json.dumps(item), ERROR: None, FILE: file, ROW: number}


def _show_keys(content: Any) -> str:
    return f": it has {', '.join(map(repr, list(content)[:6]))}" if isinstance(content, dict) and content else ""


class _Lines:
    """Lines of a table as text, whose bytes are counted. Bytes that are not UTF-8 become surrogates."""

    def __init__(self, source: BinaryIO, byte: int | None):
        self.text = io.TextIOWrapper(source, encoding="utf-8", errors="surrogateescape", newline="")
        self.byte, self.is_first = byte, not byte

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        line = next(self.text)
        if self.byte is not None:
            self.byte += len(line.encode("utf-8", "surrogateescape"))
        if self.is_first:
            line, self.is_first = line.removeprefix("\ufeff"), False
        return line


def _parse(lines: _Lines, file: str) -> Any:
    return csv.reader(lines, delimiter="\t" if suffix_of(file) == ".tsv" else ",", strict=True)


def _read_header(rows: Iterator[list[str]]) -> list[str]:
    names = next(rows, [])
    if not names:
        raise ContentError("it is empty, and has no row")
    if len(set(names)) < len(names) or not is_utf8("".join(names)):
        raise ValueError(f"its first line should name each column once, in UTF-8, but it is {names}")
    return names


def _header(file: str) -> list[str]:
    with open_file(file) as source:
        return _read_header(_parse(_Lines(source, None), file))


def _columns_of(file: str) -> list[str]:
    try:
        return _header(file)
    except ContentError as error:
        raise ContentError(f"{file!r} cannot be read: {error}.") from error
    except Exception as error:  # each compression and remote file system has its own
        raise _unreadable(file, error) from error


def _table_rows(file: str, columns: tuple[str, ...], start: Position) -> Iterator[tuple[dict[str, Any], Position]]:
    # As strings, with no word for a missing value: a caption may be "007", "None" or "NA"
    with open_at(file, start) as (source, begin):
        lines = _Lines(source, begin.byte)
        rows = _parse(lines, file)
        names = _header(file) if begin.byte else _read_header(rows)
        for number, values in enumerate(filter(None, rows), begin.row):
            if number < start.row:
                continue
            error = None
            if len(values) != len(names):
                error = f"it has {count_of(len(values), 'value')} for the {count_of(len(names), 'column')} {names}: a text with a comma needs quotes"
            elif not is_utf8("".join(values)):
                error = f"it is not UTF-8 ({OTHER_ENCODING})"
            values = dict.fromkeys(names) if error else dict(zip(names, values, strict=True))
            row = {**dict.fromkeys(columns), **values, ERROR: error, FILE: file, ROW: number}
            yield row, Position(number + 1, lines.byte)


def _unreadable(file: str, error: Exception) -> ValueError:
    return ValueError(
        f"{file!r} cannot be read to its end ({type(error).__name__}: {error}). It is damaged, cut short, or not what its "
        "name says, so rows would be lost. Fetch it again, or remove it."
    )
