# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Load an item of media, whichever form it has."""

from typing import Any

import PIL.Image

from .image_decoding import decode_image
from .video_decoding import EvenlySpaced, VideoSegment, decode_video


def load_media(item: Any, location: str) -> PIL.Image.Image | list[PIL.Image.Image]:
    """
    Decode one item: an image, or a video as a list of its frames.

    Args:
        item: An image, as anything that [`decode_image`] takes, a list of such frames, or a [`VideoSegment`].
        location (`str`): File and row, for the error message.

    Returns:
        `PIL.Image.Image` of an image, `list[PIL.Image.Image]` of a video.

    Raises:
        BadSampleError: it cannot be decoded. See [`decode_image`] and [`decode_video`].
    """
    if isinstance(item, VideoSegment):
        return decode_video(item.path, location, EvenlySpaced(item.num_frames, item.start, item.end))
    if isinstance(item, list | tuple):
        return [decode_image(frame, location) for frame in item]
    return decode_image(item, location)
