# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Images of classes, whose names are their texts."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from transformers.utils import logging

from ...utils.names import count_of
from ..columns import parse_record, require_column, require_text, row_location
from ..data_files import IMAGE_SUFFIXES, find_splits, kind_of
from ..documents import Chunk
from ..errors import BadSampleError
from ..folders import FOLDER, class_folders
from ..reader import Column, Reader


logger = logging.get_logger(__name__)


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
        names (`dict` or `list`, *optional*): Names of classes that are shown by other ones, such as `{"n01440764": "tench"}`. Classes that are
            numbers without names need them: a list, whose first name is that of 0, or `{"0": "red", "1": "blue"}`.
    """

    prompt: str = ""
    template: str = "{class}"
    names: Mapping[Any, str] | Sequence[str] | None = None

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
        given = self.names.values() if isinstance(self.names, Mapping) else self.names or ()
        if isinstance(self.names, str) or not all(isinstance(name, str) for name in given):
            raise ValueError(
                f'`names` is {self.names!r}. Give a list of names, or a name for each class, such as {{"0": "red"}}.'
            )

    def find(self, path: str, split: str | None = None) -> list[str]:
        """
        Find the files as [`Reader.find`] does. Images are in an order that mixes their classes.

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
        _warn_of_same_names(path, folders)
        # A stream reads the files in their order, and batches of one class would teach to say that class
        return sorted(files, key=lambda file: blake2b(file.encode(errors="surrogateescape"), digest_size=8).digest())

    def _document(self, row: dict[str, Any]) -> list[Chunk]:
        row = parse_record(row)
        name = self._name(row, row[FOLDER] if FOLDER in row else require_column(row, "label", "class"))
        return [
            Chunk(self.template.replace("{class}", name), self.require_image(row, "image", "file_name"), self.prompt)
        ]

    def _name(self, row: dict[str, Any], label: Any) -> str:
        """Return the name of a class that is a text or a number."""
        is_number = isinstance(label, int) and not isinstance(label, bool)
        if is_number and self.names is None:
            raise BadSampleError(
                f"{row_location(row)}: the class is {label}: numbers without names. Give `names` in the `options` of the source, such as "
                '`{"names": ["red", "blue"]}`, whose first is the name of 0.'
            )
        if not is_number and FOLDER not in row:
            label = require_text(row, "label", "class")
        place = label if is_number else int(label) if label.isdecimal() else -1  # a .csv has texts
        if isinstance(self.names, Mapping):
            name = self.names.get(label, self.names.get(place if label == str(place) else str(label)))
        else:
            names = self.names or ()
            name = names[place] if 0 <= place < len(names) else None
        if name is None and (is_number or isinstance(self.names, Sequence)):
            known = list(self.names)[:10]
            raise BadSampleError(
                f"{row_location(row)}: the class is {label!r}, which `names` does not name: {known}. Add it."
            )
        return label.replace("_", " ") if name is None else name


def _warn_of_same_names(path: str, folders: set[str]) -> None:
    """Warn if folders of one name, of which none is of another split, become one class."""
    by_name: dict[str, list[str]] = {}
    for folder in sorted(folders):
        if not any(find_splits(os.path.basename(os.path.dirname(folder))).values()):
            by_name.setdefault(os.path.basename(folder), []).append(folder)
    for name, same in by_name.items():
        if len(same) > 1:
            logger.warning_once(
                f"{path!r} has {count_of(len(same), 'folder')} named {name!r}, such as {same[0]!r} and {same[1]!r}: their images are one class. If "
                "they are not, rename the folders."
            )
