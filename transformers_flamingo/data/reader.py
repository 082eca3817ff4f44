# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Readers of data files: from the rows of [`rows`] to documents, with errors that name file and row."""

import os
from dataclasses import dataclass, field
from typing import Any, ClassVar

from datasets import Dataset, IterableDataset, concatenate_datasets

from .columns import ERROR, FILE, TAR_FILE, row_location
from .data_files import find_files, kind_of
from .documents import Chunk
from .errors import BadSampleError
from .media_files import resolve_media_path
from .rows import load_rows, read_rows


@dataclass(frozen=True)
class Reader:
    """
    Reads one layout. A subclass documents its columns and has `read`; its fields are its options.

    Args:
        media_root (`str`, *optional*): Where relative paths of images and videos start, and what all paths must be in.
            By default they start in the folder of the file with the row.
        allow_remote (`bool`, *optional*, defaults to `False`): Whether rows may name addresses, such as `https://`. See
            [`data.media_files`] for what a row may name.
    """

    media_root: str | None = None
    allow_remote: bool = field(default=False, kw_only=True)

    #: The members that a sample of a `.tar` may have; none if the layout has no such form.
    tar_members: ClassVar[dict[str, Any]] = {}

    def load(self, path: str, *, split: str | None = None, streaming: bool = False) -> Dataset | IterableDataset:
        """
        Open the files of a data set.

        Args:
            path (`str`): A file, a glob pattern or a folder, also of a remote file system
                (`"hf://datasets/OWNER/NAME/data/*.parquet"`).
            split (`str`, *optional*): Takes only files with this word in their name or in a folder below `path`:
                `"train"` takes `train/metadata.csv`, `train-00000-of-00002.parquet` and `train2014.jsonl`.
                `"train+validation"` takes both. Needed if some files are held out by their names and others are not.
            streaming (`bool`, *optional*, defaults to `False`): Reads rows when they are asked for. Each file is a
                shard.

        Returns:
            A dataset whose rows go to `read`, and [`row_location`].

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the files are of a kind that this layout does not have, of several kinds or of several splits, or
                one is not a regular file, or damaged. A stream raises the last one when it comes to the damage.
        """
        files = find_files(path, split)
        members = self.tar_members if kind_of(files[0]) == "tar" else None
        if members == {}:
            raise ValueError(
                f"{path!r} leads to {files[0]!r}, but {type(self).__name__} has no form in .tar files. Its docstring says "
                "which forms it has."
            )
        if streaming:
            return IterableDataset.from_generator(read_rows, gen_kwargs={"files": files, "members": members})
        return concatenate_datasets(load_rows(files, members))

    def read(self, row: dict[str, Any]) -> list[Chunk]:
        """
        Make a document of a row.

        Raises:
            BadSampleError: a column is missing, empty or malformed. The message names file and row.
        """
        if row.get(ERROR) is not None:
            raise BadSampleError(f"{row_location(row)}: {row[ERROR]}. Fix the row, or remove it.")
        try:
            document = self._document(row)
            for chunk in document:
                (chunk.prompt + chunk.text).encode()
        except BadSampleError:
            raise
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise BadSampleError(
                f"{row_location(row)}: it is not what {type(self).__name__} reads ({type(error).__name__}: {error}). Fix the row, "
                "or remove it."
            ) from error
        return document

    def _document(self, row: dict[str, Any]) -> list[Chunk]:
        """Make what `read` returns. A subclass defines it; a row that it cannot take may raise what it will."""
        raise NotImplementedError

    def resolve_path(self, item: Any, row: dict[str, Any]) -> Any:
        """
        Return `item`, and if it is a path, a dict of `bytes` and a [`MediaPath`], see [`data.media_files.resolve_media_path`].

        Raises:
            BadSampleError: it is `None`, an empty list, an empty path, or a dict without bytes and a path, or with others.
        """
        if isinstance(item, list | tuple):
            if not item:
                raise BadSampleError(f"{row_location(row)}: a video without frames. Fix the row, or remove it.")
            return [self.resolve_path(frame, row) for frame in item]
        path = item
        if isinstance(item, dict):
            data, path = item.get("bytes"), item.get("path")
            if not isinstance(data, bytes | bytearray | None) or not isinstance(path, str | None):
                raise BadSampleError(
                    f"{row_location(row)}: an image or video has 'bytes' of type {type(data).__name__} and a 'path' of type "
                    f"{type(path).__name__}. Give bytes, or a path as a text."
                )
            if data is not None:
                return item
        elif not isinstance(item, str | None):
            return item
        if not path:
            raise BadSampleError(
                f"{row_location(row)}: an image or video is missing: {item!r}. Fix the row, or remove it."
            )
        folder = os.path.dirname(row.get(FILE) or row.get(TAR_FILE) or "")
        return {"bytes": None, "path": resolve_media_path(path, folder, self.media_root, self.allow_remote)}
