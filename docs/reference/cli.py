# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
The page of the command line, made of the parsers.

    python docs/reference/cli.py      # writes docs/reference/cli.md
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path

from transformers_flamingo_cli.command_line import (
    COMMANDS,
    INSTALL_MINIATURE,
    MINIATURE_COMMANDS,
    find_commands,
    make_parser,
)


PAGE = Path(__file__).with_suffix(".md")
HEAD = """# Command line

`flamingo COMMAND --help` shows what is below, and for `train`, `evaluate` and `pretrain` the fields of recipes and tasks. Options are spelled with
`_` or `-`. Made of the parsers by `python docs/reference/cli.py`.
"""
# What follows the options of a command whose other options are the fields of a recipe or of a task
FIELDS = {
    "check": "All other options are [fields of the recipe](../recipe-fields.md).",
    "evaluate": "`--task NAME --help` shows the files and fields of a task, as does [Evaluation](../evaluation.md#tasks-and-their-files).",
    "train": "All other options are [fields of the recipe](../recipe-fields.md).",
    "pretrain": "All other options are fields of the recipe, which are those of [`VisionPretrainingArguments` or "
    "`TextPretrainingArguments`](pretraining.md) and of transformers' `TrainingArguments`.",
}


def make_page() -> str:
    """Return the page, with a section for each command that this repository has."""
    commands = find_commands()
    names = (*COMMANDS, *MINIATURE_COMMANDS)
    if missing := [name for name in names if name not in commands]:
        raise RuntimeError(f"The page has {', '.join(missing)} too. {INSTALL_MINIATURE}")
    parts = [HEAD, "| command | what it does |\n|---|---|"]
    parts += [f"| [`flamingo {name}`](#flamingo-{name}) | {escape(commands[name].load().HELP)} |" for name in names]
    for name in names:
        parts += ["", *describe(make_parser(commands[name]))]
        if name in FIELDS:
            parts += ["", FIELDS[name]]
    return "\n".join(parts) + "\n"


def describe(parser: argparse.ArgumentParser, level: int = 2) -> Iterator[str]:
    """Yield the lines of a command: its usage, its arguments, examples, and the same of its subcommands."""
    yield f"{'#' * level} {parser.prog}"
    yield f"\n{parser.description}\n"
    yield f"    {' '.join(usage(parser))}"
    actions = [action for action in parser._actions if not isinstance(action, argparse._HelpAction)]
    rows = [action for action in actions if not isinstance(action, argparse._SubParsersAction)]
    if rows:
        yield "\n| argument | |\n|---|---|"
        yield from map(describe_action, rows)
    if parser.epilog:
        yield "\n" + "\n".join(f"    {line}".rstrip() for line in parser.epilog.strip().splitlines())
    for action in actions:
        if isinstance(action, argparse._SubParsersAction):
            for subparser in action.choices.values():
                yield from ("", *describe(subparser, level + 1))


def usage(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield the words of the usage: what must be given, in its order."""
    if parser.usage:
        yield (parser.usage % {"prog": parser.prog}).replace(" [-h]", "")
        return
    yield parser.prog
    for action in parser._actions:
        if not action.option_strings:
            value = action.metavar or f"{{{','.join(action.choices)}}}"
            yield f"{value} [{value} ...]" if action.nargs == "+" else value
        elif action.required:
            yield f"{action.option_strings[0]} {value_of(action)}"
    yield "[--NAME VALUE ...]"


def value_of(action: argparse.Action) -> str:
    """Return the name of the value of an option."""
    name = action.metavar or {int: "N", float: "X"}.get(action.type)
    if name is None:
        name = "VALUE" if action.choices or len(action.dest) > 12 else action.dest.upper()
    return {"+": f"{name} [{name} ...]", "*": f"[{name} ...]", 0: ""}.get(action.nargs, name)


def describe_action(action: argparse.Action) -> str:
    """Return the row of an argument."""
    if not action.option_strings:
        shown = action.metavar or action.dest
    else:
        shown = f"{action.option_strings[0]} {value_of(action)}".strip()
    text = (action.help or "") % {"default": action.default}
    if action.choices:
        text = f"One of {', '.join(f'`{choice}`' for choice in action.choices)}. {escape(text)}"
    else:
        text = escape(text)
    return f"| `{escape(shown)}` | {'**Required.** ' if action.required and action.option_strings else ''}{text} |"


def escape(text: str) -> str:
    """Return a text for a cell of a table. What looks like HTML or like an option is code."""
    text = " ".join(text.split()).replace("|", "\\|")
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else part.replace("<", "&lt;") for part in parts)


if __name__ == "__main__":
    PAGE.write_text(make_page(), encoding="utf-8")
