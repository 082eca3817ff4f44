# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Write the directory of a converted model: complete, or not at all."""

import glob
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from transformers.utils import logging

from ..cards.model_card import FlamingoModelCardData
from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor
from ..saving_flamingo import write_folder


logger = logging.get_logger(__name__)


@contextmanager
def new_directory(output_dir: str | os.PathLike) -> Iterator[Path]:
    """
    Write a directory that takes the name `output_dir` in the end, whole. If anything fails, nothing is left.

    Raises:
        FileExistsError: `output_dir` is not empty, a file, or the current directory, or another process wrote it meanwhile.
        OSError: it cannot be written: the disk is full, a part of its path is a file, or you have no permission.
    """
    given, output_dir = output_dir, Path(output_dir).resolve()  # a link stays, and its target is written
    try:
        what = _occupant(output_dir)
        new_parents = [parent for parent in output_dir.parents if not parent.exists()]
        abandoned = sorted(output_dir.parent.glob(f".{glob.escape(output_dir.name)}.*.partial"))
    except PermissionError as error:
        raise PermissionError(f"{given} cannot be written: Permission denied. Name another directory.") from error
    if what:
        raise FileExistsError(f"{given} exists and is {what}. Nothing was written; name a new directory.")
    if abandoned:
        logger.warning(
            f"Another conversion into {given} is running or was killed: there is {', '.join(map(str, abandoned))}. If none is "
            "running, delete it."
        )
    try:
        with write_folder(output_dir, overwrite=False) as partial:
            yield partial
    except BaseException as error:
        with suppress(OSError):  # another program put something there
            for parent in new_parents:
                parent.rmdir()
        if isinstance(error, FileExistsError | NotADirectoryError) and not output_dir.parent.is_dir():
            raise NotADirectoryError(
                f"{given} cannot be written: a part of its path is a file. Name another directory."
            ) from error
        if isinstance(error, FileExistsError) and output_dir.is_dir():
            raise FileExistsError(
                f"{given} was written by another process meanwhile, and was left as it is. Name another directory."
            ) from error
        raise


def _occupant(output_dir: Path) -> str | None:
    """Return what is where a new directory will be, `None` if that is nothing or an empty one."""
    if not output_dir.is_dir():
        return "a file" if output_dir.exists() else None
    # Even an empty one would be replaced under the feet of the shell
    if output_dir == Path.cwd():
        return "the current directory"
    return "not empty" if any(output_dir.iterdir()) else None


def check_space(directory: Path | None, model: FlamingoModel, dtype: torch.dtype) -> None:
    """Check before anything is computed that the model will fit on the disk of `directory`, with an `OSError` if not."""
    needed = sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize
    if directory is not None and needed > (free := shutil.disk_usage(directory).free):
        raise OSError(
            f"Nothing was written: the model takes {needed / 1e9:.1f} GB, and the disk of {directory.parent} has "
            f"{free / 1e9:.1f} GB left. Free some space, or name a directory on another disk."
        )


def write(directory: Path, model: FlamingoModel, processor: FlamingoProcessor, card: FlamingoModelCardData) -> None:
    """Write model, processor and card, for `from_pretrained`."""
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    card.save(directory / "README.md")
