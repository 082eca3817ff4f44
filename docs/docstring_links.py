# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Extension of griffe, which reads the code for the reference: links of docstrings as Hugging Face writes them, and summaries.

[`FlamingoModel`] and [`~FlamingoModel.generate`] become links to what the reference shows, the latter as `generate`. What it does not
show (inner classes, other libraries) is shown as code.
"""

import functools
import html
import re
from pathlib import Path

import griffe


REFERENCE = Path(__file__).parent / "reference"
# Not within code: `` [`X`] ``
LINK = re.compile(r"(?<!`)\[`(~?)([\w.]+)`\](?![\[(`])")
# Not after "et al."
SENTENCE_END = re.compile(r"(?<=\.)(?<!al\.) (?=[A-Z`\[<])")


@functools.cache
def documented() -> dict[str, str]:
    """Return the names that the pages of the reference show: full names by the last part."""
    pages = (path.read_text(encoding="utf-8") for path in sorted(REFERENCE.glob("*.md")))
    names = [name for page in pages for name in re.findall(r"^::: ([\w.]+)$", page, flags=re.M)]
    return {name.rpartition(".")[2]: name for name in names}


def identify(name: str) -> str | None:
    """Return the full name of `FlamingoModel.generate` or `data.Reader.load`; `None` if its class or function is not shown."""
    parts = name.split(".")
    for i, part in enumerate(parts):
        if part in documented():
            return ".".join([documented()[part], *parts[i + 1 :]])
    return None


def write_link(match: re.Match) -> str:
    """Return the HTML of a link that autorefs resolves. One without a target is only code: a method may be inherited."""
    is_short, name = match.groups()
    shown = f"<code>{html.escape(name.rpartition('.')[2] if is_short else name)}</code>"
    identifier = identify(name)
    return shown if identifier is None else f'<autoref optional identifier="{identifier}">{shown}</autoref>'


def put_first_sentence_on_a_line(text: str) -> str:
    """Break the first paragraph after its first sentence: lists of members show the first line."""
    first, separator, rest = text.partition("\n\n")
    if "\n" not in first or re.search(r"\n[ -]", first):  # a list or a section
        return text
    return SENTENCE_END.sub("\n", first.replace("\n", " "), count=1) + separator + rest


class DocstringLinks(griffe.Extension):
    """Rewrite each docstring when its object is read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        """Rewrite the links and the first paragraph of one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = LINK.sub(write_link, put_first_sentence_on_a_line(obj.docstring.value))
