# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Conversations in the columns of The Cauldron (Laurençon et al. 2024)."""

from dataclasses import dataclass
from typing import Any

from ..columns import parse_record, require_list, row_location
from ..conversations import messages_to_document
from ..documents import Chunk
from ..errors import BadSampleError
from ..reader import Column, Reader


@dataclass(frozen=True)
class Cauldron(Reader):
    """
    Reader of questions and answers as The Cauldron publishes them, in `.parquet`, or in a folder of `Dataset.save_to_disk`. The columns are

        images   [image, ...], embedded or paths
        texts    [{"user": "What is it?", "assistant": "A cat.", "source": "VQAv2"}, ...]

    The images come before the first question. The answers are supervised. The chat template of the processor renders the text.
    """

    columns = (
        Column(("images",), "a list of images, embedded or paths"),
        Column(("texts",), 'a list of `{"user": text, "assistant": text}`'),
    )

    def _document(self, row: dict[str, Any]) -> list[Chunk]:
        row = parse_record(row)
        images = [self.resolve_path(image, row) for image in require_list(row, "images")]
        texts = row.get("texts")
        if (
            isinstance(texts, dict) and {"user", "assistant"} <= texts.keys()
        ):  # how `datasets` may store a list of dicts
            texts = [
                {"user": user, "assistant": answer}
                for user, answer in zip(texts["user"], texts["assistant"], strict=True)
            ]
        messages: list[tuple[str, list[Any]]] = []
        for turn in require_list({**row, "texts": texts}, "texts"):
            if not isinstance(turn, dict) or not all(
                isinstance(turn.get(role), str) for role in ("user", "assistant")
            ):
                raise BadSampleError(
                    f"{row_location(row)}: an entry of 'texts' is {turn!r:.200} instead of a text in 'user' and one in 'assistant'. Fix the "
                    "row, or remove it."
                )
            messages += [("user", [*images, turn["user"]]), ("assistant", [turn["assistant"]])]
            images = []
        if not messages:
            raise BadSampleError(f"{row_location(row)}: 'texts' is empty. Remove the row.")
        return messages_to_document(messages, row_location(row))
