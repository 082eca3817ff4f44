# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The tables of `docs/data-formats.md`, made from the classes of the formats. Run this file to write them."""

import inspect
import re
from dataclasses import fields
from pathlib import Path

from transformers_flamingo.data import FORMATS, Reader


PAGE = Path(__file__).parent.parent / "docs" / "data-formats.md"
#: The line of the page after which everything is made.
START = "## Columns and options of each format\n"


def describe_columns(kind: type[Reader]) -> str:
    """Make the table of the columns of a format."""
    rows = ["| column | | holds |", "|---|---|---|"]
    for column in kind.columns:
        names = " or ".join(f"`{name}`" for name in column.names)
        if column.members:
            names += f"; in a `.tar` or a folder {' or '.join(f'`.{suffix}`' for suffix in column.members)}"
        holds = column.holds.replace("|", "\\|")
        rows.append(f"| {names} | {'required' if column.is_required else 'optional'} | {holds} |")
    return "\n".join(rows)


def describe_options(kind: type[Reader]) -> str:
    """Make the list of the options of a format, with their defaults, from the dataclass and its docstring."""
    documented: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        text = inspect.cleandoc(base.__doc__ or "")
        _, _, arguments = text.partition("Args:\n")
        for match in re.finditer(
            r"^    (\w+) \(.*?\):\s*(.*?)(?=^    \w+ \(|\Z)", arguments, re.MULTILINE | re.DOTALL
        ):
            documented[match[1]] = re.sub(r"\[(`[\w.]+`)\]", r"\1", " ".join(match[2].split()))
    rows = ["| option | default | |", "|---|---|---|"]
    for field in fields(kind):
        rows.append(f"| `{field.name}` | `{field.default!r}` | {documented[field.name]} |")
    return "\n".join(rows)


def describe(name: str, kind: type[Reader]) -> str:
    """Make the section of a format: its docstring without the arguments, and its tables."""
    text = re.split(r"\n\s*(?:Args|Raises):", inspect.cleandoc(kind.__doc__))[0].strip()
    text = re.sub(r"\[(`[\w.]+`)\]", r"\1", text).removeprefix("Reader of ")
    return "\n\n".join([f"### `{name}`", text[0].upper() + text[1:], describe_columns(kind), describe_options(kind)])


def make_sections() -> str:
    """Make everything after [`START`]."""
    contents = ", ".join(f"[`{name}`](#{name})" for name in FORMATS)
    return "\n".join([START, contents + "\n", *(describe(name, kind) + "\n" for name, kind in FORMATS.items())])


if __name__ == "__main__":
    before, _, _ = PAGE.read_text(encoding="utf-8").partition(START)
    PAGE.write_text(before + make_sections(), encoding="utf-8")
