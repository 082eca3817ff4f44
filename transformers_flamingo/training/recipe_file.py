# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Read the YAML of a recipe: a small file of plain values. Anything else is refused with a message of one line.

A recipe may come from someone else. Aliases that multiply, nesting, sizes and pipes cannot make the reader hang, no message
contains more than a line of a value, and no expression can read the environment.
"""

import difflib
import os
import re
import reprlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from ..utils import plugins
from ..utils.redaction import explain, one_line, redact, redact_values


#: The folder of the recipes that are shipped.
RECIPES = Path(__file__).parent / "recipes"

#: `${NAME}` or `${NAME.FIELD}` in a text, without a backslash before it. `OmegaConf` knows other expressions, with which a recipe
#: could read secrets from the environment or copy itself without end. They are refused.
REFERENCE = re.compile(r"(?<!\\)\$\{([A-Za-z_][\w-]*(?:\.[\w-]+)*)\}", re.ASCII)

# Far above what any recipe has
MAX_BYTES = 2**18
_MAX_VALUES = 10_000
_MAX_DEPTH = 20
_MAX_BASES = 20

_short = reprlib.Repr()
_short.maxlevel, _short.maxstring, _short.maxother, _short.maxlong = 3, 120, 120, 40


def show(value: Any) -> str:
    """Return the `repr` of a value in a line of bounded length, without secrets."""
    return redact(_short.repr(redact_values(value)))


def suggest(name: str, known: Iterable[str]) -> str:
    """Return a sentence with the known names nearest to an unknown one, or with all of them if they are not too many."""
    known = sorted(set(known))
    close = difflib.get_close_matches(name[:100], known, n=3)
    if close:
        return f" Did you mean {' or '.join(map(repr, close))}?"
    # The fields of `TrainingArguments` would hide all other errors
    return f" Available: {', '.join(known)}." if len(known) < 60 else " The help of the command lists all names."


def raise_together(errors: Sequence[Exception]) -> None:
    """
    Raise an error, or several as one that has all their messages. Nothing happens if there is none.

    Args:
        errors (`list[Exception]`): The errors. A single one is raised as it is.
    """
    parts = {str(part): part for error in errors for part in getattr(error, "parts", [error])}  # none twice
    if len(parts) == 1:
        raise next(iter(parts.values()))
    if parts:
        together = ValueError(f"{len(parts)} errors. " + " ".join(f"({i}) {text}" for i, text in enumerate(parts, 1)))
        together.parts = list(parts.values())
        raise together


class _Loader(yaml.SafeLoader):
    """`SafeLoader` with two rules of YAML 1.2: `1e-4` is a number, and a name must not appear twice."""


def _construct_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[str, Any]:
    seen = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{show(key.value)} appears twice", key.start_mark)
            seen.add(key.value)
    return loader.construct_mapping(node, deep=True)


def _construct_int(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    """Refuse numbers that YAML 1.1 reads in an unexpected way: 1:30 as 90, and 0100 as 64."""
    if re.fullmatch(r"[-+]?(0|[1-9][\d_]*|0x[\da-fA-F_]+|0b[01_]+)", node.value) is None:
        raise yaml.constructor.ConstructorError(
            None,
            None,
            f"{show(node.value)} is read as another number: write it in decimal, or in quotes",
            node.start_mark,
        )
    return loader.construct_yaml_int(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_mapping)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parse_yaml(text: str, name: str) -> Any:
    """
    Parse YAML into plain values: dictionaries with texts as keys, lists, texts, numbers, true, false and null.

    Args:
        text (`str`): The YAML.
        name (`str`): Its name in messages.

    Raises:
        ValueError: it is not valid YAML, or it has values that a recipe cannot have.
    """
    try:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            # Before the aliases are followed: a few lines of them can stand for billions of values
            _check_size(node, name)
            value = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except RecursionError:
        raise ValueError(
            f"{name} is nested too deeply: a recipe has at most {_MAX_DEPTH} levels. Flatten it."
        ) from None
    except yaml.YAMLError as error:
        raise ValueError(f"{name} is not valid YAML: {one_line(str(error))}. Correct it.") from error
    except RecipeError:
        raise
    except Exception as error:  # dates and numbers out of range raise others
        raise ValueError(f"{name} is not valid YAML: {explain(error)}") from error
    check_values(value, name)
    return value


class RecipeError(ValueError):
    """Error about a recipe that is too large, or whose values are not plain."""


def _check_size(node: yaml.Node | None, name: str) -> None:
    sizes: dict[int, int] = {}

    def size(node: yaml.Node, depth: int) -> int:
        if id(node) not in sizes:
            if depth > _MAX_DEPTH:  # also ends an alias that refers to its own parent
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
            f"{name} has {sizes[id(node)]:,} values with its aliases written out. A recipe has at most "
            f"{_MAX_VALUES:,}. Remove the aliases (`*name`)."
        )


def check_values(value: Any, name: str, depth: int = 0) -> None:
    """
    Check that a recipe can have these values.

    Raises:
        ValueError: they are not plain, or nested too deeply. The message begins with `name`.
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
        _check_references(value, name)
    elif isinstance(value, int) and abs(value) > 2**63:
        raise RecipeError(f"{name} has a number of {value.bit_length()} bits. Give one of at most 63.")
    elif value is not None and not isinstance(value, bool | int | float):
        raise RecipeError(
            f"{name} has {show(value)}, of type {type(value).__name__}. A recipe holds texts, numbers, true, false, lists and "
            "mappings: put it in quotes if it is a text."
        )


def _check_references(text: str, name: str) -> None:
    for found in re.finditer(
        r"(?<!\\)\$\{|\\\\\$\{", text
    ):  # the second one: `OmegaConf` would read it as an expression
        if REFERENCE.match(text, found.start()) is None:
            raise RecipeError(
                f"{name} has the text {show(text)}. In a recipe, `${{...}}` stands for the value of another field, such as "
                "`${data_root}` or `${data.captions.path}`, and other expressions are not allowed. If it is part of the text, write "
                "one backslash before it: `\\${`."
            )


def is_recipe(name: str) -> bool:
    """
    Tell whether a name is that of a recipe: a YAML file, or a recipe that is shipped or registered. Otherwise it leads to data.

    Raises:
        FileNotFoundError: it is neither.
    """
    if name.lower().endswith((".yaml", ".yml")):
        return True
    if os.path.isfile(RECIPES / f"{name}.yaml") or name in plugins.find_plugins(plugins.RECIPES):
        return True
    if os.path.exists(name) or "://" in name or re.search(r"[*?\[{]", name):
        return False
    is_path = "/" in name or os.path.splitext(name)[1]
    hint = plugins.install_hint(plugins.RECIPES, name) or ("" if is_path else suggest(name, _recipe_names()))
    raise FileNotFoundError(
        f"There is no recipe and no file or folder {show(name)}.{hint} Give a YAML file or the name of a recipe, or a data file, a "
        "pattern or a folder."
    )


def _recipe_names() -> list[str]:
    shipped = sorted(path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.rglob("*.yaml"))
    return [*shipped, *plugins.find_plugins(plugins.RECIPES)]


def read_recipe_file(path: Path, above: Sequence[Path] = ()) -> dict[str, Any]:
    """
    Read a recipe, merged into the one that it names as its `base`.

    Args:
        path (`Path`): A file, or the name of a recipe that is shipped or registered ([`plugins.RECIPES`]).
        above (`list[Path]`, *optional*): The recipes that have it as their base, directly or not.

    Raises:
        FileNotFoundError: the recipe does not exist.
        ValueError: the file is not a recipe.
    """
    name = show(str(path))
    if not os.path.isfile(path) and os.path.isfile(RECIPES / f"{path}.yaml"):
        path = RECIPES / f"{path}.yaml"
    elif not os.path.isfile(path) and str(path) in plugins.find_plugins(plugins.RECIPES):
        path = Path(plugins.plugin_path(plugins.RECIPES, str(path)))
    if not os.path.isfile(path):
        kind = (
            "it is a folder, a pipe or a device instead of a file" if os.path.exists(path) else "no such file exists"
        )
        hint = plugins.install_hint(plugins.RECIPES, str(path))
        if not hint and (close := difflib.get_close_matches(str(path)[:100], _recipe_names(), n=1)):
            hint = f" Did you mean {close[0]!r}?"
        raise FileNotFoundError(
            f"There is no recipe {name}: {kind}.{hint} Give a YAML file, or the name "
            f"of a recipe: {', '.join(_recipe_names())}."
        )
    with open(path, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise ValueError(f"{name} has more than {MAX_BYTES:,} bytes, so it is not a recipe. Give a YAML file.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{name} is not text in UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8."
        ) from error
    values = parse_yaml(text, name)
    if not isinstance(values, dict):
        content = "nothing" if values is None else show(values)
        raise ValueError(f"{name} holds {content}, but a recipe maps names to values. Fix the file.")
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str) or not base:
        raise ValueError(
            f"{name}: `base` is {show(base)}. Give the file or the name of the recipe to start from, in quotes if YAML "
            "reads it as something else (yes, no, on, off, a number)."
        )
    above = (*above, path.resolve())
    sibling = path.parent / base
    base_path = sibling if os.path.isfile(sibling) else Path(base)
    if base_path.resolve() in above:
        raise ValueError(
            f"{name} has the base {show(base)}, which has {name} as its base, directly or not: that never ends. Change `base` in "
            "one of them."
        )
    if len(above) > _MAX_BASES:
        raise ValueError(
            f"{name} is the last of more than {_MAX_BASES} recipes, each the `base` of another. Merge some of them."
        )
    return merge(replace_model(read_recipe_file(base_path, above), values), values)


def replace_model(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """
    Return `base` without the model that `changes` replace by one of the other kind: a saved Flamingo replaces two backbones, what
    is built of them, and the rates of new parts; and the other way round. So `model: DIRECTORY` is enough to train a saved model by any recipe.
    """
    if changes.get("model") is not None:
        # The multipliers are for parts that are new
        replaced = ("vision", "text", "model_config", "text_from_scratch")
        replaced += ("gate_learning_rate_multiplier", "resampler_learning_rate_multiplier")
    elif changes.get("vision") is not None or changes.get("text") is not None:
        replaced = ("model",)
    else:
        return base
    return {name: value for name, value in base.items() if name not in replaced}


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """
    Return `base` with `changes`, mapping by mapping (`OmegaConf.merge`). `None` removes a value.

    Raises:
        ValueError: a list would replace a mapping, or a mapping a list, or `???` would replace a value.
    """
    _check_placeholders(base, changes)
    try:
        merged = OmegaConf.to_container(OmegaConf.merge(base, changes))
    except TypeError as error:
        raise ValueError("A recipe cannot replace a list of its base by a mapping, or a mapping by a list.") from error
    _remove_nulls(merged, changes)
    return merged


def _check_placeholders(base: dict[str, Any], changes: dict[str, Any], prefix: str = "") -> None:
    """Check that no change is `???` where the base has a value, which OmegaConf would keep without a message."""
    for name, value in changes.items():
        known = base.get(name)
        if isinstance(value, dict) and isinstance(known, dict):
            _check_placeholders(known, value, f"{prefix}{name}.")
        elif value == "???" and known not in (None, "???"):
            raise ValueError(
                f"`{prefix}{name}` is ???, a placeholder for a value that must be given, but its base gives it {show(known)}. Remove "
                "the placeholder, or give a value. `null` removes the value of the base."
            )


def _remove_nulls(merged: dict[str, Any], changes: dict[str, Any]) -> None:
    for name, value in changes.items():
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            _remove_nulls(merged[name], value)
