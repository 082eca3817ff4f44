# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Encode many images and videos in batches: for evaluation, retrieval, kept features and the miniature."""

from collections.abc import Iterable, Sized
from itertools import islice
from typing import Literal

import PIL.Image
import torch
from tqdm.auto import tqdm

from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor


@torch.no_grad()
def encode_images(
    model: FlamingoModel,
    processor: FlamingoProcessor,
    images: Iterable[PIL.Image.Image | list[PIL.Image.Image]],
    *,
    output: Literal["pooler_output", "last_hidden_state"] = "pooler_output",
    batch_size: int = 32,
    device: torch.device | str | None = None,
    progress: str | None = None,
) -> list[torch.Tensor]:
    """
    Encode each image and video once.

    Latents and features of an image depend on that image alone, so they can be kept and used in any prompt.

    Args:
        model ([`FlamingoModel`]): Has a vision encoder. Its dropout is off meanwhile.
        processor ([`FlamingoProcessor`]): Makes the pixels.
        images (`Iterable[PIL.Image.Image | list[PIL.Image.Image]]`):
            Images, and videos as lists of their `F` frames. An iterator is read one batch at a time, so that only the images of
            one batch need to be in memory.
        output (`str`, *optional*, defaults to `"pooler_output"`):
            `"pooler_output"` for the latents of the resampler, `"last_hidden_state"` for the features of the vision encoder.
        batch_size (`int`, *optional*, defaults to 32): Images and videos encoded together.
        device (`torch.device`, *optional*): Where the results are moved to. By default they stay on the model's device.
        progress (`str`, *optional*): Name of a progress bar. By default there is none.

    Returns:
        `list[torch.Tensor]`: for each image or video its latents `(L, Dv)`; or its features, `(P, Dv)` for an image and
        `(F, P, Dv)` for a video.

    Raises:
        ValueError: the model has no vision encoder, or `batch_size` is below 1.
    """
    if model.vision_model is None:
        raise ValueError(
            "The model has no vision encoder (config.vision_config is None), so it cannot encode images. Pass the features of your "
            "own encoder instead."
        )
    if batch_size < 1:
        raise ValueError(f"`batch_size` is {batch_size}, but it must be at least 1.")
    was_training = model.vision_model.training
    model.vision_model.eval()
    remaining, encoded = iter(images), []
    try:
        total = len(images) if isinstance(images, Sized) else None
        with tqdm(total=total, desc=progress, disable=progress is None) as bar:
            while batch := list(islice(remaining, batch_size)):
                inputs = processor(
                    images=[[item] for item in batch], return_frame_attention_mask=True, return_tensors="pt"
                ).to(model.device)
                features = model.get_image_features(inputs["pixel_values"], inputs["frame_attention_mask"])
                results = features[output][:, 0].to(device)  # each row is one image or video
                if output == "last_hidden_state" and inputs["pixel_values"].ndim == 6:  # padded to the longest video
                    results = [
                        row[: len(item)] if isinstance(item, list) else row[0]
                        for row, item in zip(results, batch, strict=True)
                    ]
                encoded += results
                bar.update(len(batch))
    finally:
        model.vision_model.train(was_training)
    return encoded
