# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
The published files of COCO captions, of Karpathy's splits, and of VQAv2 and OK-VQA: what a training and an evaluation both read.

The formats `coco_captions` and `vqav2` train on them, and the tasks `coco`, `flickr30k`, `vqav2` and `okvqa` of `evaluation` read the
same records.
"""

import os
import re
from typing import Any, NamedTuple


#: The folder of the images of Karpathy's Flickr30k, which its file does not name.
FLICKR_FOLDER = "flickr30k-images"

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
    named = _SUBSET.search(os.path.basename(file))
    subset = (content or {}).get("data_subtype") or (named and named[0])
    if not isinstance(subset, str):
        raise ValueError(
            "its name has no subset, such as train2014, and so the folder of its images is unknown: use the published name"
        )
    return subset


def find_image(start: str, file_name: str, may_leave: bool) -> str:
    """
    Return the path of an image of COCO relative to `start`, wherever its folder is.

    Args:
        start (`str`): The folder of the annotations, or of the images.
        file_name (`str`): `SUBSET/NAME`.
        may_leave (`bool`): Whether the folder of the images may be beside `start`: the annotations are published as `annotations/`.
    """
    subset, name = os.path.split(file_name)
    if "://" in start or os.path.isabs(file_name):
        return file_name
    places = [subset, os.path.join("images", subset)]
    places += [os.path.join("..", place) for place in places] if may_leave else []
    for place in places:
        if os.path.isdir(os.path.join(start, place)):
            return os.path.join(place, name)
    return name if os.path.isfile(os.path.join(start, name)) else file_name
