# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
import io
from fractions import Fraction

import av
import pytest
from data_factory import number_of, picture, png
from PIL import Image

from transformers_flamingo.training.data import BadSampleError, decode_image, decode_video


WHERE = "pairs.parquet, row 3"


def video_file(path, *, frames: int, rate: int) -> bytes:
    """Frame i is grey, 20 * i bright."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width = stream.height = 16
        stream.pix_fmt, stream.time_base = "yuv420p", Fraction(1, rate)
        for index in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (16, 16), (20 * index,) * 3))))
        container.mux(stream.encode())
    return path.read_bytes()


def test_images_in_every_form(tmp_path):
    (tmp_path / "a.png").write_bytes(png(5))
    path = str(tmp_path / "a.png")
    for medium in (picture(5), png(5), path, {"bytes": png(5), "path": None}, {"bytes": None, "path": path}):
        assert number_of(decode_image(medium, WHERE)) == 5


@pytest.mark.parametrize(
    ("medium", "message"),
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
def test_broken_images_name_file_and_row(medium, message):
    with pytest.raises(BadSampleError, match=f"^pairs.parquet, row 3: .*{message}"):
        decode_image(medium, WHERE)


def test_truncated_and_oversized_images(monkeypatch):
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(buffer, "JPEG")
    with pytest.raises(BadSampleError, match="row 3: .* truncated"):
        decode_image(buffer.getvalue()[:-200], WHERE)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 64 * 64 - 1)
    with pytest.warns(Image.DecompressionBombWarning), pytest.raises(BadSampleError, match="row 3: .*64 x 64 pixels"):
        decode_image(buffer.getvalue(), WHERE)


@pytest.mark.parametrize(
    ("fps", "max_frames", "taken"),
    [(1, 8, [0, 4, 8]), (2, 8, [0, 2, 4, 6, 8]), (2, 3, [0, 2, 4]), (100, 20, range(10)), (0.1, 8, [0])],
)
def test_frames_at_a_fixed_rate(fps, max_frames, taken, tmp_path):
    data = video_file(tmp_path / "a.mp4", frames=10, rate=4)
    for medium in (data, str(tmp_path / "a.mp4")):
        frames = decode_video(medium, WHERE, fps=fps, max_frames=max_frames)
        assert [round(number_of(frame) / 20) for frame in frames] == list(taken)


def test_frames_are_taken_as_they_come():
    frames = [picture(1), picture(2)]
    assert decode_video(frames, WHERE, fps=1, max_frames=8) == frames


def test_broken_videos_name_file_and_row(tmp_path):
    data = video_file(tmp_path / "a.mp4", frames=10, rate=4)
    for medium in (b"no video", data[: len(data) // 2]):
        with pytest.raises(BadSampleError, match="^pairs.parquet, row 3: the video 'a.mp4' cannot be decoded"):
            decode_video({"bytes": medium, "path": "a.mp4"}, WHERE, fps=1, max_frames=8)
