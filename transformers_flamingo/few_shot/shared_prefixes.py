# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
The cache of prefixes that several prompts share.

Shapes: `B` rows of a batch, `P` tokens of a prefix, `L` latents, `Dv` vision width.
"""

import copy
from collections.abc import Callable, Sequence

import torch
from transformers import Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from ..media_cache_flamingo import MediaCacheLayer, prepare_media_cache
from ..modeling_flamingo import FlamingoModel
from .batching import PrefixKey, Row, pad_left


def can_align(model: FlamingoModel) -> bool:
    """
    Return whether the first tokens of a cached text can be taken out of the cache, and moved to the right.

    They can if all layers keep every token. A sliding window drops some, and a recurrent state holds all in one. Positions must not
    count padding on the left, which is there afterwards.
    """
    layers = DynamicCache(config=model.config.text_config).layers
    return not model._counts_padding and all(type(layer) is DynamicLayer for layer in layers)


class SharedPrefixes:
    """
    Prefixes in one cache, each padded on the left, from which prompts continue.

    Args:
        model ([`FlamingoModel`]): The model.
        keys (`Sequence[PrefixKey]`): The prefixes.
        ids (`Sequence[list[int]]`): Their tokens. They are of one length if the model cannot align ([`can_align`]).
        features (`dict`): Keywords of the model for their images.
        pad_token_id (`int`): The padding token.
    """

    def __init__(
        self,
        model: FlamingoModel,
        keys: Sequence[PrefixKey],
        ids: Sequence[list[int]],
        features: dict,
        pad_token_id: int,
    ):
        self.model, self.keys = model, list(keys)
        self.lengths = [len(prefix_ids) for prefix_ids in ids]
        padded, mask = pad_left(ids, pad_token_id)
        self.aligns = can_align(model)
        self.cache: Cache = model(
            input_ids=padded.to(model.device),
            attention_mask=None if mask.all() else mask.to(model.device),
            use_cache=True,
            logits_to_keep=1,
            **features,
        ).cache

    def continue_with(self, rows: Sequence[Row], width: int, encode_last: Callable[[], torch.Tensor | None]) -> Cache:
        """
        Return a cache of all but the last `width` tokens of each row, with padding on the left.

        Args:
            rows (`Sequence[Row]`): Rows whose trunks are among the prefixes.
            width (`int`): Number of last tokens of each row that will be computed from the cache.
            encode_last (`Callable`): Returns the latents `(B, L, Dv)` of the last image of the prefix of each row, 0 where
                there is none, or `None` if no row has one. It is called only if a token to be computed sees one that is not
                in the cache: a trunk holds its last image alone.
        """
        trunks = [self.keys.index(row.trunk) for row in rows]
        lengths = [len(row.ids) - width for row in rows]
        is_whole = all(row.num_shared == self.lengths[trunk] for row, trunk in zip(rows, trunks, strict=True))
        if not self.aligns:  # one trunk, and nothing to take away
            cache = copy.deepcopy(self.cache)  # a recurrent state is changed in place
            cache.batch_repeat_interleave(len(rows))
            return cache
        cache = copy.copy(self.cache)
        cache.layers = [copy.copy(layer) for layer in self.cache.layers]
        for layer in cache.layers:
            if isinstance(layer, MediaCacheLayer):
                layer.text_layer = cache.layers[0]
        if len(self.keys) == 1 and set(lengths) == set(self.lengths):
            cache.batch_repeat_interleave(len(rows))
            return cache
        # Where the tokens of each row are, aligned on the right; what is clamped is padding
        starts = [max(self.lengths) - self.lengths[trunk] for trunk in trunks]
        last = torch.tensor([start + length for start, length in zip(starts, lengths, strict=True)])
        columns = (last[:, None] - max(lengths) + torch.arange(max(lengths))).clamp(min=0).to(self.model.device)
        row_index = torch.tensor(trunks, device=self.model.device)
        for layer in cache.layers:
            if isinstance(layer, MediaCacheLayer):
                layer.batch_select_indices(row_index)
                layer.last_media_position = max(lengths) - 1  # at most; only a crop asks
            elif layer.is_initialized:  # not where layers share keys and values
                layer.keys = _select(layer.keys, row_index, columns)
                layer.values = _select(layer.values, row_index, columns)
        if not is_whole:
            cache.layers = [layer for layer in cache.layers if not isinstance(layer, MediaCacheLayer)]
            if any(row.num_new < width or not row.begins_with_image for row in rows):
                self._set_images(cache, encode_last())
        return cache

    def _set_images(self, cache: Cache, latents: torch.Tensor | None) -> None:
        """Put images into a cache as the last ones of its text: latents `(B, L, Dv)`."""
        if latents is None:
            return
        blocks, num_text_layers = self.model.gated_cross_attention, self.model.config.text_config.num_hidden_layers
        for block, layer in zip(blocks, prepare_media_cache(cache, num_text_layers, len(blocks)), strict=True):
            weight = block.attention.k_proj.weight
            layer.set_image(*block.attention.project_context(latents.to(weight.device, weight.dtype)))


def _select(states: torch.Tensor, rows: torch.LongTensor, columns: torch.LongTensor) -> torch.Tensor:
    """Select tokens of keys or values `(B', heads, P', D)`: rows `(B,)` and for each the columns `(B, P)`, to `(B, heads, P, D)`."""
    rows, columns = rows.to(states.device), columns.to(states.device)
    return states.transpose(1, 2)[rows[:, None], columns].transpose(1, 2)
