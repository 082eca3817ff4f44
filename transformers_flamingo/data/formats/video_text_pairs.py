# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Video-text pairs: one video with its caption, or with several."""

from dataclasses import dataclass
from typing import Any

from datasets import Value, Video

from ..columns import parse_record, require_column, require_texts, row_location
from ..data_files import VIDEO_SUFFIXES
from ..documents import Chunk
from ..errors import BadSampleError
from ..reader import Column, Reader
from ..video_decoding import FixedRate, decode_video


_VIDEO_FILES = (*VIDEO_SUFFIXES, "gif")
_CAPTIONS = ("text", "caption", "captions", "sentences")


@dataclass(frozen=True)
class VideoTextPairs(Reader):
    """
    Reader of videos with their captions, in any of four layouts:

    - WebDataset `.tar` files: `000.mp4` and `000.txt`;
    - `.parquet`, or a folder of `Dataset.save_to_disk`, with the video embedded or a path;
    - a folder of videos with `metadata.csv` or `metadata.jsonl`, with paths relative to that file;
    - a folder of videos, each with its caption beside it: `a.mp4` and `a.txt`.

    An animated GIF is a video here. Of several captions, one is drawn each time the video comes. PyAV decodes the frames when the row is
    read.

    Args:
        media_root (`str`, *optional*): Folder that relative paths start from.
        fps (`float`, *optional*, defaults to 1): Frames per second to take. The default is the paper's.
        max_frames (`int`, *optional*, defaults to 8): Maximum number of frames to take, from the beginning. The default is
            the paper's.
    """

    fps: float = 1.0
    max_frames: int = 8

    tar_members = {**{name: Video(decode=False) for name in _VIDEO_FILES}, "txt": Value("string")}
    media = _VIDEO_FILES
    columns = (
        Column(("video", "file_name"), "an embedded file, a path, or a list of frames", members=_VIDEO_FILES),
        Column(_CAPTIONS, "a text, or a list of texts", members=("txt",)),
    )

    def _document(self, row: dict[str, Any]) -> list[Chunk]:
        row = parse_record(row)
        first, *others = require_texts(row, *_CAPTIONS, "txt")
        given = [name for name in _VIDEO_FILES if row.get(name) is not None]
        if len(given) > 1:
            raise BadSampleError(
                f"{row_location(row)}: it has a video in {' and in '.join(map(repr, given))}. Remove one."
            )
        video = self.resolve_path(require_column(row, "video", "file_name", *given), row)
        if isinstance(video, list | tuple):
            video = video[: self.max_frames]
        frames = decode_video(video, row_location(row), FixedRate(self.fps, self.max_frames))
        return [Chunk(first, frames, alternatives=tuple(others))]
