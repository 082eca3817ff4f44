# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Decode frames of video files with PyAV, with errors that name file and row.

One decoder, [`decode_video`], and two sampling rules that tell which frames it takes:

- [`FixedRate`]: frames at a fixed rate from the beginning, as the paper trains on videos at 1 frame per second;
- [`EvenlySpaced`]: a number of frames spread evenly over a part of the video, as benchmarks ask about it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import PIL.Image

from .errors import BadSampleError
from .image_decoding import check_pixels
from .media_files import open_item


#: Containers that are read, by their names in FFmpeg. Those that name other files or addresses to read, as playlists do
#: (HLS, DASH, concat, SDP), and those that read a device are left out on purpose: a row is written by others.
VIDEO_FORMATS = (
    "mov",
    "mp4",
    "matroska",
    "webm",
    "avi",
    "flv",
    "mpeg",
    "mpegts",
    "asf",
    "ogg",
    "gif",
    "m4v",
    "mpegvideo",
)


@dataclass(frozen=True)
class FixedRate:
    """
    Sampling rule: frames at a fixed rate from the beginning of the video.

    Args:
        fps (`float`): Frames per second of the video's own time. The first frame at or after each multiple of `1 / fps`
            is taken. A slower video gives each of its frames once.
        max_frames (`int`): Maximum number of frames. Decoding ends with the last of them.
    """

    fps: float
    max_frames: int

    def sample(self, container: Any, name: str) -> list[PIL.Image.Image]:
        """Return the frames of an open PyAV container. Messages call it `name`."""
        frames, begin, last = [], None, None
        for frame in _frames(container):
            begin, last = frame.time if begin is None else begin, frame
            # Times are multiples of the stream's time base: a frame at 0.999999 is the frame at 1
            if (frame.time - begin) * self.fps > len(frames) - 1e-3:
                frames.append(frame.to_image())
            if len(frames) == self.max_frames:
                break
        else:
            _check_whole(container, last)
        if not frames:
            raise BadSampleError(f"{name} has no frames. Fetch it again, or remove the row.")
        return frames


@dataclass(frozen=True)
class EvenlySpaced:
    """
    Sampling rule: a number of frames of a part of the video, each in the middle of its share of the time.

    Args:
        num_frames (`int`): Number of frames. A part with fewer repeats some.
        start, end (`float`, *optional*): The part in seconds, by default the whole video. Time beyond the end of the
            video does not count.
    """

    num_frames: int
    start: float | None = None
    end: float | None = None

    def sample(self, container: Any, name: str) -> list[PIL.Image.Image]:
        """Return the frames of an open PyAV container. Messages call it `name`."""
        begin, end = self.start or 0.0, self.end
        # Written so that NaN is refused too
        if not begin >= 0 or (end is not None and not end > begin) or self.num_frames < 1:
            raise BadSampleError(
                f"{name}: {self.num_frames} frames from {self.start} to {end} s were asked for. A part begins at 0 or later, "
                "ends after its beginning, and has at least one frame. Fix the annotation."
            )
        if end is None or (container.duration is not None and begin < _seconds(container) < end):
            end = _seconds(container)
        times = [begin + (i + 0.5) * (end - begin) / self.num_frames for i in range(self.num_frames)]
        container.seek(int(begin * 1_000_000))  # to the key frame before it; FFmpeg counts microseconds
        frames: list[PIL.Image.Image] = []
        last, last_end = None, 0.0
        for frame in _frames(container):
            while len(frames) < self.num_frames and frame.time > times[len(frames)]:
                frames.append((last or frame).to_image())  # the frame that is shown at that time
            last, last_end = frame, frame.time + _duration(frame, container)
            if len(frames) == self.num_frames:
                break
        else:
            _check_whole(container, last)
        if last is None:
            raise BadSampleError(
                f"{name} has no frame from {self.start} to {end} s. Fetch it again, or remove the row."
            )
        if not frames and last_end < begin:
            raise BadSampleError(
                f"{name} ends at {last_end:.2f} s, and the part begins at {begin:.2f} s. The file is cut short, or the "
                "annotation is of another video. Fetch it again, or remove the row."
            )
        return frames + [last.to_image()] * (self.num_frames - len(frames))


@dataclass(frozen=True)
class VideoSegment:
    """
    A video file or a part of it, and the number of its frames to show. [`load_media`] decodes it by [`EvenlySpaced`].

    Args:
        path (`str`): The file.
        start, end (`float`, *optional*): The part in seconds, by default the whole video.
        num_frames (`int`, *optional*, defaults to 8): Number of frames, evenly spread over the part.
    """

    path: str
    start: float | None = None
    end: float | None = None
    num_frames: int = 8


def decode_video(item: Any, location: str, sampling: FixedRate | EvenlySpaced) -> list[PIL.Image.Image]:
    """
    Decode frames of a video file.

    Args:
        item: The bytes of a video file, its path, or a dict of `bytes` and `path`. An address is read only as a
            [`MediaPath`] that allows it. A list of frames is returned as it is.
        location (`str`): File and row, for the error message.
        sampling ([`FixedRate`] or [`EvenlySpaced`]): The frames to take.

    Raises:
        BadSampleError: the video may not be opened, cannot be found, is not a video of one of `VIDEO_FORMATS`, is damaged
            or cut short, has no frames, or ends before the part that is asked for.
        ImportError: PyAV is missing.
    """
    if isinstance(item, list | tuple):
        if not item:
            raise BadSampleError(f"{location}: a video without frames. Remove the row.")
        return list(item)
    name, _, source = open_item(item, location, "video")
    name = f"{location}: {name}"
    with _open_container(source, name) as container:
        return sampling.sample(container, name)


@contextmanager
def _open_container(source: BinaryIO, name: str) -> Iterator[Any]:
    """Open a video with PyAV, and yield its container. Any failure inside is a [`BadSampleError`] that names the video."""
    try:
        import av
    except ImportError as error:
        raise ImportError("Reading video files needs PyAV: pip install 'transformers-flamingo[video]'.") from error
    # A file of a listed format has no need to open another, so no protocol is left
    options = {"format_whitelist": ",".join(VIDEO_FORMATS), "protocol_whitelist": "none"}
    try:
        with source, av.open(source, options=options) as container:
            yield container
    except BadSampleError:
        raise
    except Exception as error:  # PyAV has types of its own, and raises IndexError if there is no video stream
        raise BadSampleError(
            f"{name} cannot be decoded ({getattr(error, 'strerror', None) or error}). It is truncated, damaged, or not a "
            f"video of a format that is read ({', '.join(VIDEO_FORMATS)}). Fetch it again, or remove the row."
        ) from error


def _frames(container: Any) -> Iterator[Any]:
    """Decode the frames of a container that have a time, and refuse those that are too large."""
    for frame in container.decode(video=0):
        check_pixels(frame.width, frame.height)
        if frame.time is not None:
            yield frame


def _check_whole(container: Any, last: Any) -> None:
    """
    Raise a `ValueError` if the last frame that could be decoded is not at the end of the video.

    FFmpeg reads a cut file without an error, up to the cut: training would see a shorter video, in silence.
    """
    stream = container.streams.video[0]
    declared = None
    if stream.duration is not None:
        declared = float((stream.duration + max(0, stream.start_time or 0)) * stream.time_base)
    elif container.duration is not None and len(container.streams) == 1:  # else sound may be longer than the images
        declared = _seconds(container)
    shown = 0.0 if last is None else last.time + _duration(last, container)
    # Lengths in headers are rounded, to whole seconds by some
    if declared is not None and shown < declared - 1:
        raise ValueError(f"it is {declared:.2f} s long, but its frames end at {shown:.2f} s: it is cut short")


def _seconds(container: Any) -> float:
    """Return the time at which a container ends."""
    if container.duration is None:
        raise ValueError("its length is unknown: give the end of the part")
    return (container.duration + max(0, container.start_time or 0)) / 1_000_000


def _duration(frame: Any, container: Any) -> float:
    """Return the seconds that a frame is shown, from the frame rate if the file does not say."""
    rate = container.streams.video[0].average_rate
    return max(float((frame.duration or 0) * frame.time_base), float(1 / rate) if rate else 0.0)
