# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Held-out rows that a model in training is measured on, with their images and blind."""

import re
import string
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers.utils import logging

from ..data import BadSampleError, blank_image, document_to_sample, row_location
from ..data.data_collator import FlamingoDataCollator
from ..processing_flamingo import FlamingoProcessor
from .arguments import DataSource


logger = logging.get_logger(__name__)


class Question(NamedTuple):
    """
    What a model is asked to generate.

    Args:
        prompt (`str`): The text up to the last part that is learned in training, markers included.
        images (`list`): The images of all markers in it, videos as lists of frames.
        reference (`str`): How it goes on: a caption, an answer.
    """

    prompt: str
    images: list[Any]
    reference: str


class HeldOut(torch.utils.data.Dataset):
    """
    Rows of a source for `Trainer(eval_dataset=...)`. [`FlamingoTrainer`] reports their loss, and how well the model
    generates their last texts, both with the images and blind.

    The rows are spread evenly over the source, read once, and rendered without chance: a leading space or not as
    `leading_space_probability` of the source is above a half or not, and each text with its own image. A text without
    anything before it is a bad row: there is nothing to generate from.

    Args:
        source ([`DataSource`]): Where they are. Not streamed.
        processor ([`FlamingoProcessor`]): Makes the text.
        max_rows (`int`, *optional*): How many rows at most.
        skip_bad_samples (`bool`, *optional*, defaults to `False`): Whether bad rows are left out, with a warning.

    Raises:
        ValueError: the source cannot be opened, is empty or is streamed.
        BadSampleError: a row cannot be used, and `skip_bad_samples` is not set.
    """

    def __init__(
        self,
        source: DataSource,
        processor: FlamingoProcessor,
        *,
        max_rows: int | None = None,
        skip_bad_samples: bool = False,
    ):
        if source.streaming:
            raise ValueError(
                f"Data source {source.name!r} is streamed, but held-out rows are chosen from all over a source: leave "
                "out `streaming`."
            )
        self.source = source
        self.processor = processor
        self.is_blind = False
        self.samples: list[dict[str, Any]] = []
        rows, reader = source.load(), source.reader
        count = len(rows) if max_rows is None else min(max_rows, len(rows))
        for index in np.linspace(0, len(rows) - 1, count).round().astype(int).tolist():
            row = rows[index]
            try:
                self.samples.append(self._render(reader.read(row), row_location(row)))
            except BadSampleError as error:
                if not skip_bad_samples:
                    raise BadSampleError(f"Data source {source.name!r}: {error}") from error
                logger.warning(f"Left out of the evaluation on {source.name!r}: {error}")
        if not self.samples:
            raise ValueError(f"Data source {source.name!r}: none of {count} rows can be used for evaluation.")

    def _render(self, document: list, where: str) -> dict[str, Any]:
        sample = document_to_sample(
            document,
            self.processor,
            np.random.default_rng(0),
            location=where,
            max_length=self.source.max_length,
            max_images=self.source.max_images,
            leading_space_probability=float(self.source.leading_space_probability > 0.5),
        )
        if sample["supervised"][-1][0] == 0:
            raise BadSampleError(
                f"{where}: the text {sample['text']!r:.80} has no image and no prompt before it to generate it from. Remove "
                "the row."
            )
        try:  # now, rather than in the middle of the training
            FlamingoDataCollator(self.processor)([sample])
        except Exception as error:  # image processors have their own
            raise BadSampleError(f"{where}: it cannot be collated ({error})") from error
        return sample

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.samples[index]
        return {**sample, "images": [_blank(image) for image in sample["images"]]} if self.is_blind else sample

    def blind(self) -> "HeldOut":
        """The same rows with a grey picture in the place of each image: what the text alone gives away."""
        twin = object.__new__(HeldOut)
        twin.__dict__.update(self.__dict__, is_blind=True)
        return twin

    def question(self, index: int) -> Question:
        """The row as a prompt and its continuation."""
        sample = self[index]
        start, end = sample["supervised"][-1]
        prompt = sample["text"][:start]
        reference = sample["text"][start:end].removesuffix(self.processor.end_of_chunk_token).strip()
        return Question(prompt, sample["images"], reference)


def _blank(image: Any) -> Any:
    if isinstance(image, list):
        return [_blank(frame) for frame in image]
    return blank_image(image.size)


def exact_match(prediction: str, reference: str) -> float:
    """1 if both are the same words, case, punctuation and articles aside (as SQuAD compares answers), else 0."""
    return float(_words(prediction) == _words(reference))


def word_f1(prediction: str, reference: str) -> float:
    """Harmonic mean of the shares of words that prediction and reference have in common, compared as above."""
    there, here = Counter(_words(reference)), Counter(_words(prediction))
    common = (there & here).total()
    return 2 * common / (there.total() + here.total()) if common else float(not there and not here)


def _words(text: str) -> list[str]:
    text = text.lower().translate(str.maketrans("", "", string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", text).split()


#: What generated texts are scored by.
SCORES = {"exact_match": exact_match, "word_f1": word_f1}
