# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""A source of a data mixture: its files, and how their rows are trained on."""

import difflib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args, get_type_hints

import numpy as np
from datasets import Dataset
from huggingface_hub.dataclasses import type_validator

from ..data import FORMATS, Chunk, Reader, document_to_sample
from ..data.row_stream import RowStream
from ..processing_flamingo import FlamingoProcessor
from ..utils.redaction import redact, redact_values
from .recipe_file import raise_together, show


#: How errors name a source that is evaluated on, instead of `Data source`.
HELD_OUT = "Held-out data"


@dataclass(frozen=True, kw_only=True)
class DataSource:
    """
    A source of a data mixture.

    Args:
        name (`str`): Name of the source in logs and errors.
        format (`str`): Layout of its files, a key of `transformers_flamingo.data.FORMATS`.
        path (`str`): A file, a glob pattern or a folder, as [`~data.Reader.load`] takes it.
        weight (`float`, *optional*, defaults to 1):
            Weight of its loss, the paper's lambda (Alayrac et al. 2022, section 2.4, equation 2).
        batch_size (`int`, *optional*, defaults to 8): Rows per micro-batch and process.
        max_length (`int`, *optional*):
            Maximum number of tokens of a row. Required with `packing`, where it limits each document and the row that the
            documents share.
        max_images (`int`, *optional*): Maximum number of images and videos of a row.
        streaming (`bool`, *optional*, defaults to `False`):
            Whether to read rows when they are needed. Otherwise the source is opened as a whole. Both are shuffled again for
            each epoch.
        shuffle_buffer_size (`int`, *optional*):
            Maximum number of rows that each reader of a stream (a worker of a process) holds to shuffle them; on average it
            is half of them. A row comes at most this many rows later than in its file. Defaults to 1000. With 1 only the order
            of the files is shuffled, and with 0 nothing is.
        cache_features (`bool` or `"auto"`, *optional*, defaults to `False`):
            Whether to encode the images once with the frozen vision encoder before the training, and keep the features for
            this and later runs ([`DataMixture.cache_features`]). With `"auto"`, they are kept where that saves work and they fit on
            the disk ([`encode_if_worthwhile`]).
        split (`str`, *optional*): Read only files with this word in their name or folder.
        options (`dict`, *optional*): Fields of the reader, such as `{"min_similarity": 0.24}` for `"mmc4"`.
        leading_space_probability (`float`, *optional*, defaults to 0.5): See [`~data.document_to_sample`].
        next_image_probability (`float`, *optional*, defaults to 0): See [`~data.document_to_sample`].
        append_eos (`bool`, *optional*, defaults to `False`): See [`~data.document_to_sample`].

    Raises:
        ValueError: a value has the wrong type or is out of its range. The message names the source.
    """

    name: str
    format: str = field(metadata={"help": f"Layout of the files: {', '.join(FORMATS)}."})
    path: str = field(metadata={"help": "A file, a glob pattern or a folder."})
    weight: float = field(default=1.0, metadata={"help": "Weight of the loss."})
    batch_size: int = field(default=8, metadata={"help": "Rows per micro-batch and process."})
    max_length: int | None = field(default=None, metadata={"help": "Maximum number of tokens of a row."})
    max_images: int | None = field(default=None, metadata={"help": "Maximum number of images and videos of a row."})
    streaming: bool = field(
        default=False, metadata={"help": "Read rows when they are needed, not all before the training."}
    )
    shuffle_buffer_size: int | None = field(
        default=None,
        metadata={"help": "Maximum number of rows a reader of a stream holds to shuffle them (1000 if not given)."},
    )
    cache_features: bool | Literal["auto"] = field(
        default=False,
        metadata={
            "help": "Encode the images once, before the training. With auto, if that saves work and the features fit on the disk."
        },
    )
    split: str | None = field(
        default=None, metadata={"help": "Read only files with this word in their name or folder."}
    )
    options: dict[str, Any] = field(default_factory=dict, metadata={"help": "Fields of the reader, as JSON."})
    leading_space_probability: float = field(
        default=0.5, metadata={"help": "Probability that the text after an image starts with a space."}
    )
    next_image_probability: float = field(
        default=0.0, metadata={"help": "Probability that the texts of a page see the next image instead of the last."}
    )
    append_eos: bool = field(default=False, metadata={"help": "Append the end-of-sequence token."})

    def __post_init__(self):
        if not isinstance(self.name, str) or not self.name:
            raise ValueError(
                f"A data source has the name {self.name!r}. Give it one: its losses are logged under its name."
            )
        subject = f"Data source {show(self.name)}"
        errors = [f"{subject}: `{name}` is {self._show(name)}. {reason}" for name, reason in self._find_errors()]
        raise_together([ValueError(message) for message in errors])

    def _show(self, name: str) -> str:
        return show(redact_values(getattr(self, name)))

    def _find_errors(self) -> Iterator[tuple[str, str]]:
        """Yield each field that cannot have its value, and what it can have. A value of another type is not looked at further."""
        wrong = set()
        if not isinstance(self.format, str) or self.format not in FORMATS:
            wrong.add("format")
            close = difflib.get_close_matches(str(self.format), FORMATS, n=1)
            hint = f"Did you mean {close[0]!r}? " if close else ""
            yield "format", f"{hint}Known formats are {', '.join(FORMATS)}."
        words = {float: "a number", int: "a whole number", bool: "true or false", str: "a text"}
        for name, hint in get_type_hints(type(self)).items():
            try:
                type_validator(name, getattr(self, name), int | float if hint is float else hint)
            except TypeError:
                kind = next(iter(get_args(hint)), hint) if hint not in words else hint
                reason = f"Give {words.get(kind, 'a text')}."
                if name == "cache_features":
                    reason = "Give true, false or auto."
                if name == "options":
                    reason = "Give names with values, such as `--data.NAME.options.FIELD VALUE`."
                if name not in wrong:
                    yield name, reason
                wrong.add(name)
        for name, reason in self._find_values_out_of_range():
            if name not in wrong:
                wrong.add(name)
                yield name, reason
        if not wrong & {"format", "options"} and (reason := self._find_wrong_options()) is not None:
            yield "options", reason

    def _find_values_out_of_range(self) -> Iterator[tuple[str, str]]:
        def number(name: str) -> float:
            value = getattr(self, name)  # one of another type has its own message
            return value if isinstance(value, int | float) else 1

        for name in ("weight", "leading_space_probability", "next_image_probability"):
            if not math.isfinite(number(name)):
                yield name, "Give a finite number."
        if not number("weight") > 0:
            yield (
                "weight",
                "It multiplies the loss, so it must be above 0. To train without the source, remove it.",
            )
        for name in ("batch_size", "max_length", "max_images"):
            if number(name) < 1:
                yield name, "It counts rows, tokens or images: give a whole number of at least 1."
        if number("shuffle_buffer_size") < 0:
            yield "shuffle_buffer_size", "It counts rows: give a whole number, or 0 for the order of the files."
        if self.shuffle_buffer_size is not None and self.streaming is False:
            yield "shuffle_buffer_size", "Without `streaming`, all rows of a source are shuffled. Remove it."
        if self.cache_features is True and self.streaming is True:
            yield "cache_features", "The rows of a stream are not kept. Set `streaming` to false."
        for name in ("leading_space_probability", "next_image_probability"):
            if not 0 <= number(name) <= 1:
                yield name, "It is a probability: give a number from 0 to 1."

    def _find_wrong_options(self) -> str | None:
        known = [f.name for f in fields(FORMATS[self.format])]
        unknown = [name for name in self.options if name not in known]
        if unknown:
            return f"Of these, {self.format!r} has no {unknown}. Its options are {known}."
        try:
            _ = self.reader
        except ValueError as error:
            return str(error)
        return None

    @property
    def reader(self) -> Reader:
        """Return the reader of `format`, with `options`."""
        return FORMATS[self.format](**self.options)

    def load(self, *, is_held_out: bool = False) -> Dataset | RowStream:
        """
        Open the files.

        Args:
            is_held_out (`bool`, *optional*, defaults to `False`): Whether it is for the evaluation, which errors then say.

        Returns:
            `datasets.Dataset`, or a [`RowStream`] with `streaming`.

        Raises:
            ValueError: the files cannot be opened, or have no row. The message names the source.
        """
        subject = f"{HELD_OUT} {self.name!r}" if is_held_out else f"Data source {self.name!r}"
        # A fault of the evaluation is not looked for among the sources of the training, which may have the same names
        remedy = (
            f"Check {{}} of `evaluation.{self.name}`, or train without an evaluation (`--eval_strategy no`)."
            if is_held_out
            else "Continuing without it would change the mixture, so the run was stopped. Check {}, or remove the source."
        )
        try:
            reader = self.reader
            rows = (reader.open_stream if self.streaming else reader.load)(self.path, split=self.split)
            is_empty = next(iter(rows), None) is None if self.streaming else len(rows) == 0
        except Exception as error:  # each file format raises others
            cause = error.__cause__
            is_said = cause is None or str(cause) in str(error) or "corresponds to no data" in str(cause)
            cause = "" if is_said else f" {type(cause).__name__}: {cause}"
            raise ValueError(
                f"{subject} cannot be opened ({type(error).__name__}: {redact(f'{error}{cause}')}). "
                f"{remedy.format('`path`, `format` and `split`')}"
            ) from error
        if is_empty:
            kept = rows.row_filter if self.streaming else None
            reason = "" if kept is None or kept.reason is None else f" that is kept: {kept.reason}"
            raise ValueError(
                f"{subject}: there is no row in {redact(self.path)!r}{reason}. {remedy.format('`path` and `split`')}"
            )
        return rows

    def limit_length(self, positions: int | None) -> "DataSource":
        """Return this source with a `max_length` that fits into the positions of a language model (`None`: any number)."""
        limits = [limit for limit in (self.max_length, positions) if limit is not None]
        return replace(self, max_length=min(limits)) if limits else self

    def make_sample(
        self, document: list[Chunk], processor: FlamingoProcessor, rng: np.random.Generator, location: str
    ) -> dict[str, Any]:
        """
        Turn a document of this source into a sample to train on, with [`~data.document_to_sample`] and the fields above.

        Args:
            document, processor, rng, location: As there.

        Raises:
            BadSampleError: nothing can be learned from it.
        """
        return document_to_sample(
            document,
            processor,
            rng,
            location=location,
            max_length=self.max_length,
            max_images=self.max_images,
            leading_space_probability=self.leading_space_probability,
            next_image_probability=self.next_image_probability,
            append_eos=self.append_eos,
        )
