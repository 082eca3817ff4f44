# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Conversations in the message format of TRL and of chat templates."""

from dataclasses import dataclass
from typing import Any

from ...messages_flamingo import check_messages
from ...utils.names import count_of
from ..columns import parse_record, require_list, row_location
from ..conversations import messages_to_document
from ..documents import Chunk
from ..errors import BadSampleError
from ..reader import Column, Reader


# The keys of a part of type image that has its own
_IMAGE_KEYS = ("image", "path", "url", "image_url")

IMAGES = Column(
    ("images", "image"),
    "a list of images, embedded or paths, for the parts of type image in their order; or a single one",
    is_required=False,
)


@dataclass(frozen=True)
class Messages(Reader):
    """
    Reader of conversations as TRL trains on them, in `.parquet`, `.jsonl` or `.json`. The columns are

        messages   [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
                    {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}, ...]
        images     [image, ...], embedded or paths, for the parts of type image in their order; or `image`, a single one

    `content` may be a string, and a part of type image may have its own image, `{"type": "image", "image": "cat.jpg"}`. If no message
    marks an image, the images come before the first message of the user, as in TRL. The messages of the assistant are supervised. The
    chat template of the processor renders the text.

    Args:
        images_first (`bool`, *optional*): Whether the images of a message of the user come before its texts. By default those of
            messages that begin with a text, as in [`~FlamingoProcessor.apply_chat_template`].
    """

    images_first: bool | None = None

    columns = (
        Column(("messages",), 'a list of `{"role": "user" or "assistant" or "system", "content": ...}`'),
        IMAGES,
    )

    def _document(self, row: dict[str, Any]) -> list[Chunk]:
        row = parse_record(row)
        messages = read_messages(self, row, require_list(row, "messages"))
        return messages_to_document(messages, row_location(row), images_first=self.images_first)


def read_messages(reader: Reader, row: dict[str, Any], messages: list[dict[str, Any]]) -> list[tuple[str, list[Any]]]:
    """
    Read the messages of a row, with its images in their places.

    Args:
        reader ([`Reader`]): Resolves the paths of the images.
        row (`dict`): The row, with `images` or `image`.
        messages (`list[dict]`): The messages.

    Returns:
        `list[tuple[str, list]]`: what [`~data.conversations.messages_to_document`] takes.

    Raises:
        BadSampleError: a role or a part is unknown, or the images do not fit the parts.
    """
    if row.get("image") is not None and row.get("images") is not None:
        raise BadSampleError(f"{row_location(row)}: it has both 'image' and 'images'. Remove one of them.")
    if row.get("images") is not None:
        images = require_list(row, "images")
    else:
        images = [] if row.get("image") is None else [row["image"]]
    images = [reader.resolve_path(image, row) for image in images]
    try:
        check_messages(messages)
    except ValueError as error:
        raise BadSampleError(f"{row_location(row)}: {error} Fix the row, or remove it.") from error
    read = [(message["role"], _parts(reader, message, row)) for message in messages]
    unknown = sorted({role for role, _ in read} - {"system", "user", "assistant"})
    if unknown:
        raise BadSampleError(
            f"{row_location(row)}: a message of the role {unknown[0]!r}. Known roles are system, user and assistant."
        )
    marked = sum(part is None for _, parts in read for part in parts)
    if images and not marked:
        first = next((parts for role, parts in read if role == "user"), [])
        first[:0] = [None] * len(images)
        marked = len(images)
    if marked != len(images):
        raise BadSampleError(
            f"{row_location(row)}: {count_of(marked, 'part')} of type image in the messages and {count_of(len(images), 'image')}, so it is "
            "unknown which part an image belongs to. Fix the row, or remove it."
        )
    rest = iter(images)
    return [(role, [next(rest) if part is None else part for part in parts]) for role, parts in read]


def _parts(reader: Reader, message: dict[str, Any], row: dict[str, Any]) -> list[Any]:
    """Return the texts of a message and the images of its own, and `None` for each image of the row."""
    content = message["content"]
    if isinstance(content, str):
        return [content]
    parts = []
    for part in content:
        if part["type"] == "text":
            parts.append(part["text"])
        elif part["type"] in ("image", "image_url"):
            image = next((part[key] for key in _IMAGE_KEYS if part.get(key) is not None), None)
            if part["type"] == "image_url" and isinstance(image, dict):  # of OpenAI
                image = image.get("url")
            parts.append(None if image is None else reader.resolve_path(image, row))
        else:
            raise BadSampleError(
                f"{row_location(row)}: a part of type {part['type']!r}. Known types are text and image."
            )
    return parts
