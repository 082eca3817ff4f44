# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
import os

import av
import numpy as np
import pytest
from data_factory import number_of, numbered_image, video_file
from PIL import Image

from transformers_flamingo.data import BadSampleError, EvenlySpaced, FixedRate, VideoSegment, decode_video, load_media


LOCATION = "pairs.parquet, row 3"


@pytest.mark.parametrize(
    ("fps", "max_frames", "taken"),
    [(1, 8, [0, 4, 8]), (2, 8, [0, 2, 4, 6, 8]), (2, 3, [0, 2, 4]), (100, 20, range(10)), (0.1, 8, [0])],
)
def test_frames_at_a_fixed_rate(fps, max_frames, taken, tmp_path):
    data = video_file(tmp_path / "a.mp4", frames=10, rate=4)
    for item in (data, str(tmp_path / "a.mp4")):
        frames = decode_video(item, LOCATION, FixedRate(fps, max_frames))
        assert [round(number_of(frame) / 20) for frame in frames] == list(taken)


def test_frames_are_taken_as_they_come():
    frames = [numbered_image(1), numbered_image(2)]
    assert decode_video(frames, LOCATION, FixedRate(1, 8)) == frames


def test_broken_videos_name_file_and_row(tmp_path):
    data = video_file(tmp_path / "a.mp4", frames=10, rate=4)
    for item in (b"no video", data[: len(data) // 2]):
        with pytest.raises(BadSampleError, match="^pairs.parquet, row 3: the video 'a.mp4' cannot be decoded"):
            decode_video({"bytes": item, "path": "a.mp4"}, LOCATION, FixedRate(1, 8))


def brightness(frames: list[Image.Image]) -> list[int]:
    return [round(number_of(frame) / 20) for frame in frames]


def test_a_segment_is_spread_over_what_there_is_of_it(tmp_path):
    path = str(tmp_path / "a.mp4")
    video_file(tmp_path / "a.mp4", frames=10, rate=4)  # 2.5 s
    assert brightness(decode_video(path, LOCATION, EvenlySpaced(5))) == [1, 3, 5, 7, 9]
    assert brightness(decode_video(path, LOCATION, EvenlySpaced(2, 1.0, 2.0))) == [5, 7]
    # What is beyond the end has no share of the frames
    assert brightness(decode_video(path, LOCATION, EvenlySpaced(2, 1.5, 90.0))) == [7, 9]
    assert brightness(decode_video(path, LOCATION, EvenlySpaced(3, 2.3, 2.4))) == [9, 9, 9]


@pytest.mark.parametrize("start", [2.6, 60.0])
def test_a_segment_beyond_the_end_names_the_file(start, tmp_path):
    video_file(tmp_path / "a.mp4", frames=10, rate=4)
    with pytest.raises(
        BadSampleError, match=rf"^pairs.parquet, row 3: the video '.*a.mp4' ends at 2.50 s, .* {start:.2f} s"
    ):
        decode_video(str(tmp_path / "a.mp4"), LOCATION, EvenlySpaced(2, start, start + 5))


@pytest.mark.parametrize(
    ("start", "end", "num_frames"),
    [(-1.0, 2.0, 2), (2.0, 1.0, 2), (1.0, 1.0, 2), (float("nan"), 2.0, 2), (0.0, 1.0, 0)],
)
def test_an_impossible_segment_is_refused(start, end, num_frames, tmp_path):
    path = str(tmp_path / "a.mp4")
    video_file(tmp_path / "a.mp4", frames=10, rate=4)
    with pytest.raises(
        BadSampleError, match=f"row 3: the video .* {num_frames} frames from {start} to {end} s were asked for"
    ):
        decode_video(path, LOCATION, EvenlySpaced(num_frames, start, end))


@pytest.mark.parametrize("extension", ["avi", "mkv", "mov", "mp4", "webm", "ts", "gif"])
def test_usual_containers_are_read(extension, tmp_path):
    codec = {"webm": "libvpx", "ts": "mpeg2video", "gif": "gif"}.get(extension, "mpeg4")
    data = video_file(tmp_path / f"a.{extension}", frames=10, rate=25, codec=codec)
    assert len(decode_video(data, LOCATION, FixedRate(25, 20))) == 10


@pytest.mark.parametrize("extension", ["mkv", "avi", "mp4"])
def test_a_cut_file_is_not_a_short_video(extension, tmp_path):
    data = video_file(tmp_path / f"a.{extension}", frames=100, rate=20, options={"movflags": "faststart"})
    (tmp_path / "cut").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(BadSampleError, match="row 3: the video '.*cut' cannot be decoded .*"):
        decode_video(str(tmp_path / "cut"), LOCATION, FixedRate(2, 20))
    with pytest.raises(BadSampleError, match="row 3: the video '.*cut' cannot be decoded .*"):
        decode_video(str(tmp_path / "cut"), LOCATION, EvenlySpaced(4))
    assert len(decode_video(data, LOCATION, FixedRate(2, 20))) == 10


PLAYLISTS = {
    "session.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    "hls.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{video}\n#EXT-X-ENDLIST\n",
    "concat.txt": "ffconcat version 1.0\nfile '{video}'\n",
    "dash.mpd": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period/></MPD>',
}


@pytest.mark.parametrize("name", PLAYLISTS)
def test_playlists_are_refused(name, tmp_path):
    video_file(tmp_path / "a.mp4", frames=2, rate=4)
    (tmp_path / name).write_text(PLAYLISTS[name].format(video=tmp_path / "a.mp4"))
    for item in (str(tmp_path / name), (tmp_path / name).read_bytes()):
        with pytest.raises(BadSampleError, match="row 3: the video .*not a video of a format that is read .*matroska"):
            decode_video(item, LOCATION, FixedRate(1, 8))


def test_frames_beyond_the_pixel_limit(tmp_path, monkeypatch):
    data = video_file(tmp_path / "a.mp4", frames=2, rate=4)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 255)
    with pytest.raises(BadSampleError, match="row 3: the video cannot be decoded .it has 16 x 16 pixels"):
        decode_video(data, LOCATION, FixedRate(1, 8))


def test_a_segment_is_loaded_with_the_refusals_of_all_files(tmp_path):
    path = str(tmp_path / "v.mp4")
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 16
        for i in range(20):  # 2 seconds; the gray of a frame tells when
            frame = np.full((16, 16, 3), 12 * i, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    grays = [
        np.asarray(frame).mean() / 12 for frame in load_media(VideoSegment(path, 0.5, 1.5, num_frames=2), "query '1'")
    ]
    assert grays == pytest.approx([7.5, 12.5], abs=1)
    with pytest.raises(
        ValueError, match="query '1': the video '.*v.mp4' ends at 2.00 s, and the part begins at 3.00 s"
    ):
        load_media(VideoSegment(path, 3.0, 4.0), "query '1'")
    os.mkfifo(tmp_path / "fifo.mp4")
    with pytest.raises(ValueError, match="query '1': the video '.*fifo.mp4' .*it is a pipe, not a regular file"):
        load_media(VideoSegment(str(tmp_path / "fifo.mp4")), "query '1'")
