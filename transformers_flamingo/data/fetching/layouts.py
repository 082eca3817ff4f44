# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The layouts of lists of URLs: which images a row names, and what becomes of the row when they were fetched, or some of them."""

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from datasets import Features, Image, List, Value

from ..columns import ERROR, FILE, ROW, require_list
from ..errors import BadSampleError
from ..reader import ADDRESSES
from .images import algorithm_of
from .store import Item


#: Columns of addresses and captions of published lists, in the order in which they are looked for.
URL_COLUMNS = (*ADDRESSES, "IMAGE_URL", "coco_url", "flickr_url", "image")
TEXT_COLUMNS = ("text", "caption", "captions", "sentences", "TEXT", "CAPTION", "Caption", "raw_caption", "alt_text")
#: Columns of hashes of the files. LAION's `hash` is another one: that of address and text.
HASH_COLUMNS = ("sha256", "md5", "sha1", "sha512")

# Columns of pages, which are not kept as they are
_MADE = ("images", "texts", "text_list", "image_info")
# Of the columns of captions, those whose names `image_text_pairs` knows
_KNOWN_TEXTS = ("text", "caption", "captions", "sentences")


class BadRowError(ValueError):
    """
    A row that is not fetched.

    Args:
        reason (`str`): A key of `DROPPED`.
        detail (`str`): What is wrong with it.
    """

    def __init__(self, reason: str, detail: str):
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@dataclass
class Page:
    """
    A row of the source.

    Args:
        file (`str`), number (`int`): The file of the row and its index in it.
        items (`list[Item]`): The images that it names, in order.
        row (`dict`): Its values.
    """

    file: str
    number: int
    items: list[Item]
    row: dict[str, Any]


@dataclass
class Layout:
    """
    A layout of rows with addresses.

    Args:
        features (`Features`): The types of the columns of the output, without those that the layout makes.
    """

    features: Features

    name: ClassVar[str]

    def read(self, row: dict[str, Any]) -> Page:
        """
        Find the images of a row.

        Raises:
            BadRowError: the row cannot be used, whatever its images are.
        """
        if row.get(ERROR) is not None:
            raise BadRowError("bad_row", str(row[ERROR]))
        try:
            items = self._find_items(row)
            check_utf8({name: row.get(name) for name in (*self.features, *_MADE)})
        except BadRowError:
            raise
        except (BadSampleError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise BadRowError("bad_row", f"{type(error).__name__}: {error}") from error
        if not items:
            raise BadRowError("no_image", "it names no image")
        return Page(row[FILE], row[ROW], items, row)

    def fill(self, page: Page, images: list[bytes | None]) -> dict[str, Any]:
        """
        Make a row of the output.

        Args:
            page ([`Page`]): What `read` returned.
            images (`list[bytes | None]`): The file of each of its `items`, `None` for a dead one. At least one is not.
        """
        raise NotImplementedError

    def images_of(self, row: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
        """Yield the address and the file of each image of a row of the output."""
        raise NotImplementedError

    def output_features(self) -> Features:
        """Return the types of all columns of the output."""
        raise NotImplementedError

    def _find_items(self, row: dict[str, Any]) -> list[Item]:
        raise NotImplementedError

    def _kept(self, row: dict[str, Any]) -> dict[str, Any]:
        return {name: fit_value(row.get(name), feature) for name, feature in self.features.items()}


@dataclass
class Pairs(Layout):
    """
    Rows with the address of an image, and anything else: LAION, CC3M, COCO, questions with answers.

    Args:
        url_column (`str`): The column of the address. The image goes into `image`.
        text_column (`str`, *optional*): The column of the caption, which a row must have.
        hash_column (`str`, *optional*): The column of the hash of the file.
    """

    url_column: str
    text_column: str | None = None
    hash_column: str | None = None

    name: ClassVar[str] = "pairs"

    def _find_items(self, row: dict[str, Any]) -> list[Item]:
        if self.text_column is not None and not _has_text(row.get(self.text_column)):
            raise BadRowError("no_text", f"no text in {self.text_column!r}")
        url = row.get(self.url_column)
        if url is None or url == "":
            return []
        if not isinstance(url, str):
            raise BadRowError("bad_row", f"{self.url_column!r} holds a {type(url).__name__} instead of an address")
        digest = row.get(self.hash_column) if self.hash_column else None
        if digest and (not isinstance(digest, str) or algorithm_of(digest) is None):
            raise BadRowError(
                "bad_row", f"{self.hash_column!r} is {digest!r:.80}, not a hash (`--hash_column none` ignores it)"
            )
        return [Item(url.strip(), digest or None)]

    def fill(self, page: Page, images: list[bytes | None]) -> dict[str, Any]:
        """Put the image into the row."""
        values = {self.output_name(name): value for name, value in self._kept(page.row).items()}
        return {**values, "image": {"bytes": images[0], "path": None}}

    def images_of(self, row: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
        """Yield the only image."""
        yield row[self.output_name(self.url_column)].strip(), row["image"]["bytes"]

    def output_features(self) -> Features:
        """Return the columns of the source, and `image`."""
        names = {self.output_name(name): feature for name, feature in self.features.items()}
        return Features({**names, "image": Image()})

    def output_name(self, name: str) -> str:
        """Return the name that a column of the source has in the output."""
        if name == self.text_column and name not in _KNOWN_TEXTS:
            return "text"
        if name == "image":  # where the image goes
            return "image_url" if name == self.url_column else "image_name"
        return name


@dataclass
class Pages(Layout):
    """Rows with the parallel lists `images`, of addresses, and `texts`: OBELICS. The addresses go into `image_urls`."""

    name: ClassVar[str] = "obelics"

    def _find_items(self, row: dict[str, Any]) -> list[Item]:
        images, texts = require_list(row, "images"), require_list(row, "texts")
        if len(images) != len(texts):
            raise BadRowError("bad_row", f"{len(images)} entries in 'images' and {len(texts)} in 'texts'")
        if any((image is None) == (text is None) for image, text in zip(images, texts, strict=True)):
            raise BadRowError("bad_row", "an index of 'images' and 'texts' does not have exactly one of the two")
        if not all(isinstance(image, str | None) for image in images):
            raise BadRowError("bad_row", "an entry of 'images' is not an address")
        if not all(isinstance(text, str | None) for text in texts):
            raise BadRowError("bad_row", "an entry of 'texts' is not a text")
        return [Item(image.strip()) for image in images if image is not None]

    def fill(self, page: Page, images: list[bytes | None]) -> dict[str, Any]:
        """Put the images into the list, and remove the index of a dead one from all lists that are parallel."""
        files, size = iter(images), len(page.row["texts"])
        data = [None if url is None else next(files) for url in page.row["images"]]
        left = [index for index in range(size) if page.row["texts"][index] is not None or data[index] is not None]
        values = self._kept(page.row)
        for name, value in values.items():
            values[name] = _choose(value, left, size)
        return {
            **values,
            "images": [None if data[index] is None else {"bytes": data[index], "path": None} for index in left],
            "texts": [page.row["texts"][index] for index in left],
            "image_urls": [page.row["images"][index] for index in left],
        }

    def images_of(self, row: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
        """Yield the images of the page."""
        for url, image in zip(row["image_urls"], row["images"], strict=True):
            if image is not None:
                yield url.strip(), image["bytes"]

    def output_features(self) -> Features:
        """Return the columns of OBELICS, with images."""
        texts = List(Value("string"))
        return Features({**self.features, "images": List(Image()), "texts": texts, "image_urls": texts})


@dataclass
class Sentences(Layout):
    """
    Rows with `text_list` and `image_info`, whose `raw_url` is the address: MMC4.

    Args:
        min_similarity (`float`): Images with a lower `matched_sim` are not fetched.
    """

    min_similarity: float

    name: ClassVar[str] = "mmc4"
    _INFO: ClassVar[dict[str, Any]] = {
        "image_name": Value("string"),
        "raw_url": Value("string"),
        "matched_text_index": Value("int32"),
        "matched_sim": Value("float64"),
    }

    def _find_items(self, row: dict[str, Any]) -> list[Item]:
        sentences, wanted = require_list(row, "text_list"), self._wanted(row)
        if not all(isinstance(sentence, str) for sentence in sentences):
            raise BadRowError("bad_row", "an entry of 'text_list' is not a text")
        for info in wanted:
            if info["matched_text_index"] not in range(len(sentences)) or not isinstance(
                info.get("image_name"), str | None
            ):
                raise BadRowError("bad_row", f"an image has no sentence or no proper name: {info!r:.200}")
        return [Item(info["raw_url"].strip()) for info in wanted]

    def _wanted(self, row: dict[str, Any]) -> list[dict[str, Any]]:
        infos = require_list(row, "image_info")
        if any(math.isnan(info["matched_sim"]) for info in infos):
            raise BadRowError("bad_row", "a 'matched_sim' is not a number")
        return [info for info in infos if info["matched_sim"] >= self.min_similarity]

    def fill(self, page: Page, images: list[bytes | None]) -> dict[str, Any]:
        """Put the images into their records, and remove the records of dead ones. All sentences stay."""
        infos = [
            {**{name: info.get(name) for name in self._INFO}, "image": {"bytes": data, "path": None}}
            for info, data in zip(self._wanted(page.row), images, strict=True)
            if data is not None
        ]
        return {**self._kept(page.row), "text_list": page.row["text_list"], "image_info": infos}

    def images_of(self, row: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
        """Yield the images of the page."""
        for info in row["image_info"]:
            yield info["raw_url"].strip(), info["image"]["bytes"]

    def output_features(self) -> Features:
        """Return the columns of MMC4, with images."""
        infos = List({**self._INFO, "image": Image()})
        return Features({**self.features, "text_list": List(Value("string")), "image_info": infos})


def find_features(rows: list[dict[str, Any]], known: Features | None, exclude: tuple[str, ...]) -> Features:
    """
    Return the types of the columns that the output keeps as they are.

    Args:
        rows (`list[dict]`): The first rows.
        known (`Features`, *optional*): The types, if the files say them. Otherwise a column holds texts, lists of texts, or JSON.
        exclude (`tuple[str, ...]`): Columns that the layout makes.
    """
    if known is not None:
        return Features({name: feature for name, feature in known.items() if name not in exclude})
    names = dict.fromkeys(name for row in rows for name in row if not name.startswith("__") and name not in exclude)
    features = {}
    for name in names:
        values = [row[name] for row in rows if row.get(name) is not None]
        are_lists = bool(values) and all(
            isinstance(value, list) and all(isinstance(v, str) for v in value) for value in values
        )
        features[name] = List(Value("string")) if are_lists else Value("string")
    return Features(features)


def fit_value(value: Any, feature: Any) -> Any:
    """Return a value for a column of texts or of lists of texts, as JSON if it is neither. Other columns have their own types."""
    if value is None or not isinstance(feature, Value | List):
        return value
    if feature == Value("string"):
        return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    if feature == List(Value("string")):
        values = value if isinstance(value, list) else [value]
        return [v if isinstance(v, str | None) else json.dumps(v, ensure_ascii=False) for v in values]
    return value


def check_utf8(value: Any) -> None:
    """
    Check that all texts in a value can be written. JSON can hold half of a character.

    Raises:
        UnicodeEncodeError: one cannot.
    """
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, dict):
        check_utf8([*value, *value.values()])
    elif isinstance(value, list):
        for entry in value:
            check_utf8(entry)


def _choose(value: Any, left: list[int], size: int) -> Any:
    """Return a value without the entries that are not left, if it is a list with one for each image and text, or the JSON of one."""
    if isinstance(value, list) and len(value) == size:
        return [value[index] for index in left]
    if isinstance(value, str) and value.startswith("["):
        try:
            entries = json.loads(value)
        except json.JSONDecodeError:
            return value
        if isinstance(entries, list) and len(entries) == size and len(left) < size:
            return json.dumps([entries[index] for index in left], ensure_ascii=False)
    return value


def _has_text(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(_has_text, value))
    if isinstance(value, dict):
        return any(_has_text(value.get(name)) for name in ("raw", "caption", "text"))
    return isinstance(value, str) and bool(value.strip())
