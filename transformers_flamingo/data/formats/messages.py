# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Conversations in the message format of TRL and of chat templates."""

from dataclasses import dataclass
from typing import Any

from ...messages_flamingo import check_messages
from ..columns import parse_record, require_list, row_location
from ..conversations import messages_to_document
from ..documents import Chunk
from ..errors import BadSampleError
from ..reader import Reader


@dataclass(frozen=True)
class Messages(Reader):
    """
    Reader of conversations as TRL trains on them, in `.parquet`, `.jsonl` or `.json`. The columns are

        messages   [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
                    {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]}, ...]
        images     [image, ...], embedded or paths, for the parts of type image in their order; or `image`, a single one

    `content` may be a string. If no message marks an image, the images come before the first message of the user, as in
    TRL. The messages of the assistant are supervised. The chat template of the processor renders the text.

    Args:
        images_first (`bool`, *optional*): Whether the images of a message of the user come before its texts. By default those of
            messages that begin with a text, as in [`~FlamingoProcessor.apply_chat_template`].
    """

    images_first: bool | None = None

    def _document(self, row: dict[str, Any]) -> list[Chunk]:
        row = parse_record(row)
        if row.get("image") is not None and row.get("images") is not None:
            raise BadSampleError(f"{row_location(row)}: it has both 'image' and 'images'. Remove one of them.")
        if row.get("images") is not None:
            images = require_list(row, "images")
        else:
            images = [] if row.get("image") is None else [row["image"]]
        images = [self.resolve_path(image, row) for image in images]
        messages = require_list(row, "messages")
        try:
            check_messages(messages)
        except ValueError as error:
            raise BadSampleError(f"{row_location(row)}: {error} Fix the row, or remove it.") from error
        messages = [(message["role"], self._parts(message, row)) for message in messages]
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
        return messages_to_document(filled, row_location(row), images_first=self.images_first)

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
        return [part["text"] if part["type"] == "text" else None for part in content]
