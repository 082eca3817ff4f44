# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Look at the texts of a mixture before the first step, without opening an image."""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from transformers.utils import logging

from ..data import Chunk, Reader, row_location
from ..data.data_collator import FlamingoDataCollator
from ..data.row_stream import RowStream
from ..processing_flamingo import FlamingoProcessor
from .arguments import FlamingoTrainingArguments
from .data_source import DataSource
from .held_out import GenerationEvalDataset
from .mixture import DataMixture
from .schedule_checks import describe_many_answers
from .unknown_words import UnknownWords


logger = logging.get_logger(__name__)

#: How many rows of a source are looked at before the first step: spread over the source, or the first ones of a stream, whose
#: rows may be far away.
NUM_ROWS, NUM_STREAM_ROWS = 500, 100

# Answers that are no longer than this on average are names to tell apart; longer ones are sentences, of which all may differ
_MAX_ANSWER_WORDS = 4
_NUM_ANSWERS_TO_TELL = 1000

_BATCH_SIZE = 32

_PLACEHOLDER = torch.zeros(1, 1, 1)  # features of an image that is not opened


class Answers:
    """Counts the different texts that are learned, as long as they are names rather than sentences."""

    def __init__(self):
        self.rows = self._words = 0
        self._different: set[str] = set()

    def add(self, sample: dict[str, Any], end_of_chunk: str) -> None:
        """
        Count the answer of a row, all that is learned of it.

        Args:
            sample (`dict`): The row, as [`~data.document_to_sample`] makes it.
            end_of_chunk (`str`): The token that ends a text.
        """
        texts = [sample["text"][start:end] for start, end in sample["supervised"]]
        answer = " ".join(" ".join(texts).replace(end_of_chunk, " ").split())
        self.rows += 1
        self._words += len(answer.split())
        if self.rows < _NUM_ANSWERS_TO_TELL or self.are_names:
            self._different.add(answer)
        else:
            self._different.clear()  # of sentences there may be millions

    @property
    def are_names(self) -> bool:
        """Tell whether the answers are short on average."""
        return 0 < self._words <= _MAX_ANSWER_WORDS * self.rows

    @property
    def count(self) -> int:
        """Return the number of different answers; 0 if they are sentences."""
        return len(self._different) if self.are_names else 0


def check_texts(mixture: DataMixture, args: FlamingoTrainingArguments, max_steps: int, micro_batches: int) -> None:
    """
    Check the texts of some rows of each source: that the tokenizer knows their words, and that the run is long enough for them.

    At most `NUM_ROWS` rows are read, spread over the source, or the first `NUM_STREAM_ROWS` of a stream; `flamingo check` reads all.
    Images are not opened. Bad rows are passed over: the training reports them where it meets them. The position in the data and
    all random generators stay as they are, and each process reads the same rows, so that all of them come to one result.

    Args:
        mixture ([`DataMixture`]): The sources.
        args ([`FlamingoTrainingArguments`]): The arguments of the trainer.
        max_steps (`int`): Number of optimizer steps of the run.
        micro_batches (`int`): Micro-batches of a source per optimizer step.

    Raises:
        ValueError: too many of the tokens to learn are unknown. The message names source and words.
    """
    for source, reader, rows in zip(mixture.sources, mixture.readers, mixture.rows, strict=True):
        words, answers = UnknownWords(mixture.processor), Answers()
        chosen = select_rows(rows, NUM_STREAM_ROWS if source.streaming else NUM_ROWS)
        for sample, labels in _read_texts(source, reader, chosen, mixture.processor):
            words.add(sample, labels)
            answers.add(sample, mixture.processor.end_of_chunk_token)
        if words.is_too_large:
            raise ValueError(f"Data source {source.name!r}: {words.describe()}")
        if not args.should_log:
            continue  # another process says it
        if words.unknown:
            logger.warning(f"Data source {source.name!r}: {words.describe()}")
        if answers.count > max_steps:
            rows_per_step = count_rows_per_step(source, args, len(mixture.sources), micro_batches)
            text = describe_many_answers(answers.count, max_steps, rows_per_step, at_least=answers.rows >= NUM_ROWS)
            logger.warning(f"Data source {source.name!r}: {text}")


def check_held_out_texts(eval_dataset: Any) -> None:
    """
    Warn of words of held-out rows that the tokenizer does not know.

    Args:
        eval_dataset: The evaluation dataset of a trainer, or a dictionary of datasets. Only a [`GenerationEvalDataset`] is looked at.
    """
    for name, rows in eval_dataset.items() if isinstance(eval_dataset, dict) else [("evaluation", eval_dataset)]:
        if not isinstance(rows, GenerationEvalDataset):
            continue
        words, collator = UnknownWords(rows.processor), FlamingoDataCollator(rows.processor)
        texts = [
            {**sample, "images": None, "image_features": [_PLACEHOLDER] * len(sample["images"]) or None}
            for sample in rows.samples
        ]
        for sample, labels in _label(texts, collator):
            words.add(sample, labels)
        if words.unknown:
            logger.warning(f"Held-out data {name!r}: {words.describe('generate')}")


def count_rows_per_step(
    source: DataSource, args: FlamingoTrainingArguments, num_sources: int, micro_batches: int
) -> float:
    """Count the rows of a source in an optimizer step, over all processes and, where sources take turns, on average."""
    turns = num_sources if args.mixture_strategy == "round_robin" else 1
    return source.batch_size * micro_batches * args.world_size / turns


def select_rows(rows: Dataset | RowStream, max_rows: int | None) -> Iterator[dict[str, Any]]:
    """
    Yield rows of a source: all of them, or `max_rows`, spread over the source; of a stream the first ones.

    Args:
        rows (`Dataset` or [`RowStream`]): What [`DataSource.load`] returned.
        max_rows (`int`, *optional*): Maximum number of rows.
    """
    if isinstance(rows, RowStream) or max_rows is None or max_rows >= len(rows):
        yield from itertools.islice(rows, max_rows)
        return
    for index in np.linspace(0, len(rows) - 1, max_rows).round().astype(int).tolist():
        yield rows[index]


def without_media(document: list[Chunk]) -> list[Chunk]:
    """Return a document with placeholders instead of its images and videos, which are then not opened."""
    return [chunk if chunk.item is None else replace(chunk, item=_PLACEHOLDER) for chunk in document]


def _read_texts(
    source: DataSource, reader: Reader, rows: Iterable[dict[str, Any]], processor: FlamingoProcessor
) -> Iterator[tuple[dict[str, Any], torch.LongTensor]]:
    """Yield samples without images, and their labels."""
    collator = FlamingoDataCollator(processor)
    samples = _make_samples(source, reader, rows, processor)
    while batch := list(itertools.islice(samples, _BATCH_SIZE)):
        yield from _label(batch, collator)


def _label(
    samples: list[dict[str, Any]], collator: FlamingoDataCollator
) -> list[tuple[dict[str, Any], torch.LongTensor]]:
    """Return samples with their labels, -100 at padding. Those that cannot be collated are skipped."""
    try:
        return list(zip(samples, collator(samples)["labels"], strict=True))
    # The tokenizer and the image processor have errors of their own types for what they refuse
    except Exception:
        return [] if len(samples) == 1 else [pair for sample in samples for pair in _label([sample], collator)]


def _make_samples(
    source: DataSource, reader: Reader, rows: Iterable[dict[str, Any]], processor: FlamingoProcessor
) -> Iterator[dict[str, Any]]:
    """Yield samples without images. Bad rows are skipped: the training reports them."""
    rows = iter(rows)
    for number in itertools.count():
        try:
            row = next(rows, None)
        # Each file format and file system has its own. The training reports it with the name of the source
        except Exception:
            return
        if row is None:
            return
        # Bad rows, and errors of a tokenizer that refuses a text, which have a type of their own
        try:
            document = without_media(reader.read(row))
            sample = source.make_sample(document, processor, np.random.default_rng(number), row_location(row))
        except Exception:
            continue
        yield sample
