# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Find the videos of a benchmark: in the folders that it is distributed in, whole or cut into clips."""

import os
import re
from collections.abc import Sequence

from ...data import VideoSegment


_EXTENSIONS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".flv")
# The names of clips: the video and the seconds where they begin and end
_CLIP = re.compile(r"(?P<video>.+)_(?P<start>\d+(?:\.\d+)?)_(?P<end>\d+(?:\.\d+)?)")


class VideoFiles:
    """
    The video files in some folders of a benchmark, by their names without the extension, which differs from copy to copy.

    Args:
        data (`str`): The folder of the benchmark.
        folders (`Sequence[str]`): Folders in it, the one preferred first. Folders in them are searched, too.
    """

    def __init__(self, data: str, folders: Sequence[str]):
        self.data = data
        self.place = next((name for name in folders if os.path.isdir(os.path.join(data, name))), folders[0])
        self.files: dict[str, str] = {}
        for folder in reversed(folders):
            for parent, names, files in os.walk(os.path.join(data, folder)):
                names.sort(reverse=True)
                for file in sorted(files, reverse=True):
                    stem, extension = os.path.splitext(file)
                    if extension.lower() in _EXTENSIONS:
                        self.files[stem] = os.path.join(parent, file)

    def segment(
        self,
        name: str,
        start: float | None = None,
        end: float | None = None,
        num_frames: int = 8,
        *,
        extension: str = ".mp4",
    ) -> VideoSegment:
        """
        Find a video or a part of it.

        A part that was cut out already, as `NAME_START_END`, is shown whole. A clip of such a name is cut out of its video, if only that is there.

        Args:
            name (`str`): The name of the video or clip, without an extension.
            start, end (`float`, *optional*): The part in seconds.
            num_frames (`int`, *optional*, defaults to 8): Number of frames that are shown.
            extension (`str`, *optional*, defaults to `".mp4"`): That of the published file, for the message if it is missing.

        Returns:
            `VideoSegment`: of the published file in the first folder that exists, if there is none.
        """
        if start is not None and end is not None:
            clip = "_".join([name, *(f"{int(t)}" if t == int(t) else f"{t}" for t in (start, end))])
            if clip in self.files:
                return VideoSegment(self.files[clip], num_frames=num_frames)
        if name in self.files:
            return VideoSegment(self.files[name], start, end, num_frames)
        match = _CLIP.fullmatch(name)
        if start is None and match and match["video"] in self.files:
            return VideoSegment(self.files[match["video"]], float(match["start"]), float(match["end"]), num_frames)
        return VideoSegment(os.path.join(self.data, self.place, name + extension), start, end, num_frames)
