# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The processor, offline: a tokenizer trained here, an 8 x 8 CLIP image processor, images drawn in memory."""

import base64
import functools
import http.server
import io
import itertools
import json
import os
import threading
import warnings

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoImageProcessor, AutoTokenizer, PreTrainedTokenizerFast, SiglipImageProcessorPil
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from transformers_flamingo import images_flamingo
from transformers_flamingo.processing_flamingo import FlamingoProcessor


SIZE = 8
EOC = "<|endofchunk|>"
TEXT = "a dog and a cat on the mat. Output: What is it? Question: Short answer: red green blue"


def make_tokenizer(**kwargs) -> PreTrainedTokenizerFast:
    """GPT-2 in small: byte-level BPE, no pad token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 3, trainer)
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, **kwargs)


def make_image_processor(**kwargs) -> CLIPImageProcessorPil:
    return CLIPImageProcessorPil(
        **{"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}, **kwargs}
    )


def make_processor(**kwargs) -> FlamingoProcessor:
    return FlamingoProcessor(make_image_processor(), make_tokenizer(), **kwargs)


@pytest.fixture(scope="module")
def shared() -> FlamingoProcessor:
    return make_processor()


@pytest.fixture
def processor(shared: FlamingoProcessor) -> FlamingoProcessor:
    shared.tokenizer.padding_side = "left"
    return shared


def draw(seed: int, width: int = 12, height: int = 10, mode: str = "RGB") -> PIL.Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels).convert(mode)


def bare(image, **kwargs) -> torch.Tensor:
    """What the image processor alone gives for one image: `(C, H, W)`."""
    return make_image_processor()(image, return_tensors="pt", **kwargs)["pixel_values"][0]


def pixels_of(processor: FlamingoProcessor, image, **kwargs) -> torch.Tensor:
    return processor(images=image, text="<image>", return_tensors="pt", **kwargs)["pixel_values"][0, 0]


A, B, C, D = (draw(seed) for seed in range(4))


# Tokens


def test_special_tokens_are_added_in_the_order_of_openflamingo():
    tokenizer = make_tokenizer()
    size = len(tokenizer)
    processor = FlamingoProcessor(make_image_processor(), tokenizer)
    assert processor.end_of_chunk_token_id == size
    assert processor.image_token_id == size + 1
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<PAD>", size + 2)
    assert len(tokenizer) == size + 3
    assert {EOC, "<image>", "<PAD>"} <= set(tokenizer.all_special_tokens)
    assert tokenizer.encode(f"<image>a{EOC}") == [size + 1, *tokenizer.encode("a"), size]
    assert (processor.image_token, processor.end_of_chunk_token) == ("<image>", EOC)


def test_existing_tokens_keep_their_ids_and_become_special():
    tokenizer = make_tokenizer(pad_token="<|endoftext|>")
    tokenizer.add_tokens(["<image>"])
    tokenizer.add_special_tokens({"extra_special_tokens": ["<other>"]})
    image_id, size = tokenizer.convert_tokens_to_ids("<image>"), len(tokenizer)
    processor = FlamingoProcessor(make_image_processor(), tokenizer)
    assert processor.image_token_id == image_id
    assert processor.end_of_chunk_token_id == size
    assert len(tokenizer) == size + 1
    assert tokenizer.pad_token == "<|endoftext|>"
    assert processor.decode(tokenizer.encode(f"a <image><other>dog{EOC}"), skip_special_tokens=True) == "a dog"
    FlamingoProcessor(make_image_processor(), tokenizer)
    assert len(tokenizer) == size + 1, "a second processor on one tokenizer adds nothing"


def test_own_token_strings():
    processor = make_processor(image_token='<"im">', end_of_chunk_token="<eoc>")
    assert processor(images=A, text='<"im">a')["input_ids"][0][0] == processor.image_token_id
    chat = [
        {"role": "user", "content": [{"type": "image"}]},
        {"role": "assistant", "content": "a dog"},
    ]
    assert processor.apply_chat_template(chat) == '<"im">a dog<eoc>'


@pytest.mark.parametrize("tokens", [{"image_token": ""}, {"image_token": EOC}])
def test_equal_or_empty_tokens_are_refused(tokens):
    with pytest.raises(ValueError, match="two different, non-empty strings"):
        make_processor(**tokens)


def test_construction_and_call_are_quiet(capfd, caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_processor()(images=[A, B], text=["<image>a", "<image>a dog"], padding=True, return_tensors="pt")
    out = capfd.readouterr()
    assert (out.out, out.err, caplog.records) == ("", "", [])


# Layout of text and images


def test_batch_exactly(processor):
    inputs = processor(images=[[A], [B, C], []], text=["<image>a", "<image><image>", "a"], padding=True)
    eoc = processor.end_of_chunk_token_id
    image, pad, a = eoc + 1, eoc + 2, processor.tokenizer.encode("a")[0]
    assert inputs["input_ids"] == [[image, a], [image, image], [pad, a]]
    assert inputs["attention_mask"] == [[1, 1], [1, 1], [0, 1]]
    assert inputs["frame_attention_mask"] == [[1, 0], [1, 1], [0, 0]]
    assert [sample.shape for sample in inputs["pixel_values"]] == [(2, 3, SIZE, SIZE)] * 3
    assert set(inputs) == set(processor.model_input_names)
    tensors = processor(
        images=[[A], [B, C], []], text=["<image>a", "<image><image>", "a"], padding=True, return_tensors="pt"
    )
    expected = torch.zeros(3, 2, 3, SIZE, SIZE)
    expected[0, 0], expected[1, 0], expected[1, 1] = bare(A), bare(B), bare(C)
    assert torch.equal(tensors["pixel_values"], expected)
    assert tensors["frame_attention_mask"].tolist() == inputs["frame_attention_mask"]
    assert tensors["frame_attention_mask"].dtype == torch.int64
    arrays = processor(images=A, text="<image>", return_tensors="np")
    assert {type(value) for value in arrays.values()} == {np.ndarray}


@pytest.mark.parametrize(
    "images", [A, [A], (A,), [[A]], np.asarray(A), np.asarray(A)[None], [np.asarray(A)[None]], [(A,)]]
)
def test_one_image_in_every_nesting(processor, images):
    inputs = processor(images=images, text="<image>a dog", return_tensors="pt")
    assert torch.equal(inputs["pixel_values"], bare(A)[None, None])
    assert inputs["frame_attention_mask"].tolist() == [[1]]


@given(st.lists(st.integers(0, 3), min_size=1, max_size=4))
@settings(max_examples=25)
def test_flat_and_nested_images_agree(shared, counts):
    source = itertools.cycle((A, B, C, D))
    nested = [[next(source) for _ in range(count)] for count in counts]
    texts = [f"a{' <image>dog' * count}" for count in counts]
    flat = [image for sample in nested for image in sample]
    inputs = shared(images=nested, text=texts, padding=True, return_tensors="pt")
    again = shared(images=flat, text=texts, padding=True, return_tensors="pt")
    assert inputs.keys() == again.keys()
    assert all(torch.equal(inputs[key], again[key]) for key in inputs)
    if not flat:
        assert "pixel_values" not in inputs
        assert "frame_attention_mask" not in inputs
        return
    assert inputs["frame_attention_mask"].sum(1).tolist() == counts
    for pixels, mask, sample in zip(inputs["pixel_values"], inputs["frame_attention_mask"], nested, strict=True):
        assert mask.tolist() == [1] * len(sample) + [0] * (max(counts) - len(sample))
        assert all(torch.equal(one, bare(image)) for one, image in zip(pixels, sample, strict=False))
        assert not pixels[len(sample) :].any()


def test_text_alone_and_images_alone(processor):
    assert list(processor(text="a dog")) == ["input_ids", "attention_mask"]
    assert list(processor(text=["a", "a"], images=[[], []])) == ["input_ids", "attention_mask"]
    assert processor(text="<image>a")["input_ids"] == [processor.tokenizer.encode("<image>a")], "precomputed features"
    inputs = processor(images=[A, B], return_tensors="pt")
    assert set(inputs) == {"pixel_values", "frame_attention_mask"}
    assert inputs["pixel_values"].shape == (1, 2, 3, SIZE, SIZE)
    assert processor(images=[[A], [B]], return_tensors="pt")["pixel_values"].shape == (2, 1, 3, SIZE, SIZE)


def test_input_is_not_modified(processor):
    images, text = [[A], [B]], ["<image>a", "<image>"]
    array = np.asarray(C).copy()
    processor(images=images, text=text, padding=True)
    processor(images=[array], text="<image>")
    assert images == [[A], [B]]
    assert text == ["<image>a", "<image>"]
    assert np.array_equal(array, np.asarray(C))


def test_padding_side(processor):
    texts = ["a", "a dog and a cat"]
    assert processor(text=texts, padding=True)["attention_mask"][0][0] == 0
    assert processor(text=texts, padding=True, padding_side="right")["attention_mask"][0][0] == 1
    assert processor(text=texts, padding=True)["attention_mask"][0][0] == 0
    processor.tokenizer.padding_side = "right"
    assert processor(text=texts, padding=True)["attention_mask"][0][0] == 1


def test_padding_is_left_again_after_saving_a_processor_that_padded_right(tmp_path):
    processor = make_processor()
    processor(text=["a", "a dog"], padding=True, padding_side="right")
    processor.save_pretrained(tmp_path)
    # The trap that setting the attribute avoids: tokenizer.json remembers the side of the last call
    assert AutoTokenizer.from_pretrained(tmp_path).padding_side == "right"
    again = FlamingoProcessor.from_pretrained(tmp_path)
    assert again(text=["a", "a dog"], padding=True)["attention_mask"][0][0] == 0


def test_truncation_may_cut_text_but_no_marker(processor):
    text = "<image>a dog and a cat"
    inputs = processor(images=A, text=text, truncation=True, max_length=3)
    assert len(inputs["input_ids"][0]) == 3
    assert inputs["input_ids"][0][0] == processor.image_token_id
    for images in ([[A, B]], None):
        with pytest.raises(ValueError, match=r"Got ids=\[1\] and text=\[2\].*increase `max_length`"):
            processor(images=images, text=f"{text}<image>", truncation=True, max_length=3)


def test_optional_outputs_of_the_mixin(processor):
    inputs = processor(images=A, text="a<image>", return_mm_token_type_ids=True, return_text_replacement_offsets=True)
    assert inputs["mm_token_type_ids"] == [[0, 1]]
    assert [offset["span"] for offset in inputs["text_replacement_offsets"][0]] == [(1, 8)]
    tokenizer = make_tokenizer(model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    processor = FlamingoProcessor(make_image_processor(), tokenizer)
    assert "token_type_ids" in tokenizer("a")
    assert list(processor(text="a")) == ["input_ids", "attention_mask"]
    assert "token_type_ids" not in processor.model_input_names


def test_image_kwargs_reach_the_image_processor(processor):
    assert torch.equal(pixels_of(processor, A, do_normalize=False), bare(A, do_normalize=False))
    assert torch.equal(pixels_of(processor, A, images_kwargs={"do_rescale": False}), bare(A, do_rescale=False))


@pytest.mark.parametrize(
    ("images", "text", "message"),
    [
        ([[], [A]], ["<image> a", "b"], r"Sample 0 has 1 `<image>` in its text but 0 images"),
        ([[A], [A, B]], ["<image>", "<image>"], r"Sample 1 has 1 `<image>` in its text but 2 images.*Add or remove"),
        ([[A], [B]], "<image><image>", r"for 2 samples, but there are 1 texts"),
        ([A, B, C], ["<image>", "<image>"], r"flat list of 3 for 2 texts with \[1, 1\] `<image>` markers"),
        ([], ["<image>"], r"Sample 0 has 1 `<image>` in its text but 0 images"),
        (A, "no marker", r"Sample 0 has 0 `<image>` in its text but 1 images"),
    ],
)
def test_wrong_counts(processor, images, text, message):
    with pytest.raises(ValueError, match=message) as error:
        processor(images=images, text=text)
    # the words of the stock check, which callers may look for
    assert " tokens in the prompts should be the same as the number of " in str(error.value)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([[A], [B, None]], r"Image 1 of sample 1 is None, not an image"),
        ([A, None], r"Image 0 of sample 1 is None, not an image.*empty list"),
        ([[A], [3]], r"Image 0 of sample 1 is a int, not an image"),
        ([A, [B]], r"mixes lists with single images: element 0 is a Image"),
        ([None, [B, B]], r"mixes lists with single images: element 0 is a NoneType"),
        ([[A], [[]]], r"Video 0 of sample 1 has no frames"),
        ([[A], [[B, None]]], r"Frame 1 of video 0 of sample 1 is None"),
        ([[np.zeros((2, 3, 4, 5, 5))], [A]], r"Image 0 of sample 0 is an array of shape \(2, 3, 4, 5, 5\)"),
        ([[np.zeros((0, 4, 3), np.uint8)], [A]], r"array of shape \(0, 4, 3\)"),
        ([[np.zeros((5, 4, 2), np.uint8)], [A]], r"1, 3 or 4 channels neither first nor last"),
        ([[PIL.Image.new("RGB", (0, 5))], [A]], r"Image 0 of sample 0 is 0 x 5: it has no pixels"),
        ([[PIL.Image.new("La", (5, 5))], [A]], r"Image 0 of sample 0 has the mode 'La'"),
    ],
)
def test_what_is_no_image_is_named(processor, images, message):
    texts = ["<image>" * (len(sample) if isinstance(sample, list) else 1) for sample in images]
    with pytest.raises(ValueError, match=message):
        processor(images=images, text=texts)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "called without input"),
        ({"text": []}, "non-empty list of strings"),
        ({"text": ["a", 3]}, r"Got a list of \['int', 'str'\]"),
        ({"text": "a", "audio": np.zeros(3)}, "text, images and videos only"),
    ],
)
def test_wrong_input(processor, inputs, message):
    with pytest.raises(ValueError, match=message):
        processor(**inputs)


def test_image_processor_of_changing_size_is_refused():
    processor = FlamingoProcessor(make_image_processor(do_center_crop=False), make_tokenizer())
    with pytest.raises(ValueError, match=r"gave 2 arrays of shapes \[\(3, 8, 9\), \(3, 8, 16\)\] for 2 images"):
        processor(images=[A, draw(0, 16, 8)], text="<image><image>")


# Video


FRAMES = [A, B, C]
ARRAY = np.stack([np.asarray(frame) for frame in FRAMES])  # (F, H, W, C)


@pytest.mark.parametrize(
    "inputs",
    [
        {"videos": FRAMES},
        {"videos": [FRAMES]},
        {"videos": [[FRAMES]]},
        {"videos": ARRAY},
        {"videos": [ARRAY]},
        {"videos": [[ARRAY]]},
        {"videos": ARRAY[None]},
        {"videos": torch.from_numpy(ARRAY)},
        {"videos": ARRAY.transpose(0, 3, 1, 2)},
        {"videos": list(ARRAY)},
        {"images": [[FRAMES]]},
        {"images": [[ARRAY]]},
        {"images": [[]], "videos": [[FRAMES]]},
    ],
)
def test_one_video_in_every_nesting(processor, inputs):
    out = processor(**inputs, text="<image>a dog", return_tensors="pt")
    assert torch.equal(out["pixel_values"], torch.stack([bare(frame) for frame in FRAMES])[None, None])
    assert out["frame_attention_mask"].tolist() == [[[1, 1, 1]]]


def test_images_and_videos_in_one_batch(processor):
    inputs = processor(
        images=[[A, [B, C]], [D], []], text=["<image>a<image>", "<image>", "a dog"], padding=True, return_tensors="pt"
    )
    assert inputs["frame_attention_mask"].tolist() == [[[1, 0], [1, 1]], [[1, 0], [0, 0]], [[0, 0], [0, 0]]]
    expected = torch.zeros(3, 2, 2, 3, SIZE, SIZE)
    expected[0, 0, 0], expected[0, 1, 0], expected[0, 1, 1], expected[1, 0, 0] = map(bare, (A, B, C, D))
    assert torch.equal(inputs["pixel_values"], expected)
    apart = processor(
        images=[[], [D], []],
        videos=[[[B, C], [A]], [], []],
        text=["<image>a<image>", "<image>", "a dog"],
        padding=True,
        return_tensors="pt",
    )
    assert apart["frame_attention_mask"].tolist() == [[[1, 1], [1, 0]], [[1, 0], [0, 0]], [[0, 0], [0, 0]]]
    flat = processor(videos=[[A, B], [C]], text=["<image>", "<image>"], return_tensors="pt")
    assert flat["frame_attention_mask"].tolist() == [[[1, 1]], [[1, 0]]]


def test_frames_from_files(processor, tmp_path):
    paths = [str(tmp_path / f"{index}.png") for index in range(2)]
    for path, frame in zip(paths, (A, B), strict=True):
        frame.save(path)
    expected = processor(videos=[[A, B]], text="<image>", return_tensors="pt")["pixel_values"]
    inputs = processor(videos=[[paths]], text="<image>", return_tensors="pt")
    assert torch.equal(inputs["pixel_values"], expected)


@pytest.mark.parametrize("videos", ["film.mp4", ["film.mp4"], [["film.mp4"]], A])
def test_video_files_are_refused(processor, videos):
    with pytest.raises(ValueError, match=r"not frames. Video files are not decoded here.*list of frames"):
        processor(videos=videos, text="<image>")


def test_unclear_order_of_images_and_videos_is_refused(processor):
    with pytest.raises(ValueError, match=r"Sample 1 has 1 images and 1 videos.*in `images`, a video as a list of fr"):
        processor(images=[[A], [A]], videos=[[], [FRAMES]], text=["<image>", "<image><image>"])
    with pytest.raises(ValueError, match=r"`images` and `videos` are both given"):
        processor(images=[A], videos=[FRAMES], text=["<image>", "<image>"])
    with pytest.raises(ValueError, match=r"`images` is for 1 samples and `videos` for 2"):
        processor(images=[[A]], videos=[[], [FRAMES]], text=["<image>", "<image>"])
    with pytest.raises(ValueError, match=r"\{'num_frames': 2\} was given with a video"):
        processor(videos=FRAMES, text="<image>", num_frames=2)


# Kinds of images


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "CMYK", "YCbCr", "HSV", "P", "LA", "RGBA", "PA", "RGBX"])
def test_every_mode_becomes_rgb_as_the_stock_conversion_does(processor, mode):
    image = draw(7).convert("RGBA").convert("LA").convert(mode) if mode in ("LA", "PA") else draw(7, mode=mode)
    assert torch.equal(pixels_of(processor, image), bare(image))
    # ... also where the image processor itself does not convert
    processor = FlamingoProcessor(make_image_processor(do_convert_rgb=None), make_tokenizer())
    assert torch.equal(pixels_of(processor, image), bare(image))


def test_transparency_is_white_not_what_lies_beneath(processor, tmp_path):
    white = bare(PIL.Image.new("RGB", (12, 10), "white"))
    rgba = PIL.Image.new("RGBA", (12, 10), (0, 0, 0, 0))
    palette = PIL.Image.new("P", (12, 10), 0)
    palette.info["transparency"] = 0
    rgba.save(tmp_path / "rgba.png")
    palette.save(tmp_path / "palette.png", transparency=0)
    for image in (rgba, palette, tmp_path / "rgba.png", str(tmp_path / "palette.png"), np.asarray(rgba)):
        assert torch.equal(pixels_of(processor, image), white)


def test_16_bit_grey_is_scaled_not_clipped(processor, tmp_path):
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
    # The frames of a video are one series, and images are not: what is seen of one does not depend on the others
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
    grey = np.random.default_rng(0).random((16, 16)).astype(np.float32)
    rounded = bare(PIL.Image.fromarray(np.rint(grey * 255).astype(np.uint8)))
    for source in (
        grey * 255,
        PIL.Image.fromarray(grey * 255),
        torch.from_numpy(grey * 255),
        (grey * 255)[..., None].repeat(3, -1),
    ):
        assert torch.equal(pixels_of(processor, source), rounded)
    for low, high, what in ((-1024, 3071, "Hounsfield"), (-1, 1, "normalized already"), (np.nan, 1, "not finite")):
        values = grey * (high - low) + low
        for source in (values, PIL.Image.fromarray(values), torch.from_numpy(values)):
            with pytest.raises(
                ValueError, match=rf"^Image 1 of sample 0 has pixel values from .* to .*\(float32\).*{what}"
            ):
                processor(images=[[A, source]], text="<image><image>")
    assert pixels_of(processor, torch.from_numpy(grey * 255).bfloat16()).shape == (3, SIZE, SIZE)


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
        with pytest.raises(ValueError, match=r"pixel values from .* say which value is white"):
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
    grey = np.asarray(A.convert("L"))
    for image in (grey, grey[None], grey[..., None]):
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
    grey = draw(4, mode="L")
    expected = image_processor(grey, return_tensors="pt")["pixel_values"][0]
    assert expected.shape == (1, SIZE, SIZE)
    for image in (grey, np.asarray(grey), np.asarray(grey)[None], np.asarray(grey, np.uint16) * 257):
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
def test_extreme_aspect_gives_what_resizing_all_of_it_gives(monkeypatch, width, height, crop):
    image_processor = make_image_processor(crop_size={"height": crop, "width": crop})
    processor = FlamingoProcessor(image_processor, make_tokenizer())
    image = draw(2, width, height)
    expected = image_processor(image, return_tensors="pt")["pixel_values"][0]
    assert torch.equal(pixels_of(processor, image), expected)
    monkeypatch.setattr(images_flamingo, "MAX_RESIZED_PIXELS", 1000)
    # one step of 255 where the filter's coefficients round differently
    step = 1.01 / 255 / min(image_processor.image_std)
    assert (pixels_of(processor, image) - expected).abs().max() <= step
    assert (pixels_of(processor, np.asarray(image), input_data_format="channels_last") - expected).abs().max() <= step


def test_extreme_aspect_at_full_size_stays_small(monkeypatch):
    processor = FlamingoProcessor(CLIPImageProcessorPil(), make_tokenizer())
    sizes = []
    resize = CLIPImageProcessorPil.resize
    monkeypatch.setattr(
        CLIPImageProcessorPil,
        "resize",
        lambda self, image, **kw: sizes.append(image.shape) or resize(self, image, **kw),
    )
    for size in ((1, 5000), (5000, 1)):
        assert pixels_of(processor, draw(1, *size)).shape == (3, 224, 224)
    assert sizes == [(3, 224, 224)] * 2
    with pytest.raises(ValueError, match=r"is 1 x 5000 \(width x height\).*224 x 1120000 pixels. Crop it first"):
        pixels_of(processor, draw(1, 1, 5000), do_center_crop=False)


def test_square_resize_needs_no_care():
    processor = FlamingoProcessor(SiglipImageProcessorPil(size={"height": 8, "width": 8}), make_tokenizer())
    assert pixels_of(processor, draw(1, 1, 5000)).shape == (3, 8, 8)


# Files


def png_bytes(image: PIL.Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def test_paths_uris_and_base64(processor, tmp_path):
    A.save(tmp_path / "a.png")
    encoded = base64.b64encode(png_bytes(A)).decode()
    wrapped = base64.encodebytes(png_bytes(A)).decode()
    for image in (tmp_path / "a.png", str(tmp_path / "a.png"), f"data:image/png;base64,{encoded}", encoded, wrapped):
        assert torch.equal(pixels_of(processor, image), bare(A))


def test_urls(processor, tmp_path):
    A.save(tmp_path / "a.png")
    (tmp_path / "page.png").write_text("<html>not found</html>")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert torch.equal(pixels_of(processor, f"{url}/a.png"), bare(A))
        with pytest.raises(ValueError, match=r"http://127.0.0.1:\d+/page.png'\) is not an image that Pillow can read"):
            pixels_of(processor, f"{url}/page.png")
        server.shutdown()


def test_bad_files_are_named(processor, tmp_path):
    data = png_bytes(draw(0, 60, 60))
    (tmp_path / "truncated.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"Image 1 of sample 0 \('.*truncated.png'\) cannot be decoded.*truncated"):
        processor(images=[A, str(tmp_path / "truncated.png")], text="<image><image>")
    with (
        PIL.Image.open(tmp_path / "truncated.png") as image,
        pytest.raises(ValueError, match=r"truncated.png'\) cannot"),
    ):
        pixels_of(processor, image)
    with pytest.raises(ValueError, match=r"Image 0 of sample 0 \('.*text.png'\) is not an image that Pillow can read"):
        pixels_of(processor, str(tmp_path / "text.png"))
    for missing in ("missing.png", "missing file ü.png"):
        with pytest.raises(ValueError, match=rf"\('{missing}'\) is not an image: there is no such file"):
            pixels_of(processor, missing)
    with pytest.raises(ValueError, match=r"\(\d+ characters\)"):
        pixels_of(processor, "x" * 5000)


def test_decompression_bombs_are_refused(processor, tmp_path, monkeypatch):
    draw(0, 40, 30).save(tmp_path / "bomb.png")
    encoded = base64.b64encode((tmp_path / "bomb.png").read_bytes()).decode()
    # Between the limit and twice the limit Pillow only warns, above it raises an error that names no file
    for limit in (1199, 599):
        monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", limit)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for image in (str(tmp_path / "bomb.png"), tmp_path / "bomb.png", encoded):
                with pytest.raises(ValueError, match=rf"Image 0 of sample 0 \(.*limit of {limit} .*MAX_IMAGE_PIXELS"):
                    pixels_of(processor, image)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="limit of 599"):
            pixels_of(processor, str(tmp_path / "bomb.png"))
    with pytest.raises(ValueError, match=r"40 x 30 = 1200 pixels, more than the limit of 599.*decompression bomb"):
        pixels_of(processor, draw(0, 40, 30))
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", None)
    assert pixels_of(processor, draw(0, 40, 30)).shape == (3, SIZE, SIZE)


def test_rows_of_bytes_and_path_are_images(processor):
    """What `datasets.Image(decode=False)` gives, wherever an image is taken."""
    row, other = ({"bytes": png_bytes(image), "path": None} for image in (A, B))
    assert torch.equal(pixels_of(processor, row), bare(A))
    assert torch.equal(pixels_of(processor, png_bytes(A)), bare(A))
    inputs = processor(
        images=[[row], [other, row]], text=["<image>", "<image><image>"], padding=True, return_tensors="pt"
    )
    assert torch.equal(inputs["pixel_values"][1], torch.stack([bare(B), bare(A)]))
    flat = processor(images=[row, other], text=["<image>", "<image>"], return_tensors="pt")
    assert torch.equal(flat["pixel_values"][:, 0], torch.stack([bare(A), bare(B)]))
    prompt = processor.few_shot_prompt([(row, "a")], other)
    assert torch.equal(processor(**prompt, return_tensors="pt")["pixel_values"][0], torch.stack([bare(A), bare(B)]))
    for videos in ([row, other], [[row, other]], [[[row, other]]]):
        inputs = processor(videos=videos, text="<image>", return_tensors="pt")
        assert torch.equal(inputs["pixel_values"][0, 0], torch.stack([bare(A), bare(B)]))
    chat = [{"role": "user", "content": [{"type": "image", "image": row}]}]
    inputs = processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")
    assert torch.equal(inputs["pixel_values"][0, 0], bare(A))
    with pytest.raises(ValueError, match=r"Image 1 of sample 0 \('b.png'\) is not an image that Pillow can read"):
        processor(images=[row, {"bytes": b"abc", "path": "b.png"}], text="<image><image>")


def test_fifos_and_devices_are_refused(processor, tmp_path):
    os.mkfifo(tmp_path / "fifo.png")
    for path in (str(tmp_path / "fifo.png"), tmp_path / "fifo.png", "/dev/zero", {"path": "/dev/zero"}):
        with pytest.raises(
            ValueError, match=r"Image 0 of sample 0 \('/.*'\) cannot be read: it is a .*, not a regular file"
        ):
            pixels_of(processor, path)


# Wrong arguments


@pytest.mark.parametrize("name", ["text_kwargs", "images_kwargs", "videos_kwargs", "processor_kwargs"])
@pytest.mark.parametrize("wrong", [3, "a", [("padding", True)]])
def test_keyword_arguments_must_be_dicts(processor, name, wrong):
    call = functools.partial(processor, images=A, text="<image>")
    if name == "processor_kwargs":
        call = functools.partial(processor.apply_chat_template, [user(A)], tokenize=True, return_dict=True)
    with pytest.raises(ValueError, match=rf"`{name}` is .* It must be a dict of keyword arguments"):
        call(**{name: wrong})


@pytest.mark.parametrize("text", [3, b"a", {"a": 1}, 1.5])
def test_text_of_another_type(processor, text):
    with pytest.raises(ValueError, match=f"`text` must be a string .* Got a {type(text).__name__}"):
        processor(text=text)


def test_half_a_surrogate_pair_is_named(processor):
    with pytest.raises(
        ValueError, match=r"The text of sample 1 has half of a surrogate pair, '\\ud800', at position 2"
    ):
        processor(text=["a", "a \ud800"])


@pytest.mark.parametrize(
    "kwargs", [{}, {"return_tensors": "pt", "padding": True}, {"padding": "max_length", "max_length": 4}]
)
def test_text_without_tokens_is_refused(processor, kwargs):
    with pytest.raises(ValueError, match=r"The text of sample 1 is '', which has no tokens"):
        processor(text=["a", ""], **kwargs)
    # One that gets a token from the tokenizer is a text
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    assert FlamingoProcessor(make_image_processor(), tokenizer)(text="")["input_ids"] == [[0]]


@pytest.mark.parametrize("max_length", [0, -1])
def test_max_length_without_tokens(processor, max_length):
    with pytest.raises(ValueError, match=f"`max_length` is {max_length}"):
        processor(text="a", truncation=True, max_length=max_length)


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


def test_an_argument_of_the_wrong_type_is_a_value_error(processor):
    with pytest.raises(ValueError, match=r"An argument of this call has the wrong type.*'do_resize'"):
        processor(images=A, text="<image>", do_resize="yes")


def test_pixels_that_are_not_finite_are_refused(processor):
    huge = {"rescale_factor": 1.0, "image_mean": [0.0] * 3, "image_std": [1e-37] * 3}
    with (
        np.errstate(over="ignore"),
        pytest.raises(
            ValueError, match=r"CLIPImageProcessorPil made pixels of Image 1 of sample 0 that are not finite"
        ),
    ):
        processor(images=[PIL.Image.new("RGB", (9, 9)), A], text="<image><image>", **huge)


# Few-shot prompts and chats


def test_few_shot_prompt(processor):
    prompt = processor.few_shot_prompt([(A, "a cat."), (B, "a dog.")], C, prefix="Output:")
    assert prompt["text"] == [f"<image>Output:a cat.{EOC}<image>Output:a dog.{EOC}<image>Output:"]
    assert prompt["images"] == [[A, B, C]]
    inputs = processor(**prompt, return_tensors="pt")
    assert torch.equal(inputs["pixel_values"][0], torch.stack([bare(A), bare(B), bare(C)]))

    question = "Question:What is it? Short answer:"
    prompt = processor.few_shot_prompt([(A, f"{question}cat")], B, question)
    assert prompt["text"] == [f"<image>{question}cat{EOC}<image>{question}"]
    zero_shot = processor.few_shot_prompt([(None, "a cat"), (None, "a dog")], C, prefix="Output:")
    assert zero_shot["text"] == [f"Output:a cat{EOC}Output:a dog{EOC}<image>Output:"]
    assert zero_shot["images"] == [[C]]
    assert processor.few_shot_prompt([], A) == {"images": [[A]], "text": ["<image>"]}
    assert processor.few_shot_prompt([], query_text="a") == {"images": [[]], "text": ["a"]}

    video = processor.few_shot_prompt([([A, B], "a cat")], [C])
    both = {key: prompt[key] + video[key] for key in video}
    inputs = processor(**both, padding=True, return_tensors="pt")
    assert inputs["frame_attention_mask"].tolist() == [[[1, 0], [1, 0]], [[1, 1], [1, 0]]]


def test_few_shot_prompt_refuses_what_would_shift_the_images(processor):
    with pytest.raises(ValueError, match=r"The text of demonstration 1 is 'a <image>'"):
        processor.few_shot_prompt([(A, "a"), (B, "a <image>")], C)
    with pytest.raises(ValueError, match=r"The text of the query is '<image>'"):
        processor.few_shot_prompt([(A, "a")], C, "<image>")
    with pytest.raises(ValueError, match=r"The text of demonstration 0 is None"):
        processor.few_shot_prompt([(A, None)], C)
    with pytest.raises(ValueError, match=r"demonstration 0 is a str, not a pair"):
        processor.few_shot_prompt(["a cat"], C)


def user(*content) -> dict:
    kinds = {str: "text", list: "video"}
    return {
        "role": "user",
        "content": [{"type": (kind := kinds.get(type(part), "image")), kind: part} for part in content],
    }


def assistant(text: str) -> dict:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


@pytest.mark.parametrize(
    ("chat", "expected"),
    [
        ([user(A)], "<image>"),
        ([user(A), assistant("a cat")], f"<image>a cat{EOC}"),
        ([user(A, "What is it?")], "<image>What is it?"),
        ([user(A, "What is it?"), assistant("a cat")], f"<image>What is it? a cat{EOC}"),
        ([user(A, "What is it?"), assistant(" a cat")], f"<image>What is it? a cat{EOC}"),
        ([user(A, "Answer:\n"), assistant("a cat")], f"<image>Answer:\na cat{EOC}"),
        ([user("What is it?", A), assistant("a cat")], f"What is it?<image>a cat{EOC}"),
        ([user(A), assistant("a"), user(B), assistant("b"), user(C)], f"<image>a{EOC}<image>b{EOC}<image>"),
        ([{"role": "system", "content": "Be brief."}, user(A, "Hi.")], "Be brief.\n<image>Hi."),
        ([{"role": "user", "content": "a dog"}, {"role": "assistant", "content": "yes"}], f"a dog yes{EOC}"),
        ([user([A, B], "What?"), assistant("a")], f"<image>What? a{EOC}"),
        ([{"role": "user", "content": None}, assistant("a")], f"a{EOC}"),
    ],
)
def test_chat_template(processor, chat, expected):
    assert processor.apply_chat_template(chat) == expected
    assert processor.apply_chat_template([chat, chat], add_generation_prompt=True) == [expected] * 2


@given(st.lists(st.text(alphabet="ab ?.\n", max_size=6), min_size=1, max_size=3), st.text(alphabet="ab", min_size=1))
@settings(max_examples=30)
def test_ids_of_a_prompt_begin_the_ids_of_the_answered_chat(shared, parts, answer):
    """Else the model would be trained on other tokens than it is asked to continue."""
    question = [user(A, *parts)]
    asked = shared.apply_chat_template(question, add_generation_prompt=True)
    answered = shared.apply_chat_template([*question, assistant(answer)])
    assert answered.startswith(asked)
    if asked[-1:] not in (
        " ",
        "\n",
    ):  # a prompt that ends in a space is merged into what follows, by any byte-level BPE
        ids = shared.tokenizer.encode(asked)
        assert shared.tokenizer.encode(answered)[: len(ids)] == ids


def test_chat_to_tensors(processor):
    chat = [user(A, "What?"), assistant("a cat"), user([B, C], "And?", D)]
    inputs = processor.apply_chat_template(
        chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    expected = processor(
        text=f"<image>What? a cat{EOC}<image>And?<image>", images=[[A, [B, C], D]], return_tensors="pt"
    )
    assert inputs.keys() == expected.keys()
    assert all(torch.equal(inputs[key], expected[key]) for key in expected)
    assert inputs["frame_attention_mask"].tolist() == [[[1, 0], [1, 1], [1, 0]]]


def test_batch_of_chats(processor):
    inputs = processor.apply_chat_template(
        [[user("a dog?")], [user(A, B)]],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True},
    )
    assert inputs["frame_attention_mask"].tolist() == [[0, 0], [1, 1]]
    text_only = processor.apply_chat_template([[user("a dog?")]], tokenize=True, return_dict=True)
    assert list(text_only) == ["input_ids", "attention_mask"]


def test_assistant_mask_covers_answer_and_end_of_chunk(processor):
    chat = [user(A, "What?"), assistant("a cat"), user(B), assistant("a dog")]
    inputs = processor.apply_chat_template(
        chat, tokenize=True, return_dict=True, return_tensors="pt", return_assistant_tokens_mask=True
    )
    learnt = inputs["input_ids"][inputs["assistant_masks"].bool()]
    assert processor.decode(learnt) == f" a cat{EOC}a dog{EOC}"


def test_continue_final_message(processor):
    chat = [user(A, "What?"), assistant("a ca")]
    assert processor.apply_chat_template(chat, continue_final_message=True) == "<image>What? a ca"


def test_chat_content_of_other_clients(processor, tmp_path):
    A.save(tmp_path / "a.png")
    uri = "data:image/png;base64," + base64.b64encode(png_bytes(A)).decode()
    # OpenAI's blocks, paths, and rows of a `datasets` column, where each block has all keys
    for block in (
        {"type": "image_url", "image_url": {"url": uri}},
        {"type": "image", "path": str(tmp_path / "a.png")},
        {"type": "image", "url": uri},
        {"type": "image", "image": A, "url": None, "text": None},
    ):
        content = [block, {"type": "text", "text": "What?", "image": None}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=True, return_dict=True, return_tensors="pt"
        )
        assert torch.equal(inputs["pixel_values"], bare(A)[None, None])
        assert block.get("url", uri) in (uri, None), "the caller's messages are left alone"
    placeholder = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
    assert list(processor.apply_chat_template(placeholder, tokenize=True, return_dict=True)) == [
        "input_ids",
        "attention_mask",
    ]
    inputs = processor(text=processor.apply_chat_template(placeholder), images=A)
    assert inputs["frame_attention_mask"] == [[1]]


def test_chat_errors(processor):
    apply = functools.partial(processor.apply_chat_template, tokenize=True, return_dict=True)
    with pytest.raises(ValueError, match=r"The video in message 0 is 'film.mp4', not frames"):
        apply([{"role": "user", "content": [{"type": "video", "path": "film.mp4"}]}])
    with pytest.raises(ValueError, match=r"Message 0 asks for audio"):
        apply([{"role": "user", "content": [{"type": "audio", "audio": np.zeros(3)}]}])
    for content in ([3], [{}], 3):
        with pytest.raises(ValueError, match=r"Message 0 has the content .* It must be a text"):
            apply([{"role": "user", "content": content}])
    for chat in ([], None, "a", 3, {"role": "user"}):
        with pytest.raises(ValueError, match=r"`conversation` is .* It must be a list of messages"):
            apply(chat)
    with pytest.raises(Exception, match=r"content of type text, image and video, not table"):
        apply([{"role": "user", "content": [{"type": "table", "table": 3}]}])
    with pytest.raises(ValueError, match=r"Sample 0 has 2 `<image>` in its text but 1 images"):
        apply([user(A, "an <image>")])
    # ... which is how user text is kept from writing markers
    inputs = apply([user(A, "an <image>")], sanitize_control_tokens=True)
    assert inputs["input_ids"][0].count(processor.image_token_id) == 1


# Tokenizers with odd special tokens


def save_llama(folder, **tokens) -> None:
    """A tokenizer with SentencePiece's own pieces, and a config that calls some of them otherwise."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, "▁a": 3, "▁": 4, "a": 5}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("▁", "a")], unk_token="<unk>"))
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))


@pytest.mark.parametrize(
    "cls", ["LLaMATokenizer", "LlamaTokenizer", "PreTrainedTokenizerFast", "GPT2Tokenizer", "GPTNeoXTokenizer"]
)
@pytest.mark.parametrize("empty", [["unk"], ["bos", "eos", "unk"], ["pad"], ["eos"]])
@pytest.mark.parametrize("form", ["", {"__type": "AddedToken", "content": ""}])
def test_special_tokens_called_nothing(tmp_path, cls, empty, form):
    """transformers looks up the unknown token as that of an unknown token, without end."""
    save_llama(tmp_path / "text", tokenizer_class=cls, **{f"{name}_token": form for name in empty})
    make_image_processor().save_pretrained(tmp_path / "vision")
    processor = FlamingoProcessor.from_vision_text_pretrained(tmp_path / "vision", tmp_path / "text")
    tokenizer = processor.tokenizer
    names = {"unk": "<unk>", "bos": "<s>", "eos": "</s>"}
    for name in empty:
        assert getattr(tokenizer, f"{name}_token") == names.get(name, "<PAD>")
    assert None not in tokenizer.all_special_ids
    assert "" not in tokenizer.all_special_tokens
    assert len({processor.image_token_id, processor.end_of_chunk_token_id, tokenizer.pad_token_id}) == 3
    processor.save_pretrained(tmp_path / "saved")
    again = FlamingoProcessor.from_pretrained(tmp_path / "saved")
    assert again.tokenizer.all_special_ids == tokenizer.all_special_ids
    assert again(text="a<image>")["input_ids"] == processor(text="a<image>")["input_ids"]


def test_an_empty_token_that_no_vocabulary_has_is_unset():
    tokenizer = make_tokenizer()
    tokenizer.unk_token = tokenizer.bos_token = ""
    with pytest.raises(RecursionError):
        tokenizer.convert_tokens_to_ids("no such token")
    processor = FlamingoProcessor(make_image_processor(), tokenizer)
    assert (tokenizer.unk_token, tokenizer.bos_token) == (None, None)
    assert processor(text="a dog", images=None)["input_ids"] == [tokenizer.encode("a dog")]


def test_the_tokenizer_names_the_image_token(tmp_path):
    """`tokenizer.image_token`, which stock clients read."""
    processor = make_processor()
    ids = (processor.end_of_chunk_token_id, processor.image_token_id, processor.tokenizer.pad_token_id)
    for step in range(2):
        assert processor.tokenizer.image_token == processor.image_token == "<image>"
        assert processor.tokenizer.image_token_id == processor.image_token_id
        assert (processor.end_of_chunk_token_id, processor.image_token_id, processor.tokenizer.pad_token_id) == ids
        processor.save_pretrained(tmp_path / str(step))
        assert AutoTokenizer.from_pretrained(tmp_path / str(step)).image_token == "<image>"
        processor = FlamingoProcessor.from_pretrained(tmp_path / str(step))
    # A tokenizer saved before it was named
    old = make_tokenizer()
    old.add_special_tokens({"extra_special_tokens": [EOC, "<image>"]})
    old.save_pretrained(tmp_path / "old")
    old = FlamingoProcessor(make_image_processor(), AutoTokenizer.from_pretrained(tmp_path / "old"))
    assert (old.end_of_chunk_token_id, old.image_token_id, old.tokenizer.image_token) == (*ids[:2], "<image>")
    assert "<image>" not in make_processor(image_token_is_text=True).tokenizer.get_vocab()


# Saving, loading, decoding


def test_round_trip(tmp_path):
    processor = make_processor()
    saved = processor.save_pretrained(tmp_path / "one")
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        "chat_template.jinja",
        "compatibility_flamingo.py",
        "files_flamingo.py",
        "images_flamingo.py",
        "processing_flamingo.py",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    stored = json.loads((tmp_path / "one" / "processor_config.json").read_text())
    assert stored["image_processor"]["image_processor_type"] == "CLIPImageProcessor"
    assert (stored["image_token"], stored["end_of_chunk_token"]) == ("<image>", EOC)
    assert len(saved) == 1
    again = FlamingoProcessor.from_pretrained(tmp_path / "one")
    again.save_pretrained(tmp_path / "two")
    again = FlamingoProcessor.from_pretrained(tmp_path / "two")
    # Saving notes the travelling code on the saved object.
    assert {**again.to_dict(), "auto_map": None} == {**processor.to_dict(), "auto_map": None}
    assert again.chat_template == processor.chat_template
    for name in ("image_token_id", "end_of_chunk_token_id", "image_token", "end_of_chunk_token"):
        assert getattr(again, name) == getattr(processor, name)
    assert again.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    call = {"images": [[A], [B, C]], "text": ["<image>a dog", "<image>a<image>"]}
    one, two = (p(**call, padding=True, return_tensors="pt") for p in (processor, again))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert AutoTokenizer.from_pretrained(tmp_path / "two").convert_tokens_to_ids("<image>") == again.image_token_id
    assert AutoImageProcessor.from_pretrained(tmp_path / "two").size["shortest_edge"] == SIZE


def test_own_chat_template_survives(tmp_path):
    make_processor(chat_template="{{ messages[0]['content'] }}!").save_pretrained(tmp_path)
    assert FlamingoProcessor.from_pretrained(tmp_path).apply_chat_template([{"role": "user", "content": "a"}]) == "a!"


def test_from_vision_text_pretrained(tmp_path, capfd):
    make_image_processor().save_pretrained(tmp_path / "vision")
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "text only"
    tokenizer.save_pretrained(tmp_path / "text")
    processor = FlamingoProcessor.from_vision_text_pretrained(
        tmp_path / "vision",
        tmp_path / "text",
        image_token="<im>",
        vision_do_normalize=False,
        text_model_max_length=77,
        local_files_only=True,
    )
    assert isinstance(processor.image_processor, CLIPImageProcessorPil)
    assert processor.image_processor.do_normalize is False
    assert processor.tokenizer.model_max_length == 77
    assert processor.image_token == "<im>"
    assert processor.chat_template != "text only"
    assert torch.equal(
        processor(images=A, text="<im>", return_tensors="pt")["pixel_values"][0, 0], bare(A, do_normalize=False)
    )
    assert "torchvision" not in capfd.readouterr().err


def test_decoding_as_the_pipeline_does(processor):
    """`ImageTextToTextPipeline` finds the decoded prompt at the start of the decoded output and cuts it off."""
    prompts = [f"<image>a cat{EOC}<image>", "<image>What is it?"]
    inputs = processor(images=[[A, B], [C]], text=prompts, padding=True, return_tensors="pt")
    answers = [" a dog", " a dog"]
    tail = processor.tokenizer(answers, return_tensors="pt")["input_ids"]
    end = torch.full((2, 1), processor.end_of_chunk_token_id)
    generated = torch.cat([inputs["input_ids"], tail, end], dim=1)
    decoded_prompts = processor.post_process_image_text_to_text(inputs["input_ids"])
    decoded = processor.post_process_image_text_to_text(generated)
    assert decoded_prompts == ["a cat", "What is it?"]
    assert [text[len(p) :] for text, p in zip(decoded, decoded_prompts, strict=True)] == answers
    assert processor.batch_decode(generated, skip_special_tokens=True) == decoded
    assert processor.decode(generated[1], skip_special_tokens=True) == decoded[1]
    assert processor.batch_decode(generated[:, inputs["input_ids"].shape[1] :]) == [f" a dog{EOC}"] * 2
