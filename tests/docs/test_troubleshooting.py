# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The messages that docs/troubleshooting.md quotes are those of the code."""

import ast
import re
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "troubleshooting.md"
ELLIPSIS = "…"
VALUE = "\0"  # what an f-string fills in


def quoted(page: str) -> list[str]:
    """Return the messages that a page has as headings. A heading in words is not a message."""
    return [text.strip() for text in re.findall(r"^### ``(.+)``$", page, re.MULTILINE)]


def messages(source: str) -> list[str]:
    """Return the texts of a file, except docstrings, with a mark for each value that is filled in."""

    def text(node: ast.expr) -> str:
        if isinstance(node, ast.JoinedStr):
            return "".join(text(part) for part in node.values)
        return str(node.value) if isinstance(node, ast.Constant) else VALUE

    nodes = list(ast.walk(ast.parse(source)))
    skipped = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    skipped |= {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    return [text(node) for node in nodes if isinstance(node, ast.JoinedStr | ast.Constant) and id(node) not in skipped]


def quotes(fragment: str, message: str) -> bool:
    """Tell whether a message contains a fragment, where an ellipsis stands for one value or more and what is between them."""
    first, *others = re.split(rf"\s*{ELLIPSIS}\s*", fragment)
    end = message.find(first)
    if end < 0:
        return False
    end += len(first)
    for part in others:
        value = message.find(VALUE, end)
        start = message.find(part, value)
        if value < 0 or start < 0:
            return False
        end = start + len(part)
    return True


@pytest.fixture(scope="module")
def all_messages():
    files = [
        path
        for package in ("transformers_flamingo", "transformers_flamingo_cli")
        for path in (ROOT / package).rglob("*.py")
    ]
    return [message for path in files for message in messages(path.read_text(encoding="utf-8"))]


def test_each_quoted_message_is_in_the_code(all_messages):
    fragments = quoted(PAGE.read_text(encoding="utf-8"))
    assert len(fragments) > 50
    assert all(len(fragment.replace(ELLIPSIS, "")) > 15 for fragment in fragments)  # enough to search for
    stale = [fragment for fragment in fragments if not any(quotes(fragment, message) for message in all_messages)]
    assert not stale


def test_no_message_is_quoted_twice():
    fragments = quoted(PAGE.read_text(encoding="utf-8"))
    assert len(set(fragments)) == len(fragments)


def test_a_message_that_was_changed_is_noticed():
    (message,) = messages('warn(f"{name!r} has {count} files, so it is slow.")')
    assert quotes("has … files, so it is slow", message)
    assert quotes("files, so it", message)
    assert not quotes("has … files, so it is slower", message)
    assert not quotes("has … so … slow", message)  # one value, two ellipses
    assert quoted("### ``has … `files` ``\n\n### In words\n\n### `code` in words\n") == ["has … `files`"]
