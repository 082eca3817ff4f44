# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Read the rows of a source as a training would, without a model, and count what there is to know about them."""

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import torch
from tqdm.auto import tqdm

from ..cards.contact_sheet import Tile, image_of_pixels
from ..data import BadSampleError, Chunk, row_location
from ..data.data_collator import FlamingoDataCollator
from ..data.detection import look_at
from ..data.row_stream import RowStream
from ..data.samples import adds_special_tokens
from ..processing_flamingo import FlamingoProcessor
from ..utils.redaction import explain, one_line, redact
from ..visibility_flamingo import compute_media_index, find_markers
from .data_source import DataSource
from .held_out import make_held_out_sample, refuse_stream
from .text_checks import Answers, select_rows, without_media
from .unknown_words import UnknownWords


#: Messages that are kept of a source.
MAX_MESSAGES = 10_000


class SeenText(NamedTuple):
    """
    Consecutive tokens of a row that see the same image.

    Args:
        image (`int`): The image that they see, from 1; 0 for none.
        is_learned (`bool`): Whether they are supervised.
        tokens (`int`): Their number.
        text (`str`): Their text, as the tokenizer decodes it.
    """

    image: int
    is_learned: bool
    tokens: int
    text: str


@dataclass(frozen=True)
class SeenRow:
    """
    A row as the model will see it.

    Args:
        location (`str`): Its file and place.
        text (`str`): Its text, before the tokenizer.
        texts (`list[SeenText]`): Its text, after the tokenizer.
        images (`list[str]`): What its images are, such as `"64 x 64"`.
        tiles (`list[Tile]`): Its images, as the vision encoder will get them.
    """

    location: str
    text: str
    texts: list[SeenText]
    images: list[str]
    tiles: list[Tile]


class SourceCheck:
    """
    Findings of [`check_source`] about a source.

    Attributes:
        total (`int`): Number of rows; `None` for a stream that was not read to its end.
        rows, images, videos, tokens, truncated (`int`): Numbers of rows that were read, of what is in the good ones, and of those
            that are cut to `max_length` and `max_images`.
        longest (`int`): Tokens of the longest row, before it is cut.
        words, read_words ([`UnknownWords`]):
            Supervised tokens, and the others except markers, such as those of questions; and the unknown ones among them.
        answers ([`Answers`]): Different texts to learn.
        repeated (`int`): Rows that are there before, with the same text and images.
        repetition (`str`, *optional*): The first of them.
        shared (`int`): Different images that are in several rows.
        num_bad (`int`): Number of rows that cannot be used.
        bad (`list[str]`): A message for each of them, for `MAX_MESSAGES` at most.
        failure (`str`, *optional*): Why the source cannot be opened, or not be read to its end.
        first (`list[SeenRow]`): The first good rows.
    """

    def __init__(self, source: DataSource, processor: FlamingoProcessor, is_held_out: bool = False):
        self.source, self.processor, self.is_held_out = source, processor, is_held_out
        self.total: int | None = None
        self.rows = self.images = self.videos = self.tokens = self.truncated = self.longest = self.repeated = (
            self.num_bad
        ) = 0
        self.words, self.read_words, self.answers = UnknownWords(processor), UnknownWords(processor), Answers()
        self.bad: list[str] = []
        self.failure: str | None = None
        self.repetition: str | None = None
        self.first: list[SeenRow] = []
        self.rows_of_images: Counter[bytes] = Counter()  # by digest of the pixels
        self._digests: set[bytes] = set()
        self._size: tuple[int, ...] | None = None
        self._collator = FlamingoDataCollator(processor)
        self._reader = source.reader
        self._whole_source = replace(source, max_length=None, max_images=None)

    @property
    def name(self) -> str:
        """Return the name of the source in a recipe."""
        return f"{'evaluation' if self.is_held_out else 'data'}.{self.source.name}"

    @property
    def good(self) -> int:
        """Return the number of rows that can be trained on."""
        return self.rows - self.num_bad

    @property
    def shared(self) -> int:
        """Return the number of different images that are in several rows."""
        return sum(count > 1 for count in self.rows_of_images.values())

    def add_row(self, row: dict[str, Any], *, num_shown: int) -> None:
        """
        Count a row.

        Args:
            row (`dict`): A row of the source.
            num_shown (`int`): How many of the first rows are kept as the model will see them.
        """
        location = redact(row_location(row))
        self.rows += 1
        try:
            document = self._reader.read(row)
            sample = self._make_sample(self.source, document, location)
            batch = self._collate(sample, location)
        except BadSampleError as error:
            self.num_bad += 1
            if len(self.bad) < MAX_MESSAGES:
                self.bad.append(one_line(str(error), 1000))
            return
        length = int(batch["attention_mask"].sum())
        self._count_cut(document, sample, length, location)
        self._count_repetitions(document, sample, location)
        self.tokens += length
        self.videos += sum(isinstance(item, list) for item in sample["images"])
        self.images += sum(not isinstance(item, list) for item in sample["images"])
        learned, token_ids = batch["labels"][0], batch["input_ids"][0]
        self.words.add(sample, learned)
        is_read = (learned == -100) & ~torch.isin(token_ids, torch.tensor(self.processor.image_token_ids))
        self.read_words.add({**sample, "supervised": []}, token_ids.where(is_read, -100))
        self.answers.add(sample, self.processor.end_of_chunk_token)
        if len(self.first) < num_shown:
            self.first.append(self._show(sample, batch, location))

    def _make_sample(self, source: DataSource, document: list[Chunk], location: str) -> dict[str, Any]:
        try:
            if self.is_held_out:
                return make_held_out_sample(source, document, self.processor, location)
            return source.make_sample(document, self.processor, np.random.default_rng(self.rows), location)
        except BadSampleError:
            raise
        # An option that does not fit the rows, or a tokenizer that refuses a text, with an error of its own type. They stop a
        # training even where bad rows are skipped
        except Exception as error:
            raise BadSampleError(f"{location}: it cannot be trained on ({explain(error)})") from error

    def _collate(self, sample: dict[str, Any], location: str) -> dict[str, Any]:
        try:
            batch = self._collator([sample])
        # Each image processor has its own types of errors for the images that it does not take
        except Exception as error:
            raise BadSampleError(f"{location}: it cannot be collated ({explain(error)})") from error
        if "pixel_values" in batch:
            size = tuple(batch["pixel_values"].shape[-3:])
            self._size = self._size or size
            if size != self._size:
                raise BadSampleError(
                    f"{location}: the image processor makes pixels of shape {size}, and {self._size} of the rows before, so they cannot "
                    "be in one batch. Set a fixed `size` or crop in the image processor."
                )
        return batch

    def _count_cut(self, document: list[Chunk], sample: dict[str, Any], length: int, location: str) -> None:
        """Compare a sample with that of a source without budgets, whose random draws are the same."""
        if self.source.max_length is None and self.source.max_images is None:
            self.longest = max(self.longest, length)
            return
        whole = self._make_sample(self._whole_source, without_media(document), location)
        self.truncated += whole["text"] != sample["text"]
        encoded = self.processor.tokenizer(whole["text"], add_special_tokens=adds_special_tokens(whole), verbose=False)
        self.longest = max(self.longest, len(encoded["input_ids"]))

    def _count_repetitions(self, document: list[Chunk], sample: dict[str, Any], location: str) -> None:
        images = [_digest(item) for item in sample["images"]]
        self.rows_of_images.update(set(images))
        texts = [f"{chunk.item is not None}\0{chunk.prompt}\0{chunk.text}" for chunk in document]
        digest = hashlib.blake2b("\0".join(texts).encode() + b"".join(images), digest_size=16).digest()
        if digest in self._digests:
            self.repeated += 1
            self.repetition = self.repetition or location
        self._digests.add(digest)

    def _show(self, sample: dict[str, Any], batch: dict[str, Any], location: str) -> SeenRow:
        token_ids, learned = batch["input_ids"], batch["labels"][0] != -100
        learned[0] = False  # it is never predicted
        markers = find_markers(token_ids, None, batch["attention_mask"], self.processor.image_token_ids, None)
        seen = compute_media_index(markers)[0]
        changes = (seen.diff() != 0) | learned.diff()
        starts = [0, *(changes.nonzero().flatten() + 1).tolist(), len(seen)]
        texts = [
            SeenText(
                int(seen[start]),
                bool(learned[start]),
                end - start,
                self.processor.tokenizer.decode(token_ids[0, start:end], clean_up_tokenization_spaces=False),
            )
            for start, end in itertools.pairwise(starts)
        ]
        names, tiles = [], []
        for number, item in enumerate(sample["images"], 1):
            frame = item[0] if isinstance(item, list) else item
            size = f"{frame.width} x {frame.height}"
            names.append(f"{len(item)} frames of {size}" if isinstance(item, list) else size)
            what = f"video {number}, {len(item)} frames" if isinstance(item, list) else f"image {number}, {size}"
            text = " ".join(part.text for part in texts if part.image == number and part.is_learned)
            text = text.replace(self.processor.end_of_chunk_token, " ")
            image = self._image_of(batch["pixel_values"][0, number - 1])
            tiles.append(Tile(image, text, f"row {self.rows - 1}, {what}"))
        return SeenRow(location, sample["text"], texts, names, tiles)

    def _image_of(self, pixels: torch.Tensor) -> PIL.Image.Image:
        """Return what the vision encoder gets as an image, of a video the first frame."""
        images = self.processor.image_processor
        is_normalized = getattr(images, "do_normalize", False)
        mean, std = (getattr(images, name, None) if is_normalized else None for name in ("image_mean", "image_std"))
        return image_of_pixels((pixels[0] if pixels.ndim == 4 else pixels).numpy(), mean, std)


def check_source(
    source: DataSource,
    processor: FlamingoProcessor,
    *,
    is_held_out: bool = False,
    max_rows: int | None = None,
    num_shown: int = 12,
) -> SourceCheck:
    """
    Read the rows of a source as a training would, or as an evaluation would, without a model.

    Args:
        source ([`DataSource`]): The source.
        processor ([`FlamingoProcessor`]): Of the model that is to be trained.
        is_held_out (`bool`, *optional*, defaults to `False`): Whether it is for the evaluation.
        max_rows (`int`, *optional*): Maximum number of rows, spread over the source, or the first ones of a stream. By default all.
        num_shown (`int`, *optional*, defaults to 12): How many of the first rows are kept as the model will see them.

    Returns:
        [`SourceCheck`]: what was found. Errors are in it, too.
    """
    check = SourceCheck(source, processor, is_held_out)
    for row in tqdm(_iterate(check, max_rows), total=max_rows, desc=check.name, disable=None, leave=False):
        check.add_row(row, num_shown=num_shown)
    if check.total is None and check.failure is None and (max_rows is None or check.rows < max_rows):
        check.total = check.rows
    return check


def readable_formats(source: DataSource) -> list[str]:
    """Return the formats that can read one of the first rows of a source."""
    return [look.name for look in look_at(source.path, source.split) if look.fits]


def _iterate(check: SourceCheck, max_rows: int | None) -> Iterator[dict[str, Any]]:
    """Yield rows of a source, and note an error that ends it."""
    try:
        if check.is_held_out:
            refuse_stream(check.source)
        rows = check.source.load(is_held_out=check.is_held_out)
        check.total = None if isinstance(rows, RowStream) else len(rows)
        yield from select_rows(rows, max_rows)
    # Each file format and file system raises its own types of errors
    except Exception as error:
        check.failure = one_line(str(error), 1000) if isinstance(error, ValueError) else explain(error, 1000)


def _digest(item: PIL.Image.Image | list[PIL.Image.Image]) -> bytes:
    """Return a digest of the pixels of an image or video, whatever its file."""
    state = hashlib.blake2b(digest_size=16)
    for frame in item if isinstance(item, list) else [item]:
        state.update(f"{frame.mode}{frame.size}".encode() + frame.tobytes())
        if frame.mode == "P":
            state.update(bytes(frame.getpalette() or []))
    return state.digest()
