# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Prompts with their completions, in the format of TRL."""

from dataclasses import dataclass
from typing import Any

from ...utils.names import count_of
from ..columns import parse_record, require_column, require_list, row_location
from ..conversations import messages_to_document
from ..documents import Chunk
from ..errors import BadSampleError
from ..reader import Column, Reader
from .messages import IMAGES, read_messages


_MARKER = "<image>"


@dataclass(frozen=True)
class PromptCompletion(Reader):
    """
    Reader of prompts with completions as TRL trains on them, in `.parquet`, `.jsonl`, `.json` or `.csv`. The columns are

        prompt       a text, or messages as in the format `messages`
        completion   a text, or messages, of which the last is of the assistant
        images       [image, ...], embedded or paths; or `image`, a single one

    Only the completion is supervised, as in TRL: of messages, the answers in `completion`. In a prompt that is a text, each `<image>` marks
    an image; without any, the images come before it.

    Args:
        images_first (`bool`, *optional*): As in [`Messages`].
    """

    images_first: bool | None = None

    columns = (
        Column(("prompt",), "a text, or a list of messages"),
        Column(("completion",), "a text, or a list of messages"),
        IMAGES,
    )

    def _document(self, row: dict[str, Any]) -> list[Chunk]:
        row = parse_record(row)
        prompt, completion = require_column(row, "prompt"), require_column(row, "completion")
        if isinstance(prompt, str) != isinstance(completion, str):
            raise BadSampleError(
                f"{row_location(row)}: 'prompt' holds a {type(prompt).__name__} and 'completion' a {type(completion).__name__}. Give texts in "
                "both, or messages in both."
            )
        if isinstance(prompt, str):
            return self._texts(row, prompt, completion)
        given = require_list(row, "prompt")
        messages = read_messages(self, row, [*given, *require_list(row, "completion")])
        if all(role != "assistant" for role, _ in messages[len(given) :]):
            raise BadSampleError(
                f"{row_location(row)}: no message of 'completion' is of the assistant. Fix the row, or remove it."
            )
        location = row_location(row)
        return messages_to_document(messages, location, images_first=self.images_first, num_given=len(given))

    def _texts(self, row: dict[str, Any], prompt: str, completion: str) -> list[Chunk]:
        images = row.get("images") if row.get("images") is not None else row.get("image")
        images = [] if images is None else list(images) if isinstance(images, list | tuple) else [images]
        first, *others = prompt.split(_MARKER)
        if images and not others:
            first, others = "", [""] * (len(images) - 1) + [prompt]
        if len(others) != len(images) or not completion.strip():
            raise BadSampleError(
                f"{row_location(row)}: {len(others)} `{_MARKER}` in 'prompt', {count_of(len(images), 'image')}, and the completion {completion!r:.100}. "
                "Each marker needs an image, and something must be learned. Fix the row, or remove it."
            )
        document = [Chunk("", prompt=first)] if first else []
        document += [
            Chunk("", self.resolve_path(image, row), text) for image, text in zip(images, others, strict=True)
        ]
        if not document:
            return [Chunk(completion)]
        last = document.pop()
        return [*document, Chunk(completion, last.item, last.prompt)]
