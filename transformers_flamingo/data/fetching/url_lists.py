# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Rows of published lists of URLs, in whichever files they come.

| published | files |
|---|---|
| LAION, COYO, DataComp, OBELICS | `.parquet` with the names of the columns |
| CC3M, CC12M | `.tsv` without a line of names: the column with the addresses is `url`, the other of two is `caption` |
| MMC4 | `.jsonl` or `.jsonl.zip` |
| COCO captions, SBU, RedCaps | one `.json`, made into records by [`make_url_records`] |
"""

import csv
import io
import itertools
import os
import re
from collections.abc import Iterable, Iterator
from typing import Any

import fsspec
import pyarrow.parquet as pq
from datasets import Dataset, Features

from ..column_files import undecoded
from ..columns import ERROR, FILE, JSON, ROW, parse_record
from ..data_files import find_files, kind_of, open_file, suffix_of
from ..errors import BadSampleError
from ..rows import read_rows


# Rows of a table that are read at once
_BATCH = 256
# The files of COCO that have no texts
_BOXES = re.compile(r"(instances|person_keypoints|stuff|panoptic|image_info)_.*\.json(\.\w+)?$")


class UrlList:
    """
    The rows of the files that a path leads to, in order.

    Args:
        path, split: As in [`~data.Reader.load`].

    Raises:
        FileNotFoundError, ValueError: as there; or the files are of a kind that has no rows with addresses.
    """

    def __init__(self, path: str, split: str | None = None):
        self.files = _without_boxes(find_files(path, split))
        self.kind = kind_of(self.files[0])
        if self.kind in ("tar", "media"):
            raise ValueError(
                f"{path!r} leads to {self.files[0]!r}, which holds images, not their addresses. Train on it as it is: `flamingo train "
                f"--data {path}`."
            )
        self.has_names = self.kind != "csv" or not _has_address(_first_line(self.files[0]))

    @property
    def features(self) -> Features | None:
        """Return the types of the columns, if the files say them."""
        if self.kind == "parquet":
            with fsspec.open(self.files[0], "rb") as source:
                return undecoded(Features.from_arrow_schema(pq.read_schema(source)))
        return undecoded(Dataset.from_file(self.files[0]).features) if self.kind == "arrow" else None

    def count(self) -> int:
        """Return the number of rows."""
        return sum(map(_count_parquet, self.files)) if self.kind == "parquet" else sum(1 for _ in self._rows(0))

    def read(self, start: int = 0) -> Iterator[dict[str, Any]]:
        """
        Yield the rows: their columns, with their file and index in it.

        A row that cannot be read has only those two and its error, in the column `ERROR`.

        Args:
            start (`int`, *optional*, defaults to 0): The first row. Of `.parquet`, those before it are not decoded.

        Raises:
            ValueError: a file cannot be read to its end.
        """
        for row in self._rows(start):
            place = {FILE: row[FILE], ROW: row[ROW]}
            try:
                values = parse_record(row) if row.get(JSON) is not None or row.get(ERROR) is not None else row
            except BadSampleError as error:
                values = {ERROR: str(error)}
            yield {**{name: value for name, value in values.items() if name != JSON}, **place}

    def _rows(self, start: int) -> Iterable[dict[str, Any]]:
        if self.kind == "parquet":
            return self._parquet_rows(start)
        if self.kind == "arrow":
            rows = itertools.chain.from_iterable(map(_arrow_rows, self.files))
        elif not self.has_names:
            rows = itertools.chain.from_iterable(map(_nameless_rows, self.files))
        else:
            rows = read_rows(self.files, make_records=make_url_records)
        return itertools.islice(rows, start, None)

    def _parquet_rows(self, start: int) -> Iterator[dict[str, Any]]:
        for file in self.files:
            count = _count_parquet(file)
            if start < count:
                yield from _parquet_rows(file, start)
            start = max(0, start - count)


def _without_boxes(files: list[str]) -> list[str]:
    """Return the files without those that COCO publishes beside its captions, as a training reads them."""
    names = [os.path.basename(file) for file in files]
    if not any(name.startswith("captions_") for name in names):
        return files
    return [file for file, name in zip(files, names, strict=True) if not _BOXES.match(name)]


def make_url_records(content: Any, file: str) -> list[Any]:
    """
    Make records of the content of a `.json` file: a list, or what COCO, SBU or RedCaps publish.

    Raises:
        ValueError: it is none of these.
    """
    if isinstance(content, list):
        return content
    if isinstance(content, dict):
        if isinstance(content.get("image_urls"), list) and isinstance(content.get("captions"), list):  # SBU
            pairs = zip(content["image_urls"], content["captions"], strict=True)
            return [{"url": url, "caption": caption} for url, caption in pairs]
        entries = content.get("annotations")
        if isinstance(content.get("images"), list) and isinstance(entries, list):  # COCO
            captions: dict[Any, list[str]] = {}
            for entry in entries:
                if "caption" not in entry:
                    raise ValueError(
                        "its annotations have no 'caption': it is of boxes or keypoints. Use captions_*.json"
                    )
                captions.setdefault(entry["image_id"], []).append(entry["caption"])
            return [
                {
                    "id": image["id"],
                    "url": image.get("coco_url") or image.get("flickr_url"),
                    "captions": captions.get(image["id"], []),
                }
                for image in content["images"]
            ]
        if isinstance(entries, list) and entries and "url" in entries[0]:  # RedCaps
            return entries
    raise ValueError("it holds neither a list of records nor what COCO, SBU or RedCaps publish")


def _count_parquet(file: str) -> int:
    with fsspec.open(file, "rb") as source:
        return pq.read_metadata(source).num_rows


def _parquet_rows(file: str, start: int) -> Iterator[dict[str, Any]]:
    number = 0
    try:
        with fsspec.open(file, "rb") as source:
            for batch in pq.ParquetFile(source).iter_batches(_BATCH):
                skipped = min(max(start - number, 0), len(batch))
                for index, row in enumerate(batch.slice(skipped).to_pylist(), number + skipped):
                    yield {**row, FILE: file, ROW: index}
                number += len(batch)
    except OSError as error:
        raise ValueError(f"{file!r} cannot be read to its end ({error}). Fetch it again, or remove it.") from error


def _arrow_rows(file: str) -> Iterator[dict[str, Any]]:
    batches = (rows.to_pylist() for rows in Dataset.from_file(file).with_format("arrow").iter(_BATCH))
    for number, row in enumerate(itertools.chain.from_iterable(batches)):
        yield {**row, FILE: file, ROW: number}


def _first_line(file: str) -> list[str]:
    with open_file(file) as source:
        text = io.TextIOWrapper(source, encoding="utf-8-sig", errors="replace", newline="")
        return next(_split_lines(text, file), [])


def _nameless_rows(file: str) -> Iterator[dict[str, Any]]:
    with open_file(file) as source:
        text = io.TextIOWrapper(source, encoding="utf-8-sig", errors="surrogateescape", newline="")
        names: list[str] = []
        for number, values in enumerate(filter(None, _split_lines(text, file))):
            names = names or _make_names(values)
            row = {FILE: file, ROW: number}
            if len(values) != len(names):
                yield {ERROR: f"it has {len(values)} values, and the first row {len(names)}", **row}
            else:
                yield {**dict(zip(names, values, strict=True)), **row}


def _split_lines(text: io.TextIOWrapper, file: str) -> Iterator[list[str]]:
    if suffix_of(file) == ".tsv":  # CC3M and CC12M quote nothing, and a caption may have a quotation mark
        return csv.reader(text, delimiter="\t", quoting=csv.QUOTE_NONE)
    return csv.reader(text)


def _make_names(values: list[str]) -> list[str]:
    names = [f"column{number}" for number in range(len(values))]
    address = next(number for number, value in enumerate(values) if _has_address([value]))
    names[address] = "url"
    if len(names) == 2:
        names[1 - address] = "caption"
    return names


def _has_address(values: list[str]) -> bool:
    return any(value.strip().lower().startswith(("http://", "https://")) for value in values)
