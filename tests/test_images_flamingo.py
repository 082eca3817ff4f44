# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Images of any source: rows, damaged bytes, bit depths and ranges of values."""

import base64
import io
import logging
import random
import warnings

import numpy as np
import PIL.Image
import pytest
import torch
from fuzz import damage, image_files
from hypothesis import given, settings
from hypothesis import strategies as st

from transformers_flamingo import images_flamingo
from transformers_flamingo.images_flamingo import (
    deep_values,
    find_bit_depth,
    open_image,
    read_image,
    to_rgb_8_bit,
)


@pytest.fixture(autouse=True)
def _no_warning_yet(monkeypatch):
    monkeypatch.setattr(images_flamingo, "_warned", set())


def file_of(image: PIL.Image.Image, name: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    return buffer.getvalue()


def gray(source, bit_depth: int | None = None) -> np.ndarray:
    """Return the image as the processor shows it: `(H, W)` from 0 to 255."""
    image, name = read_image(source, "Image 0")
    values = deep_values(image)
    if values is not None and bit_depth is None:
        bit_depth = find_bit_depth([values], [name])
    return np.asarray(to_rgb_8_bit(image, name, bit_depth=bit_depth))[..., 0]


# Bit depth


def ramp(bits: int) -> np.ndarray:
    return np.linspace(0, 2**bits - 1, 30 * 40).astype(np.uint16).reshape(30, 40)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["uint16", "int32", "int64", "float32", "I;16", "I", "F", "png", "tiff", "tensor"])
def test_values_are_scaled_by_the_bits_that_they_use(bits, kind, tmp_path):
    values = ramp(bits)
    makers = {
        "I;16": lambda: PIL.Image.fromarray(values),
        "I": lambda: PIL.Image.fromarray(values.astype(np.int32)),
        "F": lambda: PIL.Image.fromarray(values.astype(np.float32)),
        "png": lambda: file_of(PIL.Image.fromarray(values)),
        "tiff": lambda: file_of(PIL.Image.fromarray(values), "TIFF"),
        "tensor": lambda: torch.from_numpy(values.astype(np.int32)),
    }
    source = makers[kind]() if kind in makers else values.astype(kind)
    assert np.array_equal(gray(source), np.rint(values.astype(np.float64) * (255 / (2**bits - 1))))


@pytest.mark.parametrize(("bits", "white"), [(10, 1023), (12, 4095), (14, 16383), (15, 32767)])
def test_int16_ends_at_15_bits(bits, white):
    values = ramp(bits).astype(np.int16)
    assert values.max() == white
    assert np.array_equal(gray(values), np.rint(values.astype(np.float64) * (255 / white)))


def test_a_guessed_depth_is_logged_once_with_name_and_range(caplog):
    with caplog.at_level(logging.WARNING):
        gray(ramp(12))
        gray(ramp(10))
    (record,) = caplog.records
    assert "Image 0 has pixel values from 0 to 4095" in record.message
    assert "(uint16). It is read as an image of 12 bits, in which 4095 is white" in record.message
    assert "bit_depth" in record.message


def test_true_16_bits_stay(caplog):
    with caplog.at_level(logging.WARNING):
        assert gray(ramp(16)).max() == 255
        # 8 bits widened to 16, and dark: all values are multiples of 257
        dark = np.arange(12, dtype=np.uint16).reshape(3, 4)
        assert np.array_equal(gray(dark * 257), dark)
        # One flat color tells nothing about its depth
        assert np.array_equal(gray(np.full((3, 4), 200, np.uint16)), np.full((3, 4), 1))
    assert not caplog.records


def test_a_given_depth_wins_and_must_hold_the_values():
    dark = ramp(10)
    assert np.array_equal(gray(dark, bit_depth=16), np.rint(dark / 257))
    assert np.array_equal(gray(dark, bit_depth=12), np.rint(dark.astype(np.float64) * (255 / 4095)))
    with pytest.raises(ValueError, match=r"Image 0 has pixel values from 0 to 1023 .* `bit_depth=8` white is 255"):
        gray(dark, bit_depth=8)


def test_frames_of_a_series_share_a_depth():
    bright, dim = ramp(12), ramp(10)
    assert find_bit_depth([dim], ["a"]) == 10
    assert find_bit_depth([dim, bright], ["a", "b"]) == 12
    assert find_bit_depth([dim.astype(np.int16), ramp(16)], ["a", "b"]) == 16


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([[-1024, 3071]], np.int16), r"from -1024 to 3071 \(int16\).*Hounsfield"),
        (np.array([[-1012.5, 3059.5]], np.float32), r"from -1012.5 to 3059.5 \(float32\).*Hounsfield"),
        (np.array([[-0.5, 1.0]], np.float32), r"from -0.5 to 1.0 \(float32\).*normalized already.*do_rescale=False"),
        (np.array([[np.nan, 2.0]], np.float32), r"from 2.0 to 2.0 .* 1 of its 2 values are not finite"),
        (np.array([[np.inf, 2.0, 3.0]], np.float64), r"from 2.0 to 3.0 .* 1 of its 3 values are not finite"),
        (np.array([[0, 70000]], np.int64), r"from 0 to 70000 \(int64\).*uint8"),
        # It would be nearly black as one of 255 levels
        (np.array([[0.0, 0.5, 1.02]], np.float32), r"from 0.0 to 1.0\d+ \(float32\).*Clip it: `image.clip\(0, 1\)`"),
        (np.array([[-0.03, 0.5, 1.02]]), r"from -0.03 to 1.02 \(float64\).*Clip it"),
    ],
)
def test_a_range_that_does_not_tell_which_value_is_white_is_refused(values, message):
    sources = [values]
    if values.dtype == np.float32:
        sources.append(PIL.Image.fromarray(values))
    for source in sources:
        with pytest.raises(ValueError, match=f"^Image 0 has pixel values {message}"):
            gray(source)


def test_color_files_of_16_bits_that_use_12_are_reported(caplog, tmp_path):
    # Pillow does not write RGB of 16 bits, so the TIFF is written by hand
    values = np.zeros((4, 4, 3), "<u2")
    values[..., 0] = np.linspace(0, 4095, 16).reshape(4, 4)
    tags = [(256, 4), (257, 4), (258, 16), (259, 1), (262, 2), (277, 3), (278, 4), (279, values.nbytes)]
    entries = [(tag, 3 if tag == 258 else 4, 3 if tag == 258 else 1, value) for tag, value in tags]
    start = 8 + 2 + 12 * (len(entries) + 1) + 4
    entries = sorted([*(e for e in entries if e[0] != 258), (258, 3, 3, start), (273, 4, 1, start + 6)])
    data = b"II*\0" + (8).to_bytes(4, "little") + len(entries).to_bytes(2, "little")
    for tag, kind, count, value in entries:
        data += tag.to_bytes(2, "little") + kind.to_bytes(2, "little") + count.to_bytes(4, "little")
        data += value.to_bytes(4, "little")
    data += b"\0" * 4 + np.array([16] * 3, "<u2").tobytes() + values.tobytes()
    with caplog.at_level(logging.WARNING):
        image, name = read_image(data, "Image 0")
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(to_rgb_8_bit(image, name))[..., 0], values[..., 0] >> 8)
    assert "Image 0 is a color file of 16 bits, of which Pillow reads the high byte alone" in caplog.text
    with pytest.raises(ValueError, match=r"Image 0 is a color file of 16 bits.*`bit_depth=12` cannot be honored"):
        to_rgb_8_bit(image, name, bit_depth=12)


# Files


def test_rows_of_bytes_and_path(tmp_path):
    image = PIL.Image.new("RGB", (5, 4), (9, 8, 7))
    image.save(tmp_path / "a.png")
    path, data = str(tmp_path / "a.png"), file_of(image)
    for row in (
        {"bytes": data, "path": None},
        {"bytes": data, "path": "gone.png"},
        {"bytes": None, "path": path},
        {"path": path},
        {"bytes": data},
        {"bytes": None, "path": base64.b64encode(data).decode()},
        data,
        bytearray(data),
    ):
        assert np.array_equal(np.asarray(open_image(row, "Image 0")[0]), np.asarray(image))
    with pytest.raises(ValueError, match=r"Image 0 \('b.png'\) is not an image that Pillow can read"):
        open_image({"bytes": b"abc", "path": "b.png"}, "Image 0")
    for nothing in ({"bytes": None, "path": None}, {}):
        with pytest.raises(ValueError, match="Image 0 is None, not an image"):
            open_image(nothing, "Image 0")
    with pytest.raises(ValueError, match="Image 0 is a int, not an image"):
        open_image({"path": 3}, "Image 0")


def test_postscript_is_not_run(tmp_path):
    data = file_of(PIL.Image.new("RGB", (5, 5)), "EPS")
    assert PIL.Image.open(io.BytesIO(data)).format == "EPS"
    with pytest.raises(ValueError, match="Image 0 is not an image that Pillow can read"):
        open_image(data, "Image 0")


# Damage


def test_one_byte_of_an_avif():
    """Pillow raises a `RuntimeError` for some of them, when it opens the file or when it reads the pixels."""
    data = file_of(PIL.Image.effect_noise((16, 16), 50), "AVIF")
    outcomes, messages = set(), []
    for place in range(0, len(data), 3):
        try:
            open_image(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :], "Image 0")
            outcomes.add("image")
        except ValueError as error:
            messages.append(str(error))
            outcomes.add(type(error.__cause__).__name__)
    assert {"image", "RuntimeError"} <= outcomes
    assert all(message.startswith("Image 0 ") for message in messages)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return image_files(random.Random(0))


def test_files_of_all_formats_are_drawn(files):
    formats = {name.partition(" ")[0] for name in files}
    assert {"AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP"} <= formats


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_damaged_files_are_images_or_named(files, seed):
    rng = random.Random(seed)
    data = damage(files[rng.choice(sorted(files))], rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            image, name = open_image({"bytes": data, "path": "a.png"}, "Image 0")
            values = deep_values(image)
            depth = None if values is None else find_bit_depth([values], [name])
            outcome = to_rgb_8_bit(image, name, bit_depth=depth).mode
        except ValueError as error:
            outcome = str(error)
    assert outcome == "RGB" or outcome.startswith("Image 0 ('a.png') ")


def test_odd_exif_leaves_the_pixels_alone():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    image = PIL.Image.effect_noise((6, 4), 50)
    data = file_of(image, "PNG", exif=exif)
    upright = to_rgb_8_bit(*open_image(data, "Image 0"))
    assert np.array_equal(np.asarray(upright)[..., 0], np.rot90(np.asarray(image), -1))
