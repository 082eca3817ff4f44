# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Exports of Label Studio."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ..columns import FILE, parse_record, row_location
from ..data_files import kind_of
from ..documents import Chunk
from ..errors import BadSampleError
from ..reader import Column, Reader


# What JSON-MIN and CSV have of the task itself
_OWN_COLUMNS = (
    "id",
    "data",
    "annotation_id",
    "annotator",
    "created_at",
    "updated_at",
    "lead_time",
    "agreement",
    "inner_id",
)


@dataclass(frozen=True)
class LabelStudio(Reader):
    """
    Reader of what Label Studio exports as JSON: a list of tasks with their annotations.

        data          {"image": "/data/upload/1/cat.jpg", ...}
        annotations   [{"result": [{"from_name": "caption", "type": "textarea", "value": {"text": ["A cat."]}}, ...]}, ...]

    The text is what was written into a text area, or the choices that were made, joined by commas. Of several texts, such as those of several
    annotators, one is drawn each time the image comes. Canceled annotations do not count, and a task without any is a bad row.

    Of an export as JSON-MIN or CSV, which has the results beside the data, the texts and choices are those of the columns beside `image`.

    The path of an image that was uploaded, `/data/upload/1/cat.jpg`, is `upload/1/cat.jpg` in the media folder of Label Studio, and that of local
    storage, `/data/local-files/?d=photos/cat.jpg`, is `photos/cat.jpg`: give the folder that has it as `media_root`. The name alone is enough
    where the image is there, or in `images/`.

    Args:
        media_root (`str`, *optional*): Folder of the images, by default that of the export.
        control (`str`, *optional*): Name of the control with the texts. It is needed if there are several.
        prompt (`str`, *optional*, defaults to `""`): Text before each text that is not supervised.
    """

    control: str | None = None
    prompt: str = ""

    columns = (
        Column(("data",), "a record with the `image` of the task"),
        Column(("annotations",), "a list of records with a list `result`"),
        Column(("annotation_id",), "in JSON-MIN and CSV, in place of these", is_required=False),
    )

    def _document(self, row: dict[str, Any]) -> list[Chunk]:
        row = parse_record(row)
        texts: dict[str, list[str]] = {}
        if "annotations" not in row and "annotation_id" in row:
            row = {**row, "data": {name: row[name] for name in _image_columns(row)}}
            results = _read_columns(row)
        else:
            results = _read_results(row["annotations"])
        for name, text in results:
            texts.setdefault(name, []).append(text)
        control = self.control
        if control is None and len(texts) > 1:
            raise BadSampleError(
                f"{row_location(row)}: there are texts of {', '.join(map(repr, texts))}. Choose one with `control` in the `options` of the source."
            )
        control = next(iter(texts), None) if control is None else control
        if not texts.get(control):
            raise BadSampleError(
                f"{row_location(row)}: no annotation has a text{'' if control is None else f' of {control!r}'}; those with one are "
                f"{sorted(texts)}. Annotate the task, or remove it."
            )
        first, *others = dict.fromkeys(texts[control])
        return [Chunk(first, self.resolve_path(self._image(row), row), self.prompt, alternatives=tuple(others))]

    def _image(self, row: dict[str, Any]) -> str:
        """Return the path of the image of a task, as the row of another format would have it."""
        data = row["data"]
        others = [value for value in data.values() if isinstance(value, str)]
        if "image" not in data and len(others) != 1:
            raise BadSampleError(
                f"{row_location(row)}: the task has no 'image' in 'data', which has {sorted(data)}. Rename the image, or remove the row."
            )
        given = data["image"] if "image" in data else others[0]
        if not isinstance(given, str) or not given:
            raise BadSampleError(
                f"{row_location(row)}: the image of the task is {given!r}. Fix the row, or remove it."
            )
        return given if "://" in given else find_upload(self.media_root or os.path.dirname(row[FILE]), given)


def _read_results(annotations: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """Yield the name of its control and the text for each text of the annotations."""
    for annotation in annotations:
        for result in [] if annotation.get("was_cancelled") else annotation["result"]:
            value = result.get("value", {})
            written, chosen = value.get("text"), value.get("choices")
            if result.get("type") == "textarea" and written is not None:
                for text in [written] if isinstance(written, str) else written:
                    if text.strip():
                        yield result["from_name"], text.strip()
            elif result.get("type") == "choices" and chosen:
                yield result["from_name"], ", ".join(chosen)


def _image_columns(row: dict[str, Any]) -> list[str]:
    """Return the columns of a row of JSON-MIN or CSV with its image: `image`, or those with the path of one."""
    return ["image"] if "image" in row else [name for name, value in row.items() if kind_of(str(value)) == "media"]


def _read_columns(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the name of its control and the text for each text of a row of JSON-MIN or CSV."""
    for name, value in row.items():
        if name in row["data"] or name in _OWN_COLUMNS or name.startswith("__"):
            continue
        if isinstance(value, str) and value.startswith(('{"', '["')):  # in a .csv
            value = json.loads(value)
        chosen = value.get("choices") if isinstance(value, dict) else None
        if chosen:
            yield name, ", ".join(chosen)
        for text in [value] if isinstance(value, str) else value if isinstance(value, list) else []:
            if isinstance(text, str) and text.strip():
                yield name, text.strip()


def find_upload(start: str, address: str) -> str:
    """
    Return the path below `start` of an image that Label Studio serves at `address`.

    Args:
        start (`str`): The folder of the images.
        address (`str`): `/data/upload/...`, `/data/local-files/?d=...`, or a path.
    """
    parts = urlsplit(address)
    path = parse_qs(parts.query)["d"][0] if parts.path.startswith("/data/local-files") else address
    path = path.removeprefix("/data/")
    if "://" in start or os.path.isabs(path) or os.path.isfile(os.path.join(start, path)):
        return path
    name = os.path.basename(path)
    places = [place for place in (name, os.path.join("images", name)) if os.path.isfile(os.path.join(start, place))]
    return places[0] if places else path
