# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Decode texts of data files that should be UTF-8."""


def decode_utf8(data: bytes, what: str) -> tuple[str | None, str | None]:
    """Return the text, and what is wrong with it."""
    try:
        return data.decode("utf-8"), None
    except UnicodeDecodeError as error:
        return None, f"{what} is not UTF-8 ({error})"


def is_utf8(text: str) -> bool:
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def printable(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
