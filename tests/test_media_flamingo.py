# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Images and videos in every nesting, one list per sample."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from processors import SIZE, A, B, C, D, bare, shared_processor

from transformers_flamingo.processing_flamingo import FlamingoProcessor


@pytest.fixture
def processor() -> FlamingoProcessor:
    return shared_processor()


@pytest.mark.parametrize(
    "images", [A, [A], (A,), [[A]], np.asarray(A), np.asarray(A)[None], [np.asarray(A)[None]], [(A,)]]
)
def test_one_image_in_every_nesting(processor, images):
    inputs = processor(images=images, text="<image>a dog", return_tensors="pt")
    assert torch.equal(inputs["pixel_values"], bare(A)[None, None])
    assert "frame_attention_mask" not in inputs


@given(st.lists(st.integers(0, 3), min_size=1, max_size=4))
@settings(max_examples=25)
def test_flat_and_nested_images_agree(counts):
    source = itertools.cycle((A, B, C, D))
    nested = [[next(source) for _ in range(count)] for count in counts]
    texts = [f"a{' <image>dog' * count}" for count in counts]
    flat = [image for sample in nested for image in sample]
    settings = {"text": texts, "padding": True, "return_frame_attention_mask": True, "return_tensors": "pt"}
    inputs = shared_processor()(images=nested, **settings)
    again = shared_processor()(images=flat, **settings)
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
    assert "frame_attention_mask" not in out, "no frame is padding"
    out = processor(**inputs, return_frame_attention_mask=True)
    assert out["frame_attention_mask"] == [[[1, 1, 1]]]


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
    padded = {"videos": [[[A, B]], []], "text": ["<image>", "a"], "padding": True}
    assert "frame_attention_mask" not in processor(**padded), "a sample without a video has no padded frames"
    assert processor(**padded, return_frame_attention_mask=True)["frame_attention_mask"] == [[[1, 1]], [[0, 0]]]


@pytest.mark.parametrize("name", ["images", "videos"])
def test_none_is_a_sample_without_images(processor, name):
    sample = [A] if name == "images" else [FRAMES]
    settings = {"text": ["a dog", "<image>a"], "padding": True, "return_tensors": "pt"}
    inputs = processor(**{name: [None, sample]}, **settings)
    expected = processor(**{name: [[], sample]}, **settings)
    assert inputs.keys() == expected.keys()
    assert all(torch.equal(inputs[key], expected[key]) for key in expected)
    assert list(processor(**{name: [None, None]}, text=["a", "a"])) == ["input_ids", "attention_mask"]


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
