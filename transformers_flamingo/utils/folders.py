# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Share a folder between runs and between the processes of one run: a lock, and decisions that all processes make alike."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import filelock
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from transformers.utils import logging

from ..saving_flamingo import disk_errors


logger = logging.get_logger(__name__)

Result = TypeVar("Result")


@contextmanager
def lock_folder(directory: str | os.PathLike, lock_name: str, *, message: str, nested: bool = False) -> Iterator[None]:
    """
    Keep other runs out of a folder for as long as the block lasts.

    The system releases the lock when the process ends, however it ends. Where the disk has no locks, a warning says so and
    the block runs without one.

    Args:
        directory (`str`): The folder. It is created if it does not exist.
        lock_name (`str`): Name of the file inside it that is locked.
        message (`str`): The error for the run that comes second: what holds the folder, and what to do.
        nested (`bool`, *optional*, defaults to `False`): Whether blocks of one process may be nested.

    Raises:
        BlockingIOError: the folder is locked. The error has the given message.
        OSError: the folder cannot be written.
    """
    directory = Path(directory)
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(directory.resolve() / lock_name, is_singleton=nested, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise BlockingIOError(message) from None
        except NotImplementedError:
            logger.warning(f"The disk of {str(directory)!r} has no locks. Start one run at a time in this folder.")
    try:
        yield
    finally:
        lock.release()


def call_on_main_process(function: Callable[[], Result]) -> Result:
    """
    Call a function in the main process and return its result in all processes. Every process calls this.

    Where several processes read a disk, one of them may see a file that another one does not see yet, and they would decide
    differently. An error of the main process is raised in all of them, so that none is left waiting for the others.

    Raises:
        OSError, ValueError: the function raised one in the main process.
    """
    results: list[Any] = [None]
    if PartialState().is_main_process:
        try:
            results = [function()]
        except (OSError, ValueError) as error:  # is sent to the other processes, which wait for a result
            results = [error]
    if PartialState().num_processes > 1:
        broadcast_object_list(results)
    if isinstance(results[0], Exception):
        raise results[0]
    return results[0]
