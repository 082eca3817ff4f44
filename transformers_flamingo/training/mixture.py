# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
A mixture of datasets, as a stream of batches that depend only on the position in the training.

Each process numbers its micro-batches from 0. The strategy maps micro-batch `b` to a source and to `m`, its index within
that source. Row `i` of the micro-batch takes slot `(m * processes + process) * batch_size + i` of the source. So the
processes share a source without overlap, and two processes with batches of 4 take the rows that one process with batches of
8 takes.

- Slot `p` of a source that is not streamed is row `p % rows` of the permutation that `(seed, source, p // rows)` draws. It
  does not depend on the number of workers, and any micro-batch can be built without its predecessors.
- A stream cannot be indexed. Its files, or if there are few its rows, are split among the processes, and there among the
  workers that build its micro-batches; each of them shuffles what it reads and resumes where it stopped ([`stream_shard`]).
  That position travels with each batch. So a checkpoint knows the position of the last batch that was *trained on*, even if
  workers have read further ahead.

All random choices for a row (leading spaces and the like) come from `(seed, source, slot)`.
"""

import copy
import functools
import math
import pickle
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import fsspec.asyn
import torch
from datasets import Dataset
from torch.utils.data import DataLoader, get_worker_info
from transformers.utils import logging

from ..data import BadSampleError
from ..data.features import EncodedDocuments, FeatureDtype, encode_documents
from ..data.row_stream import RowStream
from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor
from ..utils.errors import user_message
from .data_source import DataSource
from .feature_cache import encode_if_worthwhile
from .interruption import outlive_signals
from .micro_batch import MicroBatchBuilder, MixtureBatch, MixtureSettings
from .stream_shard import DEFAULT_BUFFER_SIZE, MIN_FILES_PER_READER, StreamOrder, StreamShard


logger = logging.get_logger(__name__)


class _WorkerError:
    """Carries the error of a worker to the training, which raises it as it would raise its own."""

    def __init__(self, error: Exception):
        error.add_note(f"In a worker:\n{''.join(traceback.format_exception(error))}")
        try:
            is_same = user_message(pickle.loads(pickle.dumps(error))) == user_message(error)
        # Of a library whose errors cannot be sent to another process, which each fail in their own way
        except Exception:
            is_same = False
        self.error = error if is_same else ValueError(user_message(error))


class _MixtureLoader(DataLoader):
    def __iter__(self) -> Iterator[MixtureBatch]:
        for batch in super().__iter__():
            if isinstance(batch, _WorkerError):
                raise batch.error
            yield batch


class DataMixture(torch.utils.data.IterableDataset):
    """
    Infinite stream of collated micro-batches drawn from several sources.

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

    [`FlamingoTrainer`] sets `settings` from its arguments.

    Args:
        sources (`list[DataSource]`): The sources, each with a unique name.
        processor ([`FlamingoProcessor`]): Turns documents into tensors.

    Raises:
        ValueError: two sources have the same name, or a source cannot be opened or is empty.
    """

    def __init__(self, sources: Sequence[DataSource], processor: FlamingoProcessor):
        super().__init__()
        self.sources = list(sources)
        names = [source.name for source in self.sources]
        if not names or len(set(names)) < len(names):
            raise ValueError(
                f"The sources of a mixture are named {names}. Give at least one source, each with its own name."
            )
        self.processor = processor
        self.readers = [source.reader for source in self.sources]
        self.rows: list[Dataset | RowStream] = [source.load() for source in self.sources]
        self.settings = MixtureSettings()

    def with_settings(self, **changes: Any) -> "DataMixture":
        """
        Return this mixture with other settings. The original keeps its settings; the data are shared.

        Args:
            changes: Fields of [`MixtureSettings`]. All other fields stay as they are.

        Raises:
            ValueError: `packing` is set and a source does not have a `max_length`.
        """
        twin = copy.copy(self)
        twin.settings = replace(self.settings, **changes)
        for source in self.sources:
            if twin.settings.packing and source.max_length is None:
                raise ValueError(
                    f"Data source {source.name!r} has no `max_length`, which with `packing` is the length of the rows that its "
                    "documents share. Set `max_length`."
                )
        return twin

    def cache_features(
        self,
        model: FlamingoModel,
        *,
        skip_bad_samples: bool = False,
        batch_size: int = 32,
        dtype: FeatureDtype = "float16",
        max_steps: int | None = None,
    ) -> None:
        """
        Encode all images of the sources with `cache_features`, or read the features that an earlier run cached.

        Whether those of a source with `"auto"` are kept depends on `settings` and `max_steps`: see [`encode_if_worthwhile`].

        The batches of these sources then have features instead of pixels. The order of the rows stays the same, and the same
        rows are bad, except for images that would be cut off together with the text before them.

        [`FlamingoTrainer`] calls this. One process encodes while the others wait for it, for at most `ddp_timeout` seconds.

        Args:
            model, batch_size, dtype: See [`add_image_features`].
            skip_bad_samples (`bool`, *optional*): See [`FlamingoTrainingArguments`].
            max_steps (`int`, *optional*): Number of optimizer steps of the training. Sources with `"auto"` need it.

        Raises:
            BadSampleError: a row cannot be read. The message names source, file and row.
            ValueError: the vision encoder is trained.
        """
        for index, source in enumerate(self.sources):
            if not source.cache_features:
                continue
            rows = source.load()  # `self.rows` may have been encoded by an earlier call
            encode = functools.partial(
                encode_documents,
                rows,
                source.reader,
                model,
                self.processor,
                max_images=source.max_images,
                skip_bad_samples=skip_bad_samples,
                batch_size=batch_size,
                dtype=dtype,
            )
            try:
                if source.cache_features == "auto":
                    num_rows = None if max_steps is None else self.num_rows_read(index, max_steps)
                    encoded = encode_if_worthwhile(source, rows, model, self.processor, dtype, num_rows, encode)
                else:
                    encoded = encode()
            except BadSampleError as error:
                raise BadSampleError(f"Data source {source.name!r}: {error}") from error
            if encoded is not None:
                self.rows[index], self.readers[index] = encoded, EncodedDocuments(encoded=encoded)

    def loader(self, num_workers: int = 0, **kwargs) -> DataLoader:
        """
        Return a `DataLoader` of the micro-batches, beginning with `settings.start`.

        Args:
            num_workers (`int`, *optional*, defaults to 0): Number of processes that build micro-batches.
            kwargs: Other arguments of `DataLoader`.
        """
        # It draws a seed for its workers, which do not use it. Torch's global generator must not draw it: training would differ
        generator = torch.Generator().manual_seed(self.settings.seed)
        return _MixtureLoader(
            self,
            batch_size=None,
            num_workers=num_workers,
            generator=generator,
            worker_init_fn=outlive_signals if num_workers else None,
            **kwargs,
        )

    def source_of(self, micro_batch: int) -> tuple[int, int]:
        """Return the source of a micro-batch and the micro-batch's 0-based index within that source."""
        num_sources, steps = len(self.sources), self.settings.gradient_accumulation_steps
        if self.settings.strategy == "accumulate":
            return micro_batch % num_sources, micro_batch // num_sources
        turn, step = divmod(micro_batch, steps)
        return turn % num_sources, turn // num_sources * steps + step

    def num_rows_read(self, source: int, max_steps: int) -> int:
        """Return how many rows of a source each process reads in `max_steps` optimizer steps, without packing."""
        num_sources = len(self.sources)
        # In turns, source 0 has steps 0, num_sources, 2 * num_sources, ...
        steps = max_steps if self.settings.strategy == "accumulate" else -((source - max_steps) // num_sources)
        return steps * self.settings.gradient_accumulation_steps * self.sources[source].batch_size

    def num_batches_of_one_pass(self) -> int | None:
        """Return after how many micro-batches of each process every row was read, or `None` if a source is a stream."""
        if any(source.streaming for source in self.sources):
            return None
        # Packed rows take fewer batches, and so a part of them may be read twice
        settings = self.settings
        sizes = [
            math.ceil(len(rows) / (source.batch_size * settings.num_processes))
            for rows, source in zip(self.rows, self.sources, strict=True)
        ]
        steps = 1 if settings.strategy == "accumulate" else settings.gradient_accumulation_steps
        return math.ceil(max(sizes) / steps) * steps * len(self.sources)

    def __iter__(self) -> Iterator[MixtureBatch]:
        info = get_worker_info()
        worker, num_workers = (0, 1) if info is None else (info.id, info.num_workers)
        if info is not None:
            fsspec.asyn.reset_lock()  # a forked worker would wait forever for a thread of its parent
        # The loader takes a batch from each worker in turn, beginning with worker 0
        micro_batch = self.settings.start + worker
        builders = [self._builder(index, micro_batch % num_workers, num_workers) for index in range(len(self.sources))]
        while True:
            index, number = self.source_of(micro_batch)
            try:
                batch = builders[index].build(number)
            except Exception as error:
                # `torch` would put the traceback of the worker into the message
                if info is None or user_message(error) is None:
                    raise
                yield _WorkerError(error)
                return
            yield batch
            micro_batch += num_workers

    def _builder(self, index: int, remainder: int, num_workers: int) -> MicroBatchBuilder | None:
        """Return the builder for the micro-batches `b` of a source with `b % num_workers == remainder`, if there are any."""
        source, rows = self.sources[index], self.rows[index]
        if source.streaming:
            rows = self._open_shard(index, remainder, num_workers)
            if rows is None:
                return None
        return MicroBatchBuilder(index, source, self.readers[index], rows, self.processor, self.settings)

    def _open_shard(self, index: int, remainder: int, num_workers: int) -> StreamShard | None:
        """
        Return the part of a stream that the micro-batches `b` with `b % num_workers == remainder` read.

        It is `None` if none of them is of this source: of two sources, two workers build one each.
        """
        settings = self.settings
        period = math.lcm(len(self.sources) * settings.gradient_accumulation_steps, num_workers)
        remainders = sorted({b % num_workers for b in range(period) if self.source_of(b)[0] == index})
        if remainder not in remainders:
            return None
        number = remainders.index(remainder)
        source, stream = self.sources[index], self.rows[index]
        order = StreamOrder(
            settings.seed,
            index,
            DEFAULT_BUFFER_SIZE if source.shuffle_buffer_size is None else source.shuffle_buffer_size,
            reader=settings.process * len(remainders) + number,
            num_readers=settings.num_processes * len(remainders),
        )
        num_files = len(stream.files)
        if not order.has_own_files(num_files) and order.reader == 0:
            logger.warning(
                f"Data source {source.name!r} has {num_files} files for {order.num_readers} readers (processes times workers). So "
                "each reader reads all files and skips the rows of the other readers. A number of files that is a multiple, or at "
                f"least {MIN_FILES_PER_READER} times as many, is faster."
            )
        return StreamShard(source.name, number, stream, order, settings.streams.get(index, {}).get(number))
