# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo caption`: print a caption for each image."""

import argparse
from dataclasses import dataclass, field
from pathlib import Path

from .parsing import add_fields, check_range, read_fields


HELP = "Caption images with a saved Flamingo."


@dataclass(kw_only=True)
class CaptionArguments:
    """
    Arguments of `flamingo caption`.

    Args:
        images (`list[str]`): Files or URLs.
        model (`str`): Folder or Hub name.
        prompt (`str`, *optional*, defaults to `""`): Text after the image. Special tokens in it are ordinary text.
        max_new_tokens (`int`, *optional*, defaults to 32): Maximum number of tokens of a caption.
        num_beams (`int`, *optional*, defaults to 1): Beams of beam search.

    Raises:
        ValueError: a number is below 1.
    """

    images: list[str]
    model: str = field(metadata={"help": "Directory or Hub name of the model."})
    prompt: str = field(default="", metadata={"help": "Text after the image, such as 'Output:'."})
    max_new_tokens: int = field(default=32, metadata={"help": "Maximum number of tokens of a caption."})
    num_beams: int = field(default=1, metadata={"help": "Number of beams of beam search."})

    def __post_init__(self):
        check_range(self, "max_new_tokens", 1)
        check_range(self, "num_beams", 1)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the images and the options."""
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="Files or URLs.")
    add_fields(parser, CaptionArguments, exclude=["images"])


def run(arguments: argparse.Namespace) -> None:
    """Print a line with the caption of each image."""
    options = read_fields(CaptionArguments, arguments)

    from transformers_flamingo.utils.literal_text import encode_literal, special_token_spans
    from transformers_flamingo.utils.loading import check_answer_length, load_flamingo

    missing = [path for path in options.images if not Path(path).is_file() and "://" not in path]
    if missing:
        raise FileNotFoundError(f"No such image: {', '.join(missing)}. Nothing was captioned. Check the paths.")
    model, processor = load_flamingo(options.model)
    marker = processor.image_token
    # What the user typed is text, even a marker in it
    typed = [(len(marker) + start, len(marker) + end) for start, end in special_token_spans(processor, options.prompt)]
    prompt = encode_literal(processor, marker + options.prompt, typed, [])
    check_answer_length(model, prompt["input_ids"].shape[1], options.max_new_tokens)
    for path in options.images:
        inputs = encode_literal(processor, marker + options.prompt, typed, [path])
        inputs = inputs.to(model.device, model.dtype)
        generated = model.generate(
            **inputs, max_new_tokens=options.max_new_tokens, num_beams=options.num_beams, do_sample=False
        )
        answer = generated[0, inputs["input_ids"].shape[1] :]
        print(f"{path}: {processor.decode(answer, skip_special_tokens=True).strip()}", flush=True)
