# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
import io
from fractions import Fraction

import av
import pytest
from data_factory import number_of, picture, png
from PIL import Image

from transformers_flamingo.data import BadSampleError, decode_image, decode_video
from transformers_flamingo.data.media import decode_segment


WHERE = "pairs.parquet, row 3"


def video_file(path, *, frames: int, rate: int, codec: str = "mpeg4", options: dict | None = None) -> bytes:
    """Frame i is grey, 20 * i bright."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width = stream.height = 16
        stream.pix_fmt, stream.time_base = "rgb8" if codec == "gif" else "yuv420p", Fraction(1, rate)
        for index in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (16, 16), (20 * index,) * 3))))
        container.mux(stream.encode())
    return path.read_bytes()


def test_images_in_every_form(tmp_path):
    (tmp_path / "a.png").write_bytes(png(5))
    path = str(tmp_path / "a.png")
    for item in (picture(5), png(5), path, {"bytes": png(5), "path": None}, {"bytes": None, "path": path}):
        assert number_of(decode_image(item, WHERE)) == 5


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
        decode_image(item, WHERE)


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
    for item in (data, str(tmp_path / "a.mp4")):
        frames = decode_video(item, WHERE, fps=fps, max_frames=max_frames)
        assert [round(number_of(frame) / 20) for frame in frames] == list(taken)


def test_frames_are_taken_as_they_come():
    frames = [picture(1), picture(2)]
    assert decode_video(frames, WHERE, fps=1, max_frames=8) == frames


def test_broken_videos_name_file_and_row(tmp_path):
    data = video_file(tmp_path / "a.mp4", frames=10, rate=4)
    for item in (b"no video", data[: len(data) // 2]):
        with pytest.raises(BadSampleError, match="^pairs.parquet, row 3: the video 'a.mp4' cannot be decoded"):
            decode_video({"bytes": item, "path": "a.mp4"}, WHERE, fps=1, max_frames=8)


def brightness(frames: list[Image.Image]) -> list[int]:
    return [round(number_of(frame) / 20) for frame in frames]


def test_a_segment_is_spread_over_what_there_is_of_it(tmp_path):
    path = str(tmp_path / "a.mp4")
    video_file(tmp_path / "a.mp4", frames=10, rate=4)  # 2.5 s
    assert brightness(decode_segment(path, WHERE, start=None, end=None, num_frames=5)) == [1, 3, 5, 7, 9]
    assert brightness(decode_segment(path, WHERE, start=1.0, end=2.0, num_frames=2)) == [5, 7]
    # What is beyond the end has no share of the frames
    assert brightness(decode_segment(path, WHERE, start=1.5, end=90.0, num_frames=2)) == [7, 9]
    assert brightness(decode_segment(path, WHERE, start=2.3, end=2.4, num_frames=3)) == [9, 9, 9]


@pytest.mark.parametrize("start", [2.6, 60.0])
def test_a_segment_beyond_the_end_names_the_file(start, tmp_path):
    video_file(tmp_path / "a.mp4", frames=10, rate=4)
    with pytest.raises(
        BadSampleError, match=rf"^pairs.parquet, row 3: the video '.*a.mp4' ends at 2.50 s, .* {start:.2f} s"
    ):
        decode_segment(str(tmp_path / "a.mp4"), WHERE, start=start, end=start + 5, num_frames=2)


@pytest.mark.parametrize(
    ("start", "end", "num_frames"),
    [(-1.0, 2.0, 2), (2.0, 1.0, 2), (1.0, 1.0, 2), (float("nan"), 2.0, 2), (0.0, 1.0, 0)],
)
def test_a_segment_that_is_none(start, end, num_frames):
    with pytest.raises(BadSampleError, match=f"row 3: {num_frames} frames from {start} to {end} s of a video"):
        decode_segment("a.mp4", WHERE, start=start, end=end, num_frames=num_frames)


@pytest.mark.parametrize("extension", ["avi", "mkv", "mov", "mp4", "webm", "ts", "gif"])
def test_usual_containers_are_read(extension, tmp_path):
    codec = {"webm": "libvpx", "ts": "mpeg2video", "gif": "gif"}.get(extension, "mpeg4")
    data = video_file(tmp_path / f"a.{extension}", frames=10, rate=25, codec=codec)
    assert len(decode_video(data, WHERE, fps=25, max_frames=20)) == 10


@pytest.mark.parametrize("extension", ["mkv", "avi", "mp4"])
def test_a_cut_file_is_not_a_short_video(extension, tmp_path):
    data = video_file(tmp_path / f"a.{extension}", frames=100, rate=20, options={"movflags": "faststart"})
    (tmp_path / "cut").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(BadSampleError, match="row 3: the video '.*cut' cannot be decoded .*"):
        decode_video(str(tmp_path / "cut"), WHERE, fps=2, max_frames=20)
    with pytest.raises(BadSampleError, match="row 3: the video '.*cut' cannot be decoded .*"):
        decode_segment(str(tmp_path / "cut"), WHERE, start=None, end=None, num_frames=4)
    assert len(decode_video(data, WHERE, fps=2, max_frames=20)) == 10


PLAYLISTS = {
    "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "hls.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{video}\n#EXT-X-ENDLIST\n",
    "concat.txt": "ffconcat version 1.0\nfile '{video}'\n",
    "dash.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period/></MPD>',
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_what_names_other_files_is_no_video(name, tmp_path):
    video_file(tmp_path / "a.mp4", frames=2, rate=4)
    (tmp_path / name).write_text(PLAYLISTS[name].format(video=tmp_path / "a.mp4"))
    for item in (str(tmp_path / name), (tmp_path / name).read_bytes()):
        with pytest.raises(BadSampleError, match="row 3: the video .*not a video of a format that is read .*matroska"):
            decode_video(item, WHERE, fps=1, max_frames=8)


def test_frames_beyond_the_pixel_limit(tmp_path, monkeypatch):
    data = video_file(tmp_path / "a.mp4", frames=2, rate=4)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 255)
    with pytest.raises(BadSampleError, match="row 3: the video cannot be decoded .it has 16 x 16 pixels"):
        decode_video(data, WHERE, fps=1, max_frames=8)


def test_the_processor_names_the_file_of_a_row(processor, monkeypatch):
    image = decode_image({"bytes": png(5), "path": "a.png"}, WHERE)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    with pytest.raises(ValueError, match=r"Image 0 of sample 0 \('a.png'\) has .* pixels, more than the limit of 1"):
        processor(images=image, text="<image>")


def test_formats_that_run_programs_are_no_images():
    buffer = io.BytesIO()
    picture(5).save(buffer, "EPS")
    with pytest.raises(BadSampleError, match="row 3: the image cannot be decoded .it has the format of no image"):
        decode_image(buffer.getvalue(), WHERE)
