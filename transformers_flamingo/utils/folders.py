# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Share a folder between runs and between the processes of one run: a lock, and decisions that all processes make alike."""

import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import filelock
from accelerate import PartialState
from accelerate.utils import broadcast_object_list, gather_object
from transformers.utils import logging

from ..saving_flamingo import disk_errors
from .names import summarize_names


logger = logging.get_logger(__name__)

Result = TypeVar("Result")

# A network disk may show a new file to another machine later than to its own
_SECONDS_UNTIL_SEEN = 5.0


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


def check_folder_is_shared(directory: str | os.PathLike, purpose: str) -> None:
    """
    Check that all processes see the same folder: those of several machines need a disk that all have. Every process calls this.

    Args:
        directory (`str` or `os.PathLike`): The folder, which exists where the main process is.
        purpose (`str`): What the processes share through it, for the message.

    Raises:
        OSError: some do not see what the main process writes. Raised in all processes.
    """
    if PartialState().num_processes == 1:
        return
    directory = Path(directory)

    def leave_mark() -> str:
        mark = directory / f".seen-{uuid.uuid4().hex}"
        with disk_errors(directory):
            mark.touch()
        return mark.name

    mark = directory / call_on_main_process(leave_mark)
    end = time.monotonic() + _SECONDS_UNTIL_SEEN
    while not (is_seen := mark.is_file()) and time.monotonic() < end:
        time.sleep(0.1)
    blind = gather_object([] if is_seen else [f"process {PartialState().process_index} on {socket.gethostname()!r}"])
    if PartialState().is_main_process:
        mark.unlink(missing_ok=True)
    if blind:
        raise OSError(
            f"{str(directory)!r} is not the same folder for all processes: {summarize_names(blind)} cannot see what the first process "
            f"writes there, and they share {purpose} through it. Give an absolute path on a disk that all machines have."
        )
