# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
A mixture of data sets, as batches that depend on nothing but where the training stands.

A process numbers its micro-batches from 0. The strategy says which source makes micro-batch `b`, and as its how
manieth, `m`. Row `i` of it takes the slot `(m * processes + process) * batch_size + i` of the source, so the processes
share a source without overlap, and two processes with batches of 4 take the rows that one process with batches of 8
takes.

- Slot `p` of a source that is not streamed is place `p % rows` of the permutation that `(seed, source, p // rows)`
  draws: the number of workers has no say in it, and any micro-batch can be made without those before it.
- A stream has no places. Its rows are split among the processes and, in them, among the workers that make its
  micro-batches; each goes on where it stopped. That place, `datasets`' own state of the stream, travels with each
  batch, so that a checkpoint knows the place of the last batch that was *trained on*, whatever workers have read ahead.

All chance of a row (leading spaces and the like) comes from `(seed, source, slot)`.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import fsspec.asyn
import numpy as np
import torch
from datasets import Dataset, IterableDataset
from datasets.distributed import split_dataset_by_node
from torch.utils.data import DataLoader, get_worker_info
from transformers.utils import logging

from ..data import BadSampleError, document_to_sample, row_location
from ..data.data_collator import FlamingoDataCollator
from ..data.features import EncodedDocuments, FeatureDtype, encode_documents
from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor
from .arguments import DataSource, MixtureStrategy


logger = logging.get_logger(__name__)

# So many rows in a row that cannot be trained on are not a few bad rows but a wrong source.
MAX_BAD_IN_A_ROW = 1000


class MixtureBatch(NamedTuple):
    """
    A micro-batch.

    Args:
        source (`int`): Which source it is of.
        inputs (`dict`): What [`FlamingoDataCollator`] made of its rows.
        skipped (`list[str]`): One message for each row that was replaced because it cannot be trained on.
        stream (`tuple`, *optional*): Of a streamed source, the number of its share and the place where that goes on.
    """

    source: int
    inputs: dict[str, Any]
    skipped: list[str]
    stream: tuple[int, dict[str, Any]] | None


class DataMixture(torch.utils.data.IterableDataset):
    """
    Collated micro-batches of several sources, without end.

    ```python
    mixture = DataMixture(
        [
            DataSource(name="laion", format="image_text_pairs", path="laion/*.tar", weight=0.2, streaming=True),
            DataSource(name="mmc4", format="mmc4", path="mmc4/*.jsonl", max_length=256, max_images=6, streaming=True),
        ],
        processor,
    )
    trainer = FlamingoTrainer(model, FlamingoTrainingArguments(max_steps=1000), train_dataset=mixture)
    ```

    [`FlamingoTrainer`] calls `configure` with its arguments.

    Args:
        sources (`list[DataSource]`): The sources, each with a name of its own.
        processor ([`FlamingoProcessor`]): Makes the tensors.

    Raises:
        ValueError: two sources have one name, or one cannot be opened or is empty.
    """

    def __init__(self, sources: Sequence[DataSource], processor: FlamingoProcessor):
        super().__init__()
        self.sources = list(sources)
        names = [source.name for source in self.sources]
        if not names or len(set(names)) < len(names):
            raise ValueError(f"The sources of a mixture are named {names}. Give at least one, each its own name.")
        self.processor = processor
        self.readers = [source.reader for source in self.sources]
        self.rows: list[Dataset | IterableDataset] = [source.load() for source in self.sources]
        self.configure()

    def configure(
        self,
        *,
        seed: int = 0,
        strategy: MixtureStrategy = "accumulate",
        gradient_accumulation_steps: int = 1,
        process: int = 0,
        num_processes: int = 1,
        skip_bad_samples: bool = False,
        packing: bool = False,
        start: int = 0,
        streams: dict[int, dict[int, dict[str, Any]]] | None = None,
    ) -> "DataMixture":
        """
        Say who asks, and from where on.

        Args:
            seed (`int`, *optional*): Of all chance.
            strategy (`str`, *optional*): `mixture_strategy` of [`FlamingoTrainingArguments`].
            gradient_accumulation_steps (`int`, *optional*): Micro-batches of one source per optimizer step.
            process, num_processes (`int`, *optional*): Which process this is, and of how many.
            skip_bad_samples, packing (`bool`, *optional*): See [`FlamingoTrainingArguments`].
            start (`int`, *optional*): Number of the first micro-batch.
            streams (`dict`, *optional*): For each streamed source the places of its shares, as batches carried them.

        Raises:
            ValueError: a source to be packed has no `max_length`.
        """
        for source in self.sources:
            if packing and source.max_length is None:
                raise ValueError(
                    f"Data source {source.name!r} has no `max_length`, but with `packing` it is the length of the rows "
                    "that its documents share: give it."
                )
        self.seed = seed
        self.strategy = strategy
        self.gradient_accumulation_steps = gradient_accumulation_steps
        self.process, self.num_processes = process, num_processes
        self.skip_bad_samples = skip_bad_samples
        self.packing = packing
        self.start = start
        self.streams = streams or {}
        self._permutations: dict[int, tuple[int, np.ndarray]] = {}
        return self

    def cache_features(
        self,
        model: FlamingoModel,
        *,
        skip_bad_samples: bool = False,
        batch_size: int = 32,
        dtype: FeatureDtype = "float16",
    ) -> None:
        """
        Let the vision encoder look at all images of the sources with `cache_features`, or read what it made of them in
        an earlier run. Their batches then have features in the place of pixels, and nothing else changes: not the
        order of the rows, and not which of them are bad, but for images that are cut away with the text before them.

        [`FlamingoTrainer`] calls it. One process computes and the others wait for it, at most `ddp_timeout` seconds.

        Args:
            model, batch_size, dtype: As in [`add_image_features`].
            skip_bad_samples (`bool`, *optional*): See [`FlamingoTrainingArguments`].

        Raises:
            BadSampleError: a row cannot be read. The message names source, file and row.
            ValueError: the vision encoder is trained.
        """
        for index, source in enumerate(self.sources):
            if not source.cache_features:
                continue
            try:
                self.rows[index] = encode_documents(
                    source.load(),  # and not `self.rows`, which an earlier call may have encoded
                    source.reader,
                    model,
                    self.processor,
                    max_images=source.max_images,
                    skip_bad_samples=skip_bad_samples,
                    batch_size=batch_size,
                    dtype=dtype,
                )
            except BadSampleError as error:
                raise BadSampleError(f"Data source {source.name!r}: {error}") from error
            self.readers[index] = EncodedDocuments()

    def loader(self, num_workers: int = 0, **kwargs) -> DataLoader:
        """A `DataLoader` of the micro-batches from `start` on, which leaves torch's global generator alone."""
        # It draws a seed for its workers, which have no use for it
        generator = torch.Generator().manual_seed(self.seed)
        return DataLoader(self, batch_size=None, num_workers=num_workers, generator=generator, **kwargs)

    def locate(self, micro_batch: int) -> tuple[int, int]:
        """The source of a micro-batch, and as its how manieth this is, counted from 0."""
        num_sources, steps = len(self.sources), self.gradient_accumulation_steps
        if self.strategy == "accumulate":
            return micro_batch % num_sources, micro_batch // num_sources
        turn, step = divmod(micro_batch, steps)
        return turn % num_sources, turn // num_sources * steps + step

    def __iter__(self) -> Iterator[MixtureBatch]:
        info = get_worker_info()
        worker, num_workers = (0, 1) if info is None else (info.id, info.num_workers)
        if info is not None:
            fsspec.asyn.reset_lock()  # a forked worker would wait for ever for a thread of its parent
        # The loader takes a batch from each worker in turn, beginning with worker 0
        first = self.start + worker
        shares = {
            index: self._open_share(index, first % num_workers, num_workers)
            for index, source in enumerate(self.sources)
            if source.streaming
        }
        micro_batch = first
        while True:
            index, number = self.locate(micro_batch)
            yield self._make_batch(index, number, shares.get(index))
            micro_batch += num_workers

    def _open_share(self, index: int, worker: int, num_workers: int) -> "_Share | None":
        """The part of a stream that micro-batches `b` with `b % num_workers == worker` read; none if they are others'."""
        # Not every worker makes micro-batches of every source: of two sources, two workers make one each
        period = math.lcm(len(self.sources) * self.gradient_accumulation_steps, num_workers)
        workers = sorted({b % num_workers for b in range(period) if self.locate(b)[0] == index})
        if worker not in workers:
            return None
        share = workers.index(worker)
        rank, world_size = self.process * len(workers) + share, self.num_processes * len(workers)
        if self.rows[index].num_shards % world_size and rank == 0:
            logger.warning(
                f"Data source {self.sources[index].name!r} has {self.rows[index].num_shards} files for {world_size} "
                "readers (processes times workers), which is no multiple: each of them reads all files, and leaves out "
                "the rows of the others. It is faster with such a number of files."
            )
        rows = split_dataset_by_node(self.rows[index], rank=rank, world_size=world_size)
        return _Share(self.sources[index].name, share, rows, self.streams.get(index, {}).get(share))

    def _make_batch(self, index: int, number: int, share: "_Share | None") -> MixtureBatch:
        source = self.sources[index]
        first = (number * self.num_processes + self.process) * source.batch_size
        slots = range(first, first + source.batch_size)
        if share is None:
            # All at once: `datasets` takes as long over one row as over a batch, most of it over kept features
            rows = self.rows[index].__getitems__([self._place(index, slot) for slot in slots])
        candidates = [
            iter(share.next_row, None)
            if share is not None
            else itertools.chain([rows[position]], self._replacements(index, slot))
            for position, slot in enumerate(slots)
        ]
        skipped: list[list[str]] = [[] for _ in slots]  # for each slot a message about each of its bad rows
        samples = [self._make_sample(index, *args) for args in zip(slots, candidates, skipped, strict=True)]
        collator = FlamingoDataCollator(
            self.processor, max_length=source.max_length if self.packing else None, packing=self.packing
        )
        while True:
            try:
                inputs = collator([sample for sample, _ in samples])
                break
            except Exception as error:  # image processors have their own
                refused = self._refused(collator, samples)
                if not refused:
                    raise RuntimeError(
                        f"Data source {source.name!r}: these rows make no batch together ({type(error).__name__}: {error}): "
                        f"{'; '.join(where for _, where in samples)}."
                    ) from error
            for position, cause in refused.items():
                messages, where = skipped[position], samples[position][1]
                self._refuse(index, f"{where}: it cannot be collated ({cause})", messages, cause)
                samples[position] = self._make_sample(index, slots[position], candidates[position], messages)
        messages = list(itertools.chain.from_iterable(skipped))
        return MixtureBatch(index, inputs, messages, None if share is None else (share.number, share.place()))

    def _make_sample(
        self, index: int, slot: int, candidates: Iterator[dict[str, Any]], skipped: list[str]
    ) -> tuple[dict[str, Any], str]:
        """
        Render the first candidate for a slot that can be trained on. Returns it and where it is from; `skipped` gets a
        message about each before it.
        """
        source = self.sources[index]
        while True:
            row = next(candidates)  # there is always another
            where = row_location(row)
            try:
                sample = document_to_sample(
                    self.readers[index].read(row),
                    self.processor,
                    np.random.default_rng([self.seed, index, slot]),
                    location=where,
                    max_length=source.max_length,
                    max_images=source.max_images,
                    leading_space_probability=source.leading_space_probability,
                    next_image_probability=source.next_image_probability,
                    append_eos=source.append_eos,
                )
                return sample, where
            except BadSampleError as error:
                self._refuse(index, str(error), skipped, error)

    def _refuse(self, index: int, message: str, skipped: list[str], cause: Exception) -> None:
        """Count a bad row of a slot, or raise if bad rows are errors or too many."""
        name = self.sources[index].name
        if not self.skip_bad_samples:
            raise BadSampleError(f"Data source {name!r}: {message}") from cause
        skipped.append(message)
        if len(skipped) >= MAX_BAD_IN_A_ROW:
            raise BadSampleError(
                f"Data source {name!r}: {MAX_BAD_IN_A_ROW} rows one after the other cannot be trained on, the last because "
                f"of: {message} Its `format` or `options` may be wrong, or its files damaged."
            ) from cause

    @staticmethod
    def _refused(collator: FlamingoDataCollator, samples: list[tuple[dict[str, Any], str]]) -> dict[int, Exception]:
        """Return the samples that the collator does not take alone either, by position, and why."""
        refused = {}
        for position, (sample, _) in enumerate(samples):
            try:
                collator([sample])
            except Exception as error:  # image processors have their own
                refused[position] = error
        return refused

    def _place(self, index: int, slot: int) -> int:
        """The place of a slot's row in a source that is not streamed."""
        epoch, place = divmod(slot, len(self.rows[index]))
        if self._permutations.get(index, (None,))[0] != epoch:
            permutation = np.random.default_rng([self.seed, index, epoch]).permutation(len(self.rows[index]))
            self._permutations[index] = (epoch, permutation)
        return int(self._permutations[index][1][place])

    def _replacements(self, index: int, slot: int) -> Iterator[dict[str, Any]]:
        """For a slot whose row is bad, other rows by chance, so that no state is needed."""
        rows = self.rows[index]
        for attempt in itertools.count(1):
            yield rows[int(np.random.default_rng([self.seed, index, slot, attempt]).integers(len(rows)))]


class _Share:
    """The rows of a stream that are one reader's, pass after pass, and the place where it stands."""

    def __init__(self, name: str, number: int, rows: IterableDataset, place: dict[str, Any] | None):
        self.name, self.number, self.rows = name, number, rows
        self.epoch = 0 if place is None else place["epoch"]
        self.rows.set_epoch(self.epoch)
        if place is not None:
            self.rows.load_state_dict(place)
        self.iterator = self._iterate()

    def _iterate(self) -> Iterator[dict[str, Any]]:
        # `iter` and not iteration, which would split the share among the workers once more
        for batch in self.rows.iter(batch_size=1):
            yield {name: values[0] for name, values in batch.items()}

    def next_row(self) -> dict[str, Any]:
        row = self._next()
        if row is None:
            # After the first pass, `datasets` shuffles the order of the files by the number of the pass
            self.epoch += 1
            self.rows.set_epoch(self.epoch)
            self.iterator = self._iterate()
            row = self._next()
        if row is None:
            raise ValueError(
                f"Data source {self.name!r}: there are fewer rows than processes times workers, so one of them has "
                "none. Use fewer workers, or do not stream this source."
            )
        return row

    def _next(self) -> dict[str, Any] | None:
        try:
            return next(self.iterator, None)
        except Exception as error:  # each file system has its own
            raise ValueError(f"Data source {self.name!r}: {error}") from error

    def place(self) -> dict[str, Any]:
        return self.rows.state_dict()
