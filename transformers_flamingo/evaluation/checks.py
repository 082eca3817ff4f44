# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Checks of a task, its data and a model, before an evaluation computes anything."""

import os
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import torch

from ..data import VideoSegment
from ..data.media_files import check_media_file
from ..few_shot.examples import Example
from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor
from ..utils.fingerprint import fingerprint
from ..utils.literal_text import special_token_spans
from ..utils.names import count_of
from .config import ALL, EvaluationConfig
from .task import Prediction, Task


def check_task(task: Task, queries: Sequence[Example], support: Sequence[Example], config: EvaluationConfig) -> None:
    """
    Check that queries have unique ids and can be answered, and that there are enough demonstrations.

    Raises:
        ValueError: an id occurs twice, a query lacks candidates, or there are too few demonstrations.
    """
    if not queries:
        raise ValueError(f"{task.name} has no queries, so there is nothing to score. Check its files and its split.")
    repeated = _repeated_ids(queries)
    if repeated:
        raise ValueError(
            f"{task.name} has {count_of(len(queries), 'query', 'queries')}, of which {len(repeated)} share an id with others, such as {repeated[0]!r}. "
            "Predictions are kept by id, so each query needs a unique id."
        )
    repeated = _repeated_ids(support)
    if repeated:
        raise ValueError(
            f"{task.name} has {count_of(len(support), 'example')} to show, of which {len(repeated)} share an id with others, such as {repeated[0]!r}. "
            "Images are kept by id, so each example needs a unique id."
        )
    most = max(max(config.shots), task.num_text_demonstrations if 0 in config.shots else 0)
    available = len(support) if config.support_size == ALL else min(len(support), config.support_size)
    if most > available:
        raise ValueError(
            f"{most} demonstrations are asked for, and {task.name} has {available} to choose from. Ask for fewer."
        )
    checked: dict[int, list[str]] = {}
    for query in queries if task.generation is None else ():
        if not query.candidates:
            raise ValueError(
                f"{task.name} ranks candidates, and query {query.id!r} has none. Correct it, or remove it."
            )
        if not _is_new(checked, query.candidates):
            continue
        if not all(isinstance(candidate, str) and candidate for candidate in query.candidates):
            raise ValueError(
                f"{task.name}: query {query.id!r} has an empty candidate: {query.candidates!r}. Remove it."
            )


def _repeated_ids(examples: Sequence[Example]) -> list[str]:
    return sorted(id for id, count in Counter(example.id for example in examples).items() if count > 1)


def _is_new(seen: dict[int, list[str]], candidates: list[str]) -> bool:
    """
    Return whether a list was not seen before. The 1,000 names of ImageNet are one list, which 1.3 million examples share.

    `seen` holds the lists, so that no other can get the place in memory by which one is known.
    """
    if id(candidates) in seen:
        return False
    seen[id(candidates)] = candidates
    return True


def check_references(task: Task, queries: Sequence[Example]) -> None:
    """
    Check that every query can be scored, by scoring an empty answer. A missing reference would otherwise end a run after hours.

    Raises:
        ValueError: a query cannot be scored. The message names it.
    """
    blank = [Prediction(query, "", [0.0] * len(query.candidates) if query.candidates else None) for query in queries]
    for prediction in blank:
        try:
            is_mean = task.score_each([prediction]) is not None
        except ValueError as error:
            raise ValueError(f"{task.name}, query {prediction.example.id!r} cannot be scored: {error}") from error
        if not is_mean:
            task.score(blank)
            return


def check_media(task: Task, examples: Iterable[Example]) -> None:
    """
    Check that the files of all images and videos exist, and may be read.

    Raises:
        FileNotFoundError: some are missing.
        ValueError: one is not a file that may be read. The message names the example.
        ImportError: there are videos, and PyAV is not installed.
    """
    missing, has_videos = set(), False
    for example in examples:
        for item in example.media:
            has_videos |= isinstance(item, VideoSegment)
            for frame in item if isinstance(item, list | tuple) else [item]:
                if (path := _path(frame)) is None:
                    continue
                if "://" not in path and not os.path.exists(path):
                    missing.add(path)
                    continue
                try:
                    check_media_file(path)
                except (OSError, ValueError) as error:
                    raise ValueError(
                        f"{task.name}, example {example.id!r}: {str(path)!r} cannot be read ({error}). Nothing was computed."
                    ) from error
    if missing:
        raise FileNotFoundError(
            f"{task.name}: {count_of(len(missing), 'image or video', 'images or videos')} cannot be found, such as {', '.join(sorted(missing)[:5])}. Nothing was "
            "computed. Fetch them, or check the folder of the task."
        )
    if has_videos:
        try:
            import av  # noqa: F401
        except ImportError as error:
            raise ImportError("Reading video files needs PyAV: pip install 'transformers-flamingo[video]'.") from error


def _path(item: Any) -> str | None:
    """Return the path or address of an item, if it has one."""
    if isinstance(item, VideoSegment):
        item = item.path
    if isinstance(item, dict):
        item = item.get("path") if item.get("bytes") is None else None
    if isinstance(item, str):  # unchanged: a `MediaPath` holds what its source allows
        return item
    return str(item) if isinstance(item, os.PathLike) else None


def check_texts(task: Task, processor: FlamingoProcessor, examples: Iterable[Example]) -> None:
    """
    Check that no text of the data contains a special token, which would be read as a marker or as an end.

    Raises:
        ValueError: a text contains one. The message names the example.
    """
    checked: set[str] = set()
    seen: dict[int, list[str]] = {}
    for example in examples:
        texts = {example.prompt, example.answer or ""}
        if example.candidates is not None and _is_new(seen, example.candidates):
            texts |= set(example.candidates)
        for text in texts - checked:
            _check_text(task, processor, example, text)
        checked |= texts


def _check_text(task: Task, processor: FlamingoProcessor, example: Example, text: str) -> None:
    spans = special_token_spans(processor, text)
    if spans:
        start, end = spans[0]
        raise ValueError(
            f"{task.name}, example {example.id!r}: the text {text!r} contains {text[start:end]!r}, which would be read as a special "
            "token: a marker without an image, or the end of a text that continues. Remove it from the data."
        )


def check_model(model: FlamingoModel) -> None:
    """
    Check that all weights are finite. A model with NaN ranks the first candidate first, which would look like a real score.

    Raises:
        ValueError: a weight is NaN or infinite.
    """
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and tensor.element_size() > 1 and not bool(torch.isfinite(tensor).all()):
            raise ValueError(
                f"The weights in {name!r} are not all finite numbers, so every score would be meaningless. Use another checkpoint."
            )


def fingerprint_examples(examples: Iterable[Example]) -> str:
    """
    Return the fingerprint of data: of the texts of all examples, and of size and time of the last change of their media files.
    Of drawn images and images at an address only the number counts. Candidates that examples share are read once.
    """
    known: dict[int, tuple[list[str], str]] = {}  # with the list, so that no other gets its place in memory

    def candidates(example: Example) -> str | None:
        if example.candidates is None:
            return None
        if id(example.candidates) not in known:
            known[id(example.candidates)] = example.candidates, fingerprint([repr(example.candidates)])
        return known[id(example.candidates)][1]

    return fingerprint(
        repr(
            (e.id, e.prompt, e.answer, e.references, candidates(e), e.group, [_media_stamp(item) for item in e.media])
        )
        for e in examples
    )


def _media_stamp(item: Any) -> Any:
    """Return a value that changes when an image or video of an [`Example`] is replaced."""
    if isinstance(item, VideoSegment):
        return item.start, item.end, item.num_frames, _media_stamp(item.path)
    if isinstance(item, list | tuple):
        return [_media_stamp(frame) for frame in item]
    if isinstance(item, dict):
        data = item.get("bytes")
        return _media_stamp(item.get("path")) if data is None else (len(data), zlib.crc32(data))
    if isinstance(item, str | os.PathLike):
        try:
            status = os.stat(item)
        except (OSError, ValueError):  # an address, or base64
            return None
        return status.st_size, status.st_mtime_ns
    return None
