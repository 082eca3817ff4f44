# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The Flamingo model: Perceiver resampler, tanh-gated cross-attention, and the composite that joins two backbones.

Shapes, in this file and everywhere: `B` batch, `N` images or videos per sample, `F` frames, `C, H, W` pixels,
`P` patches, `L` latents, `T` text length, `D` text width, `Dv` vision width, `V` vocabulary.

How an image reaches a token. The vision encoder and the resampler turn each image into `L` latents that depend on
that image alone. Before some decoder layers of the stock, unmodified language model stands a gated block, in which
token `t` attends to the latents of one image: the last one marked at or before it. A stateless forward pre-hook on
the decoder layer applies the block to the `FlamingoContext` that the composite's `forward` passes down through the
language model as a keyword. Nothing is stored on a module between calls.
"""

import copy
import functools
import inspect
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    DynamicCache,
    GenerationConfig,
    GenerationMixin,
    PreTrainedModel,
)
from transformers import (
    initialization as init,
)
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache, CacheLayerMixin, DynamicLayer, DynamicSlidingWindowLayer, StaticLayer
from transformers.loss.loss_utils import ForCausalLMLoss
from transformers.masking_utils import create_causal_mask, find_packed_sequence_indices
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.processing_utils import Unpack
from transformers.quantizers.auto import AutoQuantizationConfig
from transformers.utils import ModelOutput, TransformersKwargs, can_return_tuple, logging
from transformers.utils.deprecation import deprecate_kwarg
from transformers.utils.quantization_config import QuantizationConfigMixin

from .checks_flamingo import (
    check_finite,
    check_labels,
    check_mask,
    check_mask_shape,
    check_padding_side,
    check_tensors,
    check_text,
    check_text_length,
    check_whole_numbers,
    is_padding_mask,
)
from .compatibility_flamingo import require_private_names
from .configuration_flamingo import FlamingoConfig
from .language_models_flamingo import check_language_model, counts_padding, find_decoder_layers, find_max_text_length
from .processing_flamingo import load_tokenizer
from .saving_flamingo import update_folder


logger = logging.get_logger(__name__)

# The private names of transformers that this file overrides or reads. CONTRIBUTING.md says what each is for.
require_private_names(
    GenerationMixin,
    _prefill=("input_ids", "generation_config", "model_kwargs", "is_first_iteration"),
    _maybe_prepare_encoder_kwargs_for_generation=(
        "inputs_tensor",
        "model_kwargs",
        "model_input_name",
        "generation_config",
    ),
    _expand_multimodal_outputs=("input_ids", "mm_encoder_output", "expand_size", "inputs_embeds"),
)
require_private_names(PreTrainedModel, _can_compile_fullgraph=None, _init_weights=("module",))
require_private_names(GenerationConfig, _mask_length=None)

# The keyword under which a FlamingoContext travels down to the decoder layers.
_CONTEXT_KEYWORD = "flamingo_context"


# ---------------------------------------------------------------------------------------------------------------------
# Which image a token sees
# ---------------------------------------------------------------------------------------------------------------------


def compute_media_index(markers: torch.BoolTensor, documents: torch.LongTensor | None = None) -> torch.LongTensor:
    """
    The paper's phi (section 3.1.3): for each token, how many images are marked at or before it.

    Token `t` sees image `phi(t)`, counted from 1, and no other; with `phi(t) = 0` it sees none.

        text      This  is  <image>  a   cat  .  <image>  <image>  two  dogs
        markers   0     0   1        0   0    0  1        1        0    0
        phi       0     0   1        1   1    1  2        3        3    3

    The paper's figure 7 draws the same rule as a mask. An image directly followed by another is seen by its own
    marker alone. Where documents are packed into one row, a token sees an image of its own document or none:

        documents 0     0   0        1   1    1  1        1        2    2
        phi       0     0   1        0   0    0  2        3        0    0

    Args:
        markers (`torch.BoolTensor` of shape `(B, T)`): where the `<image>` tokens are, padding aside.
        documents (`torch.LongTensor` of shape `(B, T)`, *optional*): which document of its row each token is of.

    Returns:
        `torch.LongTensor` of shape `(B, T)`.
    """
    media_index = markers.long().cumsum(dim=-1)
    if documents is None:
        return media_index
    # How many images are marked before the document of each token
    is_start = documents != documents.roll(1, dims=-1)
    is_start[:, 0] = True
    before = ((media_index - markers.long()) * is_start).cummax(dim=-1).values
    return media_index.masked_fill(media_index == before, 0)


@dataclass
class SegmentLayout:
    """
    The tokens of a batch, regrouped by the image they see, so that each token scores `L` keys and not `N * L`.

    The tokens that see one image form a segment. Segments are cut into `R` rows of `c` slots; a row is attended to the
    latents of its one image, without any mask. `c` is the longest segment, or the mean one where lengths differ so
    much that most slots would be empty: at most about twice as many slots as tokens, however many images there are.

    Key-value rows are numbered: first, if a cache holds earlier images, the `B` rows of the cache; then the `S` images
    of this call that some token sees.
    """

    token_index: torch.LongTensor  # (R * c,)  for each slot, the token b * T + t in it; 0 where the slot is empty
    slot_index: torch.LongTensor  # (B * T,)  for each token, its slot; R * c if it sees no image
    key_value_index: torch.LongTensor | None  # (R,)  for each row, its key-value row; None: row r has key-value row r
    last_index: torch.LongTensor  # (B,)  for each sample, the key-value row of its last image; 0 if it has none
    has_media: torch.BoolTensor  # (B,)  whether the sample has an image at all
    last_media_position: int  # position in the sequence of the last marker of the batch

    def to(self, device: torch.device) -> "SegmentLayout":
        return _to_device(self, device)


@dataclass
class MaskLayout:
    """
    The same rule as a mask over the latents of all images: static shapes, for `torch.compile`, at `(N + 1) * L` keys.

    Image 0 is the one the cache holds, or, without one, keys and values of 0, whose attention output is 0.
    """

    attention_mask: torch.Tensor  # (B, 1, T, (N + 1) * L)  additive
    last_index: torch.LongTensor  # (B,)  for each sample, its last image, in 0..N

    def to(self, device: torch.device) -> "MaskLayout":
        return _to_device(self, device)


def _to_device(layout, device: torch.device):
    """A layout on another device: with `device_map` the blocks of one model may stand on several."""
    tensors = {f.name: getattr(layout, f.name) for f in fields(layout)}
    tensors = {k: v.to(device) for k, v in tensors.items() if isinstance(v, torch.Tensor)}
    return replace(layout, **tensors)


def _find_last_image(media_index: torch.LongTensor) -> torch.LongTensor:
    """Return the image that the last token of each sample sees, padding (-1) aside: `(B, T)` -> `(B,)`."""
    is_text = media_index >= 0
    last = (is_text * torch.arange(media_index.shape[1], device=media_index.device)).argmax(dim=1, keepdim=True)
    return media_index.gather(1, last).squeeze(1).clamp(min=0)


def _build_segment_layout(
    media_index: torch.LongTensor, is_cached: bool, num_past_tokens: int
) -> tuple[SegmentLayout | None, torch.LongTensor]:
    """
    Group tokens by the image they see.

    Args:
        media_index (`torch.LongTensor` of shape `(B, T)`):
            For each token the image it sees: 1..N those of this call, 0 the one in the cache, if any, -1 none.
        is_cached (`bool`): Whether a cache holds earlier images.
        num_past_tokens (`int`): Length of the text in the cache.

    Returns:
        The layout, `None` if no token sees an image of this call, and a `torch.LongTensor` of shape `(S,)`: the images
        of this call that are seen, as `b * N_max + (n - 1)` with `N_max = media_index.max()`.
    """
    batch_size, length = media_index.shape
    device = media_index.device
    num_media = int(media_index.max())
    if num_media <= 0:
        return None, media_index.new_empty(0)

    sample = torch.arange(batch_size, device=device)[:, None].expand(-1, length)
    sees = (media_index >= (0 if is_cached else 1)).flatten()
    tokens = sees.nonzero().squeeze(-1)  # (M,) flat positions of the tokens that see an image
    media = (sample * (num_media + 1) + media_index.clamp(min=0)).flatten()[tokens]  # (M,) which one, over the batch

    # Segments: runs of consecutive tokens that see the same image.
    starts = torch.ones_like(media, dtype=torch.bool)
    starts[1:] = media[1:] != media[:-1]
    segment = starts.cumsum(0) - 1  # (M,)
    segment_start = starts.nonzero().squeeze(-1)
    lengths = torch.bincount(segment)
    segment_media = media[segment_start]

    # Rows of c slots.
    width = int(lengths.max())
    if len(lengths) * width > 2 * len(tokens):
        width = -(-len(tokens) // len(lengths))
    rows_per_segment = -(-lengths // width)
    first_row = rows_per_segment.cumsum(0) - rows_per_segment
    offset = torch.arange(len(tokens), device=device) - segment_start[segment]
    slot = first_row[segment] * width + offset
    num_slots = int(rows_per_segment.sum()) * width
    token_index = tokens.new_zeros(num_slots).index_copy_(0, slot, tokens)
    slot_index = tokens.new_full((batch_size * length,), num_slots).index_copy_(0, tokens, slot)

    # Key-value rows: the cache's, then one for each distinct image.
    is_new = segment_media % (num_media + 1) > 0
    seen, seen_index = segment_media[is_new].unique(return_inverse=True)
    num_cached = batch_size if is_cached else 0
    key_value_row = segment_media // (num_media + 1)
    key_value_row[is_new] = num_cached + seen_index
    key_value_index = key_value_row.repeat_interleave(rows_per_segment)
    is_identity = len(key_value_index) == num_cached + len(seen) and bool(
        (key_value_index == torch.arange(len(key_value_index), device=device)).all()
    )

    # The last image of each sample, which is the one the next token will see.
    last_media = _find_last_image(media_index)
    last_key = sample[:, 0] * (num_media + 1) + last_media
    last_index = torch.where(
        last_media > 0,
        num_cached + torch.searchsorted(seen, last_key),
        sample[:, 0] if is_cached else torch.zeros_like(last_media),
    )
    first_seen = (media_index == last_media[:, None]).long().argmax(dim=1)
    last_position = int(torch.where(last_media > 0, first_seen, -1).max())

    layout = SegmentLayout(
        token_index=token_index,
        slot_index=slot_index,
        key_value_index=None if is_identity else key_value_index,
        last_index=last_index,
        has_media=(last_media > 0) | is_cached,
        last_media_position=num_past_tokens + last_position,
    )
    # b * (N_max + 1) + n  ->  b * N_max + (n - 1)
    return layout, seen - seen // (num_media + 1) - 1


def _build_mask_layout(media_index: torch.LongTensor, latents: torch.Tensor, dtype: torch.dtype) -> MaskLayout:
    """The mask form for `media_index` `(B, T)` and latents `(B, N, L, Dv)`."""
    num_media, num_latents = latents.shape[1:3]
    sees = media_index[:, :, None] == torch.arange(num_media + 1, device=media_index.device)  # (B, T, N + 1)
    # A padding token sees nothing of use; it looks at image 0 so that no row of the softmax is empty.
    sees[:, :, 0] |= media_index < 0
    mask = torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, torch.finfo(dtype).min)
    # (B, T, N + 1) -> (B, 1, T, (N + 1) * L)
    mask = mask.repeat_interleave(num_latents, dim=-1)[:, None]
    return MaskLayout(attention_mask=mask, last_index=_find_last_image(media_index))


# ---------------------------------------------------------------------------------------------------------------------
# The cache of the last image
# ---------------------------------------------------------------------------------------------------------------------


class MediaCacheLayer(CacheLayerMixin):
    """
    Keys and values of the last image of each sample, for one gated block: `(B / num_repeats, heads, L, head_dim)`.

    After the prompt, a token can only see the last image, so this is all that a gated block needs: its size and the
    time of a step do not depend on the number of images before. A sample without an image has keys and values of 0,
    whose attention output is exactly 0. Rows that are repeated from one prompt (beams, candidates) see one image, and
    share its keys and values: `num_repeats` rows that follow each other.

    These layers stand behind the language model's own in one `Cache`, so that beam reordering, batch repetition, deep
    copies, resets and static caches reach them through the stock methods.
    """

    is_compileable = True
    is_croppable = True
    # Its shape is the gated block's, not that of the language model's layers, which `early_initialization` knows.
    supports_early_init = False

    def __init__(self, text_layer: CacheLayerMixin):
        super().__init__()
        # A layer of the language model in the same cache, which knows the length of the text.
        self.text_layer = text_layer
        # Masks are sized by the first layer of a kind. This one must not be the only one of its kind.
        self.is_sliding = text_layer.is_sliding
        self.last_media_position: int | None = None
        self.num_repeats = 1

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = key_states, value_states
        self.num_repeats = 1
        self.is_initialized = True

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *args, **kwargs) -> None:
        """Refuse the text: only a language model calls this, and the layer holds an image."""
        raise ValueError(
            "The language model writes to more cache layers than it has decoder layers, and this one holds an image, which "
            "would be lost. Use `use_cache=False`, or another language model."
        )

    def set_image(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        """Replace the image with a newer one: `(B, heads, L, head_dim)` both."""
        if self.is_initialized and self._is_static and self.keys.shape == key_states.shape:
            # Compiled code and CUDA graphs hold on to the address.
            self.keys.copy_(key_states)
            self.values.copy_(value_states)
        else:
            self.lazy_initialization(key_states, value_states)

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return (self.keys.shape[-2] if self.is_initialized else 0), 0

    def get_seq_length(self) -> int:
        """An image takes no place in the text."""
        return 0

    def get_max_length(self) -> int:
        return -1

    @property
    def _is_static(self) -> bool:
        return isinstance(self.text_layer, StaticLayer)

    def reset(self) -> None:
        self.last_media_position = None
        if self._is_static:
            super().reset()
        else:
            self.keys = self.values = None
            self.is_initialized = False

    def reorder_cache(self, beam_idx: torch.LongTensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        if not self.is_initialized:
            return
        indices = indices.to(self.keys.device)
        if self.num_repeats > 1:
            indices = indices // self.num_repeats
            is_same = torch.equal(indices, torch.arange(len(indices), device=indices.device) // self.num_repeats)
            if is_same and len(indices) == len(self.keys) * self.num_repeats:
                return  # beams change places within their sample
            self.num_repeats = 1
        self.keys, self.values = self.keys[indices], self.values[indices]

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.is_initialized:
            self.num_repeats *= repeats

    def rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values for each row of the batch: two of `(B, heads, L, head_dim)`."""
        if self.num_repeats == 1:
            return self.keys, self.values
        return tuple(states.repeat_interleave(self.num_repeats, dim=0) for states in (self.keys, self.values))

    def crop(self, tokens_to_remove: int) -> None:
        """
        Nothing to remove while the last image's marker stays in the text.

        Raises:
            ValueError: the marker goes too. The image before it is no longer known, and what stays would be a wrong
                image.
        """
        if tokens_to_remove == 0 or not self.is_initialized or self.last_media_position is None:
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


def _prepare_media_cache(cache: Cache, num_text_layers: int, num_blocks: int) -> list[MediaCacheLayer]:
    """The media layers of `cache`, one for each gated block, appended behind the language model's where missing."""
    media_layers = [layer for layer in cache.layers if isinstance(layer, MediaCacheLayer)]
    if not media_layers:
        # A cache made without a config creates its layers when they are first used. They must be there before ours.
        while len(cache.layers) < num_text_layers and cache.layer_class_to_replicate is not None:
            cache.layers.append(cache.layer_class_to_replicate())
        text_layer = next((layer for layer in cache.layers if isinstance(layer, CacheLayerMixin)), None)
        if text_layer is None:
            raise ValueError(
                "No layer of the language model's cache knows how long the text is, as those of attention do: there is no place for "
                "the image. Use a language model with at least one layer of attention, or `use_cache=False`."
            )
        media_layers = [MediaCacheLayer(text_layer) for _ in range(num_blocks)]
        cache.layers.extend(media_layers)
    return media_layers


# ---------------------------------------------------------------------------------------------------------------------
# Modules
# ---------------------------------------------------------------------------------------------------------------------


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[torch.Tensor, torch.Tensor]:
    weights = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = nn.functional.softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class FlamingoAttention(nn.Module):
    """Multi-head attention of one sequence to another, without biases, as in both peers."""

    def __init__(self, config: FlamingoConfig, query_size: int, context_size: int, num_heads: int, head_dim: int):
        super().__init__()
        self.config = config
        self.head_dim = head_dim
        self.scaling = head_dim**-0.5
        self.is_causal = False
        self.q_proj = nn.Linear(query_size, num_heads * head_dim, bias=False)
        self.k_proj = nn.Linear(context_size, num_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(context_size, num_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(num_heads * head_dim, query_size, bias=False)

    def split_heads(self, states: torch.Tensor) -> torch.Tensor:
        """`(B, S, heads * head_dim)` -> `(B, heads, S, head_dim)`."""
        return states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def project_context(self, context: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keys and values of `context` `(B, S, context_size)`: two of `(B, heads, S, head_dim)`."""
        return self.split_heads(self.k_proj(context)), self.split_heads(self.v_proj(context))

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """`(B, heads, T, head_dim)` attends to `(B, heads, S, head_dim)`; the result is `(B, T, heads * head_dim)`."""
        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, _ = attention_interface(
            self, query, key, value, attention_mask, scaling=self.scaling, dropout=0.0, is_causal=False
        )
        return output.flatten(-2)


class FlamingoMLP(nn.Module):
    """Feed-forward network with its layer norm in front, without biases."""

    def __init__(self, hidden_size: int, intermediate_size: int, activation: str):
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.fc1 = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.act = ACT2FN[activation]
        self.fc2 = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.fc2(self.act(self.fc1(self.norm(hidden_states))))


class FlamingoResamplerLayer(GradientCheckpointingLayer):
    """
    One layer of the resampler: the latents attend to the features and to themselves, then a feed-forward.

    In a resampler of type "transformer" there is one sequence, which attends to itself. In one of type "mlp" nothing
    attends, and the weights of the attention are hidden units of the feed-forward instead.
    """

    def __init__(self, config: FlamingoConfig):
        super().__init__()
        size, num_heads, head_dim = config.vision_hidden_size, config.resampler_num_heads, config.resampler_head_dim
        self.norm_features = nn.LayerNorm(size) if config.resampler_type == "perceiver" else None
        self.norm_latents = self.attention = None
        intermediate_size = size * config.resampler_ffn_mult
        if config.resampler_type == "mlp":
            # Attention has four matrices of size * heads * head_dim, a feed-forward two of size * intermediate_size
            intermediate_size += 2 * num_heads * head_dim
        else:
            self.norm_latents = nn.LayerNorm(size)
            self.attention = FlamingoAttention(config, size, size, num_heads, head_dim)
        self.mlp = FlamingoMLP(size, intermediate_size, config.resampler_activation)

    def forward(
        self,
        latents: torch.Tensor,
        features: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Latents `(M, L, Dv)`, features `(M, F * P, Dv)`, additive mask `(M, 1, 1, F * P + L)`: `(M, L, Dv)`."""
        if self.attention is not None:
            normed = self.norm_latents(latents)
            query = self.attention.split_heads(self.attention.q_proj(normed))
            context = normed if features is None else torch.cat([self.norm_features(features), normed], dim=1)
            key, value = self.attention.project_context(context)
            latents = latents + self.attention.o_proj(self.attention.attend(query, key, value, attention_mask))
        return latents + self.mlp(latents)


class FlamingoPerceiverResampler(nn.Module):
    """
    Turns any number of visual features into `L` latents (paper, section 3.1.1 and figure 5).

    Keys and values come from the features and the latents together. A learned embedding is added to each frame; a
    video with more frames than embeddings gets them by linear interpolation, first to first and last to last (paper,
    appendix A.3.2: "30 frames at test time").

    The paper compares it with a Transformer and an MLP of as many weights (table 3, row vi). How these come to `L`
    outputs is our choice. `config.resampler_type` means:

    - `"perceiver"`: the latents attend, the features stay what they are.
    - `"transformer"`: features and latents are one sequence that attends to itself, and the outputs at the latents
      are kept: the cost is quadratic in `F * P`.
    - `"mlp"`: each feature goes through residual feed-forward layers by itself. The mean over the frames is taken, and
      `P` tokens become `L` as the means of `L` equal parts of the sequence (`adaptive_avg_pool1d`; with `P < L` tokens
      are repeated). There are no latents to learn.
    """

    def __init__(self, config: FlamingoConfig):
        super().__init__()
        size = config.vision_hidden_size
        self.resampler_type = config.resampler_type
        self.num_latents = config.resampler_num_latents
        self.latents = None
        if self.resampler_type != "mlp":
            self.latents = nn.Parameter(torch.empty(self.num_latents, size))
        self.frame_embeddings = None
        if config.resampler_num_frames > 0:
            self.frame_embeddings = nn.Parameter(torch.empty(config.resampler_num_frames, size))
        self.layers = nn.ModuleList(FlamingoResamplerLayer(config) for _ in range(config.resampler_num_layers))
        self.norm = nn.LayerNorm(size)

    def forward(self, features: torch.Tensor, frame_mask: torch.BoolTensor | None = None) -> torch.Tensor:
        """
        Args:
            features (`torch.Tensor` of shape `(M, F, P, Dv)`): The features of `M` images or videos.
            frame_mask (`torch.BoolTensor` of shape `(M, F)`, *optional*): True at real frames; all are without it.

        Returns:
            `torch.Tensor` of shape `(M, L, Dv)`.
        """
        num_media, num_frames, num_patches, _ = features.shape
        features = features.to(self.norm.weight.dtype)
        if self.frame_embeddings is not None:
            features = features + self._frame_embeddings(num_media, num_frames, frame_mask)[:, :, None]
        features = features.flatten(1, 2)  # (M, F, P, Dv) -> (M, F * P, Dv)

        if self.resampler_type == "mlp":
            if self.training and not torch.compiler.is_compiling():
                # Reentrant checkpointing gives weights no gradient where no input has one
                features = features.requires_grad_()
            for layer in self.layers:
                features = layer(features)
            return self.norm(self._pool(features.unflatten(1, (num_frames, num_patches)), frame_mask))

        attention_mask = None
        if frame_mask is not None:
            # (M, F) -> (M, 1, 1, F * P + L); the latents are always there
            visible = frame_mask.repeat_interleave(num_patches, dim=1)
            visible = nn.functional.pad(visible, (0, self.num_latents), value=True)
            attention_mask = torch.zeros(visible.shape, dtype=features.dtype, device=features.device)
            attention_mask = attention_mask.masked_fill(~visible, torch.finfo(features.dtype).min)[:, None, None]

        # No view: without gradients it would be a leaf that asks for one, which torch's flop counter does not understand.
        latents = self.latents.repeat(num_media, 1, 1)
        if self.resampler_type == "transformer":
            latents, features = torch.cat([features, latents], dim=1), None
        for layer in self.layers:
            latents = layer(latents, features, attention_mask)
        return self.norm(latents[:, -self.num_latents :])

    def _pool(self, features: torch.Tensor, frame_mask: torch.BoolTensor | None) -> torch.Tensor:
        """`(M, F, P, Dv)` -> `(M, L, Dv)`: means over the real frames, and over `L` parts of the tokens."""
        if frame_mask is None:
            features = features.mean(dim=1)
        else:
            features = features.masked_fill(~frame_mask[:, :, None, None], 0).sum(dim=1)
            features = features / frame_mask.sum(dim=1).clamp(min=1)[:, None, None]
        return nn.functional.adaptive_avg_pool1d(features.transpose(1, 2), self.num_latents).transpose(1, 2)

    def _frame_embeddings(self, num_media: int, num_frames: int, frame_mask: torch.BoolTensor | None) -> torch.Tensor:
        """Frame embeddings `(M, F, Dv)`, interpolated for each video by its own number of real frames."""
        known = len(self.frame_embeddings)
        device = self.frame_embeddings.device
        if frame_mask is None:
            frame_mask = torch.ones(num_media, num_frames, dtype=torch.bool, device=device)
        frame = (frame_mask.long().cumsum(dim=1) - 1).clamp(min=0)
        count = frame_mask.sum(dim=1, keepdim=True)
        position = torch.where(count > known, frame * ((known - 1) / (count - 1).clamp(min=1)), frame.float())
        low = position.floor().long().clamp(max=known - 1)
        high = (low + 1).clamp(max=known - 1)
        weight = (position - low)[..., None].to(self.frame_embeddings.dtype)
        return self.frame_embeddings[low] * (1 - weight) + self.frame_embeddings[high] * weight


def _gated(gate: nn.Parameter | None, branch: torch.Tensor) -> torch.Tensor:
    return branch if gate is None else gate.tanh() * branch


class FlamingoGatedCrossAttentionBlock(GradientCheckpointingLayer):
    """
    Tanh-gated cross-attention and feed-forward, before a decoder layer (paper, section 3.1.2 and figure 4).

    `x += tanh(attn_gate) * attention(LN(x), latents)`, then `x += tanh(ffn_gate) * ffn(x)`. Both gates start at 0, so
    that at first the language model is exactly what it was. Without gates (`config.cross_attention_gating`) both are
    added in full; without hidden units (`config.cross_attention_ffn_mult`) there is no feed-forward.
    """

    def __init__(self, config: FlamingoConfig):
        super().__init__()
        size = config.text_config.hidden_size
        self.norm = nn.LayerNorm(size)
        self.attention = FlamingoAttention(
            config,
            size,
            config.vision_hidden_size,
            config.cross_attention_num_heads,
            config.cross_attention_head_dim,
        )
        is_gated, has_mlp = config.cross_attention_gating == "tanh", config.cross_attention_ffn_mult > 0
        self.attn_gate = nn.Parameter(torch.empty(1)) if is_gated else None
        self.mlp = self.ffn_gate = None
        if has_mlp:
            self.mlp = FlamingoMLP(size, size * config.cross_attention_ffn_mult, config.cross_attention_activation)
            self.ffn_gate = nn.Parameter(torch.empty(1)) if is_gated else None

    def forward(
        self,
        hidden_states: torch.Tensor,
        latents: torch.Tensor | None,
        layout: SegmentLayout | MaskLayout | None = None,
        cache: MediaCacheLayer | None = None,
    ) -> torch.Tensor:
        """
        Args:
            hidden_states (`torch.Tensor` of shape `(B, T, D)`): The input of the decoder layer.
            latents (`torch.Tensor`, *optional*):
                Latents of the images of this call: `(S, L, Dv)` with a `SegmentLayout`, `(B, N, L, Dv)` with a
                `MaskLayout`, `None` if there are none.
            layout (`SegmentLayout` or `MaskLayout`, *optional*): Which token sees which of them.
            cache (`MediaCacheLayer`, *optional*):
                Read for the image before this call; the last image of this call is written. Named as gradient
                checkpointing expects it, which leaves it out.

        Returns:
            `torch.Tensor` of shape `(B, T, D)`.
        """
        attended = self._cross_attend(hidden_states, latents, layout, cache)
        # No image at all: the attention branch adds exactly 0, the feed-forward branch still runs.
        if attended is not None:
            hidden_states = hidden_states + _gated(self.attn_gate, attended)
        if self.mlp is not None:
            hidden_states = hidden_states + _gated(self.ffn_gate, self.mlp(hidden_states))
        return hidden_states

    def _cross_attend(
        self,
        hidden_states: torch.Tensor,
        latents: torch.Tensor | None,
        layout: SegmentLayout | MaskLayout | None,
        cache_layer: MediaCacheLayer | None,
    ) -> torch.Tensor | None:
        is_cached = cache_layer is not None and cache_layer.is_initialized
        if latents is None and not is_cached:
            return None

        query = self.attention.q_proj(self.norm(hidden_states))  # (B, T, heads * head_dim)
        if latents is None:
            # Rows with one image are one row with more tokens: (B, T, ...) -> (B / repeats, repeats * T, ...)
            query = self.attention.split_heads(query.unflatten(0, (-1, cache_layer.num_repeats)).flatten(1, 2))
            attended = self.attention.attend(query, cache_layer.keys, cache_layer.values)
            return self.attention.o_proj(attended.view(*hidden_states.shape[:2], -1))

        latents, layout = latents.to(hidden_states.device), layout.to(hidden_states.device)
        past = cache_layer.rows() if is_cached else None
        attend = self._attend_segments if isinstance(layout, SegmentLayout) else self._attend_masked
        attended, last_key, last_value = attend(query, latents, layout, past)
        if cache_layer is not None:
            cache_layer.set_image(last_key, last_value)
        return self.attention.o_proj(attended)

    def _attend_segments(
        self, query: torch.Tensor, latents: torch.Tensor, layout: SegmentLayout, past: tuple | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Each row of tokens attends to the one image it sees. Also returns keys and values of the last images."""
        key, value = self.attention.project_context(latents)  # (S, heads, L, head_dim)
        if past is not None:
            key, value = torch.cat([past[0], key]), torch.cat([past[1], value])
        # Multiplied, not indexed: a sample without an image gets keys and values of 0.
        has_media = layout.has_media[:, None, None, None]
        last_key, last_value = key[layout.last_index] * has_media, value[layout.last_index] * has_media
        if layout.key_value_index is not None:
            key, value = key[layout.key_value_index], value[layout.key_value_index]

        # (B, T, ...) -> (R, c, ...) -> attention -> (R * c, ...) -> (B, T, ...); a token without an image gets 0
        rows = query.flatten(0, 1)[layout.token_index].unflatten(0, (len(key), -1))
        attended = self.attention.attend(self.attention.split_heads(rows), key, value).flatten(0, 1)
        attended = torch.cat([attended, attended.new_zeros(1, attended.shape[-1])])
        return attended[layout.slot_index].view_as(query), last_key, last_value

    def _attend_masked(
        self, query: torch.Tensor, latents: torch.Tensor, layout: MaskLayout, past: tuple | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """All tokens attend to all images under a mask. Also returns keys and values of the last images."""
        batch_size, num_media, num_latents, _ = latents.shape
        key, value = self.attention.project_context(latents.flatten(1, 2))  # (B, heads, N * L, head_dim)
        if past is None:
            past_key = past_value = key.new_zeros(*key.shape[:2], num_latents, key.shape[-1])
        else:
            past_key, past_value = past
        key, value = torch.cat([past_key, key], dim=2), torch.cat([past_value, value], dim=2)

        attended = self.attention.attend(self.attention.split_heads(query), key, value, layout.attention_mask)
        # (B, heads, (N + 1) * L, head_dim) -> (B, heads, N + 1, L, head_dim) -> the last image of each sample
        samples = torch.arange(batch_size, device=key.device)
        last_key, last_value = (
            states.unflatten(2, (num_media + 1, num_latents))[samples, :, layout.last_index] for states in (key, value)
        )
        return attended, last_key, last_value


# ---------------------------------------------------------------------------------------------------------------------
# Conditioning a stock language model
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class FlamingoContext:
    """What the gated blocks of one forward pass need. An argument of that pass, never state of a module."""

    blocks: dict[int, nn.Module]  # decoder layer -> the block before it
    latents: torch.Tensor | None
    layout: SegmentLayout | MaskLayout | None
    cache_layers: dict[int, MediaCacheLayer]  # decoder layer -> the cache of its block; empty without a cache
    applied: list[int] = field(default_factory=list)


# The way down for language models that drop keywords before they call their layers (MPT, BLOOM, Falcon, GPT-J,
# GPT-Neo). Set around one call of the language model, in the thread of that call.
_current_context: ContextVar[FlamingoContext | None] = ContextVar("flamingo_context", default=None)


@contextmanager
def _current(context: FlamingoContext) -> Iterator[None]:
    if torch.compiler.is_compiling():
        yield  # the graph has no context variables; a compiled model must pass the keyword
        return
    token = _current_context.set(context)
    try:
        yield
    finally:
        _current_context.reset(token)


def _apply_gated_block(layer_index: int, layer: nn.Module, args: tuple, kwargs: dict) -> tuple | None:
    """
    Forward pre-hook of a decoder layer: its gated block, if it has one, transforms the layer's input.

    Stateless: everything comes from the context. Without one (someone calls the language model itself) it does
    nothing. The context is taken out of the keywords, which go on to attention functions that may not know it.
    """
    context = kwargs.pop(_CONTEXT_KEYWORD, None)
    if context is None and not torch.compiler.is_compiling():
        context = _current_context.get()
    if context is None:
        return None
    context.applied.append(layer_index)
    if layer_index not in context.blocks:
        return args, kwargs
    if args:
        hidden_states, *args = args
    else:
        hidden_states = kwargs.pop("hidden_states")
    hidden_states = context.blocks[layer_index](
        hidden_states, context.latents, layout=context.layout, cache=context.cache_layers.get(layer_index)
    )
    return (hidden_states, *args), kwargs


def _condition(language_model: PreTrainedModel) -> None:
    """Give each decoder layer its hook, once: two Flamingos may share one language model."""
    for index, layer in enumerate(find_decoder_layers(language_model)):
        hooks = layer._forward_pre_hooks.values()
        if not any(getattr(hook, "func", None) is _apply_gated_block for hook in hooks):
            layer.register_forward_pre_hook(functools.partial(_apply_gated_block, index), with_kwargs=True)


class MptNormalisedQKV(nn.Linear):
    """
    The projection to queries, keys and values of an MPT attention, with a layer norm of queries and of keys over their
    full width, before they are split into heads.

    MPT's option `qk_ln`, which `mpt-1b-redpajama-200b`, the language model of OpenFlamingo-3B, needs. transformers has
    the option in its config and nothing behind it. Here the norms are part of the projection, so everything else of
    the stock model stays as it is.
    """

    def __init__(self, projection: nn.Linear, eps: float):
        size = projection.in_features
        kwargs = {"bias": False, "device": projection.weight.device, "dtype": projection.weight.dtype}
        super().__init__(size, 3 * size, **kwargs)
        self.weight = projection.weight
        self.q_ln = nn.LayerNorm(size, eps=eps, **kwargs)
        self.k_ln = nn.LayerNorm(size, eps=eps, **kwargs)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        query, key, value = super().forward(hidden_states).chunk(3, dim=-1)
        return torch.cat([self.q_ln(query), self.k_ln(key), value], dim=-1)


def _mpt_attentions(language_model: PreTrainedModel) -> list[nn.Module]:
    """The attention modules of an MPT whose queries and keys must be normalised; of any other model none."""
    attn_config = getattr(language_model.config, "attn_config", None)
    if language_model.config.model_type != "mpt" or not attn_config.qk_ln:
        return []
    if attn_config.clip_qkv:
        raise ValueError(
            f"`text_config.attn_config` has both `qk_ln` and `clip_qkv={attn_config.clip_qkv}`. Clipping stands before "
            "the norm there, and after it here, so the numbers would be wrong. No released model has both."
        )
    return [module for module in language_model.modules() if hasattr(module, "Wqkv")]


def normalise_mpt_queries_and_keys(language_model: PreTrainedModel) -> None:
    """Do what MPT's option `qk_ln` says; nothing for other models."""
    for attention in _mpt_attentions(language_model):
        attention.Wqkv = MptNormalisedQKV(attention.Wqkv, language_model.config.layer_norm_epsilon)


def _lacks_query_key_norm(language_model: PreTrainedModel) -> bool:
    return any(not isinstance(module.Wqkv, MptNormalisedQKV) for module in _mpt_attentions(language_model))


class TokenRows(nn.Module):
    """
    Trainable rows of a frozen embedding matrix.

    Each parameter shares its memory with one row, so an optimizer that is given these parameters changes those rows of
    the matrix and no other number, weight decay included, and holds state for them alone. They have no place in the
    state dict: the matrix is there already.

    A matrix that is sharded over processes has no rows to share memory with. After [`~TokenRows.separate`] the
    parameters have memory of their own, their values replace what the matrix says, and they are in the state dict;
    [`FlamingoModel.merge_token_rows`] puts them back.
    """

    def __init__(self, weight: torch.Tensor, token_ids: list[int]):
        super().__init__()
        self.token_ids = token_ids
        self.shares_memory = True
        for token_id in token_ids:
            self.register_parameter(f"token_{token_id}", nn.Parameter(weight.data[token_id]))

    def items(self) -> list[tuple[int, nn.Parameter]]:
        return [(token_id, getattr(self, f"token_{token_id}")) for token_id in self.token_ids]

    @property
    def needs_gradient(self) -> bool:
        return torch.is_grad_enabled() and any(row.requires_grad for row in self.parameters())

    @torch.no_grad()
    def share_memory_with(self, weight: torch.Tensor) -> None:
        """Moving, casting or copying a model gives each parameter memory of its own: share it again."""
        if not self.shares_memory:
            return
        for token_id, row in self.items():
            if row.data_ptr() != weight[token_id].data_ptr():
                row.data = weight.data[token_id]

    @torch.no_grad()
    def separate(self) -> None:
        """Give each parameter memory of its own, for good."""
        for _, row in self.items():
            row.data = row.data.clone()
        self.shares_memory = False

    def _save_to_state_dict(self, *args, **kwargs):
        if not self.shares_memory:
            super()._save_to_state_dict(*args, **kwargs)

    def _load_from_state_dict(self, *args, **kwargs):
        if not self.shares_memory:
            super()._load_from_state_dict(*args, **kwargs)


def _input_rows_hook(rows: TokenRows, embedding: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
    """Forward hook of a frozen input embedding: adds gradients of the rows, and their values if they are separate."""
    scale = torch.as_tensor(getattr(embedding, "embed_scale", 1.0))  # Gemma's embedding multiplies by it
    for token_id, row in rows.items():
        is_token = (args[0] == token_id)[..., None]
        if not rows.shares_memory:
            output = torch.where(is_token, (row * scale.to(row.dtype)).to(output.dtype), output)
        elif rows.needs_gradient:
            output = output + is_token * ((row - row.detach()) * scale)
    return output


def _output_rows_hook(rows: TokenRows, head: nn.Module, args: tuple, output: torch.Tensor) -> torch.Tensor:
    """Forward hook of a frozen output embedding: adds gradients of the rows, and their values if they are separate."""
    if rows.shares_memory and not rows.needs_gradient:
        return output
    weight = torch.stack([row for _, row in rows.items()])  # (K, D)
    index = torch.tensor(rows.token_ids, device=output.device)
    # In place over the whole of `output`: through a slice of it, backward would copy the gradient of all logits.
    if rows.shares_memory:
        logits = nn.functional.linear(args[0].detach(), weight)
        return output.index_add_(-1, index, (logits - logits.detach()).to(output.dtype))
    # In place of the matrix's own columns, gradient of the hidden states included
    bias = getattr(head, "bias", None)
    logits = nn.functional.linear(args[0], weight, None if bias is None else bias[index])
    return output.index_copy_(-1, index, logits.to(output.dtype))


def _gather(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor that is sharded over processes, as a whole."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


# ---------------------------------------------------------------------------------------------------------------------
# The loss
# ---------------------------------------------------------------------------------------------------------------------

# The logits of so many tokens are there at once in training. Fewer save little memory beside the activations, and do fewer
# operations for each weight of the head that is read.
LOSS_CHUNK_SIZE = 256


class KnownOutputs(nn.Module):
    """Stands for a decoder whose outputs are known. Whatever else is asked of it is the decoder's."""

    outputs: ModelOutput

    def __init__(self, decoder: nn.Module):
        super().__init__()
        self.__dict__["decoder"] = decoder  # no submodule: its parameters are not wanted

    def __getattr__(self, name: str) -> Any:
        return getattr(self.decoder, name)

    def forward(self, *args, **kwargs) -> ModelOutput:
        return self.outputs


class LanguageModelHead(nn.Module):
    """
    What a causal language model does with the last hidden states of its decoder.

    That is a matter of each family: a head with or without bias, logits that are scaled or soft-capped. It is written in
    the model's `forward`, so this runs it, on a shallow copy of the model with [`KnownOutputs`] in the place of the
    decoder. Modules and parameters are the model's own; the model itself is not touched.
    """

    def __init__(self, language_model: PreTrainedModel, decoder_name: str):
        super().__init__()
        self.language_model = module = self._copy(language_model)
        *path, name = decoder_name.split(".")
        for part in path:
            module._modules[part] = self._copy(module._modules[part])
            module = module._modules[part]
        module._modules[name] = self.decoder = KnownOutputs(module._modules[name])

    @staticmethod
    def _copy(module: nn.Module) -> nn.Module:
        shallow = copy.copy(module)
        shallow._modules = dict(module._modules)
        # accelerate puts a forward on the instance, which would run the original.
        shallow.__dict__.pop("forward", None)
        return shallow

    def forward(self, hidden_states: torch.Tensor, outputs: ModelOutput) -> torch.Tensor:
        """Logits `(M, V)` of hidden states `(M, D)`, which are some of those in the `outputs` of the decoder."""
        self.decoder.outputs = type(outputs)(**{**outputs, "last_hidden_state": hidden_states[None]})
        # Not called as a module: hooks on the whole language model are not meant for its head.
        forward = type(self.language_model).forward
        return forward(self.language_model, inputs_embeds=hidden_states[None], return_dict=True).logits[0]


def _head_of(language_model: nn.Module) -> LanguageModelHead | None:
    """`None` where the head cannot be run by itself."""
    # Wrapped by peft or `torch.compile`
    if not isinstance(language_model, PreTrainedModel):
        return None
    # Sharded by FSDP2 or by DeepSpeed's ZeRO-3: weights are gathered for a call of the whole model
    if any(
        hasattr(parameter, "full_tensor") or hasattr(parameter, "ds_id") for parameter in language_model.parameters()
    ):
        return None
    decoder = language_model.get_decoder()
    if not isinstance(decoder, PreTrainedModel):  # some other module of that name
        decoder = language_model.base_model
    names = [name for name, module in language_model.named_modules() if module is decoder]
    return LanguageModelHead(language_model, names[0]) if names not in ([], [""]) else None


class WithZeroGradients(torch.autograd.Function):
    """
    `apply(tensor, *parameters)`: the tensor as it is, with a gradient of 0 to parameters that it does not depend on.

    A batch without images leaves resampler and cross-attention unused, and processes that train together
    (`DistributedDataParallel`) would wait for their gradients forever where another process has images. It is not
    `tensor + 0 * sum(parameters)`, which is NaN when a parameter or the sum is not finite.
    """

    @staticmethod
    def forward(ctx, tensor: torch.Tensor, *parameters: nn.Parameter) -> torch.Tensor:
        ctx.save_for_backward(*parameters)
        return tensor.clone()  # a view could not be scaled in place, as Trainer does

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return gradient, *map(torch.zeros_like, ctx.saved_tensors)


class ChunkedLoss(torch.autograd.Function):
    """
    A loss that is a sum over tokens, of some tokens at a time.

    The logits of a chunk are gone before those of the next are made: the gradient of each chunk is computed right away, and
    kept is that of the hidden states. It is that of the sum; backward scales it, with whatever a mean or a gradient
    scaler asks for, so that in half precision it does not vanish.

    `apply(loss, chunk_size, needs_gradient, hidden_states, targets, *parameters)` with `loss(hidden_states, targets)` a
    scalar, hidden states `(M, D)`, targets `(M,)`, and the parameters that `loss` uses and that need a gradient. Without
    `needs_gradient` (autograd asks for one even where it is switched off) it is the sum alone.
    """

    @staticmethod
    def forward(ctx, loss, chunk_size, needs_gradient, hidden_states, targets, *parameters):
        total = hidden_states.new_zeros((), dtype=torch.float32)
        gradients = []
        sums = [torch.zeros_like(parameter, dtype=torch.float32) for parameter in parameters if needs_gradient]
        for chunk, chunk_targets in zip(hidden_states.split(chunk_size), targets.split(chunk_size), strict=True):
            if not needs_gradient:
                total += loss(chunk, chunk_targets)
                continue
            with torch.enable_grad():
                chunk = chunk.detach().requires_grad_()
                # As a view: the flop counter has hooks on inputs of modules, which autograd.grad refuses on a leaf.
                chunk_loss = loss(chunk.view_as(chunk), chunk_targets)
            total += chunk_loss.detach()
            of_states, *of_parameters = torch.autograd.grad(chunk_loss, [chunk, *parameters], allow_unused=True)
            gradients.append(of_states)
            for gradient_sum, gradient in zip(sums, of_parameters, strict=True):
                if gradient is not None:
                    gradient_sum += gradient
        if needs_gradient:
            ctx.save_for_backward(torch.cat(gradients), *sums)
            ctx.dtypes = [tensor.dtype for tensor in (hidden_states, *parameters)]
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx, scale):
        # In float32: a mean's scale is rounded in half precision, and that of a gradient scaler may not fit.
        # Without a target the mean is 0 / 0 and its scale not finite, but nothing depends on the parameters.
        scale = scale if len(ctx.saved_tensors[0]) > 0 else torch.zeros_like(scale)
        of_states, *of_parameters = (
            (gradient.float() * scale).to(dtype) for gradient, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return None, None, None, of_states, None, *of_parameters


# ---------------------------------------------------------------------------------------------------------------------
# The model
# ---------------------------------------------------------------------------------------------------------------------


# So many images or frames go through a frozen vision encoder at once.
ENCODER_CHUNK_SIZE = 32


@dataclass
class FlamingoImageFeatures(BaseModelOutputWithPooling):
    """
    What [`FlamingoModel.get_image_features`] returns.

    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(B, N, P, Dv)`, or `(B, N, F, P, Dv)` for video):
            Features of the vision encoder; 0 at padding.
        pooler_output (`torch.FloatTensor` of shape `(B, N, L, Dv)`): The resampled latents; 0 at padding.
        image_attention_mask (`torch.BoolTensor` of shape `(B, N)`): True where there is a real image or video.
        hidden_states, attentions (`tuple`, *optional*): Those of the vision encoder, over all real frames.
    """

    image_attention_mask: torch.BoolTensor | None = None

    def of_rows(self, choose: Callable[[torch.Tensor], torch.Tensor]) -> "FlamingoImageFeatures":
        """Latents and mask alone, of the rows that `choose` makes of the first dimension."""
        return FlamingoImageFeatures(
            pooler_output=choose(self.pooler_output), image_attention_mask=choose(self.image_attention_mask)
        )


@dataclass
class FlamingoOutput(ModelOutput):
    """
    What [`FlamingoModel.forward`] returns.

    Args:
        loss (`torch.FloatTensor`, *optional*): Next-token loss, if `labels` were given.
        logits (`torch.FloatTensor` of shape `(B, T, V)`, *optional*):
            Scores of the next token; fewer with `logits_to_keep`, none with `skip_logits`.
        cache (`Cache`, *optional*):
            The language model's cache, with one [`MediaCacheLayer`] for each gated block behind its own layers.
        hidden_states, attentions (`tuple`, *optional*): Those of the language model.
        image_hidden_states (`torch.FloatTensor` of shape `(B, N, L, Dv)`, *optional*): The latents of the images.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    cache: Cache | None = None
    hidden_states: tuple[torch.FloatTensor] | None = None
    attentions: tuple[torch.FloatTensor] | None = None
    image_hidden_states: torch.FloatTensor | None = None


@dataclass(frozen=True)
class FlamingoBody:
    """
    A [`FlamingoModel`] without the head of its language model: what its `base_model` is.

    It is called as the model is, but for `labels` and `logits_to_keep`, and returns the language model's
    `last_hidden_state` `(B, T, D)`, from which the head makes logits. Trainers that fuse head and loss call it (TRL's
    `SFTTrainer`); they read the head's weight themselves, so that after `freeze_backbones()` the output rows of the new
    tokens get no gradient there.

    Args:
        model (`FlamingoModel`): The whole model. No module and no state of its own: parameters keep their names.
    """

    model: "FlamingoModel"
    _tp_plan = _pp_plan = None

    def __call__(self, input_ids: torch.LongTensor | None = None, **kwargs) -> ModelOutput:
        return self.model._run(self.model.language_model.base_model, input_ids, **kwargs)[0]

    @property
    def get_image_features(self) -> Callable[..., FlamingoImageFeatures]:
        return self.model.get_image_features  # itself: `generate()` looks for it here and reads its signature


class FlamingoModel(PreTrainedModel, GenerationMixin):
    """
    Flamingo: a vision encoder and a causal language model joined by a Perceiver resampler and gated cross-attention
    (Alayrac et al. 2022). The language-model head is included, and `generate()` is the stock one.

    The backbones are stock transformers models: their parameters keep their own names under `vision_model.` and
    `language_model.`. The new parts are `resampler` and `gated_cross_attention`, one block for each decoder layer in
    `config.cross_attention_layer_indices`.

    Args:
        config ([`FlamingoConfig`]): The configuration.
        vision_model (`PreTrainedModel`, *optional*): An existing vision encoder; built from `config` without one.
        language_model (`PreTrainedModel`, *optional*): An existing causal language model, likewise.

    Attributes:
        max_text_length (`int`, *optional*):
            Number of tokens that the language model has positions for; `None` if it computes positions without a limit.

    Raises:
        ValueError: the language model cannot be conditioned, its vocabulary lacks the special tokens, or the vision
            encoder masks images.
    """

    config_class = FlamingoConfig
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["FlamingoGatedCrossAttentionBlock", "FlamingoPerceiverResampler"]
    _skip_keys_device_placement = ["cache", _CONTEXT_KEYWORD]
    # The language model ties its own head. Empty and not None: peft looks for tied modules in the submodules only then.
    _tied_weights_keys = {}
    _supports_sdpa = True
    # Flash and flex attention are not declared, so they are refused for the gated blocks: neither was tried. A backbone may
    # have its own: `attn_implementation={"text_config": "flash_attention_2", "": "sdpa"}`.

    def __init__(
        self,
        config: FlamingoConfig,
        vision_model: PreTrainedModel | None = None,
        language_model: PreTrainedModel | None = None,
    ):
        super().__init__(config)
        vocab_size = config.text_config.vocab_size
        for name in ("image_token_id", "end_of_chunk_token_id"):
            if getattr(config, name) >= vocab_size:
                raise ValueError(
                    f"`{name}` is {getattr(config, name)}, but the language model's vocabulary has {vocab_size} rows. "
                    "Resize its embeddings first (`resize_token_embeddings`), or use "
                    "`FlamingoModel.from_vision_text_pretrained`, which does it."
                )
        if vision_model is None and config.vision_config is not None:
            vision_model = AutoModel.from_config(config.vision_config)
        _check_sees_whole_images(vision_model)
        if language_model is None:
            language_model = AutoModelForCausalLM.from_config(config.text_config)
            normalise_mpt_queries_and_keys(language_model)

        self.vision_model = vision_model
        self.language_model = language_model
        self.resampler = FlamingoPerceiverResampler(config)
        self.gated_cross_attention = nn.ModuleList(
            FlamingoGatedCrossAttentionBlock(config) for _ in config.cross_attention_layer_indices
        )
        self.input_token_rows: TokenRows | None = None
        self.output_token_rows: TokenRows | None = None

        if _lacks_query_key_norm(language_model):
            raise ValueError(
                "`text_config.attn_config.qk_ln` is set, but transformers' MPT has no layer norm of queries and keys: it "
                "would give wrong numbers without a word. Build the model from its config, or convert the checkpoint "
                "with `transformers_flamingo.conversion`."
            )
        check_language_model(language_model)
        self.max_text_length = find_max_text_length(language_model)
        parameters = inspect.signature(type(language_model).forward).parameters
        _condition(language_model)
        self._takes_position_ids = "position_ids" in parameters
        self._counts_padding = counts_padding(language_model, self.max_text_length)
        self._takes_keywords = any(p.kind is p.VAR_KEYWORD for p in parameters.values())

        # It is derived from the class name otherwise, and "FlamingoModel" names no loss.
        self.loss_type = "ForCausalLM"
        self._can_compile_fullgraph = language_model._can_compile_fullgraph
        self._set_default_generation_config()
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args, quantization_config: QuantizationConfigMixin | dict | None = None, **kwargs):
        """
        Load a model as [`PreTrainedModel.from_pretrained`] does. A `quantization_config` quantizes the decoder of the
        language model alone, without the modules that it names: the head, the vision encoder, the resampler and the
        gated blocks keep their precision.
        """
        if quantization_config is not None:
            quantization_config = _quantize_only_the_decoder(quantization_config)
            if not any(hasattr(quantization_config, name) for name in _SKIP_LISTS):
                raise ValueError(
                    f"{type(quantization_config).__name__} has no list of modules to leave as they are, so it would also "
                    "quantize the gated blocks, which are trained, and the vision encoder. Use BitsAndBytesConfig, "
                    "TorchAoConfig or QuantoConfig."
                )
            kwargs["quantization_config"] = quantization_config
        return super().from_pretrained(*args, **kwargs)

    def _set_default_generation_config(self) -> None:
        """
        Stop at `<|endofchunk|>` and wherever the language model stops, and never generate an `<image>` token.

        Instruct models have their end-of-turn tokens in the generation config alone. Whatever else stands there, such
        as sampling, was chosen for chats and is not taken over.
        """
        config, text = self.generation_config, self.language_model.generation_config or GenerationConfig()
        text_config = self.config.text_config

        def token_ids(name: str) -> list[int]:
            given = [getattr(source, name, None) for source in (text, text_config)]
            return [i for ids in given if ids is not None for i in ([ids] if isinstance(ids, int) else ids)]

        config.bos_token_id = next(iter(token_ids("bos_token_id")), None)
        pad = self.config.pad_token_id
        config.pad_token_id = next(iter(token_ids("pad_token_id")), self.config.end_of_chunk_token_id)
        config.pad_token_id = config.pad_token_id if pad is None else pad
        config.eos_token_id = list(dict.fromkeys([self.config.end_of_chunk_token_id, *token_ids("eos_token_id")]))
        for name in ("begin_suppress_tokens", "bad_words_ids", "suppress_tokens"):
            setattr(config, name, getattr(text, name, None))
        if self.config.image_token_ids is None:  # those are ordinary text
            config.suppress_tokens = [*(config.suppress_tokens or ()), self.config.image_token_id]

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """
        Initial values of the new parts; the backbones initialise themselves.

        | parameter                          | value                                                                  |
        |------------------------------------|------------------------------------------------------------------------|
        | `attn_gate`, `ffn_gate`            | 0, so that the language model starts unchanged (paper, section 3.1.2)   |
        | weights of linear maps             | uniform in +-1/sqrt(fan in), as `nn.Linear` and both peers have it     |
        | layer norms                        | weight 1, bias 0                                                       |
        | `latents`                          | standard normal, as both peers have it                                 |
        | `frame_embeddings`                 | normal, 0.02: small beside features, as a single image gets one too    |
        """
        if isinstance(module, nn.Linear):
            init.kaiming_uniform_(module.weight, a=5**0.5)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, FlamingoPerceiverResampler):
            if module.latents is not None:
                init.normal_(module.latents)
            if module.frame_embeddings is not None:
                init.normal_(module.frame_embeddings, std=0.02)
        elif isinstance(module, FlamingoGatedCrossAttentionBlock):
            for gate in (module.attn_gate, module.ffn_gate):
                if gate is not None:
                    init.zeros_(gate)

    @property
    def base_model(self) -> FlamingoBody:
        """The model without the head, by the name that every transformers model has for it."""
        return FlamingoBody(self)

    # Embeddings and decoder are the language model's.

    def get_input_embeddings(self) -> nn.Module:
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        self.language_model.set_output_embeddings(new_embeddings)

    def get_decoder(self) -> nn.Module:
        return self.language_model.get_decoder()

    def set_decoder(self, decoder: nn.Module) -> None:
        self.language_model.set_decoder(decoder)
        _condition(self.language_model)

    def resize_token_embeddings(self, new_num_tokens: int | None = None, *args, **kwargs) -> nn.Module:
        num_rows = 1 + max(self.config.image_token_id, self.config.end_of_chunk_token_id)
        if new_num_tokens is not None and new_num_tokens < num_rows:
            raise ValueError(
                f"{new_num_tokens} rows would cut off the embeddings of `<image>` ({self.config.image_token_id}) or "
                f"`<|endofchunk|>` ({self.config.end_of_chunk_token_id}). Keep at least {num_rows}."
            )
        has_token_rows = self.input_token_rows is not None
        self._remove_token_rows()
        embeddings = super().resize_token_embeddings(new_num_tokens, *args, **kwargs)
        if has_token_rows:
            self._add_token_rows()
        return embeddings

    # What is trained.

    def freeze_backbones(self) -> None:
        """
        Freeze vision encoder and language model, except for the embeddings of `<image>` and `<|endofchunk|>`.

        What stays trainable: resampler, gated blocks, and the two new rows of the input embedding (and of the output
        embedding where it is not tied to it). The rows are parameters of their own that share memory with the
        matrix ([`TokenRows`]), so every other number of the backbones stays bit-identical through training, weight
        decay included. A frozen vision encoder runs without recording gradients.

        Raises:
            ValueError: the model has adapters of peft.
        """
        if getattr(self, "peft_config", None):
            raise ValueError(
                "This model has adapters of peft, which froze all that they do not train. `freeze_backbones()` would "
                "freeze the adapters of the language model too, and make parameters of rows that peft has already: "
                "leave it out."
            )
        if self.vision_model is not None:
            self.vision_model.requires_grad_(False)
        self.language_model.requires_grad_(False)
        self.resampler.requires_grad_(True)
        self.gated_cross_attention.requires_grad_(True)
        self._remove_token_rows()
        self._add_token_rows()

    def unfreeze_backbones(self, vision_model: bool | None = None, language_model: bool | None = None) -> None:
        """
        Make the backbones trainable again.

        Args:
            vision_model (`bool`, *optional*): Whether to unfreeze the vision encoder.
            language_model (`bool`, *optional*): Whether to unfreeze the language model.

        Without arguments both are unfrozen. With one argument, `True` unfreezes that backbone alone and `False` the other
        one alone.
        """
        unfreezes_vision = not language_model if vision_model is None else vision_model
        unfreezes_text = not vision_model if language_model is None else language_model
        if unfreezes_vision and self.vision_model is not None:
            self.vision_model.requires_grad_(True)
        if unfreezes_text:
            self._remove_token_rows()
            self.language_model.requires_grad_(True)

    @property
    def trained_token_ids(self) -> list[int]:
        """The tokens whose embeddings are trained with frozen backbones: the special ones, not those that are text."""
        token_ids = {self.config.image_token_id, self.config.end_of_chunk_token_id}
        return sorted(token_ids - set(self.config.image_token_ids or ()))

    def _add_token_rows(self) -> None:
        token_ids = self.trained_token_ids
        embedding, head = self.get_input_embeddings(), self.get_output_embeddings()
        self.input_token_rows = TokenRows(embedding.weight, token_ids)
        embedding.register_forward_hook(functools.partial(_input_rows_hook, self.input_token_rows))
        if head.weight is embedding.weight:
            output_rows = self.input_token_rows
        else:
            output_rows = self.output_token_rows = TokenRows(head.weight, token_ids)
        head.register_forward_hook(functools.partial(_output_rows_hook, output_rows))

    def _remove_token_rows(self) -> None:
        own = [rows for rows in (self.input_token_rows, self.output_token_rows) if rows is not None]
        self.input_token_rows = self.output_token_rows = None
        for module in (self.get_input_embeddings(), self.get_output_embeddings()):
            for key, hook in list(module._forward_hooks.items()):
                # Its own only: another Flamingo may share the language model.
                if isinstance(hook, functools.partial) and any(hook.args[:1] == (rows,) for rows in own):
                    del module._forward_hooks[key]

    def _share_token_rows(self) -> None:
        if self.input_token_rows is not None:
            self.input_token_rows.share_memory_with(self.get_input_embeddings().weight)
        if self.output_token_rows is not None:
            self.output_token_rows.share_memory_with(self.get_output_embeddings().weight)

    def separate_token_rows(self) -> None:
        """Give the trained rows of frozen embeddings memory of their own. Before sharding: see [`TokenRows`]."""
        self._share_token_rows()
        for rows in (self.input_token_rows, self.output_token_rows):
            if rows is not None:
                rows.separate()

    @torch.no_grad()
    def merge_token_rows(self, state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """
        A full state dict with separate token rows as one without: the rows are written into its matrices, in place
        unless these are sharded. Other state dicts are returned as they are.
        """
        merged = dict(state_dict)
        names = {module: name for name, module in self.named_modules()}
        heads = [(self.get_input_embeddings(), "input_token_rows")]
        heads.append(
            (self.get_output_embeddings(), f"{'in' if self.output_token_rows is None else 'out'}put_token_rows")
        )
        for module, rows_name in heads:
            rows, key = getattr(self, rows_name), f"{names[module]}.weight"
            for token_id in [] if rows is None else rows.token_ids:
                row = state_dict.get(f"{rows_name}.token_{token_id}")
                merged.pop(f"{rows_name}.token_{token_id}", None)
                if row is not None and key in merged:
                    merged[key] = _gather(merged[key])
                    merged[key][token_id] = _gather(row)
        return merged

    def save_pretrained(
        self,
        save_directory: str,
        is_main_process: bool = True,
        state_dict: dict[str, torch.Tensor] | None = None,
        push_to_hub: bool = False,
        **kwargs,
    ) -> None:
        """
        Save the model as `PreTrainedModel.save_pretrained` does, with two differences.

        Parameters keep their own names. The stock method gives those of some language models the names of older
        releases (GPT-NeoX: `embed_out`). [`~FlamingoModel.from_pretrained`] reads either, but a `Trainer` that resumes
        would ignore them with a warning.

        The new files replace those of an earlier model only when all are written. A process that is killed leaves the
        earlier model, or a folder without `config.json`, which does not load; never the configuration of one model and
        the weights of another.

        Raises:
            OSError: the folder cannot be written, or there is a file of that name. What was there stays as it was.
        """
        if any(
            rows is not None and not rows.shares_memory for rows in (self.input_token_rows, self.output_token_rows)
        ):
            state_dict = self.merge_token_rows(self.state_dict() if state_dict is None else state_dict)
        kwargs.setdefault("save_original_format", False)
        save = functools.partial(
            super().save_pretrained, is_main_process=is_main_process, state_dict=state_dict, push_to_hub=push_to_hub
        )
        # Shards are written by all processes at once, into the folder itself.
        if kwargs.get("distributed_checkpoint") or not self.should_save_on_this_rank(is_main_process):
            save(save_directory, **kwargs)
            return
        if push_to_hub:
            kwargs.setdefault("repo_id", os.path.basename(os.path.normpath(save_directory)))
        with update_folder(save_directory) as partial:
            save(partial, **kwargs)

    # Images.

    @can_return_tuple
    def get_image_features(
        self,
        pixel_values: torch.FloatTensor,
        frame_attention_mask: torch.Tensor | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> FlamingoImageFeatures:
        """
        Encode images and videos. The latents of one depend on it alone, so they can be kept and passed again:
        `model(..., mm_encoder_outputs={"image": features})`, and likewise to `generate`.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(B, N, C, H, W)`, or `(B, N, F, C, H, W)` with video):
                The pixels.
            frame_attention_mask (`torch.Tensor` of shape `(B, N)` or `(B, N, F)`, *optional*):
                1 where there is a real image or frame, 0 at padding, which is not encoded. All are real without it.
            kwargs: Passed to the vision encoder, such as `output_hidden_states`.

        Returns:
            [`FlamingoImageFeatures`]: the latents are its `pooler_output` `(B, N, L, Dv)`.

        Raises:
            ValueError: there is no vision encoder, or a shape is wrong.
        """
        if self.vision_model is None:
            raise ValueError(
                "`pixel_values` were given, but this model has no vision encoder (config.vision_config is None). Pass "
                "the features of your own encoder instead: `mm_encoder_outputs={'image': {'last_hidden_state': "
                "features}}` with features of shape (B, N, P, Dv), or (B, N, F, P, Dv) for video."
            )
        check_tensors(pixel_values=pixel_values, frame_attention_mask=frame_attention_mask)
        if pixel_values.ndim not in (5, 6):
            raise ValueError(
                f"`pixel_values` has shape {tuple(pixel_values.shape)}. It must be (B, N, C, H, W) for images or "
                "(B, N, F, C, H, W) for videos: samples, images per sample, then each image. FlamingoProcessor makes it."
            )
        if not pixel_values.is_floating_point():
            raise ValueError(
                f"`pixel_values` is of type {pixel_values.dtype}, so the pixels were not rescaled and normalized as the "
                "vision encoder needs them. Pass the images through FlamingoProcessor."
            )
        has_frames = pixel_values.ndim == 6
        frames = pixel_values if has_frames else pixel_values[:, :, None]  # (B, N, F, C, H, W)
        frame_mask = self._expand_frame_mask(frame_attention_mask, frames.shape[:3], has_frames)

        flat = frames.flatten(0, 2)  # (B * N * F, C, H, W)
        is_real = frame_mask.flatten() if frame_mask is not None else None
        if is_real is not None and not torch.compiler.is_compiling():
            flat = flat[is_real]
        if len(flat) == 0:
            raise ValueError(
                f"`pixel_values` of shape {tuple(pixel_values.shape)} holds no real image: `frame_attention_mask` has no 1, "
                "or there are no images at all. Leave `pixel_values` out for text alone."
            )
        check_finite(flat, "pixel_values", "real image or frame")
        outputs = self._encode(flat, **kwargs)
        features = self._select_features(outputs["last_hidden_state"], flat.shape[-2:])
        if is_real is not None and len(features) != len(is_real):
            padded = features.new_zeros(len(is_real), *features.shape[1:])
            features = padded.index_put((is_real.nonzero().squeeze(-1),), features)
        features = features.unflatten(0, frames.shape[:3])  # (B, N, F, P, Dv)

        result = self._resample(features, frame_mask)
        result.last_hidden_state = features if has_frames else features.squeeze(2)
        result.hidden_states, result.attentions = outputs["hidden_states"], outputs["attentions"]
        return result

    def _encode(self, frames: torch.Tensor, **kwargs) -> dict[str, Any]:
        """What the vision encoder makes of frames `(E, C, H, W)`."""
        needs_gradient = torch.is_grad_enabled() and (
            frames.requires_grad or any(p.requires_grad for p in self.vision_model.parameters())
        )
        # Without gradients the features are all that is kept, and memory for the rest need not grow with the frames.
        is_whole = needs_gradient or torch.compiler.is_compiling()
        with torch.set_grad_enabled(needs_gradient):
            chunks = [
                self.vision_model(pixel_values=chunk.to(self.vision_model.dtype), return_dict=True, **kwargs)
                for chunk in ([frames] if is_whole else frames.split(ENCODER_CHUNK_SIZE))
            ]

        def joined(name: str) -> torch.Tensor | tuple[torch.Tensor, ...] | None:
            parts = [getattr(outputs, name, None) for outputs in chunks]
            if len(parts) == 1 or parts[0] is None:
                return parts[0]
            if isinstance(parts[0], tuple):
                return tuple(torch.cat(layer) for layer in zip(*parts, strict=True))
            return torch.cat(parts)

        return {name: joined(name) for name in ("last_hidden_state", "hidden_states", "attentions")}

    @staticmethod
    def _expand_frame_mask(
        frame_attention_mask: torch.Tensor | None, shape: tuple[int, int, int], has_frames: bool
    ) -> torch.BoolTensor | None:
        """`frame_attention_mask` as `(B, N, F)`, for `shape = (B, N, F)`."""
        if frame_attention_mask is None:
            return None
        check_mask("frame_attention_mask", frame_attention_mask, (2, 3))
        mask = frame_attention_mask.bool()
        if mask.ndim == 2 and mask.shape == shape[:2]:
            return mask[:, :, None].expand(shape)
        if has_frames and mask.shape == shape:
            return mask
        expected = f"{tuple(shape[:2])} or {tuple(shape)}" if has_frames else f"{tuple(shape[:2])}"
        raise ValueError(
            f"`frame_attention_mask` has shape {tuple(frame_attention_mask.shape)}, but the images or features given "
            f"with it need {expected}: (B, N), or (B, N, F) for videos."
        )

    def _select_features(self, features: torch.Tensor, image_size: tuple[int, int]) -> torch.Tensor:
        """The tokens of the vision encoder that `vision_feature_select_strategy` asks for: `(E, P, Dv)`."""
        if features.ndim != 3:
            raise ValueError(
                f"{type(self.vision_model).__name__} returns features of shape {tuple(features.shape)}, but a sequence "
                "(images, P, Dv) is needed. Use an encoder that returns one, or pass features yourself as "
                "`mm_encoder_outputs`."
            )
        patch_size = getattr(self.config.vision_config, "patch_size", None)
        if self.config.vision_feature_select_strategy == "full" or patch_size is None:
            return features
        # What stands before the patches: a class token (CLIP, ViT, DINOv2), registers too, or nothing (SigLIP).
        height, width = (patch_size, patch_size) if isinstance(patch_size, int) else patch_size
        num_patches = (image_size[0] // height) * (image_size[1] // width)
        return features[:, max(features.shape[1] - num_patches, 0) :]

    def _resample(self, features: torch.Tensor, frame_mask: torch.BoolTensor | None) -> FlamingoImageFeatures:
        """Latents of features `(B, N, F, P, Dv)` with frames `(B, N, F)`; padding gets 0 and is not computed."""
        shape = features.shape[:2]
        if frame_mask is None:
            latents = self.resampler(features.flatten(0, 1))
            is_image = torch.ones(shape, dtype=torch.bool, device=features.device)
        elif torch.compiler.is_compiling():
            # Static shapes: padding is computed too, and then set to 0.
            is_image = frame_mask.any(dim=2)
            latents = self.resampler(features.flatten(0, 1), frame_mask.flatten(0, 1))
            latents = latents * is_image.flatten()[:, None, None]
        else:
            is_image = frame_mask.any(dim=2)
            index = is_image.flatten().nonzero().squeeze(-1)
            real_frames = frame_mask.flatten(0, 1)[index]
            resampled = self.resampler(features.flatten(0, 1)[index], None if real_frames.all() else real_frames)
            latents = resampled.new_zeros(is_image.numel(), *resampled.shape[1:]).index_put((index,), resampled)
        return FlamingoImageFeatures(pooler_output=latents.unflatten(0, shape), image_attention_mask=is_image)

    @staticmethod
    def _real_images_first(features: FlamingoImageFeatures, is_wanted: torch.BoolTensor) -> FlamingoImageFeatures:
        """The wanted images of each sample `(B, N)` in front, in their order: marker k is image k whatever pads."""
        latents = features.pooler_output
        if torch.compiler.is_compiling() or bool((is_wanted[:, 1:] & ~is_wanted[:, :-1]).any()):
            order = (~is_wanted).long().argsort(dim=1, stable=True)
            latents = latents.take_along_dim(order[:, :, None, None], dim=1)
            is_wanted = is_wanted.take_along_dim(order, dim=1)
        return FlamingoImageFeatures(pooler_output=latents, image_attention_mask=is_wanted)

    @staticmethod
    def _check_encoder_outputs(mm_encoder_outputs: Any) -> None:
        """Images under another name would be ignored."""
        if mm_encoder_outputs is None or (
            isinstance(mm_encoder_outputs, dict) and mm_encoder_outputs.keys() <= {"image"}
        ):
            return
        if not isinstance(mm_encoder_outputs, dict):
            raise ValueError(
                f"`mm_encoder_outputs` is a {type(mm_encoder_outputs).__name__}. It must be a dict: `{{'image': ...}}`."
            )
        given = sorted(mm_encoder_outputs)
        raise ValueError(
            f"`mm_encoder_outputs` is a dict with {given}, but images and videos alike stand under `image`, and anything "
            "else would be ignored. Rename it."
        )

    def _as_image_features(
        self, image_outputs: ModelOutput | dict, frame_attention_mask: torch.Tensor | None
    ) -> FlamingoImageFeatures:
        """
        `mm_encoder_outputs["image"]` with its latents: either given as `pooler_output` `(B, N, L, Dv)`, or made from
        features given as `last_hidden_state` `(B, N, P, Dv)` or `(B, N, F, P, Dv)`.
        """
        if not isinstance(image_outputs, dict):
            raise ValueError(
                f"`mm_encoder_outputs['image']` is a {type(image_outputs).__name__}, but it must be what "
                "`get_image_features` returns, or a dict with `pooler_output` (latents, (B, N, L, Dv)) or "
                "`last_hidden_state` (features, (B, N, P, Dv) or (B, N, F, P, Dv))."
            )
        latents, features = image_outputs.get("pooler_output"), image_outputs.get("last_hidden_state")
        given, name = (features, "last_hidden_state") if latents is None else (latents, "pooler_output")
        dims = (4, 5) if latents is None else (4,)
        check_tensors(frame_attention_mask=frame_attention_mask, **{f"mm_encoder_outputs['image']['{name}']": given})
        if given is None or given.ndim not in dims or given.shape[-1] != self.config.vision_hidden_size:
            raise ValueError(
                f"`mm_encoder_outputs['image']` has `{name}` of shape "
                f"{None if given is None else tuple(given.shape)}. Needed is `pooler_output` (latents) of shape "
                "(B, N, L, Dv), or `last_hidden_state` (features) of shape (B, N, P, Dv) or (B, N, F, P, Dv), with "
                f"Dv = {self.config.vision_hidden_size}."
            )
        if not given.is_floating_point():
            raise ValueError(
                f"`mm_encoder_outputs['image']['{name}']` is of type {given.dtype}, but features are floats: they were not "
                "made by a vision encoder, or were converted since."
            )
        check_finite(given, name, "sample")
        if latents is None:
            has_frames = features.ndim == 5
            features = features if has_frames else features[:, :, None]
            return self._resample(
                features, self._expand_frame_mask(frame_attention_mask, features.shape[:3], has_frames)
            )
        is_image = image_outputs.get("image_attention_mask")
        if frame_attention_mask is not None:
            check_mask("frame_attention_mask", frame_attention_mask, (2, 3))
            is_image = frame_attention_mask.bool()
            is_image = is_image.any(dim=2) if is_image.ndim == 3 else is_image
        if is_image is None:
            is_image = torch.ones(latents.shape[:2], dtype=torch.bool, device=latents.device)
        if is_image.shape != latents.shape[:2]:
            raise ValueError(
                f"The mask of the images has shape {tuple(is_image.shape)}, but `pooler_output` has "
                f"{tuple(latents.shape)}: they must agree in (B, N)."
            )
        return FlamingoImageFeatures(pooler_output=latents, image_attention_mask=is_image)

    def _find_markers(
        self,
        input_ids: torch.LongTensor | None,
        inputs_embeds: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
    ) -> torch.BoolTensor:
        """Where the `<image>` tokens are, padding aside: `(B, T)`."""
        token_ids = self.config.image_token_ids or [self.config.image_token_id]
        if input_ids is not None:
            markers = torch.stack([input_ids == token_id for token_id in token_ids]).any(dim=0)
        else:
            tokens = self.get_input_embeddings()(torch.tensor(token_ids, device=inputs_embeds.device))
            markers = torch.stack([(inputs_embeds == token).all(dim=-1) for token in tokens]).any(dim=0)
        if is_padding_mask(attention_mask):
            markers = markers & attention_mask[:, -markers.shape[1] :].bool()
        return markers

    @staticmethod
    def _count_images(image_features: FlamingoImageFeatures | None, text: torch.Tensor) -> torch.LongTensor:
        """How many images each sample has, `(B,)`, for a text `(B, T)` with as many samples."""
        if image_features is None:
            return torch.zeros(len(text), dtype=torch.long, device=text.device)
        num_images = image_features.image_attention_mask.sum(dim=1).to(text.device)
        if len(num_images) != len(text):
            raise ValueError(
                f"The text has {len(text)} samples, but images were given for {len(num_images)}. Their first dimension, B, "
                "must agree."
            )
        return num_images

    def _check_image_counts(self, markers: torch.BoolTensor, image_features: FlamingoImageFeatures | None) -> None:
        """Each sample has as many images as markers."""
        if image_features is None and self.config.image_token_ids is not None:
            return  # ordinary text, as long as there is no image
        num_markers, num_images = markers.sum(dim=1), self._count_images(image_features, markers)
        if torch.compiler.is_compiling():
            # A graph cannot tell which sample it is, but it must not run on with a wrong image.
            torch._assert_async(
                (num_images == num_markers).all(),
                "The number of `<image>` markers in the text differs from the number of images.",
            )
            return
        wrong = (num_images != num_markers).nonzero().flatten().tolist()
        if wrong:
            counts = "; ".join(f"sample {i}: {num_markers[i]} markers, {num_images[i]} images" for i in wrong[:8])
            raise ValueError(
                f"The number of `<image>` markers in the text differs from the number of images ({counts}). Each marker "
                "stands for one image or video, so some text would see a wrong image or none. Give one image for each "
                "marker, and mark padding among the images with 0 in `frame_attention_mask`."
            )

    def _check_media_index(
        self, media_index: torch.LongTensor, shape: torch.Size, image_features: FlamingoImageFeatures | None
    ) -> None:
        """Each token sees an image that its sample has, or none."""
        if media_index.shape != shape:
            raise ValueError(
                f"`media_index` has shape {tuple(media_index.shape)}, but the text has {tuple(shape)}: it says for each "
                "token which image that sees."
            )
        if media_index.dtype != torch.bool:
            check_whole_numbers("media_index", media_index)
        num_images = self._count_images(image_features, media_index)
        is_wrong = (media_index < 0) | (media_index > num_images[:, None])
        if torch.compiler.is_compiling():
            torch._assert_async((~is_wrong).all(), "`media_index` names an image that is not there.")
        elif is_wrong.any():
            sample, token = is_wrong.nonzero()[0].tolist()
            raise ValueError(
                f"`media_index` is {media_index[sample, token]} at token {token} of sample {sample}, which has "
                f"{num_images[sample].item()} images. It would see a wrong one: give 1 to the number of images of the "
                "sample, or 0 for none."
            )

    @staticmethod
    def _find_documents(
        position_ids: torch.LongTensor | None, shape: torch.Size, use_cache: bool | None
    ) -> torch.LongTensor | None:
        """Which document of its row each token is of, `(B, T)`; `None` if no position starts again."""
        if position_ids is None or position_ids.ndim != 2 or (use_cache and torch.compiler.is_compiling()):
            return None
        documents = find_packed_sequence_indices(position_ids.expand(shape))
        if documents is not None and use_cache:
            raise ValueError(
                "`position_ids` start again, so several documents are packed into one row, and `use_cache` is set. With "
                "a cache, language models take the row for one text and the documents would see each other: leave "
                "out `use_cache`."
            )
        return documents

    @property
    def _has_full_attention(self) -> bool:
        """Whether one mask is right for all layers of the language model."""
        config = self.language_model.config
        layer_types = getattr(config, "layer_types", None) or ["full_attention"]
        return getattr(config, "sliding_window", None) is None and set(layer_types) == {"full_attention"}

    # Forward.

    # The name that transformers itself had until 5.24, and takes until 5.40.
    @deprecate_kwarg("past_key_values", "5.40.0", new_name="cache")
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        frame_attention_mask: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        media_index: torch.LongTensor | None = None,
        skip_logits: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> FlamingoOutput:
        """
        Args:
            input_ids (`torch.LongTensor` of shape `(B, T)`, *optional*):
                The text, with one `<image>` for each image or video of the sample, in their order.
            attention_mask (`torch.Tensor` of shape `(B, T)`, or with a cache `(B, past + T)`, *optional*):
                1 at text, 0 at padding. With padding on the left, positions are counted from the first real token,
                as `generate()` does.
            pixel_values (`torch.FloatTensor` of shape `(B, N, C, H, W)` or `(B, N, F, C, H, W)`, *optional*):
                Images, or videos. With a cache, only those marked in the new text.
            frame_attention_mask (`torch.Tensor` of shape `(B, N)` or `(B, N, F)`, *optional*):
                1 where there is a real image or frame.
            labels (`torch.LongTensor` of shape `(B, T)`, *optional*):
                Ids to predict, shifted inside; -100 is not supervised. In training mode logits are made at supervised
                positions only, some at a time, and are not returned: see `skip_logits`.
            cache (`Cache`, *optional*):
                What an earlier call returned. It holds the text so far and the last image.
            inputs_embeds (`torch.FloatTensor` of shape `(B, T, D)`, *optional*):
                Embeddings instead of `input_ids`. `<image>` is recognised by its embedding.
            position_ids (`torch.LongTensor` of shape `(B, T)`, *optional*):
                Positions in the text. Where they start again, without `attention_mask` and cache, another document
                begins, which sees neither text nor images of the one before it; each padding token has position 0.
                `training.check_packing` tells whether the language model keeps documents apart.
            mm_encoder_outputs (`dict`, *optional*):
                `{"image": ...}` instead of `pixel_values`: what [`~FlamingoModel.get_image_features`] returned, or a
                dict with `pooler_output`, the latents `(B, N, L, Dv)`, or with `last_hidden_state`, the features of
                an encoder of your own, `(B, N, P, Dv)` or `(B, N, F, P, Dv)`.
            use_cache (`bool`, *optional*): Whether to return a cache.
            logits_to_keep (`int` or `torch.Tensor`, *optional*, defaults to 0):
                Compute logits only at the last so many positions (0: at all), or at the positions in a tensor.
            media_index (`torch.LongTensor` of shape `(B, T)`, *optional*):
                The image of this call that each token sees, from 1; 0: the one in the cache, or none. A later token sees
                the image of the last token; `generate()` takes it for the prompt. Without it, it is derived from the
                `<image>` tokens and the documents in `position_ids`, and the number of `<image>` tokens is checked
                against the number of images.
            skip_logits (`bool`, *optional*):
                Whether to return the loss without logits. By default so in training mode if there are `labels`
                (and no `logits_to_keep`).

        Returns:
            [`FlamingoOutput`]

        Raises:
            ValueError: the number of markers differs from the number of images, `media_index` names an image that is
                not there, a shape is wrong, or packed documents are to be cached.
        """
        if skip_logits and labels is None:
            raise ValueError(
                "`skip_logits=True` leaves the loss alone, but there are no `labels` to compute it from. Pass `labels`, or "
                "leave `skip_logits` out."
            )
        keeps_all = isinstance(logits_to_keep, int) and logits_to_keep == 0
        if skip_logits and not keeps_all:
            raise ValueError(
                f"`skip_logits=True` and `logits_to_keep={logits_to_keep}` contradict each other: leave one of them out."
            )
        if skip_logits is None:
            # A graph of static shapes cannot pick positions.
            skip_logits = self.training and labels is not None and keeps_all and not torch.compiler.is_compiling()
        run = functools.partial(
            self._run,
            input_ids=input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            frame_attention_mask=frame_attention_mask,
            cache=cache,
            inputs_embeds=inputs_embeds,
            position_ids=position_ids,
            mm_encoder_outputs=mm_encoder_outputs,
            use_cache=use_cache,
            media_index=media_index,
            **kwargs,
        )
        loss = logits = None
        if labels is not None:
            check_tensors(labels=labels)
            # With fewer logits the labels are those of the kept ones.
            shape = (inputs_embeds if input_ids is None else input_ids).shape[:2] if keeps_all else labels.shape
            for name in ("labels", "shift_labels"):
                given = labels if name == "labels" else kwargs.get(name)
                if given is not None:
                    check_labels(
                        given, shape, self.config.text_config.vocab_size, kwargs.get("ignore_index", -100), name
                    )
        if skip_logits:
            loss, outputs, image_features = self._loss_alone(run, labels, **kwargs)
        else:
            outputs, image_features = run(self.language_model, logits_to_keep=logits_to_keep)
            logits = outputs.logits
            if labels is not None:
                loss = self.loss_function(logits, labels, vocab_size=self.config.text_config.vocab_size, **kwargs)
        if self.training and image_features is None and torch.is_grad_enabled():
            loss, logits = self._with_zero_gradients(loss, logits)
        return FlamingoOutput(
            loss=loss,
            logits=logits,
            cache=outputs.cache,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=None if image_features is None else image_features.pooler_output,
        )

    def _with_zero_gradients(
        self, loss: torch.Tensor | None, logits: torch.Tensor | None
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Let what images alone would use have gradients of 0: see [`WithZeroGradients`]."""
        unused = [*self.resampler.parameters(), *([] if self.vision_model is None else self.vision_model.parameters())]
        for name, parameter in self.gated_cross_attention.named_parameters():
            # The feed-forwards are used: in reentrant checkpointing they would have two gradients
            if ".mlp." not in name and not name.endswith("ffn_gate"):
                unused.append(parameter)
        # Sharded parameters are not part of a graph outside their modules
        unused = [p for p in unused if p.requires_grad and type(p.data) is torch.Tensor]
        if not unused:
            return loss, logits
        if loss is None:
            return None, WithZeroGradients.apply(logits, *unused)
        return WithZeroGradients.apply(loss, *unused), logits

    def _loss_alone(
        self,
        run: Callable,
        labels: torch.LongTensor,
        shift_labels: torch.LongTensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        ignore_index: int = -100,
        **kwargs,
    ) -> tuple[torch.Tensor, ModelOutput, FlamingoImageFeatures | None]:
        """
        The loss, with logits made where something is to be predicted and nowhere else: the head is a large part of the
        cost, and logits of a whole batch a large part of the memory.
        """
        if shift_labels is None:
            shift_labels = nn.functional.pad(labels[..., 1:], (0, 1), value=ignore_index)
        supervised = shift_labels != ignore_index  # (B, T)
        targets = shift_labels[supervised]  # (M,)
        vocab_size = self.config.text_config.vocab_size
        compute_loss = functools.partial(
            self.loss_function, labels=None, vocab_size=vocab_size, ignore_index=ignore_index, **kwargs
        )
        head = _head_of(self.language_model)
        # A loss of one's own may not be a sum over tokens.
        if head is None or self.loss_function is not ForCausalLMLoss:
            outputs, image_features = run(self.language_model, logits_to_keep=supervised)
            loss = compute_loss(outputs.logits, shift_labels=targets, num_items_in_batch=num_items_in_batch)
            return loss, outputs, image_features

        outputs, image_features = run(self.language_model.base_model)

        def summed_loss(hidden_states: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return compute_loss(head(hidden_states, outputs), shift_labels=targets, num_items_in_batch=1)

        output_rows = self.input_token_rows if self.output_token_rows is None else self.output_token_rows
        parameters = [*head.parameters(), *([] if output_rows is None else output_rows.parameters())]
        parameters = [parameter for parameter in parameters if parameter.requires_grad]
        hidden_states = outputs.last_hidden_state
        hidden_states = hidden_states[supervised.to(hidden_states.device)]  # (B, T, D) -> (M, D)
        loss = ChunkedLoss.apply(
            summed_loss,
            LOSS_CHUNK_SIZE,
            torch.is_grad_enabled() and (hidden_states.requires_grad or len(parameters) > 0),
            hidden_states,
            targets.to(hidden_states.device),
            *parameters,
        )
        # The mean of no target is NaN, as in the stock loss, but its gradient is 0.
        loss = loss / (torch.tensor(len(targets)) if num_items_in_batch is None else num_items_in_batch)
        return loss, outputs, image_features

    def _run(
        self,
        language_model: nn.Module,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        frame_attention_mask: torch.Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        use_cache: bool | None = None,
        media_index: torch.LongTensor | None = None,
        **kwargs,
    ) -> tuple[ModelOutput, FlamingoImageFeatures | None]:
        """Run the language model, or its body without the head, on text and images; arguments as in `forward`."""
        check_tensors(attention_mask=attention_mask, position_ids=position_ids, media_index=media_index)
        shape = check_text(input_ids, inputs_embeds, self.config.text_config.vocab_size)
        # Not at each step of a generation, whose mask was checked with the prompt, where it would launch kernels
        if shape[1] > 1 or (isinstance(attention_mask, torch.Tensor) and attention_mask.device.type == "cpu"):
            check_mask("attention_mask", attention_mask, (2, 4))
        if not torch.compiler.is_compiling():
            num_past_tokens = 0 if cache is None else cache.get_seq_length()
            if isinstance(num_past_tokens, int):  # of a static cache it is on the device, and `generate()` has checked
                if is_padding_mask(attention_mask):
                    check_mask_shape(attention_mask.shape, shape, num_past_tokens)
                    if self._counts_padding and num_past_tokens == 0:
                        check_padding_side(attention_mask, type(self.language_model).__name__)
                check_text_length(self.max_text_length, shape, num_past_tokens, attention_mask, position_ids)
            self._share_token_rows()

        self._check_encoder_outputs(mm_encoder_outputs)
        image_features = (mm_encoder_outputs or {}).get("image")
        if image_features is not None:
            if pixel_values is not None:
                raise ValueError("Pass `pixel_values` or `mm_encoder_outputs['image']`, not both: they say the same.")
            image_features = self._as_image_features(image_features, frame_attention_mask)
        elif pixel_values is not None:
            image_features = self.get_image_features(pixel_values, frame_attention_mask, return_dict=True)
        if image_features is not None:
            image_features = self._real_images_first(image_features, image_features.image_attention_mask)

        documents = None
        if attention_mask is None and cache is None:
            documents = self._find_documents(position_ids, shape, use_cache)
        if media_index is None:
            markers = self._find_markers(input_ids, inputs_embeds, attention_mask)
            self._check_image_counts(markers, image_features)
            media_index = compute_media_index(markers, documents)
        elif image_features is not None or cache is None:  # no waiting for the GPU at each new token
            self._check_media_index(media_index, shape, image_features)

        if use_cache is None:
            use_cache = (
                documents is None and self.config.use_cache and getattr(self.config.text_config, "use_cache", True)
            )
        if self.training and self.is_activation_checkpointing:
            use_cache = False
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config.text_config)

        context = self._build_context(image_features, media_index, attention_mask, cache)
        if self._takes_position_ids:
            kwargs["position_ids"] = self._infer_position_ids(position_ids, attention_mask, media_index.shape[1])
        if documents is not None and self._has_full_attention:
            # Several language models (OPT, MPT, Falcon) would make their mask without a look at the positions
            like = self.get_input_embeddings().weight.new_empty(*shape, 0, dtype=self.dtype)
            attention_mask = create_causal_mask(
                self.language_model.config, like, attention_mask=None, cache=None, position_ids=position_ids
            )
        keywords = {_CONTEXT_KEYWORD: context} if self._takes_keywords else {}
        with _current(context):
            outputs = language_model(
                input_ids=input_ids,
                inputs_embeds=inputs_embeds,
                attention_mask=attention_mask,
                cache=cache,
                use_cache=use_cache,
                return_dict=True,
                **keywords,
                **kwargs,
            )
        if not context.applied:
            raise RuntimeError(
                f"{type(self.language_model).__name__} did not pass the images down to its decoder layers, so it would "
                "silently ignore them. If this model is compiled, do not compile it: this language model drops "
                "keywords. If its decoder or layers were replaced, use `set_decoder`."
            )
        return outputs, image_features

    def _build_context(
        self,
        image_features: FlamingoImageFeatures | None,
        media_index: torch.LongTensor,
        attention_mask: torch.Tensor | None,
        cache: Cache | None,
    ) -> FlamingoContext:
        """Sort out, once for all gated blocks, which token sees which image."""
        layer_indices = self.config.cross_attention_layer_indices
        cache_layers = []
        if cache is not None:
            cache_layers = _prepare_media_cache(cache, self.config.text_config.num_hidden_layers, len(layer_indices))
        context = FlamingoContext(
            blocks=dict(zip(layer_indices, self.gated_cross_attention, strict=True)),
            latents=None,
            layout=None,
            cache_layers=dict(zip(layer_indices, cache_layers, strict=False)),
        )
        if image_features is None:
            return context

        latents = image_features.pooler_output.to(self.gated_cross_attention[0].norm.weight.dtype)
        media_index = media_index.to(latents.device)
        if is_padding_mask(attention_mask):
            is_text = attention_mask[:, -media_index.shape[1] :].bool().to(latents.device)
            media_index = media_index.masked_fill(~is_text, -1)
        if torch.compiler.is_compiling():
            context.latents = latents
            context.layout = _build_mask_layout(media_index, latents, latents.dtype)
            # Where the last marker stands is not known without leaving the graph: let no crop pass it.
            last_position = None if cache is None else cache.get_seq_length() + media_index.shape[1] - 1
        else:
            is_cached = bool(cache_layers) and cache_layers[0].is_initialized
            num_past_tokens = int(cache.get_seq_length()) if cache is not None else 0
            context.layout, seen = _build_segment_layout(media_index, is_cached, num_past_tokens)
            if context.layout is None:
                return context
            num_media = int(media_index.max())
            context.latents = latents[:, :num_media].flatten(0, 1)[seen]  # (B, N, L, Dv) -> (S, L, Dv)
            last_position = context.layout.last_media_position
        for cache_layer in cache_layers:
            cache_layer.last_media_position = last_position
        return context

    @staticmethod
    def _infer_position_ids(
        position_ids: torch.LongTensor | None, attention_mask: torch.Tensor | None, length: int
    ) -> torch.LongTensor | None:
        """
        Positions `(B, T)` that do not count padding on the left, as `generate()` has them.

        Several language models count from the left edge whatever the mask says, so that a sample would give other
        logits in a padded batch than alone. Rows without padding on the left keep the language model's positions.
        """
        if position_ids is not None or not is_padding_mask(attention_mask):
            return position_ids
        real = attention_mask.long()
        counted = (real.cumsum(dim=1) - 1).masked_fill(real == 0, 0)
        plain = torch.arange(real.shape[1], device=real.device).expand_as(real)
        return torch.where(real[:, :1] == 0, counted, plain)[:, -length:]

    # Generation.

    def _maybe_prepare_encoder_kwargs_for_generation(
        self,
        inputs_tensor: torch.Tensor,
        model_kwargs: dict[str, Any],
        model_input_name: str | None,
        generation_config,
    ) -> dict[str, Any]:
        """Check the prompt, and encode each image once for the whole of `generate()`."""
        markers, num_cached_tokens = self._check_prompt(
            inputs_tensor, model_kwargs, model_input_name, generation_config
        )
        frame_attention_mask = model_kwargs.get("frame_attention_mask")
        if model_kwargs.get("pixel_values") is None:
            model_kwargs.pop("pixel_values", None)  # the stock method takes its presence for images
        self._check_encoder_outputs(model_kwargs.get("mm_encoder_outputs"))
        # A copy: the stock method writes into the caller's dict.
        model_kwargs["mm_encoder_outputs"] = dict(model_kwargs.get("mm_encoder_outputs") or {})
        model_kwargs = super()._maybe_prepare_encoder_kwargs_for_generation(
            inputs_tensor, model_kwargs, model_input_name, generation_config
        )
        image_features = model_kwargs["mm_encoder_outputs"].get("image")
        if image_features is not None:
            if generation_config.prefill_chunk_size is not None:
                raise ValueError(
                    "`prefill_chunk_size` is not supported together with images: generate() would cut the images at "
                    "the same places as the text. Remove it."
                )
            image_features = self._as_image_features(image_features, frame_attention_mask)

        if num_cached_tokens > 0:
            image_features = self._drop_cached_images(image_features, markers, num_cached_tokens)
            markers = markers[:, num_cached_tokens:]
        if model_kwargs.get("media_index") is None:
            self._check_image_counts(markers, image_features)
        else:
            self._check_media_index(model_kwargs["media_index"], markers.shape, image_features)
        model_kwargs["mm_encoder_outputs"] = {} if image_features is None else {"image": image_features}
        return model_kwargs

    def _check_prompt(
        self,
        inputs_tensor: torch.Tensor,
        model_kwargs: dict[str, Any],
        model_input_name: str | None,
        generation_config: GenerationConfig,
    ) -> tuple[torch.BoolTensor, int]:
        """
        Check the text of a prompt, and limit what is generated to the positions of the language model.

        Returns:
            Where the `<image>` tokens are `(B, T)`, and how many tokens at the start of the prompt the cache holds.
        """
        input_ids, inputs_embeds = inputs_tensor, None
        if model_input_name == "inputs_embeds":
            input_ids, inputs_embeds = None, inputs_tensor
        shape = check_text(input_ids, inputs_embeds, self.config.text_config.vocab_size)
        cache, attention_mask = model_kwargs.get("cache"), model_kwargs.get("attention_mask")
        num_past_tokens = 0 if cache is None else int(cache.get_seq_length())
        if num_past_tokens > 0 and model_kwargs.get("media_index") is not None:
            raise ValueError(
                "`media_index` counts the images of one call, so it cannot be combined with a `cache` that holds text. Pass "
                "the whole prompt without a cache, or call `forward`."
            )
        # The text may be the whole conversation or only what is new, told apart by the mask, as `_prefill` does. A mask of
        # ones was dropped.
        mask_length = generation_config._mask_length if attention_mask is None else attention_mask.shape[1]
        is_whole = num_past_tokens > 0 and (inputs_embeds is not None or mask_length == shape[1])
        length = shape[1] if is_whole else num_past_tokens + shape[1]
        if is_whole and length <= num_past_tokens:
            raise ValueError(
                f"The cache holds {num_past_tokens} tokens and the text has {length}, so nothing in it is new. Pass the whole "
                "conversation, or the new text alone with an `attention_mask` that covers both."
            )
        if attention_mask is None or is_padding_mask(attention_mask):
            check_mask_shape((shape[0], mask_length), shape, length - shape[1])
        check_text_length(self.max_text_length, (shape[0], length), 0, attention_mask)
        self._limit_new_tokens(generation_config, length, attention_mask)
        return self._find_markers(input_ids, inputs_embeds, attention_mask), num_past_tokens if is_whole else 0

    def _limit_new_tokens(
        self, generation_config: GenerationConfig, length: int, attention_mask: torch.Tensor | None
    ) -> None:
        """Stop `generate()` where the positions of the language model end, after a text of `length` tokens."""
        if self.max_text_length is None:
            return
        max_length = generation_config.max_length
        # The library's default, 20, is a number of new tokens.
        has_default = generation_config.max_new_tokens is None and max_length in (None, 20)
        new_tokens = 20 if has_default else generation_config.max_new_tokens
        new_tokens = max_length - length if new_tokens is None else new_tokens
        # The last token is not fed to the model, so it needs no position.
        if length + new_tokens - 1 <= self.max_text_length:
            return
        if is_padding_mask(attention_mask):
            length = int(attention_mask.sum(dim=1).max())
        room = self.max_text_length - length + 1
        if new_tokens > room:
            logger.warning(
                f"The text has {length} tokens and {new_tokens} more were asked for, but the language model has positions "
                f"for {self.max_text_length}: at most {room} are generated."
            )
            generation_config.max_new_tokens, generation_config.max_length = room, None

    @staticmethod
    def _drop_cached_images(
        image_features: FlamingoImageFeatures | None, markers: torch.BoolTensor, num_past_tokens: int
    ) -> FlamingoImageFeatures | None:
        """Given the whole conversation with all its images, leave those whose markers the cache holds already."""
        if image_features is None:
            return None
        is_image = image_features.image_attention_mask.to(markers.device)
        if len(is_image) != len(markers) or not torch.equal(is_image.sum(dim=1), markers.sum(dim=1)):
            return image_features
        num_cached = markers[:, :num_past_tokens].sum(dim=1, keepdim=True)
        is_new = is_image & (is_image.cumsum(dim=1) > num_cached)
        if not is_new.any():
            return None
        return FlamingoModel._real_images_first(image_features, is_new.to(image_features.pooler_output.device))

    def _prefill(
        self,
        input_ids: torch.LongTensor,
        generation_config,
        model_kwargs: dict[str, Any],
        is_first_iteration: bool = True,
    ) -> ModelOutput:
        """
        As the stock method, but beams and several sequences of one prompt are one prompt: it is computed once, and the cache
        is repeated. The images of the prompt so have one place in the cache for all its beams.
        """
        repeats = max(generation_config.num_beams, generation_config.num_return_sequences)
        cache = model_kwargs.get("cache")
        position_ids = model_kwargs.get("position_ids")
        if (
            repeats == 1
            or not is_first_iteration
            or type(cache) is not DynamicCache
            or cache.get_seq_length() > 0
            or not all(type(layer) in (DynamicLayer, DynamicSlidingWindowLayer) for layer in cache.layers)
            or generation_config.prefill_chunk_size is not None
            or (position_ids is not None and position_ids.ndim != 2)
        ):
            return super()._prefill(input_ids, generation_config, model_kwargs, is_first_iteration)
        once = {
            name: value[::repeats] if isinstance(value, torch.Tensor) and len(value) == len(input_ids) else value
            for name, value in model_kwargs.items()
        }
        once["mm_encoder_outputs"] = {
            name: features.of_rows(lambda states: states[::repeats])
            for name, features in model_kwargs["mm_encoder_outputs"].items()
        }
        outputs = super()._prefill(input_ids[::repeats], generation_config, once, is_first_iteration)
        cache.batch_repeat_interleave(repeats)
        for name, value in outputs.items():
            if isinstance(value, torch.Tensor):
                outputs[name] = value.repeat_interleave(repeats, dim=0)
            elif isinstance(value, tuple):
                outputs[name] = tuple(states.repeat_interleave(repeats, dim=0) for states in value)
        return outputs

    def _expand_multimodal_outputs(
        self,
        input_ids: torch.LongTensor,
        mm_encoder_output: dict,
        expand_size: int = 1,
        inputs_embeds: torch.FloatTensor | None = None,
    ) -> dict[str, FlamingoImageFeatures]:
        """Latents for each beam. The stock method takes one placeholder token for one row of features."""
        return {
            name: features.of_rows(lambda states: states.repeat_interleave(expand_size, dim=0))
            for name, features in mm_encoder_output.items()
        }

    @deprecate_kwarg("past_key_values", "5.40.0", new_name="cache")
    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        next_sequence_length: int | None = None,
        cache: Cache | None = None,
        attention_mask: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        is_first_iteration: bool | None = False,
        media_index: torch.LongTensor | None = None,
        **kwargs,
    ) -> dict[str, Any]:
        model_inputs = super().prepare_inputs_for_generation(
            input_ids,
            next_sequence_length=next_sequence_length,
            cache=cache,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        # The prompt is checked before the first step. From then on a marker may be a candidate of assisted decoding
        # that will be rejected, or one that was asked for: without an image of its own it keeps the one before it.
        new_ids, new_embeds = model_inputs.get("input_ids"), model_inputs.get("inputs_embeds")
        markers = self._find_markers(new_ids, new_embeds, attention_mask)
        image_features = (model_inputs.get("mm_encoder_outputs") or {}).get("image")
        if image_features is None:
            media_index = torch.zeros_like(markers, dtype=torch.long)
        elif media_index is None:
            num_images = image_features.image_attention_mask.sum(dim=1, keepdim=True).to(markers.device)
            media_index = compute_media_index(markers).minimum(num_images)
        else:
            # Generated tokens see what the last token of the prompt sees.
            num_new_tokens = max(markers.shape[1] - media_index.shape[1], 0)
            media_index = torch.cat([media_index, media_index[:, -1:].expand(-1, num_new_tokens)], dim=1)
        model_inputs["media_index"] = media_index
        return model_inputs

    # Making one from two backbones.

    @classmethod
    def from_vision_text_pretrained(
        cls,
        vision_model_name_or_path: str | None,
        text_model_name_or_path: str,
        **kwargs,
    ) -> "FlamingoModel":
        """
        Join two pretrained backbones. Resampler and gated blocks are new and must be trained; until then the model
        is exactly the language model.

        The embeddings of the language model are resized to hold `<|endofchunk|>` and `<image>`, and the `<PAD>` that
        [`FlamingoProcessor`] adds to a tokenizer without one. New rows are drawn around the mean of the old ones (the
        default of `resize_token_embeddings`).

        Args:
            vision_model_name_or_path (`str`, *optional*):
                Name or directory of the vision encoder; a two-tower model gives its vision tower. `None` for a model
                without one, which needs `vision_hidden_size`.
            text_model_name_or_path (`str`): Name or directory of the causal language model.
            kwargs:
                `vision_*` and `text_*` go to the `from_pretrained` of that backbone without their prefix, such as
                `text_quantization_config`; `dtype` is the dtype of the whole model (default: the language model's);
                the rest are fields of
                [`FlamingoConfig`]. `image_token_id` and `end_of_chunk_token_id` are, if not given, those that
                [`FlamingoProcessor`] adds to the tokenizer at `text_model_name_or_path`; without a tokenizer there,
                they come after the last row of the embeddings.

        Returns:
            [`FlamingoModel`] in evaluation mode. Nothing is frozen: see [`~FlamingoModel.freeze_backbones`].

        Raises:
            ValueError: a backbone does not fit.
        """
        config_fields = {f.name for f in fields(FlamingoConfig)}
        dtype = kwargs.pop("dtype", kwargs.pop("torch_dtype", None))
        backbone_kwargs = {"vision_": {}, "text_": {}}
        for key in list(kwargs):
            for prefix, target in backbone_kwargs.items():
                if key.startswith(prefix) and key not in config_fields:
                    target[key.removeprefix(prefix)] = kwargs.pop(key)
        for target in backbone_kwargs.values():
            if dtype is not None:
                target.setdefault("dtype", dtype)

        vision_model, vision_config = None, None
        if vision_model_name_or_path is not None:
            vision_config = AutoConfig.from_pretrained(vision_model_name_or_path)
            vision_config = getattr(vision_config, "vision_config", vision_config)
            vision_model = _load_backbone(
                AutoModel, vision_model_name_or_path, {"config": vision_config, **backbone_kwargs["vision_"]}
            )
            vision_config = vision_model.config

        language_model = _load_backbone(AutoModelForCausalLM, text_model_name_or_path, backbone_kwargs["text_"])
        text_config = language_model.config.get_text_config()
        kwargs = {**_special_token_ids(text_model_name_or_path, text_config.vocab_size, kwargs), **kwargs}
        ids = [kwargs.get(name) for name in ("image_token_id", "end_of_chunk_token_id", "pad_token_id")]
        num_rows = 1 + max(token_id or 0 for token_id in ids)
        if num_rows > language_model.get_input_embeddings().weight.shape[0]:
            language_model.resize_token_embeddings(num_rows)

        config = FlamingoConfig.from_vision_text_configs(vision_config, text_config, **kwargs)
        model = cls(config, vision_model=vision_model, language_model=language_model)
        for part in model.children():
            if part is not language_model:
                part.to(language_model.device, language_model.dtype)
        if getattr(language_model, "hf_quantizer", None) is not None:
            model._take_over_quantization()
        return model.eval()

    def _take_over_quantization(self) -> None:
        """What says that the language model is quantised, where saving, loading, Trainer and peft look for it."""
        quantizer, text_config = self.language_model.hf_quantizer, self.config.text_config
        quantizer.quantization_config = _quantize_only_the_decoder(quantizer.quantization_config)
        self.config.quantization_config = quantizer.quantization_config
        del text_config.quantization_config
        for name in ("hf_quantizer", "is_quantized", "quantization_method", "is_loaded_in_8bit", "is_loaded_in_4bit"):
            if hasattr(self.language_model, name):
                setattr(self, name, getattr(self.language_model, name))


def _check_sees_whole_images(vision_model: PreTrainedModel | None) -> None:
    mask_ratio = getattr(getattr(vision_model, "config", None), "mask_ratio", None)
    # Hiera has the ratio in its configuration always, and hides nothing unless it is pretrained
    if mask_ratio and all(getattr(module, "is_mae", True) for module in vision_model.modules()):
        raise ValueError(
            f"The vision encoder is a {vision_model.config.model_type} with `mask_ratio={mask_ratio}`: it hides that share "
            "of each image at random and shuffles the rest, so the same image would never give the same features. Use the "
            "encoder without masking that has the same weights, such as `ViTModel.from_pretrained` for a ViT-MAE checkpoint."
        )


# What a quantization config must name so that it leaves all but the decoder of the language model as it is. Quantizers take
# names from the start, ends of names, and regular expressions, and compare them with modules or with their weights. What
# stands directly in the language model, beside its decoder, is the head; those of BERT and its relatives are deeper.
_UNQUANTIZED_MODULES = [
    "vision_model",
    "resampler",
    "gated_cross_attention",
    r"language_model\.[^.]+(\.weight|\.bias)?$",
    r"language_model\.(lm_head|cls|generator_predictions)",
]
# Names of that list in the quantization configs that have one.
_SKIP_LISTS = ("llm_int8_skip_modules", "modules_to_not_convert")


def _quantize_only_the_decoder(quantization_config: QuantizationConfigMixin | dict) -> QuantizationConfigMixin:
    """
    Return a copy that skips all but the decoder of the language model.

    Names that it has already are those of a language model alone, as users know them, or of the whole model.
    """
    if isinstance(quantization_config, dict):
        quantization_config = AutoQuantizationConfig.from_dict(quantization_config)
    quantization_config = copy.deepcopy(quantization_config)
    for name in _SKIP_LISTS:
        if hasattr(quantization_config, name):
            given = getattr(quantization_config, name) or []
            inside = [f"language_model.{key}" for key in given if not key.startswith("language_model")]
            names = [*_UNQUANTIZED_MODULES, *given, *inside]
            setattr(quantization_config, name, list(dict.fromkeys(names)))
    return quantization_config


def _load_backbone(auto_class: type, name_or_path: str | os.PathLike, kwargs: dict[str, Any]) -> PreTrainedModel:
    """Load a backbone. `from_pretrained` leaves weights that the file lacks at random, and they would be frozen so."""
    model, info = auto_class.from_pretrained(name_or_path, **kwargs, output_loading_info=True)
    # A checkpoint of a classifier has no pooler. None is used here.
    if missing := sorted(key for key in info["missing_keys"] if "pooler" not in key.split(".")):
        raise ValueError(
            f"{str(name_or_path)!r} lacks {len(missing)} weights of its model, such as {missing[0]}. They would be random. Use the "
            "config.json that was saved with these weights, or fetch the model again."
        )
    return model


def _special_token_ids(text_model_name_or_path: str, vocab_size: int, given: dict[str, Any]) -> dict[str, int]:
    """
    The ids that the processor gives to `<|endofchunk|>`, `<image>` and, where there is none, `<PAD>`: those of the
    tokenizer if it has them, else the next free ones. The model needs a row for each. Nothing for those in `given`.
    """
    try:
        tokenizer = load_tokenizer(text_model_name_or_path)
        vocabulary, free = tokenizer.get_vocab(), len(tokenizer)
        needs_pad = "pad_token" not in tokenizer.special_tokens_map
    except (OSError, ValueError):
        vocabulary, free, needs_pad = {}, 0, False
    has_ids = "image_token_id" in given or "end_of_chunk_token_id" in given
    # Where there are no tokenizer files, some tokenizer classes start with an empty vocabulary instead of failing.
    if 2 * free < vocab_size:
        vocabulary, free, needs_pad = {}, vocab_size, False
        if not has_ids:
            logger.warning(
                f"No tokenizer was found at {text_model_name_or_path}, so `<|endofchunk|>` and `<image>` get the ids "
                f"{free} and {free + 1}, after all rows of the language model. If your tokenizer has other ids for "
                "them, pass `image_token_id` and `end_of_chunk_token_id`."
            )
    ids = {}
    # The order in which FlamingoProcessor adds them.
    for name, token in (("end_of_chunk_token_id", "<|endofchunk|>"), ("image_token_id", "<image>")):
        ids[name] = given.get(name) if has_ids else vocabulary.get(token, free)
        free = max(free, 1 + (ids[name] or 0))
    if needs_pad:
        ids["pad_token_id"] = free
    return ids


FlamingoModel.register_for_auto_class("AutoModelForImageTextToText")

__all__ = ["FlamingoModel"]
