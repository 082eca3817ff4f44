# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Find out which format files have, and say why; or what is missing to the nearest format."""

import difflib
import itertools
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from io import BytesIO
from typing import Any, NoReturn

import PIL.Image

from ..files_flamingo import MAX_FILE_BYTES, read_regular_file
from ..utils.names import count_of
from .columns import JSON, parse_record
from .data_files import SeveralSplitsError, kind_of, suffix_of, without_warnings
from .errors import BadSampleError, ContentError
from .folders import BESIDE, class_folders
from .formats import FORMATS
from .formats.image_classes import NoClassesError
from .media_files import HOW_TO_FETCH
from .reader import ADDRESSES, Column, Reader
from .rows import read_rows


# Rows that are looked at, and the files that are opened for them
_NUM_ROWS = 20
# What others call the columns that most formats have: such a name is nearer to a format than none
_OTHER_NAMES = {
    "image": ("picture", "photo", "img", "pic", "filename", "filepath", "file", "path", "image_path", "image_file"),
    "text": ("description", "desc", "title", "alt", "alt_text", "sentence", "annotation"),
    "label": ("category", "class_name", "target"),
    "completion": ("chosen", "response", "output", "generation"),
    "prompt": ("instruction", "input"),
}
_SEPARATORS = {";": "`;`", "\t": "tabs", "|": "`|`"}


@dataclass(frozen=True)
class Detection:
    """
    The format of files, as [`detect_format`] found it.

    Args:
        format (`str`): A key of `FORMATS`.
        path (`str`): The path that was looked at.
        reason (`str`): What the files have in common with the format.
    """

    format: str
    path: str
    reason: str

    def describe(self) -> str:
        """Return a sentence for the user."""
        return f"{self.path}: took it for {self.format}: {self.reason}"


class UnknownLayoutError(ValueError):
    """Files of no format, or of several."""


@dataclass(frozen=True)
class _Look:
    """Hold what a format makes of the files: the first rows, and whether it can read one of them, or the error."""

    name: str
    reader: Reader
    files: list[str]
    rows: list[dict[str, Any]]
    fits: bool
    error: Exception | None

    def found(self, column: Column) -> list[str]:
        """Return the names of a column that some row has."""
        names = _names_of(self.rows)
        return [name for name in (*column.names, *column.members) if name in names]

    @property
    def score(self) -> float:
        """Return how near the files are to the format: the number of required columns that they have, or have with a similar name."""
        names = _names_of(self.rows)
        required = [column for column in self.reader.columns if column.is_required]
        found = [1.0 if self.found(column) else 0.4 * bool(_similar(column, names)) for column in required]
        return sum(found) / max(len(required), 1) + 0.01 * sum(map(bool, found))


def detect_format(
    path: str,
    split: str | None = None,
    *,
    options: Mapping[str, Any] | None = None,
    format_flag: str = "--format",
    options_flag: str | None = None,
) -> Detection:
    """
    Find out which format files have. The first rows are read, and no image is opened but a GIF where all images are such.

    Args:
        path, split: As in [`~data.Reader.load`].
        options (`Mapping`, *optional*): Fields of the reader, as far as they are known. Formats without one are looked at without it.
        format_flag, options_flag (`str`, *optional*): What the user can give in place of this: messages name them.

    Returns:
        [`Detection`]: the format, and why.

    Raises:
        FileNotFoundError, ValueError: as [`~data.Reader.load`].
        SeveralSplitsError: the files are of several splits, and none is chosen.
        UnknownLayoutError: the rows have no format, or several. The message has the columns, and the nearest format.
    """
    _refuse_unknown(options or {}, options_flag)
    looks = list(look_at(path, split, options))
    fitting = _without_weaker([look for look in looks if look.fits])
    if len(fitting) == 1:
        return Detection(fitting[0].name, path, _explain(fitting[0]))
    if fitting:
        reasons = " and ".join(f"{look.name!r} ({_explain(look)})" for look in fitting)
        raise UnknownLayoutError(f"{path!r} could be {reasons}. Choose with `{format_flag}`, or `format` in a recipe.")
    errors = [look.error for look in looks if look.error is not None]
    for kind in (SeveralSplitsError, NoClassesError):
        for error in errors:
            if isinstance(error, kind):
                raise error
    if not any(look.rows for look in looks):
        _raise_without_rows(path, looks, errors)
    message = _describe_unknown(path, looks)
    if options_flag is not None and "`options`" in message:
        message += f" Here, options are given as `{options_flag} '{{\"NAME\": VALUE}}'`."
    raise UnknownLayoutError(message)


def _refuse_unknown(options: Mapping[str, Any], flag: str | None) -> None:
    """Raise if no format has an option."""
    known = {field.name for kind in FORMATS.values() for field in fields(kind)}
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else " docs/data-formats.md lists them."
            raise UnknownLayoutError(f"No format has the option {name!r} of `{flag or 'options'}`.{hint}")


def _without_weaker(fitting: list[_Look]) -> list[_Look]:
    """Leave out formats that say less of the same files than another does."""
    looks = {look.name: look for look in fitting}
    weaker = set()
    if "label_studio" in looks:  # which asks for columns that nothing else has
        weaker |= looks.keys() - {"label_studio"}
    image, video = looks.get("image_text_pairs"), looks.get("video_text_pairs")
    if image is not None and kind_of(image.files[0]) == "media":
        weaker.add("image_classes")  # a text beside an image says more than the name of its folder
        if video is not None:  # a GIF is both
            images, videos = set(image.files), set(video.files)
            if images == videos:
                weaker.add("image_text_pairs" if _is_animated(image.files[0]) else "video_text_pairs")
            elif videos < images:
                weaker.add("video_text_pairs")
            elif images < videos:
                weaker.add("image_text_pairs")
    return [look for look in fitting if look.name not in weaker]


def _is_animated(file: str) -> bool:
    if "://" in file:
        return True
    try:
        with PIL.Image.open(BytesIO(read_regular_file(file, MAX_FILE_BYTES))) as image:
            return getattr(image, "is_animated", False)
    except Exception:  # each decoder raises its own; the reader will say it of the row
        return False


def _raise_without_rows(path: str, looks: list[_Look], errors: list[Exception]) -> NoReturn:
    for error in errors:
        if isinstance(error, ContentError) and error.is_near:
            raise error
    empty = [look.files[0] for look in looks if look.files and look.error is None]
    if empty or not errors:
        name = f" ({os.path.basename(empty[0])!r})" if empty else ""
        raise ValueError(f"{path!r} has no row{name}. Check the path, or write the rows.")
    raise errors[0]


def look_at(path: str, split: str | None, options: Mapping[str, Any] | None = None) -> Iterator[_Look]:
    """Let each format look at the first rows of files, with those of the options that it has."""
    seen: dict[tuple, tuple[list[dict[str, Any]], Exception | None]] = {}
    for name, kind in FORMATS.items():
        known = {field.name for field in fields(kind)}
        try:
            reader = kind(**{key: value for key, value in (options or {}).items() if key in known})
        except (TypeError, ValueError) as error:
            yield _Look(name, kind(), [], [], False, error)
            continue
        try:
            with without_warnings():  # of files that another format reads; a training says them
                files = reader.find(path, split)
        except (OSError, ValueError) as error:
            yield _Look(name, reader, [], [], False, error)
            continue
        is_tar = kind_of(files[0]) == "tar"
        if (is_tar and not reader.tar_members) or (reader.make_records and suffix_of(files[0]) != ".json"):
            continue
        members = reader.tar_members if is_tar else None
        key = (*files[:_NUM_ROWS], tuple(members or ()), kind.make_records)
        if key not in seen:
            seen[key] = _read_first(files[:_NUM_ROWS], members, kind.make_records)
        rows, error = seen[key]
        bad = error
        fits = False
        for row in rows:
            try:
                reader.read(row)
                fits = True
                break
            except BadSampleError as bad_row:
                bad = bad or bad_row
        yield _Look(name, reader, files, rows, fits, bad)


def _read_first(files: list[str], members: Any, make_records: Any) -> tuple[list[dict[str, Any]], Exception | None]:
    """Return the first rows of the first file that has any; of images, each is a row."""
    is_media = kind_of(files[0]) == "media"
    rows: list[dict[str, Any]] = []
    for file in files:
        try:
            rows += itertools.islice(read_rows([file], members, make_records=make_records), _NUM_ROWS)
        except ValueError as error:
            return [], error
        if rows and not is_media:
            break
    return rows, None


def _explain(look: _Look) -> str:
    file, kind = os.path.basename(look.files[0]), kind_of(look.files[0])
    more = f" and {len(look.files) - 1:,} more" if len(look.files) > 1 else ""
    if kind == "media" and look.name == "image_classes":
        classes = sorted(class_folders(look.files))
        shown = ", ".join(map(repr, classes[:3])) + ", ..." * (len(classes) > 3)
        return f"{count_of(len(look.files), 'image')} in {count_of(len(classes), 'folder')}, whose names are the classes ({shown})"
    if kind == "media":
        ending = next(name for name in BESIDE if any(row[name] for row in look.rows))
        return f"{len(look.files):,} files such as {file!r}, with a text beside each (.{ending})"
    names = [next(iter(look.found(column)), None) for column in look.reader.columns]
    listed = " and ".join(repr(name) for name in names if name is not None)
    if look.reader.make_records is not None:
        listed = " and ".join(map(repr, look.reader.columns[0].names))
        return f"{file!r}{more}, with {listed} as published"
    return f"{file!r}{more}, with {listed}"


def _describe_unknown(path: str, looks: list[_Look]) -> str:
    looks = [look for look in looks if look.rows]
    # A format that made the rows of a file of its own is the one
    best = next((look for look in looks if look.reader.make_records is not None), None)
    if best is not None:
        return f"{path!r} was taken for {best.name!r}, but none of the first rows can be read. {best.error}"
    best = max(looks, key=lambda look: look.score)
    names = _names_of(best.rows)
    found = f"{path!r} has no known layout: {os.path.basename(best.files[0])!r} has {', '.join(map(repr, names)) or 'no values'}."
    if not names:
        return f"{path!r} has no row that can be read. {_explain_unreadable(best)}"
    if len(names) == 1 and kind_of(best.files[0]) == "csv" and (found_in := _separator_of(names[0])):
        return f"{found} {found_in}"
    addresses = _address_column(best.rows)
    if addresses is not None:
        # The captions of a published list may have any name, and `flamingo fetch` knows most
        return f"{found} {addresses!r:.200} is an address, and the image was not fetched. {HOW_TO_FETCH}"
    if best.score == 0:
        return f"{found} Formats are {', '.join(FORMATS)}: docs/data-formats.md lists their columns."
    missing = [column for column in best.reader.columns if column.is_required and not best.found(column)]
    if not missing:
        return f"{found} The nearest format is {best.name!r}, but none of the first rows can be read. {best.error}"
    has = [repr(best.found(column)[0]) for column in best.reader.columns if best.found(column)]
    lacks = []
    for column in missing:
        similar = _similar(column, names)
        hint = f" (perhaps {similar[0]!r}: rename it)" if similar else ""
        lacks.append(f"{' or '.join(map(repr, column.names[:3]))}, {column.holds}{hint}")
    if {"chosen", "rejected"} <= set(names):
        found += (
            " Rows with 'chosen' and 'rejected' are preferences (DPO), which no format reads: TRL trains on them (docs/clients.md). To learn the "
            "chosen answers alone, call 'chosen' 'completion'."
        )
    return (
        f"{found} The nearest format is {best.name!r}: it has {' and '.join(has) or 'none of its columns'}, and lacks {'; and '.join(lacks)}. "
        "docs/data-formats.md lists all columns."
    )


def _explain_unreadable(look: _Look) -> str:
    """Say why none of the rows of a file can be read."""
    header = [name for name in look.rows[0] if not name.startswith("__")]
    if len(header) == 1 and kind_of(look.files[0]) == "csv" and (found := _separator_of(header[0])):
        return f"{os.path.basename(look.files[0])!r} has the column {header[0]!r}. {found}"
    return str(look.error or f"The columns of {os.path.basename(look.files[0])!r} have no values.")


def _separator_of(name: str) -> str | None:
    """Return what to do about a table whose columns are not separated by what its name says."""
    for char, shown in _SEPARATORS.items():
        if char in name:
            remedy = "Name it .tsv" if char == "\t" else "Save it with commas"
            return (
                f"Its columns are separated by {shown}, and those of a .csv by commas (of a .tsv by tabs). {remedy}."
            )
    return None


def _names_of(rows: list[dict[str, Any]]) -> list[str]:
    """Return the names of the columns that have a value in some row."""
    names: dict[str, None] = {}
    for row in rows:
        try:
            values = parse_record(row) if row.get(JSON) is not None else row
        except BadSampleError:
            continue
        names |= dict.fromkeys(
            name for name, value in values.items() if value is not None and not name.startswith("__")
        )
    return list(names)


def _address_column(rows: list[dict[str, Any]]) -> str | None:
    """Return a column with the addresses of images. In a table without names, as CC3M is published, the first row has one instead."""
    for row in rows:
        try:
            values = parse_record(row) if row.get(JSON) is not None else row
        except BadSampleError:
            continue
        for name, value in values.items():
            is_listed = name in (*ADDRESSES, "coco_url", "flickr_url") and isinstance(value, str)
            if (is_listed and "://" in value) or name.startswith(("http://", "https://")):
                return name
    return None


def _similar(column: Column, names: list[str]) -> list[str]:
    lower = {name.lower(): name for name in names}
    called = [lower[other] for name in column.names for other in _OTHER_NAMES.get(name, ()) if other in lower]
    return called + [
        lower[match] for name in column.names for match in difflib.get_close_matches(name, lower, n=1, cutoff=0.7)
    ]
