# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
The folder that images are fetched into.

    00000.parquet, 00001.parquet, ...     the rows with their images: what is trained on
    __fetch__/options.json                the list and the options, which a resumed run must have again
    __fetch__/00000.json, ...             of each complete shard: what was counted, and what failed
    __fetch__/images/00002/               what is fetched of a shard that is not complete
    __fetch__/report.json, failed.jsonl   of all complete shards together

Readers of data pass over folders whose names begin with `__`. A shard is complete when its record is there, which is written last, so a
process may be killed at any moment.
"""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features

from ...saving_flamingo import sync_entries, write_file, write_json
from .failures import DROPPED, REASONS
from .layouts import Layout
from .store import Store


NOTES = "__fetch__"
"""The folder of all that is not data."""

# A row group is decoded at once: at most this many rows, or bytes of images
_GROUP_ROWS, _GROUP_BYTES = 100, 2**26


@dataclass
class ShardRecord:
    """
    Hold what was counted in a shard. An image that is named twice counts twice.

    Args:
        shard (`int`): Its number.
        rows_read, rows_kept (`int`): Rows of the source, and of the output.
        dropped (`dict[str, int]`): Rows that are not in the output, by the keys of `DROPPED`.
        images_named, images_fetched, images_bytes (`int`): Images of the rows, those that were fetched, and their size as they are stored.
        failed (`list[dict]`): Each image that was not: `url`, `digest`, `reason`, `detail`, `file`, `row`.
        bad_rows (`list[dict]`): Each row that names no image, or has no text or an error: `reason`, `detail`, `file`, `row`.
    """

    shard: int
    rows_read: int = 0
    rows_kept: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    images_named: int = 0
    images_fetched: int = 0
    images_bytes: int = 0
    failed: list[dict[str, Any]] = field(default_factory=list)
    bad_rows: list[dict[str, Any]] = field(default_factory=list)

    def drop(self, reason: str) -> None:
        """Count a row that is not in the output."""
        self.dropped[reason] = self.dropped.get(reason, 0) + 1


class ShardFolder:
    """
    A folder of shards, with its notes.

    Args:
        path (`str`): The folder.
    """

    def __init__(self, path: str):
        self.path = Path(path)
        self.notes = self.path / NOTES

    def shard(self, number: int) -> Path:
        """Return the path of a shard."""
        return self.path / f"{number:05}.parquet"

    def store(self, number: int) -> Store:
        """Return the place of what is fetched of a shard."""
        return Store(self.notes / "images" / f"{number:05}")

    @property
    def has_options(self) -> bool:
        """Tell whether a run has begun here."""
        return (self.notes / "options.json").exists()

    def open(self, options: dict[str, Any]) -> dict[str, Any]:
        """
        Write the options of a new folder, or compare them with those of an earlier run.

        Args:
            options (`dict`): All that the content of the shards depends on.

        Returns:
            `dict[str, Any]`: the options of the earlier run, or `options`.

        Raises:
            ValueError: an option is another one, or the folder has files that are not of `flamingo fetch`.
        """
        file = self.notes / "options.json"
        if self.has_options:
            saved = json.loads(file.read_text(encoding="utf-8"))
            wrong = [name for name, value in options.items() if saved.get(name) != value]
            if "files" in wrong:
                raise ValueError(
                    f"{str(self.path)!r} was begun with another list: the files have other names, sizes or content. Its shards would not fit "
                    "together. Use the same list, or another `--output_dir`."
                )
            if wrong:
                shown = "; ".join(f"`{name}` was {saved.get(name)!r}, and is {options[name]!r}" for name in wrong)
                raise ValueError(
                    f"{str(self.path)!r} was begun with other options: {shown:.600}. Its shards would not fit together. Use the same, or another "
                    "`--output_dir`."
                )
            return saved
        if self.path.exists() and any(path.name != NOTES for path in self.path.iterdir()):
            raise ValueError(f"{str(self.path)!r} has files of another origin. Give an empty `--output_dir`.")
        self.notes.mkdir(parents=True, exist_ok=True)
        write_json(file, options)
        return options

    def add_options(self, **values: Any) -> dict[str, Any]:
        """Add what was found out about the list, and return all options."""
        file = self.notes / "options.json"
        saved = {**json.loads(file.read_text(encoding="utf-8")), **values}
        write_json(file, saved)
        return saved

    def record(self, number: int) -> ShardRecord:
        """Return the record of a complete shard."""
        return ShardRecord(**json.loads((self.notes / f"{number:05}.json").read_text(encoding="utf-8")))

    def records(self) -> Iterator[ShardRecord]:
        """Yield the records of all complete shards."""
        for number in sorted(int(file.stem) for file in self.notes.glob("[0-9]*.json")):
            yield self.record(number)

    def publish(self, record: ShardRecord, partial: Path | None) -> None:
        """Give a shard its name, and declare it complete. `partial` is `None` if no row is left."""
        if partial is None:
            self.shard(record.shard).unlink(missing_ok=True)
        else:
            os.replace(partial, self.shard(record.shard))
            sync_entries(self.path)  # or after a power cut the record could be there without the shard
        write_json(self.notes / f"{record.shard:05}.json", asdict(record))
        shutil.rmtree(self.store(record.shard).folder, ignore_errors=True)

    def clean(self) -> None:
        """Remove what a killed run left behind of files that it was writing."""
        for file in self.path.glob(".*.partial"):
            file.unlink()

    def finish(self) -> None:
        """Remove the place of what is fetched, when all shards are complete."""
        shutil.rmtree(self.notes / "images", ignore_errors=True)

    def rows(self, number: int) -> Iterator[dict[str, Any]]:
        """Yield the rows of a complete shard."""
        if self.shard(number).exists():
            for batch in pq.ParquetFile(self.shard(number)).iter_batches(_GROUP_ROWS):
                yield from batch.to_pylist()

    def summarize(self, num_rows: int, source: str, layout: str) -> dict[str, Any]:
        """Write `report.json` and `failed.jsonl`, and return the report."""
        rows = {"in_source": num_rows, "read": 0, "kept": 0}
        images = {"named": 0, "fetched": 0, "bytes": 0}
        dropped, failed, num_shards = Counter(), Counter(), 0
        with write_file(self.notes / "failed.jsonl") as partial, open(partial, "w", encoding="utf-8") as file:
            for record in self.records():
                num_shards += self.shard(record.shard).exists()
                for name in ("read", "kept"):
                    rows[name] += getattr(record, f"rows_{name}")
                for name in images:
                    images[name] += getattr(record, f"images_{name}")
                dropped.update(record.dropped)
                failed.update(entry["reason"] for entry in record.failed)
                for entry in (*record.failed, *record.bad_rows):
                    file.write(json.dumps({"shard": record.shard, **entry}, ensure_ascii=False) + "\n")
        report = {
            "source": source,
            "layout": layout,
            "is_complete": rows["read"] == num_rows,
            "shards": num_shards,
            "rows": {**rows, "dropped": {name: dropped[name] for name in DROPPED if dropped[name]}},
            "images": {**images, "failed": {name: failed[name] for name in REASONS if failed[name]}},
        }
        write_json(self.notes / "report.json", report)
        return report


class ShardWriter:
    """
    Writer of the rows of a shard, in groups that fit the memory.

    Args:
        path (`Path`): Where it will be. Until then, the file has the name `partial`.
        layout ([`Layout`]): Says the types of the columns.
    """

    def __init__(self, path: Path, layout: Layout):
        self.partial = path.with_name(f".{path.name}.partial")
        self._features: Features = layout.output_features()
        self._writer: pq.ParquetWriter | None = None
        self._rows: list[dict[str, Any]] = []
        self._bytes = 0

    def write(self, row: dict[str, Any], num_bytes: int) -> None:
        """Add a row with this many bytes of images."""
        self._rows.append(row)
        self._bytes += num_bytes
        if len(self._rows) >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self._flush()

    def close(self) -> Path | None:
        """Finish the file, and return its path, or `None` if there was no row."""
        self._flush()
        if self._writer is None:
            return None
        self._writer.close()
        with open(self.partial, "rb") as file:
            os.fsync(file.fileno())
        return self.partial

    def abort(self) -> None:
        """Remove what was written."""
        if self._writer is not None:
            self._writer.close()
        self.partial.unlink(missing_ok=True)

    def _flush(self) -> None:
        if not self._rows:
            return
        try:
            table = pa.Table.from_pylist(self._rows, schema=self._features.arrow_schema)
        except pa.ArrowException as error:
            raise ValueError(
                f"A row of the list has a value that its column cannot hold ({error}). All its files must have the same types of columns: "
                "fetch those with other types into another `--output_dir`."
            ) from error
        if self._writer is None:
            # Images are compressed already
            self._writer = pq.ParquetWriter(self.partial, table.schema, compression="snappy", use_dictionary=False)
        self._writer.write_table(table)
        self._rows, self._bytes = [], 0
