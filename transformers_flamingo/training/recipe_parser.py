# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Turn the values of a recipe, and the command line that changes them, into checked dataclasses.

`OmegaConf` merges, resolves `${NAME}` and converts values to the types of the dataclasses. `HfArgumentParser` reads the flags.
"""

import re
from argparse import SUPPRESS, ArgumentTypeError
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, field, fields, make_dataclass
from functools import reduce
from typing import Any, NoReturn, get_args, get_origin, get_type_hints

import yaml
from omegaconf import MISSING as PLACEHOLDER
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from transformers import HfArgumentParser

from ..utils.redaction import explain, is_secret_name, one_line, redact_values
from .recipe_file import (
    MAX_BYTES,
    REFERENCE,
    check_values,
    merge,
    parse_yaml,
    raise_together,
    replace_model,
    show,
    suggest,
)


_SECRETS_NOTE = (
    "# Tokens and passwords were removed. Give them in the environment (HF_TOKEN), or on the command line.\n"
)
# `TrainingArguments` declares these as texts, and takes `true` and `false` too
_TEXTS_OR_BOOLS = ("fsdp", "resume_from_checkpoint")
# In place of the value of a flag that has none, and of one that does not fit
_NO_VALUE, _UNFIT = object(), object()


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
            if action.default is None:
                action.default = SUPPRESS  # the help shows no default where there is none

        #: Names of the flags whose values did not fit.
        self.unfit: set[str] = set()

    def error(self, message: str) -> NoReturn:
        """Raise the error instead of ending the process."""
        raise ValueError(one_line(message, 500))

    def parse_given(self, arguments: Sequence[str], errors: list[Exception]) -> tuple[dict[str, Any], list[str]]:
        """
        Return the values of the flags that were given, `None` for `null`, and the arguments that are not flags. A value that does not
        fit is added to `errors`, so that it does not hide other errors.
        """
        for action in self._actions:
            # The choices are checked by the dataclass
            action.default, action.choices = SUPPRESS, None
            action.type = _allow_null_and_references(action.type or str, action.dest, errors)
            if action.nargs is None and action.option_strings:
                action.nargs, action.const = "?", _NO_VALUE
        given, rest = self.parse_known_args(list(arguments))
        values = {}
        for name, value in vars(given).items():
            if value is _NO_VALUE:
                errors.append(ValueError(f"`--{name}` has no value. Add one after it."))
            if value in (_NO_VALUE, _UNFIT) or (isinstance(value, list) and _UNFIT in value):
                self.unfit.add(name)
            else:
                values[name] = _plain(value)
        check_values(values, "The command line")
        return values, rest


def _plain(value: Any) -> Any:
    """Replace each `Enum` by its value."""
    return list(map(_plain, value)) if isinstance(value, list) else getattr(value, "value", value)


def _allow_null_and_references(
    convert: Callable[[str], Any], name: str, errors: list[Exception]
) -> Callable[[str], Any]:
    def convert_plain(text: str) -> Any:
        if text == "null":
            return None
        if text is _NO_VALUE or REFERENCE.search(text):
            return text
        try:
            return convert(text)
        except (ArgumentTypeError, TypeError, ValueError) as error:
            word = {int: "a whole number", float: "a number"}.get(convert)
            reason = f"Give {word}." if word else one_line(str(error), 300)
            errors.append(ValueError(f"`--{name}` is {show(redact_values({name: text})[name])}. {reason}"))
            return _UNFIT

    return convert_plain


def parse_values(
    values: dict[str, Any],
    arguments: Sequence[str],
    kinds: Sequence[type],
    mapping_names: Sequence[str],
    check: Callable[[dict[str, dict[str, Any]]], object] | None = None,
    item_fields: Iterable[str] = (),
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
        check (`Callable`, *optional*): Gets the mappings, and raises a `ValueError` if one is wrong.
        item_fields (`Iterable[str]`, *optional*): Fields of what `data` maps names to, which are easily taken for fields of the recipe.

    Returns:
        `tuple`: an instance of each dataclass, the mappings, and all of the recipe as YAML, to run it again, without secrets.

    Raises:
        ValueError: a name is unknown, or a value does not fit. The message says which, and has all that was found.
    """
    check_values(values, "The recipe")
    known = {*mapping_names, *(f.name for kind in kinds for f in fields(kind) if f.init)}
    unknown = [name for name in values if name not in known]
    names = list(values["data"]) if isinstance(values.get("data"), dict) else []

    def hint(name: str) -> str:
        if name not in item_fields:
            return suggest(name, known)
        name = f"data.{show(names[0])[1:-1] if names else 'NAME'}.{name}"
        return f" It is a field of a source: give `--{name}`."

    errors: list[Exception] = [ValueError(f"A recipe has no {show(name)}.{hint(name)}") for name in unknown]
    values = {name: value for name, value in values.items() if name not in unknown}
    parser = RecipeParser(kinds, mapping_names)
    given, rest = parser.parse_given(arguments, errors)
    values = {**replace_model(values, given), **given}
    # Fields whose values are wrong. They are left out of what is checked next, which would only find that they are missing
    wrong = parser.unfit
    for name in mapping_names:
        with _collecting(errors, wrong, name):
            values[name] = _parse_mapping(name, values.get(name))
    for change in _parse_changes(rest, mapping_names, hint, errors):
        with _collecting(errors, wrong, next(iter(change))):
            values = merge(values, change)
    values = {name: v for name, v in values.items() if v is not None and (v or name not in mapping_names)}
    hints = {name: hint for kind in kinds for name, hint in get_type_hints(kind).items()}
    typed = _resolve(values, hints, errors, wrong)
    mappings = {name: typed.get(name, {}) for name in mapping_names if name not in wrong}
    parts = _make_parts(kinds, typed, errors, wrong)
    if check is not None:
        with _collecting(errors):
            check(mappings)
    raise_together(errors)
    mappings = {name: typed.get(name, {}) for name in mapping_names}
    public = {name: value for name, value in redact_values(values).items() if value is not None}
    note = "" if public == values else _SECRETS_NOTE
    text = note + yaml.safe_dump(public, sort_keys=False)
    return parts, mappings, text


def parse_changes(
    arguments: Sequence[str], kinds: Sequence[type], mapping_names: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """
    Return what `--NAME.FIELD VALUE` on a command line changes in the mappings of a recipe.

    Args:
        arguments, kinds, mapping_names: As in [`parse_values`], which says what is wrong with them.
    """
    errors: list[Exception] = []
    _, rest = RecipeParser(kinds, mapping_names).parse_given(arguments, errors)
    changes: dict[str, Any] = {}
    for change in _parse_changes(rest, mapping_names, lambda name: "", errors):
        with _collecting(errors):
            changes = merge(changes, change)
    return changes


@contextmanager
def _collecting(errors: list[Exception], wrong: set[str] | None = None, name: str = "") -> Iterator[None]:
    """Add an error to `errors`, and the field that it is about to `wrong`, instead of raising it."""
    try:
        yield
    except ValueError as error:
        errors.append(error)
        if wrong is not None:
            wrong.add(name)


def _make_parts(
    kinds: Sequence[type], values: dict[str, Any], all_errors: list[Exception], wrong: set[str]
) -> list[Any]:
    """Make an instance of each dataclass. What is wrong is added to `all_errors`, so that the others are still checked."""
    parts, errors = [], []
    for kind in kinds:
        missing = [f.name for f in fields(kind) if f.default is f.default_factory is MISSING and f.name not in values]
        if wrong.intersection(missing):
            continue
        if missing:
            errors.append(ValueError(f"The recipe has no `{'`, `'.join(missing)}`. Add it, or give `--{missing[0]}`."))
            continue
        try:
            parts.append(kind(**{f.name: values[f.name] for f in fields(kind) if f.name in values}))
        except (ImportError, OSError, ValueError) as error:
            errors.append(error)
        except Exception as error:  # `TrainingArguments` raises others for values that it does not expect
            errors.append(ValueError(f"The values of the recipe do not fit: {explain(error)}"))
    # What does not fit the default of a field whose value is wrong may fit the value that was meant
    names = re.compile("|".join(rf"\b{name}\b" for name in wrong)) if wrong else None
    for part in (part for error in errors for part in getattr(error, "parts", [error])):
        if names is None or names.search(str(part)) is None:
            all_errors.append(part)
    return parts


def _parse_mapping(name: str, value: Any) -> dict[str, Any] | None:
    """Return a mapping that may be given as text, in YAML or JSON."""
    if isinstance(value, str):
        value = parse_yaml(value, f"`{name}`")  # JSON is a part of YAML
    if value is not None and not isinstance(value, dict):
        raise ValueError(f"`{name}` is {show(value)}. It must map names to values.")
    return value


def _parse_changes(
    arguments: Sequence[str], mapping_names: Sequence[str], hint: Callable[[str], str], errors: list[Exception]
) -> Iterator[dict[str, Any]]:
    """Convert `--data.NAME.FIELD VALUE` to `{"data": {NAME: {FIELD: VALUE}}}`, and add unknown options to `errors`."""
    waiting = list(reversed(arguments))
    while waiting:
        argument = waiting.pop()
        option, equals, value = argument.partition("=")
        name, *path = option.removeprefix("--").split(".")
        name = name.replace("-", "_")
        if not option.startswith("--"):
            errors.append(
                ValueError(f"{show(argument)} on the command line belongs to no option. Options are --NAME VALUE.")
            )
            continue
        if name not in mapping_names:
            errors.append(ValueError(f"There is no option {show(option)[1:-1]}.{hint(name)}"))
            while waiting and not equals and not waiting[-1].startswith("--"):
                waiting.pop()  # its values
            continue
        if not equals and not waiting:
            errors.append(ValueError(f"{show(option)[1:-1]} has no value. Add one after it."))
            continue
        value = value if equals else waiting.pop()
        if len(path) >= 10 or not all(path):
            errors.append(ValueError(f"{show(option)[1:-1]} is not --NAME.FIELD with a name in each place."))
            continue
        with _collecting(errors):
            yield reduce(lambda inner, key: {key: inner}, reversed([name, *path]), _parse_scalar(value))


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


def _check_references(checked: Any, values: dict[str, Any]) -> int:
    """Check that each `${NAME}` names a plain value, which is not a secret. Return the number of characters of all of them."""
    size = 0
    for text in _texts(checked):
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
    return size


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | tuple):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)


def _resolve(
    values: dict[str, Any], hints: dict[str, Any], errors: list[Exception], wrong: set[str]
) -> dict[str, Any]:
    """
    Replace each `${NAME}` by the value of that name, and convert the values to their types. Those that do not fit are added to
    `errors`, their names to `wrong`, and they are left out.
    """
    schema, size = {}, 0
    for name, value in values.items():
        hint = hints.get(name, dict)
        if name in _TEXTS_OR_BOOLS:
            hint = str | bool
        kinds = {get_origin(kind) or kind for kind in (get_args(hint) or [hint])}
        with _collecting(errors, wrong, name):
            _check_kind(name, value, kinds)
            size += _check_references(value, values)
        # In a union, `OmegaConf` 2.4 can neither resolve all texts of a dictionary nor convert the items of a list
        if isinstance(value, dict):
            hint = dict[str, Any]
        elif isinstance(value, list):
            hint = list[str]
        schema[name] = hint
    if size > MAX_BYTES:
        raise ValueError(
            f"The references `${{NAME}}` of the recipe expand to more than {MAX_BYTES:,} characters. Remove some."
        )
    while True:
        values = {name: value for name, value in values.items() if name not in wrong}
        # The value of a wrong field is not there to be copied
        copies = {name for name, value in values.items() if wrong & _names_in(value)}
        if copies:
            wrong |= copies
            continue
        made = make_dataclass("Schema", [(name, schema[name], field(default=PLACEHOLDER)) for name in values])
        try:
            config = OmegaConf.merge(OmegaConf.structured(made), values)
            if not (missing := sorted(OmegaConf.missing_keys(config))):
                return OmegaConf.to_container(config, resolve=True)
            name = missing[0].partition(".")[0].partition("[")[0]
            errors.append(
                ValueError(f"`{missing[0]}` is '{PLACEHOLDER}', a placeholder. Give it a value, or remove it.")
            )
        except OmegaConfBaseException as error:
            name = str(error.full_key).partition(".")[0].partition("[")[0]
            value = redact_values({name: values.get(name)})[name]
            reason = "" if value is None else f": {one_line(str(error).partition(chr(10))[0], 300)}"
            errors.append(ValueError(f"`{name}` is {show(value)}, which does not fit{reason.rstrip('.')}."))
            if name not in values:
                return {}
        wrong.add(name)


def _names_in(value: Any) -> set[str]:
    """Return the fields that a value refers to."""
    return {name.partition(".")[0] for text in _texts(value) for name in REFERENCE.findall(text)}


def _check_kind(name: str, value: Any, kinds: set[type]) -> None:
    """
    Refuse a mapping or a list where a single value should be, and a bool or a number where a text should be. `OmegaConf` would
    convert the latter two, but YAML may have misread the text.
    """
    if isinstance(value, dict) and dict not in kinds:
        raise ValueError(f"`{name}` is {show(value)}, a mapping, where a single value should be.")
    if isinstance(value, list) and list not in kinds:
        raise ValueError(f"`{name}` is {show(value)}, a list, where a single value should be.")
    if isinstance(value, bool) and not kinds & {bool, dict}:
        raise ValueError(
            f"`{name}` is {str(value).lower()}, which it cannot be. YAML reads an unquoted yes, no, on or off as true or "
            'false: put the word in quotes, such as "no".'
        )
    if isinstance(value, int | float) and not isinstance(value, bool) and not kinds & {int, float, bool}:
        raise ValueError(f"`{name}` is the number {show(value)}, where a text should be. Put it in quotes.")
    if isinstance(value, list) and not all(isinstance(item, str) for item in value):
        raise ValueError(f"`{name}` is {show(value)}, where a list of texts should be.")
