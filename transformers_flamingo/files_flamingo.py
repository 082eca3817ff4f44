# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Read files and addresses that others name, and refuse what hangs, never ends, or is not a file.

The file travels with a checkpoint as remote code: it stays flat and imports nothing of its own package.
"""

import os
import stat
import threading
import time
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar

from huggingface_hub.utils import httpx  # the version of it that is installed with transformers


T = TypeVar("T")

#: Maximum size of an image file in bytes, local or fetched. Assign to it to change it, as to `PIL.Image.MAX_IMAGE_PIXELS`.
MAX_FILE_BYTES = 2**30
#: Seconds after which the download of an image is aborted, even if bytes still arrive.
FETCH_SECONDS = 30.0
#: Seconds before a failed download is tried again.
RETRY_SECONDS = 0.5


def special_kind(status: os.stat_result) -> str | None:
    """Return the kind of a file that is not a regular one, such as `"a pipe"`; `None` for a regular one."""
    kinds = {stat.S_IFREG: None, stat.S_IFDIR: "a folder", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}
    return kinds.get(stat.S_IFMT(status.st_mode), "a device")


def open_regular_file(path: str | os.PathLike, max_bytes: int | None = None) -> BinaryIO:
    """
    Open a file for reading if it is a regular one.

    A pipe would wait for a writer, and `/dev/zero` never ends. The check is made on the open file, so that no other file can
    take its name between the check and the reading.

    Raises:
        OSError: the file is missing or cannot be read.
        ValueError: it is a folder, a device, a pipe or a socket, or has more than `max_bytes` bytes, by default
            `MAX_FILE_BYTES`.
    """
    max_bytes = MAX_FILE_BYTES if max_bytes is None else max_bytes
    # Non-blocking, because opening a pipe waits for its writer. For a regular file it makes no difference.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        status = os.fstat(descriptor)
        if (kind := special_kind(status)) is not None:
            raise ValueError(f"it is {kind}, not a regular file")
        if status.st_size > max_bytes:
            raise ValueError(f"it has {status.st_size} bytes, more than the limit of {max_bytes}")
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular_file(path: str | os.PathLike, max_bytes: int | None = None) -> bytes:
    """Return the bytes of a regular file; see [`open_regular_file`] for the errors."""
    max_bytes = MAX_FILE_BYTES if max_bytes is None else max_bytes
    with open_regular_file(path, max_bytes) as file:
        data = file.read(max_bytes + 1)  # a file of /proc has 0 bytes by its status, whatever is read from it
    if len(data) > max_bytes:
        raise ValueError(f"it has more than the limit of {max_bytes} bytes")
    return data


def run_within(seconds: float, function: Callable[[], T]) -> T:
    """
    Return what `function` returns, or raise `TimeoutError` after `seconds`.

    Timeouts of network libraries apply to each single read: a server that sends a byte every few seconds never exceeds them.
    The thread of an aborted call ends with its connection.
    """
    outcome: dict[str, Any] = {}

    def call() -> None:
        try:
            outcome["result"] = function()
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    if not outcome:
        raise TimeoutError(f"it did not arrive within {seconds:g} seconds")
    if "error" in outcome:
        raise outcome["error"]
    return outcome["result"]


def fetch(url: str, max_bytes: int | None = None, seconds: float | None = None, attempts: int = 1) -> bytes:
    """
    Fetch an `http://` or `https://` address.

    Args:
        url (`str`): The address. Redirects are followed to other addresses of these two kinds.
        max_bytes (`int`, *optional*): Maximum size, by default `MAX_FILE_BYTES`.
        seconds (`float`, *optional*): Time limit for all attempts together, by default `FETCH_SECONDS`.
        attempts (`int`, *optional*, defaults to 1): Maximum number of requests. Only temporary failures are tried
            again: no connection, a timeout, and the statuses 429 and 5xx.

    Raises:
        `OSError`: it did not arrive in time, the connection failed, or the status is an error.
        `ValueError`: it is too large, or not an address.
    """
    max_bytes = MAX_FILE_BYTES if max_bytes is None else max_bytes
    seconds = FETCH_SECONDS if seconds is None else seconds
    deadline = time.monotonic() + seconds

    def request() -> bytes:
        data = bytearray()
        # A small compressed answer could grow without limit. Images are compressed already.
        headers = {"Accept-Encoding": "identity"}
        with httpx.stream("GET", url, headers=headers, timeout=seconds, follow_redirects=True) as response:
            response.raise_for_status()
            for part in response.iter_raw(2**16):
                data += part
                if len(data) > max_bytes:
                    raise ValueError(f"it has more than the limit of {max_bytes} bytes")
                if time.monotonic() > deadline:
                    raise TimeoutError(f"it did not arrive within {seconds:g} seconds")
        return bytes(data)

    for left in reversed(range(attempts)):
        try:
            return run_within(max(0.0, deadline - time.monotonic()), request)
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            failure = _failure(error, seconds)
            if not left or not _is_temporary(error) or time.monotonic() + RETRY_SECONDS >= deadline:
                raise failure from error
        time.sleep(RETRY_SECONDS)
    raise ValueError(f"`attempts` is {attempts}. Pass at least 1.")


def _is_temporary(error: Exception) -> bool:
    """Tell whether a failed request may succeed if it is made again."""
    if isinstance(error, httpx.HTTPStatusError):
        return error.response.status_code == 429 or error.response.status_code >= 500
    return isinstance(error, httpx.TransportError) and not isinstance(error, httpx.UnsupportedProtocol)


def _failure(error: Exception, seconds: float) -> Exception:
    """Return the builtin error for an error of the network library, in words that continue "cannot be fetched:"."""
    if isinstance(error, TimeoutError | httpx.TimeoutException):
        return TimeoutError(f"it did not arrive within {seconds:g} seconds")
    if isinstance(error, httpx.InvalidURL | httpx.UnsupportedProtocol):
        return ValueError(f"it is not an address ({error})")
    return ConnectionError(str(error).splitlines()[0] if str(error) else type(error).__name__)
