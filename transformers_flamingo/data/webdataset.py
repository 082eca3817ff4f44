# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Samples of WebDataset's `.tar` files: neighboring members whose names are equal up to the first dot.

    000.jpg  000.txt  001.jpg  001.txt   ->   {"jpg": ..., "txt": ...}, {"jpg": ..., "txt": ...}
"""

import re
import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from datasets import Image, Video

from .columns import ERROR, TAR_FILE, TAR_KEY
from .positions import START, Position, open_at
from .utf8 import decode_utf8, is_utf8, printable


_MEMBER = re.compile(r"((?:.*/)?[^./]+)\.([^/]*)", re.DOTALL)


class _Header(tarfile.TarInfo):
    """Member header that raises if it is damaged. `tarfile` takes a damaged header after the first for the end."""

    begin = 0  # byte at which the reading of the archive began, from which `tarfile` counts

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> tarfile.TarInfo:
        """Read the next header, or raise a `tarfile.ReadError` if it is damaged."""
        offset = cls.begin + archive.offset
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:  # a block of zeros, with which an archive ends
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(
                f"neither the header of a member nor the end of the archive is at byte {offset}: {error}"
            ) from error


def tar_samples(
    file: str, members: dict[str, Any], start: Position = START
) -> Iterator[tuple[dict[str, Any], Position]]:
    """
    Read the samples of a `.tar` file.

    Args:
        file (`str`): Path or address of the archive.
        members (`dict`): The suffixes of members to read, with their features.
        start ([`Position`], *optional*): Where to begin, as an earlier reading yielded it.

    Yields:
        `tuple[dict[str, Any], Position]`: a sample, and the position behind it.

    Raises:
        Exception: the archive is damaged or cut short, with the type of whatever read it.
    """
    sample, name = None, None
    with open_at(file, start) as (source, begin):
        count = begin.row
        header = type("_HeaderAt", (_Header,), {"begin": begin.byte or 0})
        with tarfile.open(fileobj=source, mode="r|", tarinfo=header) as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # or it would keep all headers
                match = _MEMBER.fullmatch(member.name)
                if member.isdir() or match is None:
                    continue
                if match[1] != name:
                    if sample is not None:
                        yield sample, _position(archive, count, begin, member.offset)
                    name, seen, count = match[1], set(), count + 1
                    sample = None if count <= start.row else _new_sample(file, members, member, name)
                kind = match[2].lower()
                if sample is not None and kind in seen:
                    sample[ERROR] = f"it has two members of the kind {kind!r}, so two samples may have one name"
                elif sample is not None and kind in members:
                    _add(sample, kind, archive.extractfile(member) if member.isreg() else None, members[kind])
                seen.add(kind)
            end = _position(archive, count, begin, archive.offset)
            _check_end(archive)
            # The last sample only now: it is known to be whole if the archive is
            if sample is not None:
                yield sample, end
    if count == 0:
        raise ValueError("none of its members has the name of a sample, KEY.SUFFIX")


def _position(archive: tarfile.TarFile, count: int, begin: Position, offset: int) -> Position:
    # A global header (`git archive` writes one) applies to the members after it, so it must be read again
    can_seek = begin.byte is not None and not archive.pax_headers
    return Position(count, begin.byte + offset if can_seek else None)


def _new_sample(file: str, members: dict[str, Any], member: tarfile.TarInfo, name: str) -> dict[str, Any]:
    sample = {**dict.fromkeys(members), TAR_KEY: printable(name), TAR_FILE: file, ERROR: None}
    if not is_utf8(name):
        sample[ERROR] = f"the name of {printable(member.name)!r} is not UTF-8"
    return sample


def _add(sample: dict[str, Any], kind: str, data: BinaryIO | None, feature: Any) -> None:
    """Put a member into its sample."""
    if data is None:
        sample[ERROR] = f"its member {kind!r} is a link, which is not followed"
    elif isinstance(feature, Image | Video):
        sample[kind] = {"path": f"{sample[TAR_KEY]}.{kind}", "bytes": data.read()}
    else:
        sample[kind], error = decode_utf8(data.read(), f"its member {kind!r}")
        sample[ERROR] = sample[ERROR] or error


def _check_end(archive: tarfile.TarFile) -> None:
    """Make sure that an archive ends with a second block of zeros, and that nothing follows."""
    if len(block := archive.fileobj.read(tarfile.BLOCKSIZE)) < tarfile.BLOCKSIZE or block.strip(b"\0"):
        raise tarfile.ReadError("it does not end with two blocks of zeros")
    while block := archive.fileobj.read(1 << 20):
        if block.strip(b"\0"):
            raise tarfile.ReadError("there is data after its end: it may be two archives in one file")
