# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Demonstrations and queries of files: every layout that a training reads, and images without any text."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

from transformers.utils import logging

from ..data import FORMATS, BadSampleError, Chunk, Reader, detect_format, load_media, row_location
from ..data.columns import parse_record
from ..data.data_files import IMAGE_SUFFIXES, find_files, kind_of
from ..data.detection import UnknownLayoutError
from ..data.formats.image_classes import NoClassesError
from ..data.row_stream import RowStream
from ..utils.fingerprint import fingerprint
from ..utils.names import count_of
from .examples import Example
from .image_index import media_fingerprint
from .inputs import path_of
from .templates import QUESTION


logger = logging.get_logger(__name__)

# Layouts whose rows are an image with a text, of which a query needs the image alone
_IMAGE_ROWS = ("image_text_pairs", "image_classes", "question_answering")
# Files with fewer bytes are counted row by row before the work begins, so that the time left can be told
_MAX_COUNTED = 2**31
# More demonstrations than that are a pool, which are decoded when they are shown
_MAX_CHECKED = 1000


class Query(NamedTuple):
    """
    A row to predict.

    Args:
        position (`tuple[int, int, int]`): Its file, its row in the file, and its part of the row: the order of the output.
        id (`str`): File and row.
        image (`str`, *optional*): Path of its image, if it has one.
        question (`str`, *optional*): Its question.
        example (`Example | ValueError`): What is asked, or why it cannot be read.
    """

    position: tuple[int, int, int]
    id: str
    image: str | None
    question: str | None
    example: Example | ValueError


@dataclass(frozen=True)
class DemonstrationFiles:
    """
    Demonstrations that were read.

    Args:
        task (`str`): Their task: that which was asked for or, by default, that which their layout has.
        shots (`list[tuple]`): What [`FewShotPredictor`] takes.
        ids (`list[str]`): File and row of each.
        reason (`str`): What they were taken for, for the user.
    """

    task: str
    shots: list[tuple]
    ids: list[str]
    reason: str


def _make_reader(name: str, media_root: str | None) -> Reader:
    kind = FORMATS[name]
    # The bare question: the predictor has its own template
    options = {"template": QUESTION} if name in ("question_answering", "vqav2") else {}
    return kind(media_root=media_root, **options)


def _check_format(name: str) -> None:
    if name not in FORMATS:
        raise ValueError(f"There is no format {name!r}. Formats are {', '.join(FORMATS)}.")


def read_demonstrations(
    path: str,
    task: str | None = None,
    *,
    question: str | None = None,
    split: str | None = None,
    format: str | None = None,
    media_root: str | None = None,
) -> DemonstrationFiles:
    """
    Read demonstrations of files of any layout that has texts.

    Args:
        path, split: As in [`~data.Reader.load`].
        task (`str`, *optional*): The task. By default `"answer"` if the rows have questions, `"classify"` of images of classes, and otherwise
            `"caption"`.
        question (`str`, *optional*): The question about all images. Demonstrations without questions are answers to it.
        format (`str`, *optional*): Name of the layout, if it is not found out by itself.
        media_root (`str`, *optional*): Folder that relative paths of images start from.

    Raises:
        FileNotFoundError, ValueError: as [`~data.detect_format`]; or a row cannot be read, has no or several images, or lacks a question.
    """
    reason = f"{path}: read as {format}, as asked for"
    if format is None:
        found = detect_format(path, split, format_flag="--demonstrations_format")
        format, reason = found.format, found.describe()
    _check_format(format)
    reader = _make_reader(format, media_root)
    pairs: list[tuple[Any, str, str]] = []
    ids = []
    for row in reader.load(path, split=split):
        location = row_location(row)
        item, chunks = _single_image(reader.read(row), location)
        for chunk in chunks:
            pairs.append((item, chunk.prompt.strip(), chunk.text.strip()))
            ids.append(location)
    if question is not None and not any(own for _, own, _ in pairs):
        pairs = [(item, question, text) for item, _, text in pairs]
    with_question = sum(bool(own) for _, own, _ in pairs)
    if task is None:
        task = "answer" if with_question else "classify" if format == "image_classes" else "caption"
    if task != "answer" and with_question:
        raise ValueError(
            f"{with_question} of the {len(pairs)} demonstrations in {path!r} have a question, which the task {task!r} would not show. Use the "
            "task 'answer', or demonstrations without questions."
        )
    if task == "answer" and with_question < len(pairs):
        missing = next(id for id, (_, own, _) in zip(ids, pairs, strict=True) if not own)
        raise ValueError(
            f"{len(pairs) - with_question} of the {len(pairs)} demonstrations in {path!r} have no question, such as {missing}, and the task is "
            "'answer'. Add questions, or use the task 'caption' or 'classify'."
        )
    shots = pairs if task == "answer" else [(item, text) for item, _, text in pairs]
    return DemonstrationFiles(task, shots, ids, reason)


def check_images(read: DemonstrationFiles) -> None:
    """
    Decode the images of demonstrations, so that a damaged one is found before a model is loaded. Of a large pool most may never be shown, and
    nothing is checked.

    Raises:
        BadSampleError: one cannot be decoded. The message names its file and row.
    """
    if len(read.shots) <= _MAX_CHECKED:
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as executor:
            for _ in executor.map(load_media, (shot[0] for shot in read.shots), read.ids):
                pass


def _single_image(document: list[Chunk], location: str) -> tuple[Any, list[Chunk]]:
    """Return the only image of a document, and its chunks with a text."""
    items = [chunk.item for chunk in document if chunk.item is not None]
    chunks = [chunk for chunk in document if chunk.text]
    # In a conversation the prompt of the first answer may begin before its image
    if len(items) != 1:
        raise BadSampleError(
            f"{location}: it has {len(items)} images, but a demonstration or a query shows one. Use rows with one image each."
        )
    if len(chunks) > 1 and not all(chunk.prompt for chunk in chunks):
        raise BadSampleError(f"{location}: it has {len(chunks)} texts about one image. Use rows with one text each.")
    first = document[0]
    if chunks and first is not chunks[0] and first.prompt and len(document) > 1:
        chunks = [Chunk(chunks[0].text, None, f"{first.prompt.rstrip()}\n{chunks[0].prompt}".strip()), *chunks[1:]]
    return items[0], chunks


class QueryFiles:
    """
    Queries in files, read one after the other.

    They may be a folder of images alone; images of any layout, whose texts are not read; or, for `"answer"`, rows with questions.

    Args:
        path, split: As in [`~data.Reader.load`].
        task (`str`): The task of the predictor.
        prompt (`str`): Its prompt.
        question (`str`, *optional*): The question about all images. By default each row has its own.
        format (`str`, *optional*): Name of the layout, if it is not found out by itself.
        media_root (`str`, *optional*): Folder that relative paths of images start from.

    Attributes:
        files (`list[str]`): The files.
        reason (`str`): What they were taken for, for the user.

    Raises:
        FileNotFoundError, ValueError: there are no files, or they are of no known layout.
    """

    def __init__(
        self,
        path: str,
        task: str,
        prompt: str,
        *,
        question: str | None = None,
        split: str | None = None,
        format: str | None = None,
        media_root: str | None = None,
    ):
        self.task, self.prompt, self.question = task, prompt, question
        self.reason = f"{path}: read as {format}, as asked for"
        error: Exception | None = None
        if format is None:
            try:
                found = detect_format(path, split)
                format, self.reason = found.format, found.describe()
            except (UnknownLayoutError, NoClassesError) as unknown:
                error = unknown
        else:
            _check_format(format)
        self.is_document = format is not None and format not in _IMAGE_ROWS
        if self.is_document:
            self.reader = _make_reader(format, media_root)
            self.stream = self.reader.open_stream(path, split=split)
        else:
            self.reader = FORMATS["image_text_pairs"](media_root=media_root)
            files = find_files(path, split, media=IMAGE_SUFFIXES)
            self.stream = RowStream(files, self.reader.tar_members if kind_of(files[0]) == "tar" else None)
        self.files = self.stream.files
        self.kind = kind_of(self.files[0])
        if error is not None:
            self._check_images(path, error)
            self.reason = f"{path}: {count_of(len(self.files), 'file')} with images and no texts"

    def _check_images(self, path: str, error: Exception) -> None:
        """Raise the error of an unknown layout, if its first row has no image either."""
        try:
            row = next(self._rows(self.files[0]), None)
            if row is None:
                raise error
            self._image_of(row)
        except BadSampleError:
            raise error from None

    def _rows(self, file: str) -> Iterator[dict[str, Any]]:
        for row, _ in self.stream.read(file):
            yield row

    def _image_of(self, row: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Return the image of a row that has one, and its values."""
        if self.kind == "tar" or self.kind == "media":  # there `json` is a file beside the image
            row = {name: value for name, value in row.items() if name != "json"}
        row = parse_record(row)
        given = [name for name in IMAGE_SUFFIXES if row.get(name) is not None]
        return self.reader.require_image(row, "image", "file_name", *given), row

    def _read(self, row: dict[str, Any]) -> list[tuple[Any, str | None]]:
        """Return the images of a row with their questions."""
        if self.is_document:
            item, chunks = _single_image(self.reader.read(row), row_location(row))
            if self.task != "answer" or self.question is not None:
                return [(item, self.question)]
            return [(item, chunk.prompt.strip() or None) for chunk in chunks]
        item, values = self._image_of(row)
        if self.task != "answer" or self.question is not None:
            return [(item, self.question)]
        question = values.get("question")
        if not isinstance(question, str) or not question.strip():
            columns = [name for name in values if not name.startswith("__") and values[name] is not None]
            what = (
                f"the question is {question!r}"
                if question is not None
                else f"no value in 'question', only in {columns}"
            )
            raise BadSampleError(
                f"{row_location(row)}: {what}, and the task is 'answer'. Ask one question about all images with `--question`, or add a column "
                "'question'."
            )
        return [(item, question.strip())]

    def queries(self, index: int = 0, count: int = 1) -> Iterator[Query]:
        """
        Yield the queries of one of several processes: of whole files if there are many, otherwise of every `count`-th row.

        Args:
            index (`int`, *optional*, defaults to 0): Number of the process.
            count (`int`, *optional*, defaults to 1): Number of processes.
        """
        by_file = len(self.files) >= 4 * count
        for number, file in enumerate(self.files):
            if by_file and number % count != index:
                continue
            for row_number, row in enumerate(self._rows(file)):
                if by_file or (number + row_number) % count == index:
                    yield from self._queries_of(number, row_number, row)

    def _queries_of(self, number: int, row_number: int, row: dict[str, Any]) -> Iterator[Query]:
        location = row_location(row)
        try:
            pairs = self._read(row)
            if not pairs:
                raise BadSampleError(
                    f"{location}: it has no question. Add one, or ask one question about all images with `--question`."
                )
        except BadSampleError as error:
            yield Query((number, row_number, 0), location, None, None, error)
            return
        for part, (item, question) in enumerate(pairs):
            prompt = self.prompt if question is None else self.prompt.replace(QUESTION, question)
            id = location if part == 0 else f"{location}, question {part}"
            yield Query((number, row_number, part), location, path_of(item), question, Example(id, [item], prompt))

    def count(self) -> int | None:
        """Return the number of rows, or `None` if only reading all of them would tell."""
        if self.kind == "media":
            return len(self.files)
        if self.kind in ("tar", "arrow") or any("://" in file for file in self.files):
            return None
        if self.kind == "parquet":
            from pyarrow import parquet

            return sum(parquet.read_metadata(file).num_rows for file in self.files)
        if sum(os.path.getsize(file) for file in self.files) > _MAX_COUNTED:
            return None
        return sum(1 for file in self.files for _ in self._rows(file))

    def fingerprint(self) -> str:
        """Return a fingerprint of the files: of their places, sizes and times of the last change."""
        return fingerprint(f"{media_fingerprint(file)}\n" for file in self.files)
