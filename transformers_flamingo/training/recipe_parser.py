# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Turn the values of a recipe, and the command line that changes them, into checked dataclasses.

`OmegaConf` merges, resolves `${NAME}` and converts values to the types of the dataclasses. `HfArgumentParser` reads the flags.
"""

from argparse import SUPPRESS
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import MISSING, field, fields, make_dataclass
from functools import reduce, wraps
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

import yaml
from omegaconf import MISSING as PLACEHOLDER
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from transformers import HfArgumentParser

from ..utils.redaction import explain, is_secret_name, one_line, redact_values
from .recipe_file import MAX_BYTES, REFERENCE, check_values, merge, parse_yaml, show, suggest


_SECRETS_NOTE = (
    "# Tokens and passwords were removed. Give them in the environment (HF_TOKEN), or on the command line.\n"
)


class RecipeParser(HfArgumentParser):
    """
    Parser of the flags of a recipe, one for each field of its dataclasses and for each of its mappings.

    No flag is required, because the file of the recipe may have the value. Mistakes are `ValueError`s.

    Args:
        kinds (`Sequence[type]`): The dataclasses.
        mapping_names (`Sequence[str]`, *optional*): The fields of the recipe that map names to values.
        **kwargs: Arguments of `argparse.ArgumentParser`.
    """

    def __init__(self, kinds: Sequence[type], mapping_names: Sequence[str] = (), **kwargs: Any):
        usage = "%(prog)s RECIPE [--NAME VALUE ...]"
        super().__init__(kinds, **{"usage": usage, "add_help": False, "allow_abbrev": False, **kwargs})
        fields_of_kinds = {action.dest for action in self._actions}
        group = self.add_argument_group("sources")
        for name in mapping_names:
            if name not in fields_of_kinds:
                group.add_argument(f"--{name}", help=f"Sources by name, as JSON, or --{name}.NAME.FIELD.")
        for action in self._actions:
            action.required = False

    def error(self, message: str) -> NoReturn:
        """Raise the error instead of ending the process."""
        raise ValueError(one_line(message, 500))

    def parse_given(self, arguments: Sequence[str]) -> tuple[dict[str, Any], list[str]]:
        """Return the values of the flags that were given, `None` for `null`, and the arguments that are not flags."""
        for action in self._actions:
            # The choices are checked by the dataclass
            action.default, action.choices, action.type = SUPPRESS, None, _allow_null(action.type or str)
        given, rest = self.parse_known_args(list(arguments))
        # An `Enum` is written as its value
        values = {name: getattr(value, "value", value) for name, value in vars(given).items()}
        check_values(values, "The command line")
        return values, rest


def _allow_null(convert: Callable[[str], Any]) -> Callable[[str], Any]:
    @wraps(convert)  # argparse shows its name in errors
    def convert_or_null(text: str) -> Any:
        return None if text == "null" else convert(text)

    return convert_or_null


def parse_values(
    values: dict[str, Any], arguments: Sequence[str], kinds: Sequence[type], mapping_names: Sequence[str]
) -> tuple[list[Any], dict[str, dict[str, Any]], str]:
    """
    Make the dataclasses of a recipe, with all changes of the command line.

    Args:
        values (`dict`): The recipe, as its file has it.
        arguments (`Sequence[str]`):
            The command line: flags of the dataclasses, `--NAME.FIELD VALUE` for a field of a mapping, `--NAME null` to remove
            a value.
        kinds (`Sequence[type]`): The dataclasses.
        mapping_names (`Sequence[str]`): The fields of the recipe that map names to values.

    Returns:
        `tuple`: an instance of each dataclass, the mappings, and all of the recipe as YAML, to run it again, without secrets.

    Raises:
        ValueError: a name is unknown, or a value does not fit. The message says which.
    """
    check_values(values, "The recipe")
    known = {*mapping_names, *(f.name for kind in kinds for f in fields(kind) if f.init)}
    for name in values:
        if name not in known:
            raise ValueError(f"A recipe has no {show(name)}.{suggest(name, known)}")
    given, rest = RecipeParser(kinds, mapping_names).parse_given(arguments)
    values = {**values, **given}
    values |= {name: _parse_mapping(name, values.get(name)) for name in mapping_names}
    for change in _parse_changes(rest, mapping_names, known):
        values = merge(values, change)
    values = {name: v for name, v in values.items() if v is not None and (v or name not in mapping_names)}

    _check_references(values)
    typed = _resolve(values, {name: hint for kind in kinds for name, hint in get_type_hints(kind).items()})
    parts = []
    for kind in kinds:
        missing = [f.name for f in fields(kind) if f.default is f.default_factory is MISSING and f.name not in typed]
        if missing:
            raise ValueError(f"The recipe has no `{'`, `'.join(missing)}`. Add it, or give `--{missing[0]}`.")
        try:
            parts.append(kind(**{f.name: typed[f.name] for f in fields(kind) if f.name in typed}))
        except (ImportError, OSError, ValueError):
            raise
        except Exception as error:  # `TrainingArguments` raises others for values that it does not expect
            raise ValueError(f"The values of the recipe do not fit: {explain(error)}") from error
    public = {name: value for name, value in redact_values(values).items() if value is not None}
    note = "" if public == values else _SECRETS_NOTE
    text = note + yaml.safe_dump(public, sort_keys=False)
    return parts, {name: typed.get(name, {}) for name in mapping_names}, text


def _parse_mapping(name: str, value: Any) -> dict[str, Any] | None:
    """Return a mapping that may be given as text, in YAML or JSON."""
    if isinstance(value, str):
        value = parse_yaml(value, f"`{name}`")  # JSON is a part of YAML
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"`{name}` is {show(value)}. It must map names to values.")
    return value


def _parse_changes(
    arguments: Sequence[str], mapping_names: Sequence[str], known: Iterable[str]
) -> Iterator[dict[str, Any]]:
    """Convert `--data.NAME.FIELD VALUE` to `{"data": {NAME: {FIELD: VALUE}}}`."""
    waiting = list(reversed(arguments))
    while waiting:
        argument = waiting.pop()
        option, equals, value = argument.partition("=")
        name, *path = option.removeprefix("--").split(".")
        name = name.replace("-", "_")
        if not option.startswith("--"):
            raise ValueError(f"{show(argument)} on the command line belongs to no option. Options are --NAME VALUE.")
        if name not in mapping_names:
            raise ValueError(f"There is no option {show(option)[1:-1]}.{suggest(name, known)}")
        if len(path) >= 10 or not all(path):
            raise ValueError(f"{show(option)[1:-1]} is not --NAME.FIELD with a name in each place.")
        if not equals and not waiting:
            raise ValueError(f"{show(option)[1:-1]} has no value. Add one after it.")
        yield reduce(
            lambda inner, key: {key: inner}, reversed([name, *path]), _parse_scalar(value if equals else waiting.pop())
        )


def _parse_scalar(text: str) -> Any:
    """Parse a value of the command line, where `"question: {question}"` is text instead of a mapping."""
    name = "A value of the command line"
    try:
        value = parse_yaml(text, name)
    except ValueError:
        if text.startswith(("{", "[")):
            raise
        value = text
    value = text if isinstance(value, dict) and not text.startswith("{") else value
    check_values(value, name)
    return value


def _check_references(values: dict[str, Any]) -> None:
    """Check that each `${NAME}` names a plain value, which is not a secret."""
    size = 0
    for text in _texts(values):
        for name in REFERENCE.findall(text):
            value = reduce(lambda at, key: at.get(key) if isinstance(at, dict) else None, name.split("."), values)
            subject = f"The recipe has the text {show(text)}, and"
            if value is None:
                raise ValueError(
                    f"{subject} {name!r} is not in the recipe. Correct the name. If `${{{name}}}` is part of the text, write "
                    f"a backslash before it: `\\${{{name}}}`."
                )
            # A secret would be published under another name, and chains of references could grow without limit
            if any(map(is_secret_name, name.split("."))):
                raise ValueError(
                    f"{subject} {name!r} is a secret, which cannot be copied. Write it where it is needed."
                )
            if isinstance(value, dict | list) or (isinstance(value, str) and REFERENCE.search(value)):
                raise ValueError(
                    f"{subject} {name!r} is {show(value)}. A reference can only name a plain text or number."
                )
            size += len(str(value))
    if size > MAX_BYTES:
        raise ValueError(
            f"The references `${{NAME}}` of the recipe expand to more than {MAX_BYTES:,} characters. Remove some."
        )


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _resolve(values: dict[str, Any], hints: dict[str, Any]) -> dict[str, Any]:
    """Replace each `${NAME}` by the value of that name, and convert the values to their types."""
    schema = []
    for name, value in values.items():
        hint = hints.get(name, dict)
        kinds = {get_origin(kind) or kind for kind in (get_args(hint) or [hint])}
        _check_text(name, value, kinds)
        # In the dictionary of a union, `OmegaConf` 2.4 cannot resolve all texts
        is_mapping = dict in kinds and isinstance(value, dict)
        schema.append((name, dict[str, Any] if is_mapping else hint, field(default=PLACEHOLDER)))
    try:
        config = OmegaConf.merge(OmegaConf.structured(make_dataclass("Schema", schema)), values)
        if missing := sorted(OmegaConf.missing_keys(config)):
            raise ValueError(f"`{missing[0]}` is '{PLACEHOLDER}', a placeholder. Give it a value, or remove it.")
        return OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        name = str(error.full_key).partition(".")[0].partition("[")[0]
        value = redact_values({name: values.get(name)})[name]
        reason = "" if value is None else f": {one_line(str(error).partition(chr(10))[0], 300)}"
        raise ValueError(f"`{name}` is {show(value)}, which does not fit{reason.rstrip('.')}.") from error


def _check_text(name: str, value: Any, kinds: set[type]) -> None:
    """Refuse a bool or a number where a text should be. `OmegaConf` would convert it, but YAML may have misread the text."""
    if isinstance(value, bool) and not kinds & {bool, dict} and name != "resume_from_checkpoint":
        raise ValueError(
            f"`{name}` is {str(value).lower()}, which it cannot be. YAML reads an unquoted yes, no, on or off as true or "
            'false: put the word in quotes, such as "no".'
        )
    if isinstance(value, int | float) and not isinstance(value, bool) and not kinds & {int, float, bool}:
        raise ValueError(f"`{name}` is the number {show(value)}, where a text should be. Put it in quotes.")
    if isinstance(value, list) and list in kinds and not all(isinstance(item, str) for item in value):
        raise ValueError(f"`{name}` is {show(value)}, where a list of texts should be.")
