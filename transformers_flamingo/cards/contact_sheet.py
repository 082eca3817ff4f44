# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Contact sheets: images as a vision encoder gets them, each above its text. Needs Pillow alone."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..saving_flamingo import disk_errors


# Pixels: the longer side of an image, gaps, the height of a line and of its letters
_SIDE, _GAP, _LINE, _SIZE = 176, 12, 15, 12
_COLUMNS, _TEXT_LINES, _CHARS = 6, 5, 27
_BACKGROUND, _INK, _QUIET = "white", "black", "dimgray"


@dataclass(frozen=True)
class Tile:
    """
    An image of a contact sheet.

    Args:
        image (`PIL.Image.Image`): The image.
        text (`str`): The text below it. A long one is cut.
        note (`str`, *optional*): A line in gray above the text, such as where the image is from.
    """

    image: Image.Image
    text: str
    note: str = ""


def draw_contact_sheet(path: str | Path, sections: dict[str, Sequence[Tile]]) -> Image.Image:
    """
    Draw images with their texts, and write them as an image file.

    Args:
        path (`str` or `Path`): The image file to write. Its folder is created.
        sections (`dict[str, Sequence[Tile]]`): The images below each heading.

    Returns:
        `PIL.Image.Image`: the sheet, for a notebook or for a test.
    """
    num_lines = max((len(_wrap(tile.text)) for tiles in sections.values() for tile in tiles), default=1)
    height_of_tile = _SIDE + (1 + num_lines) * _LINE + _GAP
    heights = [2 * _LINE + -(-len(tiles) // _COLUMNS) * height_of_tile for tiles in sections.values()]
    sheet = Image.new("RGB", (_GAP + _COLUMNS * (_SIDE + _GAP), 2 * _GAP + sum(heights)), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    top = _GAP
    for (heading, tiles), height in zip(sections.items(), heights, strict=True):
        _write(draw, (_GAP, top), heading[: _COLUMNS * _CHARS], _INK, size=_SIZE + 2)
        for index, tile in enumerate(tiles):
            row, column = divmod(index, _COLUMNS)
            place = _GAP + column * (_SIDE + _GAP), top + 2 * _LINE + row * height_of_tile
            _draw_tile(sheet, draw, place, tile)
        top += height
    with disk_errors(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)
    return sheet


def image_of_pixels(pixels: np.ndarray, mean: Sequence[float] | None, std: Sequence[float] | None) -> Image.Image:
    """
    Turn the pixels that an image processor made into an image again.

    Args:
        pixels (`np.ndarray` of shape `(C, H, W)`): The pixels.
        mean, std (`Sequence[float]`, *optional*): With which they were normalized, by channel; `None` if they were not.
    """
    values = np.asarray(pixels, dtype=np.float64)
    if mean is not None and std is not None:
        values = values * np.reshape(std, (-1, 1, 1)) + np.reshape(mean, (-1, 1, 1))
    low, high = values.min(), values.max()
    if low < -0.05 or high > 1.05:  # normalized in a way that is not known here
        values = (values - low) / max(high - low, 1e-12)
    values = (values.clip(0, 1) * 255).round().astype(np.uint8)
    return Image.fromarray(values.transpose(1, 2, 0) if len(values) == 3 else values[0])


def _draw_tile(sheet: Image.Image, draw: ImageDraw.ImageDraw, place: tuple[int, int], tile: Tile) -> None:
    left, top = place
    scale = _SIDE / max(tile.image.size)
    size = tuple(max(1, round(side * scale)) for side in tile.image.size)
    # Enlarged without smoothing, so that the pixels can be counted
    filter = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.BICUBIC
    image = tile.image.convert("RGB").resize(size, filter)
    corner = left + (_SIDE - size[0]) // 2, top + (_SIDE - size[1]) // 2
    sheet.paste(image, corner)
    draw.rectangle((corner[0] - 1, corner[1] - 1, corner[0] + size[0], corner[1] + size[1]), outline="silver")
    _write(draw, (left, top + _SIDE + 2), tile.note[:_CHARS], _QUIET)
    for number, line in enumerate(_wrap(tile.text)):
        _write(draw, (left, top + _SIDE + 2 + (1 + number) * _LINE), line, _INK)


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, _CHARS, max_lines=_TEXT_LINES, placeholder=" ...") or [""]


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, color: str, size: int = _SIZE) -> None:
    font = ImageFont.load_default(size)
    # Pillow without FreeType has a font of Latin letters that refuses all others
    if not isinstance(font, ImageFont.FreeTypeFont):
        text = text.encode("latin-1", "replace").decode("latin-1")
    draw.text(place, text, fill=color, font=font)
