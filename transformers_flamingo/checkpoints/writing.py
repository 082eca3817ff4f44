# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Write the directory of a converted model: complete, or not at all."""

import errno
import glob
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers.utils import logging

from ..files import write_folder
from ..model_card import FlamingoModelCardData
from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor
from .conversion import first_line


logger = logging.get_logger(__name__)


@contextmanager
def new_directory(output_dir: str | os.PathLike) -> Iterator[Path]:
    """
    Write a directory that takes the name `output_dir` in the end, whole. If anything fails, nothing is left.

    Raises:
        FileExistsError: `output_dir` is not empty, a file, or the current directory, or another process wrote it meanwhile.
        OSError: it cannot be written: the disk is full, or it must not be.
    """
    given, output_dir = output_dir, Path(output_dir).resolve()  # a link stays, and its target is written
    what = None
    if output_dir.is_dir():
        # The current directory, even an empty one, would be replaced under the feet of the shell.
        what = (
            "the current directory" if output_dir == Path.cwd() else "not empty" if any(output_dir.iterdir()) else None
        )
    elif output_dir.exists():
        what = "a file"
    if what:
        raise FileExistsError(f"{given} exists and is {what}. Nothing was written; name a new directory.")
    new_parents = [parent for parent in output_dir.parents if not parent.exists()]
    abandoned = sorted(output_dir.parent.glob(f".{glob.escape(output_dir.name)}.*.partial"))
    if abandoned:
        logger.warning(
            f"Another conversion into {given} is running or was killed: there is {', '.join(map(str, abandoned))}. If none is "
            "running, delete it."
        )
    is_body = False
    try:
        with write_folder(output_dir, overwrite=False) as partial:
            is_body = True
            yield partial
            is_body = False
    except BaseException as error:
        with suppress(OSError):  # another program put something there
            for parent in new_parents:
                parent.rmdir()
        if isinstance(error, OSError) and not is_body:
            if isinstance(error, FileExistsError) and output_dir.is_dir():
                raise FileExistsError(
                    f"{given} was written by another process meanwhile, and was left as it is. Name another directory."
                ) from error
            raise _writing_error(error, given) from error
        raise


def _writing_error(error: Exception, directory: str | os.PathLike) -> OSError:
    """Say why a directory cannot be written; safetensors gives the system's number only in its text."""
    found = re.search(r"os error (\d+)", str(error))
    number = getattr(error, "errno", None) or (int(found[1]) if found else None)
    why = {
        errno.ENOSPC: "the disk is full. Free some space, or name a directory on another disk.",
        errno.EDQUOT: "your quota of the disk is used up. Free some space, or name a directory on another disk.",
        errno.EFBIG: "no file as large is allowed there. Name a directory on another disk.",
        errno.EACCES: "you have no permission. Name another directory.",
        errno.EPERM: "you have no permission. Name another directory.",
        errno.EROFS: "its disk is read-only. Name another directory.",
        errno.ENOTDIR: "a part of its path is a file. Name another directory.",
        errno.EEXIST: "a part of its path is a file. Name another directory.",
        errno.ENAMETOOLONG: "its name is too long. Name another directory.",
    }.get(number, first_line(error))
    kind = type(error) if isinstance(error, OSError) else OSError
    return kind(f"Nothing was written to {directory}: {why}")


def check_space(directory: Path | None, model: FlamingoModel, dtype: torch.dtype) -> None:
    """Check before anything is computed that the model will fit on the disk of `directory`, with an `OSError` if not."""
    needed = sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize
    if directory is not None and needed > (free := shutil.disk_usage(directory).free):
        raise OSError(
            f"Nothing was written: the model takes {needed / 1e9:.1f} GB, and the disk of {directory.parent} has "
            f"{free / 1e9:.1f} GB left. Free some space, or name a directory on another disk."
        )


def write(directory: Path, model: FlamingoModel, processor: FlamingoProcessor, card: FlamingoModelCardData) -> None:
    """Write model, processor and card for `from_pretrained`, with an `OSError` in our words if the disk is full."""
    try:
        model.save_pretrained(directory)
        processor.save_pretrained(directory)
        card.save(directory / "README.md")
    except (OSError, SafetensorError) as error:
        raise _writing_error(error, directory.parent) from error
