# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Write files and folders whole or not at all.

A process may be killed, or a disk may fill up, between any two writes. So everything is written next to its destination under a
unique name, is synced to the disk, and gets the name of its destination last. A killed process leaves behind files named
`.NAME.XXXXXXXX.partial`, which may be deleted.

The file travels with a checkpoint as remote code: it stays flat and imports only its siblings.
"""

import errno
import json
import math
import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any


# The files that make a folder loadable as a model or an adapter. They are removed first and written last.
_MARKS = ("config.json", "adapter_config.json")
# Weights of an earlier model. Left next to new ones, they could be loaded under the new configuration. Those of another
# variant (`model.fp16.safetensors`) stay if the configuration stays the same, whatever its dtype.
_WEIGHTS = ("model*.safetensors", "model.safetensors.index*.json", "pytorch_model*.bin*", "adapter_model*")


def json_value(value: Any) -> Any:
    """Return `value` with `None` instead of each float that JSON cannot express (NaN and infinities), at any depth."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {name: json_value(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(item) for item in value]
    return value


def write_json(path: str | os.PathLike, value: Any, indent: int | None = 1) -> None:
    """
    Write a JSON file whole or not at all. It is always valid JSON: NaN and infinities become `null`.

    Raises:
        TypeError: `value` holds something that JSON cannot express. The file is unchanged.
        OSError: the file cannot be written. It is unchanged.
    """
    write_text(path, json.dumps(json_value(value), indent=indent, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: str | os.PathLike, text: str) -> None:
    """
    Write a text file (UTF-8) whole or not at all.

    Raises:
        OSError: the file cannot be written. It is unchanged.
    """
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | os.PathLike, content: bytes) -> None:
    """
    Write a file whole or not at all.

    Raises:
        OSError: the file cannot be written. It is unchanged.
    """
    with write_file(path) as temporary, open(temporary, "xb") as file:
        file.write(content)


@contextmanager
def write_file(path: str | os.PathLike) -> Iterator[Path]:
    """
    Write a file whole or not at all, in as many steps as it needs: the block writes and closes a file of the name that it gets, which
    replaces `path` at its end.

    Raises:
        OSError: the file cannot be written. It is unchanged.
    """
    path = _resolve(path)
    temporary = _temporary_name(path)
    with disk_errors(path):
        try:
            yield temporary
            # Before the rename: after a power cut the name could otherwise point to an empty file
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_entries(path.parent)


@contextmanager
def write_folder(directory: str | os.PathLike, *, overwrite: bool = True) -> Iterator[Path]:
    """
    Write a folder whole or not at all.

    ```python
    with write_folder("my-flamingo") as partial:
        model.save_pretrained(partial)
        processor.save_pretrained(partial)
    ```

    Two processes that write one folder at once do not touch each other's files: the last one to finish wins, or with
    `overwrite=False` the first.

    Args:
        directory (`str`): The folder. Its parents are created.
        overwrite (`bool`, *optional*, defaults to `True`):
            Whether to replace an existing folder with everything in it. Otherwise the folder must be missing or empty.

    Yields:
        `Path`: An empty folder on the same disk. It replaces `directory` when the block ends. If the block raises, it is
        deleted and `directory` is unchanged.

    Raises:
        FileExistsError: `directory` is not empty and `overwrite` is not set. It is unchanged.
        OSError: a file cannot be written. `directory` is unchanged.
    """
    directory = _resolve(directory)
    if not overwrite:
        _check_is_vacant(directory)
    # The root of a mounted disk cannot be renamed, and next to it is another disk
    is_mounted = os.path.ismount(directory)
    partial = _temporary_name(directory / "model" if is_mounted else directory)
    with disk_errors(directory):
        try:
            partial.mkdir(parents=True)
            yield partial
            sync_folder(partial)
            if is_mounted:
                _move_files(partial, directory)
            else:
                _swap(partial, directory, overwrite)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        sync_entries(directory.parent)


@contextmanager
def update_folder(directory: str | os.PathLike) -> Iterator[Path]:
    """
    Write a model into a folder that keeps its other content, such as the checkpoints and the report of a run.

    It works as [`write_folder`], with one difference: if the process is killed while the files are moved, the folder has no
    `config.json` (or `adapter_config.json`), so that it does not load until it is written again. It never holds the
    configuration of one model and the weights of another. Weights of an earlier model are deleted.

    Yields:
        `Path`: An empty folder inside `directory`, whose files are moved up when the block ends.

    Raises:
        OSError: a file cannot be written.
    """
    directory = _resolve(directory)
    partial = _temporary_name(directory / "model")
    with disk_errors(directory):
        try:
            partial.mkdir(parents=True)
            yield partial
            sync_folder(partial)
            _move_files(partial, directory)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def remove_leftovers(directory: str | os.PathLike) -> None:
    """Delete what processes killed in [`update_folder`] left in a folder. No other process may write there now."""
    for path in Path(directory).glob(".model.*.partial"):
        shutil.rmtree(path, ignore_errors=True)


@contextmanager
def disk_errors(directory: str | os.PathLike) -> Iterator[None]:
    """
    Turn an error that the disk caused into one that says so: full, over a quota or a limit, read-only, not permitted.

    torch and safetensors raise errors of their own, which hardly mention the cause.

    Raises:
        OSError: instead of such an error, with the folder, the cause, the free space and a remedy.
    """
    try:
        yield
    except Exception as error:
        cause = _disk_cause(error)
        if cause is None:
            raise
        existing = Path(directory)
        while not existing.exists():
            existing = existing.parent
        free = shutil.disk_usage(existing).free / 2**20
        raise OSError(
            f"{str(directory)!r} cannot be written: {cause} ({free:,.0f} MiB are free there). What was complete there is "
            "unchanged. Free some space, fix the permissions, or give another folder, and run again."
        ) from error


_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


def _disk_cause(error: Exception) -> str | None:
    """Return in words how the disk caused an error, and `None` if it did not."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.strerror if error.errno in _DISK_ERRORS else None
    text = str(error)
    if match := re.search("No space left on device|Disk quota exceeded|File too large|Read-only file system", text):
        return match[0]
    if isinstance(error, RuntimeError) and re.search("inline_container|PytorchStreamWriter|file write failed", text):
        return "torch could not write all of a file, as happens when the disk is full"
    return None


def sync_folder(directory: str | os.PathLike) -> None:
    """Wait until all files of a folder, and their names, are on the disk."""
    for parent, _, names in os.walk(directory):
        for name in names:
            descriptor = os.open(os.path.join(parent, name), os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        sync_entries(parent)


def _resolve(path: str | os.PathLike) -> Path:
    return Path(os.path.realpath(path))  # a link stays a link, and its target is replaced


def _temporary_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")


def _check_is_vacant(directory: Path) -> None:
    if directory.exists() and not (directory.is_dir() and next(directory.iterdir(), None) is None):
        raise FileExistsError(
            f"{str(directory)!r} exists and is not an empty folder, and would be overwritten. Give another folder, or "
            "delete it."
        )


def _swap(partial: Path, directory: Path, overwrite: bool) -> None:
    """Rename `partial` to `directory`, and delete what was there."""
    try:
        os.rename(partial, directory)  # succeeds if `directory` is missing or empty
        return
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
    if not overwrite:
        _check_is_vacant(directory)
    # A folder that is not empty cannot be replaced in one step: if the process is killed between these two renames, both
    # folders are complete, but under temporary names
    old = _temporary_name(directory)
    os.rename(directory, old)
    try:
        os.rename(partial, directory)
    except OSError:
        os.rename(old, directory)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _move_files(partial: Path, directory: Path) -> None:
    """Move the files of `partial` into `directory`, so that no moment has the configuration of one model and weights of another."""
    new = {path.name for path in partial.iterdir()}
    kept = {_variant(path) for path in directory.iterdir()} if _is_same_model(partial, directory) else set()
    # Variants that are written now lose their earlier weights, of which there may have been more files
    kept -= {_variant(partial / name) for name in new if any(fnmatch(name, pattern) for pattern in _WEIGHTS)}
    for name in _MARKS:
        (directory / name).unlink(missing_ok=True)
    sync_entries(directory)
    for pattern in _WEIGHTS:
        for path in directory.glob(pattern):
            if path.name not in new and _variant(path) not in kept:
                path.unlink()
    for names in (new.difference(_MARKS), new.intersection(_MARKS)):
        for name in sorted(names):
            target = directory / name
            if target.is_dir() and not target.is_symlink():
                shutil.rmtree(target)
            os.replace(partial / name, target)
        sync_entries(directory)


def _variant(path: Path) -> str:
    """Return `"fp16"` for `model.fp16-00001-of-00002.safetensors` or `model.safetensors.index.fp16.json`; `""` without one."""
    parts = [part for part in path.name.split(".")[1:-1] if part not in ("safetensors", "bin", "index")]
    return re.sub(r"-\d+-of-\d+$", "", parts[0]) if parts else ""


def _is_same_model(partial: Path, directory: Path) -> bool:
    """Return whether two folders have the same configuration, whatever its dtype."""
    try:
        configs = [json.loads((folder / "config.json").read_text(encoding="utf-8")) for folder in (partial, directory)]
    except (OSError, ValueError):
        return False
    return _without_dtype(configs[0]) == _without_dtype(configs[1])


def _without_dtype(value: Any) -> Any:
    if isinstance(value, dict):
        ignored = ("dtype", "torch_dtype", "transformers_version")
        return {name: _without_dtype(item) for name, item in value.items() if name not in ignored}
    return value


def sync_entries(directory: str | os.PathLike) -> None:
    """Wait until the names in a folder are on the disk, if the system can."""
    if os.name == "nt":  # cannot open a folder
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks cannot
            raise
    finally:
        os.close(descriptor)
