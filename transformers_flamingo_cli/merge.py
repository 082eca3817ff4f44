# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo merge`: make a complete model of adapters, or of trained parameters that were saved alone."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .parsing import UsageError, add_fields, read_fields


HELP = "Make a complete model of adapters or of trained parameters (save_trainable_only)."


@dataclass(kw_only=True)
class MergeArguments:
    """
    Arguments of `flamingo merge`.

    Args:
        source (`str`): The folder with adapters, or with the trained parameters.
        output_dir (`str`): The folder to write, which must be empty if it exists.
        base (`str`, *optional*): The Flamingo that they belong to, if it is no longer where the folder says.
        vision, text (`str`, *optional*): Instead of `base`: the two backbones.
        dtype (`str`, *optional*, defaults to `"auto"`): Data type of the weights that are written; `"auto"` is that of the base.

    Raises:
        ValueError: the base is given twice, or one of its two backbones is missing.
    """

    source: str
    output_dir: str
    base: str | None = field(
        default=None, metadata={"help": "Flamingo that they belong to (default: what the folder says)."}
    )
    vision: str | None = field(default=None, metadata={"help": "Instead of --base: vision encoder they belong to."})
    text: str | None = field(default=None, metadata={"help": "Instead of --base: language model they belong to."})
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = field(
        default="auto", metadata={"help": "Data type of the weights that are written; auto is that of the base."}
    )

    def __post_init__(self):
        if self.base is not None and (self.vision or self.text):
            raise ValueError(
                "`--base` is a model that has its backbones. Remove `--vision` and `--text`, or `--base`."
            )
        if (self.vision is None) != (self.text is None):
            raise ValueError("A base of two backbones needs both `--vision` and `--text`.")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the two folders and the options."""
    parser.add_argument("source", metavar="FOLDER", help="What a training saved: adapters, or the trained parameters.")
    parser.add_argument(
        "output_dir", metavar="DIRECTORY", help="Where to write the model; must be empty if it exists."
    )
    add_fields(parser, MergeArguments, exclude=["source", "output_dir"])


def run(arguments: argparse.Namespace) -> None:
    """Load the base, put the folder's part into it, and write the model with its processor and a card."""
    options = read_fields(MergeArguments, arguments)

    import torch

    from transformers_flamingo.cards.model_card import FlamingoModelCardData
    from transformers_flamingo.saving_flamingo import write_folder
    from transformers_flamingo.utils.loading import check_name, load_partial
    from transformers_flamingo.utils.partial_models import fetch_partial, find_partial

    source = fetch_partial(options.source)
    check_name(source)
    content = find_partial(source)
    if content is None:
        if not Path(source).is_dir():
            raise FileNotFoundError(
                f"There is no folder {source!r}, and no repository of adapters or trained parameters. Give the folder that a training saved."
            )
        raise UsageError(
            f"{options.source!r} has neither adapters nor trained parameters alone, so there is nothing to merge: a complete "
            "model is loaded as it is"
        )
    names = {"model": options.base, "vision": options.vision, "text": options.text}
    base = {name: value for name, value in names.items() if value is not None}
    dtype = options.dtype if options.dtype == "auto" else getattr(torch, options.dtype)
    with write_folder(options.output_dir, overwrite=False) as partial:
        model, processor = load_partial(source, dtype, base or None)
        model.save_pretrained(partial)
        processor.save_pretrained(partial)
        note = f"Made by `flamingo merge` of {content} and the model that they were trained on."
        FlamingoModelCardData.from_model(model, notes=[note]).save(partial / "README.md")
    print(f"{options.output_dir}: a complete Flamingo, of {content} in {options.source} and their base")
