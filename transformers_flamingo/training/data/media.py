# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Decoding of images and videos, with errors that name where they came from."""

from io import BytesIO
from typing import Any

import fsspec
import PIL.Image


class BadSampleError(ValueError):
    """A row that cannot be trained on. The message begins with its file and row."""


def decode_image(medium: Any, where: str) -> PIL.Image.Image:
    """
    Open an image and read its pixels, which finds a truncated file.

    Modes, transparency and orientation are left to [`FlamingoProcessor`].

    Args:
        medium: A PIL image, the bytes of an image file, its path or URL, or a dict of `bytes` and `path`, as
            `datasets.Image(decode=False)` gives it.
        where (`str`): File and row, for the error message.

    Raises:
        BadSampleError: it cannot be found, is no image, is damaged, or has no or too many pixels.
    """
    name, source = _source(medium, where, "image")
    try:
        image = source if isinstance(source, PIL.Image.Image) else PIL.Image.open(source)
        if PIL.Image.MAX_IMAGE_PIXELS is not None and image.width * image.height > PIL.Image.MAX_IMAGE_PIXELS:
            raise PIL.Image.DecompressionBombError(f"it has {image.width} x {image.height} pixels")
        if image.width * image.height == 0:
            raise PIL.UnidentifiedImageError(f"it has {image.width} x {image.height} pixels")
        image.load()
    except Exception as error:  # each of Pillow's decoders has its own
        raise BadSampleError(
            f"{where}: {name} cannot be decoded ({error}). It is truncated, damaged, too large, or no image: a "
            "download may have stored an error page in its place. Fetch it again or leave the row out."
        ) from error
    return image


def decode_medium(medium: Any, where: str) -> PIL.Image.Image | list[PIL.Image.Image]:
    """An image, or the frames of a video given as a list, as [`decode_image`] opens each."""
    if isinstance(medium, list | tuple):
        return [decode_image(frame, where) for frame in medium]
    return decode_image(medium, where)


def decode_video(medium: Any, where: str, *, fps: float, max_frames: int) -> list[PIL.Image.Image]:
    """
    Frames of a video file, sampled at a fixed rate from its beginning.

    Args:
        medium: The bytes of a video file, its path or URL, or a dict of `bytes` and `path`. A list of frames is
            returned as it is.
        where (`str`): File and row, for the error message.
        fps (`float`): Frames per second of the video's own time. The first frame at or after each multiple of
            `1 / fps` is taken; a slower video gives each of its frames once.
        max_frames (`int`): Decoding ends with this frame.

    Raises:
        BadSampleError: it cannot be found, is no video, is damaged, or has no frames.
        ImportError: PyAV is missing.
    """
    if isinstance(medium, list | tuple):
        if not medium:
            raise BadSampleError(f"{where}: a video without frames. Leave the row out.")
        return list(medium)
    try:
        import av
    except ImportError as error:
        raise ImportError("Reading video files needs PyAV: pip install 'transformers-flamingo[video]'.") from error
    name, source = _source(medium, where, "video")
    frames, begin = [], None
    try:
        with av.open(source) as container:
            for frame in container.decode(video=0):
                begin = frame.time if begin is None else begin
                # Times are multiples of the stream's time base: a frame at 0.999999 is the frame at 1
                if (frame.time - begin) * fps > len(frames) - 1e-3:
                    frames.append(frame.to_image())
                if len(frames) == max_frames:
                    break
    except Exception as error:  # PyAV's, and IndexError where there is no video stream
        raise BadSampleError(
            f"{where}: {name} cannot be decoded ({error}). It is truncated, damaged or no video. Fetch it again or "
            "leave the row out."
        ) from error
    if not frames:
        raise BadSampleError(f"{where}: {name} has no frames. Fetch it again or leave the row out.")
    return frames


def _source(medium: Any, where: str, kind: str) -> tuple[str, Any]:
    """What to call it in an error message, and something that its decoder opens."""
    path = None
    if isinstance(medium, dict):
        path = medium.get("path")
        medium = path if medium.get("bytes") is None else medium["bytes"]
    if isinstance(medium, PIL.Image.Image):
        return f"the {kind}", medium
    if isinstance(medium, bytes | bytearray):
        return f"the {kind}" + (f" {path!r}" if path else ""), BytesIO(medium)
    if not isinstance(medium, str):
        given = "no data" if medium is None else f"a {type(medium).__name__}"
        raise BadSampleError(f"{where}: the {kind} is {given}. Give bytes, a path, or a URL, or leave the row out.")
    try:
        with fsspec.open(medium, "rb") as file:
            return f"the {kind} {medium!r}", BytesIO(file.read())
    except Exception as error:  # each file system has its own
        raise BadSampleError(
            f"{where}: the {kind} {medium!r} cannot be read ({type(error).__name__}: {error}). Check the path, and "
            "the `media_root` that relative paths start from."
        ) from error
