# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The columns of a row: the values of its record, and file and place that it came from, which all errors name."""

import json
from typing import Any

from .errors import BadSampleError


#: Columns that [`rows`] adds: file and place of a row, its JSON as a string, and what is wrong with it.
FILE, ROW, JSON, ERROR = "__file__", "__row__", "__json__", "__error__"
#: The same of a sample of a `.tar`, by the names of WebDataset.
TAR_KEY, TAR_FILE = "__key__", "__url__"
#: The columns that [`row_location`] reads.
ORIGIN = (FILE, ROW, TAR_FILE, TAR_KEY)


def row_location(row: dict[str, Any]) -> str:
    """Return file and row that a row came from, as error messages begin with them."""
    if row.get(FILE) is not None:
        return f"{row[FILE]}, row {row.get(ROW)}"
    if row.get(TAR_FILE) is not None:
        return f"{row[TAR_FILE]}, sample {row.get(TAR_KEY)!r}"
    return "A row of unknown origin"


def rows_of(batch: dict[str, list]) -> list[dict[str, Any]]:
    """Return the rows of a batch, as a batched `Dataset.map` gives it."""
    return [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]


def parse_record(row: dict[str, Any]) -> dict[str, Any]:
    """Return the row with its JSON parsed, if it is of a JSON file or has the member `json` of a `.tar`."""
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
        raise BadSampleError(f"{row_location(row)}: a {type(parsed).__name__}, where a JSON object should be.")
    # A record may name another origin than this file
    own = {key: value for key, value in parsed.items() if key not in ORIGIN}
    return {**own, **{key: row[key] for key in ORIGIN if key in row}}


def require_column(row: dict[str, Any], *names: str) -> Any:
    """Return the first of the columns `names` that has a value."""
    for name in names:
        if row.get(name) is not None:
            return row[name]
    there = sorted(name for name in row if not name.startswith("__") and row[name] is not None)
    raise BadSampleError(
        f"{row_location(row)}: no value in {' or '.join(map(repr, names))}. The columns with a value are {there}. Rename "
        "the column, or leave the row out."
    )


def require_text(row: dict[str, Any], *names: str) -> str:
    """Return the text in the first of the columns `names` that has a value, without the space around it."""
    text = require_column(row, *names)
    if not isinstance(text, str) or not text.strip():
        raise BadSampleError(
            f"{row_location(row)}: the text in {' or '.join(map(repr, names))} is {text!r}. Leave the row out."
        )
    return text.strip()


def require_list(row: dict[str, Any], *names: str) -> list[Any]:
    """Return the list in the first of the columns `names` that has a value."""
    values = require_column(row, *names)
    if not isinstance(values, list | tuple):
        raise BadSampleError(
            f"{row_location(row)}: {' or '.join(map(repr, names))} holds a {type(values).__name__}, where a list should be. Fix "
            "the row, or remove it."
        )
    return values
