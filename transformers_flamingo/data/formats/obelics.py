# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Interleaved web pages in the columns of OBELICS (Laurençon et al. 2023)."""

from dataclasses import dataclass
from typing import Any

from ..columns import parse_record, require_list, row_location
from ..documents import Chunk, interleave
from ..errors import BadSampleError
from ..reader import Reader


@dataclass(frozen=True)
class Obelics(Reader):
    r"""
    A web page as two parallel lists, in `.parquet` or `.jsonl`:

        images   [image_1, None,   image_2]    embedded, or paths
        texts    [None,    "text", None   ]

    Exactly one of the two has a value at each place. OBELICS publishes URLs in `images`: fetch them first, and where
    one cannot be fetched leave the place out of both lists, or the page out.

    Two texts with no image between them are joined by an empty line, as paragraphs within one text are.
    """

    def _document(self, row: dict[str, Any]) -> list[Chunk]:
        row = parse_record(row)
        images, texts = require_list(row, "images"), require_list(row, "texts")
        if len(images) != len(texts):
            raise BadSampleError(
                f"{row_location(row)}: {len(images)} places in 'images' and {len(texts)} in 'texts'. The two lists must be "
                "parallel: which image stands where is unknown."
            )
        parts = []
        for place, (image, text) in enumerate(zip(images, texts, strict=True)):
            if (image is None) == (text is None):
                found = "neither image nor text" if image is None else "both an image and a text"
                raise BadSampleError(
                    f"{row_location(row)}: place {place} has {found}, where exactly one belongs. An image that could not be "
                    "fetched must be left out of both lists: the text behind it would look at the image before it."
                )
            if text is not None and not isinstance(text, str):
                raise BadSampleError(
                    f"{row_location(row)}: place {place} of 'texts' has a {type(text).__name__}, where a text belongs. Fix the "
                    "row, or remove it."
                )
            parts.append(self.resolve_path(image, row) if text is None else text)
        return interleave(parts, separator="\n\n")
