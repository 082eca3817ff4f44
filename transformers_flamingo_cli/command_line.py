# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Find the subcommand that was asked for, run it, and report errors that a user can fix in one line."""

import argparse
import difflib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points

from .parsing import Parser, UsageError


GROUP = "transformers_flamingo.commands"
COMMANDS = (
    "caption",
    "predict",
    "chat",
    "convert",
    "fetch",
    "check",
    "train",
    "merge",
    "evaluate",
    "pretrain",
    "memory",
)
# Registered by `transformers-flamingo-miniature`. Where it is not installed, they say how to install it
MINIATURE_COMMANDS = ("demo", "miniature-data", "miniature-backbones")
INSTALL_MINIATURE = 'pip install "transformers-flamingo[demo]", or in a clone: pip install -e miniature'


def find_commands() -> dict[str, EntryPoint]:
    """Return the subcommands of this package and of installed plugins by name, without importing any."""
    own = {name: EntryPoint(name, f"{__package__}.{name}", GROUP) for name in COMMANDS}
    return own | {entry.name: entry for entry in sorted(entry_points(group=GROUP)) if entry.name not in own}


def make_parser(entry: EntryPoint) -> Parser:
    """
    Make the parser of a subcommand, with all of its arguments.

    Args:
        entry (`EntryPoint`): The subcommand, of [`find_commands`].
    """
    module = entry.load()
    parser = Parser(prog=f"flamingo {entry.name}", description=module.HELP)
    module.add_arguments(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """
    Run the `flamingo` command.

    Args:
        argv (`Sequence[str]`, *optional*): The arguments, by default those of the process.

    Returns:
        `int`: The exit code: 0, 1 for an error that a user can fix, 130 after Ctrl-C, or 143 where a command ends itself after
            SIGTERM.

    Raises:
        SystemExit: after `--help` (0), and if the arguments are wrong (2).
        Exception: a fault of this package. Its traceback should be reported.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    commands = find_commands()
    command = argv[0] if argv else None
    if command in MINIATURE_COMMANDS and command not in commands:
        print(
            f"flamingo {command}: The miniature world is not installed. Install it: {INSTALL_MINIATURE}",
            file=sys.stderr,
        )
        return 1
    if command in commands:
        return _run_command(commands[command], argv[1:])
    if command is not None and not command.startswith("-"):
        close = difflib.get_close_matches(command, [*commands, *MINIATURE_COMMANDS], n=1)
        hint = f" Did you mean {close[0]!r}?" if close else f" Commands are {', '.join(commands)}."
        print(f"flamingo: There is no command {command!r}.{hint} See `flamingo --help`.", file=sys.stderr)
        return 2
    parser = Parser(
        prog="flamingo",
        description="Flamingo, the few-shot visual language model.",
        formatter_class=argparse.RawDescriptionHelpFormatter,  # a command to copy is not broken
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, entry in commands.items():
        try:
            summary = entry.load().HELP
        except Exception as error:  # whatever breaks in a plugin, the other commands must keep their help
            summary = f"(cannot be loaded: {' '.join(str(error).split()) or type(error).__name__})".replace("%", "%%")
        subparsers.add_parser(name, help=summary)
    missing = [name for name in MINIATURE_COMMANDS if name not in commands]
    if missing:
        parser.epilog = f"For {', '.join(missing)}: {INSTALL_MINIATURE}"
    parser.parse_args(argv[:1])  # exits: it is a call for help, or not a command
    return 2


def _run_command(entry: EntryPoint, argv: Sequence[str]) -> int:
    name = f"flamingo {entry.name}"
    try:
        from .quiet import quiet_libraries

        quiet_libraries()
        module, parser = entry.load(), make_parser(entry)
        arguments, others = parser.parse_known_args(argv)
        if hasattr(arguments, "overrides"):  # of a recipe, which reads them itself
            arguments.overrides = others
        elif others:
            # Without their values: one may be a token
            options = [other.partition("=")[0] for other in others if other.startswith("-")]
            parser.error(f"unrecognized arguments: {' '.join(options or others)}{parser.suggest(options)}")
        module.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt as error:
        if os.environ.get("RANK", "0") == "0":  # one line for all processes of a training
            print(f"{name}: {str(error) or 'stopped by Ctrl-C.'}", file=sys.stderr)
        return 128 + getattr(error, "signal_number", signal.SIGINT)
    except Exception as error:
        from transformers_flamingo.utils.errors import user_message

        message = user_message(error)
        if message is None:
            raise
        _log_traceback(error)
        if isinstance(error, UsageError):
            parser.error(message)
        print(f"{name}: {message}", file=sys.stderr)
        if isinstance(error, BrokenPipeError):  # or Python tries once more to write at its end
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 0


def _log_traceback(error: Exception) -> None:
    """Write the traceback of an error that is shown as one line, if `TRANSFORMERS_VERBOSITY=debug` asks for it."""
    from transformers.utils import logging

    if logging.get_verbosity() <= logging.DEBUG:
        traceback.print_exception(error)
