# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Parts of video files, as tasks refer to them. How they are decoded is tested in training/data/test_media.py."""

import os

import numpy as np
import pytest

from transformers_flamingo.evaluation.video import Video


def test_a_part_of_a_video_and_what_is_none(tmp_path):
    av = pytest.importorskip("av")
    path = str(tmp_path / "v.mp4")
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 16
        for i in range(20):  # 2 seconds; the grey of a frame tells when
            frame = np.full((16, 16, 3), 12 * i, dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    greys = [np.asarray(frame).mean() / 12 for frame in Video(path, 0.5, 1.5, num_frames=2).frames("query '1'")]
    assert greys == pytest.approx([7.5, 12.5], abs=1)
    with pytest.raises(
        ValueError, match="query '1': the video '.*v.mp4' ends at 2.00 s, and the part begins at 3.00 s"
    ):
        Video(path, 3.0, 4.0).frames("query '1'")
    os.mkfifo(tmp_path / "fifo.mp4")
    with pytest.raises(ValueError, match="query '1': the video '.*fifo.mp4' .*it is a pipe, not a regular file"):
        Video(str(tmp_path / "fifo.mp4")).frames("query '1'")
