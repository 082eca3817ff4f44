# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Pixels equal those of OpenFlamingo, whose transform is written out as open_clip composes it from Pillow and torchvision."""

import numpy as np
import pytest
import torch
from factory import tiny_tokenizer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import AutoImageProcessor, AutoProcessor
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from transformers_flamingo import FlamingoImageProcessor, FlamingoProcessor


SIZE = 32
SETTINGS = {"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}}


def open_flamingo_pixels(image: Image.Image) -> torch.Tensor:
    """Apply Resize(SIZE, bicubic), CenterCrop(SIZE), RGB, ToTensor and Normalize."""
    width, height = image.size
    short, long = min(width, height), max(width, height)
    new = (SIZE, int(SIZE * long / short)) if width <= height else (int(SIZE * long / short), SIZE)
    image = image.resize(new, Image.Resampling.BICUBIC)
    left, top = round((new[0] - SIZE) / 2), round((new[1] - SIZE) / 2)  # Python rounds half to even, as torchvision
    image = image.crop((left, top, left + SIZE, top + SIZE)).convert("RGB")
    pixels = np.asarray(image, dtype=np.float64) / 255
    return torch.from_numpy(((pixels - OPENAI_CLIP_MEAN) / OPENAI_CLIP_STD).transpose(2, 0, 1)).float()


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(width * 1000 + height)
    shape = (height, width) if mode == "L" else (height, width, 3)
    return Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8))


@settings(max_examples=60)
@given(st.integers(1, 90), st.integers(1, 90), st.sampled_from(["RGB", "L"]))
@example(32, 35, "RGB")  # a difference of 3 modulo 4: where the stock crop is one pixel off
@example(39, 32, "RGB")
@example(1, 90, "RGB")
@example(32, 32, "L")
def test_pixels_equal_the_original_for_every_size(width, height, mode):
    processor = FlamingoProcessor(FlamingoImageProcessor(**SETTINGS), tiny_tokenizer())
    image = noise(width, height, mode)
    pixels = processor(images=[[image]], text=["<image>"], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(pixels[0, 0], open_flamingo_pixels(image), atol=1e-5, rtol=0)


def test_a_very_long_image_has_the_pixels_of_the_original():
    processor = FlamingoProcessor(FlamingoImageProcessor(**SETTINGS), tiny_tokenizer())
    for length in (16_385, 16_387, 17_003):  # resized to more than 2 ** 24 pixels
        image = noise(1, length).resize((1, length))
        pixels = processor(images=[[image]], text=["<image>"], return_tensors="pt")["pixel_values"]
        torch.testing.assert_close(pixels[0, 0], open_flamingo_pixels(image), atol=1e-5, rtol=0)


def test_the_stock_crop_differs_and_only_there():
    stock, ours = CLIPImageProcessorPil(**SETTINGS), FlamingoImageProcessor(**SETTINGS)
    for difference in range(9):
        image = noise(SIZE, SIZE + difference)
        equal = np.array_equal(stock(image)["pixel_values"][0], ours(image)["pixel_values"][0])
        assert equal == (difference % 4 != 3)


def test_an_image_smaller_than_the_crop_is_padded_as_in_the_stock_processor():
    settings = {"do_resize": False, "crop_size": {"height": 8, "width": 8}}
    image = noise(5, 20)
    stock, ours = CLIPImageProcessorPil(**settings)(image), FlamingoImageProcessor(**settings)(image)
    assert np.array_equal(stock["pixel_values"][0], ours["pixel_values"][0])


@pytest.mark.parametrize("load", [AutoProcessor, AutoImageProcessor])
def test_it_is_found_again_when_loaded(load, tmp_path):
    FlamingoProcessor(FlamingoImageProcessor(**SETTINGS), tiny_tokenizer()).save_pretrained(tmp_path)
    if load is AutoImageProcessor:
        FlamingoImageProcessor(**SETTINGS).save_pretrained(tmp_path)
    loaded = load.from_pretrained(tmp_path)
    image_processor = getattr(loaded, "image_processor", loaded)
    assert type(image_processor) is FlamingoImageProcessor and dict(image_processor.size) == SETTINGS["size"]
    assert (tmp_path / "image_processing_flamingo.py").is_file()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"image_mean": 0.5, "image_std": 0.25},
        {"rescale_factor": 1 / 127.5},
        {"do_rescale": False},
        {"do_normalize": False},
        {"do_resize": False, "do_center_crop": False},
        {"do_convert_rgb": False, "image_mean": 0.5, "image_std": 0.5},
        {"do_pad": True, "pad_size": {"height": 40, "width": 40}},
    ],
)
def test_looked_up_pixels_are_those_of_the_stock_arithmetic_to_the_last_bit(options, monkeypatch):
    images = [noise(48, 35), noise(20, 20), noise(33, 90)]
    if not options.get("do_convert_rgb", True):
        images.append(noise(40, 50, "L"))
    images.append(np.asarray(noise(36, 44), dtype=np.float32))
    processor = FlamingoImageProcessor(**{**SETTINGS, **options})
    given = [processor(image)["pixel_values"][0] for image in images]
    monkeypatch.delattr(FlamingoImageProcessor, "_preprocess")
    for image, pixels in zip(images, given, strict=True):
        np.testing.assert_array_equal(pixels, processor(image)["pixel_values"][0], strict=True)
