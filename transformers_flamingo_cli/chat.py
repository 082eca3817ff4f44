# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo chat`: serve the chat page of a model."""

import argparse
from dataclasses import dataclass, field
from typing import Literal

from .parsing import add_fields, check_range, read_fields


HELP = "Chat with a saved Flamingo model in the browser."


@dataclass(kw_only=True)
class ChatArguments:
    """
    Arguments of `flamingo chat`, as in [`run_chat`](transformers_flamingo.apps.chat_page).

    Raises:
        ValueError: there is no such port.
    """

    model: str
    host: str = field(
        default="127.0.0.1", metadata={"help": "Address to listen on; the default is this machine only."}
    )
    port: int | None = field(
        default=None, metadata={"help": "Port to listen on (default: the first that is free from 7860)"}
    )
    share: bool = field(default=False, metadata={"help": "Open a public link through Gradio's servers."})
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = field(
        default="auto", metadata={"help": "Data type of the weights; auto is as saved."}
    )
    example_images: list[str] | None = field(
        default=None,
        metadata={"help": "Images that an empty chat offers to try (default: three that are drawn)."},
    )
    chat_template: Literal["text", "few_shot"] | None = field(
        default=None,
        metadata={
            "help": "Chat template of the language model, or that of few-shot prompts (default: the saved one)."
        },
    )

    def __post_init__(self):
        check_range(self, "port", 1, 65535)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model and the options."""
    parser.add_argument("model", metavar="DIRECTORY", help="Directory or Hub name of the model.")
    add_fields(parser, ChatArguments, exclude=["model"])


def run(arguments: argparse.Namespace) -> None:
    """Serve the page until it is interrupted."""
    options = read_fields(ChatArguments, arguments)

    from transformers_flamingo.apps.chat_page import run_chat

    run_chat(
        options.model,
        options.host,
        options.port,
        options.share,
        options.dtype,
        options.chat_template,
        options.example_images,
    )
