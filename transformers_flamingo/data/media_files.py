# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Open the files and addresses that a data row may name: one policy for all readers.

A row is written by others. A path in it is opened only if it leads to a regular file that is not too large, inside
`media_root` if there is one. An address is opened only if the source says `allow_remote`, within a time limit.
"""

import os
from io import BytesIO
from typing import Any, BinaryIO, Literal

import PIL.Image
from fsspec.core import url_to_fs

from ..files_flamingo import fetch, open_regular_file, run_within
from .errors import BadSampleError


#: Maximum size in bytes of a local video, and of what is fetched from an address. Assign to change them. Local images
#: have `files_flamingo.MAX_FILE_BYTES`.
MAX_MEDIA_BYTES, MAX_REMOTE_BYTES = 2**35, 2**30
#: Seconds for one file from an address, and the number of attempts within them.
REMOTE_SECONDS, REMOTE_ATTEMPTS = 60.0, 3
#: Protocols of addresses, if a source allows them. Each reads one object of one server.
REMOTE_PROTOCOLS = ("http", "https", "hf", "s3", "gs", "gcs", "az", "abfs", "abfss")
#: What to do about a row that has the address of an image, and not the image.
HOW_TO_FETCH = (
    "Fetch the images first, with `flamingo fetch SOURCE --output_dir DIRECTORY` or with img2dataset (docs/urls.md), and train on what they "
    "write. Or set `allow_remote: true` in the `options` of the source to fetch each image whenever its row is read."
)


class MediaPath(str):
    """
    Path or address that a row named, with what its source allows.

    It equals its string. It is a separate type so that no row can give itself a permission.

    Args:
        path (`str`): The path or address.
        root (`str`, *optional*): Folder that it must be in, after `..` and links are resolved.
        allow_remote (`bool`, *optional*, defaults to `False`): Whether it may be an address.
    """

    def __new__(cls, path: str, root: str | None = None, allow_remote: bool = False):
        self = super().__new__(cls, path)
        self.root, self.allow_remote = root, allow_remote
        return self


def resolve_media_path(path: str, folder: str, media_root: str | None = None, allow_remote: bool = False) -> MediaPath:
    """
    Resolve a path or address as a row has it. Nothing is checked or opened yet, see [`open_media`].

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
    Check that a row may name a file and that it exists, without reading or downloading it.

    Raises:
        OSError, ValueError: as [`open_media`].
    """
    if "://" in path:
        _check_address(path, getattr(path, "root", None))
    else:
        open_media(path).close()


def open_media(path: str, kind: Literal["image", "video"] = "video") -> BinaryIO:
    """
    Open the file that a row names.

    Args:
        path (`str`): The path or address. A [`MediaPath`] says what its source allows; a plain string allows any regular
            file and no address.
        kind (`str`, *optional*, defaults to `"video"`): Its limit of size is that of an `"image"` or a `"video"`.

    Raises:
        OSError: it is missing, or did not arrive in time.
        ValueError: it is not a regular file, is outside `media_root`, too large, or an address that is not allowed.
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
    return open_regular_file(path, MAX_MEDIA_BYTES if kind == "video" else None)


def open_item(
    item: Any, location: str, kind: Literal["image", "video"]
) -> tuple[str, str | None, BinaryIO | PIL.Image.Image]:
    """
    Open an item of media in any of its forms.

    Args:
        item: A PIL image, the bytes of a file, its path, or a dict of `bytes` and `path`.
        location (`str`): File and row, for the error message.
        kind (`str`): `"image"` or `"video"`, as messages call it.

    Returns:
        The name of the item in messages, its path if it has one, and the PIL image or an open file.

    Raises:
        BadSampleError: there is no data, or the path may not or cannot be opened.
    """
    path = None
    if isinstance(item, dict):
        path = item.get("path")
        item = path if item.get("bytes") is None else item["bytes"]
    if isinstance(item, os.PathLike):
        item = path = os.fspath(item)
    if isinstance(item, PIL.Image.Image):
        return f"the {kind}", None, item
    if isinstance(item, bytes | bytearray | memoryview):
        return f"the {kind}" + (f" {path!r}" if path else ""), path, BytesIO(item)
    if not isinstance(item, str):
        given = "no data" if item is None else f"a {type(item).__name__}"
        raise BadSampleError(f"{location}: the {kind} is {given}. Give bytes or a path, or remove the row.")
    try:
        return f"the {kind} {str(item)!r}", str(item), open_media(item, kind)
    except Exception as error:  # each file system of fsspec has its own
        raise BadSampleError(
            f"{location}: the {kind} {str(item)!r:.300} cannot be read ({type(error).__name__}: {error}). Check the path, "
            "and the `media_root` that relative paths start from."
        ) from error


def _check_address(path: str, root: str | None) -> None:
    protocol = path.partition("://")[0].lower()
    if "::" in path or protocol not in REMOTE_PROTOCOLS:
        raise ValueError(
            f"it is an address that no row may name: only {', '.join(REMOTE_PROTOCOLS)} are read, and no chain of "
            "several. Fetch the file, and put its path into the row"
        )
    if not getattr(path, "allow_remote", False):
        raise ValueError(
            "it is an address, and the source does not allow those. Fetch the files, with `flamingo fetch` or img2dataset (docs/urls.md), or "
            "set `allow_remote: true` in the `options` of the source if you trust its rows"
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
