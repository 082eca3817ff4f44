# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
What a frozen vision encoder makes of the images of a data set, computed once and kept in `datasets`' cache.

The cache is keyed by the rows, by the files that they name (path, size, inode and times of the last change, in
nanoseconds), by the weights and configuration of the encoder, by the processor, and by the version of this package. The
second run reads what the first one wrote; another encoder, or a file that was replaced, means computing again. Of what is
at an address only the address is known: if that changed, begin with an empty cache (`HF_DATASETS_CACHE`).

An image takes `P * Dv` numbers, which for CLIP ViT-L/14 is 0.5 MB in float16. That suits small data sets.
"""

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from importlib.metadata import version
from itertools import chain
from typing import Any, Literal

import PIL.Image
import torch
from datasets import Array3D, Dataset, Features, List, Value
from datasets.fingerprint import Hasher

from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor
from .columns import ORIGIN, parse_record, row_location, rows_of
from .data_files import stamp
from .documents import Chunk
from .errors import BadSampleError
from .media import load_media
from .reader import Reader
from .rows import undecoded


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
    Replace the images of a data set by their features, for [`FlamingoDataCollator`].

    Args:
        dataset (`datasets.Dataset`):
            Has the column `image`, an image, or `images`, a list of them in which a list of frames is a video. Both
            may be `None`. A data set in memory (`Dataset.from_list`) has no cache that another run could read.
        model ([`FlamingoModel`]): Has the frozen vision encoder.
        processor ([`FlamingoProcessor`]): Makes the pixels.
        batch_size (`int`, *optional*, defaults to 32): Images encoded together.
        dtype (`str`, *optional*, defaults to `"float16"`): How features are kept, `"float16"` or `"float32"`.

    Returns:
        `datasets.Dataset` with `image_features`, a `torch.Tensor` of shape `(F, P, Dv)` with all frames of the row, and
        `num_frames`, for each of its `N` images or videos how many of them are its, in the place of the images.

    Raises:
        ValueError: there is no column with images, the vision encoder is trained, or a feature is too large for
            float16.
        BadSampleError: an image cannot be read. The message names the row.
    """
    given = [name for name in ("image", "images") if name in dataset.column_names]
    if len(given) != 1:
        raise ValueError(
            f"The data set has the columns {dataset.column_names}. Needed is one of `image` and `images`: rename a column."
        )
    encoder = _Encoder(model, processor, batch_size, dtype)
    dataset = dataset.cast_column(given[0], undecoded(dataset.features[given[0]]))

    def encode(batch: dict[str, list], indices: list[int]) -> dict[str, list]:
        media = [[] if value is None else [value] if given == ["image"] else value for value in batch[given[0]]]
        return encoder.columns(
            [
                [_frames(item, f"Row {index} of the data set") for item in row]
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
) -> Dataset:
    """
    The documents of a data set with features in the place of their images, for [`EncodedDocuments`].

    Args:
        rows (`datasets.Dataset`): What `reader.load` returned.
        reader ([`~data.Reader`]): Reads the rows.
        model, processor, batch_size, dtype: As in [`add_image_features`].
        max_images (`int`, *optional*): Only the first so many images and videos of a document are encoded: its budget.
        skip_bad_samples (`bool`, *optional*, defaults to `False`):
            Whether a row that cannot be read is kept as one that cannot be trained on, instead of an error.

    Returns:
        `datasets.Dataset` with the rows in their order.

    Raises:
        BadSampleError: a row, or an image within `max_images`, cannot be read. The message names file and row.
        ValueError: as in [`add_image_features`].
    """
    encoder = _Encoder(model, processor, batch_size, dtype)

    def encode(batch: dict[str, list]) -> dict[str, list]:
        documents, media, errors = [], [], []
        for row in rows_of(batch):
            try:
                document = reader.read(row)
                decoded = [
                    _frames(item, row_location(row))
                    for item in [chunk.item for chunk in document if chunk.item is not None][:max_images]
                ]
                error = None
            except BadSampleError as bad:
                if not skip_bad_samples:
                    raise
                document, decoded, error = [], [], str(bad)
            documents.append(document)
            media.append(decoded)
            errors.append(error)
        return {
            "text": [[chunk.text for chunk in document] for document in documents],
            "prompt": [[chunk.prompt for chunk in document] for document in documents],
            "has_item": [[chunk.item is not None for chunk in document] for document in documents],
            "error": errors,
            **encoder.columns(media),
        }

    kept = {name: feature for name, feature in rows.features.items() if name in ORIGIN}
    columns = {
        **kept,
        "text": List(Value("string")),
        "prompt": List(Value("string")),
        "has_item": List(Value("bool")),
        "error": Value("string"),
    }
    settings = {f.name: getattr(reader, f.name) for f in fields(reader)}
    key = (type(reader).__name__, settings, max_images, _named_files(rows, reader))
    return encoder.map(rows, encode, columns, [name for name in rows.column_names if name not in kept], key=key)


@dataclass(frozen=True)
class EncodedDocuments(Reader):
    """Reads the rows that [`encode_documents`] made: their images are `torch.Tensor`s of shape `(F, P, Dv)`."""

    def _document(self, row: dict[str, Any]) -> list[Chunk]:
        if row["error"] is not None:
            raise BadSampleError(row["error"])
        media = self._media(row)
        return [
            Chunk(text, next(media) if has_item else None, prompt)
            for text, prompt, has_item in zip(row["text"], row["prompt"], row["has_item"], strict=True)
        ]

    @staticmethod
    def _media(row: dict[str, Any]) -> Iterator[torch.Tensor]:
        features = row["image_features"]
        yield from features.split(row["num_frames"])
        while True:  # those beyond the budget, which leaves them out
            yield features[:0]


class _Encoder:
    """The frozen vision encoder of a model, as a function of images."""

    def __init__(self, model: FlamingoModel, processor: FlamingoProcessor, batch_size: int, dtype: FeatureDtype):
        if model.vision_model is None:
            raise ValueError(
                "The model has no vision encoder (config.vision_config is None), so nothing to encode by."
            )
        trained = [name for name, p in model.vision_model.named_parameters() if p.requires_grad]
        if trained:
            raise ValueError(
                f"The vision encoder is trained ({len(trained)} parameters, such as {trained[0]!r}): features that are "
                "kept would be those of its first step for ever. Freeze it (`model.freeze_backbones()`), or train on "
                "images."
            )
        if dtype not in ("float16", "float32"):
            raise ValueError(f"`dtype` is {dtype!r}. Features are kept in float16 or float32.")
        self.model, self.processor = model, processor
        self.batch_size, self.dtype = batch_size, dtype
        # The size of the features is known from an image, and not from all configurations
        self.shape = self([[PIL.Image.new("RGB", (64, 64))]]).shape[1:]

    @property
    def fingerprint(self) -> str:
        """Hash all that features depend on, in addition to the image."""
        config, weights = self.model.config, self.model.vision_model.state_dict()
        described = [
            config.vision_config.to_json_string(),
            config.vision_feature_select_strategy,
            type(self.processor.image_processor).__name__,
            self.processor.to_json_string(),
            # How images are read, and for documents what is read of a row
            version("transformers-flamingo"),
            self.dtype,
            *(f"{name} {tensor.dtype} {tuple(tensor.shape)}" for name, tensor in weights.items()),
        ]
        raw = (tensor.detach().cpu().flatten().contiguous().view(torch.uint8).numpy() for tensor in weights.values())
        return Hasher.hash_bytes(chain((text.encode() for text in described), raw))

    @torch.no_grad()
    def __call__(self, media: list[list[PIL.Image.Image]]) -> torch.Tensor:
        """Compute the features `(F, P, Dv)` of images and videos, each a list of its frames, of `F` frames in all."""
        encoder, dtype = self.model.vision_model, getattr(torch, self.dtype)
        if not media:
            return torch.zeros(0, *self.shape, dtype=dtype)
        was_training = encoder.training
        encoder.eval()
        encoded, pending = [], []
        for index, frames in enumerate(media):
            pending.append(self._pixels(frames))
            if index == len(media) - 1 or sum(map(len, pending)) >= self.batch_size:
                for pixels in torch.cat(pending).split(self.batch_size):
                    outputs = self.model.get_image_features(pixels[None].to(encoder.device))
                    encoded.append(outputs.last_hidden_state[0].cpu())
                pending = []
        encoder.train(was_training)
        features = torch.cat(encoded).to(dtype)
        if not features.isfinite().all():
            raise ValueError(
                f"Features of {type(encoder).__name__} are too large for {self.dtype}, or not finite at all. Keep them in "
                "float32."
            )
        return features

    def _pixels(self, frames: list[PIL.Image.Image]) -> torch.Tensor:
        """Return the pixels `(F, C, H, W)` of one image or video, as the processor makes them of it in training."""
        item = frames[0] if len(frames) == 1 else frames
        return self.processor(images=[[item]], return_tensors="pt")["pixel_values"].flatten(0, -4)

    def columns(self, rows: list[list[list[PIL.Image.Image]]]) -> dict[str, list]:
        """Return the columns of rows of images and videos, each a list of its frames."""
        counts = [[len(frames) for frames in media] for media in rows]
        features = self([frames for media in rows for frames in media])
        parts = features.split([sum(row) for row in counts])
        return {"image_features": [part.numpy() for part in parts], "num_frames": counts}

    def map(self, dataset: Dataset, function, columns: dict[str, Any], removed: list[str], key: Any = None, **kwargs):
        """`Dataset.map`, with the columns of `self.columns` beside `columns`."""
        features = Features(
            {
                **columns,
                "image_features": Array3D((None, *self.shape), self.dtype),
                "num_frames": List(Value("int32")),
            }
        )
        encoded = dataset.map(
            function,
            batched=True,
            batch_size=self.batch_size,
            writer_batch_size=self.batch_size,
            remove_columns=removed,
            features=features,
            # Not that of `function`: to pickle a model is slow, and gives other bytes for the same weights
            new_fingerprint=Hasher.hash((dataset._fingerprint, self.fingerprint, key)),
            desc="Encoding images",
            **kwargs,
        )
        return encoded.with_format(
            "torch", columns=["image_features"], output_all_columns=True, dtype=getattr(torch, self.dtype)
        )


def _named_files(rows: Dataset, reader: Reader) -> str:
    """Hash the stamps of the local files that rows name, in whichever of their texts."""
    rows = rows.with_format(None).flatten()
    numbers = [name for name, feature in rows.features.items() if not _may_name(feature)]
    seen, digest = set(), hashlib.sha256()

    def visit(value: Any, row: dict[str, Any]) -> None:
        if isinstance(value, dict | list):
            for inner in value.values() if isinstance(value, dict) else value:
                visit(inner, row)
        elif isinstance(value, str) and value:
            path = reader.resolve_path(value, row)["path"]
            if path not in seen and "://" not in path and os.path.isfile(path):
                digest.update(repr(stamp(path)).encode())
                seen.add(path)

    for batch in rows.remove_columns(numbers).iter(batch_size=100):
        for row in rows_of(batch):
            with contextlib.suppress(BadSampleError):  # `read` will report it
                row = parse_record(row)
                visit({name: value for name, value in row.items() if name not in ORIGIN}, row)
    return digest.hexdigest()


def _may_name(feature: Any) -> bool:
    return not isinstance(feature, Value) or feature.dtype in ("string", "large_string")


def _frames(item: Any, location: str) -> list[PIL.Image.Image]:
    decoded = load_media(item, location)
    return decoded if isinstance(decoded, list) else [decoded]
