# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Demonstrations in the forms that a caller gives: pairs, rows of a dataset, or a folder or file."""

import os
from collections.abc import Mapping
from typing import Any

from .inputs import image_of_row, is_single, iterate_items


def find_demonstrations(demonstrations: Any, task: str | None) -> tuple[list[Any], str]:
    """
    Return demonstrations as pairs or triples, and their task.

    Args:
        demonstrations: Pairs or triples; rows, as dicts or of a dataset; or the path of a folder, file or pattern of any layout.
        task (`str`, *optional*): The task. By default `"caption"` or, of files, that of their layout.

    Raises:
        FileNotFoundError, ValueError: they have another form, or the files cannot be read.
    """
    if isinstance(demonstrations, str | os.PathLike):
        from .sources import read_demonstrations  # needs `datasets`, which predictions do not

        read = read_demonstrations(os.fspath(demonstrations), task)
        return read.shots, read.task
    task = task or "caption"
    form = "(image, question, answer)" if task == "answer" else "(image, text)"
    if demonstrations is None or is_single(demonstrations):
        given = "None" if demonstrations is None else f"a {type(demonstrations).__name__}"
        raise ValueError(
            f"`demonstrations` is {given}, but it must be a list of {form}, a dataset, or the path of a folder or file. For no demonstrations "
            "omit it."
        )
    rows = iterate_items(_without_decoding(demonstrations), "demonstrations")
    return [_as_shot(row, task, number) if isinstance(row, Mapping) else row for number, row in enumerate(rows)], task


def _without_decoding(demonstrations: Any) -> Any:
    """Return a dataset whose images are bytes or paths, so that a large pool is not in memory as pixels."""
    features = getattr(demonstrations, "features", None)
    feature = features.get("image") if isinstance(features, Mapping) else None
    if type(feature).__name__ == "Image" and hasattr(demonstrations, "cast_column"):
        return demonstrations.cast_column("image", type(feature)(decode=False))
    return demonstrations


def _as_shot(row: Mapping[str, Any], task: str, number: int) -> tuple:
    """Return the pair or triple of a row."""
    name = f"demonstration {number}"
    needed = ("question", "answer") if task == "answer" else ("text",)
    missing = [column for column in needed if column not in row]
    if missing:
        raise ValueError(
            f"{name} has {', '.join(map(repr, row)) or 'no values'}, and no {missing[0]!r}. With `task={task!r}` a row has 'image' and "
            f"{' and '.join(map(repr, needed))}. Rename its columns, or give another `task`."
        )
    if task != "answer" and row.get("question"):
        raise ValueError(
            f"{name} has a question, which the task {task!r} would not show. Use `task='answer'`, or rows without questions."
        )
    return (image_of_row(row, name), *(row[column] for column in needed))
