# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Check and decode the texts of data files, which should be UTF-8."""

#: What a text that is not UTF-8 may be, and what to do.
OTHER_ENCODING = (
    "it may be Latin-1 or Windows-1252: save the file as UTF-8, such as with `iconv -f WINDOWS-1252 -t UTF-8`"
)


def decode_utf8(data: bytes, what: str) -> tuple[str | None, str | None]:
    """Return the text and `None`, or `None` and the error, which calls the text `what`."""
    try:
        return data.decode("utf-8"), None
    except UnicodeDecodeError as error:
        return None, f"{what} is not UTF-8 ({error})"


def is_utf8(text: str) -> bool:
    """Tell whether a text that was decoded with `surrogateescape` has no byte that is not UTF-8."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)


def printable(text: str) -> str:
    """Replace the surrogates of a text that was decoded with `surrogateescape` by escapes such as `\\xff`."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
