# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Precompute the vision features of a dataset once and store them in the `datasets` cache.

The cache is keyed by the rows, by the content of the files that they name, by the weights and configuration of the encoder,
by the processor, and by the version of this package. A second run reads what the first one wrote, and each file once, to know
its content. With another encoder, or other content in a file of the same name, features are computed again. A file at an
address is known by its address alone: if it changed, start with an empty cache (`HF_DATASETS_CACHE`).

An image takes `P * Dv` numbers, 0.5 MB in float16 for CLIP ViT-L/14, which suits small datasets. An image file that many rows
of a source name is encoded and stored once; a video is for each row.
"""

import contextlib
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields
from importlib.metadata import version
from typing import Any, Literal, NamedTuple

import PIL.Image
import torch
from datasets import Array3D, Dataset, Features, List, Value
from datasets.fingerprint import Hasher

from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor
from ..utils.fingerprint import fingerprint, fingerprint_weights
from .column_files import undecoded
from .columns import ORIGIN, parse_record, row_location, rows_of
from .documents import Chunk, Turn
from .encoding import encode_images
from .errors import BadSampleError
from .media import load_media
from .media_files import open_media
from .reader import Reader


FeatureDtype = Literal["float16", "float32"]


def add_image_features(
    dataset: Dataset,
    model: FlamingoModel,
    processor: FlamingoProcessor,
    *,
    batch_size: int = 32,
    dtype: FeatureDtype = "float16",
) -> Dataset:
    """
    Replace the images of a dataset by their vision features, for [`FlamingoDataCollator`].

    Args:
        dataset (`datasets.Dataset`):
            The rows, with a column `image`, an image, or `images`, a list of images in which a list of frames is a video.
            Values may be `None`. A dataset in memory (`Dataset.from_list`) has no cache that another run could read.
        model ([`FlamingoModel`]): The model with the frozen vision encoder.
        processor ([`FlamingoProcessor`]): Makes the pixels.
        batch_size (`int`, *optional*, defaults to 32): Number of images or frames encoded together.
        dtype (`str`, *optional*, defaults to `"float16"`): Type of the stored features, `"float16"` or `"float32"`.

    Returns:
        `datasets.Dataset` with two columns instead of the images: `image_features`, a `torch.Tensor` of shape
        `(F, P, Dv)` with all frames of the row, and `num_frames`, a list of the number of frames of each of its `N`
        images or videos.

    Raises:
        ValueError: there is no column of images or more than one, the vision encoder is not frozen, or a feature is too
            large for float16.
        BadSampleError: an image cannot be read. The message names the row.
    """
    given = [name for name in ("image", "images") if name in dataset.column_names]
    if len(given) != 1:
        raise ValueError(
            f"The dataset has the columns {dataset.column_names}. It needs either `image` or `images`: rename a column."
        )
    encoder = _Encoder(model, processor, batch_size, dtype)
    dataset = dataset.cast_column(given[0], undecoded(dataset.features[given[0]]))

    def encode(batch: dict[str, list], indices: list[int]) -> dict[str, list]:
        media = [[] if value is None else [value] if given == ["image"] else value for value in batch[given[0]]]
        return encoder.columns(
            [
                [_frames(item, f"Row {index} of the dataset") for item in row]
                for index, row in zip(indices, media, strict=True)
            ]
        )

    others = {name: feature for name, feature in dataset.features.items() if name != given[0]}
    key = _named_files(dataset.select_columns(given), Reader())
    return encoder.map(dataset, encode, others, given, key=key, with_indices=True)


def encode_documents(
    rows: Dataset,
    reader: Reader,
    model: FlamingoModel,
    processor: FlamingoProcessor,
    *,
    max_images: int | None = None,
    skip_bad_samples: bool = False,
    batch_size: int = 32,
    dtype: FeatureDtype = "float16",
    approve: Callable[[], bool] | None = None,
) -> Dataset | None:
    """
    Read the documents of a dataset and replace their images by vision features, for [`EncodedDocuments`].

    Args:
        rows (`datasets.Dataset`): What `reader.load` returned.
        reader ([`~data.Reader`]): Reads the rows.
        model, processor, batch_size, dtype: As in [`add_image_features`].
        max_images (`int`, *optional*): Maximum number of images and videos of a document to encode, from its beginning.
        skip_bad_samples (`bool`, *optional*, defaults to `False`):
            Whether to store the error of a bad row, for [`EncodedDocuments`] to raise, instead of raising it now.
        approve (`Callable`, *optional*):
            Is asked before anything is encoded, unless an earlier call stored the features. If it returns `False`, nothing is encoded, and
            the result is `None`.

    Returns:
        `datasets.Dataset` with the rows in their order: `text`, `prompt`, `turns` and `alternatives` of each chunk, `has_item`, `error`, and
        `image_features` and `num_frames` as in [`add_image_features`], but for files that an earlier row named: their
        features are those of the row `kept_in`, which is -1 for the row itself, from the frame `first_frame`.

    Raises:
        BadSampleError: a row, or an image within `max_images`, cannot be read. The message names file and row.
        ValueError: as in [`add_image_features`].
    """
    encoder = _Encoder(model, processor, batch_size, dtype)
    known: dict[str, _Place] = {}  # by the path of a file

    def encode(batch: dict[str, list], indices: list[int]) -> dict[str, list]:
        documents, media, places, errors = [], [], [], []
        for index, row in zip(indices, rows_of(batch), strict=True):
            try:
                document = reader.read(row)
                items = [chunk.item for chunk in document if chunk.item is not None][:max_images]
                decoded, row_places, new = _decode_new(items, row_location(row), index, known)
                known.update(new)  # not before all of the row is known to be good
                error = None
            except BadSampleError as bad:
                if not skip_bad_samples:
                    raise
                document, decoded, row_places, error = [], [], [], str(bad)
            documents.append(document)
            media.append(decoded)
            places.append([place.seen_from(index) for place in row_places])
            errors.append(error)
        return {
            "text": [[chunk.text for chunk in document] for document in documents],
            "prompt": [[chunk.prompt for chunk in document] for document in documents],
            "turns": [[json.dumps(chunk.turns) for chunk in document] for document in documents],
            "alternatives": [[list(chunk.alternatives) for chunk in document] for document in documents],
            "has_item": [[chunk.item is not None for chunk in document] for document in documents],
            "error": errors,
            **encoder.columns(media),
            "kept_in": [[place.kept_in for place in row] for row in places],
            "first_frame": [[place.first_frame for place in row] for row in places],
            "num_frames": [[place.num_frames for place in row] for row in places],
        }

    kept = {name: feature for name, feature in rows.features.items() if name in ORIGIN}
    columns = {
        **kept,
        "text": List(Value("string")),
        "prompt": List(Value("string")),
        "turns": List(Value("string")),
        "alternatives": List(List(Value("string"))),
        "has_item": List(Value("bool")),
        "error": Value("string"),
        "kept_in": List(Value("int32")),
        "first_frame": List(Value("int32")),
    }
    settings = {f.name: getattr(reader, f.name) for f in fields(reader)}
    key = (type(reader).__name__, settings, max_images, _named_files(rows, reader))
    removed = [name for name in rows.column_names if name not in kept]
    return encoder.map(rows, encode, columns, removed, key=key, approve=approve, with_indices=True)


class _Place(NamedTuple):
    """Where the features of an image or video are: the row that has them, their first frame there, and their number."""

    kept_in: int
    first_frame: int
    num_frames: int

    def seen_from(self, row: int) -> "_Place":
        """Return the place as a row stores it: a row need not know its own number."""
        return self._replace(kept_in=-1) if self.kept_in == row else self


def _decode_new(
    items: list[Any], location: str, row: int, known: Mapping[str, _Place]
) -> tuple[list[list[PIL.Image.Image]], list[_Place], dict[str, _Place]]:
    """
    Decode the images and videos of a row, but for the files that an earlier row or an earlier item named.

    Args:
        items (`list`): The images and videos.
        location (`str`): File and row, for error messages.
        row (`int`): The number of the row.
        known (`Mapping[str, _Place]`): The places of the files of all rows before, by path.

    Returns:
        `tuple`: the frames of what is decoded, the place of each item, and the places of new files.
    """
    decoded: list[list[PIL.Image.Image]] = []
    places: list[_Place] = []
    new: dict[str, _Place] = {}
    num_frames = 0
    for item in items:
        # Only what is a file is the same wherever it is named
        file = item["path"] if isinstance(item, dict) and item.get("bytes") is None else None
        place = new.get(file) or known.get(file)
        if place is None:
            frames = _frames(item, location)
            place = _Place(row, num_frames, len(frames))
            num_frames += len(frames)
            decoded.append(frames)
            if file is not None:
                new[file] = place
        places.append(place)
    return decoded, places, new


@dataclass(frozen=True)
class EncodedDocuments(Reader):
    """
    Reader of the rows of [`encode_documents`]. Their images are `torch.Tensor`s of shape `(F, P, Dv)`.

    Args:
        encoded (`datasets.Dataset`): All rows that [`encode_documents`] returned.
    """

    encoded: Dataset = field(kw_only=True, repr=False)

    def _document(self, row: dict[str, Any]) -> list[Chunk]:
        if row["error"] is not None:
            raise BadSampleError(row["error"])
        media = self._media(row)
        columns = (row[name] for name in ("text", "prompt", "turns", "alternatives", "has_item"))
        return [
            Chunk(
                text,
                next(media) if has_item else None,
                prompt,
                tuple(Turn(*turn) for turn in json.loads(turns)),
                tuple(alternatives),
            )
            for text, prompt, turns, alternatives, has_item in zip(*columns, strict=True)
        ]

    def _media(self, row: dict[str, Any]) -> Iterator[torch.Tensor]:
        kept = {-1: row["image_features"]}
        # All rows at once: `datasets` takes as long over one row as over a batch
        others = sorted({place for place in row["kept_in"] if place >= 0})
        if others:
            features = self.encoded.select_columns("image_features").__getitems__(others)
            kept |= {number: entry["image_features"] for number, entry in zip(others, features, strict=True)}
        for place, start, count in zip(row["kept_in"], row["first_frame"], row["num_frames"], strict=True):
            yield kept[place][start : start + count]
        while True:  # images beyond `max_images`, which [`document_to_sample`] cuts
            yield row["image_features"][:0]


class _Encoder:
    """The frozen vision encoder of a model, as a function of images that `datasets` can cache."""

    def __init__(self, model: FlamingoModel, processor: FlamingoProcessor, batch_size: int, dtype: FeatureDtype):
        if model.vision_model is None:
            raise ValueError(
                "The model has no vision encoder (config.vision_config is None). Give one that has, or omit this step."
            )
        trained = [name for name, p in model.vision_model.named_parameters() if p.requires_grad]
        if trained:
            raise ValueError(
                f"The vision encoder is not frozen ({len(trained)} trainable parameters, such as {trained[0]!r}): cached "
                "features would go stale after the first step. Freeze it (`model.freeze_backbones()`), or train on "
                "images."
            )
        if dtype not in ("float16", "float32"):
            raise ValueError(f"`dtype` is {dtype!r}. Features are stored as float16 or float32.")
        self.model, self.processor = model, processor
        self.batch_size, self.dtype = batch_size, dtype
        # Encode an image to learn the shape (P, Dv) of features, which not all configurations tell
        self.shape = self([PIL.Image.new("RGB", (64, 64))]).shape[1:]

    @property
    def fingerprint(self) -> str:
        """Return the fingerprint of everything that features depend on in addition to the image."""
        return fingerprint(
            [
                self.model.config.vision_config.to_json_string(),
                self.model.config.vision_feature_select_strategy,
                repr(self.model.config.vision_feature_layers),
                type(self.processor.image_processor).__name__,
                self.processor.to_json_string(),
                # other versions may read images or rows differently
                version("transformers-flamingo"),
                self.dtype,
                fingerprint_weights(self.model.vision_model.state_dict(), sample=False),
            ]
        )

    def __call__(self, frames: list[PIL.Image.Image]) -> torch.Tensor:
        """Compute the features `(F, P, Dv)` of `F` images or frames of videos."""
        dtype = getattr(torch, self.dtype)
        if not frames:
            return torch.zeros(0, *self.shape, dtype=dtype)
        encoded = encode_images(
            self.model,
            self.processor,
            frames,
            output="last_hidden_state",
            batch_size=self.batch_size,
            device="cpu",
        )
        features = torch.stack(encoded).to(dtype)
        if not features.isfinite().all():
            raise ValueError(
                f"Features of {type(self.model.vision_model).__name__} are too large for {self.dtype}, or not finite at all. Store them "
                "as float32."
            )
        return features

    def columns(self, rows: list[list[list[PIL.Image.Image]]]) -> dict[str, list]:
        """Return the columns of rows of images and videos, each a list of its frames."""
        counts = [[len(frames) for frames in media] for media in rows]
        features = self([frame for media in rows for frames in media for frame in frames])
        parts = features.split([sum(row) for row in counts])
        return {"image_features": [part.numpy() for part in parts], "num_frames": counts}

    def map(
        self,
        dataset: Dataset,
        function: Callable,
        columns: dict[str, Any],
        removed: list[str],
        key: Any = None,
        approve: Callable[[], bool] | None = None,
        **kwargs: Any,
    ) -> Dataset | None:
        """
        Call `Dataset.map` so that its result has `columns` and those of `self.columns`, and is found in the cache.

        If it is not there and `approve` returns `False`, return `None`.
        """
        features = Features(
            {
                **columns,
                "image_features": Array3D((None, *self.shape), self.dtype),
                "num_frames": List(Value("int32")),
            }
        )
        # By default it would depend on `function`, but pickling a model is slow and gives other bytes each time
        new_fingerprint = Hasher.hash((dataset._fingerprint, self.fingerprint, sorted(features), key))
        directory = cache_directory(dataset)
        file = None if directory is None else os.path.join(directory, f"cache-{new_fingerprint}.arrow")
        is_cached = file is not None and os.path.exists(file)
        if not is_cached and approve is not None and not approve():
            return None
        encoded = dataset.map(
            function,
            batched=True,
            batch_size=self.batch_size,
            writer_batch_size=self.batch_size,
            remove_columns=removed,
            features=features,
            new_fingerprint=new_fingerprint,
            cache_file_name=file,
            desc="Encoding images",
            **kwargs,
        )
        return encoded.with_format(
            "torch", columns=["image_features"], output_all_columns=True, dtype=getattr(torch, self.dtype)
        )


def cache_directory(dataset: Dataset) -> str | None:
    """Return the folder in which `datasets` caches what is made of a dataset, or `None` if it is in memory."""
    return os.path.dirname(dataset.cache_files[0]["filename"]) if dataset.cache_files else None


def _named_files(rows: Dataset, reader: Reader) -> str:
    """Hash the names and contents of the local files that rows name, in any of their texts."""
    rows = rows.with_format(None).flatten()
    # Other columns hold no text that could name a file, and may be large
    others = [name for name, feature in rows.features.items() if not _may_name(feature)]
    digests: dict[str, str | None] = {}

    def visit(value: Any, row: dict[str, Any]) -> None:
        if isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                visit(inner, row)
        elif isinstance(value, str) and value:
            path = reader.resolve_path(value, row)["path"]
            if path not in digests:
                digests[path] = _hash_file(path) if "://" not in path and os.path.isfile(path) else None

    for batch in rows.remove_columns(others).iter(batch_size=100):
        for row in rows_of(batch):
            with contextlib.suppress(BadSampleError):  # which `read` will report
                row = parse_record(row)
                visit({name: value for name, value in row.items() if name not in ORIGIN}, row)
    return fingerprint(f"{path} {digest} " for path, digest in digests.items() if digest is not None)


def _hash_file(path: str) -> str | None:
    """Hash the content of a file, or return `None` for one that is not read either, such as one outside of `media_root`."""
    try:
        with open_media(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, ValueError):
        return None


def _may_name(feature: Any) -> bool:
    """Tell whether a column may hold text."""
    return not isinstance(feature, Value) or feature.dtype in ("string", "large_string")


def _frames(item: Any, location: str) -> list[PIL.Image.Image]:
    """Decode an image or video as a list of frames."""
    decoded = load_media(item, location)
    return decoded if isinstance(decoded, list) else [decoded]
