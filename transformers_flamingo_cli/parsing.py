# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Options from dataclasses, as transformers' `HfArgumentParser` makes them, and errors in one line."""

import argparse
import copy
import dataclasses
import difflib
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn, TypeVar, get_type_hints


T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """
    Report an error in one line, without the usage of all options.

    Attributes:
        more_help (`Callable[[], str]`, *optional*):
            Returns what follows the help. It is called for `--help` only, so it may import what is slow.
        recipe_for_data (`str`, *optional*): The recipe of a command line that gives `--data` and begins with an option.
        given (`Sequence[str]`): The command line, also if it is a call for help, which may depend on it.
    """

    more_help: Callable[[], str] | None = None
    given: Sequence[str] = ()
    recipe_for_data: str | None = None
    _given: Sequence[str] = ()

    def parse_known_args(
        self, args: Sequence[str], namespace: argparse.Namespace | None = None
    ) -> tuple[Any, list[str]]:
        """Parse the arguments, of which the first is the recipe. `argparse` would take the value of any field for it."""
        self._given = [arg.partition("=")[0] for arg in args if arg.startswith("--")]
        has_data = any(arg == "--data" or arg.startswith("--data=") for arg in args)
        if self.recipe_for_data is not None and has_data and args[0].startswith("-"):
            args = [self.recipe_for_data, *args]
        self.given = args
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        """Write one line and exit with code 2. What is missing may be there, misspelled."""
        if message.startswith("the following arguments are required"):
            if self.recipe_for_data is not None:
                message += ", or --data PATH to train on data"
            message += self.suggest(self._given)
        self.exit(2, f"{self.prog}: {' '.join(message.split()).removesuffix('.')}. See `{self.prog} --help`.\n")

    def suggest(self, given: Sequence[str]) -> str:
        """Return the known options nearest to unknown ones, from the list of all in the help."""
        return suggest_options(given, re.findall(r"(?<![\w-])--[\w-]+", super().format_help()))

    def format_help(self) -> str:
        """Return the help, followed by that of `more_help`."""
        text = super().format_help()
        return text if self.more_help is None else f"{text}\n{self.more_help()}"


def suggest_options(given: Sequence[str], known: Sequence[str]) -> str:
    """
    Return the end of a sentence with the known options nearest to unknown ones, `""` if none is near.

    Args:
        given (`Sequence[str]`): The options of a command line. The beginning of a known one is known, too.
        known (`Sequence[str]`): All options.
    """
    unknown = [option for option in given if not any(other.startswith(option) for other in known)]
    close = [match for option in unknown for match in difflib.get_close_matches(option, known, n=1)]
    return f" (did you mean {' or '.join(dict.fromkeys(close))}?)" if close else ""


class UsageError(ValueError):
    """Options that were understood, but whose values do not fit: reported like an error of the parser."""


def add_fields(parser: argparse.ArgumentParser, kind: type, exclude: Collection[str] = ()) -> None:
    """
    Add an option for each field of a dataclass, spelled with `_` or `-`, with the `help` of its metadata and its default.

    The rules are those of `HfArgumentParser`, except that a switch takes no value, so that it can come before a positional
    argument: `flamingo chat --share DIRECTORY`.

    Args:
        parser (`argparse.ArgumentParser`): Gets the options.
        kind (`type`): The dataclass.
        exclude (`Collection[str]`): Fields that are added in another way, such as positional arguments.
    """
    from transformers import HfArgumentParser

    hints = get_type_hints(kind)
    for field in dataclasses.fields(kind):
        if field.name in exclude:
            continue
        text = field.metadata.get("help", "").replace("%", "%%")
        if hints[field.name] is bool and field.default is False:
            options = dict.fromkeys((f"--{field.name}", f"--{field.name.replace('_', '-')}"))
            parser.add_argument(*options, action="store_true", help=text)
            continue
        default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        if default not in (dataclasses.MISSING, None, ""):
            shown = " ".join(map(str, default)) if isinstance(default, list) else default
            text += f" (default: {shown})"
        field = copy.copy(field)
        field.type, field.metadata = hints[field.name], {**field.metadata, "help": text}
        # Private, but the public constructor can neither leave out a field nor add to a parser that exists
        HfArgumentParser._parse_dataclass_field(parser, field)


def read_fields(kind: type[T], arguments: argparse.Namespace) -> T:
    """
    Make a dataclass of the arguments with the names of its fields.

    Raises:
        UsageError: the dataclass refuses a value. It says why.
    """
    names = {field.name for field in dataclasses.fields(kind)}
    try:
        return kind(**{name: value for name, value in vars(arguments).items() if name in names})
    except ValueError as error:
        raise UsageError(str(error)) from error


def check_range(arguments: Any, name: str, minimum: int, maximum: int | None = None) -> None:
    """
    Check a field of a dataclass. `None`, which is for a default that is found later, is not checked.

    Raises:
        ValueError: it is below `minimum` or above `maximum`.
    """
    value = getattr(arguments, name)
    if value is not None and (value < minimum or (maximum is not None and value > maximum)):
        limits = f"at least {minimum}" if maximum is None else f"from {minimum} to {maximum}"
        raise ValueError(f"`{name}` is {value}, but it must be {limits}.")


class _HelpAll(argparse.Action):
    """Print the help with all fields of a recipe, and exit."""

    def __init__(self, *args: Any, list_fields: Callable[[], argparse.ArgumentParser], **kwargs: Any):
        super().__init__(*args, nargs=0, **kwargs)
        self.list_fields = list_fields

    def __call__(self, parser: Parser, namespace: argparse.Namespace, values: Any, option_string: str | None = None):
        parser.more_help = lambda: _format_options(self.list_fields())
        parser.print_help()
        parser.exit()


def add_recipe(
    parser: Parser,
    list_fields: Callable[[], argparse.ArgumentParser],
    list_common_fields: Callable[[], str] | None = None,
) -> None:
    """
    Add a recipe, whose fields are options too.

    Args:
        parser ([`Parser`]): Gets the argument `recipe`, and `overrides` for the options, which the recipe reads itself.
        list_fields (`Callable[[], argparse.ArgumentParser]`):
            Makes the parser of the fields, which follow the help. It is called for `--help` only.
        list_common_fields (`Callable[[], str]`, *optional*):
            Returns what follows the help instead, where there are many fields. `--help_all` lists them all.
    """
    parser.usage = "%(prog)s [-h] RECIPE [--NAME VALUE ...]"
    parser.add_argument("recipe", metavar="RECIPE", help="YAML file, or the name of a shipped recipe.")
    parser.set_defaults(overrides=[])
    parser.more_help = lambda: _format_options(list_fields())
    if list_common_fields is not None:
        parser.more_help = list_common_fields
        parser.add_argument(
            "--help_all", "--help-all", action=_HelpAll, list_fields=list_fields, help="List all fields of a recipe."
        )


def _format_options(parser: argparse.ArgumentParser) -> str:
    """Return the help of a parser without its usage, which the command has already."""
    parser.usage = argparse.SUPPRESS
    return parser.format_help()
