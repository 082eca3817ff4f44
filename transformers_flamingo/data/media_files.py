# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Open the files and addresses that a data row may name: one policy for all readers.

A row is written by others. What it names is opened only if it is a regular file, inside `media_root` where one is given,
and not too large. An address is opened only where the source says `allow_remote`, within a time limit.
"""

import os
from io import BytesIO
from typing import BinaryIO

from fsspec.core import url_to_fs

from ..files_flamingo import fetch, open_regular_file, run_within


#: Maximum size in bytes of a video that a row names, and of what is fetched from an address. Assign to change them.
#: Images have `MAX_FILE_BYTES`.
MAX_MEDIA_BYTES, MAX_REMOTE_BYTES = 2**35, 2**30
#: Seconds for one file from an address, and how often it is tried within them.
REMOTE_SECONDS, REMOTE_ATTEMPTS = 60.0, 3
#: Protocols of addresses, where a source allows them. Each reads one object of one server.
REMOTE_PROTOCOLS = ("http", "https", "hf", "s3", "gs", "gcs", "az", "abfs", "abfss")


class MediaPath(str):
    """
    A path or address that a row named, with what its source allows.

    Equal to its string. It is a separate type so that no row can give itself a permission.

    Args:
        path (`str`): The path or address.
        root (`str`, *optional*): Folder that it must be in, once `..` and links are resolved.
        allow_remote (`bool`, *optional*, defaults to `False`): Whether it may be an address.
    """

    def __new__(cls, path: str, root: str | None = None, allow_remote: bool = False):
        self = super().__new__(cls, path)
        self.root, self.allow_remote = root, allow_remote
        return self


def resolve_media_path(path: str, folder: str, media_root: str | None = None, allow_remote: bool = False) -> MediaPath:
    """
    Return where the file is that a row names. Nothing is checked or opened yet, see [`open_media`].

    Args:
        path (`str`): As the row has it: an address, or a path, absolute or relative.
        folder (`str`): Folder of the file with the row. Relative paths start there, unless `media_root` is given.
        media_root (`str`, *optional*): Folder that relative paths start from, and that all paths must be in.
        allow_remote (`bool`, *optional*, defaults to `False`): Whether it may be an address.
    """
    if "://" in path:
        return MediaPath(path, media_root, allow_remote)
    start = folder if media_root is None else media_root
    if "://" in start:  # which the user named: next to rows on a server are their images
        return MediaPath(f"{start.rstrip('/')}/{path}", start, True)
    return MediaPath(os.path.join(start, path), media_root, allow_remote)


def check_media_file(path: str) -> None:
    """
    Check that a row may name a file, and that it is there, as far as that costs no download and no reading.

    Raises:
        `OSError`, `ValueError`: as [`open_media`].
    """
    if "://" in path:
        _check_address(path, getattr(path, "root", None))
    else:
        open_media(path).close()


def open_media(path: str, max_bytes: int = MAX_MEDIA_BYTES) -> BinaryIO:
    """
    Open the file that a row names.

    Args:
        path (`str`): The path or address; as a [`MediaPath`] it says what its source allows, and a plain string allows
            any regular file and no address.
        max_bytes (`int`, *optional*): Maximum size of a local file.

    Raises:
        `OSError`: it is missing, or did not arrive in time.
        `ValueError`: it is not a regular file, is outside `media_root`, too large, or an address that is not allowed.
    """
    root = getattr(path, "root", None)
    if "://" in path:
        _check_address(path, root)
        return BytesIO(_read_address(str(path)))
    if root is not None:
        inside, resolved = os.path.realpath(root), os.path.realpath(path)
        if os.path.commonpath([inside, resolved]) != inside:
            raise ValueError(
                f"it leads to {resolved!r}, outside `media_root` {root!r}. Fix the row, or set a `media_root` that has it"
            )
    return open_regular_file(path, max_bytes)


def _check_address(path: str, root: str | None) -> None:
    protocol = path.partition("://")[0].lower()
    if "::" in path or protocol not in REMOTE_PROTOCOLS:
        raise ValueError(
            f"it is an address that no row may name: only {', '.join(REMOTE_PROTOCOLS)} are read, and no chain of "
            "several. Fetch the file, and put its path into the row"
        )
    if not getattr(path, "allow_remote", False):
        raise ValueError(
            "it is an address, and the source does not allow those. Fetch the files, or set `allow_remote: true` in the "
            "`options` of the source if you trust its rows"
        )
    if root is not None and "://" in root:
        steps = path.removeprefix(root.rstrip("/") + "/").split("/")
        if not path.startswith(root.rstrip("/") + "/") or ".." in steps or "" in steps:
            raise ValueError(f"it leads out of {root!r}, the folder of its rows. Fix the row")


def _read_address(path: str) -> bytes:
    if path.startswith(("http://", "https://")):
        return fetch(path, MAX_REMOTE_BYTES, REMOTE_SECONDS, REMOTE_ATTEMPTS)

    def read() -> bytes:
        fs, inner = url_to_fs(path)
        with fs.open(inner, "rb") as file:
            return file.read(MAX_REMOTE_BYTES + 1)

    data = run_within(REMOTE_SECONDS, read)
    if len(data) > MAX_REMOTE_BYTES:
        raise ValueError(f"it has more than the limit of {MAX_REMOTE_BYTES} bytes")
    return data
