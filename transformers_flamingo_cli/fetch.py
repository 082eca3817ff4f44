# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo fetch`: the images of a list of URLs, into shards to train on."""

import argparse
import signal
import sys
from typing import TYPE_CHECKING, Any

from .parsing import Parser, add_fields, read_fields


if TYPE_CHECKING:
    from transformers_flamingo.data.fetching import Progress


HELP = "Fetch the images of a list of URLs (LAION, CC3M, COCO, OBELICS, MMC4, ...) into shards to train on."
_EXAMPLES = """\
examples:
  flamingo fetch laion.parquet --output_dir laion --max_shortest_side 512
  flamingo fetch 'obelics/*.parquet' --output_dir pages --dead_images drop_page
  flamingo fetch Train_GCC-training.tsv --output_dir cc3m --max_rows 1000     # for a try
  flamingo fetch laion.parquet --output_dir laion --max_shortest_side 512 --retry_failed

The same command again resumes. DIRECTORY/__fetch__/ has report.json and failed.jsonl.
"""


def add_arguments(parser: Parser) -> None:
    """Add the list, the folder and the options."""
    from transformers_flamingo.data.fetching import FetchOptions

    parser.usage = "%(prog)s [-h] SOURCE --output_dir DIRECTORY [--NAME VALUE ...]"
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EXAMPLES
    parser.add_argument(
        "source",
        metavar="SOURCE",
        help="Files with URLs: .parquet, .jsonl, .json, .csv or .tsv, a folder or a pattern.",
    )
    parser.add_argument(
        *("--output_dir", "--output-dir"),
        required=True,
        metavar="DIRECTORY",
        help="Folder of the shards; the same again resumes.",
    )
    parser.add_argument(
        *("--retry_failed", "--retry-failed"),
        nargs="*",
        metavar="REASON",
        help="Try again what failed in complete shards, for these reasons of the report (default: the temporary ones).",
    )
    parser.add_argument(
        *("--opt_out_directives", "--opt-out-directives"),
        nargs="*",
        metavar="DIRECTIVE",
        help="Values of X-Robots-Tag by which a site opts out (default: noai noimageai noindex noimageindex; without a value: none).",
    )
    add_fields(parser, FetchOptions, exclude=["source", "output_dir", "retry_failed", "opt_out_directives"])


def run(arguments: argparse.Namespace) -> None:
    """Fetch the images, and print what was fetched and what was not."""
    from transformers_flamingo.data import detect_format
    from transformers_flamingo.data.fetching import NOTES, FetchOptions, fetch_data

    options = read_fields(FetchOptions, arguments)
    progress = _make_progress()
    # Also in a job of the background, in which a shell has Ctrl-C ignored
    previous = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        report = fetch_data(options, progress)
    finally:
        progress.close()
        for number, handler in previous.items():
            signal.signal(number, handler)
    print(describe(report))
    folder = options.output_dir
    print(f"{folder}/{NOTES}/: report.json, and failed.jsonl with each image and row that is missing")
    if not report["rows"]["kept"]:
        raise ValueError(f"No row of {options.source!r} has its images, so there is nothing to train on.")
    try:
        print(detect_format(folder).describe())
    except ValueError as error:  # a caption and a class, of which one is chosen: the images are there all the same
        print(error)
    print(f"Look at it with `flamingo check {folder} --text MODEL`, and train with `flamingo train --data {folder}`.")


def _interrupt(number: int, frame: Any) -> None:
    from transformers_flamingo.data.fetching import FetchInterrupted

    name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
    raise FetchInterrupted(f"stopped by {name}. Run the same command again to go on.", number)


def describe(report: dict[str, Any]) -> str:
    """Return the table of a report."""
    from transformers_flamingo.data.fetching import DROPPED, REASONS
    from transformers_flamingo.utils.names import count_of

    rows, images = report["rows"], report["images"]
    lines = [("images", images["named"], ""), ("  fetched", images["fetched"], _size(images["bytes"]))]
    lines += [(f"  {name}", number, REASONS[name]) for name, number in images["failed"].items()]
    lines += [("rows", rows["read"], ""), ("  kept", rows["kept"], f"in {count_of(report['shards'], 'shard')}")]
    lines += [(f"  {name}", number, DROPPED[name]) for name, number in rows["dropped"].items()]
    totals = {"images": images["named"], "rows": rows["read"]}
    text, total = [], 0
    for name, number, words in lines:
        total = totals.get(name, total)
        share = "" if name in totals else f"{number / max(total, 1):7.1%}"
        text.append(f"{name:<18} {number:>12,} {share:>7}  {words}".rstrip())
    return "\n".join(text)


def _size(num_bytes: int) -> str:
    unit, name = next(
        (unit, name) for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")) if num_bytes >= unit or unit == 1e3
    )
    return f"{num_bytes / unit:,.1f} {name}"


def _make_progress() -> "Progress":
    import threading

    from transformers.utils import logging

    from transformers_flamingo.data.fetching import Progress, ShardRecord

    class _Shown(Progress):
        """A bar on a terminal, and a line for each shard elsewhere."""

        def __init__(self):
            self.bar, self.lock = None, threading.Lock()

        def start(self, num_rows: int, num_done: int, layout: str) -> None:
            """Say what is fetched."""
            resumed = f", {num_done:,} of them done before" if num_done else ""
            print(f"{num_rows:,} rows ({layout}){resumed}", flush=True)
            self.bar = logging.tqdm(total=num_rows, initial=num_done, unit=" rows", smoothing=0.05)

        def row_done(self) -> None:
            """Move the bar."""
            with self.lock:
                self.bar.update()

        def shard_done(self, record: ShardRecord) -> None:
            """Write a line, if there is no bar."""
            if not sys.stderr.isatty():
                print(
                    f"shard {record.shard:05}: {record.rows_kept:,} of {record.rows_read:,} rows, {record.images_fetched:,} of "
                    f"{record.images_named:,} images",
                    flush=True,
                )

        def close(self) -> None:
            """Leave the bar as it is."""
            if self.bar is not None:
                self.bar.close()

    return _Shown()
