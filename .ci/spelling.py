# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Check the spelling of pages and docstrings, American, with the dictionary of aspell (`apt install aspell aspell-en`).

    python .ci/spelling.py      # lists unknown words, each with the first file that has it

Text in backticks and in blocks of code is not checked. A word that is right and unknown goes to `docs/words.txt`.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path


ROOT = Path(__file__).resolve().parents[1]
WORDS = ROOT / "docs" / "words.txt"
# Made of texts of transformers, and weights and texts of others
GENERATED = ("docs/recipe-fields.md", "tests/golden/")
# What is not prose: comments, front matter, code, targets of links, addresses, directives, HTML, templates, names with digits,
# points, underscores or capitals within, abbreviations
NOT_PROSE = [
    r"(?s)<!--.*?-->",
    r"(?s)\A---\n.*?\n---\n",
    r"(?sm)^ *```.*?^ *```",
    r"(?m)^ {4,}(?![-*\d ]).*$",
    r"``.+?``",
    r"(?s)`[^`]*`",
    r"\]\([^)\s]*\)",
    r"(?m)^:::.*\n( +.*\n)*",
    r"https?://\S+",
    r"<[^<>\n]*>",
    r"\{[%{#].*?[}%#]\}",
    r"\\n",
    r"[^\s(\[|]*[\d_/@]\S*",
    r"\b\w+\.\w\S*",
    r"\b\w*(?:[a-z][A-Z]|[A-Z]{2}\w*[a-z])\w*",  # AdamW, ViT, OSError
    r"\b[A-Z]{2,}s?\b",  # GPUs
]


def tracked(*suffixes: str) -> list[str]:
    """Return the files of the repository with one of these suffixes."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [name for name in listed.splitlines() if name.endswith(suffixes) and not name.startswith(GENERATED)]


def docstrings(path: Path) -> Iterator[str]:
    """Yield the docstrings of a file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            yield ast.get_docstring(node) or ""


def prose(text: str) -> str:
    """Return a text without code, links and names."""
    for pattern in NOT_PROSE:
        text = re.sub(pattern, " ", text)
    return text


def texts() -> Iterator[tuple[str, str]]:
    """Yield the names of files and their prose."""
    for name in tracked(".md"):
        yield name, prose((ROOT / name).read_text(encoding="utf-8"))
    for name in tracked(".py"):
        # Indented text of a docstring is prose
        yield name, "\n".join(prose(re.sub(r"(?m)^ +", " ", text)) for text in docstrings(ROOT / name))


def find_unknown(words: set[str]) -> set[str]:
    """Return the words that are neither in the dictionary of aspell nor in `docs/words.txt`."""
    command = ["aspell", "--lang=en_US", "--ignore=1", "list"]
    listed = subprocess.run(command, input="\n".join(sorted(words)), capture_output=True, text=True, check=True).stdout
    known = {line for line in WORDS.read_text(encoding="utf-8").splitlines() if not line.startswith("#")}
    return {word for word in listed.split() if word not in known and word.lower() not in known}


def main() -> int:
    """Print the unknown words, and return 1 if there are any."""
    places: dict[str, str] = {}
    for name, text in texts():
        for word in re.findall(r"[A-Za-z]+(?:'[a-z]+)?", text):
            places.setdefault(word.removesuffix("'s"), name)
    unknown = find_unknown(set(places))
    for word in sorted(unknown):
        print(f"{places.get(word, '')}: {word}")
    if unknown:
        print(f"{len(unknown)} unknown words: fix them, or add those that are right to {WORDS.relative_to(ROOT)}")
    return int(bool(unknown))


if __name__ == "__main__":
    sys.exit(main())
