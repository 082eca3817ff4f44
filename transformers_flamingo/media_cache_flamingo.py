# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
The cache of the last image: one more cache layer for each gated block, appended to the language model's own.

Shapes: `B` batch, `L` latents.
"""

import torch
from transformers.cache_utils import Cache, CacheLayerMixin, StaticLayer


class MediaCacheLayer(CacheLayerMixin):
    """
    Keys and values of the last image of each sample, for one gated block: `(B / num_repeats, heads, L, head_dim)`.

    After the prompt, a token can only see the last image, so this is all that a gated block needs. Its size and the
    time of a step do not depend on the number of earlier images. A sample without an image has keys and values of 0,
    whose attention output is exactly 0. Beams and candidates expanded from one prompt see the same image and share its
    keys and values: `num_repeats` consecutive rows of the batch.

    It also holds the `scales` of the block, `tanh` of both gates, for the tokens that are generated one by one. Like all keys and values
    of a cache, they are those of the weights that computed the text before.

    The layers come after the language model's own in one `Cache`, so beam reordering, batch repetition, deep copies,
    resets and static caches reach them through the stock methods.

    Args:
        text_layer (`CacheLayerMixin`): A layer of the language model in the same cache, which knows the text's length.
        first (`MediaCacheLayer`, *optional*):
            The first of these layers in the cache, which compares the rows of a beam search for all. By default this one.
    """

    # Not in `__dict__`: exporters take a cache apart by what is there. They would pass the tensors of the text's layer twice, and
    # a graph would accept only texts with the last image at the place where it was traced.
    __slots__ = ("comparison", "first", "last_media_position", "scales", "text_layer")
    is_compileable = True
    is_croppable = True
    # `early_initialization` knows the shape of the language model's layers; this one has the shape of the gated block's.
    supports_early_init = False

    def __init__(self, text_layer: CacheLayerMixin, first: "MediaCacheLayer | None" = None):
        super().__init__()
        self.text_layer = text_layer
        self.first = self if first is None else first
        self.comparison: tuple[torch.Tensor, bool] | None = None
        self.scales: tuple[torch.Tensor | None, torch.Tensor | None] | None = None
        # Masks are sized by the first layer of a kind. This one must not be the only one of its kind.
        self.is_sliding = text_layer.is_sliding
        self.is_static = isinstance(text_layer, StaticLayer)
        self.last_media_position: int | None = None
        self.num_repeats = 1

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Hold the first image: keys and values `(B, heads, L, head_dim)`."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = key_states, value_states
        self.num_repeats = 1
        self.is_initialized = True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs) -> None:
        """Refuse text: only a language model calls this method, and the layer holds an image."""
        raise ValueError(
            "The language model writes to more cache layers than it has decoder layers, and this one holds an image, which "
            "would be lost. Use `use_cache=False`, or another language model."
        )

    def set_image(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Replace the image with a newer one: keys and values `(B, heads, L, head_dim)`."""
        if self.is_initialized and self.is_static and self.keys.shape == key_states.shape:
            # Compiled code and CUDA graphs hold on to the address.
            self.keys.copy_(key_states)
            self.values.copy_(value_states)
        else:
            self.lazy_initialization(key_states, value_states)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the number of keys, `L`, and their offset, 0."""
        return (self.keys.shape[-2] if self.is_initialized else 0), 0

    def get_seq_length(self) -> int:
        """Return 0: images do not count towards the sequence length."""
        return 0

    def get_max_length(self) -> int:
        """Return -1: no limit."""
        return -1

    def reset(self) -> None:
        """Forget the image. A static layer keeps its memory."""
        self.last_media_position = self.scales = None
        if self.is_static:
            super().reset()
        else:
            self.keys = self.values = None
            self.is_initialized = False

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        """Reorder the rows for beam search: `beam_idx` `(B,)`."""
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Keep the rows `indices` `(B',)` of the batch, in that order."""
        if not self.is_initialized:
            return
        if self.num_repeats > 1:
            if self._keeps_samples(indices):
                return  # beams change places within their sample
            indices = indices // self.num_repeats
            self.num_repeats = 1
        indices = indices.to(self.keys.device)
        self.keys, self.values = self.keys[indices], self.values[indices]

    def _keeps_samples(self, indices: torch.Tensor) -> bool:
        """
        Tell whether the rows `indices` `(B',)` of a repeated batch are of the samples of the rows that they replace.

        The comparison waits for an accelerator, so the layers of a cache, which get the same indices one after the other, share that of
        the first.
        """
        first = getattr(self, "first", self)  # a cache of an exported graph has none
        known = getattr(first, "comparison", None)
        if first is self or known is None or known[0] is not indices:
            rows = torch.arange(len(self.keys) * self.num_repeats, device=indices.device)
            first.comparison = (indices, torch.equal(indices // self.num_repeats, rows // self.num_repeats))
        return first.comparison[1]

    def batch_repeat_interleave(self, repeats: int) -> None:
        """Repeat each row of the batch `repeats` times. Nothing is copied."""
        if self.is_initialized:
            self.num_repeats *= repeats

    def expanded(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values for each row of the batch: two tensors `(B, heads, L, head_dim)`."""
        if self.num_repeats == 1:
            return self.keys, self.values
        return tuple(states.repeat_interleave(self.num_repeats, dim=0) for states in (self.keys, self.values))

    def crop(self, tokens_to_remove: int) -> None:
        """
        Check that the last image's marker stays in the text. There is nothing to remove then.

        Raises:
            ValueError: the marker is removed too. The image before it is no longer known, and the one that stays would
                be a wrong image.
        """
        if tokens_to_remove == 0 or not self.is_initialized:
            return
        if not hasattr(self, "text_layer"):
            raise ValueError(
                "This cache comes from an exported graph, which does not say where the last image is marked, so it cannot be cropped: "
                "a wrong image might stay in it. Begin with a new cache."
            )
        if self.last_media_position is None:
            return
        # The language model's layers come first in the cache and are cropped already.
        length = self.text_layer.get_seq_length()
        if length <= self.last_media_position:
            raise ValueError(
                f"The cache was cropped to {length} tokens, but the last image is marked at position "
                f"{self.last_media_position}. A Flamingo cache keeps one image, the last, so the one before it is gone "
                "and this cache can no longer be used. Copy the cache (`copy.deepcopy`) before adding an image to "
                "which you want to return."
            )


def prepare_media_cache(cache: Cache, num_text_layers: int, num_blocks: int) -> list[MediaCacheLayer]:
    """
    Return the media layers of a cache, and append them where they are missing.

    Args:
        cache (`Cache`): The language model's cache.
        num_text_layers (`int`): Number of its decoder layers.
        num_blocks (`int`): Number of gated blocks.

    Returns:
        `list[MediaCacheLayer]`: one for each gated block.

    Raises:
        ValueError: no layer of the cache knows the length of the text.
    """
    media_layers = [layer for layer in cache.layers if isinstance(layer, MediaCacheLayer)]
    if not media_layers:
        # A cache made without a config creates its layers when they are first used. They must be there before ours.
        while len(cache.layers) < num_text_layers and cache.layer_class_to_replicate is not None:
            cache.layers.append(cache.layer_class_to_replicate())
        text_layer = next((layer for layer in cache.layers if isinstance(layer, CacheLayerMixin)), None)
        if text_layer is None:
            raise ValueError(
                "No layer of the language model's cache knows how long the text is, as those of attention do, so the image "
                "cannot be cached. Use a language model with at least one layer of attention, or `use_cache=False`."
            )
        for _ in range(num_blocks):
            media_layers.append(MediaCacheLayer(text_layer, *media_layers[:1]))
        cache.layers.extend(media_layers)
    return media_layers
