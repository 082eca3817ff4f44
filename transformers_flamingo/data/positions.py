# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Positions in data files, from which reading resumes without what is before them, where the file allows it.

| file | how reading resumes |
|---|---|
| `.jsonl`, `.csv`, `.tsv`, `.tar` | at the byte where the next row begins |
| `.parquet` | at the row group of the next row |
| `.arrow` on a disk | at the row: the file is mapped into memory |
| the same compressed, `.json`, `.arrow` elsewhere, any file of a server that cannot seek | at the beginning: the rows before are read, but nothing is made of them |
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

from .data_files import is_compressed, open_file


class Position(NamedTuple):
    """
    A place between two rows of a file.

    Args:
        row (`int`, *optional*, defaults to 0): Number of rows before it. In a `.jsonl`, empty lines count.
        byte (`int`, *optional*): The byte where it is, in a file that can be read from there.
    """

    row: int = 0
    byte: int | None = None


#: The beginning of a file.
START = Position()


@contextmanager
def open_at(file: str, start: Position) -> Iterator[tuple[BinaryIO, Position]]:
    """
    Open a file for reading, decompressed, at a position if it can seek, and otherwise at its beginning.

    Returns:
        `tuple[BinaryIO, Position]`: the file, and where it is. In a compressed file, it is at no byte.
    """
    with open_file(file) as source:
        begin = START if is_compressed(file) else Position(0, 0)
        if begin.byte is not None and start.byte:
            try:
                source.seek(start.byte)
                source.read(1)  # a server that only sends whole files says so here
                source.seek(start.byte)
                begin = start
            except (OSError, ValueError):
                source.seek(0)
        yield source, begin
