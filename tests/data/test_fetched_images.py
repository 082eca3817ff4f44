# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""What becomes of a file that was fetched."""

import io

import numpy as np
import pytest
from PIL import Image

from transformers_flamingo.data.fetching.failures import FetchError
from transformers_flamingo.data.fetching.images import prepare_image


def encode(image: Image.Image, kind: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def test_images_are_made_smaller_and_stay_what_they_are():
    wide = Image.new("RGB", (300, 100), "red")
    assert prepare_image(encode(wide, "WEBP")) == encode(wide, "WEBP")
    assert prepare_image(encode(wide, "PNG"), 100) == encode(wide, "PNG")

    def shrunk(data: bytes) -> Image.Image:
        return Image.open(io.BytesIO(prepare_image(data, 50)))

    image = shrunk(encode(wide, "PNG"))
    assert (image.format, image.size) == ("JPEG", (150, 50))
    # A tag of orientation would be lost with the old file
    exif = Image.Exif()
    exif[0x0112] = 6
    assert shrunk(encode(wide, "JPEG", exif=exif)).size == (50, 150)
    image = shrunk(encode(Image.new("RGBA", (100, 100), (255, 0, 0, 128)), "PNG"))
    assert (image.format, image.getpixel((0, 0))) == ("PNG", (255, 0, 0, 128))
    assert shrunk(encode(wide.convert("CMYK"), "JPEG")).mode == "RGB"
    deep = encode(Image.fromarray(np.full((100, 100), 4000, np.uint16)), "PNG")
    assert prepare_image(deep, 50) == deep
    for data, reason in ((b"GIF89a", "damaged|not_an_image"), (encode(Image.new("L", (1, 9)), "PNG"), "too_small")):
        with pytest.raises(FetchError, match=reason):
            prepare_image(data, min_shortest_side=2)


def test_too_many_pixels(monkeypatch):
    data = encode(Image.new("L", (40, 40)), "PNG")
    for limit in (1000, 700):  # Pillow warns, and raises at twice the limit
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with (
            pytest.warns(Image.DecompressionBombWarning)
            if limit == 1000
            else pytest.raises(FetchError, match="too_large")
        ):
            if limit == 1000:
                with pytest.raises(FetchError, match="too_large"):
                    prepare_image(data)
            else:
                prepare_image(data)
