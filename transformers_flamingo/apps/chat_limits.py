# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Limits on the uploads and messages of the visitors of the chat page, and errors that reveal nothing about the server."""

import os
import re
import tempfile
from collections.abc import Sequence

import PIL.Image
import torch
from transformers.utils import logging

from ..files_flamingo import read_regular_file
from ..images_flamingo import open_bytes
from ..utils.redaction import redact


logger = logging.get_logger(__name__)

# Limits of what one visitor may ask of the machine that serves the page.
MAX_UPLOAD = "20mb"  # of a file
MAX_PIXELS = 50_000_000  # of an image: a small file may hold a very large one
MAX_IMAGES = 32  # of a message
MAX_EXAMPLES = 64
MAX_LABELED = 64  # images
MAX_CHARACTERS = 20_000  # of a text
MAX_NEW_TOKENS = 256
MAX_BEAMS = 16
MAX_WAITING = 16  # requests; one is answered at a time


def check_upload(path: str | os.PathLike) -> None:
    """
    Check that a file that a visitor sent is an image of a size that can be shown.

    Raises:
        ValueError: it is not. The message has the name of the file, but no path of this machine.
    """
    name = os.path.basename(path)
    try:
        with open_bytes(read_regular_file(path)) as image:  # not by Pillow alone, which runs an EPS as a program
            size = image.size
            if size[0] * size[1] <= MAX_PIXELS:
                image.load()
                return
    except PIL.Image.DecompressionBombError:
        size = None
    except Exception as error:  # each of Pillow's decoders raises its own types
        raise ValueError(
            f"The image {name!r} cannot be read: it is damaged, or not an image. Send another."
        ) from error
    shape = "" if size is None else f" of {size[0]} x {size[1]} pixels"
    raise ValueError(f"The image {name!r}{shape} is too large: at most {MAX_PIXELS:,} pixels. Send a smaller one.")


def check_message(text: str, images: Sequence[str]) -> None:
    """
    Check that a message is within the limits of the page.

    Raises:
        ValueError: it is too long, has too many images, or one of them cannot be read.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(
            f"The text has {len(text):,} characters, but at most {MAX_CHARACTERS:,} can be sent. Shorten it."
        )
    if len(images) > MAX_IMAGES:
        raise ValueError(f"The message has {len(images)} images, but at most {MAX_IMAGES} can be sent. Remove some.")
    for path in images:
        check_upload(path)


def visitor_message(error: Exception, paths: Sequence[str] = ()) -> str:
    """
    Return the message of an error for a visitor, without paths of this machine and without secrets.

    A fault of the program is logged, and the visitor only learns that it happened.

    Args:
        error (`Exception`): The error.
        paths (`Sequence[str]`): Files that the visitor sent. The message has their names instead of their paths.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return "This machine does not have enough memory for the conversation. Remove images or examples, or begin a new chat."
    if not isinstance(error, ValueError):
        logger.error("An answer failed.", exc_info=error)
        return "The answer failed because of a fault of the program. See its log on the server."
    text = str(error)
    for path in sorted(map(str, paths), key=len, reverse=True):
        text = text.replace(path, os.path.basename(path))
    for folder in (tempfile.gettempdir(), os.getcwd(), os.path.expanduser("~")):
        if folder != os.sep:
            text = re.sub(rf"{re.escape(folder)}(/[^\s'\",:;()]+)*", lambda found: os.path.basename(found[0]), text)
    return redact(text)
