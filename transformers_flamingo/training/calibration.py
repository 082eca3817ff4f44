# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Read a sample of the training images, by which a new model standardizes its vision features."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset
from transformers.utils import logging

from ..feature_standardization_flamingo import CalibrationError
from ..modeling_flamingo import FlamingoModel
from .mixture import DataMixture


logger = logging.get_logger(__name__)

# Batches after which no more are read: a dataset that is nearly all text has few images.
MAX_BATCHES = 500


def calibration_batches(dataset: Any, collator: Any, batch_size: int, seed: int) -> Iterator[Mapping[str, Any]]:
    """
    Read batches for [`~FlamingoModel.calibrate_features`] from the training data.

    The order is random, by a generator of its own, so that of the training and its random numbers stay as they are.
    Streams are read from their beginning. All processes read the same batches. Each image is read once, but a mixture repeats its
    smaller sources until the largest was read, as the training does.

    Args:
        dataset: A [`DataMixture`], or a dataset with or without a length.
        collator (callable): Makes a batch of rows, unless the dataset is a mixture.
        batch_size (`int`): Number of rows in a batch, unless the dataset is a mixture.
        seed (`int`): Seed of the order.
    """
    if isinstance(dataset, DataMixture):
        dataset = dataset.with_settings(seed=seed, process=0, num_processes=1, start=0)
        batches: Iterable = (batch.inputs for batch in islice(dataset.loader(), dataset.num_batches_of_one_pass()))
    else:
        is_stream = isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__")
        generator = torch.Generator().manual_seed(seed)
        batches = DataLoader(dataset, batch_size, shuffle=not is_stream, collate_fn=collator, generator=generator)
    yield from islice(batches, MAX_BATCHES)


def calibrate(model: FlamingoModel, batches: Iterable[Mapping[str, Any]], is_wanted: bool | None) -> None:
    """
    Calibrate a model before its first step, if that is wanted and possible.

    Args:
        model ([`FlamingoModel`]): The model, on the device of the training.
        batches (iterable of `dict`): See [`calibration_batches`].
        is_wanted (`bool`, *optional*): `calibrate_features` of [`FlamingoTrainingArguments`].

    Raises:
        ValueError: it is wanted, and the images do not allow it.
    """
    if is_wanted is None and not (model.ignores_images() and model.config.resampler_feature_positions == 0):
        return
    # The data may draw random numbers, which would be missing in the training
    with torch.random.fork_rng(enabled=True):
        try:
            count = model.calibrate_features(batches)
        except CalibrationError as error:
            if is_wanted:
                raise
            logger.warning(f"Vision features are not standardized. {error}")
            return
    logger.info(f"Vision features are standardized by {count} images of the training data.")
