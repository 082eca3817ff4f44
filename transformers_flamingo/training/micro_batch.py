# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Make the micro-batches of one source of a mixture, and replace the rows that cannot be trained on."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset

from ..data import BadSampleError, Reader, row_location
from ..data.data_collator import FlamingoDataCollator
from ..processing_flamingo import FlamingoProcessor
from .arguments import MixtureStrategy
from .data_source import DataSource
from .stream_shard import StreamShard


# This many consecutive bad rows means that the source itself is misconfigured
MAX_CONSECUTIVE_BAD_ROWS = 1000


@dataclass(frozen=True)
class MixtureSettings:
    """
    Settings of a run that decide which rows a process gets, and in which form.

    Args:
        seed (`int`, *optional*): Seed of all random choices.
        strategy (`str`, *optional*): `mixture_strategy` of [`FlamingoTrainingArguments`].
        gradient_accumulation_steps (`int`, *optional*): Micro-batches of one source per optimizer step.
        process (`int`, *optional*): Index of this process.
        num_processes (`int`, *optional*): Number of processes.
        skip_bad_samples, packing (`bool`, *optional*): See [`FlamingoTrainingArguments`].
        start (`int`, *optional*): Number of the first micro-batch.
        streams (`dict`, *optional*): For each streamed source the states of its shards, as batches carried them.
    """

    seed: int = 0
    strategy: MixtureStrategy = "accumulate"
    gradient_accumulation_steps: int = 1
    process: int = 0
    num_processes: int = 1
    skip_bad_samples: bool = False
    packing: bool = False
    start: int = 0
    streams: dict[int, dict[int, dict[str, Any]]] = field(default_factory=dict)


class SkippedRow(NamedTuple):
    """
    A row that was replaced because it cannot be trained on.

    Args:
        row (`int`, *optional*): Its number in a source that is not streamed. A stream does not number its rows.
        is_new (`bool`): Whether it can be a row that was not skipped before: in a stream, in its first pass.
        message (`str`): Where it is, and what is wrong.
    """

    row: int | None
    is_new: bool
    message: str


class MixtureBatch(NamedTuple):
    """
    A micro-batch.

    Args:
        source (`int`): Index of its source.
        inputs (`dict`): Its rows, collated by [`FlamingoDataCollator`].
        skipped (`list[SkippedRow]`): The rows that were replaced because they cannot be trained on.
        stream (`tuple`, *optional*): For a streamed source, the number of the shard and its state after this batch.
    """

    source: int
    inputs: dict[str, Any]
    skipped: list[SkippedRow]
    stream: tuple[int, dict[str, Any]] | None


class MicroBatchBuilder:
    """
    Makes the micro-batches of one source in one reading process.

    Args:
        index (`int`): Index of the source in the mixture.
        source ([`DataSource`]): The source.
        reader ([`Reader`]): Turns its rows into documents.
        rows (`Dataset` or [`StreamShard`]): Its rows.
        processor ([`FlamingoProcessor`]): Turns documents into tensors.
        settings ([`MixtureSettings`]): The settings of the run.
    """

    def __init__(
        self,
        index: int,
        source: DataSource,
        reader: Reader,
        rows: Dataset | StreamShard,
        processor: FlamingoProcessor,
        settings: MixtureSettings,
    ):
        self.index, self.source, self.reader, self.rows, self.settings = index, source, reader, rows, settings
        self.processor = processor
        self.collator = FlamingoDataCollator(
            processor, max_length=source.max_length if settings.packing else None, packing=settings.packing
        )
        self._permutation: tuple[int, np.ndarray] | None = None  # the epoch and its order of the rows

    def build(self, number: int) -> MixtureBatch:
        """
        Make a micro-batch.

        Args:
            number (`int`): Index of the micro-batch within the source.

        Raises:
            BadSampleError: a row cannot be trained on, and bad rows are not to be skipped, or too many are bad.
            RuntimeError: the rows can be trained on, but not in one batch.
        """
        settings, batch_size = self.settings, self.source.batch_size
        first = (number * settings.num_processes + settings.process) * batch_size
        slots = range(first, first + batch_size)
        candidates = self._candidates(slots)
        skipped: list[list[SkippedRow]] = [[] for _ in slots]  # for each slot, its bad rows
        samples = [self._make_sample(*args) for args in zip(slots, candidates, skipped, strict=True)]
        while True:
            try:
                inputs = self.collator([sample for sample, *_ in samples])
                break
            # Each image processor has its own types of errors for the images that it does not take
            except Exception as error:
                errors = self._collate_alone(samples)
                if not errors:
                    raise RuntimeError(
                        f"Data source {self.source.name!r}: these rows cannot be collated into one batch "
                        f"({type(error).__name__}: {error}): {'; '.join(location for _, location, _ in samples)}."
                    ) from error
            for position, cause in errors.items():
                _, location, number_of_row = samples[position]
                message = f"{location}: it cannot be collated ({cause})"
                self._skip_or_raise(message, number_of_row, skipped[position], cause)
                samples[position] = self._make_sample(slots[position], candidates[position], skipped[position])
        shard = self.rows if isinstance(self.rows, StreamShard) else None
        stream = None if shard is None else (shard.number, shard.state_dict())
        return MixtureBatch(self.index, inputs, list(itertools.chain.from_iterable(skipped)), stream)

    def permuted_index(self, slot: int) -> int:
        """Return the row of a slot, in a source that is not streamed: each epoch has its own permutation of the rows."""
        epoch, position = divmod(slot, len(self.rows))
        if self._permutation is None or self._permutation[0] != epoch:
            rng = np.random.default_rng([self.settings.seed, self.index, epoch])
            self._permutation = (epoch, rng.permutation(len(self.rows)))
        return int(self._permutation[1][position])

    def _candidates(self, slots: range) -> list[Iterator[tuple[int | None, dict[str, Any]]]]:
        """Return the rows to try for each slot with their numbers. The first one is bad only seldom. They never end."""
        if isinstance(self.rows, StreamShard):
            return [((None, row) for row in iter(self.rows.next_row, None)) for _ in slots]
        # All first rows at once: `datasets` takes as long over one row as over a batch, most of all over cached features
        indices = [self.permuted_index(slot) for slot in slots]
        rows = zip(indices, self.rows.__getitems__(indices), strict=True)
        return [itertools.chain([row], self._replacements(slot)) for row, slot in zip(rows, slots, strict=True)]

    def _replacements(self, slot: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Draw other rows for a slot whose row is bad. They depend on nothing but the slot, so there is no state to save."""
        for attempt in itertools.count(1):
            rng = np.random.default_rng([self.settings.seed, self.index, slot, attempt])
            index = int(rng.integers(len(self.rows)))
            yield index, self.rows[index]

    def _make_sample(
        self, slot: int, candidates: Iterator[tuple[int | None, dict[str, Any]]], skipped: list[SkippedRow]
    ) -> tuple[dict[str, Any], str, int | None]:
        """
        Render the first candidate for a slot that can be trained on.

        Args:
            slot (`int`): The slot, for random choices.
            candidates (`Iterator[tuple]`): Rows to try, with their numbers.
            skipped (`list[SkippedRow]`): Gets each row before that candidate.

        Returns:
            `tuple`: The sample, and the location and the number of its row.
        """
        while True:
            number, row = next(candidates)
            location = row_location(row)
            try:
                rng = np.random.default_rng([self.settings.seed, self.index, slot])
                sample = self.source.make_sample(self.reader.read(row), self.processor, rng, location)
                return sample, location, number
            except BadSampleError as error:
                self._skip_or_raise(str(error), number, skipped, error)

    def _skip_or_raise(self, message: str, row: int | None, skipped: list[SkippedRow], cause: Exception) -> None:
        """Count a bad row of a slot, or raise an error if bad rows are not to be skipped or there are too many."""
        name = self.source.name
        if not self.settings.skip_bad_samples:
            raise BadSampleError(f"Data source {name!r}: {message}") from cause
        is_new = not isinstance(self.rows, StreamShard) or self.rows.epoch == 0
        skipped.append(SkippedRow(row, is_new, message))
        if len(skipped) >= MAX_CONSECUTIVE_BAD_ROWS:
            numbers = {row.row for row in skipped}
            rows = f"{MAX_CONSECUTIVE_BAD_ROWS} consecutive rows"
            if None not in numbers:  # a small source is drawn from again and again
                rows += f" ({len(numbers):,} different ones)"
            raise BadSampleError(
                f"Data source {name!r}: {rows} cannot be trained on, the last one because of: {message} "
                "Its `format` or `options` may be wrong, or its files damaged."
            ) from cause

    def _collate_alone(self, samples: list[tuple[dict[str, Any], str, int | None]]) -> dict[int, Exception]:
        """Collate each sample by itself, and return the errors by position."""
        errors = {}
        for position, (sample, *_) in enumerate(samples):
            try:
                self.collator([sample])
            # Each image processor has its own types of errors for the images that it does not take
            except Exception as error:
                errors[position] = error
        return errors
