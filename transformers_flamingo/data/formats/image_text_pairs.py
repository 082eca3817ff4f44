# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Image-text pairs: one image with its caption."""

from dataclasses import dataclass
from typing import Any

from datasets import Image, Value

from ..columns import parse_record, require_column, require_text, row_location
from ..documents import Chunk
from ..errors import BadSampleError
from ..reader import Reader


_IMAGE_FILES = ("jpg", "jpeg", "png", "webp")


@dataclass(frozen=True)
class ImageTextPairs(Reader):
    """
    Reader of images with one caption each, in any of three layouts:

    - WebDataset `.tar` files as `img2dataset` writes them: `000.jpg` (or `jpeg`, `png`, `webp`) and `000.txt`;
    - `.parquet` with the columns `image` (embedded or a path) and `text`;
    - a folder of images with `metadata.csv` or `metadata.jsonl`, as the image folder of `datasets`, with the columns
      `file_name`, relative to that file, and `text`.

    The column of the caption may also be called `caption`.

    Args:
        media_root (`str`, *optional*): Folder that relative paths start from.
        prompt (`str`, *optional*, defaults to `""`): Text before each caption that is not supervised, such as
            `"Output:"`.
    """

    prompt: str = ""

    tar_members = {**{name: Image(decode=False) for name in _IMAGE_FILES}, "txt": Value("string")}

    def _document(self, row: dict[str, Any]) -> list[Chunk]:
        row = parse_record(row)
        image = require_column(row, "image", "file_name", *_IMAGE_FILES)
        if isinstance(image, list | tuple):
            raise BadSampleError(
                f"{row_location(row)}: {len(image)} images with one text. Use the format `parts` for such rows."
            )
        return [Chunk(require_text(row, "text", "caption", "txt"), self.resolve_path(image, row), self.prompt)]
