# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest
from PIL import Image, ImageFont

from transformers_flamingo.cards import contact_sheet
from transformers_flamingo.cards.contact_sheet import Tile, draw_contact_sheet, image_of_pixels


def colors(image: Image.Image) -> set[tuple[int, ...]]:
    return {color for _, color in image.getcolors(10**6)}


def test_each_image_is_drawn(tmp_path):
    tiles = [Tile(Image.new("RGB", (8, 4), (10 * i, 200, 0)), f"text {i}", "row") for i in range(7)]
    sheet = draw_contact_sheet(tmp_path / "new" / "sheet.png", {"train": tiles, "held out": tiles[:1]})
    assert {(10 * i, 200, 0) for i in range(7)} <= colors(sheet)
    assert Image.open(tmp_path / "new" / "sheet.png").size == sheet.size
    one_row = draw_contact_sheet(tmp_path / "small.png", {"train": tiles[:6]})
    two_rows = draw_contact_sheet(tmp_path / "large.png", {"train": tiles})
    assert one_row.width == two_rows.width and one_row.height < two_rows.height


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "I;16", "F"])
@pytest.mark.parametrize("size", [(1, 1), (3000, 2), (2, 3000)])
def test_any_image_and_any_text(tmp_path, mode, size):
    text = "日本語 🍎 \u0007 \n ünï " + "verylongword" * 40
    draw_contact_sheet(tmp_path / "sheet.png", {"x" * 1000: [Tile(Image.new(mode, size), text, text)]})


def test_without_a_font_of_all_letters(tmp_path, monkeypatch):
    """Pillow may be built without FreeType."""
    monkeypatch.setattr(contact_sheet.ImageFont, "load_default", lambda size: ImageFont.load_default_imagefont())
    draw_contact_sheet(tmp_path / "sheet.png", {"ünï": [Tile(Image.new("RGB", (2, 2)), "日本語 🍎", "ß")]})


def test_pixels_become_the_image_again():
    image = np.random.default_rng(0).integers(0, 256, (6, 5, 3)).astype(np.uint8)
    mean, std = np.array([0.5, 0.4, 0.3]), np.array([0.2, 0.3, 0.4])
    pixels = ((image / 255 - mean) / std).transpose(2, 0, 1).astype(np.float32)
    assert np.array_equal(np.asarray(image_of_pixels(pixels, mean, std)), image)
    assert np.array_equal(np.asarray(image_of_pixels(image.transpose(2, 0, 1) / 255, None, None)), image)
    assert image_of_pixels(pixels[:1], mean[:1], std[:1]).mode == "L"
    # Normalized by something unknown: from the darkest to the brightest value
    gray = np.asarray(image_of_pixels(np.array([[[-3.0, 5.0, 1.0]]]), None, None))
    assert gray.tolist() == [[0, 255, 128]]
    assert np.asarray(image_of_pixels(np.full((1, 2, 2), 7.0), None, None)).tolist() == [[0, 0], [0, 0]]
