# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Open images from anywhere safely, as upright 8-bit RGB, with errors that name the image.

There are three steps, each of which may be used alone: `read_image` opens a path, an address, base64, bytes or an array;
`find_bit_depth` tells which value is white if the container does not; `to_rgb_8_bit` converts.

The file travels with a checkpoint as remote code: it stays flat and imports only its siblings.
"""

import base64
import os
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import numpy as np
import PIL.ExifTags
import PIL.Image
import torch
from transformers.image_transforms import convert_to_rgb
from transformers.image_utils import (
    ChannelDimension,
    infer_channel_dimension_format,
    is_pil_image,
    is_valid_image,
    to_numpy_array,
)
from transformers.utils import logging

from .files_flamingo import fetch, read_regular_file


logger = logging.get_logger(__name__)

# Pillow passes an EPS file to Ghostscript, which runs the program in the file.
_REFUSED_FORMATS = {"EPS"}
# Bit depths of detectors and scanners. Values without a declared depth get the first one that holds them.
_DEPTHS = (8, 10, 12, 14, 16)
# How to turn an image upright, by the EXIF orientation that its file declares.
_UPRIGHT = {
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_270,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_90,
}
_WINDOW = (
    "Scale it to `uint8` first, with the range that you want to see: "
    "`((image - low) / (high - low) * 255).clip(0, 255).astype('uint8')`."
)

_warned: set[str] = set()


def _warn_once(kind: str, message: str) -> None:
    if kind not in _warned:
        _warned.add(kind)
        logger.warning(message)


def abbreviate(source: Any) -> str:
    """Return the `repr` of a path, an address or base64, shortened if it is long."""
    text = os.fsdecode(source)
    return repr(text if len(text) <= 120 else f"{text[:80]}... ({len(text)} characters)")


# ---------------------------------------------------------------------------------------------------------------------
# Opening
# ---------------------------------------------------------------------------------------------------------------------


def open_bytes(data: bytes) -> PIL.Image.Image:
    """Open the bytes of an image file with Pillow, without reading the pixels, and raise whatever Pillow raises."""
    PIL.Image.init()  # else `PIL.Image.ID` lacks the rarer formats
    return PIL.Image.open(BytesIO(data), formats=[name for name in PIL.Image.ID if name not in _REFUSED_FORMATS])


def _bytes_of(source: str | os.PathLike, name: str) -> bytes:
    """Return the bytes of the image file behind a path, an address, a `data:image/` URI or bare base64."""
    source = os.fsdecode(source)
    try:
        if source.startswith(("http://", "https://")):
            return fetch(source)
        if "\0" not in source and os.path.exists(source):
            return read_regular_file(source)
    except TimeoutError as error:
        raise ValueError(
            f"{name} cannot be fetched: {error}. Download it and give the file, or raise "
            "`files_flamingo.FETCH_SECONDS`."
        ) from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{name} cannot be read: {error}. Give the path or the address of one image file.") from error
    encoded = source.partition(",")[2] if source.startswith("data:image/") else source
    try:
        return base64.b64decode("".join(encoded.split()), validate=True)
    except ValueError as error:
        raise ValueError(
            f"{name} is not an image: there is no such file, and it is neither a URL starting with `http://` or "
            "`https://` nor base64. Check the path; a relative one is relative to the working directory."
        ) from error


def check_pixel_count(image: PIL.Image.Image, name: str) -> None:
    """Raise a `ValueError` if an image has no pixels, or more than `PIL.Image.MAX_IMAGE_PIXELS`."""
    if image.width * image.height == 0:
        raise ValueError(f"{name} is {image.width} x {image.height}: it has no pixels. Remove it and its marker.")
    limit = PIL.Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise ValueError(
            f"{name} has {image.width} x {image.height} = {image.width * image.height} pixels, more than the limit of "
            f"{limit} (`PIL.Image.MAX_IMAGE_PIXELS`). Decoding it could exhaust the memory: it may be a decompression "
            "bomb. Shrink it first, or raise `PIL.Image.MAX_IMAGE_PIXELS` if you trust where it comes from."
        )


def open_image(source: Any, name: str) -> tuple[PIL.Image.Image, str]:
    """
    Open one image and read its pixels, which detects a truncated file.

    Args:
        source: A PIL image; a path, an `http(s)://` address, a `data:image/` URI or base64; the bytes of an image
            file; or a dict of `bytes` and `path`, as `datasets.Image(decode=False)` gives it, of which `bytes` are used if both
            are given.
        name (`str`): Name of the image in errors, such as `"Image 0 of sample 1"`.

    Returns:
        The image, and its name with that of its file.

    Raises:
        `ValueError`: it is missing, not an image, damaged, or has no or too many pixels.
    """
    if isinstance(source, Mapping):
        path, data = source.get("path"), source.get("bytes")
        if data is not None and path:
            name = f"{name} ({abbreviate(path)})"
        source = path if data is None else data
    if isinstance(source, str | os.PathLike):
        name = f"{name} ({abbreviate(source)})"
        source = _bytes_of(source, name)
    if isinstance(source, bytes | bytearray | memoryview):
        try:
            source = open_bytes(bytes(source))
        except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning) as error:
            raise ValueError(
                f"{name} has more pixels than the limit of {PIL.Image.MAX_IMAGE_PIXELS} "
                f"(`PIL.Image.MAX_IMAGE_PIXELS`): {error} Shrink it first, or raise `PIL.Image.MAX_IMAGE_PIXELS` if "
                "you trust where it comes from."
            ) from error
        except Exception as error:  # each of Pillow's decoders has its own
            raise ValueError(
                f"{name} is not an image that Pillow can read: {error_words(error)}. Remove or replace it; a download may "
                "have stored an error page instead of the image."
            ) from error
    elif is_pil_image(source):
        if getattr(source, "filename", ""):
            name = f"{name} ({abbreviate(source.filename)})"
    else:
        given = "None" if source is None else f"a {type(source).__name__}"
        raise ValueError(
            f"{name} is {given}, not an image. Give a PIL image, an array, a path, a URL, base64, or a dict of `bytes` "
            "and `path`; for a sample without images give an empty list and no marker."
        )
    check_pixel_count(source, name)
    try:
        load_pixels(source)
    except Exception as error:  # each of Pillow's decoders has its own
        raise ValueError(
            f"{name} cannot be decoded: {error_words(error)}. The file is truncated or damaged. Fetch it again, or remove it."
        ) from error
    check_pixel_count(source, name)  # an icon tells its true size only now
    return source, name


def load_pixels(image: PIL.Image.Image) -> None:
    """
    Read the pixels of an image that Pillow has opened, as `image.load()` does, and raise whatever Pillow raises.

    Of color files with 16 bits Pillow reads the high byte alone. That can be seen only before the pixels are read, so it is
    recorded as `image.info["keeps_high_byte"]`.
    """
    if len(image.getbands()) > 1 and any(";16" in str(tile) for tile in getattr(image, "tile", ())):
        image.info["keeps_high_byte"] = True
    image.load()


def error_words(error: Exception) -> str:
    """Return the text of an error of Pillow, without the address of a buffer and the final period."""
    if isinstance(error, PIL.UnidentifiedImageError):
        return "it is not in the format of an image"
    return str(error).rstrip(".") or type(error).__name__


# ---------------------------------------------------------------------------------------------------------------------
# Values
# ---------------------------------------------------------------------------------------------------------------------


def check_bit_depth(bit_depth: int | None) -> None:
    """Raise a `ValueError` if `bit_depth` is neither `None` nor a number of bits from 1 to 16."""
    if bit_depth is None:
        return
    if isinstance(bit_depth, bool) or not isinstance(bit_depth, int | np.integer) or not 1 <= bit_depth <= 16:
        raise ValueError(
            f"`bit_depth` is {bit_depth!r}. It is the number of bits of a pixel value, from 1 to 16, such as 12 for most "
            "medical images; `None` finds it from the values."
        )


def deep_values(image: PIL.Image.Image | np.ndarray) -> np.ndarray | None:
    """Return the values of an image whose container has more than 8 bits, `None` of one with 8 bits or 1."""
    if isinstance(image, PIL.Image.Image):
        return np.asarray(image) if image.mode in ("I", "F") or image.mode.startswith("I;16") else None
    return None if image.dtype in (np.uint8, np.bool_) else image


def check_range(values: np.ndarray, name: str) -> tuple[float, float]:
    """Return the minimum and the maximum; raise a `ValueError` if they do not tell which value is white."""
    low, high = values.min(), values.max()
    # Nobody stores an image of 255 levels as fractions below 2: white is 1, and a resize or an augmentation went beyond it
    overshoots = values.dtype.kind == "f" and 1 < high < 2 and bool((values % 1).any())
    if low >= 0 and high <= 65535 and not overshoots:
        return low, high
    if not (np.isfinite(low) and np.isfinite(high)):
        finite = values[np.isfinite(values)]
        low, high = (finite.min(), finite.max()) if finite.size else (low, high)
        remedy = (
            f"{values.size - finite.size} of its {values.size} values are not finite (NaN or infinity). Fix the image."
        )
    elif low >= -1 and high <= 1 and values.dtype.kind == "f":
        remedy = (
            "It looks normalized already. Give the image itself, or pass `do_rescale=False, do_normalize=False, "
            "do_resize=False` if it is ready for the vision encoder."
        )
    elif overshoots and low > -1:
        remedy = "White seems to be 1, and a resize or an augmentation went beyond it. Clip it: `image.clip(0, 1)`."
    elif low < 0:
        remedy = f"Negative values, such as Hounsfield units, are not between black and white. {_WINDOW}"
    else:
        remedy = _WINDOW
    raise ValueError(
        f"{name} has pixel values from {low} to {high} ({values.dtype}). Only 0..1 (floats), 0..255 and 0..65535 tell which "
        f"value is white. {remedy}"
    )


def find_bit_depth(series: Sequence[np.ndarray], names: Sequence[str]) -> int | None:
    """
    Find the number of bits that the values of an image, or of all frames of a video, really use.

    Detectors give 10, 12 or 14 bits, and files store them in 16. Read as 16 bits, a 12-bit X-ray is nearly black. Only the
    values are known, so the depth is the first of 8, 10, 12, 14 and 16 that holds the brightest value of the series. It is
    16 if all values are multiples of 257, which are 8 bits widened to 16, and for one flat color, which tells nothing.
    `int16` ends at 15 bits. Wider containers and floats are read as 8 bits up to 255.

    A depth below that of the container is a guess. It is logged once per process.

    Returns:
        The number of bits, or `None` if all values are floats up to 1, of which 1 is white.

    Raises:
        `ValueError`: an image has values below 0, above 65535, or not finite. The message has its name and range.
    """
    ranges = [check_range(values, name) for values, name in zip(series, names, strict=True)]
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    dtypes = [values.dtype for values in series]
    if high <= 1 and all(dtype.kind == "f" for dtype in dtypes):
        return None
    if high <= 255 and not any(dtype.kind == "u" and dtype.itemsize == 2 for dtype in dtypes):
        return 8
    # 257 = 65535 / 255
    is_widened = low == high or all(not (values % 257).any() for values in series)
    full = 15 if all(dtype.kind == "i" and dtype.itemsize == 2 for dtype in dtypes) else 16
    depth = full if is_widened else next(depth for depth in (*_DEPTHS[:-1], full) if high < 2**depth)
    if depth < full:
        index = [top for _, top in ranges].index(high)
        _warn_once(
            "bit depth",
            f"{names[index]} has pixel values from {low} to {high} in a container of 16 bits or more ({dtypes[index]}). It is read as "
            f"an image of {depth} bits, in which {2**depth - 1} is white. If it is a dark image of more bits, or one of "
            "a series, pass the true depth to the processor: `bit_depth=16`, for example. Other images are read by the "
            "same rule; this is logged once.",
        )
    return depth


def to_8_bit(values: np.ndarray, name: str, bit_depth: int | None) -> np.ndarray:
    """
    Scale pixel values to `uint8`, keeping black and white where they are. `PIL.Image.convert` clips instead.

    Args:
        values (`np.ndarray`): Any shape, any numbers.
        name (`str`): Name of the image in errors.
        bit_depth (`int`, *optional*): White is `2**bit_depth - 1`; by default it is 1.

    Raises:
        `ValueError`: a value is negative, brighter than white, or not finite.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    low, high = check_range(values, name)
    white = 1 if bit_depth is None else 2**bit_depth - 1
    if high > white:
        raise ValueError(
            f"{name} has pixel values from {low} to {high} ({values.dtype}), but with `bit_depth={bit_depth}` white is "
            f"{white}. Pass the bit depth of the image, or `None` to find it from the values."
        )
    return np.rint(np.multiply(values, 255 / white, dtype=np.float64)).astype(np.uint8)


# ---------------------------------------------------------------------------------------------------------------------
# Conversion
# ---------------------------------------------------------------------------------------------------------------------


def channels_last(image: Any, name: str, layout: str | ChannelDimension | None = None) -> np.ndarray:
    """
    Return an array or tensor `(H, W)`, `(H, W, C)` or `(C, H, W)` of numbers as `(H, W, C)`.

    Raises:
        `ValueError`: it has another shape, no pixels, or no numbers.
    """
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu()
        image = image.float() if image.dtype == torch.bfloat16 else image  # which numpy lacks
    array = to_numpy_array(image)
    if array.dtype.kind not in "buif":
        raise ValueError(f"{name} is an array of {array.dtype}, not of numbers. Convert it to `uint8`.")
    if array.ndim not in (2, 3) or array.size == 0:
        raise ValueError(
            f"{name} is an array of shape {array.shape}. An image has the shape (H, W), (H, W, C) or (C, H, W), and no side "
            "of length 0."
        )
    if array.ndim == 2:
        return array[..., None]
    try:
        layout = ChannelDimension(layout or infer_channel_dimension_format(array, num_channels=(1, 3, 4)))
    except ValueError as error:
        raise ValueError(
            f"{name} is an array of shape {array.shape}, with 1, 3 or 4 channels neither first nor last. Convert it to "
            "RGB."
        ) from error
    array = np.moveaxis(array, 0, -1) if layout == ChannelDimension.FIRST else array
    if array.shape[-1] not in (1, 3, 4):
        raise ValueError(f"{name} has {array.shape[-1]} channels, not 1, 3 or 4. Check `input_data_format`.")
    return array


def read_image(source: Any, name: str, layout: str | ChannelDimension | None = None) -> tuple[Any, str]:
    """Return an array `(H, W, C)` for an array, and otherwise what [`open_image`] returns, with the name for errors."""
    if is_valid_image(source) and not is_pil_image(source):
        return channels_last(source, name, layout), name
    return open_image(source, name)


def to_rgb_8_bit(
    image: PIL.Image.Image | np.ndarray, name: str, *, to_rgb: bool = True, bit_depth: int | None = None
) -> PIL.Image.Image:
    """
    Convert what [`read_image`] returned to an upright image with 8 bits per channel and, if `to_rgb`, to RGB.

    Transparency is blended onto white by `convert_to_rgb`.

    Args:
        image: The image.
        name (`str`): Name of the image in errors.
        to_rgb (`bool`, *optional*, defaults to `True`): Whether to convert to RGB.
        bit_depth (`int`, *optional*): What [`find_bit_depth`] found, if the image has [`deep_values`].

    Raises:
        `ValueError`: its mode cannot be converted, or its values do not fit `bit_depth`.
    """
    if isinstance(image, np.ndarray):
        array = np.ascontiguousarray(to_8_bit(image, name, bit_depth))
        image = PIL.Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
    else:
        image = _upright(image)
        _check_high_byte(image, name, bit_depth)
        values = deep_values(image)
        if values is not None:
            image = PIL.Image.fromarray(to_8_bit(values, name, bit_depth))
    if not to_rgb or (image.mode == "RGB" and "transparency" not in image.info):
        return image
    try:
        return PIL.Image.fromarray(convert_to_rgb(image, return_numpy=True))
    except Exception as error:  # each mode has its own
        raise ValueError(
            f"{name} has the mode {image.mode!r}, which Pillow cannot convert to RGB ({error_words(error)}). Convert it first, "
            "for example with `PIL.ImageCms`."
        ) from error


def _upright(image: PIL.Image.Image) -> PIL.Image.Image:
    """Return the image turned as its EXIF says."""
    try:
        orientation = image.getexif().get(PIL.ExifTags.Base.Orientation, 1)
    except Exception:
        # Unreadable EXIF tells nothing about the pixels, which are intact. Pillow ignores it in JPEG files, too.
        return image
    # Not `exif_transpose`, which also rewrites the EXIF, and fails if it is malformed
    return image.transpose(_UPRIGHT[orientation]) if orientation in _UPRIGHT else image


def _check_high_byte(image: PIL.Image.Image, name: str, bit_depth: int | None) -> None:
    """Report a color file of 16 bits, of which Pillow reads the high byte alone, if its values end before that."""
    if not image.info.get("keeps_high_byte"):
        return
    if bit_depth is not None and bit_depth < 16:
        raise ValueError(
            f"{name} is a color file of 16 bits, of which Pillow reads the high byte alone, so `bit_depth={bit_depth}` "
            "cannot be honored. Read it with another library and give an array of `uint16`."
        )
    colors = image.getextrema()[: 1 if image.mode == "LA" else 3]
    high = max(top for _, top in colors)
    if 0 < high < 64 and min(low for low, _ in colors) < high:
        _warn_once(
            "high byte",
            f"{name} is a color file of 16 bits, of which Pillow reads the high byte alone, and its values end at "
            f"{256 * high + 255} of 65535: it is nearly black. If it holds {(256 * high + 255).bit_length()} bits, read it "
            "with another library and give an array of `uint16`. This is logged once.",
        )
