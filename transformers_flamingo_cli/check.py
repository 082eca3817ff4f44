# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo check`: look at the data before a training."""

import argparse
import json
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from .parsing import Parser, UsageError, add_fields, check_range, read_fields, suggest_options


if TYPE_CHECKING:
    from transformers_flamingo.training.recipe_check import DataCheck


# So that a recipe for an accelerator can be checked on a machine without one
CPU = "--use_cpu=true"
HELP = "Read data as a training would, and say what is in it and what is wrong. No weights are read."


@dataclass(kw_only=True)
class CheckArguments:
    """
    Arguments of `flamingo check`.

    Args:
        source (`str`): A recipe, or a data file, a pattern or a folder.
        text, vision, model (`str`, *optional*): Backbones or saved Flamingo; of a recipe, they replace those in it.
        format, split, max_length, max_images, options (*optional*): Fields of [`DataSource`], for data without a recipe.
        max_rows (`int`, *optional*): Maximum number of rows of each source.
        max_errors (`int`, *optional*, defaults to 20): Maximum number of bad rows of each source that are listed.
        show_rows (`int`, *optional*, defaults to 3): Number of rows of each source that are shown, at most 12.
        output_dir (`str`, *optional*, defaults to `"check"`): Folder of the contact sheet.

    Raises:
        ValueError: a number is out of its range.
    """

    source: str
    text: str | None = field(
        default=None, metadata={"help": "Name or directory of the language model, for its tokenizer."}
    )
    vision: str | None = field(
        default=None,
        metadata={
            "help": "Name or directory of the vision encoder, for its image processor (default: CLIP's, 224 pixels)."
        },
    )
    model: str | None = field(
        default=None, metadata={"help": "Instead of both: name or directory of a saved Flamingo."}
    )
    format: str | None = field(
        default=None, metadata={"help": "Of data without a recipe: layout of the files (default: it is found out)."}
    )
    split: str | None = field(
        default=None, metadata={"help": "Of data without a recipe: read only files with this word in their name."}
    )
    max_length: int | None = field(
        default=None, metadata={"help": "Of data without a recipe: maximum number of tokens of a row."}
    )
    max_images: int | None = field(
        default=None, metadata={"help": "Of data without a recipe: maximum number of images of a row."}
    )
    options: str | None = field(
        default=None, metadata={"help": "Of data without a recipe: fields of the reader, as JSON."}
    )
    max_rows: int | None = field(
        default=None, metadata={"help": "Maximum number of rows of each source that are read (default: all)."}
    )
    max_errors: int = field(
        default=20, metadata={"help": "Maximum number of bad rows of each source that are listed."}
    )
    show_rows: int = field(default=3, metadata={"help": "Number of rows of each source that are shown, at most 12."})
    output_dir: str = field(
        default="check", metadata={"help": "Folder of the contact sheet, contact_sheet.png, with the first images."}
    )

    def __post_init__(self):
        for name in ("max_rows", "max_length", "max_images"):
            check_range(self, name, 1)
        check_range(self, "max_errors", 0)
        check_range(self, "show_rows", 0, 12)


# What a training of this data can be told, and this command
_HOW_TO_CHANGE = (
    ' Where the reader needs to know more, give `--options \'{"media_root": "FOLDER"}\'` and the like (docs/data-formats.md), which in a '
    "recipe are `options` of the source."
)
_OF_DATA = ("format", "split", "max_length", "max_images", "options")


def add_arguments(parser: Parser) -> None:
    """Add the recipe or data, and the options. Others are fields of the recipe."""
    parser.usage = "%(prog)s [-h] RECIPE_OR_DATA [--NAME VALUE ...]"
    parser.allow_abbrev = False  # a field of a recipe may begin with the name of an option
    parser.add_argument(
        "source",
        metavar="RECIPE_OR_DATA",
        help="YAML file or name of a recipe, whose fields can be overridden as in `flamingo train`; or a data file, a pattern or a folder.",
    )
    parser.set_defaults(overrides=[])
    add_fields(parser, CheckArguments, exclude=["source"])


def run(arguments: argparse.Namespace) -> None:
    """Check a recipe or data, and print what was found."""
    options = read_fields(CheckArguments, arguments)

    from transformers_flamingo.training.recipe_file import is_recipe

    if is_recipe(options.source):
        report(_check_recipe(options, arguments.overrides), options)
        return
    if arguments.overrides:
        given = [name.partition("=")[0] for name in arguments.overrides if name.startswith("-")]
        known = [f"--{field.name}" for field in fields(CheckArguments)]
        raise UsageError(
            f"{options.source!r} is data, not a recipe, so it has no option {' '.join(given or arguments.overrides)}"
            f"{suggest_options(given, known)}."
        )
    report(_check_data(options), options, _HOW_TO_CHANGE)


def report(check: "DataCheck", options: CheckArguments, remedy: str = "") -> None:
    """
    Print what was found, and draw the contact sheet.

    Args:
        check ([`DataCheck`]): What was found.
        options ([`CheckArguments`]): How much is shown, and where the contact sheet goes.
        remedy (`str`, *optional*, defaults to `""`): The end of the message if there are errors.

    Raises:
        ValueError: there are errors.
    """
    print(check.describe(num_rows=options.show_rows, max_errors=options.max_errors), flush=True)
    sheet = check.draw(options.output_dir)
    if sheet is not None:
        print(f"{sheet}: the first images, as the vision encoder gets them, with what is learned")
    if check.num_errors:
        from transformers_flamingo.utils.names import count_of

        raise ValueError(f"{options.source!r} has {count_of(check.num_errors, 'error')}, listed above.{remedy}")


def _check_recipe(options: CheckArguments, overrides: list[str]) -> "DataCheck":
    from transformers_flamingo.training import check_recipe, read_recipe

    _refuse(options, _OF_DATA, "it is for data without a recipe. In a recipe, give `--data.NAME.{name}`.")
    backbones = {name: getattr(options, name) for name in ("text", "vision", "model")}
    given = [f"--{name}={value}" for name, value in backbones.items() if value is not None]
    recipe = read_recipe(options.source, [CPU, *overrides, *given])
    return check_recipe(recipe, max_rows=options.max_rows)


def _check_data(options: CheckArguments) -> "DataCheck":
    from transformers_flamingo.training import DataSource, check_data
    from transformers_flamingo.training.found_data import default_source_name, find_sources

    fields = {name: getattr(options, name) for name in _OF_DATA if getattr(options, name) is not None}
    if "options" in fields:
        fields["options"] = _parse_options(fields["options"])
    found, held_out, lines = find_sources(
        options.source, format=options.format, split=options.split, options=fields.get("options")
    )
    if options.format is None:
        print(lines[0], flush=True)
    if held_out is not None:
        print(*lines[1:], sep="\n", flush=True)
    name = default_source_name()  # that of `flamingo train --data`
    processor, positions = _read_model(options)
    source, other = (
        None if of_kind is None else DataSource(name=name, **{**fields, **of_kind}).limit_length(positions)
        for of_kind in (found, held_out)
    )
    return check_data(source, processor, held_out=other, max_rows=options.max_rows)


def _read_model(options: CheckArguments) -> tuple[Any, int | None]:
    """Return the processor, and the number of positions of the language model."""
    from transformers_flamingo import FlamingoProcessor
    from transformers_flamingo.image_processing_flamingo import FlamingoImageProcessor
    from transformers_flamingo.tokenizers_flamingo import load_tokenizer
    from transformers_flamingo.training.arguments import ModelArguments
    from transformers_flamingo.training.build import build_processor, find_backbone, read_text_config

    if options.model is not None:
        _refuse(options, ("text", "vision"), "`--model` has its own. Remove one of the two.")
        arguments = ModelArguments(model=options.model)
    elif options.text is not None:
        arguments = ModelArguments(text=options.text, vision=options.vision or "none")
    else:
        raise UsageError(
            f"{options.source!r} is data, and its tokens depend on the tokenizer. Give `--text` with the name or folder of the language "
            "model (and `--vision`), or `--model` with a saved Flamingo, or check a recipe."
        )
    if options.model is None and options.vision is None:
        processor = FlamingoProcessor(FlamingoImageProcessor(), load_tokenizer(find_backbone(options.text, "text")))
    else:
        processor = build_processor(arguments)
    return processor, getattr(read_text_config(arguments), "max_position_embeddings", None)


def _refuse(options: CheckArguments, names: tuple[str, ...], reason: str) -> None:
    for name in names:
        if getattr(options, name) is not None:
            raise UsageError(f"`--{name}` has no effect here: {reason.format(name=name)}")


def _parse_options(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise UsageError(f"`--options` is not JSON ({error}).") from error
    if not isinstance(value, dict):
        raise UsageError(f'`--options` is {text}. Give names with values, such as \'{{"prompt": "Output:"}}\'.')
    return value
