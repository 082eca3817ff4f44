# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""What is known of a task, in words: its files, its fields, and how it compares. For `--help` and the tables of `docs/evaluation.md`."""

import inspect
import re
import textwrap
from dataclasses import MISSING, fields

from .task import Task


def describe_task(kind: type[Task]) -> str:
    """Describe a task for a terminal: its docstring with the layout of its files, its fields, and how it compares."""
    parts = [f"task {kind.name}:", textwrap.indent(task_text(kind), "  ")]
    documented = task_fields(kind)
    if documented:
        parts.append("  fields (--data for `data`, --option FIELD=VALUE for others):")
        parts += [
            textwrap.indent(textwrap.fill(f"{name} ({default}): {text}", 110), "    ")
            for name, default, text in documented
        ]
    if kind.comparison is not None:
        parts.append(f"  compared with {kind.comparison.source}: {kind.comparison.verdict}")
        parts.append(textwrap.indent(textwrap.fill(f"equal: {kind.comparison.equal}", 110), "    "))
        parts += [textwrap.indent(textwrap.fill(f"not: {text}", 110), "    ") for text in describe_comparison(kind)]
    return "\n".join(parts)


def describe_comparison(kind: type[Task]) -> list[str]:
    """List what is not as in the papers, and the settings that make a part of it equal."""
    settings = [f"`--{name} {str(value).lower()}`" for name, value in kind.comparison.settings.items()]
    return [
        *kind.comparison.differences,
        *([f"the default settings; with {' and '.join(settings)} they are equal"] if settings else []),
    ]


def task_title(kind: type[Task]) -> str:
    """Return the first sentence of the description of a task."""
    return " ".join(re.split(r"(?<! al)\.(?:\s|$)", task_text(kind), maxsplit=1)[0].split())


def task_text(kind: type[Task]) -> str:
    """Return the docstring of a task without its sections, in which the layout of its files is indented."""
    text = re.split(r"\n\s*(?:Args|Raises|Attributes):", inspect.cleandoc(kind.__doc__))[0].strip()
    return re.sub(r"\[(`[\w.~]+`)\]", r"\1", text)


def task_fields(kind: type[Task]) -> list[tuple[str, str, str]]:
    """Return name, default and description of each field of a task, from the docstrings of the class and its bases."""
    documented: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        _, _, section = inspect.cleandoc(base.__doc__ or "").partition("Args:\n")
        section = re.split(r"\n\S", section)[0]
        for match in re.finditer(
            r"^    ([\w, ]+) \(.*?\):\s*(.*?)(?=^    [\w, ]+ \(|\Z)", section, re.MULTILINE | re.DOTALL
        ):
            text = re.sub(r"\[(`[\w.~]+`)\]", r"\1", " ".join(match[2].split()))
            documented |= dict.fromkeys(match[1].split(", "), text)
    return [
        (
            field.name,
            "required" if field.default is MISSING else f"default: {field.default!r}",
            documented.get(field.name, ""),
        )
        for field in fields(kind)
    ]
