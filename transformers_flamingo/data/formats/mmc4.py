# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Interleaved web pages of Multimodal C4 (Zhu et al. 2023)."""

import binascii
import math
import os
from base64 import b64decode
from dataclasses import dataclass
from typing import Any

from datasets import Value

from ..columns import parse_record, require_list, row_location
from ..documents import Chunk, interleave
from ..errors import BadSampleError
from ..reader import Column, Reader
from ..row_stream import RowFilter


@dataclass(frozen=True)
class MMC4(Reader):
    """
    Reader of web pages as a list of sentences and a list of images, in `.jsonl` or `.jsonl.zip` as published, as the member `json` of a
    `.tar` as OpenFlamingo's conversion writes it, or in `.parquet` as `flamingo fetch` does. The columns are

        text_list    ["sentence 0", "sentence 1", ...]
        image_info   [{"image_name": "db1c.jpg", "matched_text_index": 1, "matched_sim": 0.32, ...}, ...]

    `matched_text_index` is the sentence that an image belongs to. MMC4 computed it from its `similarity_matrix` by linear
    assignment: at most one image per sentence, and if there are more images than sentences, the best sentence for each
    remaining image. An image comes before its sentence, and several images of one sentence are in the order of
    `image_info`.

    The pixels are `image` in `image_info`, as `flamingo fetch` embeds them, or `image_base64`, as in OpenFlamingo's shards, or the file
    `image_name` under `media_root`. Images below `min_similarity` and those that were never fetched are dropped, and their sentences stay.
    `load` skips pages without any remaining image, and reports their number unless it streams. OpenFlamingo also drops
    images below 10 KB and every second page with a single image, which this reader does not do.

    Args:
        media_root (`str`, *optional*): Folder of the image files, by default that of the file with the row.
        min_similarity (`float`, *optional*, defaults to 0.24):
            Minimum `matched_sim`, a cosine of CLIP ViT-L/14. The default is OpenFlamingo's.
    """

    min_similarity: float = 0.24

    tar_members = {"json": Value("string")}
    columns = (
        Column(("text_list",), "a list of sentences"),
        Column(
            ("image_info",),
            "a list of records with `matched_text_index`, `matched_sim`, and `image`, `image_base64` or `image_name`",
        ),
    )

    def row_filter(self, path: str, split: str | None = None) -> RowFilter:
        """Keep the pages with an image to use."""
        return RowFilter(
            self._has_image,
            f"they have no image file with a `matched_sim` of at least {self.min_similarity} (`flamingo fetch` fetches images of which "
            "there is only the address: docs/urls.md)",
        )

    def _document(self, row: dict[str, Any]) -> list[Chunk]:
        row = parse_record(row)
        sentences, images = require_list(row, "text_list"), self._images(row)
        parts = []
        for index, sentence in enumerate(sentences):
            parts += [self._pixels(image, row) for image in images if image["matched_text_index"] == index]
            parts.append(sentence)
        return interleave(parts, separator=" ")

    def _has_image(self, row: dict[str, Any]) -> bool:
        try:
            return bool(self._images(parse_record(row)))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError):  # BadSampleError is a ValueError
            return True  # kept for `read` to report it, so that bad samples can be counted

    def _images(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        """Return the `image_info` of the images to use."""
        used, sentences = [], require_list(row, "text_list")
        wrong = next((index for index, text in enumerate(sentences) if not isinstance(text, str)), None)
        if wrong is not None:
            raise BadSampleError(
                f"{row_location(row)}: sentence {wrong} of 'text_list' is {sentences[wrong]!r} instead of a text. Fix the row, "
                "or remove it."
            )
        for number, image in enumerate(require_list(row, "image_info")):
            if not {"matched_text_index", "matched_sim"} <= image.keys():
                raise BadSampleError(
                    f"{row_location(row)}: image {number} has only {sorted(image)}. It needs 'matched_text_index' and "
                    "'matched_sim', the assignment that MMC4 publishes."
                )
            if image["matched_text_index"] not in range(len(sentences)):
                raise BadSampleError(
                    f"{row_location(row)}: image {number} is matched to sentence {image['matched_text_index']} of "
                    f"{len(sentences)}. Fix the row, or remove it."
                )
            if math.isnan(image["matched_sim"]):
                raise BadSampleError(
                    f"{row_location(row)}: 'matched_sim' of image {number} is {image['matched_sim']}, neither above nor below "
                    "`min_similarity`. Fix the row, or remove it."
                )
            if image["matched_sim"] >= self.min_similarity and self._has_pixels(image, row):
                used.append(image)
        return used

    def _has_pixels(self, image: dict[str, Any], row: dict[str, Any]) -> bool:
        return bool(_embedded(image) or image.get("image_base64") or self._file(image, row))

    def _file(self, image: dict[str, Any], row: dict[str, Any]) -> dict[str, Any] | None:
        if not image.get("image_name"):
            return None
        file = self.resolve_path(image["image_name"], row)
        return file if "://" in file["path"] or os.path.exists(file["path"]) else None

    def _pixels(self, image: dict[str, Any], row: dict[str, Any]) -> Any:
        if _embedded(image):
            return image["image"]
        if not image.get("image_base64"):
            return self._file(image, row)
        try:
            return {"bytes": b64decode(image["image_base64"]), "path": image.get("image_name")}
        except (binascii.Error, ValueError) as error:
            raise BadSampleError(
                f"{row_location(row)}: 'image_base64' of {image.get('image_name')!r} cannot be decoded ({error}). Fix the row, or remove it."
            ) from error


def _embedded(image: dict[str, Any]) -> bool:
    return isinstance(image.get("image"), dict) and image["image"].get("bytes") is not None
