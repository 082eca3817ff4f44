# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The base class of the readers of formats, which make documents of rows, with errors that name file and row."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, NamedTuple

from datasets import Dataset, IterableDataset, concatenate_datasets
from transformers.utils import logging

from .columns import ERROR, FILE, TAR_FILE, require_column, row_location
from .data_files import find_files, kind_of
from .documents import Chunk
from .errors import BadSampleError
from .media_files import HOW_TO_FETCH, resolve_media_path
from .row_stream import RowFilter, RowStream
from .rows import load_rows


logger = logging.get_logger(__name__)

#: Columns in which published datasets have the addresses of their images. A path of a file may be in them, too.
ADDRESSES = ("image_url", "url", "URL", "img_url")


class Column(NamedTuple):
    """
    A column of a format, for the documentation and to find out which format a file has.

    Args:
        names (`tuple[str, ...]`): Its name, and other names that it may have.
        holds (`str`): What it holds.
        is_required (`bool`, *optional*, defaults to `True`): Whether each row has it.
        members (`tuple[str, ...]`, *optional*, defaults to `()`): Suffixes of the members of a `.tar`, or of files, with the same.
    """

    names: tuple[str, ...]
    holds: str
    is_required: bool = True
    members: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reader:
    """
    Reader of one format. A subclass documents its columns and defines `_document`, and its fields are its options.

    Args:
        media_root (`str`, *optional*): Folder that relative paths of images and videos start from, and that all paths must
            be in. By default they start in the folder of the file with the row.
        allow_remote (`bool`, *optional*, defaults to `False`): Whether rows may name addresses, such as `https://`. See
            [`data.media_files`] for everything that a row may name.
    """

    media_root: str | None = None
    allow_remote: bool = field(default=False, kw_only=True)

    def __post_init__(self):
        """Check that switches are truth values: the text "false" would be true, and allow what was forbidden."""
        for f in fields(self):
            value = getattr(self, f.name)
            if f.type in (bool, bool | None) and not isinstance(value, f.type):
                raise ValueError(f"`{f.name}` is {value!r}. It must be true or false, without quotation marks.")

    #: The members of a sample of a `.tar`, by suffix, with their features. Empty if the format has no such form.
    tar_members: ClassVar[dict[str, Any]] = {}
    #: The columns of a row.
    columns: ClassVar[tuple[Column, ...]] = ()
    #: Suffixes of images or videos that are rows themselves where there is no table.
    media: ClassVar[tuple[str, ...]] = ()
    #: Pattern of the names of the tables of a folder that are read. All are if it is `None`.
    table_names: ClassVar[str | None] = None
    #: Makes the list of records of a `.json` file that holds something else, as [`rows.read_rows`] calls it.
    make_records: ClassVar[Callable[[Any, str], list[Any]] | None] = None

    def find(self, path: str, split: str | None = None) -> list[str]:
        """
        Find the files that [`load`] opens.

        Args:
            path, split: As there.

        Raises:
            FileNotFoundError, ValueError: as there.
        """
        return find_files(path, split, media=self.media, names=self.table_names)

    def companions(self, files: list[str]) -> list[str]:
        """Return other files that the rows of `files` are made of."""
        return []

    def load(self, path: str, *, split: str | None = None, streaming: bool = False) -> Dataset | IterableDataset:
        """
        Open the files of a dataset.

        Args:
            path (`str`): A file, a folder, or a pattern (`*.csv`, `{00000..00099}.tar`), also of a remote file system
                (`"hf://datasets/OWNER/NAME/data/*.parquet"`), or a folder of `Dataset.save_to_disk`.
            split (`str`, *optional*): Take only files with this word in their name or in a folder below `path`: `"train"`
                takes `train/metadata.csv`, `train-00000-of-00002.parquet` and `train2014.jsonl`, and
                `"train+validation"` takes both. It is needed if the names say that some files are held out and others not.
            streaming (`bool`, *optional*, defaults to `False`): Whether to read rows lazily. Each file is a shard. Where
                `datasets` resumes such a stream, it reads what it skips; a `DataMixture` does not ([`open_stream`]).

        Returns:
            `datasets.Dataset`, or `datasets.IterableDataset` with `streaming`, whose rows [`Reader.read`] and
            [`row_location`] take.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the files are of a kind that this format does not have, of several kinds or of several splits, or
                one is not a regular file or is damaged, which a stream raises when it gets there; or, if it is not a stream, the
                format keeps none of the rows.
        """
        stream = self.open_stream(path, split=split)
        if streaming:
            return stream.to_iterable_dataset()
        files = stream.files
        rows = concatenate_datasets(load_rows(files, stream.members, stream.make_records, self.companions(files)))
        if stream.row_filter is None:
            return rows
        kept, reason = rows.filter(stream.row_filter.keep), stream.row_filter.reason
        if reason is not None and not len(kept):
            raise ValueError(f"{path!r}: none of {len(rows)} rows is kept, because {reason}.")
        if reason is not None and len(kept) < len(rows):
            logger.warning(f"{path!r}: {len(rows) - len(kept)} of {len(rows)} rows are skipped, because {reason}.")
        return kept

    def open_stream(self, path: str, *, split: str | None = None) -> RowStream:
        """
        Open the files of a dataset, to read their rows from any position on, as a resumed training does.

        Args:
            path, split: As in [`load`].

        Raises:
            FileNotFoundError, ValueError: as there.
        """
        files = self.find(path, split)
        members = self.tar_members if kind_of(files[0]) == "tar" else None
        if members == {}:
            raise ValueError(
                f"{path!r} leads to {files[0]!r}, but {type(self).__name__} does not read .tar files. Its docstring lists "
                "the files that it reads."
            )
        return RowStream(files, members, type(self).make_records, self.row_filter(path, split))

    def row_filter(self, path: str, split: str | None = None) -> RowFilter | None:
        """
        Return which rows of the files [`load`] keeps, or `None` if it keeps all.

        Args:
            path, split: As there.
        """
        return None

    def read(self, row: dict[str, Any]) -> list[Chunk]:
        """
        Turn a row into a document.

        Raises:
            BadSampleError: a column is missing, empty or malformed. The message names file and row.
        """
        if row.get(ERROR) is not None:
            raise BadSampleError(f"{row_location(row)}: {row[ERROR]}. Fix the row, or remove it.")
        try:
            document = self._document(row)
            for chunk in document:
                "".join((chunk.prompt, chunk.text, *chunk.alternatives)).encode()
        except BadSampleError:
            raise
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise BadSampleError(
                f"{row_location(row)}: it does not have the format of {type(self).__name__} ({type(error).__name__}: {error}). Fix the row, "
                "or remove it."
            ) from error
        return document

    def _document(self, row: dict[str, Any]) -> list[Chunk]:
        """Turn a row into a document, for `read`. `read` turns what a malformed row raises into a `BadSampleError`."""
        raise NotImplementedError

    def require_image(self, row: dict[str, Any], *names: str) -> Any:
        """
        Return the image in the first of the columns `names` that has a value, or the file that a column of addresses names.

        Raises:
            BadSampleError: there is no value, or it is a list, or an address that the source does not allow.
        """
        if all(row.get(name) is None for name in names):
            names = (*names, *(name for name in ADDRESSES if row.get(name) is not None))
        image = require_column(row, *names)
        if isinstance(image, list | tuple):
            raise BadSampleError(
                f"{row_location(row)}: {len(image)} images with one text. Use the format `parts` or `messages` for such rows."
            )
        if isinstance(image, str) and "://" in image and not self.allow_remote and names[-1] in ADDRESSES:
            raise BadSampleError(
                f"{row_location(row)}: {names[-1]!r} is an address, {image!r:.200}, and the image was not fetched. {HOW_TO_FETCH}"
            )
        return self.resolve_path(image, row)

    def resolve_path(self, item: Any, row: dict[str, Any]) -> Any:
        """
        Resolve the path of an image or video. Items that have their data are returned as they are.

        Args:
            item: An image or video as the row has it: a path, a dict of `bytes` and `path`, an image, or a list of frames.
            row (`dict`): The row, which says where a relative path starts.

        Returns:
            `item`, or a dict with `bytes` of `None` and the [`MediaPath`] that
            [`~data.media_files.resolve_media_path`] returns.

        Raises:
            BadSampleError: the item is `None`, an empty list or an empty path, or a dict with neither bytes nor a path.
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
                    f"{type(path).__name__}. Give bytes, or a path as a string."
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
