# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Rows of files that store columns, `.parquet` and `.arrow`, in the types that `datasets` gives them.

Images and videos stay undecoded, and the number of a class (`ClassLabel`) becomes its name.
"""

import glob
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import ClassLabel, Dataset, DatasetInfo, Features, Image, Value, Video, load_dataset
from datasets.table import InMemoryTable, table_cast

from .columns import FILE, ROW
from .data_files import open_file
from .positions import START, Position


# Rows that are taken from a row group at once: they may hold images
_BATCH_SIZE = 100


def load_columns(file: str, kind: str, name: str) -> Dataset:
    """
    Open a file as a whole.

    Args:
        file (`str`): The file.
        kind (`str`): `"parquet"` or `"arrow"`.
        name (`str`): Part of its key in the cache, which otherwise has only the path and the second of the last change.
    """
    if kind == "arrow" and "://" not in file:  # where it is, as `load_from_disk` does
        features = Dataset.from_file(file).features
        rows = Dataset.from_file(file, info=DatasetInfo(features=undecoded(features)))
    else:
        rows = load_dataset(kind, name=name, data_files=[glob.escape(file)], split="train")
        rows = rows.cast(undecoded(rows.features))
    for column, classes in _classes(rows.features).items():
        names = [_name_of(classes, number) for number in rows[column]]
        rows = rows.remove_columns(column).add_column(column, names, feature=Value("string"))
    return rows


def column_rows(file: str, kind: str, start: Position = START) -> Iterator[tuple[dict[str, Any], Position]]:
    """
    Read the rows of a file, with its path and their numbers, from a position on.

    Args:
        file (`str`): The file.
        kind (`str`): `"parquet"` or `"arrow"`.
        start ([`Position`], *optional*): Where to begin.

    Yields:
        `tuple[dict[str, Any], Position]`: a row, and the position behind it.

    Raises:
        Exception: the file is damaged or cut short, with the type of whatever read it.
    """
    features = None
    for first, batch in (_parquet_batches if kind == "parquet" else _arrow_batches)(file, start.row):
        if features is None:
            features = undecoded(Features.from_arrow_schema(batch.schema))
            classes = _classes(features)
        number = max(first, start.row)
        # As `datasets` casts a table that it streams: a feature may have been stored in another type
        table = table_cast(batch.slice(number - first), features.arrow_schema)
        # Without a fingerprint, all of its bytes would be hashed
        for row in Dataset(InMemoryTable(table), info=DatasetInfo(features=features), fingerprint=file):
            named = {column: _name_of(of_column, row[column]) for column, of_column in classes.items()}
            yield {**row, **named, FILE: file, ROW: number}, Position(number + 1)
            number += 1


def _parquet_batches(file: str, start: int) -> Iterator[tuple[int, pa.Table]]:
    """Yield the rows from the row group with the row `start` on, in parts, each with the number of its first row."""
    with open_file(file) as source:
        parquet = pq.ParquetFile(source)
        first = 0
        for group in range(parquet.num_row_groups):
            size = parquet.metadata.row_group(group).num_rows
            if first + size <= start:
                first += size
                continue
            # No threads: this may be a forked worker
            for batch in parquet.iter_batches(_BATCH_SIZE, row_groups=[group], use_threads=False):
                if first + len(batch) > start:
                    yield first, pa.Table.from_batches([batch], parquet.schema_arrow)
                first += len(batch)


def _arrow_batches(file: str, start: int) -> Iterator[tuple[int, pa.Table]]:
    with ExitStack() as stack:
        # What is mapped into memory is read when it is looked at
        source = stack.enter_context(open_file(file) if "://" in file else pa.memory_map(file))
        try:
            batches = iter(pa.ipc.open_stream(source))
        except pa.ArrowInvalid:  # it is in Arrow's other format
            source.seek(0)
            reader = pa.ipc.open_file(source)
            batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
        first = 0
        for batch in batches:
            if first + len(batch) > start:
                batch.validate(full=True)  # wrong lengths would end the process
                yield first, pa.Table.from_batches([batch])
            first += len(batch)


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
