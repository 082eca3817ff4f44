# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Find out which layout a list of URLs has, and say what is missing if it has none."""

from typing import Any

from datasets import Features

from ..columns import ERROR
from ..errors import BadSampleError
from ..formats import FORMATS
from .layouts import HASH_COLUMNS, TEXT_COLUMNS, URL_COLUMNS, Layout, Page, Pages, Pairs, Sentences, find_features
from .url_lists import UrlList


#: Rows that are looked at, also for the types of the columns of files that do not say them.
NUM_ROWS = 1000


def choose_layout(
    source: UrlList,
    rows: list[dict[str, Any]],
    *,
    url_column: str | None = None,
    text_column: str | None = None,
    hash_column: str | None = None,
    min_similarity: float = 0.24,
) -> Layout:
    """
    Choose the layout of a list of URLs by its first rows.

    Args:
        source ([`UrlList`]): The list.
        rows (`list[dict]`): Its first rows.
        url_column, text_column, hash_column (`str`, *optional*):
            The columns of pairs, by default the first of `URL_COLUMNS`, `TEXT_COLUMNS` and `HASH_COLUMNS` that there are. The hash
            `"none"` is not looked at.
        min_similarity (`float`, *optional*, defaults to 0.24): Of MMC4.

    Raises:
        ValueError: it has none, or a column is missing. The message has the columns.
    """
    good = [row for row in rows if row.get(ERROR) is None]
    names = dict.fromkeys(name for row in good for name, value in row.items() if value is not None)
    names = [name for name in names if not name.startswith("__")]
    shown = ", ".join(map(repr, names)) or "no values"
    known = source.features
    where = f"{source.files[0]!r} has {shown}"
    if not good:
        error = f": {rows[0][ERROR]}" if rows else ""
        raise ValueError(f"{source.files[0]!r} has no row that can be read{error}.")
    if url_column is None and {"text_list", "image_info"} <= set(names):
        features = find_features(good, known, ("text_list", "image_info", "similarity_matrix"))
        return Sentences(features, min_similarity)
    if url_column is None and {"images", "texts"} <= set(names):
        if any(isinstance(image, dict) for row in good for image in row.get("images") or []):
            raise ValueError(f"{where}, and its images are embedded already. Train on it as it is.")
        return Pages(find_features(good, known, ("images", "texts", "image_urls")))
    return _choose_pairs(good, known, names, where, url_column, text_column, hash_column)


def _choose_pairs(
    rows: list[dict[str, Any]],
    known: Features | None,
    names: list[str],
    where: str,
    url_column: str | None,
    text_column: str | None,
    hash_column: str | None,
) -> Pairs:
    for option, name in (("url_column", url_column), ("text_column", text_column), ("hash_column", hash_column)):
        if name is not None and name != "none" and name not in names:
            raise ValueError(f"{where}, and no {name!r} (`--{option}`).")
    if url_column is None:
        found = [name for name in URL_COLUMNS if any(_is_address(row.get(name)) for row in rows)]
        others = [name for name in names if any(_is_address(row.get(name)) for row in rows)]
        if not found:
            hint = f" Perhaps `--url_column {others[0]}`." if others else ""
            raise ValueError(
                f"{where}, and none of the columns {', '.join(URL_COLUMNS)} has an address that begins with http:// or https://. Name it with "
                f"`--url_column`.{hint} Conversations with addresses are not fetched: put the images next to them, and their paths into them."
            )
        url_column = found[0]
    if text_column is None:
        text_column = next((name for name in TEXT_COLUMNS if name in names), None)
    elif text_column == "none":
        text_column = None
    if hash_column is None:
        hash_column = next((name for name in HASH_COLUMNS if name in names), None)
    features = find_features(rows, known, ())
    layout = Pairs(features, url_column, text_column, None if hash_column == "none" else hash_column)
    outputs = [layout.output_name(name) for name in features]
    twice = next((name for name in (*outputs, "image") if [*outputs, "image"].count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{where}. Two columns of the output would be {twice!r}. Rename one of the source.")
    _check_format(layout, rows, where)
    return layout


def _check_format(layout: Pairs, rows: list[dict[str, Any]], where: str) -> None:
    """Make sure that some row could be trained on: that there is a caption, or a question with its answer, or a label."""
    for row in rows:
        page = Page(row.get("__file__", ""), 0, [], row)
        values = layout.fill(page, [b"\0"])
        for kind in FORMATS.values():
            try:
                kind().read(values)
                return
            except BadSampleError:
                continue
    raise ValueError(
        f"{where}. There is an address in {layout.url_column!r}, but no text: none of {', '.join(TEXT_COLUMNS)}, and no question with an "
        "answer. Name the column of the caption with `--text_column`."
    )


def _is_address(value: Any) -> bool:
    return isinstance(value, str) and value.strip().lower().startswith(("http://", "https://"))
