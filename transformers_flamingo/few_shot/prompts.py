# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Few-shot prompts: a text in two parts, and the images and videos that it shows."""

import os
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..data import VideoSegment
from ..processing_flamingo import FlamingoProcessor
from .examples import Example


@dataclass(frozen=True)
class MediaItem:
    """
    An image or video in a prompt.

    Args:
        key (`Hashable`): Its identity. Items with the same key are encoded once.
        data (`Any`): What [`load_media`] takes: an image in any form, a list of frames, or a [`VideoSegment`].
        location (`str`, *optional*): Where it is from, for error messages.
    """

    key: Hashable
    data: Any = field(compare=False, repr=False)
    location: str = field(compare=False, default="A prompt")


@dataclass(frozen=True)
class Prompt:
    """
    A prompt, `prefix + query`, with one `<image>` for each item of media.

    Args:
        prefix (`str`): The demonstrations. It ends with a `<|endofchunk|>` and the separator before the query.
        query (`str`): The text to continue.
        prefix_media, query_media (`tuple[MediaItem, ...]`, *optional*): The images and videos of both.
    """

    prefix: str
    query: str
    prefix_media: tuple[MediaItem, ...] = ()
    query_media: tuple[MediaItem, ...] = ()

    @property
    def text(self) -> str:
        """Return the whole text."""
        return self.prefix + self.query

    @property
    def media(self) -> tuple[MediaItem, ...]:
        """Return the images and videos of the whole text."""
        return self.prefix_media + self.query_media


def media_of(example: Example, kind: str) -> list[MediaItem]:
    """Return the media of an example. `kind` is its split, such as `"query"`: ids are unique within a split only."""
    name = "demonstration" if kind == "support" else kind
    return [MediaItem((kind, example.id, i), data, f"{name} {example.id!r}") for i, data in enumerate(example.media)]


def media_identity(data: Any) -> Hashable | None:
    """Return what tells an image or video in a file or at an address from others; `None` for one that is given as data."""
    if isinstance(data, VideoSegment):
        path = media_identity(data.path)
        return path and (path, data.start, data.end, data.num_frames)
    if isinstance(data, list | tuple):
        frames = tuple(map(media_identity, data))
        return frames if frames and None not in frames else None
    if isinstance(data, dict):
        return media_identity(data.get("path")) if data.get("bytes") is None else None
    return os.fspath(data) if isinstance(data, str | os.PathLike) else None


def build_prompt(
    processor: FlamingoProcessor,
    query: Example,
    demonstrations: Sequence[Example],
    *,
    separator: str = "",
    text_only: bool = False,
) -> Prompt:
    """
    Build the few-shot prompt for a query (paper, section 2.5).

        <image>{prompt}{answer}<|endofchunk|>{separator} ... <image>{prompt}

    Args:
        processor ([`FlamingoProcessor`]): Has the special tokens.
        query ([`Example`]): The example to answer.
        demonstrations (`Sequence[Example]`): The examples before it.
        separator (`str`, *optional*, defaults to `""`): Text after the `<|endofchunk|>` of each demonstration.
        text_only (`bool`, *optional*, defaults to `False`):
            Whether demonstrations are shown without their images and `<image>` tokens. This is the "0-shot" prompt of the paper
            and of OpenFlamingo, which shows the form of an answer.
    """
    shots, media = [], []
    for shown in demonstrations:
        items = [] if text_only else media_of(shown, "support")
        shots.append((len(items), shown.prompt + shown.answer))
        media += items
    query_media = media_of(query, "query")
    texts = processor.few_shot_text(shots, (len(query_media), query.prompt), separator)
    return Prompt(*texts, tuple(media), tuple(query_media))
