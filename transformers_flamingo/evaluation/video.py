# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Frames of a part of a video file."""

from dataclasses import dataclass

import PIL.Image

from ..data.media import decode_segment


@dataclass(frozen=True)
class Video:
    """
    A video file, or a part of it, as [`Example`] refers to it.

    Args:
        path (`str`): The file.
        start, end (`float`, *optional*): The part that counts, in seconds; the whole by default.
        num_frames (`int`, *optional*, defaults to 8): Frames that are shown, evenly spread over it.
    """

    path: str
    start: float | None = None
    end: float | None = None
    num_frames: int = 8

    def frames(self, where: str) -> list[PIL.Image.Image]:
        """
        Return the frames, each in the middle of its share of the time; a part with fewer frames repeats some.

        Raises:
            BadSampleError: the file is damaged, not a video, or ends before the part begins.
            ImportError: PyAV is missing.
        """
        return decode_segment(self.path, where, start=self.start, end=self.end, num_frames=self.num_frames)
