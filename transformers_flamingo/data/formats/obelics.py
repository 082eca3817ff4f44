# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Interleaved web pages in the columns of OBELICS (Laurençon et al. 2023)."""

from dataclasses import dataclass
from typing import Any

from ..columns import parse_record, require_list, row_location
from ..documents import Chunk, interleave
from ..errors import BadSampleError
from ..media_files import HOW_TO_FETCH
from ..reader import Column, Reader


@dataclass(frozen=True)
class Obelics(Reader):
    r"""
    Reader of web pages as two parallel lists, in `.parquet` or `.jsonl`. The columns are

        images   [image_1, None,   image_2]    embedded, or paths
        texts    [None,    "text", None   ]

    Exactly one of the two has a value at each index. OBELICS publishes URLs in `images`: `flamingo fetch` fetches them, and drops the
    images that are gone, or their pages.

    Two texts with no image between them are joined by an empty line, as are paragraphs within one text.
    """

    columns = (
        Column(("images",), "a list of images, embedded or paths, `None` where there is a text"),
        Column(("texts",), "a list of texts, `None` where there is an image"),
    )

    def _document(self, row: dict[str, Any]) -> list[Chunk]:
        row = parse_record(row)
        images, texts = require_list(row, "images"), require_list(row, "texts")
        if len(images) != len(texts):
            raise BadSampleError(
                f"{row_location(row)}: the list 'images' has length {len(images)}, and 'texts' {len(texts)}. The two lists must be "
                "parallel, or it is unknown which text an image belongs to. Fix the row, or remove it."
            )
        parts = []
        for index, (image, text) in enumerate(zip(images, texts, strict=True)):
            if (image is None) == (text is None):
                found = "neither an image nor a text" if image is None else "both an image and a text"
                raise BadSampleError(
                    f"{row_location(row)}: index {index} has {found}, but needs exactly one. Remove an image that could not be fetched "
                    "from both lists: the text after it would see the image before it."
                )
            if text is not None and not isinstance(text, str):
                raise BadSampleError(
                    f"{row_location(row)}: index {index} of 'texts' has a {type(text).__name__} instead of a text. Fix the "
                    "row, or remove it."
                )
            if isinstance(image, str) and "://" in image and not self.allow_remote:
                raise BadSampleError(
                    f"{row_location(row)}: index {index} of 'images' is an address, {image!r:.200}, and the image was not fetched. {HOW_TO_FETCH}"
                )
            parts.append(self.resolve_path(image, row) if text is None else text)
        return interleave(parts, separator="\n\n")
