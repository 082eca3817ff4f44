# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The reference has every public name, each with a docstring, and its page of the command line is that of the parsers."""

import ast
import importlib
import inspect
import re
import runpy
from pathlib import Path

import pytest


ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
SHOWN = [
    name
    for page in sorted(REFERENCE.glob("*.md"))
    for name in re.findall(r"^::: ([\w.]+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
]


def public_names() -> dict[str, str]:
    """Return what modules list in `__all__`, by the last part of the name, each with its module."""
    found = {}
    for package in (ROOT / "transformers_flamingo", ROOT / "miniature" / "transformers_flamingo_miniature"):
        for path in sorted(package.rglob("*.py")):
            module = ".".join(path.relative_to(package.parent).with_suffix("").parts).removesuffix(".__init__")
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
                    found |= dict.fromkeys(ast.literal_eval(node.value), module)
    return found


def load(name: str) -> object:
    """Return the object of a full name."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def test_the_reference_has_every_public_name():
    public = public_names()
    assert len(public) > 80
    shown = {name.rpartition(".")[2] for name in SHOWN}
    missing = [f"{module}.{name}" for name, module in public.items() if name not in shown]
    assert not missing, f"Add `::: NAME` to a page of docs/reference: {missing}"


@pytest.mark.parametrize("name", SHOWN)
def test_what_is_shown_has_a_docstring(name):
    found = load(name)
    if inspect.isclass(found) or inspect.isroutine(found):
        assert inspect.getdoc(found) and not found.__doc__.startswith(f"{found.__name__}("), "only a generated text"
        return
    # A constant: the string below it
    module, _, attribute = name.rpartition(".")
    assert constant_docstring(module, attribute), f"Write a docstring below the definition of {attribute}."


def constant_docstring(module: str, attribute: str) -> str | None:
    """Return the string below the definition of a constant, in its module or in the one that it is imported from."""
    tree = ast.parse(inspect.getsource(importlib.import_module(module)))
    for node in ast.walk(tree):  # also an import for type checkers alone
        if isinstance(node, ast.ImportFrom) and node.level == 1 and attribute in [name.name for name in node.names]:
            return constant_docstring(f"{module}.{node.module}", attribute)
    body = tree.body
    for i, node in enumerate(body):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if attribute in [getattr(target, "id", None) for target in targets]:
            following = body[i + 1] if i + 1 < len(body) else None
            is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
            return following.value.value if is_text and isinstance(following.value.value, str) else None
    return None


def test_no_page_shows_a_name_twice():
    twice = {name for name in SHOWN if SHOWN.count(name) > 1}
    assert not twice


def test_the_page_of_the_command_line_is_that_of_the_parsers():
    script = runpy.run_path(str(REFERENCE / "cli.py"))
    page = (REFERENCE / "cli.md").read_text(encoding="utf-8")
    assert page == script["make_page"](), "write it: python docs/reference/cli.py"
