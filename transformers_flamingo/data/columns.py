# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The columns of a row: its file and place, which all errors name, and the values of its record."""

import json
from typing import Any

from .errors import BadSampleError


#: Columns that [`rows`] adds: the file of a row, its index in the file, its JSON as a string, and its error.
FILE, ROW, JSON, ERROR = "__file__", "__row__", "__json__", "__error__"
#: Key and file of a sample of a `.tar`, by the names of WebDataset.
TAR_KEY, TAR_FILE = "__key__", "__url__"
#: The columns that [`row_location`] reads.
ORIGIN = (FILE, ROW, TAR_FILE, TAR_KEY)

# Where a record in a list of captions has its text
_TEXT_KEYS = ("raw", "caption", "text")


def row_location(row: dict[str, Any]) -> str:
    """Return the file and the index of a row, with which error messages begin."""
    if row.get(FILE) is not None:
        # A file that is a row itself, as an image is, has no number
        return f"{row[FILE]}, row {row[ROW]}" if row.get(ROW) is not None else row[FILE]
    if row.get(TAR_FILE) is not None:
        return f"{row[TAR_FILE]}, sample {row.get(TAR_KEY)!r}"
    return "A row of unknown origin"


def rows_of(batch: dict[str, list]) -> list[dict[str, Any]]:
    """Split a batch, as a batched `Dataset.map` passes it, into rows."""
    return [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]


def parse_record(row: dict[str, Any]) -> dict[str, Any]:
    """
    Parse the JSON of a row of a JSON file, or of the member `json` of a `.tar`. Other rows are returned as they are.

    Raises:
        BadSampleError: the row has an error, or its JSON is damaged or not an object.
    """
    if row.get(ERROR) is not None:
        raise BadSampleError(f"{row_location(row)}: {row[ERROR]}. Fix the row, or remove it.")
    parsed = row.get(JSON)
    if parsed is None and TAR_KEY in row:
        parsed = row.get("json")
    if parsed is None:
        return row
    if isinstance(parsed, str):
        try:
            parsed = json.loads(parsed)
        except (json.JSONDecodeError, RecursionError) as error:
            raise BadSampleError(
                f"{row_location(row)}: it is not JSON ({error}): the file may be cut short. Fix the row, or fetch the file again."
            ) from error
    if not isinstance(parsed, dict):
        raise BadSampleError(
            f"{row_location(row)}: its JSON is a {type(parsed).__name__} instead of an object. Fix the row, or remove it."
        )
    # A record cannot claim another origin than its file
    values = {key: value for key, value in parsed.items() if key not in ORIGIN}
    return {**values, **{key: row[key] for key in ORIGIN if key in row}}


def require_column(row: dict[str, Any], *names: str) -> Any:
    """
    Return the first of the columns `names` that has a value.

    Raises:
        BadSampleError: none has.
    """
    for name in names:
        if row.get(name) is not None:
            return row[name]
    present = sorted(name for name in row if not name.startswith("__") and row[name] is not None)
    raise BadSampleError(
        f"{row_location(row)}: no value in {' or '.join(map(repr, names))}. The columns with a value are {present}. "
        "Rename the column, or remove the row."
    )


def require_text(row: dict[str, Any], *names: str) -> str:
    """
    Return the text in the first of the columns `names` that has a value, without the whitespace around it.

    Raises:
        BadSampleError: there is no value, or it is not a text or is empty.
    """
    text = require_column(row, *names)
    if not isinstance(text, str) or not text.strip():
        raise BadSampleError(
            f"{row_location(row)}: the text in {' or '.join(map(repr, names))} is {text!r}. Remove the row."
        )
    return text.strip()


def require_list(row: dict[str, Any], *names: str) -> list[Any]:
    """
    Return the list in the first of the columns `names` that has a value.

    Raises:
        BadSampleError: there is no value, or it is not a list.
    """
    values = require_column(row, *names)
    if not isinstance(values, list | tuple):
        raise BadSampleError(
            f"{row_location(row)}: {' or '.join(map(repr, names))} holds a {type(values).__name__} instead of a list. Fix "
            "the row, or remove it."
        )
    return values


def require_texts(row: dict[str, Any], *names: str) -> list[str]:
    """
    Return the texts in the first of the columns `names` that has a value: one text, or a list of texts or of records with one.

    Empty texts of a list do not count.

    Raises:
        BadSampleError: there is no value, or none of it is a text.
    """
    values = require_column(row, *names)
    if isinstance(values, dict):  # how `datasets` may store a list of dicts
        values = next((values[key] for key in _TEXT_KEYS if key in values), values)
    if not isinstance(values, list | tuple):
        return [require_text(row, *names)]
    texts = [
        next((value[key] for key in _TEXT_KEYS if key in value), None) if isinstance(value, dict) else value
        for value in values
    ]
    wrong = [value for value, text in zip(values, texts, strict=True) if not isinstance(text, str)]
    texts = [text.strip() for text in texts if isinstance(text, str) and text.strip()]
    if wrong or not texts:
        found = f"one of the texts is {wrong[0]!r}" if wrong else "there is no text"
        raise BadSampleError(
            f"{row_location(row)}: {found} in {' or '.join(map(repr, names))}. Fix the row, or remove it."
        )
    return texts
