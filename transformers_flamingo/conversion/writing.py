# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Write the directory of a converted model whole or not at all."""

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
    Yield a temporary directory that gets the name `output_dir` when it is complete. If anything fails, nothing is left.

    Raises:
        FileExistsError: `output_dir` is not empty, a file, or the current directory, or another process wrote it meanwhile.
        OSError: it cannot be written: the disk is full, a part of its path is a file, or you have no permission.
    """
    given, output_dir = output_dir, Path(output_dir).resolve()  # a link stays, and its target is written
    try:
        occupant = _find_occupant(output_dir)
        new_parents = [parent for parent in output_dir.parents if not parent.exists()]
        abandoned = sorted(output_dir.parent.glob(f".{glob.escape(output_dir.name)}.*.partial"))
    except PermissionError as error:
        raise PermissionError(f"{given} cannot be written: Permission denied. Name another directory.") from error
    if occupant:
        raise FileExistsError(f"{given} exists and is {occupant}. Nothing was written. Name a new directory.")
    if abandoned:
        logger.warning(
            f"Another conversion into {given} is running or was killed: it left {', '.join(map(str, abandoned))}. If none is "
            "running, delete it."
        )
    try:
        with write_folder(output_dir, overwrite=False) as partial:
            yield partial
    except BaseException as error:
        with suppress(OSError):  # another program wrote into a parent meanwhile
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


def _find_occupant(output_dir: Path) -> str | None:
    """Return what has the name of a new directory already; `None` if it is nothing or an empty directory."""
    if not output_dir.is_dir():
        return "a file" if output_dir.exists() else None
    # Even if it is empty: the shell would stay in the deleted directory.
    if output_dir == Path.cwd():
        return "the current directory"
    return "not empty" if any(output_dir.iterdir()) else None


def check_space(directory: Path | None, model: FlamingoModel, dtype: torch.dtype) -> None:
    """
    Check that a model will fit on the disk, before its weights are loaded.

    Args:
        directory (`Path`, *optional*): Directory to write; `None` if nothing is written.
        model ([`FlamingoModel`]): The model, which may be on the meta device.
        dtype (`torch.dtype`): The dtype to write.

    Raises:
        OSError: the disk has too little space left.
    """
    needed = sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize
    if directory is not None and needed > (free := shutil.disk_usage(directory).free):
        raise OSError(
            f"Nothing was written: the model takes {needed / 1e9:.1f} GB, and the disk of {directory.parent} has "
            f"{free / 1e9:.1f} GB left. Free some space, or name a directory on another disk."
        )


def save_converted(
    directory: Path, model: FlamingoModel, processor: FlamingoProcessor, card: FlamingoModelCardData
) -> None:
    """Save a converted model, its processor and its model card for `from_pretrained`."""
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    card.save(directory / "README.md")
