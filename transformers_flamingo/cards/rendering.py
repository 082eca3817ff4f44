# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Render model cards from templates: every number in a card comes from the record of the run that it describes.

A card is one Jinja template filled with a record, the JSON that a run wrote. An unknown name in a template is an error, so that a
card never shows an empty fact.
"""

import os
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from jinja2 import Environment, StrictUndefined

from ..saving_flamingo import write_text


TEMPLATES = Path(__file__).parent / "templates"


def render_card(template: str | os.PathLike, **facts: Any) -> str:
    """
    Return the text of a card.

    A template has Jinja's own filters and three more: `cell` (a value inside a Markdown table), `thousands` (`12,345`) and
    `decimals(digits)`.

    Args:
        template (`str` or `os.PathLike`): A Markdown file with Jinja's syntax.
        facts: The names that the template uses, such as `record=`.

    Raises:
        FileNotFoundError: there is no such template.
        jinja2.UndefinedError: the template uses a name that is missing from the facts.
    """
    template = Path(template)
    if not template.is_file():
        known = ", ".join(sorted(path.name for path in template.parent.glob("*.md")))
        raise FileNotFoundError(f"There is no card template {str(template)!r}. Its folder has: {known or 'none'}.")
    return _environment.from_string(template.read_text(encoding="utf-8")).render(facts)


def write_card(template: str | os.PathLike, record: dict[str, Any], path: str | os.PathLike) -> None:
    """
    Render a record (`record` in the template), check that the Hub can read the metadata block, and write the card.

    Args:
        template (`str` or `os.PathLike`): A Markdown file with Jinja's syntax, as for [`render_card`].
        record (`dict`): What the run wrote about itself.
        path (`str` or `os.PathLike`): The file to write, such as `README.md` next to the weights.

    Raises:
        jinja2.UndefinedError: the record lacks something that the template shows.
        ValueError: the metadata block is not valid.
    """
    text = render_card(template, record=record)
    ModelCard(text)  # parses the metadata block
    write_text(path, text)


def _cell(value: Any) -> str:
    """Return a value as a table cell: on one line, with the signs escaped that end a cell or begin a tag."""
    text = " ".join(str(value).split())
    for sign in "\\|<>*_`[]":
        text = text.replace(sign, f"\\{sign}")
    return text


def _format(value: Any, specification: str) -> str:
    str(value)  # an undefined name raises here, with its name; `format` would not say which
    return format(value, specification)


_environment = Environment(
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # Markdown, of numbers and names that we wrote
)
_environment.filters["cell"] = _cell
_environment.filters["thousands"] = lambda value: _format(value, ",")
_environment.filters["decimals"] = lambda value, digits: _format(value, f".{digits}f")
