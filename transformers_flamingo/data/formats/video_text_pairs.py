# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Video-text pairs: one video with its caption."""

from dataclasses import dataclass
from typing import Any

from datasets import Value, Video

from ..columns import parse_record, require_column, require_text, row_location
from ..documents import Chunk
from ..reader import Reader
from ..video_decoding import FixedRate, decode_video


@dataclass(frozen=True)
class VideoTextPairs(Reader):
    """
    Reader of videos with one caption each, in any of three layouts:

    - WebDataset `.tar` files: `000.mp4` (or `webm`, `mkv`) and `000.txt`;
    - `.parquet` with the columns `video` (embedded or a path) and `text`;
    - a folder of videos with `metadata.csv` or `metadata.jsonl`, with the columns `file_name`, relative to that file, and
      `text`.

    The column of the caption may also be called `caption`. PyAV decodes the frames when the row is read.

    Args:
        media_root (`str`, *optional*): Folder that relative paths start from.
        fps (`float`, *optional*, defaults to 1): Frames per second to take. The default is the paper's.
        max_frames (`int`, *optional*, defaults to 8): Maximum number of frames to take, from the beginning. The default is
            the paper's.
    """

    fps: float = 1.0
    max_frames: int = 8

    tar_members = {**{name: Video(decode=False) for name in ("mp4", "webm", "mkv")}, "txt": Value("string")}

    def _document(self, row: dict[str, Any]) -> list[Chunk]:
        row = parse_record(row)
        text = require_text(row, "text", "caption", "txt")
        video = self.resolve_path(require_column(row, "video", "file_name", "mp4", "webm", "mkv"), row)
        if isinstance(video, list | tuple):
            video = video[: self.max_frames]
        return [Chunk(text, decode_video(video, row_location(row), FixedRate(self.fps, self.max_frames)))]
