# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Fetch the images of a list of URLs into shards to train on: every shard once, whatever happens in between."""

import hashlib
import itertools
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import fsspec
from datasets import Features
from fsspec.core import url_to_fs

from ...utils.folders import lock_folder
from .choosing import NUM_ROWS, choose_layout
from .client import Client
from .downloads import Downloads
from .failures import TEMPORARY, FetchError
from .images import check_digest, prepare_image
from .layouts import BadRowError, Layout, Page
from .options import FetchOptions
from .shards import ShardFolder, ShardRecord, ShardWriter
from .store import Item, Store
from .url_lists import UrlList


# Shards that are fetched at the same time: while one waits for its last images, the next one has work for the other threads
_SHARDS_AT_ONCE = 2
_DIGEST_BYTES = 2**16
_LOCK = ".lock"


class FetchInterrupted(KeyboardInterrupt):
    """
    The fetching was stopped by a signal.

    Args:
        message (`str`): What is complete, and how to resume.
        signal_number (`int`, *optional*, defaults to `SIGINT`): The signal.
    """

    def __init__(self, message: str, signal_number: int = signal.SIGINT):
        super().__init__(message)
        self.signal_number = signal_number


class Progress:
    """Hear what a run does. A subclass shows it."""

    def start(self, num_rows: int, num_done: int, layout: str) -> None:
        """Begin with this many rows, of which some were done by an earlier run."""

    def row_done(self) -> None:
        """Count a row whose images were all fetched or failed. Any thread may call it."""

    def shard_done(self, record: ShardRecord) -> None:
        """Take note of a complete shard."""


@dataclass
class _Shard:
    """Hold a shard while its images are fetched."""

    record: ShardRecord
    pages: list[Page]
    futures: dict[Item, "Future[FetchError | None]"]
    store: Store


def fetch_data(options: FetchOptions, progress: Progress | None = None) -> dict[str, Any]:
    """
    Fetch the images of a list of URLs, and write shards with the rows and their images, in the order of the list.

    A second call with the same options resumes where the first one ended, or does nothing if it was complete.

    Args:
        options ([`FetchOptions`]): The list, the folder, and how to fetch.
        progress ([`Progress`], *optional*): Is told of what happens.

    Returns:
        `dict[str, Any]`: the report, which is also in `__fetch__/report.json` of the folder.

    Raises:
        FileNotFoundError, ValueError: the list cannot be read, or the folder was begun with other options; an image is dead, with
            `dead_images="error"`.
        ConnectionError: nothing can be reached.
        FetchInterrupted: Ctrl-C was pressed.
    """
    progress = progress or Progress()
    folder = ShardFolder(options.output_dir)
    source = UrlList(options.source, options.split)
    with _only_process(folder):
        folder.clean()
        first = list(itertools.islice(source.read(), NUM_ROWS))
        layout = choose_layout(
            source,
            first,
            url_column=options.url_column,
            text_column=options.text_column,
            hash_column=options.hash_column,
            min_similarity=options.min_similarity,
        )
        saved = folder.open({**options.content(), "files": [_identify(file) for file in source.files]})
        if "num_rows" not in saved:
            num_rows = source.count() if options.max_rows is None else min(source.count(), options.max_rows)
            saved = folder.add_options(num_rows=num_rows, features=layout.features.to_dict())
        layout.features = Features.from_dict(saved["features"])
        run = _Run(options, folder, source, layout, saved["num_rows"], progress)
        try:
            run.fetch()
        finally:
            report = folder.summarize(saved["num_rows"], options.source, layout.name)
    return report


class _Run:
    """Run [`fetch_data`] once."""

    def __init__(
        self,
        options: FetchOptions,
        folder: ShardFolder,
        source: UrlList,
        layout: Layout,
        num_rows: int,
        progress: Progress,
    ):
        self.options, self.folder, self.source, self.layout = options, folder, source, layout
        self.num_rows, self.progress = num_rows, progress
        self.cache = None if options.cache_dir is None else Store(options.cache_path)
        self.client = Client(
            options.timeout,
            options.max_bytes,
            options.agent,
            options.opt_out_directives,
            options.allow_private_hosts,
        )

    def fetch(self) -> None:
        """Fetch all shards that are not complete, and those that are tried again."""
        done = {record.shard: record.rows_read for record in self.folder.records()}
        again = self._choose_again()
        size = self.options.rows_per_shard
        shards = range(-(-self.num_rows // size))
        wanted = {number for number in shards if number not in done or number in again}
        num_done = sum(rows_read for number, rows_read in done.items() if number not in again)
        self.progress.start(self.num_rows, num_done, self.layout.name)
        if not wanted:
            self.folder.finish()
            return
        downloads = Downloads(
            self.options.concurrency, self.options.max_per_host, self.options.retries, is_first=not done
        )
        pending: deque[_Shard] = deque()
        try:
            first = min(wanted)
            rows = itertools.islice(self.source.read(first * size), self.num_rows - first * size)
            for number in shards[first:]:
                of_shard = itertools.islice(rows, size)
                if number not in wanted:
                    deque(of_shard, maxlen=0)
                    continue
                pending.append(self._start(number, list(of_shard), downloads, number in again))
                if len(pending) == _SHARDS_AT_ONCE:
                    self._finish(pending.popleft())
            while pending:
                self._finish(pending.popleft())
            self.folder.finish()
        except KeyboardInterrupt as error:
            complete = sum(1 for _ in self.folder.records())
            number = getattr(error, "signal_number", signal.SIGINT)
            name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
            raise FetchInterrupted(
                f"stopped by {name}. {complete} of {len(shards)} shards are complete, and what was fetched of the next ones is kept. Run the "
                "same command again to go on.",
                number,
            ) from error
        finally:
            downloads.stop()

    def _choose_again(self) -> set[int]:
        reasons = self._reasons()
        if not reasons:
            return set()
        records = self.folder.records()
        return {record.shard for record in records if any(entry["reason"] in reasons for entry in record.failed)}

    def _reasons(self) -> tuple[str, ...]:
        if self.options.retry_failed is None:
            return ()
        return tuple(self.options.retry_failed) or TEMPORARY

    def _start(self, number: int, rows: list[dict[str, Any]], downloads: Downloads, is_again: bool) -> _Shard:
        """Read the rows of a shard, and begin to fetch its images."""
        record = ShardRecord(number, rows_read=len(rows))
        pages: list[Page] = []
        for row in rows:
            try:
                pages.append(self.layout.read(row))
            except BadRowError as error:
                record.drop(error.reason)
                record.bad_rows.append(
                    {"reason": error.reason, "detail": error.detail, "file": row["__file__"], "row": row["__row__"]}
                )
                self.progress.row_done()
        shard = _Shard(record, pages, {}, self.folder.store(number))
        if is_again:
            self._take_over(shard, self.folder.record(number))
        for item in dict.fromkeys(item for page in pages for item in page.items):
            shard.futures[item] = downloads.submit(item.url, partial(self._fetch_into, shard.store, item))
        for page in pages:
            _call_when_done([shard.futures[item] for item in page.items], self.progress.row_done)
        return shard

    def _take_over(self, shard: _Shard, earlier: ShardRecord) -> None:
        """Put what an earlier run fetched of a shard, and the failures that are not tried again, where this one looks first."""
        reasons, failed = self._reasons(), set()
        for entry in earlier.failed:
            item = Item(entry["url"], entry["digest"])
            failed.add(item)
            if entry["reason"] not in reasons:
                shard.store.write_failure(item, FetchError(entry["reason"], entry["detail"]))
        by_url: dict[str, list[Item]] = {}
        for item in dict.fromkeys(item for page in shard.pages for item in page.items):
            if item not in failed:
                by_url.setdefault(item.url, []).append(item)
        for row in self.folder.rows(shard.record.shard):
            for url, data in self.layout.images_of(row):
                for item in by_url.pop(url, ()):
                    shard.store.write(item, data)

    def _fetch_into(self, store: Store, item: Item) -> None:
        """Fetch an image into the store of its shard, unless it is there or in the cache."""
        if store.read(item) is not None:
            return
        failure = store.read_failure(item)
        if failure is not None:
            failure.can_retry = False
            raise failure
        try:
            data = self.cache.read(Item(item.url)) if self.cache else None
            if data is None:
                data = self.client.fetch(item.url)
                if self.cache:
                    self.cache.write(Item(item.url), data)
            if item.digest is not None:
                check_digest(data, item.digest)
            image = prepare_image(data, self.options.max_shortest_side, self.options.min_shortest_side)
        except FetchError as error:
            if error.reason not in TEMPORARY:
                store.write_failure(item, error)
            raise
        store.write(item, image)

    def _finish(self, shard: _Shard) -> None:
        """Wait for the images of a shard, and write it."""
        record, writer = shard.record, ShardWriter(self.folder.shard(shard.record.shard), self.layout)
        try:
            for page in shard.pages:
                self._write_page(shard, page, writer)
            file = writer.close()
        except BaseException:
            writer.abort()
            raise
        self.folder.publish(record, file)
        self.progress.shard_done(record)

    def _write_page(self, shard: _Shard, page: Page, writer: ShardWriter) -> None:
        record, images = shard.record, []
        for item in page.items:
            error = shard.futures[item].result()
            if error is None:
                images.append(shard.store.require(item))
                continue
            images.append(None)
            if self.options.dead_images == "error":
                raise ValueError(
                    f"{page.file}, row {page.number}: {item.url!r} was not fetched ({error}). Remove the row, or drop such images or "
                    "their pages: `--dead_images drop_image` or `drop_page`."
                )
            place = {"url": item.url, "digest": item.digest, "file": page.file, "row": page.number}
            record.failed.append({**place, **error.record()})
        record.images_named += len(images)
        found = [image for image in images if image is not None]
        record.images_fetched += len(found)
        if not found or (len(found) < len(images) and self.options.dead_images == "drop_page"):
            record.drop("dead_image" if found or self.layout.name == "pairs" else "no_image_left")
            return
        num_bytes = sum(map(len, found))
        writer.write(self.layout.fill(page, images), num_bytes)
        record.rows_kept += 1
        record.images_bytes += num_bytes


def _call_when_done(futures: list[Future], function: Callable[[], None]) -> None:
    """Call a function once, when all futures have their results."""
    left = [len(futures)]
    lock = threading.Lock()

    def count(_: Future) -> None:
        with lock:
            left[0] -= 1
            is_last = left[0] == 0
        if is_last:
            function()

    for future in futures:
        future.add_done_callback(count)


@contextmanager
def _only_process(folder: ShardFolder) -> Iterator[None]:
    """Let no second process write into the folder. Of a run that is refused, nothing stays."""
    is_new = [path for path in (folder.notes, folder.path) if not path.exists()]
    message = f"Another `flamingo fetch` is writing {str(folder.path)!r}. Wait for it, or give another `--output_dir`."
    try:
        with lock_folder(folder.notes, _LOCK, message=message):
            yield
    finally:
        if is_new and not folder.has_options:
            (folder.notes / _LOCK).unlink(missing_ok=True)
            for path in is_new:
                with suppress(OSError):
                    path.rmdir()


def _identify(file: str) -> list[Any]:
    """Return what tells a file from another one: its name, its size, and a hash of its beginning and end."""
    fs, path = url_to_fs(file)
    size = fs.size(path) or 0  # not all servers say it
    with fsspec.open(file, "rb") as source:
        data = source.read(_DIGEST_BYTES)
        if size > _DIGEST_BYTES:
            source.seek(max(_DIGEST_BYTES, size - _DIGEST_BYTES))
            data += source.read(_DIGEST_BYTES)
    return [os.path.basename(path), size, hashlib.sha256(data).hexdigest()[:32]]
