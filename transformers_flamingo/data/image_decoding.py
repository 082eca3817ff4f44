# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Decode the images of data rows, with errors that name file and row."""

from typing import Any

import PIL.Image
from transformers.utils import logging

from ..images_flamingo import error_words, load_pixels, open_bytes
from .errors import BadSampleError
from .media_files import open_item


logger = logging.get_logger(__name__)

_has_warned = False


def decode_image(item: Any, location: str) -> PIL.Image.Image:
    """
    Open an image and read its pixels, which finds a truncated file.

    Of an animation, the image is the first frame, and the first animation is said in a warning.

    Modes, transparency, bit depth and orientation are left to [`FlamingoProcessor`].

    Args:
        item: A PIL image, the bytes of an image file, its path, or a dict of `bytes` and `path`, as
            `datasets.Image(decode=False)` gives it. An address is read only as a [`MediaPath`] that allows it.
        location (`str`): File and row, for the error message.

    Returns:
        `PIL.Image.Image`: the image, in the mode of its file.

    Raises:
        BadSampleError: the image may not be opened, cannot be found, is not an image of Pillow's formats, is damaged, or
            has no or too many pixels.
    """
    name, path, source = open_item(item, location, "image")
    try:
        image = source if isinstance(source, PIL.Image.Image) else open_bytes(source.read())
        check_pixels(image.width, image.height)
        load_pixels(image)
        check_pixels(image.width, image.height)  # some formats tell their true size only now
        if getattr(image, "is_animated", False):
            _warn_of_frames(location, name, image.n_frames)
    except Exception as error:  # each of Pillow's decoders raises its own types, struct.error and SyntaxError included
        raise BadSampleError(
            f"{location}: {name} cannot be decoded ({error_words(error)}). It is truncated, damaged, too large, or not an "
            "image: a download may have stored an error page instead of it. Fetch it again, or remove the row."
        ) from error
    if path:
        image.filename = path  # the processor names the image by it in its messages
    return image


def _warn_of_frames(location: str, name: str, count: int) -> None:
    global _has_warned
    if not _has_warned:
        _has_warned = True  # in each process
        logger.warning(
            f"{location}: {name} has {count} frames, and the first one is used, here and in other animations. The format `video_text_pairs` "
            "reads all frames of GIF files."
        )


def check_pixels(width: int, height: int) -> None:
    """
    Check that an image or frame has pixels, and not too many.

    Raises:
        ValueError: it has none, or more than `PIL.Image.MAX_IMAGE_PIXELS`.
    """
    limit = PIL.Image.MAX_IMAGE_PIXELS
    if width * height == 0 or (limit is not None and width * height > limit):
        raise ValueError(f"it has {width} x {height} pixels")


def blank_image(size: tuple[int, int]) -> PIL.Image.Image:
    """
    Return an image of one medium gray, `(127, 127, 127)`, that tells nothing.

    It replaces the images of a "blind" baseline: the score that remains is what the text alone reveals.

    Args:
        size (`tuple[int, int]`): Width and height in pixels.
    """
    return PIL.Image.new("RGB", size, (127, 127, 127))
