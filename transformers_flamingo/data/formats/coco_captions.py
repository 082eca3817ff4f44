# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""COCO captions (Chen et al. 2015) and Flickr30k (Young et al. 2014), in their published files."""

import json
import os
import re
from dataclasses import dataclass
from functools import partial
from typing import Any

from transformers.utils import logging

from ...utils.names import count_of
from ..coco import find_image, named_subset, read_karpathy_image
from ..columns import FILE, JSON, parse_record, require_texts, row_location
from ..data_files import SeveralSplitsError, find_files
from ..documents import Chunk
from ..errors import BadSampleError, ContentError
from ..reader import Column, Reader
from ..row_stream import RowFilter


logger = logging.get_logger(__name__)

_KARPATHY = r"^dataset_\w+\.json$"


@dataclass(frozen=True)
class CocoCaptions(Reader):
    """
    Reader of captions as COCO publishes them, and of the splits of Karpathy and Fei-Fei (2015):

        annotations/captions_{train2014,val2014}.json    train2014/    val2014/     (or 2017)
        dataset_coco.json                                train2014/    val2014/
        dataset_flickr30k.json                           flickr30k-images/

    `split: train2014` (or `train`) chooses a file of COCO. In Karpathy's files, `split` chooses rows: `train`, `val`, `test` or `restval`,
    and `train+restval` is what captioning models are usually trained on. The folders of the images are next to the file, next to its
    folder, or in `images/` there.

    A file of one's own with `images` and `annotations` may have any name (in a folder, `captions_*.json`): its images are next to it, in
    `media_root`, or in a folder below.

    A row is an image with its five captions. One of them is drawn each time the image comes, and an evaluation compares with the first.

    Args:
        media_root (`str`, *optional*): Folder of the folders of images, or of the images themselves.
        prompt (`str`, *optional*, defaults to `""`): Text before each caption that is not supervised.
    """

    prompt: str = ""

    table_names = rf"^captions_.*\.json$|{_KARPATHY}"
    columns = (
        Column(
            ("images",), "records of images, with `file_name` and `id`, or with `filename`, `split` and `sentences`"
        ),
        Column(("annotations",), "records with `image_id` and `caption`; not in Karpathy's files", is_required=False),
    )

    @staticmethod
    def make_records(content: Any, file: str) -> list[dict[str, Any]]:
        """Make a record for each image, with its path and its captions."""
        images = content.get("images") if isinstance(content, dict) else None
        if not isinstance(images, list):
            raise ContentError("it has no list 'images', so it is no file of COCO captions")
        if "annotations" not in content:
            if any("sentences" not in image for image in images):
                raise ContentError("it has 'images' and no 'annotations' with their captions", is_near=True)
            return [{"split": image["split"], **read_karpathy_image(image)._asdict()} for image in images]
        strays: list[Any] = []
        # The name of a file of one's own says no folder, and the images are looked for
        subset, captions = named_subset(file) or "", {image["id"]: [] for image in images}
        for annotation in content["annotations"]:
            if "caption" not in annotation:
                raise ContentError(
                    "its annotations have no 'caption': it is of boxes or keypoints. Use captions_*.json", is_near=True
                )
            if annotation["image_id"] in captions:
                captions[annotation["image_id"]].append(annotation["caption"])
            else:
                strays.append(annotation["image_id"])
        if strays:
            logger.warning_once(
                f"{file!r} has {count_of(len(strays), 'caption')} of images that are not in 'images', such as {strays[0]!r}; not read."
            )
        return [
            {
                "id": image["id"],
                "file_name": os.path.join(subset, image["file_name"]),
                "captions": captions[image["id"]],
            }
            for image in images
        ]

    def find(self, path: str, split: str | None = None) -> list[str]:
        """
        Find the files as [`Reader.find`] does. In Karpathy's, `split` chooses rows.

        Raises:
            SeveralSplitsError: no split of Karpathy's file is chosen.
        """
        files = self._find_karpathy(path)
        if files and split is None:
            raise SeveralSplitsError(
                f"{files[0]!r} has the splits train, restval, val and test in one file. Read as one source, held-out rows would be among the "
                "others. Choose with `split`, such as `split: train` or `split: train+restval`.",
                {"train": ["train", "restval"], "validation": ["val"], "test": ["test"]},
            )
        return files or super().find(path, split)

    def row_filter(self, path: str, split: str | None = None) -> RowFilter | None:
        """Keep the rows of a split in Karpathy's files."""
        if not self._find_karpathy(path):
            return None
        return RowFilter(partial(_is_of_split, names=split.split("+")))

    @staticmethod
    def _find_karpathy(path: str) -> list[str]:
        try:
            files = find_files(path, names=_KARPATHY)
        except (FileNotFoundError, ValueError):
            return []
        return files if all(re.search(_KARPATHY, os.path.basename(file)) for file in files) else []

    def _document(self, row: dict[str, Any]) -> list[Chunk]:
        row = parse_record(row)
        start = self.media_root or os.path.dirname(row[FILE])
        try:
            file = find_image(start, row["file_name"], may_leave=self.media_root is None)
        except ValueError as error:
            raise BadSampleError(f"{row_location(row)}: {error}.") from error
        image = self.resolve_path(file, row)
        first, *others = require_texts(row, "captions")
        return [Chunk(first, image, self.prompt, alternatives=tuple(others))]


def _is_of_split(row: dict[str, Any], names: list[str]) -> bool:
    return json.loads(row[JSON])["split"] in names
