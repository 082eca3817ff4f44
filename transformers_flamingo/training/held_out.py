# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Held-out rows for generation-based evaluation during training, with their images and with blank images."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers.utils import logging

from ..data import BadSampleError, Chunk, blank_image, document_to_sample, row_location
from ..data.data_collator import FlamingoDataCollator
from ..data.documents import draw_texts
from ..data.samples import adds_special_tokens
from ..evaluation.metrics import exact_match, word_f1
from ..processing_flamingo import FlamingoProcessor
from .data_source import HELD_OUT, DataSource


logger = logging.get_logger(__name__)


class EvalPrompt(NamedTuple):
    """
    A prompt, and the text that a model should generate after it.

    Args:
        prompt (`str`): The text before the last part that is supervised in training, including markers.
        images (`list`): One image per marker in the prompt; videos are lists of frames.
        reference (`str`): The continuation, such as a caption or an answer.
        add_special_tokens (`bool`, *optional*, defaults to `True`): Whether the tokenizer adds its own to the prompt.
    """

    prompt: str
    images: list[Any]
    reference: str
    add_special_tokens: bool = True


class GenerationEvalDataset(torch.utils.data.Dataset):
    """
    Held-out rows of a source for `Trainer(eval_dataset=...)`.

    [`FlamingoTrainer`] reports their loss and how well the model generates their last texts, both with the images and with
    blank images.

    The rows are spread evenly over the source, read once, and rendered without randomness: with a leading space if
    `leading_space_probability` of the source is above one half, and each text with its own image. A row whose last text has
    nothing before it is bad, because there is nothing to generate it from.

    Args:
        source ([`DataSource`]): The source. It must not be streamed.
        processor ([`FlamingoProcessor`]): Renders the text.
        max_rows (`int`, *optional*): Maximum number of rows.
        skip_bad_samples (`bool`, *optional*, defaults to `False`): Whether to skip bad rows, with a warning.

    Raises:
        ValueError: the source cannot be opened, is empty or is streamed, or none of its rows can be used.
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
        refuse_stream(source)
        self.source = source
        self.processor = processor
        self.is_blind = False
        self.samples: list[dict[str, Any]] = []
        rows, reader = source.load(is_held_out=True), source.reader
        count = len(rows) if max_rows is None else min(max_rows, len(rows))
        for index in np.linspace(0, len(rows) - 1, count).round().astype(int).tolist():
            row = rows[index]
            try:
                self.samples.append(self._render(reader.read(row), row_location(row)))
            except BadSampleError as error:
                if not skip_bad_samples:
                    raise BadSampleError(f"{HELD_OUT} {source.name!r}: {error}") from error
                logger.warning(f"Skipped in the evaluation on {source.name!r}: {error}")
        if not self.samples:
            raise ValueError(f"{HELD_OUT} {source.name!r}: none of {count} rows can be used for evaluation.")

    def _render(self, document: list[Chunk], location: str) -> dict[str, Any]:
        """Render a document, and check that it can be evaluated."""
        sample = make_held_out_sample(self.source, document, self.processor, location)
        try:  # so that the error comes now instead of in the middle of the training
            FlamingoDataCollator(self.processor)([sample])
        # Each image processor has its own types of errors for the images that it does not take
        except Exception as error:
            raise BadSampleError(f"{location}: it cannot be collated ({error})") from error
        return sample

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        sample = self.samples[index]
        return {**sample, "images": [_blank(image) for image in sample["images"]]} if self.is_blind else sample

    def blind(self) -> "GenerationEvalDataset":
        """Return the same rows with gray images, which measure what the text alone gives away."""
        twin = object.__new__(GenerationEvalDataset)
        twin.__dict__.update(self.__dict__, is_blind=True)
        return twin

    def eval_prompt(self, index: int) -> EvalPrompt:
        """Split a row into a prompt and its continuation."""
        sample = self[index]
        start, end = sample["supervised"][-1]
        prompt = sample["text"][:start]
        reference = sample["text"][start:end]
        for token in (self.processor.end_of_chunk_token, self.processor.end_of_turn_token):
            reference = reference.removesuffix(token or "")
        return EvalPrompt(prompt, sample["images"], reference.strip(), adds_special_tokens(sample))


def refuse_stream(source: DataSource) -> None:
    """
    Check that the rows of a held-out source can be chosen.

    Raises:
        ValueError: the source is streamed.
    """
    if source.streaming:
        raise ValueError(
            f"{HELD_OUT} {source.name!r} is streamed, but held-out rows are chosen from the whole source. Remove `streaming`."
        )


def make_held_out_sample(
    source: DataSource, document: list[Chunk], processor: FlamingoProcessor, location: str
) -> dict[str, Any]:
    """
    Turn a document of a held-out source into a sample to evaluate on, without randomness: see [`GenerationEvalDataset`].

    Args:
        source ([`DataSource`]): The source.
        document, processor, location: As in [`~data.document_to_sample`].

    Raises:
        BadSampleError: there is nothing to learn from it, or nothing to generate its last text from.
    """
    sample = document_to_sample(
        draw_texts(document, None),  # of several captions, always the first
        processor,
        np.random.default_rng(0),
        location=location,
        max_length=source.max_length,
        max_images=source.max_images,
        leading_space_probability=float(source.leading_space_probability > 0.5),
    )
    if sample["supervised"][-1][0] == 0:
        raise BadSampleError(
            f"{location}: the text {sample['text']!r:.80} has no image and no prompt before it to generate it from. Remove "
            "the row."
        )
    return sample


def _blank(image: Any) -> Any:
    """Return a blank image of the same size, or a video of blank frames."""
    if isinstance(image, list):
        return [_blank(frame) for frame in image]
    return blank_image(image.size)


#: The scores of generated texts by name: functions of prediction and reference.
SCORES = {"exact_match": partial(exact_match, normalization="squad"), "word_f1": word_f1}
