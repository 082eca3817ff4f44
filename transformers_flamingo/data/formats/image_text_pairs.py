# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Image-text pairs: one image with its caption, or with several."""

from dataclasses import dataclass
from typing import Any

from datasets import Image, Value

from ..columns import FILE, JSON, ORIGIN, parse_record, require_texts, row_location
from ..data_files import IMAGE_SUFFIXES
from ..documents import Chunk
from ..errors import BadSampleError
from ..reader import ADDRESSES, Column, Reader


_CAPTIONS = ("text", "caption", "captions", "sentences")


@dataclass(frozen=True)
class ImageTextPairs(Reader):
    """
    Reader of images with their captions, in any of four layouts:

    - WebDataset `.tar` files as `img2dataset` writes them: `000.jpg` and `000.txt`, or the caption in `000.json`;
    - `.parquet`, or a folder of `Dataset.save_to_disk`, with the image embedded or a path;
    - a folder of images with `metadata.csv` or `metadata.jsonl`, as the image folder of `datasets`, with paths relative to that file;
    - a folder of images, each with its caption beside it: `a.jpg` and `a.txt`, or `a.json` with a caption in it.

    Of several captions, one is drawn each time the image comes, and an evaluation compares with the first. Of an animated GIF or WebP, the
    image is the first frame; the format `video_text_pairs` reads all.

    Args:
        media_root (`str`, *optional*): Folder that relative paths start from.
        prompt (`str`, *optional*, defaults to `""`): Text before each caption that is not supervised, such as
            `"Output:"`.
    """

    prompt: str = ""

    tar_members = {
        **{name: Image(decode=False) for name in IMAGE_SUFFIXES},
        "txt": Value("string"),
        "json": Value("string"),
    }
    media = IMAGE_SUFFIXES
    columns = (
        Column(
            ("image", "file_name", *ADDRESSES),
            "an embedded image, or the path of a file; an address only with `allow_remote`",
            members=IMAGE_SUFFIXES,
        ),
        Column(
            _CAPTIONS, "a text, a list of texts, or a list of records with a text in `raw`", members=("txt", "json")
        ),
    )

    def _document(self, row: dict[str, Any]) -> list[Chunk]:
        beside = row.get("json") if JSON not in row else None  # in a `.tar` or a file of its own
        row = parse_record({name: value for name, value in row.items() if name != "json"})
        given = [name for name in IMAGE_SUFFIXES if row.get(name) is not None]
        if len(given) > 1:
            raise BadSampleError(
                f"{row_location(row)}: it has an image in {' and in '.join(map(repr, given))}. Remove one."
            )
        image = self.require_image(row, "image", "file_name", *given)
        has_text = any(row.get(name) is not None for name in (*_CAPTIONS, "txt"))
        if not has_text and isinstance(beside, str):
            record = parse_record({JSON: beside, **{name: row[name] for name in ORIGIN if name in row}})
            row = {**row, **{name: record.get(name) for name in _CAPTIONS}}
        elif not has_text and row.get(FILE) is not None and "txt" in row:
            raise BadSampleError(
                f"{row_location(row)}: there is no text beside it, a file of the same name that ends with .txt. Add it, or remove the image."
            )
        first, *others = require_texts(row, *_CAPTIONS, "txt")
        return [Chunk(first, image, self.prompt, alternatives=tuple(others))]
