# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Opening of data files through `datasets`, so that each row knows its file and its place there.

| file | read by | a row is |
|---|---|---|
| `.parquet` | `datasets`' parquet | its columns |
| `.jsonl`, `.json` (one list), each also `.gz`, `.zip`, `.zst` | `datasets`' text | one record, parsed by [`record`] |
| `.csv`, `.tsv` | `datasets`' csv | its columns, all of them strings |
| `.tar` | `datasets`' WebDataset | the files of one key |

JSON is parsed row by row because records of one file may differ in their types (`id` a number here and a string there,
`content` a string or a list), which one Arrow schema refuses.

Images and videos stay undecoded: a broken one is then an error of its own row, see [`decode_image`].
"""

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar

import pandas
from datasets import Dataset, Features, Image, IterableDataset, Value, Video, concatenate_datasets, load_dataset
from fsspec.core import url_to_fs

from .documents import Chunk
from .media import BadSampleError
from .media_files import locate


FILE, ROW, JSON = "__file__", "__row__", "__json__"
_TAR_KEY, _TAR_FILE = "__key__", "__url__"
#: The columns that [`origin`] reads.
ORIGIN = (FILE, ROW, _TAR_FILE, _TAR_KEY)
_FORMATS = {".parquet": "parquet", ".jsonl": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".tar": "tar"}


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
                `"train"` takes `train/metadata.csv` and `train-00000-of-00002.parquet`.
            streaming (`bool`, *optional*, defaults to `False`): Reads rows when they are asked for. Each file is a
                shard.

        Returns:
            A data set whose rows go to `read`, and [`origin`].

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the files are of a kind that this layout has not, or of several kinds.
        """
        files = find_files(path, split)
        if _suffix(files[0]) == ".tar":
            if not self.tar_members:
                raise ValueError(
                    f"{path!r} leads to {files[0]!r}, but {type(self).__name__} has no form in .tar files. Its "
                    "docstring says which it has."
                )
            members = {**self.tar_members, _TAR_KEY: Value("string"), _TAR_FILE: Value("string")}
            return load_dataset(
                "webdataset", data_files=files, split="train", streaming=streaming, features=Features(members)
            )
        if streaming:
            return IterableDataset.from_generator(_stream, gen_kwargs={"files": files})
        parts = []
        for file in files:
            rows = _open(file, streaming=False)
            rows = rows.add_column(FILE, [file] * len(rows), feature=Value("string"))
            parts.append(rows.add_column(ROW, list(range(len(rows))), feature=Value("int64")))
        return concatenate_datasets(parts)

    def read(self, row: dict[str, Any]) -> list[Chunk]:
        """
        The document in a row.

        Raises:
            BadSampleError: a column is missing, empty or malformed. The message names file and row.
        """
        try:
            return self._document(row)
        except BadSampleError:
            raise
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise BadSampleError(
                f"{origin(row)}: it is not what {type(self).__name__} reads ({type(error).__name__}: {error}). Mend it, or "
                "leave it out."
            ) from error

    def _document(self, row: dict[str, Any]) -> list[Chunk]:
        """What `read` returns. A subclass defines it; a row that it cannot take may raise what it will."""
        raise NotImplementedError

    def locate(self, medium: Any, row: dict[str, Any]) -> Any:
        """Return `medium`, and if it is a path, a dict of `bytes` and a [`MediaPath`], see [`data.media_files.locate`]."""
        if isinstance(medium, list):
            return [self.locate(frame, row) for frame in medium]
        path = medium
        if isinstance(medium, dict) and medium.get("bytes") is None:
            path = medium.get("path")
        if not isinstance(path, str):
            return medium
        folder = os.path.dirname(row.get(FILE, ""))
        return {"bytes": None, "path": locate(path, folder, self.media_root, self.allow_remote)}


def find_files(path: str, split: str | None = None) -> list[str]:
    """The data files under `path`, sorted. See [`Reader.load`]."""
    fs, root = url_to_fs(path)
    found = sorted(fs.find(root) if fs.isdir(root) else fs.glob(root))
    files = [file for file in found if _suffix(file) in _FORMATS]
    if split is not None:
        word = re.compile(rf"(?<![A-Za-z0-9]){re.escape(split)}(?![A-Za-z0-9])")
        common = root if fs.isdir(root) else os.path.dirname(re.split(r"[*?\[]", root)[0])
        files = [file for file in files if word.search(file.removeprefix(common))]
    if not files:
        of_split = "" if split is None else f" of split {split!r}"
        raise FileNotFoundError(
            f"{path!r} leads to {len(found)} files, but to no {', '.join(_FORMATS)} file{of_split}. Check the path."
        )
    kinds = sorted({_FORMATS[_suffix(file)] for file in files})
    if len(kinds) > 1:
        raise ValueError(
            f"{path!r} leads to files of several kinds ({', '.join(kinds)}), such as {files[0]!r} and {files[-1]!r}: "
            "which of them are the data? Give a pattern such as 'folder/*.csv'."
        )
    return files if "file" in fs.protocol else [fs.unstrip_protocol(file) for file in files]


def origin(row: dict[str, Any]) -> str:
    """File and row that a row came from, as error messages begin with them."""
    if row.get(_TAR_FILE) is not None:
        return f"{row[_TAR_FILE]}, sample {row[_TAR_KEY]!r}"
    if row.get(FILE) is not None:
        return f"{row[FILE]}, row {row[ROW]}"
    return "A row of unknown origin"


def rows_of(batch: dict[str, list]) -> list[dict[str, Any]]:
    """The rows of a batch, as a batched `Dataset.map` gives it."""
    return [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]


def record(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its JSON parsed, if it is of a JSON file or has the member `json` of a `.tar`."""
    parsed = row.get("json") if _TAR_KEY in row else None
    if row.get(JSON) is not None:
        try:
            parsed = json.loads(row[JSON])
        except json.JSONDecodeError as error:
            raise BadSampleError(f"{origin(row)}: no JSON ({error}). The file may be cut short.") from error
    if parsed is None:
        return row
    if not isinstance(parsed, dict):
        raise BadSampleError(f"{origin(row)}: a {type(parsed).__name__}, where a JSON object should be.")
    return {**parsed, **{key: row[key] for key in ORIGIN if key in row}}


def column(row: dict[str, Any], *names: str) -> Any:
    """The first of the columns `names` that has a value."""
    for name in names:
        if row.get(name) is not None:
            return row[name]
    there = sorted(name for name in row if not name.startswith("__") and row[name] is not None)
    raise BadSampleError(
        f"{origin(row)}: no value in {' or '.join(map(repr, names))}. The columns with a value are {there}. Rename "
        "the column, or leave the row out."
    )


def text_column(row: dict[str, Any], *names: str) -> str:
    """The text in the first of the columns `names` that has a value, without the space around it."""
    text = column(row, *names)
    if not isinstance(text, str) or not text.strip():
        raise BadSampleError(
            f"{origin(row)}: the text in {' or '.join(map(repr, names))} is {text!r}. Leave the row out."
        )
    return text.strip()


def _suffix(file: str) -> str:
    """The suffix below one of compression; a `.tar` is never compressed."""
    stem, suffix = os.path.splitext(file.lower())
    inner = os.path.splitext(stem)[1] if suffix in (".gz", ".zip", ".zst", ".xz", ".bz2") else suffix
    return suffix if inner == ".tar" else inner


def _stream(files: list[str]) -> Iterator[dict[str, Any]]:
    for file in files:
        # `iter` and not iteration: in a DataLoader's worker that would deal this file out among the workers, although
        # it is this worker's own shard, and rows would be lost
        for number, batch in enumerate(_open(file, streaming=True).iter(batch_size=1)):
            yield {**{name: values[0] for name, values in batch.items()}, FILE: file, ROW: number}


def _open(file: str, *, streaming: bool) -> Dataset | IterableDataset:
    options = {"data_files": [file], "split": "train", "streaming": streaming}
    suffix = _suffix(file)
    if suffix == ".json":
        rows = load_dataset("text", sample_by="document", **options)
        return rows.map(_split_list, batched=True, batch_size=1, remove_columns="text", fn_kwargs={"file": file})
    if suffix == ".jsonl":
        return load_dataset("text", **options).rename_column("text", JSON)
    if suffix == ".parquet":
        rows = load_dataset("parquet", **options)
        return rows.cast(undecoded(rows.features))
    separator = "\t" if suffix == ".tsv" else ","
    names = pandas.read_csv(file, sep=separator, nrows=0).columns
    # As strings, and no word means "missing": a caption may be "007", "None" or "NA"
    features = Features({name: Value("string") for name in names})
    return load_dataset("csv", sep=separator, features=features, keep_default_na=False, **options)


def _split_list(batch: dict[str, list[str]], file: str) -> dict[str, list[str]]:
    try:
        records = json.loads(batch["text"][0])
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{file!r} is no JSON ({error}). With one record per line, it must be named .jsonl."
        ) from error
    if not isinstance(records, list):
        raise ValueError(f"{file!r} holds a {type(records).__name__}, where a list of records should be.")
    return {JSON: [json.dumps(item) for item in records]}


def undecoded(feature: Any) -> Any:
    """`feature` with every image and video in it left as bytes and path."""
    if isinstance(feature, dict):
        inner = {name: undecoded(value) for name, value in feature.items()}
        return Features(inner) if isinstance(feature, Features) else inner
    if isinstance(feature, Image | Video):
        return type(feature)(decode=False)
    if hasattr(feature, "feature"):
        return type(feature)(undecoded(feature.feature))
    return feature
