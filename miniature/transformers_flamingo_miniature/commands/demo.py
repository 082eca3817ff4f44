# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo demo`: train a small Flamingo on drawn pictures, or show one that learns new words from its prompt."""

import argparse
from dataclasses import fields


HELP = "Train a small Flamingo on drawn pictures, offline, and report what it learned."


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--few-shot`, and an option for each field of [`DemoArguments`] and [`FewShotArguments`]."""
    from transformers_flamingo_cli.parsing import add_fields

    from ..demo import DemoArguments
    from ..few_shot import FewShotArguments

    parser.add_argument(
        "--few-shot",
        action="store_true",
        help="Show how the shipped few-shot model learns new words from its prompt, by default in flamingo-few-shot.",
    )
    demo, few_shot = ({field.name for field in fields(kind)} for kind in (DemoArguments, FewShotArguments))
    add_fields(parser, DemoArguments)
    add_fields(parser.add_argument_group("options with --few-shot"), FewShotArguments, exclude=demo)
    # `None` is an option that was not given, so that `run` can tell, and that each dataclass keeps its own defaults
    parser.set_defaults(**dict.fromkeys(demo | few_shot))


def run(arguments: argparse.Namespace) -> None:
    """
    Run the demo, or the few-shot demo with `--few-shot`.

    Raises:
        UsageError: an option has no effect, or its value is out of range.
    """
    from transformers_flamingo_cli.parsing import UsageError, read_fields

    from ..demo import DemoArguments, run_demo
    from ..few_shot import FewShotArguments, run_few_shot

    kind, run_kind, other = DemoArguments, run_demo, FewShotArguments
    if arguments.few_shot:
        kind, run_kind, other = FewShotArguments, run_few_shot, DemoArguments
    given = {name: value for name, value in vars(arguments).items() if value is not None}
    known, others = ({field.name for field in fields(each)} for each in (kind, other))
    if useless := sorted(given.keys() & (others - known)):
        names = ", ".join(f"--{name.replace('_', '-')}" for name in useless)
        raise UsageError(f"{names} has no effect {'with' if arguments.few_shot else 'without'} --few-shot. Remove it.")
    run_kind(read_fields(kind, argparse.Namespace(**given)))
