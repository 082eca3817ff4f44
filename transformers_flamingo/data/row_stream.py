# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Rows that are read when they are needed, from any position of their files on."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from datasets import IterableDataset
from fsspec.core import url_to_fs

from .positions import START, Position
from .rows import read_file


class RowFilter(NamedTuple):
    """
    Tell which rows of the files of a format belong to the dataset.

    Args:
        keep (`Callable`): Whether a row does.
        reason (`str`, *optional*): Why other rows do not, for a warning, or an error if there is no row left. `None` if nobody
            needs to know.
    """

    keep: Callable[[dict[str, Any]], bool]
    reason: str | None = None


@dataclass(frozen=True)
class RowStream:
    """
    Rows of files, as [`~data.Reader.open_stream`] opens them.

    Args:
        files (`list[str]`): The files, in order.
        members (`dict`, *optional*): As in [`rows.read_file`].
        make_records (`Callable`, *optional*): As there.
        row_filter ([`RowFilter`], *optional*): Which rows to keep. All by default.
    """

    files: list[str]
    members: dict[str, Any] | None = None
    make_records: Callable[[Any, str], Iterable[Any]] | None = None
    row_filter: RowFilter | None = None

    def read(self, file: str, start: Position = START) -> Iterator[tuple[dict[str, Any], Position]]:
        """
        Read the rows of a file from a position on.

        Args:
            file (`str`): One of `files`.
            start ([`Position`], *optional*): Where to begin.

        Yields:
            `tuple[dict[str, Any], Position]`: a row, and the position behind it.

        Raises:
            ValueError: the file cannot be read to its end.
        """
        for row, end in read_file(file, self.members, make_records=self.make_records, start=start):
            if self.row_filter is None or self.row_filter.keep(row):
                yield row, end

    def _read_all(self, files: list[str]) -> Iterator[dict[str, Any]]:
        for file in files:
            for row, _ in self.read(file):
                yield row

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self._read_all(self.files)

    def to_iterable_dataset(self) -> IterableDataset:
        """Return the rows as `datasets` knows streams. Each file is a shard."""
        return IterableDataset.from_generator(self._read_all, gen_kwargs={"files": self.files})

    def describe_files(self) -> dict[str, Any]:
        """
        Return the number of the files, their size, and a digest of their names and sizes.

        It changes if a file is added, removed, renamed or written anew with another size, and not if all files are moved.
        """
        fs = url_to_fs(self.files[0])[0]
        paths = [url_to_fs(file)[1] for file in self.files]
        folder = os.path.commonpath(paths) if len(paths) > 1 else os.path.dirname(paths[0])
        try:
            sizes = fs.sizes(paths)
        # A server may give a file without telling its size, and each file system has its own errors
        except Exception:
            sizes = [None] * len(paths)
        listed = json.dumps([[path.removeprefix(folder) for path in paths], sizes])
        known = [size for size in sizes if size is not None]
        return {
            "files": len(paths),
            "bytes": sum(known) if known else None,
            "digest": hashlib.sha256(listed.encode("utf-8", "surrogateescape")).hexdigest()[:16],
        }
