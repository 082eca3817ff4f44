# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""From images and videos nested by sample to padded pixels, with any image processor.

Letters in shapes: `B` batch, `N` images or videos per sample, `F` frames, `C, H, W` pixels.

The file travels with a checkpoint as remote code: it stays flat and imports only its siblings.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import PIL.Image
import torch
from transformers import BaseImageProcessor
from transformers.image_processing_utils import get_size_dict
from transformers.image_transforms import convert_to_rgb
from transformers.image_utils import ChannelDimension, SizeDict, is_scaled_image

from .checks_flamingo import is_finite
from .images_flamingo import check_range, deep_values, find_bit_depth, read_image, to_rgb_8_bit
from .media_flamingo import is_single_image


# Maximum length of a side that an image processor may be asked for.
MAX_SIDE = 2**15

# A frame as image processors take it: a PIL image, or floats `(C, H, W)` that are not to be rescaled.
Frame = PIL.Image.Image | np.ndarray
# A function that returns a setting of the image processor by its name.
Setting = Callable[[str], Any]


def make_pixels(
    images: list[list[Any]], image_processor: BaseImageProcessor, bit_depth: int | None, kwargs: dict[str, Any]
) -> tuple[torch.Tensor, torch.Tensor] | None:
    """
    Decode all frames of a batch, run the image processor over them once, and pad them with zeros.

    Args:
        images (`list[list]`): `B` lists of images or videos, as [`nest_media`] returns them.
        image_processor ([`BaseImageProcessor`]): The image processor of the vision encoder.
        bit_depth (`int`, *optional*): Bits of a pixel value; `None` finds them for each image or video.
        kwargs (`dict`): Arguments of the image processor, which win over its attributes.

    Returns:
        Pixels of shape `(B, N, C, H, W)`, or `(B, N, F, C, H, W)` if there is a video, and their mask `(B, N)` or
        `(B, N, F)`; `None` if no sample has an image.

    Raises:
        `ValueError`: a frame cannot be read, or its pixels would be of no use to the model.
    """

    def setting(key: str) -> Any:
        value = kwargs.get(key)
        return getattr(image_processor, key, None) if value is None else value

    videos = [item for sample in images for item in sample if not is_single_image(item)]
    num_frames = max(1, *(len(video) for video in videos)) if videos else 1
    frames, names = [], []
    mask = torch.zeros(len(images), max(len(sample) for sample in images), num_frames, dtype=torch.int64)
    for index, sample in enumerate(images):
        for position, item in enumerate(sample):
            if is_single_image(item):
                series = {f"Image {position} of sample {index}": item}
            elif len(item) == 0:
                raise ValueError(
                    f"Video {position} of sample {index} has no frames. Give at least one, or remove the video."
                )
            else:
                series = {f"Frame {i} of video {position} of sample {index}": frame for i, frame in enumerate(item)}
            mask[index, position, : len(series)] = 1
            frames += decode_series(series, bit_depth, setting, kwargs.get("input_data_format"))
            names += series
    if not frames:
        return None

    pixels = _run_image_processor(image_processor, frames, names, kwargs)
    stack, zeros_like = torch.stack, torch.zeros_like
    if isinstance(pixels[0], np.ndarray):
        stack, zeros_like = np.stack, np.zeros_like
    real, blank = iter(pixels), zeros_like(pixels[0])
    # Padding is one array that is stacked many times, so that each frame is copied only once
    pixels = torch.as_tensor(stack([next(real) if is_real else blank for is_real in mask.flatten().tolist()]))
    if not videos:
        mask = mask.squeeze(2)
    return pixels.view(*mask.shape, *pixels.shape[1:]), mask


def has_padded_frames(mask: torch.Tensor) -> bool:
    """Tell whether a video of a mask `(B, N, F)` has fewer frames than another one. Images `(B, N)` have none."""
    return mask.ndim == 3 and bool((mask.any(dim=2) & ~mask.all(dim=2)).any())


def _run_image_processor(
    image_processor: BaseImageProcessor, frames: list[Frame], names: list[str], kwargs: dict[str, Any]
) -> list[np.ndarray | torch.Tensor]:
    """Return the pixels `(C, H, W)` of each frame, all of one size, and refuse what the model could not use."""
    if any(isinstance(frame, np.ndarray) for frame in frames):
        kwargs = {**kwargs, "input_data_format": ChannelDimension.FIRST}
    outputs = image_processor(frames, **kwargs)
    pixels = outputs["pixel_values"]
    shapes = sorted({tuple(frame.shape) for frame in pixels})
    if len(shapes) != 1 or len(shapes[0]) != 3 or len(pixels) != len(frames):
        raise ValueError(
            f"{type(image_processor).__name__} gave {len(pixels)} arrays of shapes {shapes} for "
            f"{len(frames)} images. Flamingo needs one (C, H, W) for each, all of one size, to stack them. Set "
            "its `size`, `crop_size` and `do_center_crop` for a fixed size, and no tiling."
        )
    _check_no_padding(outputs, shapes[0], type(image_processor).__name__)
    for name, frame in zip(names, pixels, strict=True):
        if not is_finite(torch.as_tensor(frame)):
            raise ValueError(
                f"{type(image_processor).__name__} made pixels of {name} that are not finite numbers (NaN or "
                "infinity): the model would answer with noise. Check `rescale_factor`, `image_mean` and `image_std`."
            )
    return pixels


def _check_no_padding(outputs: Mapping[str, Any], shape: tuple[int, int, int], name: str) -> None:
    """Check that an image processor padded no image `(C, H, W)`: the model would take the padding for a part of it."""
    expected = {"pixel_mask": 1, "pixel_attention_mask": 1, "image_sizes": shape[1:]}
    padded = [key for key in expected if key in outputs and not _all_equal(outputs[key], expected[key])]
    if padded:
        raise ValueError(
            f"{name} padded images of different sizes to {shape[1]} x {shape[2]}, as its `{padded[0]}` says, and the model would "
            "take the padding for a part of them. Make all images of one size: set `size` to a dict of `height` and `width`, "
            "or give images of one shape."
        )


def _all_equal(values: Any, expected: Any) -> bool:
    return bool((torch.as_tensor(np.asarray(values)) == torch.as_tensor(expected)).all())


def decode_series(
    series: dict[str, Any], bit_depth: int | None, setting: Setting, layout: str | ChannelDimension | None = None
) -> list[Frame]:
    """
    Decode an image, or all frames of a video, into what the image processor takes: PIL images, or arrays `(C, H, W)`
    for floats that it is not to rescale.

    Stock image processors differ in which of them convert to RGB, and infer the channel order of each array again
    at every step: an array `(3, 200, 3)` changes its meaning on the way. An array therefore becomes a PIL image here,
    as it would inside `resize` anyway.

    Args:
        series (`dict[str, Any]`): The image or the frames, each under its name for errors.
        bit_depth (`int`, *optional*): Bits of a pixel value; `None` finds one depth for the whole series.
        setting (`Callable`): Returns a setting of the image processor by its name.
        layout (`str`, *optional*): Order of the dimensions of arrays; by default it is inferred.

    Raises:
        `ValueError`: a frame cannot be read, has values of unknown range, or is too long and thin.
    """
    to_rgb = setting("do_convert_rgb") is not False
    # Floats go to the image processor as they are, unless it divides them by 255. 1 / 255 and 1 / 127.5 are in use.
    keeps_floats = not (setting("do_rescale") and 0 < (setting("rescale_factor") or 0) < 0.01)
    opened = [read_image(image, name, layout) for name, image in series.items()]
    deep = {}
    for image, name in opened:
        is_float = isinstance(image, np.ndarray) and image.dtype.kind == "f"
        # A black frame is in 0..1 as well, and is black either way
        if is_float and not keeps_floats and is_scaled_image(image) and image.any():
            raise ValueError(
                f"{name} has floats in 0..1, and the image processor would divide them by "
                f"{1 / setting('rescale_factor'):g} once more: the model would see a black image. "
                "Pass `do_rescale=False`, or give `uint8`."
            )
        if not (is_float and keeps_floats) and (values := deep_values(image)) is not None:
            deep[name] = values
    if bit_depth is None and deep:
        bit_depth = find_bit_depth(list(deep.values()), list(deep))

    # Floats in 0..1 have white at 1 and no bit depth. That is decided for the series: a dark frame of one in 0..255 may
    # end below 1.
    floats = [values for values in deep.values() if values.dtype.kind == "f"]
    has_unit_floats = all(values.max() <= 1 for values in floats)
    frames = []
    for image, name in opened:
        if isinstance(image, np.ndarray) and image.dtype.kind == "f" and keeps_floats:
            frame = _check_ready_floats(image, name, to_rgb, setting)
        else:
            is_unit = has_unit_floats and name in deep and deep[name].dtype.kind == "f"
            frame = to_rgb_8_bit(image, name, to_rgb=to_rgb, bit_depth=None if is_unit else bit_depth)
        check_resized_size(frame, name, setting)
        frames.append(frame)
    return frames


def _check_ready_floats(array: np.ndarray, name: str, to_rgb: bool, setting: Setting) -> np.ndarray:
    """Check floats `(H, W, C)` that the image processor is not to rescale, and return them as `(C, H, W)`."""
    low, high = array.min(), array.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        check_range(array, name)  # which raises, and says how many
    # To resize floats, transformers makes 8-bit images of those in 0..1 and of whole numbers, and fails on all others
    is_image = low >= 0 and (high <= 1 or (high <= 255 and np.array_equal(array, np.rint(array))))
    if not is_image and (setting("do_resize") or (to_rgb and array.shape[-1] == 4)):
        raise ValueError(
            f"{name} has pixel values from {low} to {high} ({array.dtype}) and is not to be rescaled, but to be resized "
            "or converted to RGB, which needs values in 0..1. Scale them, or pass `do_resize=False` too, with RGB of the "
            "final size."
        )
    if to_rgb:
        array = convert_to_rgb(array, return_numpy=True, input_data_format=ChannelDimension.LAST)
    return np.moveaxis(array, -1, 0)


def check_resized_size(frame: Frame, name: str, setting: Setting) -> None:
    """
    Check that a long and thin image does not become too large when its short side is resized.

    Resized to 224, an image of 1 x 5000 has 224 x 1,120,000 pixels, before the center crop keeps 224 x 224 of them:
    CLIP's processor takes 2.4 GB and 9 s for it. The limit is that of images in general, `PIL.Image.MAX_IMAGE_PIXELS`,
    because a resized image costs what an opened one of its size costs.

    Args:
        frame: A PIL image, or floats `(C, H, W)`.
        name (`str`): Name of the image in errors.
        setting (`Callable`): Returns a setting of the image processor by its name.

    Raises:
        `ValueError`: it would have more pixels than the limit.
    """
    size, limit = setting("size"), PIL.Image.MAX_IMAGE_PIXELS
    if limit is None or not size or not setting("do_resize"):
        return
    size = get_size_dict(size, default_to_square=setting("default_to_square") is not False)
    new_short = size.get("shortest_edge")
    if not new_short or size.get("longest_edge"):  # the size that results is known, and was checked
        return
    height, width = frame.shape[1:] if isinstance(frame, np.ndarray) else (frame.height, frame.width)
    # As `get_resize_output_image_size` rounds it
    new_long = int(new_short * max(height, width) / min(height, width))
    if new_short * new_long > limit:
        raise ValueError(
            f"{name} is {width} x {height} (width x height): with its short side resized to {new_short} it would have "
            f"{new_short} x {new_long} pixels, more than the limit of {limit} (`PIL.Image.MAX_IMAGE_PIXELS`). Crop it "
            "first, or remove it."
        )


def check_image_settings(settings: Mapping[str, Any], location: str) -> None:
    """
    Check settings of an image processor with which every image would be noise.

    Args:
        settings (`Mapping[str, Any]`): Settings by name, of which `rescale_factor`, `image_mean`, `image_std`, `size`,
            `crop_size` and `pad_size` are checked where they are given.
        location (`str`): Where the settings are from, for the message.

    Raises:
        `ValueError`: a setting is not a finite number, is 0 or negative, or is a size that cannot be.
    """

    def refuse(key: str, requirement: str) -> None:
        raise ValueError(f"`{key}` of {location} is {settings[key]!r}. It must be {requirement}.")

    for key in ("rescale_factor", "image_mean", "image_std"):
        value = settings.get(key)
        if value is None:
            continue
        numbers = (
            [value] if key == "rescale_factor" or not isinstance(value, list | tuple | np.ndarray) else list(value)
        )
        if not numbers or not all(_is_number(number) for number in numbers):
            refuse(key, "finite numbers" if key != "rescale_factor" else "a finite number")
        if key != "image_mean" and not all(number > 0 for number in numbers):
            refuse(key, "above 0")
    for key in ("size", "crop_size", "pad_size"):
        value = settings.get(key)
        if value is None:
            continue
        if isinstance(value, Mapping | SizeDict):
            numbers = list(dict(value).values())
        else:
            numbers = list(value) if isinstance(value, list | tuple) else [value]
        # An image processor would make arrays of that size, whatever the size of the image
        if not all(n is None or (_is_number(n) and n == int(n) and 0 < n <= MAX_SIDE) for n in numbers):
            refuse(key, f"whole numbers of pixels from 1 to {MAX_SIDE}")
        if key == "crop_size" and isinstance(value, Mapping) and not {"height", "width"} <= value.keys():
            refuse(key, "a dict with `height` and `width`")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.number) and not isinstance(value, bool) and math.isfinite(value)
