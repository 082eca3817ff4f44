# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
The published files of COCO captions, of Karpathy's splits, and of VQAv2 and OK-VQA: what a training and an evaluation both read.

The formats `coco_captions` and `vqav2` train on them, and the tasks `coco`, `flickr30k`, `vqav2` and `okvqa` of `evaluation` read the
same records.
"""

import os
import re
from functools import lru_cache
from typing import Any, NamedTuple

from .errors import ContentError


#: The folder of the images of Karpathy's Flickr30k, which its file does not name.
FLICKR_FOLDER = "flickr30k-images"

# Levels of folders below the annotations in which images of a file of one's own are looked for
_MAX_DEPTH = 2
_SUBSET = re.compile(r"(?:train|val|test)\d{4}")


class CaptionedImage(NamedTuple):
    """
    An image of Karpathy's splits.

    Args:
        id (`int`): Its id in COCO, or in the file.
        file_name (`str`): Its path below the folder of the dataset.
        captions (`list[str]`): Its captions.
    """

    id: int
    file_name: str
    captions: list[str]


def read_karpathy_image(image: dict[str, Any]) -> CaptionedImage:
    """
    Read an entry of `images` of `dataset_coco.json` or `dataset_flickr30k.json`.

    Raises:
        KeyError: it lacks a field.
    """
    number = image["cocoid"] if "cocoid" in image else image["imgid"]
    folder = image["filepath"] if "cocoid" in image else image.get("filepath", FLICKR_FOLDER)
    file_name = os.path.join(folder, image["filename"])
    return CaptionedImage(number, file_name, [sentence["raw"] for sentence in image["sentences"]])


def read_vqa_answers(annotation: dict[str, Any]) -> tuple[int, list[str]]:
    """Read an entry of `annotations` of VQAv2: the id of its question, and the answers of all annotators."""
    return annotation["question_id"], [answer["answer"] for answer in annotation["answers"]]


def image_file(subset: str, image_id: int) -> str:
    """Return the path of an image of COCO 2014, such as `train2014/COCO_train2014_000000000009.jpg`."""
    return os.path.join(subset, f"COCO_{subset}_{image_id:012d}.jpg")


def annotations_file(questions: str) -> str:
    """Return the path of the annotations that belong to a file of questions."""
    folder, name = os.path.split(questions)
    return os.path.join(folder, name.replace("OpenEnded_", "").replace("questions", "annotations"))


def subset_of(file: str, content: dict[str, Any] | None = None) -> str:
    """
    Return the subset that a file is of, such as `"train2014"`, by its field `data_subtype` or its name.

    Raises:
        ValueError: neither has one.
    """
    subset = (content or {}).get("data_subtype") or named_subset(file)
    if not isinstance(subset, str):
        raise ContentError(
            "its name has no subset, such as train2014, and so the folder of its images is unknown: use the published name",
            is_near=True,
        )
    return subset


def named_subset(file: str) -> str | None:
    """Return the subset in the name of a file, `None` if it is named otherwise than COCO's."""
    named = _SUBSET.search(os.path.basename(file))
    return named and named[0]


def find_image(start: str, file_name: str, may_leave: bool) -> str:
    """
    Return the path of an image of COCO relative to `start`, wherever its folder is: a published place, or any folder below.

    Args:
        start (`str`): The folder of the annotations, or of the images.
        file_name (`str`): `SUBSET/NAME`, or in files of one's own any path.
        may_leave (`bool`): Whether the folder of the images may be beside `start`: the annotations are published as `annotations/`.

    Raises:
        ValueError: several folders have an image of this name, so which of them is meant is unknown.
    """
    subset, name = os.path.split(file_name)
    if "://" in start or os.path.isabs(file_name):
        return file_name
    places = [] if not subset else [subset, os.path.join("images", subset)]
    places += [os.path.join("..", place) for place in places] if may_leave else []
    for place in places:
        if os.path.isdir(os.path.join(start, place)):
            return os.path.join(place, name)
    for path in (file_name, name):
        if os.path.isfile(os.path.join(start, path)):
            return path
    found = _find_below(start, file_name)
    if not found and may_leave:
        beside = os.path.join(start, "..", "images", file_name)
        found = [os.path.join("..", "images", file_name)] if os.path.isfile(beside) else []
    if len(found) > 1:
        raise ValueError(
            f"the image {file_name!r} is in several folders ({', '.join(map(repr, found[:3]))}): give the right one as `media_root` in the `options`"
        )
    return found[0] if found else file_name


def _find_below(start: str, file_name: str) -> list[str]:
    """Return where an image is in the folders below, to the second level: by its path or, if there is none, by its name."""
    if not os.path.isdir(start):
        return []
    folders = _folders_below(start, os.stat(start).st_mtime_ns)
    for name in dict.fromkeys((file_name, os.path.basename(file_name))):
        found = [os.path.join(folder, name) for folder in folders if os.path.isfile(os.path.join(start, folder, name))]
        if found:
            return found
    return []


@lru_cache(64)
def _folders_below(start: str, changed: int) -> tuple[str, ...]:
    """List the folders below another one, again when it has changed: each row asks for them."""
    found: list[str] = []
    for folder, inner, _ in os.walk(start):
        depth = 0 if folder == start else os.path.relpath(folder, start).count(os.sep) + 1
        inner[:] = sorted(name for name in inner if not name.startswith((".", "__"))) if depth < _MAX_DEPTH else []
        found += [os.path.relpath(os.path.join(folder, name), start) for name in inner]
    return tuple(found)
