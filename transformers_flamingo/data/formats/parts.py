# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Interleaved documents of any kind, as lists of parts."""

from dataclasses import dataclass
from typing import Any

from ..columns import parse_record, require_list, row_location
from ..documents import Chunk, interleave
from ..errors import BadSampleError
from ..reader import Column, Reader
from ..video_decoding import FixedRate, decode_video


@dataclass(frozen=True)
class Parts(Reader):
    """
    Reader of interleaved documents of any kind, in `.jsonl`, `.json` or `.parquet`. The columns are

        parts   a list, in reading order, of
                {"type": "text",  "text": "..."}
                {"type": "image", "image": an embedded image or a path}
                {"type": "video", "video": an embedded file, a path, or a list of frames}

    An image or video belongs to the text after it. Two texts with no image between them are joined by a space.

    Args:
        media_root (`str`, *optional*): Folder that relative paths start from.
        fps (`float`, *optional*, defaults to 1): Frames per second to take from a video. The default is the paper's.
        max_frames (`int`, *optional*, defaults to 8): Maximum number of frames to take from a video. The default is the
            paper's.
    """

    fps: float = 1.0
    max_frames: int = 8

    columns = (
        Column(
            ("parts",),
            'a list of `{"type": "text" or "image" or "video", ...}` with the text, image or video under the same name',
        ),
    )

    def _document(self, row: dict[str, Any]) -> list[Chunk]:
        row = parse_record(row)
        return interleave([self._part(part, row) for part in require_list(row, "parts")], separator=" ")

    def _part(self, part: dict[str, Any], row: dict[str, Any]) -> Any:
        kind = part.get("type")
        if kind not in ("text", "image", "video"):
            raise BadSampleError(
                f"{row_location(row)}: a part of type {kind!r}. Known types are text, image and video."
            )
        value = part.get(kind)
        if value is None:
            raise BadSampleError(f"{row_location(row)}: a part of type {kind!r} without a value in {kind!r}.")
        if (isinstance(value, list | tuple) and kind == "image") or (not isinstance(value, str) and kind == "text"):
            raise BadSampleError(
                f"{row_location(row)}: a part of type {kind!r} holds a {type(value).__name__}. Fix the row, or remove it."
            )
        if kind == "text":
            return value
        value = self.resolve_path(value, row)
        if kind == "image":
            return value
        if isinstance(value, list | tuple):
            value = value[: self.max_frames]
        return decode_video(value, row_location(row), FixedRate(self.fps, self.max_frames))
