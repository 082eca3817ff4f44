# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Conversations in the message format of TRL and of chat templates."""

from dataclasses import dataclass, replace
from typing import Any

from ..columns import parse_record, require_list, row_location
from ..documents import Chunk
from ..errors import BadSampleError
from ..reader import Reader


def messages_to_document(messages: list[tuple[str, list[Any]]], location: str) -> list[Chunk]:
    """
    Turn messages into a document.

    The messages of the assistant are supervised, and everything else is not. The text is that of the processor's chat
    template, so that a model is asked as it was trained. Anything after the last answer is dropped.

    Args:
        messages (`list[tuple[str, list]]`): Pairs of a role and the parts of a message, each a string, or an image or
            video as in [`Chunk`].
        location (`str`): File and row, for error messages.

    Raises:
        BadSampleError: a message of the assistant is empty, or has anything but text.
    """
    document, chunk = [], Chunk("")
    last = ""  # last part of the previous message, "" after an answer
    for role, parts in messages:
        if role == "assistant":
            answer = "".join(part for part in parts if isinstance(part, str))
            if not all(isinstance(part, str) for part in parts) or not answer.strip():
                raise BadSampleError(
                    f"{location}: a message of the assistant is {parts!r} instead of a text. Fix the row, or remove it."
                )
            gap = " " * (isinstance(last, str) and last != "" and not last[-1].isspace() and not answer[0].isspace())
            document.append(replace(chunk, text=gap + answer))
            chunk, last = Chunk(""), ""
            continue
        if last != "" and not (isinstance(last, str) and last[-1].isspace()):
            parts = ["\n", *parts]
        for part in parts:
            if isinstance(part, str):
                chunk = replace(chunk, prompt=chunk.prompt + part)
            else:
                if chunk.item is not None or chunk.prompt:
                    document.append(chunk)
                chunk = Chunk("", part)
            last = part
    return document


@dataclass(frozen=True)
class Messages(Reader):
    """
    Reader of conversations as TRL trains on them, in `.parquet`, `.jsonl` or `.json`. The columns are

        messages   [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
                    {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}, ...]
        images     [image, ...], embedded or paths, for the parts of type image in their order; or `image`, a single one

    `content` may be a string. If no message marks an image, the images come before the first message of the user, as in
    TRL. The messages of the assistant are supervised.
    """

    def _document(self, row: dict[str, Any]) -> list[Chunk]:
        row = parse_record(row)
        if row.get("image") is not None and row.get("images") is not None:
            raise BadSampleError(f"{row_location(row)}: it has both 'image' and 'images'. Remove one of them.")
        if row.get("images") is not None:
            images = require_list(row, "images")
        else:
            images = [] if row.get("image") is None else [row["image"]]
        images = [self.resolve_path(image, row) for image in images]
        messages = [(message["role"], self._parts(message, row)) for message in require_list(row, "messages")]
        unknown = sorted({role for role, _ in messages} - {"system", "user", "assistant"})
        if unknown:
            raise BadSampleError(
                f"{row_location(row)}: a message of the role {unknown[0]!r}. Known roles are system, user and assistant."
            )
        marked = sum(part is None for _, parts in messages for part in parts)
        if images and not marked:
            first = next((parts for role, parts in messages if role == "user"), [])
            first[:0] = [None] * len(images)
            marked = len(images)
        if marked != len(images):
            raise BadSampleError(
                f"{row_location(row)}: {marked} parts of type image in 'messages' and {len(images)} images, so it is "
                "unknown which part an image belongs to. Fix the row, or remove it."
            )
        rest = iter(images)
        filled = [(role, [next(rest) if part is None else part for part in parts]) for role, parts in messages]
        return messages_to_document(filled, row_location(row))

    @staticmethod
    def _parts(message: dict[str, Any], row: dict[str, Any]) -> list[str | None]:
        """Return the texts of a message, and `None` for each image."""
        content = message["content"]
        if isinstance(content, str):
            return [content]
        unknown = sorted({part["type"] for part in content} - {"text", "image"})
        if unknown:
            raise BadSampleError(
                f"{row_location(row)}: a part of type {unknown[0]!r}. Known types are text and image."
            )
        if any(part["type"] == "text" and not isinstance(part["text"], str) for part in content):
            raise BadSampleError(f"{row_location(row)}: a part of type text without a text.")
        return [part["text"] if part["type"] == "text" else None for part in content]
