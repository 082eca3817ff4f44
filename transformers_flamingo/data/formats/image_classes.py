# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Images of classes, whose names are their texts."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from ...utils.names import count_of
from ..columns import parse_record, require_text
from ..data_files import IMAGE_SUFFIXES, find_splits, kind_of
from ..documents import Chunk
from ..folders import FOLDER, class_folders, common_folder
from ..reader import Column, Reader


class NoClassesError(ValueError):
    """Images of which nothing says what is in them: their folders are no classes."""


@dataclass(frozen=True)
class ImageClasses(Reader):
    """
    Reader of images of classes, in any of two layouts:

    - a folder with a folder of images for each class, `cat/1.jpg` and `dog/2.jpg`, as the image folder of `datasets`; above them there may
      be folders of splits, `train/cat/1.jpg`;
    - `.parquet`, a folder of `Dataset.save_to_disk`, `.csv` or `.jsonl` with an image and its class. `datasets` stores classes as numbers with
      names (`ClassLabel`); the text is the name.

    In the name of a class, `_` stands for a space. Other files of the folders are not read, and counted in a warning.

    Args:
        media_root (`str`, *optional*): Folder that relative paths start from.
        prompt (`str`, *optional*, defaults to `""`): Text before each class that is not supervised.
        template (`str`, *optional*, defaults to `"{class}"`): The text, such as `"A photo of a {class}."`
        names (`dict`, *optional*): Names of classes that are shown by other ones, such as `{"n01440764": "tench"}`.
    """

    prompt: str = ""
    template: str = "{class}"
    names: Mapping[str, str] | None = None

    media = IMAGE_SUFFIXES
    columns = (
        Column(("image", "file_name"), "an embedded image, or the path of a file", members=IMAGE_SUFFIXES),
        Column(
            ("label", "class"),
            "the name of a class, or a `ClassLabel` of `datasets`; otherwise the folder of the image",
        ),
    )

    def __post_init__(self):
        super().__post_init__()
        if "{class}" not in self.template:
            raise ValueError(
                f"`template` is {self.template!r}, without {{class}}, so all texts would be the same. Add {{class}}."
            )

    def find(self, path: str, split: str | None = None) -> list[str]:
        """
        Find the files as [`Reader.find`] does. Images are in an order that mixes their classes, by a hash of their paths below the folder that
        they have in common, so it stays when that folder is copied or renamed.

        Raises:
            NoClassesError: the folders of the images cannot be classes, because there is only one, or they are splits.
        """
        files = super().find(path, split)
        if kind_of(files[0]) != "media":
            return files
        classes = class_folders(files)
        if len(classes) < 2 or all(any(find_splits(name).values()) for name in classes):
            raise NoClassesError(
                f"{path!r} leads to {count_of(len(files), 'image')} in {'the folder' if len(classes) == 1 else 'folders named'} "
                f"{', '.join(map(repr, sorted(classes)[:5]))}, and not in a folder for each class, so nothing says what is in an image. Move "
                "the images of each class into a folder with its name, or give each image a text: `a.txt` beside `a.jpg`, or a `metadata.csv` "
                "with the columns `file_name` and `text` (format `image_text_pairs`)."
            )
        folders = {os.path.dirname(file) for file in files}
        if outer := sorted(folder for folder in folders if any(other.startswith(f"{folder}/") for other in folders)):
            stray = sorted(file for file in files if os.path.dirname(file) == outer[0])
            raise NoClassesError(
                f"{path!r} has {count_of(len(stray), 'image')} beside folders of images, such as {stray[0]!r}, so whether {os.path.basename(outer[0])!r} is a "
                "class is unknown. Move them into the folder of their class, or away."
            )
        # A stream reads the files in their order, and batches of one class would teach to say that class
        start = len(common_folder(files))
        names = {file: file[start:].encode(errors="surrogateescape") for file in files}
        return sorted(files, key=lambda file: blake2b(names[file], digest_size=8).digest())

    def _document(self, row: dict[str, Any]) -> list[Chunk]:
        row = parse_record(row)
        label = row[FOLDER] if FOLDER in row else require_text(row, "label", "class")
        name = (self.names or {}).get(label, label.replace("_", " "))
        return [
            Chunk(self.template.replace("{class}", name), self.require_image(row, "image", "file_name"), self.prompt)
        ]
