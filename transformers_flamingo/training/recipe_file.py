# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Read the YAML of a recipe: small, plain, and refused in a line if it is anything else.

A recipe may come from someone else. Aliases that multiply, nesting, sizes and pipes cannot make the reader hang, and no message
holds more of a value than a line.
"""

import difflib
import os
import re
import reprlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml

from ..utils import plugins
from ..utils.redaction import explain, one_line, redact, redact_values


#: The recipes that are shipped.
RECIPES = Path(__file__).parent / "recipes"

# Far above what any recipe has
_MAX_BYTES = 2**18
_MAX_VALUES = 10_000
_MAX_DEPTH = 20
_MAX_BASES = 20

_short = reprlib.Repr()
_short.maxlevel, _short.maxstring, _short.maxother, _short.maxlong = 3, 120, 120, 40


def show(value: Any) -> str:
    """Return the `repr` of a value in a line of bounded length, without secrets."""
    return redact(_short.repr(redact_values(value)))


def suggest(name: str, known: Iterable[str]) -> str:
    """Return a sentence with the known names nearest to an unknown one, or with all of them."""
    known = sorted(set(known))
    close = difflib.get_close_matches(name[:100], known, n=3)
    return f" Did you mean {' or '.join(map(repr, close))}?" if close else f" There are {', '.join(known)}."


class _Loader(yaml.SafeLoader):
    """YAML 1.2 in two points: `1e-4` is a number, and a name that is there twice is an error."""


def _without_duplicates(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[str, Any]:
    seen = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{show(key.value)} is there twice", key.start_mark
                )
            seen.add(key.value)
    return loader.construct_mapping(node, deep=True)


def _whole_number(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    """YAML 1.1 reads 1:30 as 90 and 0100 as 64. Whoever wrote them meant neither."""
    if re.fullmatch(r"[-+]?(0|[1-9][\d_]*|0x[\da-fA-F_]+|0b[01_]+)", node.value) is None:
        raise yaml.constructor.ConstructorError(
            None,
            None,
            f"{show(node.value)} is read as another number: write it in decimal, or in quotes",
            node.start_mark,
        )
    return loader.construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _whole_number)
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _without_duplicates)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parse_yaml(text: str, name: str) -> Any:
    """
    Parse a text of YAML into plain values: dictionaries with texts as keys, lists, texts, numbers, true, false and null.

    Args:
        text (`str`): The text.
        name (`str`): What it is, for messages.

    Raises:
        ValueError: it is not YAML, or not that of a recipe.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            # Before anything is made of the aliases: a few lines of them can stand for billions of values
            _count(node, name)
            value = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError:
        raise ValueError(
            f"{name} is nested too deeply: a recipe has at most {_MAX_DEPTH} levels. Flatten it."
        ) from None
    except yaml.YAMLError as error:
        raise ValueError(f"{name} is not valid YAML: {one_line(str(error))}. Fix the file.") from error
    except RecipeError:
        raise
    except Exception as error:  # dates and numbers out of range have other errors
        raise ValueError(f"{name} is not valid YAML: {explain(error)}") from error
    check_values(value, name)
    return value


class RecipeError(ValueError):
    """Say that a recipe is too large or not plain."""


def _count(node: yaml.Node | None, name: str) -> None:
    sizes: dict[int, int] = {}

    def size(node: yaml.Node, depth: int) -> int:
        if id(node) not in sizes:
            if depth > _MAX_DEPTH:  # or an alias to what it is in
                raise RecipeError(
                    f"{name} is nested too deeply, or an alias in it refers to what it is part of: a recipe has at most "
                    f"{_MAX_DEPTH} levels."
                )
            children = node.value if isinstance(node, yaml.CollectionNode) else []
            if isinstance(node, yaml.MappingNode):
                children = [child for pair in children for child in pair]
            sizes[id(node)] = 1 + sum(size(child, depth + 1) for child in children)
        return sizes[id(node)]

    if node is not None and size(node, 0) > _MAX_VALUES:
        raise RecipeError(
            f"{name} has {sizes[id(node)]:,} values with its aliases written out, and a recipe has at most "
            f"{_MAX_VALUES:,}. Remove the aliases (`*name`)."
        )


def check_values(value: Any, name: str, depth: int = 0) -> None:
    """
    Refuse what a recipe cannot hold.

    Raises:
        ValueError: the values are not plain, or are nested too deeply. The message begins with `name`.
    """
    if depth > _MAX_DEPTH:
        raise RecipeError(f"{name} is nested too deeply: a recipe has at most {_MAX_DEPTH} levels. Flatten it.")
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str):
                raise RecipeError(
                    f"{name} has the name {show(key)}, which is not a text. YAML reads an unquoted yes, no, on, off, null, "
                    "number or date as such: put it in quotes."
                )
            check_values(key, name, depth + 1)
            check_values(item, name, depth + 1)
    elif isinstance(value, list | tuple):
        for item in value:
            check_values(item, name, depth + 1)
    elif isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise RecipeError(
                f"{name} has the text {show(value)}, with half of a character, which UTF-8 cannot express. Remove it."
            ) from None
        if "\0" in value:
            raise RecipeError(f"{name} has the text {show(value)}, with a NUL character in it. Remove it.")
    elif isinstance(value, int) and abs(value) > 2**63:
        raise RecipeError(f"{name} has a number of {value.bit_length()} bits. Give one of at most 63.")
    elif value is not None and not isinstance(value, bool | int | float):
        raise RecipeError(
            f"{name} has {show(value)}, of type {type(value).__name__}. A recipe holds texts, numbers, true, false, lists and "
            "mappings: put it in quotes if it is a text."
        )


def read_recipe_file(path: Path, above: Sequence[Path] = ()) -> dict[str, Any]:
    """
    Read a recipe, over those that it names as its `base`.

    Args:
        path (`Path`): A file, or the name of one of [`RECIPES`].
        above (`list[Path]`, *optional*): The recipes that begin with it.

    Raises:
        FileNotFoundError: there is no such recipe.
        ValueError: it is not a recipe.
    """
    name = show(str(path))
    if not os.path.isfile(path) and os.path.isfile(RECIPES / f"{path}.yaml"):
        path = RECIPES / f"{path}.yaml"
    elif not os.path.isfile(path) and str(path) in plugins.find_plugins(plugins.RECIPES):
        path = Path(plugins.plugin_path(plugins.RECIPES, str(path)))
    if not os.path.isfile(path):
        shipped = sorted(p.relative_to(RECIPES).with_suffix("").as_posix() for p in RECIPES.rglob("*.yaml"))
        shipped += plugins.find_plugins(plugins.RECIPES)
        kind = "is a folder or another thing that is not a file" if os.path.exists(path) else "is not there"
        raise FileNotFoundError(
            f"There is no recipe {name}: it {kind}.{plugins.install_hint(plugins.RECIPES, str(path))} Give a YAML file, or one that is shipped: {', '.join(shipped)}."
        )
    with open(path, "rb") as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"{name} has more than {_MAX_BYTES:,} bytes, so it is not a recipe. Give its YAML file.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name} is not a text in UTF-8 ({error.reason} at byte {error.start}): save it as one."
        ) from error
    values = parse_yaml(text, name)
    if not isinstance(values, dict):
        raise ValueError(f"{name} holds {type(values).__name__}, where names with values should be. Fix the file.")
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str) or not base:
        raise ValueError(
            f"{name}: `base` is {show(base)}. Give the file or the name of the recipe to begin with, in quotes if YAML reads it "
            "as something else (yes, no, on, off, a number)."
        )
    above = (*above, path.resolve())
    beside = path.parent / base
    base_path = beside if os.path.isfile(beside) else Path(base)
    if base_path.resolve() in above:
        raise ValueError(
            f"{name} begins with {show(base)}, which begins with it, and so on without end. Change `base` in one."
        )
    if len(above) > _MAX_BASES:
        raise ValueError(
            f"{name} is the last of more than {_MAX_BASES} recipes, each the `base` of another. Join some."
        )
    return merge(read_recipe_file(base_path, above), values)


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return `base` with `changes`, mapping by mapping; `None` takes out."""
    merged = dict(base)
    for name, value in changes.items():
        if isinstance(value, dict):
            merged[name] = merge(merged[name] if isinstance(merged.get(name), dict) else {}, value)
        elif value is None:
            merged.pop(name, None)
        else:
            merged[name] = value
    return merged
