# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Nest images and videos as one list per sample, whatever the form in which they are given.

Nothing is opened or decoded here, so that wrong numbers of images are reported at once.

Letters in shapes: `B` batch, `F` frames, `C, H, W` pixels.

The file travels with a checkpoint as remote code: it stays flat and imports only its siblings.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from transformers.image_utils import is_pil_image

from .images_flamingo import abbreviate


def is_array(value: Any, *ndims: int) -> bool:
    """Return whether `value` is an array or a tensor with one of these numbers of dimensions."""
    return isinstance(value, np.ndarray | torch.Tensor) and value.ndim in ndims


def is_video(value: Any) -> bool:
    """Tell whether `value` can only be one video: an array `(F, H, W, C)` or `(F, C, H, W)`, or a list of frames."""
    # A list of paths is not one, because it may be a list of images or of video files. Mappings and bytes are encoded
    # images, as `datasets` gives them.
    if isinstance(value, list | tuple):
        return len(value) > 0 and all(
            is_pil_image(frame) or is_array(frame, 2, 3) or isinstance(frame, Mapping | bytes) for frame in value
        )
    return is_array(value, 4)


def is_single_image(item: Any) -> bool:
    """Return whether an element of a sample's list is an image instead of a video."""
    return not isinstance(item, list | tuple) and not is_array(item, 4)


def nest_media(
    images: Any, videos: Any, text: list[str] | None, image_token: str, count_markers: Callable[[str], int]
) -> list[list[Any]]:
    """
    Nest images and videos as one list per sample, in the order of the markers.

    Args:
        images, videos: Those of a call of [`FlamingoProcessor`], at least one of them.
        text (`list[str]`, *optional*): `B` texts, by whose markers a flat list is split.
        image_token (`str`): The marker, for messages.
        count_markers (`Callable`): Returns the number of images that a text marks.

    Returns:
        `list[list]`: `B` lists whose elements are images or, for a video, lists of frames or 4-D arrays.

    Raises:
        `ValueError`: the nesting is unclear, or a sample has both images and videos, whose order is unknown.
    """
    alone = images is None or videos is None
    by_name = {}
    for name, given, split_media in (("images", images, _split_images), ("videos", videos, _split_videos)):
        split = split_media(given)
        if split is None:
            continue
        items, is_nested = split
        if is_nested:
            by_name[name] = items
        elif text is None or len(text) == 1:
            by_name[name] = [items]
        else:
            # If both arguments are given, it is unknown which markers are those of this list
            counts = [count_markers(sample) for sample in text]
            if not alone or sum(counts) != len(items):
                raise ValueError(
                    f"`{name}` is a flat list of {len(items)} for {len(text)} texts with {counts} `{image_token}` "
                    f"markers{'' if alone else ', and `images` and `videos` are both given'}. The number of "
                    f"`{image_token}` tokens in the prompts should be the same as the number of images or videos, so "
                    "that each marker gets its own. Correct the markers, or give one list per sample."
                )
            rest = iter(items)
            by_name[name] = [[next(rest) for _ in range(count)] for count in counts]
    if alone:
        return next(iter(by_name.values()))

    images, videos = by_name["images"], by_name["videos"]
    if len(images) != len(videos):
        raise ValueError(
            f"`images` is for {len(images)} samples and `videos` for {len(videos)}. Give both one list per sample, "
            "`[]` where there is none."
        )
    for index, (sample_images, sample_videos) in enumerate(zip(images, videos, strict=True)):
        if sample_images and sample_videos:
            raise ValueError(
                f"Sample {index} has {len(sample_images)} images and {len(sample_videos)} videos in two "
                f"arguments, so it is unknown which `{image_token}` marks which. Give them in the order of "
                "the text in `images`, a video as a list of frames: `images=[[image, [frame, frame], image]]`."
            )
    # At most one of the two has anything in it
    return [sample_images or sample_videos for sample_images, sample_videos in zip(images, videos, strict=True)]


def _split_images(images: Any) -> tuple[list, bool] | None:
    """
    Return `images` as a list, and whether it is nested by sample.

    As in the stock processors, a 4-D array is a batch of images: all of them if it is alone, those of a sample if it is
    in a list.
    """
    if images is None:
        return None
    if is_array(images, 4):
        return list(images), False
    if not isinstance(images, list | tuple):
        return [images], False
    # A dataset's row without images may have `None` (Arrow), and TRL's trainers pass it on
    nested = [isinstance(sample, list | tuple) or is_array(sample, 4) for sample in images]
    absent = [sample is None for sample in images]
    if not any(nested) and not (absent and all(absent)):
        return list(images), False
    # A list among single images could be a sample or a video
    if not all(is_list or is_none for is_list, is_none in zip(nested, absent, strict=True)):
        index = next(index for index, sample in enumerate(images) if not nested[index] and sample is not None)
        raise ValueError(
            f"`images` mixes lists with single images: element {index} is a {type(images[index]).__name__}. It "
            "must be a flat list of images or one list per sample, `[]` for a sample without images."
        )
    return [[] if sample is None else list(sample) for sample in images], True


def _split_videos(videos: Any) -> tuple[list, bool] | None:
    """Return `videos` as a list, and whether it is nested by sample."""
    if videos is None:
        return None
    if is_video(videos):
        return [videos], False
    if is_array(videos, 5):
        return list(videos), False
    if isinstance(videos, list | tuple):
        if all(is_video(video) for video in videos):
            return list(videos), False
        if all(sample is None or isinstance(sample, list | tuple) for sample in videos):
            samples = [[] if sample is None else list(sample) for sample in videos]
            for index, sample in enumerate(samples):
                for position, video in enumerate(sample):
                    if not isinstance(video, list | tuple) and not is_array(video, 4):
                        raise video_type_error(f"Video {position} of sample {index}", video)
            return samples, True
    raise video_type_error("`videos`", videos)


def video_type_error(name: str, value: Any) -> ValueError:
    """Return the error for a video that is not given as frames, such as a file."""
    given = abbreviate(value) if isinstance(value, str | os.PathLike) else f"a {type(value).__name__}"
    return ValueError(
        f"{name} is {given}, not frames. Video files are not decoded here. Give each video as a list of frames (PIL "
        "images or arrays) or as an array (F, H, W, C)."
    )
