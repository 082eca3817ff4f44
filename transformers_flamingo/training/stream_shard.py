# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Read one process's and one worker's share of a stream, shuffled, and remember the position in it.

The shuffling is an order and not a procedure: **row `i` of a pass comes at `i + shift(i)`**, where `shift(i)` is drawn
uniformly from 0 to `buffer_size` by `(seed, source, pass, reader)`. The rows of a pass are sorted by that key. So

- a row waits until as many rows as its shift were read after it: at most `buffer_size` rows are in memory, on average half;
- the order needs no state. A resumed reader goes back to the oldest row that had not come yet, at most `buffer_size` rows
  before the last that it had read, draws the same keys, and drops the rows whose key is not above the last that came.

A reservoir, from which each new row takes the place of a random one, mixes rows in the same way: one of half the size as well.
But its content depends on all draws before, and a row may stay in it for any time, so it could only be restored with its
rows in the checkpoint, or by reading far back. Shuffling one block of rows after the other could be restored as easily, but no
row would ever leave its block.

The files have a new order in each pass too. All rows of a pass come before the first of the next.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from transformers.utils import logging

from ..data.positions import START, Position
from ..data.row_stream import RowStream


logger = logging.get_logger(__name__)

# Rows to shuffle: fifty megabytes, on average, if each has an image of a hundred kilobytes
DEFAULT_BUFFER_SIZE = 1000
# This many files for each reader are enough to be shared unequally: the passes of two readers differ by a fourth at most
MIN_FILES_PER_READER = 4
# This many bytes in the rows of one reader are worth a warning, before the system ends the process without one
LARGE_BUFFER = 2 * 10**9


@dataclass(frozen=True)
class StreamOrder:
    """
    The order of the rows of a stream, and which of them a reader takes.

    Args:
        seed (`int`): The seed of the data.
        source (`int`): Index of the source in its mixture.
        buffer_size (`int`): Maximum number of rows to shuffle. With 1 only the files are shuffled, and with 0 not even these.
        reader (`int`): Index of the reader: a worker of a process.
        num_readers (`int`): Number of readers.
    """

    seed: int
    source: int
    buffer_size: int
    reader: int = 0
    num_readers: int = 1

    def has_own_files(self, num_files: int) -> bool:
        """Return whether each reader takes files of its own. Otherwise it reads all files and takes its share of their rows."""
        return num_files % self.num_readers == 0 or num_files >= MIN_FILES_PER_READER * self.num_readers

    def files(self, files: list[str], epoch: int) -> list[str]:
        """Return the files that the reader reads in a pass, in order."""
        order = np.arange(len(files))
        if self.buffer_size > 0:
            order = np.random.default_rng([self.seed, self.source, epoch]).permutation(len(files))
        if self.has_own_files(len(files)):
            # Another share in each pass, or a reader with fewer or shorter files would read them more often
            order = order[(self.reader + epoch) % self.num_readers :: self.num_readers]
        return [files[index] for index in order]

    def shifts(self, epoch: int, first: int) -> Iterator[float]:
        """Draw by how many rows each row of a pass comes later, from the row `first` of the reader on."""
        generator = np.random.default_rng([self.seed, self.source, epoch, self.reader])
        generator.bit_generator.advance(first)  # a shift is one draw
        while True:
            yield self.buffer_size * generator.random()


class _Place(NamedTuple):
    """A place between two rows of a pass: a file of the reader, a position there, and the number of rows before it."""

    file: int = 0
    position: Position = START
    number: int = 0


class _Waiting(NamedTuple):
    """A row that was read and has not come yet: its key, its number among those of the reader, and the place before it."""

    key: float
    index: int
    before: _Place
    num_bytes: int
    row: dict[str, Any]


_BEGIN = _Place()


class StreamShard:
    """
    Rows of a stream that one reader takes, pass after pass.

    Args:
        source_name (`str`): Name of the source, for messages.
        number (`int`): Number of the shard among those of this process.
        stream ([`RowStream`]): The rows of all readers.
        order ([`StreamOrder`]): Their order, and which of them this reader takes.
        state (`dict`, *optional*): A `state_dict` to continue from.
    """

    def __init__(
        self, source_name: str, number: int, stream: RowStream, order: StreamOrder, state: dict[str, Any] | None = None
    ):
        self.source_name, self.number, self.stream, self.order = source_name, number, stream, order
        has_own_files = order.has_own_files(len(stream.files))
        # Of the rows that it reads, it takes those with `number % stride == offset`
        self._stride, self._offset = (1, 0) if has_own_files else (order.num_readers, order.reader)
        self._max_empty_passes = len(stream.files) if has_own_files else 1
        self._has_warned = False
        if state is None:
            self._start_pass(0)
            return
        file, (row, byte), number = state["place"]
        last = None if state["last"] is None else tuple(state["last"])
        self._start_pass(state["epoch"], _Place(file, Position(row, byte), number), last)

    def _start_pass(self, epoch: int, place: _Place = _BEGIN, last: tuple[float, int] | None = None) -> None:
        """Begin a pass, at a place in it if rows up to the key `last` have come already."""
        self.epoch, self._last = epoch, last
        self._read_to = place
        self._waiting: list[_Waiting] = []  # a heap
        self._num_bytes = 0
        self._num_read = -(-(place.number - self._offset) // self._stride)
        self._shifts = self.order.shifts(epoch, self._num_read)
        self._rows = self._read(place)

    def _read(self, place: _Place) -> Iterator[tuple[_Place, dict[str, Any]]]:
        """Read the rows that this reader takes from a place in the pass on, each with the place before it."""
        number, start = place.number, place.position
        files = self.order.files(self.stream.files, self.epoch)
        for index in range(place.file, len(files)):
            for row, end in self.stream.read(files[index], start):
                before, start, number = _Place(index, start, number), end, number + 1
                self._read_to = _Place(index, end, number)
                if before.number % self._stride == self._offset:
                    yield before, row
            start = START
            self._read_to = _Place(index + 1, START, number)

    def next_row(self) -> dict[str, Any]:
        """
        Return the next row. The first row of a pass comes after the last one of the pass before.

        Raises:
            ValueError: the shard is empty, or a file cannot be read.
        """
        for _ in range(1 + self._max_empty_passes):
            if (row := self._next()) is not None:
                return row
            self._start_pass(self.epoch + 1)
        raise ValueError(
            f"Data source {self.source_name!r}: there are fewer rows than processes times workers, so one of them does not "
            "have any. Use fewer workers, or do not stream this source."
        )

    def _next(self) -> dict[str, Any] | None:
        """Return the next row of this pass, or `None` at its end."""
        # The key of a row that was not read yet is at least the number of those that were
        while not self._waiting or self._waiting[0].key > self._num_read:
            if (found := self._next_read()) is None:
                break
            key = (self._num_read + next(self._shifts), self._num_read)
            self._num_read += 1
            if self._last is None or key > self._last:
                self._push(key, *found)
        if not self._waiting:
            return None
        came = heapq.heappop(self._waiting)
        self._num_bytes -= came.num_bytes
        self._last = (came.key, came.index)
        return came.row

    def _push(self, key: tuple[float, int], before: _Place, row: dict[str, Any]) -> None:
        num_bytes = _count_bytes(row)
        heapq.heappush(self._waiting, _Waiting(*key, before, num_bytes, row))
        self._num_bytes += num_bytes
        if self._num_bytes > LARGE_BUFFER and not self._has_warned:
            self._has_warned = True
            logger.warning(
                f"Data source {self.source_name!r}: the {len(self._waiting)} rows that this reader (one for each process and worker) "
                f"holds to shuffle them have {self._num_bytes / 1e9:.1f} GB. Lower `shuffle_buffer_size`, now "
                f"{self.order.buffer_size}, if the memory does not suffice."
            )

    def _next_read(self) -> tuple[_Place, dict[str, Any]] | None:
        try:
            return next(self._rows, None)
        # Each file format and file system raises its own types of errors: add the name of the source to all of them
        except Exception as error:
            raise ValueError(f"Data source {self.source_name!r}: {error}") from error

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the stream: the place before the oldest row that has not come yet, and the last key."""
        oldest = min(self._waiting, key=lambda waiting: waiting.index, default=None)
        place = self._read_to if oldest is None else oldest.before
        return {"epoch": self.epoch, "place": place, "last": self._last}


def _count_bytes(value: Any) -> int:
    """Count the bytes of the texts and images in a row."""
    if isinstance(value, str | bytes):
        return len(value)
    if isinstance(value, dict):
        value = value.values()
    elif not isinstance(value, list):
        return 0
    return sum(map(_count_bytes, value))
