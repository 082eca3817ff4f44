# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The content of images: by it random demonstrations are drawn, and no image is shown its own label."""

import hashlib
from collections.abc import Callable, Sequence

import PIL.Image

from ..data import load_media
from .examples import Example
from .prompts import media_of


def content_digest(media: PIL.Image.Image | list[PIL.Image.Image]) -> str:
    """Return a digest of the pixels of a decoded image or video, the same for any form and place that it was read from."""
    digest = hashlib.blake2b(digest_size=16)
    for frame in media if isinstance(media, list) else [media]:
        pixels = frame if frame.mode == "RGB" else frame.convert("RGB")
        digest.update(repr(pixels.size).encode())
        digest.update(pixels.tobytes())
    return digest.hexdigest()


class OwnImages:
    """Chooser of demonstrations that leaves out those that show the image of the query. Each demonstration is decoded once for it."""

    def __init__(self):
        self._digests: dict[str, str | None] = {}  # of demonstrations, by id

    def choose(
        self,
        digests: Sequence[str],
        count: int,
        available: int,
        rank: Callable[[list[int], int], list[list[tuple[Example, bool]]]],
    ) -> list[list[Example]]:
        """
        Choose demonstrations.

        Args:
            digests (`Sequence[str]`): What [`content_digest`] returns for the image of each query.
            count (`int`): Number of demonstrations. There are fewer if the pool has no others.
            available (`int`): Number of demonstrations in the pool.
            rank (`Callable`): Returns, for indices of queries, this many demonstrations of each, the best first, and whether each may
                show the image of the query.
        """
        chosen: list[list[Example]] = [[] for _ in digests]
        pending, asked = list(range(len(digests))), min(count + 1, available)
        while pending:
            short = []
            for i, ranked in zip(pending, rank(pending, asked), strict=True):
                chosen[i] = self._leave_out(ranked, digests[i], count)
                if len(chosen[i]) < count and asked < available:
                    short.append(i)
            pending, asked = short, min(2 * asked, available)
        return chosen

    def _leave_out(self, ranked: Sequence[tuple[Example, bool]], digest: str, count: int) -> list[Example]:
        kept: list[Example] = []
        for example, may_be_same in ranked:
            if len(kept) == count:
                break
            if not (may_be_same and self._digest_of(example) == digest):
                kept.append(example)
        return kept

    def _digest_of(self, example: Example) -> str | None:
        if example.id not in self._digests:
            items = media_of(example, "support")
            media = load_media(items[0].data, items[0].location) if items else None
            self._digests[example.id] = None if media is None else content_digest(media)
        return self._digests[example.id]
