# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Check that what was fetched is an image, and make it smaller if that is asked for."""

import hashlib
import io

import PIL.Image
import PIL.ImageOps

from ...images_flamingo import error_words, load_pixels, open_bytes
from ..image_decoding import check_pixels
from .failures import FetchError


# Kept as they are: a smaller copy would be in another depth
_DEEP = ("I", "F")
_JPEG_QUALITY = 95
_ALGORITHMS = {32: "md5", 40: "sha1", 64: "sha256", 128: "sha512"}


def algorithm_of(digest: str) -> str | None:
    """Return the name of the hash function of a digest in hexadecimal digits, by its length; `None` if it is not one."""
    is_hexadecimal = not set(digest.lower()) - set("0123456789abcdef")
    return _ALGORITHMS.get(len(digest)) if is_hexadecimal else None


def check_digest(data: bytes, digest: str) -> None:
    """
    Check that a file has a digest: MD5, SHA-1, SHA-256 or SHA-512 by its length.

    Raises:
        FetchError: it has another one.
    """
    name = algorithm_of(digest)
    found = hashlib.new(name, data, usedforsecurity=False).hexdigest()
    if found != digest.lower():
        raise FetchError("hash", f"its {name} is {found}, and the row has {digest.lower()}")


def prepare_image(data: bytes, max_shortest_side: int | None = None, min_shortest_side: int = 1) -> bytes:
    """
    Decode an image to be sure that it can be, and return its file.

    Args:
        data (`bytes`): The file.
        max_shortest_side (`int`, *optional*):
            A larger image is resized so that its shorter side has this many pixels, and stored as JPEG, or as PNG if it has
            transparency. Otherwise, and for images of more than 8 bits, the file stays as it is.
        min_shortest_side (`int`, *optional*, defaults to 1): A smaller image is refused.

    Raises:
        FetchError: it is not an image, is damaged, or has too many or too few pixels.
    """
    try:
        image = open_bytes(data)
    except PIL.UnidentifiedImageError as error:
        raise FetchError("not_an_image", f"its first bytes are {data[:24]!r}") from error
    except PIL.Image.DecompressionBombError as error:
        raise FetchError("too_large", error_words(error)) from error
    except Exception as error:  # each of Pillow's decoders has its own
        raise FetchError("damaged", error_words(error)) from error
    try:
        check_pixels(image.width, image.height)
    except ValueError as error:
        raise FetchError("too_large", str(error)) from error
    if min(image.size) < min_shortest_side:
        raise FetchError("too_small", f"it has {image.width} x {image.height} pixels")
    try:
        load_pixels(image)
        if max_shortest_side is None or min(image.size) <= max_shortest_side or _is_deep(image):
            return data
        return _shrink(image, max_shortest_side)
    except Exception as error:  # each of Pillow's decoders has its own
        raise FetchError("damaged", error_words(error)) from error


def _is_deep(image: PIL.Image.Image) -> bool:
    return image.mode.startswith(_DEEP) or "keeps_high_byte" in image.info


def _shrink(image: PIL.Image.Image, shortest_side: int) -> bytes:
    profile = image.info.get("icc_profile")
    image = PIL.ImageOps.exif_transpose(image)  # a new file has no tag of its orientation
    is_transparent = image.has_transparency_data
    if image.mode not in ("L", "RGB"):
        # The profile of another kind of colors would be wrong
        profile = profile if image.mode in ("RGBA", "LA", "P") else None
        image = image.convert("RGBA" if is_transparent else "RGB")
    scale = shortest_side / min(image.size)
    size = tuple(max(shortest_side, round(side * scale)) for side in image.size)
    image = image.resize(size, PIL.Image.Resampling.LANCZOS)
    file = io.BytesIO()
    if is_transparent:
        image.save(file, "PNG", icc_profile=profile)
    else:
        image.save(file, "JPEG", quality=_JPEG_QUALITY, icc_profile=profile)
    return file.getvalue()
