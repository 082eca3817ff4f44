# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""What a model looked at while it wrote each word, drawn over the image. Needs Pillow alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers.utils import ModelOutput

from ..attention_maps_flamingo import attention_maps
from ..padding_flamingo import find_real_images
from ..processing_flamingo import FlamingoProcessor
from .contact_sheet import Tile, draw_contact_sheet, image_of_pixels


# Shorter side of an image with its map, in pixels, and how much of it the strongest color covers
_SIDE, _COVER = 336, 0.7
# From what was not looked at to what was looked at most
_COLORS = ((20, 20, 80), (150, 30, 120), (240, 110, 40), (255, 235, 100))


@dataclass(frozen=True)
class WordAttention:
    """
    Where a model looked while it wrote a word.

    Args:
        word (`str`): The word.
        weights (`np.ndarray` of shape `(rows, columns)`): The share of each patch; their sum is 1.
    """

    word: str
    weights: np.ndarray

    @property
    def peak(self) -> float:
        """Return how many times as much the strongest patch was looked at as if all patches were looked at alike."""
        return float(self.weights.max() * self.weights.size)


def find_word_attention(
    processor: FlamingoProcessor, outputs: ModelOutput, num_prompt_tokens: int
) -> list[WordAttention]:
    """
    Find where a model looked while it wrote each word of its answer. That of a word is the mean over its tokens and frames.

    Args:
        processor ([`FlamingoProcessor`]): The processor.
        outputs (`ModelOutput`):
            Those of `generate(..., output_cross_attentions=True, return_dict_in_generate=True)`, for one prompt.
        num_prompt_tokens (`int`): Number of tokens of the prompt.

    Returns:
        `list[WordAttention]`: those of the words, in order. Empty if the answer is, or if it saw no image.
    """
    tokens = outputs["sequences"][0, num_prompt_tokens:].tolist()
    if not tokens or outputs.get("resampler_attentions") is None:
        return []
    maps = attention_maps(outputs)[0].mean(dim=1)  # (T, rows, columns)
    words: list[tuple[str, list[int]]] = []
    text = ""
    for index in range(min(len(tokens), len(maps))):
        longer = processor.decode(tokens[: index + 1], skip_special_tokens=True)
        piece, text = longer[len(text) :], longer
        if piece[:1].isspace() or not words:
            words.append((piece, [index]))
        elif piece:
            words[-1] = (words[-1][0] + piece, [*words[-1][1], index])
    return [
        WordAttention(word.strip(), maps[indices].mean(dim=0).numpy())
        for word, indices in words
        if word.strip() and maps[indices].any()
    ]


def image_in_view(processor: FlamingoProcessor, inputs: dict[str, torch.Tensor]) -> Image.Image | None:
    """
    Return the image that an answer sees, the last one of the prompt, as the vision encoder gets it: resized, and often cropped.

    Args:
        processor ([`FlamingoProcessor`]): The processor.
        inputs (`dict[str, torch.Tensor]`): What it made of one prompt.

    Returns:
        `PIL.Image.Image`: of a video the first frame. `None` without an image.
    """
    pixels = inputs.get("pixel_values")
    if pixels is None:
        return None
    mask = inputs.get("frame_attention_mask")
    mask = find_real_images(pixels) if mask is None else mask
    last = int(mask[0].flatten(1).any(dim=1).nonzero()[-1]) if mask.ndim == 3 else int(mask[0].nonzero()[-1])
    image = pixels[0, last]
    image = image if image.ndim == 3 else image[0]
    normalizes = getattr(processor.image_processor, "do_normalize", True)
    mean, std = (getattr(processor.image_processor, name, None) for name in ("image_mean", "image_std"))
    return image_of_pixels(image.float().cpu().numpy(), mean if normalizes else None, std if normalizes else None)


def overlay_attention(image: Image.Image, weights: np.ndarray, strongest: float | None = None) -> Image.Image:
    """
    Color an image by where a model looked: dark where it did not, bright where it looked most.

    Args:
        image (`PIL.Image.Image`): The image.
        weights (`np.ndarray` of shape `(rows, columns)`): The share of each patch.
        strongest (`float`, *optional*):
            The weight that gets the brightest color, to compare the maps of several words. The default is the largest one.

    Returns:
        `PIL.Image.Image`: in the proportions of the image, at least 336 pixels wide and high.
    """
    scale = max(_SIDE / min(image.size), 1)
    size = round(image.width * scale), round(image.height * scale)
    strongest = float(weights.max()) if strongest is None else strongest
    shares = np.clip(np.asarray(weights, dtype=np.float32) / max(strongest, 1e-12), 0, 1)
    # Smoothed, as the patches that an encoder looks at overlap in what they know
    shares = np.asarray(Image.fromarray(shares).resize(size, Image.Resampling.BICUBIC)).clip(0, 1)[..., None]
    places = shares * (len(_COLORS) - 1)
    colors = np.asarray(_COLORS, dtype=np.float32)
    low = np.floor(places[..., 0]).astype(int).clip(0, len(_COLORS) - 2)
    heat = colors[low] + (colors[low + 1] - colors[low]) * (places - low[..., None])
    pixels = np.asarray(image.convert("RGB").resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
    gray = pixels.mean(axis=-1, keepdims=True)
    # Bright places keep the image's own colors beneath; the others are dimmed, so that both are seen without color, too
    cover = _COVER * (1 - 0.45 * shares)
    mixed = (0.5 * pixels + 0.5 * gray) * (1 - cover) + heat * cover
    return Image.fromarray(mixed.clip(0, 255).round().astype(np.uint8))


def draw_attention_sheet(path: str | Path, image: Image.Image, words: Sequence[WordAttention]) -> Image.Image:
    """
    Draw an image and, for each word, what the model looked at, and write the sheet as an image file.

    All words share one scale of colors. Below each word is its peak: 1 means that all patches were looked at alike.

    Args:
        path (`str` or `Path`): The image file to write. Its folder is created.
        image (`PIL.Image.Image`): The image, as [`image_in_view`] returns it.
        words (`Sequence[WordAttention]`): See [`find_word_attention`].

    Returns:
        `PIL.Image.Image`: the sheet, for a notebook or for a test.
    """
    strongest = max((float(word.weights.max()) for word in words), default=1.0)
    tiles = [Tile(image, "", "as the model sees it")]
    for word in words:
        tiles.append(
            Tile(overlay_attention(image, word.weights, strongest), word.word, f"peak {word.peak:.1f} x even")
        )
    return draw_contact_sheet(path, {" ".join(word.word for word in words): tiles})
