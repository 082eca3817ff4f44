# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Names and numbers in messages."""

from collections.abc import Iterable


def summarize_names(names: Iterable[str], limit: int = 4) -> str:
    """
    Return the first names of a list for a message, each cut to 200 characters, and the number of the others.

    Args:
        names (`Iterable[str]`): The names.
        limit (`int`, *optional*, defaults to 4): Maximum number of names in the message.

    Returns:
        `str`: Such as `"a, b, and 3 more"`, or `"none"`.
    """
    names = [name if len(name) <= 200 else name[:200] + "..." for name in names]
    more = f", and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more if names else "none"


def count_of(number: int, noun: str, plural: str | None = None) -> str:
    """
    Write a number with its noun.

    Args:
        number (`int`): The number.
        noun (`str`): The noun.
        plural (`str`, *optional*): Its plural, if that is not the noun with an `s`.

    Returns:
        `str`: Such as `"1 row"` or `"1,000 rows"`.
    """
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"
