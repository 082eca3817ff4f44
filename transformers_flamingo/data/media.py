# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Decoding of images and videos, with errors that name where they came from.

What a row may name is said in [`media_files`]; what is opened must be an image of Pillow's formats, or a video of those in
`VIDEO_FORMATS`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any, BinaryIO

import PIL.Image

from ..files_flamingo import MAX_FILE_BYTES
from ..images_flamingo import error_words, load_pixels, open_bytes
from .media_files import MAX_MEDIA_BYTES, open_media


#: Containers that are read, by their names in FFmpeg. Not among them are those that name other files or addresses to
#: read, as playlists do (HLS, DASH, concat, SDP), and those that read a device.
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


class BadSampleError(ValueError):
    """A row that cannot be trained on. The message begins with its file and row."""


def decode_image(item: Any, location: str) -> PIL.Image.Image:
    """
    Open an image and read its pixels, which finds a truncated file.

    Modes, transparency, bit depth and orientation are left to [`FlamingoProcessor`].

    Args:
        item: A PIL image, the bytes of an image file, its path, or a dict of `bytes` and `path`, as
            `datasets.Image(decode=False)` gives it. An address only as a [`MediaPath`] that allows it.
        location (`str`): File and row, for the error message.

    Raises:
        BadSampleError: it may not be opened, cannot be found, is not an image, is damaged, or has no or too many pixels.
    """
    name, path, source = _source(item, location, "image", MAX_FILE_BYTES)
    try:
        image = source if isinstance(source, PIL.Image.Image) else open_bytes(source.read())
        _check_pixels(image.width, image.height)
        load_pixels(image)
        _check_pixels(image.width, image.height)
    except Exception as error:  # each of Pillow's decoders has its own
        what = error_words(error)
        raise BadSampleError(
            f"{location}: {name} cannot be decoded ({what}). It is truncated, damaged, too large, or not an image: a "
            "download may have stored an error page in its place. Fetch it again or remove the row."
        ) from error
    if path:
        image.filename = path  # by which the processor calls it in its messages
    return image


def load_media(item: Any, location: str) -> PIL.Image.Image | list[PIL.Image.Image]:
    """Decode an image, or the frames of a video given as a list, as [`decode_image`] opens each."""
    if isinstance(item, list | tuple):
        return [decode_image(frame, location) for frame in item]
    return decode_image(item, location)


def decode_video(item: Any, location: str, *, fps: float, max_frames: int) -> list[PIL.Image.Image]:
    """
    Decode frames of a video file, sampled at a fixed rate from its beginning.

    Args:
        item: The bytes of a video file, its path, or a dict of `bytes` and `path`. An address only as a [`MediaPath`]
            that allows it. A list of frames is returned as it is.
        location (`str`): File and row, for the error message.
        fps (`float`): Frames per second of the video's own time. The first frame at or after each multiple of
            `1 / fps` is taken; a slower video gives each of its frames once.
        max_frames (`int`): Decoding ends with this frame.

    Raises:
        BadSampleError: it may not be opened, cannot be found, is not a video, is damaged, or has no frames.
        ImportError: PyAV is missing.
    """
    if isinstance(item, list | tuple):
        if not item:
            raise BadSampleError(f"{location}: a video without frames. Remove the row.")
        return list(item)
    frames, begin = [], None
    name, _, source = _source(item, location, "video", MAX_MEDIA_BYTES)
    with _open_video(source, name, location) as container:
        for frame in _frames(container):
            begin = frame.time if begin is None else begin
            # Times are multiples of the stream's time base: a frame at 0.999999 is the frame at 1
            if (frame.time - begin) * fps > len(frames) - 1e-3:
                frames.append(frame.to_image())
            if len(frames) == max_frames:
                break
        else:
            _check_whole(container, frame if frames else None)
    if not frames:
        raise BadSampleError(f"{location}: {name} has no frames. Fetch it again or remove the row.")
    return frames


def decode_segment(
    path: str, location: str, *, start: float | None, end: float | None, num_frames: int
) -> list[PIL.Image.Image]:
    """
    Decode frames of a part of a video file, each in the middle of its share of the time.

    Args:
        path (`str`): The file.
        location (`str`): What refers to it, for the error message.
        start, end (`float`, *optional*): The part in seconds, by default the whole. What is beyond the end of the video
            does not count.
        num_frames (`int`): Frames to return. A part with fewer repeats some.

    Raises:
        BadSampleError: it may not be opened, cannot be found, is not a video, is damaged, or ends before `start`.
        ImportError: PyAV is missing.
    """
    begin = start or 0.0
    if not begin >= 0 or (end is not None and not end > begin) or num_frames < 1:
        raise BadSampleError(
            f"{location}: {num_frames} frames from {start} to {end} s of a video. A part begins at 0 or later, ends after its "
            "beginning, and has at least one frame. Fix the annotation."
        )
    frames: list[PIL.Image.Image] = []
    last, shown = None, 0.0
    name = f"the video {path!r}"
    try:
        source = open_media(path, MAX_MEDIA_BYTES)
    except (OSError, ValueError) as error:
        raise BadSampleError(
            f"{location}: {name} cannot be decoded ({error}). Check that the file is there."
        ) from error
    with _open_video(source, name, location) as container:
        if end is None or (container.duration is not None and begin < _seconds(container) < end):
            end = _seconds(container)
        times = [begin + (i + 0.5) * (end - begin) / num_frames for i in range(num_frames)]
        container.seek(int(begin * 1_000_000))  # the key frame before it; FFmpeg counts microseconds
        for frame in _frames(container):
            while len(frames) < num_frames and frame.time > times[len(frames)]:
                frames.append((last or frame).to_image())  # the frame that is shown at that time
            last, shown = frame, frame.time + _duration(frame, container)
            if len(frames) == num_frames:
                break
        else:
            _check_whole(container, last)
    if last is None:
        raise BadSampleError(
            f"{location}: {name} has no frame from {start} to {end} s. Fetch it again or remove the row."
        )
    if not frames and shown < begin:
        raise BadSampleError(
            f"{location}: {name} ends at {shown:.2f} s, and the part begins at {begin:.2f} s. The file is cut short, or the "
            "annotation is of another video. Fetch it again or remove the row."
        )
    return frames + [last.to_image()] * (num_frames - len(frames))


def _check_pixels(width: int, height: int) -> None:
    limit = PIL.Image.MAX_IMAGE_PIXELS
    if width * height == 0 or (limit is not None and width * height > limit):
        raise ValueError(f"it has {width} x {height} pixels")


@contextmanager
def _open_video(source: BinaryIO, name: str, location: str) -> Iterator[Any]:
    """Open a video with PyAV, and give its container. What fails inside is an error that names the video."""
    try:
        import av
    except ImportError as error:
        raise ImportError("Reading video files needs PyAV: pip install 'transformers-flamingo[video]'.") from error
    # A file of a listed format has no need to open another, so no protocol is left
    options = {"format_whitelist": ",".join(VIDEO_FORMATS), "protocol_whitelist": "none"}
    try:
        with source, av.open(source, options=options) as container:
            yield container
    except Exception as error:  # PyAV's, and IndexError where there is no video stream
        raise BadSampleError(
            f"{location}: {name} cannot be decoded ({getattr(error, 'strerror', None) or error}). It is truncated, damaged, "
            f"or not a video of a format that is read ({', '.join(VIDEO_FORMATS)}). Fetch it again or remove the row."
        ) from error


def _frames(container: Any) -> Iterator[Any]:
    """Decode the frames of a container that have a time, and refuse those that are too large."""
    for frame in container.decode(video=0):
        _check_pixels(frame.width, frame.height)
        if frame.time is not None:
            yield frame


def _check_whole(container: Any, last: Any) -> None:
    """Raise a `ValueError` if the last frame that could be decoded is not at the end: of a cut file, the rest is missing."""
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
        raise ValueError("its length is not known; give the end of the part")
    return (container.duration + max(0, container.start_time or 0)) / 1_000_000


def _duration(frame: Any, container: Any) -> float:
    """Return for how many seconds a frame is shown; that of the frame rate if the file does not say."""
    rate = container.streams.video[0].average_rate
    return max(float((frame.duration or 0) * frame.time_base), float(1 / rate) if rate else 0.0)


def _source(item: Any, location: str, kind: str, max_bytes: int) -> tuple[str, str | None, Any]:
    """Return what to call an item in messages, its path if it has one, and a PIL image or an open file."""
    path = None
    if isinstance(item, dict):
        path = item.get("path")
        item = path if item.get("bytes") is None else item["bytes"]
    if isinstance(item, PIL.Image.Image):
        return f"the {kind}", None, item
    if isinstance(item, bytes | bytearray | memoryview):
        return f"the {kind}" + (f" {path!r}" if path else ""), path, BytesIO(item)
    if not isinstance(item, str):
        given = "no data" if item is None else f"a {type(item).__name__}"
        raise BadSampleError(f"{location}: the {kind} is {given}. Give bytes or a path, or remove the row.")
    try:
        return f"the {kind} {str(item)!r}", str(item), open_media(item, max_bytes)
    except Exception as error:  # each file system has its own
        raise BadSampleError(
            f"{location}: the {kind} {str(item)!r:.300} cannot be read ({type(error).__name__}: {error}). Check the path, "
            "and the `media_root` that relative paths start from."
        ) from error
