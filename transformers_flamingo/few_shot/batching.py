# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Which prompts are computed together, and from which of their tokens on.

Prompts that begin alike share a trunk: the longest prefix among them, which is computed once. So the prompts of a query with 4, 8,
16 and 32 shots share the prefix of 32, if each begins with the shots of the one before it.

A batch that continues trunks computes the same number of last tokens of each row, so nothing is padded in between: a row with a
shorter query than the longest computes the last tokens of its prefix again, as many as padding would be. These tokens see the
last image of the prefix, so there are never more of them than stand after its marker.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import Cache

from .prompts import MediaItem, Prompt


# The text and the images of a prefix
PrefixKey = tuple[str, tuple[MediaItem, ...]]


@dataclass(frozen=True)
class Row:
    """
    A prompt as tokens.

    Args:
        index (`int`): Index of the prompt.
        ids (`list[int]`): The tokens of its whole text.
        trunk (`PrefixKey`, *optional*): The prefix that is computed for it, and maybe for others. `None` computes the whole text.
        num_shared (`int`, *optional*, defaults to 0): Number of its first tokens that are those of the trunk.
        num_after_marker (`int`, *optional*, defaults to 0): Number of last shared tokens that see the last image of its prefix, its
            marker aside.
        begins_with_image (`bool`, *optional*, defaults to `True`): Whether the first token after the shared ones marks an image.
    """

    index: int
    ids: list[int]
    trunk: PrefixKey | None = None
    num_shared: int = 0
    num_after_marker: int = 0
    begins_with_image: bool = True

    @property
    def num_new(self) -> int:
        """Return the number of tokens after the shared ones."""
        return len(self.ids) - self.num_shared


@dataclass
class Batch:
    """
    Prompts that are computed together.

    Args:
        indices (`list[int]`): Indices of the prompts.
        cache (`Cache`, *optional*): That of their first tokens, with a row for each prompt. `None` if none are computed.
        ids (`torch.Tensor` of shape `(B, T)`): The whole texts, padded on the left.
        mask (`torch.Tensor` of shape `(B, T)`): 1 at text, 0 at padding.
        images (`dict`): Keywords of the model for the images that the cache does not have.
    """

    indices: list[int]
    cache: Cache | None
    ids: torch.Tensor
    mask: torch.Tensor
    images: dict[str, Any]


def find_trunks(keys: Iterable[PrefixKey]) -> dict[PrefixKey, PrefixKey]:
    """Map each prefix to one of the others that begins with it, in text and images, and that none other continues; or to itself."""
    ordered = sorted(dict.fromkeys(keys), key=lambda key: key[0])
    parents: dict[PrefixKey, PrefixKey] = {}
    open_keys: list[
        PrefixKey
    ] = []  # those whose text the next one may continue: all continuations of a text follow it
    for key in ordered:
        text, media = key
        while open_keys and not text.startswith(open_keys[-1][0]):
            open_keys.pop()
        for shorter in reversed(open_keys):
            if shorter[0] != text and shorter[1] == media[: len(shorter[1])]:
                parents[key] = shorter
                break
        open_keys.append(key)
    trunks: dict[PrefixKey, PrefixKey] = {}
    for key in reversed(ordered):
        trunks.setdefault(key, key)
        if key in parents:
            trunks.setdefault(parents[key], trunks[key])
    return {key: trunks[key] for key in ordered}


def make_rows(
    prompts: Sequence[Prompt],
    tokenize: Callable[[Sequence[str]], list[list[int]]],
    marker_ids: Iterable[int],
    *,
    kept: Iterable[PrefixKey] = (),
    nests: bool = True,
) -> list[Row]:
    """
    Tokenize prompts, and find what they share.

    Args:
        prompts (`Sequence[Prompt]`): The prompts.
        tokenize (`Callable`): Returns the token ids of texts.
        marker_ids (`Iterable[int]`): The ids that mark an image.
        kept (`Iterable[PrefixKey]`, *optional*): Trunks that are computed already.
        nests (`bool`, *optional*, defaults to `True`): Whether a prompt may continue a part of a trunk.

    Returns:
        `list[Row]`: one for each prompt. A prompt has no trunk if it has no demonstrations, or if its tokens do not begin with those
        of the prefix: the tokenizer merged its end with the beginning of the query.
    """
    keys = [(prompt.prefix, prompt.prefix_media) for prompt in prompts]
    trunks = find_trunks([*kept, *(key for key in keys if key[0])]) if nests else {key: key for key in keys}
    markers = set(marker_ids)
    texts = list(dict.fromkeys(text for key in keys if key[0] for text in (key[0], trunks[key][0])))
    ids_of = dict(zip(texts, tokenize(texts), strict=True)) if texts else {}
    rows = []
    for index, (key, ids) in enumerate(zip(keys, tokenize([prompt.text for prompt in prompts]), strict=True)):
        trunk = trunks[key] if key[0] else None
        # The last token of a prompt is always computed: its logits are those of the answer
        shared = ids_of[key[0]][: len(ids) - 1] if trunk else []
        begins = bool(shared) and ids[: len(shared)] == shared == ids_of[trunk[0]][: len(shared)]
        if not begins:
            rows.append(Row(index, ids))
            continue
        after = next((i for i, token in enumerate(reversed(shared)) if token in markers), len(shared) - 1)
        rows.append(Row(index, ids, trunk, len(shared), after, ids[len(shared)] in markers))
    return rows


def batch_whole(rows: Iterable[Row], size: int, *, pads: bool = True) -> Iterator[list[Row]]:
    """
    Yield batches of rows that are computed from their first token on, those of similar length together.

    Args:
        rows (`Iterable[Row]`): The rows.
        size (`int`): Maximum number of rows of a batch.
        pads (`bool`, *optional*, defaults to `True`): Whether rows of one batch may have different lengths.
    """
    batch: list[Row] = []
    for row in sorted(rows, key=lambda row: len(row.ids)):
        if batch and (len(batch) == size or not (pads or len(row.ids) == len(batch[0].ids))):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def batch_continued(rows: Iterable[Row], size: int, *, aligns: bool = True) -> Iterator[tuple[list[Row], int]]:
    """
    Yield batches of rows that continue trunks, and the number of last tokens of each row that are computed.

    Rows of similar prefixes are together, because a cache is as long as the longest of its rows, and among these rows with queries
    of similar length.

    Args:
        rows (`Iterable[Row]`): The rows.
        size (`int`): Maximum number of rows of a batch.
        aligns (`bool`, *optional*, defaults to `True`):
            Whether a batch may have prefixes and queries of different lengths. Otherwise its rows have one trunk and as many tokens.
    """
    batch: list[Row] = []
    width = most = 0  # the number of last tokens so far, and the most that all rows of the batch can compute
    for row in sorted(rows, key=lambda row: (row.num_shared.bit_length(), row.num_new)):
        fits = max(width, row.num_new) <= min(most, row.num_new + row.num_after_marker)
        if not aligns and batch:
            fits = (row.trunk, row.num_shared, row.num_new) == (batch[0].trunk, batch[0].num_shared, batch[0].num_new)
        if batch and (len(batch) == size or not fits):
            yield batch, width
            batch = []
        if not batch:
            width, most = 0, row.num_new + row.num_after_marker
        width, most = max(width, row.num_new), min(most, row.num_new + row.num_after_marker)
        batch.append(row)
    if batch:
        yield batch, width


def pad_left(ids: Sequence[Sequence[int]], pad_token_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ids of rows `(B, T)`, with padding on the left, and their mask `(B, T)`."""
    longest = max(map(len, ids))
    padded = torch.full((len(ids), longest), pad_token_id)
    mask = torch.zeros_like(padded)
    for row, row_ids in enumerate(ids):
        padded[row, longest - len(row_ids) :] = torch.tensor(row_ids)
        mask[row, longest - len(row_ids) :] = 1
    return padded, mask
