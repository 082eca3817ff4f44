# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
import io

import pytest
from data_factory import number_of, numbered_image, png
from PIL import Image

from transformers_flamingo.data import BadSampleError, blank_image, decode_image


LOCATION = "pairs.parquet, row 3"


def test_images_in_every_form(tmp_path):
    (tmp_path / "a.png").write_bytes(png(5))
    path = str(tmp_path / "a.png")
    for item in (numbered_image(5), png(5), path, {"bytes": png(5), "path": None}, {"bytes": None, "path": path}):
        assert number_of(decode_image(item, LOCATION)) == 5


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"bytes": b"<html>not found</html>", "path": "a.png"}, "the image 'a.png' cannot be decoded"),
        (b"", "the image cannot be decoded"),
        ({"bytes": b"", "path": "a.png"}, "the image 'a.png' cannot be decoded"),
        ("no/such.png", "the image 'no/such.png' cannot be read .FileNotFoundError"),
        ({"bytes": None, "path": None}, "the image is no data"),
        (None, "the image is no data"),
        (7, "the image is a int"),
        (Image.new("RGB", (0, 5)), "0 x 5 pixels"),
    ],
)
def test_broken_images_name_file_and_row(item, message):
    with pytest.raises(BadSampleError, match=f"^pairs.parquet, row 3: .*{message}"):
        decode_image(item, LOCATION)


def test_truncated_and_oversized_images(monkeypatch):
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "JPEG")
    with pytest.raises(BadSampleError, match="row 3: .* truncated"):
        decode_image(buffer.getvalue()[:-200], LOCATION)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 - 1)
    with pytest.warns(Image.DecompressionBombWarning), pytest.raises(BadSampleError, match="row 3: .*64 x 64 pixels"):
        decode_image(buffer.getvalue(), LOCATION)


def test_the_processor_names_the_file_of_a_row(processor, monkeypatch):
    image = decode_image({"bytes": png(5), "path": "a.png"}, LOCATION)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    with pytest.raises(ValueError, match=r"Image 0 of sample 0 \('a.png'\) has .* pixels, more than the limit of 1"):
        processor(images=image, text="<image>")


def test_formats_that_run_programs_are_refused():
    buffer = io.BytesIO()
    numbered_image(5).save(buffer, "EPS")
    with pytest.raises(
        BadSampleError, match="row 3: the image cannot be decoded .it is not in the format of an image"
    ):
        decode_image(buffer.getvalue(), LOCATION)


def test_a_blank_image_has_one_gray():
    image = blank_image((5, 3))
    assert (image.size, image.mode, image.getcolors()) == ((5, 3), "RGB", [(15, (127, 127, 127))])
