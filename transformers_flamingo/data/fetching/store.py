# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Files that were fetched, by their address, until they are part of a shard or for later runs."""

import hashlib
import json
import os
import secrets
import zlib
from pathlib import Path
from typing import NamedTuple

from .failures import FetchError


class Item(NamedTuple):
    """
    An image that a row names.

    Args:
        url (`str`): Its address.
        digest (`str`, *optional*): The hash of its file, in hexadecimal digits.
    """

    url: str
    digest: str | None = None


class Store:
    """
    Folder of fetched files, each in a file that is named by its address. A process may be killed at any moment.

    Args:
        folder (`Path`): The folder. It is made when the first file is put into it.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def read(self, item: Item) -> bytes | None:
        """Return a file, or `None` if it is not there. After a power cut a file may be incomplete, which counts as missing."""
        try:
            data = self._path(item).read_bytes()
        except FileNotFoundError:
            return None
        return data[4:] if int.from_bytes(data[:4]) == zlib.crc32(data[4:]) and len(data) >= 4 else None

    def require(self, item: Item) -> bytes:
        """
        Return a file that was written before.

        Raises:
            OSError: it is no longer there.
        """
        data = self.read(item)
        if data is None:
            raise OSError(
                f"What was fetched from {item.url!r} is no longer in {str(self.folder)!r}. Run the same command again."
            )
        return data

    def write(self, item: Item, data: bytes) -> None:
        """Keep a file."""
        self._write(self._path(item), zlib.crc32(data).to_bytes(4) + data)

    def read_failure(self, item: Item) -> FetchError | None:
        """Return the failure that was kept for a file."""
        try:
            return FetchError(**json.loads(self._path(item, ".json").read_bytes()))
        except (FileNotFoundError, json.JSONDecodeError):
            return None

    def write_failure(self, item: Item, error: FetchError) -> None:
        """Keep the failure of a file."""
        self._write(self._path(item, ".json"), json.dumps(error.record()).encode())

    def _path(self, item: Item, suffix: str = "") -> Path:
        key = hashlib.sha256("\0".join(filter(None, item)).encode(errors="surrogatepass")).hexdigest()[:40]
        return self.folder / key[:2] / f"{key}{suffix}"

    @staticmethod
    def _write(path: Path, data: bytes) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
        try:
            temporary.write_bytes(data)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
