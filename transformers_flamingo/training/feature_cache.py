# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Decide whether the features of a source with `cache_features: auto` are kept."""

import math
import shutil
from collections.abc import Callable
from typing import Any

import numpy as np
import PIL.Image
import torch
from datasets import Dataset
from transformers.utils import logging

from ..data import BadSampleError
from ..data.encoding import encode_images
from ..data.features import FeatureDtype, cache_directory
from ..data.row_stream import RowStream
from ..data.video_decoding import VideoSegment
from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor
from .data_source import DataSource
from .output_checks import format_size


logger = logging.get_logger(__name__)

# Kept features may take this share of the free space. Checkpoints need the rest.
MAX_SHARE_OF_DISK = 0.5
# Number of rows from which the number of images is estimated
SAMPLE_SIZE = 100
# How often the image processor gets one image, to find out whether it always makes the same pixels
NUM_REPEATS = 16


def encode_if_worthwhile(
    source: DataSource,
    rows: Dataset | RowStream,
    model: FlamingoModel,
    processor: FlamingoProcessor,
    dtype: FeatureDtype,
    num_rows_read: int | None,
    encode: Callable[..., Dataset | None],
) -> Dataset | None:
    """
    Encode the images of a source with `cache_features: auto` if that saves work and the features fit on the disk.

    One line of the log has the decision and its reason.

    Args:
        source ([`DataSource`]): The source.
        rows (`datasets.Dataset` or [`RowStream`]): What `source.load` returned.
        model, processor, dtype: As in [`~data.encode_documents`].
        num_rows_read (`int`, *optional*): Number of rows that each process reads in the training, if it is known.
        encode (`Callable`): [`~data.encode_documents`] with all of its arguments but `approve`.

    Returns:
        What `encode` returned, or `None` if the features are not kept.

    Raises:
        BadSampleError, ValueError: as [`~data.encode_documents`].
    """
    encoded, kept = None, "those of an earlier run"
    reason = find_reason_against(source, rows, model, processor, num_rows_read)

    def has_space() -> bool:
        nonlocal reason, kept
        reason, kept = _look_for_space(source, rows, model, processor, dtype)
        return reason is None

    if reason is None:
        encoded = encode(approve=has_space)
    subject = f"Data source {source.name!r} has `cache_features: auto`: its features are"
    logger.warning(f"{subject} not kept, because {reason}." if encoded is None else f"{subject} kept ({kept}).")
    return encoded


def find_reason_against(
    source: DataSource,
    rows: Dataset | RowStream,
    model: FlamingoModel,
    processor: FlamingoProcessor,
    num_rows_read: int | None,
) -> str | None:
    """
    Find out why keeping features would be wrong, or more work than encoding each image whenever it is read.

    Args:
        source, rows, model, processor, num_rows_read: As in [`encode_if_worthwhile`].

    Returns:
        The reason, or `None` if there is none.
    """
    if isinstance(rows, RowStream):
        return "the rows are a stream, of which nothing is kept"
    if model.vision_model is None:
        return "the model has no vision encoder"
    if any(parameter.requires_grad for parameter in model.vision_model.parameters()):
        return "the vision encoder is trained, so its features change"
    if num_rows_read is None:
        return "the number of steps is not known"
    if num_rows_read <= len(rows):
        return f"each process reads {num_rows_read:,} rows, and one process would encode all {len(rows):,}"
    items = [item for row in _sample(rows) for item in _read_items(source, row)]
    if source.reader.allow_remote or any(map(_is_remote, items)):
        return "its rows may name addresses, whose content changes unnoticed"
    noise = np.random.default_rng(0).integers(256, size=(64, 64, 3), dtype=np.uint8)
    images = [[PIL.Image.fromarray(noise)]]
    pixels = [processor(images=images, return_tensors="pt")["pixel_values"] for _ in range(NUM_REPEATS)]
    if not all(torch.equal(pixels[0], others) for others in pixels):
        return "the image processor does not always make the same pixels of an image"
    return None


def _look_for_space(
    source: DataSource, rows: Dataset, model: FlamingoModel, processor: FlamingoProcessor, dtype: FeatureDtype
) -> tuple[str | None, str]:
    """Return why features are not to be kept, or `None`; and how much space they take."""
    sample = _sample(rows)
    items = [item for row in sample for item in _read_items(source, row)]
    count = sum(item.num_frames if isinstance(item, VideoSegment) else 1 for item in items)
    # A file that several rows name counts each time, and is stored once
    num_images = math.ceil(len(rows) * count / len(sample))
    (features,) = encode_images(model, processor, [PIL.Image.new("RGB", (64, 64))], output="last_hidden_state")
    num_bytes = num_images * features.numel() * getattr(torch, dtype).itemsize
    needed = f"at most about {format_size(num_bytes)} of {num_images:,} images"
    directory = cache_directory(rows)
    if directory is None:
        return f"the rows are in memory, and so would be {needed}", needed
    free = shutil.disk_usage(directory).free
    space = f"{needed}, and the disk of the cache has {format_size(free)} left"
    if num_bytes > MAX_SHARE_OF_DISK * free:
        return f"they take {space}, of which they may take {MAX_SHARE_OF_DISK:.0%}", space
    return None, space


def _sample(rows: Dataset) -> Dataset:
    """Return some rows at equal distances."""
    return rows.select(np.linspace(0, len(rows) - 1, min(len(rows), SAMPLE_SIZE)).astype(int))


def _read_items(source: DataSource, row: dict[str, Any]) -> list[Any]:
    """Return the images, single frames and segments of videos of a row, undecoded."""
    try:
        items = [chunk.item for chunk in source.reader.read(row) if chunk.item is not None][: source.max_images]
    except BadSampleError:  # which is reported when the row is encoded or trained on
        return []
    return [frame for item in items for frame in (item if isinstance(item, list | tuple) else [item])]


def _is_remote(item: Any) -> bool:
    """Tell whether an image or video is an address that was not fetched."""
    if isinstance(item, dict):
        item = item.get("path") if item.get("bytes") is None else None
    path = item.path if isinstance(item, VideoSegment) else item
    return isinstance(path, str) and "://" in path
