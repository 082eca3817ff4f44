# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Conversations in LLaVA's layout (Liu et al. 2023)."""

import re
from dataclasses import dataclass
from typing import Any

from ...utils.names import count_of
from ..columns import parse_record, require_list, row_location
from ..conversations import messages_to_document
from ..documents import Chunk
from ..errors import BadSampleError
from ..reader import Column, Reader


_ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
_PLACEHOLDER = re.compile(r"\s*<image>\s*")


@dataclass(frozen=True)
class Llava(Reader):
    r"""
    Reader of conversations as LLaVA publishes them, in `.json`, `.jsonl` or `.parquet`. The columns are

        image           a path relative to `media_root`, a list of paths, or no value for text alone; also `images`
        conversations   [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A cat."}, ...]

    Each `<image>` in the value of a human marks one image. The line break around it is removed, because Flamingo's marker
    needs none. The messages from `gpt` are supervised. The chat template of the processor renders the text.

    Args:
        media_root (`str`, *optional*): Folder of the images, by default that of the file with the row.
        images_first (`bool`, *optional*): As in [`Messages`].
    """

    images_first: bool | None = None

    columns = (
        Column(("conversations",), 'a list of `{"from": "human" or "gpt" or "system", "value": text}`'),
        Column(("image", "images"), "a path, an embedded image, a list of either, or no value", is_required=False),
    )

    def _document(self, row: dict[str, Any]) -> list[Chunk]:
        row = parse_record(row)
        given = [name for name in ("image", "images") if row.get(name) is not None]
        if len(given) > 1:
            raise BadSampleError(f"{row_location(row)}: it has both 'image' and 'images'. Remove one of them.")
        images = row[given[0]] if given else []
        images = images if isinstance(images, list | tuple) else [images]
        messages, count = [], 0
        for message in require_list(row, "conversations"):
            role = _ROLES.get(message.get("from"))
            if role is None or not isinstance(message.get("value"), str):
                raise BadSampleError(
                    f"{row_location(row)}: the message {message!r} needs 'from' ({', '.join(_ROLES)}) and a text in 'value'. "
                    "Fix the row, or remove it."
                )
            first, *rest = [message["value"]] if role == "assistant" else _PLACEHOLDER.split(message["value"])
            parts = [first.strip()] if first.strip() else []
            for text in rest:
                parts += [self.resolve_path(image, row) for image in images[count : count + 1]] + [
                    text.strip()
                ] * bool(text.strip())
                count += 1
            messages.append((role, parts))
        if count != len(images):
            raise BadSampleError(
                f"{row_location(row)}: {count} `<image>` in 'conversations' and {count_of(len(images), 'image')} in 'image', so it is "
                "unknown which marker an image belongs to. Fix the row, or remove it."
            )
        return messages_to_document(messages, row_location(row), images_first=self.images_first)
