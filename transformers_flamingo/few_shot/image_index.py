# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""An index of images: their embeddings, computed once, kept on the disk, and searched in blocks."""

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL.Image
import torch
from tqdm.auto import tqdm
from transformers.utils import logging

from ..data import VideoSegment
from ..saving_flamingo import write_bytes
from ..utils.fingerprint import fingerprint
from .examples import Example
from .retrieval import Embed


if TYPE_CHECKING:
    from accelerate import PartialState


logger = logging.get_logger(__name__)

# With fewer images a progress bar would be gone before it is read
_LEAST_SHOWN = 100


class ImageIndex:
    """
    Index of the images of examples, to find those nearest to the images of queries.

    An image that several examples show (the five questions of VQAv2) is embedded and compared once. Embeddings are computed in blocks of
    `block_size` images. With a `directory` each block is a file, whose name is a fingerprint of the encoder, its preprocessing and the
    images: what is there is read, what is missing computed, also after a kill. Blocks are mapped into memory, so that the index may be
    larger than it.

    Args:
        embed ([`ImageEmbedder`]): Returns the vectors of examples.
        examples (`Sequence[Example]`): The examples, each with an image.
        directory (`str`, *optional*):
            Folder that keeps the vectors, for any number of indexes. By default they are kept in memory only. It has no effect if
            `embed` has no `fingerprint`.
        kind (`str`, *optional*, defaults to `"support"`): The split that the examples are from, for error messages.
        block_size (`int`, *optional*, defaults to 4096): Images in a block.
        faiss (`str`, *optional*):
            Search by an index of faiss that this text describes, such as `"HNSW32"`: faster for millions of images, and approximate
            unless it is `"Flat"`. By default the search is exact, and by matrix products on the device of the model.

    Raises:
        ImportError: `faiss` is given, and not installed.
    """

    def __init__(
        self,
        embed: Embed,
        examples: Sequence[Example],
        *,
        directory: str | os.PathLike | None = None,
        kind: str = "support",
        block_size: int = 4096,
        faiss: str | None = None,
    ):
        if faiss is not None:
            try:
                import faiss as _  # noqa: F401
            except ImportError as error:
                raise ImportError(
                    f"The search index {faiss!r} needs faiss: pip install faiss-cpu. Without it the search is exact, in blocks."
                ) from error
        self.embed, self.examples, self.kind, self.block_size = embed, examples, kind, block_size
        self.directory = Path(directory) if directory is not None and hasattr(embed, "fingerprint") else None
        self.faiss = faiss
        self.num_embedded = 0
        self._blocks: list[np.ndarray] | None = None
        self._faiss_index = None

    @cached_property
    def _images(self) -> tuple[np.ndarray, list[int], list[str]]:
        """Return the number of the image of each example, and the first example and the identity of each image."""
        numbers: dict[str, int] = {}
        image_of, first = np.empty(len(self.examples), dtype=np.int64), []
        for row, example in enumerate(self.examples):
            if not example.media:
                raise ValueError(f"{self.kind} {example.id!r} has no image, so there is nothing to compare.")
            identity = media_fingerprint(example.media[0])
            image_of[row] = numbers.setdefault(identity, len(numbers))
            if len(first) < len(numbers):
                first.append(row)
        return image_of, first, list(numbers)

    @cached_property
    def _rows_by_image(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the examples sorted by image, and where those of each image begin."""
        image_of, first, _ = self._images
        return np.argsort(image_of, kind="stable"), np.searchsorted(np.sort(image_of), np.arange(len(first) + 1))

    def reset(self) -> None:
        """Forget the embeddings in memory, for an encoder whose weights have changed. Those on the disk are of their encoder."""
        self._blocks = self._faiss_index = None
        vars(self.embed).pop("fingerprint", None)

    @property
    def num_images(self) -> int:
        """Return the number of different images."""
        return len(self._images[1])

    def count_missing(self) -> int:
        """Return the number of images that are not in `directory`, which [`~ImageIndex.build`] embeds."""
        if self._blocks is not None:
            return 0
        identities = self._images[2]
        blocks = [identities[start : start + self.block_size] for start in range(0, len(identities), self.block_size)]
        return sum(len(block) for block in blocks if (path := self._path(block)) is None or not path.is_file())

    def build(self, state: "PartialState | None" = None) -> "ImageIndex":
        """
        Compute the vectors that are not kept yet, and return the index.

        Args:
            state (`PartialState`, *optional*): The processes that share the work, if there is a `directory` that all of them see.

        Raises:
            ValueError: an example has no image, or vectors are not finite.
        """
        if self._blocks is not None:
            return self
        _, first, identities = self._images
        starts = range(0, len(first), self.block_size)
        rows = [first[start : start + self.block_size] for start in starts]
        paths = [self._path(identities[start : start + self.block_size]) for start in starts]
        is_shared = state is not None and state.num_processes > 1 and self.directory is not None
        own = range(state.process_index, len(rows), state.num_processes) if is_shared else range(len(rows))
        blocks = {number: self._read(paths[number], len(rows[number])) for number in own}
        missing = [number for number, block in blocks.items() if block is None]
        total = sum(len(rows[number]) for number in missing)
        disable = total < _LEAST_SHOWN or (is_shared and not state.is_main_process)
        with tqdm(total=total, desc=f"images of {self.kind} for RICES", disable=disable) as bar:
            for number in missing:
                blocks[number] = self._compute(rows[number], bar)
                if paths[number] is not None:
                    self._write(paths[number], blocks[number])
        if is_shared:
            state.wait_for_everyone()
        for number in range(len(rows)):
            if blocks.get(number) is None:
                blocks[number] = self._read(paths[number], len(rows[number]))
            if blocks[number] is None:  # the folder is not shared, or was deleted meanwhile
                blocks[number] = self._compute(rows[number])
        self._blocks = [blocks[number] for number in range(len(rows))]
        return self

    def _path(self, identities: Sequence[str]) -> Path | None:
        if self.directory is None:
            return None
        return self.directory / f"{fingerprint([self.embed.fingerprint, *identities])}.npy"

    def _read(self, path: Path | None, length: int) -> np.ndarray | None:
        """Return the vectors in a file, or `None` if they must be computed."""
        if path is None or not path.is_file():
            return None
        try:
            block = np.load(path, mmap_mode="r", allow_pickle=False)
            if block.ndim == 2 and len(block) == length and block.dtype == np.float32:
                return block
        except (OSError, ValueError, EOFError):
            pass
        logger.warning(f"{str(path)!r} is damaged. Its {length} embeddings are computed again.")
        return None

    def _write(self, path: Path, block: np.ndarray) -> None:
        content = io.BytesIO()
        np.save(content, block)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(path, content.getbuffer())

    def _compute(self, rows: Sequence[int], bar: Any = None) -> np.ndarray:
        parts, step = [], max(1, getattr(self.embed, "batch_size", self.block_size))
        for start in range(0, len(rows), step):
            chosen = [self.examples[row] for row in rows[start : start + step]]
            parts.append(np.asarray(self.embed(chosen, self.kind), dtype=np.float32))
            self.num_embedded += len(chosen)
            if not np.isfinite(parts[-1]).all():
                raise ValueError(
                    f"The embeddings of {self.kind} {chosen[0].id!r} and the {len(chosen) - 1} after it are not finite numbers, so no image "
                    "would be nearest. Use another encoder, or another data type."
                )
            if bar is not None:
                bar.update(len(chosen))
        return np.concatenate(parts)

    def vectors(self) -> Iterator[np.ndarray]:
        """Yield the vectors of different images, block by block, in the order of the first example of each."""
        yield from self.build()._blocks

    def search(
        self,
        queries: Sequence[Example],
        count: int,
        *,
        kind: str = "query",
        keeps: bool = True,
        state: "PartialState | None" = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """
        Find the examples whose images are nearest to those of queries, by cosine similarity. Of equal ones the first is nearer.

        Args:
            queries (`Sequence[Example]`): The queries.
            count (`int`): Number of examples for each.
            kind (`str`, *optional*, defaults to `"query"`): The split that the queries are from, for error messages.
            keeps (`bool`, *optional*, defaults to `True`): Whether the vectors of the queries are kept in `directory`, too.
            state (`PartialState`, *optional*): See [`~ImageIndex.build`].

        Returns:
            `tuple[np.ndarray, np.ndarray]`: Indices of examples, the nearest first, and their similarities, each `(len(queries), count)`.

        Raises:
            ValueError: there are fewer examples, or an example or a query has no image.
        """
        asked = self._index_queries(queries, kind, keeps).build(state)
        found, values = self.search_vectors(np.concatenate(list(asked.vectors())), count)
        image_of = asked._images[0]
        return found[image_of], values[image_of]

    def search_vectors(self, vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """
        Find the examples whose images are nearest to `vectors` of unit length, `(Q, width)`. See [`~ImageIndex.search`].

        Raises:
            ValueError: there are fewer examples.
        """
        if count > len(self.examples):
            raise ValueError(f"The {count} nearest of {len(self.examples)} examples are asked for. Ask for fewer.")
        images, similarities = self._nearest(vectors, min(count, self.num_images))
        order, starts = self._rows_by_image
        found = np.empty((len(vectors), count), dtype=np.int64)
        values = np.empty((len(vectors), count), dtype=np.float32)
        for row, (nearest, near) in enumerate(zip(images, similarities, strict=True)):
            filled = 0
            for image, value in zip(nearest.tolist(), near, strict=True):
                members = order[starts[image] : starts[image + 1]][: count - filled]
                found[row, filled : filled + len(members)], values[row, filled : filled + len(members)] = (
                    members,
                    value,
                )
                filled += len(members)
                if filled == count:
                    break
        return found, values

    def similarities(self, query: Example, kind: str = "query") -> np.ndarray:
        """Return the cosine similarity of the image of a query to that of each example."""
        (vector,) = np.concatenate(list(self._index_queries([query], kind, keeps=False).vectors()))
        return np.concatenate([block @ vector for block in self.vectors()])[self._images[0]]

    def _index_queries(self, queries: Sequence[Example], kind: str, keeps: bool) -> "ImageIndex":
        directory = self.directory if keeps else None
        return ImageIndex(self.embed, queries, directory=directory, kind=kind, block_size=self.block_size)

    def _nearest(self, vectors: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of the nearest images of each vector, the nearest first, and their similarities."""
        if self.faiss is not None:
            similarities, images = self._build_faiss(vectors.shape[1]).search(np.ascontiguousarray(vectors), count)
            if (images < 0).any():
                raise ValueError(
                    f"The search index {self.faiss!r} found fewer than {count} images. Use another one, such as 'Flat'."
                )
            return images, similarities
        device = getattr(getattr(self.embed, "model", None), "device", torch.device("cpu"))
        queries = torch.from_numpy(vectors).to(device)
        values = torch.empty(len(queries), 0, device=device)
        images = torch.empty(len(queries), 0, dtype=torch.long, device=device)
        start = 0
        for block in self.vectors():
            vectors_of_block = torch.from_numpy(np.array(block)).to(device)
            found = [_largest(part @ vectors_of_block.T, count) for part in queries.split(1024)]
            # Images found before have smaller numbers, and the sort is stable: of equal ones the first stays the nearer
            values = torch.cat([values, torch.cat([value for value, _ in found])], dim=1)
            images = torch.cat([images, torch.cat([index for _, index in found]) + start], dim=1)
            values, order = values.sort(dim=1, descending=True, stable=True)
            values, images = values[:, :count], images.gather(1, order[:, :count])
            start += len(block)
        return images.cpu().numpy(), values.cpu().numpy()

    def _build_faiss(self, width: int) -> Any:
        if self._faiss_index is None:
            import faiss

            index = faiss.index_factory(width, self.faiss, faiss.METRIC_INNER_PRODUCT)
            if not index.is_trained:
                index.train(np.concatenate(list(self.vectors())))
            for block in self.vectors():
                index.add(np.ascontiguousarray(block))
            self._faiss_index = index
        return self._faiss_index


def _largest(values: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the `count` largest values of each row and their columns, the largest first, of equal ones the first. All, if there are fewer."""
    count = min(count, values.shape[1])
    top = values.topk(min(count + 1, values.shape[1]), dim=1)
    if top.values.shape[1] == count or bool((top.values[:, -2] > top.values[:, -1]).all()):
        columns = top.indices[:, :count].sort(dim=1).values
    else:  # `topk` takes any of equal values
        least = top.values[:, count - 1 : count]
        above, equal = values > least, values == least
        chosen = above | (equal & (equal.cumsum(dim=1) <= count - above.sum(dim=1, keepdim=True)))
        columns = chosen.nonzero()[:, 1].view(len(values), count)
    largest, order = values.gather(1, columns).sort(dim=1, descending=True, stable=True)
    return largest, columns.gather(1, order)


def media_fingerprint(item: Any) -> str:
    """
    Return a text that is equal for equal images or videos: of a file its place, size and time of the last change, otherwise a digest.
    """
    if isinstance(item, VideoSegment):
        return f"{media_fingerprint(item.path)} {item.start} {item.end} {item.num_frames}"
    if isinstance(item, list | tuple):
        return " ".join(map(media_fingerprint, item))
    if isinstance(item, dict):
        data = item.get("bytes")
        return media_fingerprint(item.get("path")) if data is None else hashlib.sha256(data).hexdigest()
    if isinstance(item, PIL.Image.Image):
        return f"{item.mode} {item.size} {hashlib.sha256(item.tobytes()).hexdigest()}"
    text = os.fspath(item) if isinstance(item, str | os.PathLike) else repr(item)
    try:
        status = os.stat(text)
    except (OSError, ValueError):  # an address, or base64
        return text if len(text) < 1000 else hashlib.sha256(text.encode()).hexdigest()
    folder, name = os.path.split(text)
    return f"{_real_folder(folder)}/{name} {status.st_size} {status.st_mtime_ns}"


@lru_cache(maxsize=4096)  # it looks at each folder above, for each of a million files
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)
