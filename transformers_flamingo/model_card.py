# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Model cards, generated: every number in a card comes from the record of the run that it describes.

A card is one Jinja template in `templates/` filled with a record, the JSON that a run wrote. An unknown name in a
template is an error, so that a card never shows an empty fact.
"""

from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from jinja2 import Environment, PackageLoader, StrictUndefined


# The kinds of card, one template each.
KINDS = ("demo", "miniature-clip", "miniature-gpt2")

_environment = Environment(
    loader=PackageLoader("transformers_flamingo", "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # Markdown, of numbers and names that we wrote
)


def _format(value: Any, specification: str) -> str:
    str(value)  # an unknown name raises here, with its name
    return format(value, specification)


_environment.filters["thousands"] = lambda value: _format(value, ",")
_environment.filters["decimals"] = lambda value, digits: _format(value, f".{digits}f")


def render_model_card(kind: str, record: dict[str, Any]) -> str:
    """
    The text of a card.

    Args:
        kind (`str`): One of [`KINDS`].
        record (`dict`): What the run wrote about itself; `record` in the template.

    Raises:
        ValueError: `kind` is unknown.
        jinja2.UndefinedError: the record lacks something that the template shows.
    """
    if kind not in KINDS:
        raise ValueError(f"Unknown kind of model card {kind!r}: known kinds are {', '.join(KINDS)}.")
    return _environment.get_template(f"{kind}.md").render(record=record)


def write_model_card(kind: str, record: dict[str, Any], path: str | Path) -> None:
    """Render a card, check that the Hub could read its metadata, and write it to `path`."""
    text = render_model_card(kind, record)
    ModelCard(text)  # parses the metadata block
    Path(path).write_text(text, encoding="utf-8")
