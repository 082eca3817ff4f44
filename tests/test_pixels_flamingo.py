# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Images of every mode, depth and range become the pixels of the stock image processor."""

import numpy as np
import PIL.Image
import pytest
import torch
from processors import (
    SIZE,
    A,
    bare,
    draw,
    make_image_processor,
    make_processor,
    make_tokenizer,
    pixels_of,
    shared_processor,
)
from transformers import SiglipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.pixtral.image_processing_pil_pixtral import PixtralImageProcessorPil

from transformers_flamingo import images_flamingo
from transformers_flamingo.pixels_flamingo import check_image_settings
from transformers_flamingo.processing_flamingo import FlamingoProcessor


@pytest.fixture
def processor() -> FlamingoProcessor:
    return shared_processor()


def test_an_image_processor_that_pads_is_refused():
    image_processor = PixtralImageProcessorPil(size={"longest_edge": 16}, patch_size={"height": 4, "width": 4})
    processor = FlamingoProcessor(image_processor, make_tokenizer())
    wide, tall = PIL.Image.new("RGB", (32, 16)), PIL.Image.new("RGB", (16, 32))
    assert processor(images=[[wide], [wide]], return_tensors="pt")["pixel_values"].shape == (2, 1, 3, 8, 16)
    with pytest.raises(ValueError, match="padded images of different sizes to 16 x 16, as its `image_sizes` says"):
        processor(images=[[wide], [tall]], return_tensors="pt")


def test_image_kwargs_reach_the_image_processor(processor):
    assert torch.equal(pixels_of(processor, A, do_normalize=False), bare(A, do_normalize=False))
    assert torch.equal(pixels_of(processor, A, images_kwargs={"do_rescale": False}), bare(A, do_rescale=False))


def test_image_processor_of_changing_size_is_refused():
    processor = FlamingoProcessor(make_image_processor(do_center_crop=False), make_tokenizer())
    with pytest.raises(ValueError, match=r"gave 2 arrays of shapes \[\(3, 8, 9\), \(3, 8, 16\)\] for 2 images"):
        processor(images=[A, draw(0, 16, 8)], text="<image><image>")


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "CMYK", "YCbCr", "HSV", "P", "LA", "RGBA", "PA", "RGBX"])
def test_every_mode_becomes_rgb_as_the_stock_conversion_does(processor, mode):
    image = draw(7).convert("RGBA").convert("LA").convert(mode) if mode in ("LA", "PA") else draw(7, mode=mode)
    assert torch.equal(pixels_of(processor, image), bare(image))
    # ... also where the image processor itself does not convert
    processor = FlamingoProcessor(make_image_processor(do_convert_rgb=None), make_tokenizer())
    assert torch.equal(pixels_of(processor, image), bare(image))


def test_transparency_is_white_not_what_is_below(processor, tmp_path):
    white = bare(PIL.Image.new("RGB", (12, 10), "white"))
    rgba = PIL.Image.new("RGBA", (12, 10), (0, 0, 0, 0))
    palette = PIL.Image.new("P", (12, 10), 0)
    palette.info["transparency"] = 0
    rgba.save(tmp_path / "rgba.png")
    palette.save(tmp_path / "palette.png", transparency=0)
    for image in (rgba, palette, tmp_path / "rgba.png", str(tmp_path / "palette.png"), np.asarray(rgba)):
        assert torch.equal(pixels_of(processor, image), white)


def test_16_bit_gray_is_scaled_not_clipped(processor, tmp_path):
    ramp = np.linspace(0, 65535, 120).astype(np.uint16).reshape(10, 12)
    expected = bare(PIL.Image.fromarray(np.rint(ramp / 257).astype(np.uint8)))
    image = PIL.Image.fromarray(ramp)
    assert image.mode == "I;16"
    image.save(tmp_path / "ramp.png")
    image.save(tmp_path / "ramp.tiff")
    for source in (
        image,
        image.convert("I"),
        tmp_path / "ramp.png",
        str(tmp_path / "ramp.tiff"),
        ramp,
        PIL.Image.fromarray(ramp.astype(np.float32)),
        ramp.astype(np.int32),
    ):
        assert torch.equal(pixels_of(processor, source), expected)
    dark = np.full((10, 12), 200, np.uint16)  # 200 of 65535 is black, whatever the maximum
    assert torch.equal(pixels_of(processor, dark), bare(PIL.Image.fromarray(np.full((10, 12), 1, np.uint8))))


@pytest.fixture
def _no_warning_yet(monkeypatch):
    monkeypatch.setattr(images_flamingo, "_warned", set())


XRAY = np.linspace(0, 4095, 120).astype(np.uint16).reshape(10, 12)
XRAY_8 = PIL.Image.fromarray(np.rint(XRAY * (255 / 4095)).astype(np.uint8))


@pytest.mark.usefixtures("_no_warning_yet")
def test_12_bits_in_16_are_scaled_by_what_they_use(processor, tmp_path, caplog):
    PIL.Image.fromarray(XRAY).save(tmp_path / "xray.png")
    for source in (
        tmp_path / "xray.png",
        XRAY,
        XRAY.astype(np.int16),
        PIL.Image.fromarray(XRAY),
        XRAY.astype(np.float32),
    ):
        assert torch.equal(pixels_of(processor, source), bare(XRAY_8))
    (record,) = caplog.records
    assert "Image 0 of sample 0 (" in record.message
    assert "xray.png') has pixel values from 0 to 4095" in record.message
    # The frames of a video share a depth. Images do not: the pixels of one do not depend on the others.
    dim = XRAY // 5
    video = processor(videos=[[dim, XRAY]], text="<image>", return_tensors="pt")["pixel_values"][0, 0]
    assert torch.equal(
        video, torch.stack([bare(PIL.Image.fromarray(np.rint(dim * (255 / 4095)).astype(np.uint8))), bare(XRAY_8)])
    )
    both = processor(images=[dim, XRAY], text="<image><image>", return_tensors="pt")["pixel_values"][0]
    assert torch.equal(both[0], bare(PIL.Image.fromarray(np.rint(dim * (255 / 1023)).astype(np.uint8))))


def test_bit_depth_of_call_and_processor(processor, tmp_path):
    expected = bare(PIL.Image.fromarray(np.rint(XRAY / 257).astype(np.uint8)))
    assert torch.equal(pixels_of(processor, XRAY, bit_depth=16), expected)
    assert torch.equal(pixels_of(processor, XRAY, images_kwargs={"bit_depth": 16}), expected)
    assert torch.equal(pixels_of(processor, A, bit_depth=12), bare(A)), "8 bits are 8 bits"
    with pytest.raises(
        ValueError, match=r"Image 0 of sample 0 has pixel values from 0 to 4095 .*`bit_depth=10` white is 1023"
    ):
        pixels_of(processor, XRAY, bit_depth=10)
    for wrong in (0, 17, 12.5, "12", True):
        with pytest.raises(ValueError, match="bit_depth"):
            pixels_of(processor, XRAY, bit_depth=wrong)
        with pytest.raises(ValueError, match=r"`bit_depth` is .* from 1 to 16"):
            make_processor(bit_depth=wrong)
    make_processor(bit_depth=14).save_pretrained(tmp_path)
    again = FlamingoProcessor.from_pretrained(tmp_path)
    assert again.bit_depth == 14
    assert torch.equal(
        pixels_of(again, XRAY), bare(PIL.Image.fromarray(np.rint(XRAY * (255 / 16383)).astype(np.uint8)))
    )
    assert torch.equal(pixels_of(again, XRAY, bit_depth=12), bare(XRAY_8)), "the call wins"


def test_floats_name_the_image_and_its_range(processor):
    gray = np.random.default_rng(0).random((16, 16)).astype(np.float32)
    rounded = bare(PIL.Image.fromarray(np.rint(gray * 255).astype(np.uint8)))
    for source in (
        gray * 255,
        PIL.Image.fromarray(gray * 255),
        torch.from_numpy(gray * 255),
        (gray * 255)[..., None].repeat(3, -1),
    ):
        assert torch.equal(pixels_of(processor, source), rounded)
    for low, high, what in ((-1024, 3071, "Hounsfield"), (-1, 1, "normalized already"), (np.nan, 1, "not finite")):
        values = gray * (high - low) + low
        for source in (values, PIL.Image.fromarray(values), torch.from_numpy(values)):
            with pytest.raises(
                ValueError, match=rf"^Image 1 of sample 0 has pixel values from .* to .*\(float32\).*{what}"
            ):
                processor(images=[[A, source]], text="<image><image>")
    assert pixels_of(processor, torch.from_numpy(gray * 255).bfloat16()).shape == (3, SIZE, SIZE)


def test_a_dark_frame_of_floats_stays_dark(processor):
    bright = np.linspace(0, 255, 64, dtype=np.float32).reshape(8, 8)
    dark = np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)
    frames = [PIL.Image.fromarray(bright), PIL.Image.fromarray(dark)]
    given = processor(videos=[frames], text="<image>", return_tensors="pt")["pixel_values"]
    rounded = [PIL.Image.fromarray(np.rint(values).astype(np.uint8)) for values in (bright, dark)]
    expected = processor(videos=[rounded], text="<image>", return_tensors="pt")["pixel_values"]
    assert torch.equal(given, expected)


def test_floats_that_are_not_rescaled(processor):
    ready = np.random.default_rng(0).random((SIZE, SIZE, 3)).astype(np.float32) * 2 - 1
    untouched = pixels_of(
        processor, ready, do_rescale=False, do_resize=False, do_center_crop=False, do_normalize=False
    )
    assert torch.equal(untouched, torch.from_numpy(ready).permute(2, 0, 1))
    with pytest.raises(
        ValueError, match=r"Image 0 of sample 0 has pixel values from -0.9.* to be resized.*do_resize=False"
    ):
        pixels_of(processor, ready, do_rescale=False)
    ready[0, 0, 0] = np.inf
    with pytest.raises(ValueError, match=r"Image 0 of sample 0 has pixel values .*1 of its 192 values are not finite"):
        pixels_of(processor, ready, do_rescale=False, do_resize=False)


def test_other_ranges(processor):
    ramp = np.linspace(0, 255, 120).astype(np.uint8).reshape(10, 12)
    expected = bare(PIL.Image.fromarray(ramp))
    for image in (
        ramp.astype(np.int32),
        PIL.Image.fromarray(ramp.astype(np.int32)),
        PIL.Image.fromarray(ramp.astype(np.float32)),
        PIL.Image.fromarray((ramp / 255).astype(np.float32)),
        ramp.astype(np.float32),
    ):
        assert torch.allclose(pixels_of(processor, image), expected, atol=1e-6)
    mask = ramp > 100
    assert torch.equal(pixels_of(processor, mask), bare(PIL.Image.fromarray(mask)))
    for low, high in ((-1, 5), (0, 70000), (0, float("nan"))):
        values = np.zeros((5, 5), np.float32)
        values[0, 0], values[0, 1] = low, high
        with pytest.raises(ValueError, match=r"pixel values from .* tell which value is white"):
            pixels_of(processor, PIL.Image.fromarray(values))


def test_floats_in_0_to_1_are_not_rescaled_twice(processor):
    scaled = np.asarray(A, dtype=np.float32) / 255
    with pytest.raises(ValueError, match=r"Image 0 of sample 0 has floats in 0..1.*divide them by 255 once more"):
        pixels_of(processor, scaled)
    for image in (scaled, torch.from_numpy(scaled).permute(2, 0, 1)):
        assert torch.allclose(pixels_of(processor, image, do_rescale=False), bare(A), atol=1e-5)
    black = np.zeros((5, 5, 3), np.float32)
    assert torch.equal(pixels_of(processor, black), bare(PIL.Image.new("RGB", (5, 5))))


def test_channel_order_of_arrays(processor):
    array = np.asarray(A)
    for image in (array, array.transpose(2, 0, 1), torch.from_numpy(array.copy()).permute(2, 0, 1), array[:, :, ::1]):
        assert torch.equal(pixels_of(processor, image), bare(A))
    gray = np.asarray(A.convert("L"))
    for image in (gray, gray[None], gray[..., None]):
        assert torch.equal(pixels_of(processor, image), bare(A.convert("L")))
    mixed = processor(images=[array, array.transpose(2, 0, 1), A], text="<image>" * 3, return_tensors="pt")
    assert torch.equal(mixed["pixel_values"][0], bare(A).expand(3, -1, -1, -1))
    narrow = draw(5, width=3, height=7)  # (7, 3, 3): only the first axis can be told apart
    assert torch.equal(pixels_of(processor, np.asarray(narrow)), bare(narrow))
    ambiguous = draw(5, width=7, height=3)  # (3, 7, 3): stock takes channels first, unless told
    for kind in (np.uint8, np.float32):
        pixels = pixels_of(processor, np.asarray(ambiguous).astype(kind), input_data_format="channels_last")
        assert torch.allclose(pixels, bare(ambiguous), atol=1e-6)


def test_an_encoder_of_one_channel_keeps_it():
    image_processor = make_image_processor(do_convert_rgb=False, image_mean=[0.5], image_std=[0.25])
    processor = FlamingoProcessor(image_processor, make_tokenizer())
    gray = draw(4, mode="L")
    expected = image_processor(gray, return_tensors="pt")["pixel_values"][0]
    assert expected.shape == (1, SIZE, SIZE)
    for image in (gray, np.asarray(gray), np.asarray(gray)[None], np.asarray(gray, np.uint16) * 257):
        assert torch.equal(pixels_of(processor, image), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(processor, tmp_path, orientation):
    upright = draw(3, 30, 8)
    exif = PIL.Image.Exif()
    exif[0x0112] = orientation
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transpositions that exif_transpose reverses
    stored = upright if orientation == 1 else upright.transpose(PIL.Image.Transpose(undo[orientation]))
    stored.save(tmp_path / "turned.png", exif=exif)
    with PIL.Image.open(tmp_path / "turned.png") as image:
        assert torch.equal(pixels_of(processor, image), bare(upright))
    assert torch.equal(pixels_of(processor, str(tmp_path / "turned.png")), bare(upright))


def test_exif_orientation_of_16_bits_and_broken_exif(processor, tmp_path):
    ramp = np.linspace(0, 65535, 8 * 30).astype(np.uint16).reshape(8, 30)
    exif = PIL.Image.Exif()
    exif[0x0112] = 3
    PIL.Image.fromarray(np.ascontiguousarray(ramp[::-1, ::-1])).save(tmp_path / "turned.png", exif=exif)
    assert torch.equal(pixels_of(processor, tmp_path / "turned.png"), pixels_of(processor, ramp))
    A.save(tmp_path / "broken.png", exif=b"Exif\x00\x00nonsense")
    assert torch.equal(pixels_of(processor, tmp_path / "broken.png"), bare(A))


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 7), (7, 1), (2, 3)])
def test_tiny_images(processor, width, height):
    image = draw(1, width, height)
    assert torch.equal(pixels_of(processor, image), bare(image))
    if width != 1:  # (1, 1, 3) reads as one channel of 1 x 3
        assert torch.equal(pixels_of(processor, np.asarray(image), input_data_format="channels_last"), bare(image))


@pytest.mark.parametrize(("width", "height"), [(1, 400), (400, 1), (3, 401), (500, 2), (999, 7)])
@pytest.mark.parametrize("crop", [8, 5, 12])
def test_an_extreme_aspect_is_resized_as_by_the_image_processor_within_the_limit(monkeypatch, width, height, crop):
    image_processor = make_image_processor(crop_size={"height": crop, "width": crop})
    processor = FlamingoProcessor(image_processor, make_tokenizer())
    image = draw(2, width, height)
    expected = image_processor(image, return_tensors="pt")["pixel_values"][0]
    long = int(SIZE * max(width, height) / min(width, height))
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", SIZE * long)
    assert torch.equal(pixels_of(processor, image), expected)
    assert torch.equal(pixels_of(processor, np.asarray(image), input_data_format="channels_last"), expected)
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", max(width * height, SIZE * long - 1))
    if width * height < SIZE * long:
        with pytest.raises(ValueError, match=rf"is {width} x {height} \(width x height\).*{SIZE} x {long} pixels"):
            pixels_of(processor, image)


def test_an_image_that_would_fill_the_memory_when_resized_is_refused_first(monkeypatch):
    processor = FlamingoProcessor(CLIPImageProcessorPil(), make_tokenizer())
    monkeypatch.setattr(CLIPImageProcessorPil, "resize", lambda *_, **__: pytest.fail("it is resized"))
    for size in ((1, 5000), (5000, 1)):
        for options in ({}, {"do_center_crop": False}):
            with pytest.raises(
                ValueError,
                match=rf"is {size[0]} x {size[1]} \(width x height\).*224 x 1120000 pixels, more than the limit of "
                r"\d+ \(`PIL.Image.MAX_IMAGE_PIXELS`\). Crop it first",
            ):
                pixels_of(processor, draw(1, *size), **options)
    # Floats that are not rescaled take another way to the image processor
    with pytest.raises(ValueError, match="Image 0 of sample 0 is 1 x 5000 .*Crop it first"):
        pixels_of(processor, np.zeros((5000, 1, 3), np.float32), do_rescale=False, input_data_format="channels_last")


def test_without_resize_or_limit_no_image_is_refused(monkeypatch):
    processor = make_processor(bit_depth=None)
    assert pixels_of(processor, draw(1, 1, 500), do_resize=False).shape == (3, SIZE, SIZE)
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", None)
    assert torch.equal(pixels_of(processor, draw(1, 1, 500)), bare(draw(1, 1, 500)))


def test_a_square_resize_is_not_limited():
    processor = FlamingoProcessor(SiglipImageProcessorPil(size={"height": 8, "width": 8}), make_tokenizer())
    assert pixels_of(processor, draw(1, 1, 5000)).shape == (3, 8, 8)


@pytest.mark.parametrize(
    "settings",
    [
        {"rescale_factor": float("nan")},
        {"rescale_factor": 0.0},
        {"image_std": [0, 0, 0]},
        {"image_std": [0.5, 0.5, -0.5]},
        {"image_mean": [float("inf")] * 3},
        {"size": {"shortest_edge": -8}},
        {"size": {"height": 0, "width": 8}},
        {"crop_size": {"height": -1, "width": 8}},
    ],
)
def test_settings_that_make_noise_are_refused(processor, settings):
    (name,) = settings
    with pytest.raises(ValueError, match=f"`{name}` of this call is"):
        processor(images=A, text="<image>", **settings)
    with pytest.raises(ValueError, match=f"`{name}` of this call is"):
        processor(images=A, text="<image>", images_kwargs=settings)
    image_processor = make_image_processor()
    setattr(image_processor, name, settings[name])
    with pytest.raises(ValueError, match=f"`{name}` of CLIPImageProcessorPil is"):
        FlamingoProcessor(image_processor, make_tokenizer())


def test_pixels_that_are_not_finite_are_refused(processor):
    huge = {"rescale_factor": 1.0, "image_mean": [0.0] * 3, "image_std": [1e-37] * 3}
    with (
        np.errstate(over="ignore"),
        pytest.raises(
            ValueError, match=r"CLIPImageProcessorPil made pixels of Image 1 of sample 0 that are not finite"
        ),
    ):
        processor(images=[PIL.Image.new("RGB", (9, 9)), A], text="<image><image>", **huge)


@pytest.mark.parametrize(
    "wrong",
    [
        {"rescale_factor": float("nan")},
        {"rescale_factor": 0},
        {"rescale_factor": -1.0},
        {"rescale_factor": "a"},
        {"image_std": [0, 0, 0]},
        {"image_std": [0.5, 0.5, float("inf")]},
        {"image_std": -1.0},
        {"image_std": []},
        {"image_mean": [float("nan")] * 3},
        {"image_mean": float("inf")},
        {"size": 0},
        {"size": {"shortest_edge": -8}},
        {"size": {"height": 8, "width": 2.5}},
        {"size": {"shortest_edge": float("nan")}},
        {"crop_size": {"height": 8, "width": 2**60}},
        {"crop_size": {"shortest_edge": 8}},
        {"pad_size": [8, 0]},
    ],
)
def test_settings_that_lose_every_pixel_are_refused(wrong):
    (key,) = wrong
    with pytest.raises(ValueError, match=f"`{key}` of this call is .* It must be"):
        check_image_settings(wrong, "this call")


def test_usual_settings_pass():
    for size in (
        {"shortest_edge": 224},
        {"height": 8, "width": 8},
        8,
        [8, 8],
        {"shortest_edge": 8, "longest_edge": None},
    ):
        check_image_settings(
            {"size": size, "rescale_factor": 1 / 255, "image_mean": [0.0, 0.5, 1.0], "image_std": 0.5}, "a"
        )
