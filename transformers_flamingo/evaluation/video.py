# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Frames of a part of a video file."""

from dataclasses import dataclass

import PIL.Image

from ..training.data import BadSampleError


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
        The frames, each in the middle of its share of the time; a part with fewer frames repeats some.

        Raises:
            BadSampleError: the file is damaged, no video, or has no frame there.
            ImportError: PyAV is missing.
        """
        try:
            import av
        except ImportError as error:
            raise ImportError("Reading video files needs PyAV: pip install 'transformers-flamingo[video]'.") from error
        frames: list[PIL.Image.Image] = []
        last = None
        try:
            with av.open(self.path) as container:
                start = self.start or 0.0
                end = self.end if self.end is not None else container.duration / av.time_base
                times = [start + (i + 0.5) * (end - start) / self.num_frames for i in range(self.num_frames)]
                container.seek(int(start * av.time_base))  # the key frame before it
                for frame in container.decode(video=0):
                    while len(frames) < len(times) and frame.time > times[len(frames)]:
                        frames.append((last or frame).to_image())  # the frame that is shown at that time
                    last = frame
                    if len(frames) == len(times):
                        break
        except Exception as error:  # PyAV's, and IndexError where there is no video stream
            raise BadSampleError(
                f"{where}: the video {self.path!r} cannot be decoded ({error}). It is truncated, damaged or no video."
            ) from error
        if last is None:
            raise BadSampleError(f"{where}: the video {self.path!r} has no frame from {self.start} to {self.end} s.")
        return frames + [last.to_image()] * (self.num_frames - len(frames))
