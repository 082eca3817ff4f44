# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Read one process's and one worker's shard of a stream, and remember the position in it."""

from collections.abc import Iterator
from typing import Any

from datasets import IterableDataset


class StreamShard:
    """
    Rows of a stream that one reader takes, pass after pass.

    Args:
        source_name (`str`): Name of the source, for messages.
        number (`int`): Number of the shard among those of this process.
        rows (`IterableDataset`): The rows of the shard.
        state (`dict`, *optional*): A `state_dict` to continue from.
    """

    def __init__(self, source_name: str, number: int, rows: IterableDataset, state: dict[str, Any] | None):
        self.source_name, self.number, self.rows = source_name, number, rows
        self.epoch = 0 if state is None else state["epoch"]
        self.rows.set_epoch(self.epoch)
        if state is not None:
            self.rows.load_state_dict(state)
        self.iterator = self._iterate()

    def _iterate(self) -> Iterator[dict[str, Any]]:
        """Read one pass, or the rest of one."""
        # `iter(...)` and not a `for` over the rows, which would split the shard among the workers once more
        for batch in self.rows.iter(batch_size=1):
            yield {name: values[0] for name, values in batch.items()}

    def next_row(self) -> dict[str, Any]:
        """
        Return the next row. The first row comes after the last.

        Raises:
            ValueError: the shard is empty, or a file cannot be read.
        """
        row = self._next()
        if row is None:
            # From the second pass on, `datasets` shuffles the order of the files by the number of the pass
            self.epoch += 1
            self.rows.set_epoch(self.epoch)
            self.iterator = self._iterate()
            row = self._next()
        if row is None:
            raise ValueError(
                f"Data source {self.source_name!r}: there are fewer rows than processes times workers, so one of them does not "
                "have any. Use fewer workers, or do not stream this source."
            )
        return row

    def _next(self) -> dict[str, Any] | None:
        """Return the next row of this pass, or `None` at its end."""
        try:
            return next(self.iterator, None)
        # Each file format and file system raises its own types of errors: add the name of the source to all of them
        except Exception as error:
            raise ValueError(f"Data source {self.source_name!r}: {error}") from error

    def state_dict(self) -> dict[str, Any]:
        """Return the position in the stream, as `datasets` describes it."""
        return self.rows.state_dict()
