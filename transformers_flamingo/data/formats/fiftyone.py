# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Exports of FiftyOne."""

import os
from dataclasses import dataclass
from typing import Any

from fsspec.core import url_to_fs
from transformers.utils import logging

from ...utils.names import count_of
from ..columns import parse_record, require_column, row_location
from ..documents import Chunk
from ..errors import BadSampleError, ContentError
from ..reader import Column, Reader


logger = logging.get_logger(__name__)

# Fields of each sample that say nothing about its image
_OWN_FIELDS = ("filepath", "tags", "metadata", "id", "created_at", "last_modified_at")


@dataclass(frozen=True)
class FiftyOne(Reader):
    """
    Reader of what FiftyOne exports, in any of two types:

    - `FiftyOneDataset`: `samples.json`, with the path and the fields of each sample, and `data/`;
    - `FiftyOneImageClassificationDataset`: `labels.json`, with the class of each image by its name, and `data/`.

    The text is a field that holds a text, or the label of a classification, of several joined by commas. (An `ImageClassificationDirectoryTree`
    is a folder for each class: the format `image_classes`.)

    Args:
        media_root (`str`, *optional*): Folder that relative paths start from.
        label_field (`str`, *optional*): Name of the field with the text. It is needed if there are several.
        prompt (`str`, *optional*, defaults to `""`): Text before each text that is not supervised.
    """

    label_field: str | None = None
    prompt: str = ""

    table_names = r"^(samples|labels)\.json$"
    columns = (
        Column(("samples", "labels"), "a list of samples with `filepath`, or the class of each image by its name"),
    )

    @staticmethod
    def make_records(content: Any, file: str) -> list[dict[str, Any]]:
        """Make a record with the path and the fields of each sample."""
        if isinstance(content, dict) and isinstance(content.get("samples"), list):
            return content["samples"]
        if not isinstance(content, dict) or not isinstance(content.get("labels"), dict):
            raise ContentError(
                "it has no list 'samples' and no 'labels' by name, so it is no export of FiftyOne for texts of images"
            )
        folder = os.path.join(os.path.dirname(file), "data")
        fs, root = url_to_fs(folder)
        paths = {
            os.path.splitext(path.removeprefix(root)[1:])[0]: path.removeprefix(root)[1:] for path in fs.find(root)
        }
        unlabeled = sorted(paths.keys() - content["labels"].keys())
        if unlabeled:
            logger.warning_once(
                f"{folder!r} has {count_of(len(unlabeled), 'image')} without a class in {file!r}, such as {unlabeled[0]!r}."
            )
        classes, records = content.get("classes"), []
        for name, label in content["labels"].items():
            is_number = isinstance(label, int) and classes is not None and 0 <= label < len(classes)
            path = os.path.join("data", paths[name]) if name in paths else None
            records.append({"filepath": path, "ground_truth": classes[label] if is_number else label})
        return records

    def companions(self, files: list[str]) -> list[str]:
        """Return the folders of the images, which are looked up by their names."""
        return [os.path.join(os.path.dirname(file), "data") for file in files]

    def _document(self, row: dict[str, Any]) -> list[Chunk]:
        row = parse_record(row)
        fields = {name: _text_of(value) for name, value in row.items() if name not in _OWN_FIELDS and name[0] != "_"}
        fields = {name: text for name, text in fields.items() if text}
        field = self.label_field
        if field is None and len(fields) > 1:
            raise BadSampleError(
                f"{row_location(row)}: there are texts in {', '.join(map(repr, fields))}. Choose one with `label_field` in the `options` of the "
                "source."
            )
        field = next(iter(fields), None) if field is None else field
        if field not in fields:
            raise BadSampleError(
                f"{row_location(row)}: no text and no classification{'' if field is None else f' in {field!r}'}; the fields with one are "
                f"{sorted(fields)}, and boxes are not learned. Fix the row, or remove it."
            )
        return [Chunk(fields[field], self.resolve_path(require_column(row, "filepath"), row), self.prompt)]


def _text_of(value: Any) -> str | None:
    """Return a text, or the label of a classification, or of several."""
    if isinstance(value, str):
        return value.strip()
    kind = value.get("_cls") if isinstance(value, dict) else None
    if kind == "Classification":
        return value["label"]
    if kind == "Classifications":
        return ", ".join(entry["label"] for entry in value["classifications"])
    return None
