# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Documents: the one form that every dataset takes.

A *document* is a list of chunks. A chunk is at most one image or video with the text that belongs to it. A reader makes
documents of the rows of one published layout, and [`document_to_sample`] makes samples for [`FlamingoDataCollator`] of them.

    [Chunk("a cat", cat), Chunk("a dog", dog)]  ->  <image>a cat<|endofchunk|><image> a dog<|endofchunk|>
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np


class Turn(NamedTuple):
    """
    A part of a turn of a conversation.

    Args:
        role (`str`, *optional*): Its role, if it begins a turn. `None` continues the turn before it.
        text (`str`, *optional*, defaults to `""`): Its text.
        has_image (`bool`, *optional*, defaults to `False`): Whether it is the image or video of its chunk.
    """

    role: str | None
    text: str = ""
    has_image: bool = False


class Piece(NamedTuple):
    """
    A part of a document as text, with its marker and its end. A sample is cut between pieces.

    Args:
        text (`str`): The text, with the marker of `item` at its beginning.
        supervised_from (`int`): The first character that is supervised; the end of the text if nothing of it is.
        item: The image or video, as in [`Chunk`].
        is_context (`bool`): Whether it is text before the first image, without a prompt: it can be removed.
    """

    text: str
    supervised_from: int
    item: Any
    is_context: bool

    @property
    def is_supervised(self) -> bool:
        """Tell whether any of the text is supervised."""
        return self.supervised_from < len(self.text)


@dataclass(frozen=True)
class Chunk:
    """
    At most one image or video, and the text that belongs to it.

    Args:
        text (`str`): The supervised text. `<|endofchunk|>` follows it, unless it is empty.
        item (*optional*):
            An image, as anything that [`decode_image`] takes, a video as a list of frames, or the vision features of
            either, a `torch.Tensor` of shape `(F, P, Dv)`. Its `<image>` comes before the prompt.
        prompt (`str`, *optional*, defaults to `""`):
            Text between the marker and `text` that is not supervised, such as a question. A chunk may have a prompt and
            no text.
        turns (`tuple[Turn]`, *optional*, defaults to `()`):
            What the chunk holds of a conversation, for chat templates other than that of few-shot prompts, which `prompt` and
            `text` follow.
        alternatives (`tuple[str]`, *optional*, defaults to `()`):
            Other texts for the same image, such as further captions. Each time a sample is made, one of them or `text` is drawn.
    """

    text: str
    item: Any = None
    prompt: str = ""
    turns: tuple[Turn, ...] = ()
    alternatives: tuple[str, ...] = ()


def draw_texts(document: list[Chunk], rng: np.random.Generator | None) -> list[Chunk]:
    """
    Draw one text of each chunk that has `alternatives`.

    Args:
        document (`list[Chunk]`): The document.
        rng (`numpy.random.Generator`, *optional*): Draws. Without it, the text is the first, `text`.
    """
    return [
        replace(chunk, text=_draw((chunk.text, *chunk.alternatives), rng), alternatives=())
        if chunk.alternatives
        else chunk
        for chunk in document
    ]


def _draw(texts: tuple[str, ...], rng: np.random.Generator | None) -> str:
    return texts[0 if rng is None else int(rng.integers(len(texts)))]


def interleave(parts: Iterable[Any], separator: str) -> list[Chunk]:
    """
    Make a document of texts and media in reading order: an image belongs to the text after it, up to the next image.

    Args:
        parts: Strings, and media as in [`Chunk`]. A path must be in a dict, as [`Reader.resolve_path`] returns it.
        separator (`str`): Joins two strings with no image between them.

    Raises:
        ValueError: a part is `None`.
    """
    document: list[Chunk] = []
    for part in parts:
        if part is None:
            raise ValueError("A part of a document is None. Remove it, or give the image.")
        if not isinstance(part, str):
            document.append(Chunk("", part))
        elif part.strip():
            chunk = document.pop() if document else Chunk("")
            document.append(replace(chunk, text=chunk.text + separator * bool(chunk.text) + part.strip()))
    return document
