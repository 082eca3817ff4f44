# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Keep secrets out of files, logs and messages.

Output folders are published and logs are shared. They must not contain a token, a password or a key, regardless of where it came
from: a named field, a URL, or a value deep in the configuration of another library.
"""

import re
from typing import Any


REDACTED = "<redacted>"

# The names of fields that hold a secret. `image_token` and similar names are words of the vocabulary
_SECRET_NAME = re.compile(
    r"(?:^|[_.\-])(?:"
    r"(?:hub|hf|text|vision|access|auth|api|bearer|session|refresh|security|sas|push[_\-]to[_\-]hub|write|read|bot|personal)[_\-]?token"
    r"|api[_\-]?key|(?:access|account|private|storage|secret|signing|encryption)[_\-]?key(?:[_\-]?id)?"
    r"|(?:client[_\-]?)?secret(?:[_\-]?access[_\-]?key)?|passw(?:or)?d|passphrase|credentials?|authorization|cookie|webhook(?:[_\-]?url)?"
    r")$|^token$",
    re.IGNORECASE,
)
# Patterns of secrets in any text: the user part of a URL, a signature in its query, tokens of well-known services
_SECRET_TEXT = (
    (re.compile(r"(\b[a-z][a-z0-9+.\-]*://)[^/\s?#'\"@]+@", re.IGNORECASE), rf"\g<1>{REDACTED}@"),
    (
        re.compile(
            r"([?&][^=&\s'\"]*(?:token|key|sig|signature|password|secret|credential|auth)[^=&\s'\"]*=)[^&\s'\"#]+",
            re.IGNORECASE,
        ),
        rf"\g<1>{REDACTED}",
    ),
    (
        re.compile(r"\bhf_\w{8,}|\b(?:sk|pk|ghp|gho|github_pat|glpat|xox[abp])[-_][\w\-]{16,}|\bAKIA[0-9A-Z]{16}\b"),
        REDACTED,
    ),
    (re.compile(r"(\b(?:bearer|basic)\s+)[\w\-.=+/]{8,}", re.IGNORECASE), rf"\g<1>{REDACTED}"),
)
# `token=...` among the arguments of an optimizer, or in the message of a library
_ASSIGNMENT = re.compile(r"(?<![\w?&.\-])([A-Za-z][\w\-]*)=([^\s,;&'\"<>]+)")


def is_secret_name(name: Any) -> bool:
    """Tell whether a field of this name holds a secret: `hub_token` and `api_key` do, `image_token` does not."""
    return isinstance(name, str) and _SECRET_NAME.search(name.removeprefix("--")) is not None


def redact(text: str) -> str:
    """Replace everything in `text` that looks like a secret by `<redacted>`: `https://user:password@host`, `hf_...`, `token=...`."""
    for pattern, replacement in _SECRET_TEXT:
        text = pattern.sub(replacement, text)
    return _ASSIGNMENT.sub(lambda found: f"{found[1]}={REDACTED}" if is_secret_name(found[1]) else found[0], text)


def redact_values(value: Any) -> Any:
    """
    Return a copy of `value` without secrets, at any depth of its dictionaries, lists and tuples.

    Entries of a dictionary become `None` if their name says that they hold a secret ([`is_secret_name`]). Strings are
    [`redact`]ed. Other objects stay unchanged.
    """
    if isinstance(value, str):
        return redact(value) if type(value) is str else value  # an enumeration stays one
    if type(value) is dict:
        return {name: None if is_secret_name(name) else redact_values(item) for name, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(redact_values, value))
    return value


def one_line(text: str, limit: int | None = None) -> str:
    """Return `text` in one line without secrets, truncated to `limit` characters."""
    line = redact(" ".join(text.split()))
    return line if limit is None or len(line) <= limit else line[:limit].rstrip() + "..."


def explain(error: Exception, limit: int = 300) -> str:
    """Return the message of an error in one line of at most about `limit` characters, with its type and without secrets."""
    return f"{type(error).__name__}: {one_line(str(error), limit)}"
