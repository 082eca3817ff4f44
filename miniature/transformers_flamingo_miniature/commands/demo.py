# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo demo`: train a small Flamingo on drawn pictures, or show one that binds new words from its prompt."""

import argparse
import dataclasses


HELP = "Train a small Flamingo on drawn pictures, offline, and report what it learned."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--few-shot`, and an option for each field of [`DemoArguments`] and [`FewShotArguments`]."""
    from transformers import HfArgumentParser

    from ..demo import DemoArguments
    from ..few_shot import FewShotArguments

    parser.add_argument(
        "--few-shot", action="store_true", help="show how the shipped few-shot model binds new words from its prompt"
    )
    few_shot_defaults = {field.name: field.default for field in dataclasses.fields(FewShotArguments)}
    added = set()
    for title, kind in (("options of the demo", DemoArguments), ("options with --few-shot", FewShotArguments)):
        group = parser.add_argument_group(title)
        # The loop of argparse's own `parents`, into a group and without what both have twice
        for action in HfArgumentParser(kind, add_help=False)._actions:
            if action.dest in added:
                continue
            other = few_shot_defaults.get(action.dest, action.default)
            action.help += f" (default: {action.default}"
            action.help += ")" if other == action.default else f", or {other} with --few-shot)"
            action.default = argparse.SUPPRESS  # so that `run` sees what was given, and each dataclass has its own
            group._add_action(action)
            added.add(action.dest)
    parser.set_defaults(parser=parser)


def run(arguments: argparse.Namespace) -> None:
    """
    Run the demo, or the few-shot demo with `--few-shot`.

    Exits with status 2, as for any wrong option, where an option has no effect or its value is out of range.
    """
    from ..demo import DemoArguments, run_demo
    from ..few_shot import FewShotArguments, run_few_shot

    kind, run_kind, other = (
        (FewShotArguments, run_few_shot, DemoArguments)
        if arguments.few_shot
        else (DemoArguments, run_demo, FewShotArguments)
    )
    fields = {field.name for field in dataclasses.fields(kind)}
    others = {field.name for field in dataclasses.fields(other)} - fields
    given = vars(arguments)
    if unknown := sorted(others & given.keys()):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in unknown)
        condition = "with" if arguments.few_shot else "without"
        arguments.parser.error(f"{names} has no effect {condition} --few-shot: remove it")
    try:
        options = kind(**{name: value for name, value in given.items() if name in fields})
    except ValueError as error:
        arguments.parser.error(str(error).removesuffix("."))
    run_kind(options)
