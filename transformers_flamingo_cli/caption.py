# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo caption`: print a caption for each image, and draw what the model looked at."""

import argparse
import os
import re
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
        show_attention (`bool`, *optional*, defaults to `False`): Whether to draw what the model looked at for each word.
        attention_dir (`str`, *optional*): Folder of these drawings, by default the current one.

    Raises:
        ValueError: a number is below 1, or there is a folder for drawings, and nothing is drawn.
    """

    images: list[str]
    model: str = field(metadata={"help": "Directory or Hub name of the model."})
    prompt: str = field(default="", metadata={"help": "Text after the image, such as 'Output:'."})
    max_new_tokens: int = field(default=32, metadata={"help": "Maximum number of tokens of a caption."})
    num_beams: int = field(default=1, metadata={"help": "Number of beams of beam search."})
    show_attention: bool = field(
        default=False,
        metadata={
            "help": "Draw for each word where in the image the model looked, and write it as NAME.attention.png."
        },
    )
    attention_dir: str | None = field(
        default=None, metadata={"help": "Directory of these drawings (default: the current one)."}
    )

    def __post_init__(self):
        check_range(self, "max_new_tokens", 1)
        check_range(self, "num_beams", 1)
        if self.attention_dir is not None and not self.show_attention:
            raise ValueError(
                f"`--attention-dir` is {self.attention_dir!r}, but nothing is drawn without `--show-attention`. Give it too, or remove "
                "the folder."
            )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the images and the options."""
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="Files or URLs.")
    add_fields(parser, CaptionArguments, exclude=["images"])


def run(arguments: argparse.Namespace) -> None:
    """Print a line with the caption of each image."""
    options = read_fields(CaptionArguments, arguments)

    if options.show_attention:
        from transformers_flamingo.cards.attention_sheet import (
            draw_attention_sheet,
            find_word_attention,
            image_in_view,
        )
    from transformers_flamingo.utils.literal_text import encode_literal, special_token_spans
    from transformers_flamingo.utils.loading import check_answer_length, load_flamingo

    missing = [path for path in options.images if not Path(path).is_file() and "://" not in path]
    if missing:
        raise FileNotFoundError(f"No such image: {', '.join(missing)}. Nothing was captioned. Check the paths.")
    drawings = name_drawings(options.images, Path(options.attention_dir or "."))
    if options.show_attention:
        _make_folder(drawings[0].parent)
    model, processor = load_flamingo(options.model)
    marker = processor.image_token
    # What the user typed is text, even a marker in it
    typed = [(len(marker) + start, len(marker) + end) for start, end in special_token_spans(processor, options.prompt)]
    prompt = encode_literal(processor, marker + options.prompt, typed, [])
    check_answer_length(model, prompt["input_ids"].shape[1], options.max_new_tokens)
    asked = {"output_cross_attentions": True, "return_dict_in_generate": True} if options.show_attention else {}
    for path, drawing in zip(options.images, drawings, strict=True):
        inputs = encode_literal(processor, marker + options.prompt, typed, [path])
        inputs = inputs.to(model.device, model.dtype)
        generated = model.generate(
            **inputs, max_new_tokens=options.max_new_tokens, num_beams=options.num_beams, do_sample=False, **asked
        )
        num_tokens = inputs["input_ids"].shape[1]
        answer = (generated.sequences if options.show_attention else generated)[0, num_tokens:]
        print(f"{path}: {processor.decode(answer, skip_special_tokens=True).strip()}", flush=True)
        if options.show_attention:
            words = find_word_attention(processor, generated, num_tokens)
            draw_attention_sheet(drawing, image_in_view(processor, inputs), words)
            print(f"    looked at: {drawing}", flush=True)


def _make_folder(directory: Path) -> None:
    """Make the folder of the drawings before anything is captioned, and check that files can be written there."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"`--attention-dir` is {str(directory)!r}, which cannot be a folder ({error.strerror}). Nothing was captioned. Give another."
        ) from error
    if not os.access(directory, os.W_OK):
        raise PermissionError(
            f"`--attention-dir` is {str(directory)!r}, where no file can be written. Give another folder."
        )


def name_drawings(images: list[str], directory: Path) -> list[Path]:
    """Name the drawing of each image after it. Images of one name get numbers."""
    drawings: list[Path] = []
    for image in images:
        # An address may have parameters, and a name that no file can have
        name = re.sub(r"[^\w.-]+", "_", Path(image.split("?")[0]).stem) or "image"
        taken = sum(drawing.name.startswith(f"{name}.attention") for drawing in drawings)
        drawings.append(directory / f"{name}.attention{f'-{taken + 1}' if taken else ''}.png")
    return drawings
