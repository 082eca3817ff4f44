# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
The layers of Flamingo: attention, the Perceiver resampler, and the gated cross-attention block.

These are the equations of section 2 of the paper (Alayrac et al. 2022). The resampler turns the features of each image
or video into `L` latents:

    latents += attention(LN(latents), concat(LN(features), LN(latents)))
    latents += ffn(latents)                                                  # for each layer, then a last LN

Before some decoder layers of the language model, a gated block lets each token attend to the latents of the one image
that it sees:

    x += tanh(attn_gate) * attention(LN(x), latents)
    x += tanh(ffn_gate) * ffn(x)

Shapes: `B` batch, `N` images or videos per sample, `M` images or videos of the batch, `F` frames, `P` patches, `L` latents,
`T` text length, `D` text width, `Dv` vision width, `S` images of this call that some token sees, `K` keys.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from .configuration_flamingo import FlamingoConfig
from .feature_standardization_flamingo import FlamingoFeatureStandardization
from .media_cache_flamingo import MediaCacheLayer
from .visibility_flamingo import MaskLayout, SegmentLayout


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
    """
    Compute attention in plain operations, as each model of transformers does for `attn_implementation="eager"`.

    Args:
        module (`nn.Module`): The attention, asked whether it is in training mode.
        query (`torch.Tensor` of shape `(B, heads, T, head_dim)`): The queries.
        key, value (`torch.Tensor` of shape `(B, heads, K, head_dim)`): The keys and values.
        attention_mask (`torch.Tensor`, *optional*): Additive, and broadcast to `(B, heads, T, K)`.
        scaling (`float`): Factor of the scores.
        dropout (`float`, *optional*, defaults to 0): Probability that a weight is dropped in training.

    Returns:
        The outputs `(B, T, heads, head_dim)` and the weights `(B, heads, T, K)`.
    """
    weights = torch.matmul(query, key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        weights = weights + attention_mask
    weights = nn.functional.softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, p=dropout, training=module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class FlamingoAttention(nn.Module):
    """
    Multi-head attention of one sequence to another, without biases, as in OpenFlamingo and flamingo-mini.

    Args:
        config ([`FlamingoConfig`]): Names the attention implementation.
        query_size, context_size (`int`): Widths of the sequence that attends and of the one that is attended to.
        num_heads, head_dim (`int`): Number of heads, and the width of each.
    """

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
        """Split states into heads: `(B, T, heads * head_dim)` -> `(B, heads, T, head_dim)`."""
        return states.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

    def project_context(self, context: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Project `context` `(B, K, context_size)` to keys and values, each `(B, heads, K, head_dim)`."""
        return self.split_heads(self.k_proj(context)), self.split_heads(self.v_proj(context))

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Attend with queries `(B, heads, T, head_dim)` to `(B, heads, K, head_dim)`: `(B, T, heads * head_dim)`."""
        attention_interface: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        output, _ = attention_interface(
            self, query, key, value, attention_mask, scaling=self.scaling, dropout=0.0, is_causal=False
        )
        return output.flatten(-2)

    def compute_weights(
        self, query: torch.Tensor, key: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """
        Compute the weights `(B, heads, T, K)` that `attend` gives the keys, whatever computes it: sdpa returns none.

        A key of zeros is not an image (see [`MediaCacheLayer`]), so its weight is 0.
        """
        weights = torch.matmul(query, key.transpose(2, 3)) * self.scaling
        if attention_mask is not None:
            weights = weights + attention_mask
        weights = nn.functional.softmax(weights, dim=-1, dtype=torch.float32).to(query.dtype)
        return weights * key.any(dim=3).any(dim=1)[:, None, None]


def scale_branch(hidden_states: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
    """
    Scale what goes into the last projection of a branch, or return it as it is without a `scale` `(1,)`.

    The projection is linear, so this scales the branch. The gradient of the gate needs what is scaled, and the input of the
    projection is at hand in backward. Its output is not, and would be kept for the gate alone.
    """
    return hidden_states if scale is None else scale * hidden_states


class FlamingoMLP(nn.Module):
    """Feed-forward network without biases, with its layer norm in front."""

    def __init__(self, hidden_size: int, intermediate_size: int, activation: str):
        super().__init__()
        self.norm = nn.LayerNorm(hidden_size)
        self.fc1 = nn.Linear(hidden_size, intermediate_size, bias=False)
        self.act = ACT2FN[activation]
        self.fc2 = nn.Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, hidden_states: torch.Tensor, scale: torch.Tensor | None = None) -> torch.Tensor:
        """Transform `(..., hidden_size)` to the same shape, times `scale`."""
        hidden_states = self.fc1(self.norm(hidden_states))
        if not (self.training and hidden_states.requires_grad):
            return self._project(hidden_states, scale)
        # Backward needs the widest tensor of a block before and after the activation. The latter is computed anew: it is cheap, and
        # the recomputation stops before the product.
        return checkpoint(self._project, hidden_states, scale, use_reentrant=False, preserve_rng_state=False)

    def _project(self, hidden_states: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
        return self.fc2(scale_branch(self.act(hidden_states), scale))


def _append(features: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """Append latents, `(M, L, width)` or `(1, L, width)` for all, to features `(M, F * P, width)`."""
    return torch.cat([features, latents.expand(features.shape[0], -1, -1)], dim=1)


class FlamingoResamplerLayer(GradientCheckpointingLayer):
    """
    A layer of the resampler: the latents attend to the features and to themselves, then pass a feed-forward network.

    In a resampler of type "transformer" there is one sequence, which attends to itself. In one of type "mlp" nothing
    attends, and the feed-forward network gets as many more weights as attention would have had.
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
        num_attentions: int = 0,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """
        Update latents `(M, L, Dv)` from features `(M, F * P, Dv)` under an additive mask `(M, 1, 1, F * P + L)`.

        Latents `(1, L, Dv)` are shared by all `M` images, and are projected once. With `num_attentions`, also return the attention
        weights of this many last latents `(M, heads, num_attentions, F * P + L)`.
        """
        weights = None
        if self.attention is not None:
            # A method of its own: what it holds is freed before the feed-forward network needs the most memory.
            latents, weights = self._attend(latents, features, attention_mask, num_attentions)
        latents = latents + self.mlp(latents)
        return latents if weights is None else (latents, weights)

    def _attend(
        self,
        latents: torch.Tensor,
        features: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
        num_attentions: int,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Let latents attend to features and latents. Return them `(M, L, Dv)`, and the weights, if asked for: see `forward`."""
        normed = self.norm_latents(latents)
        q_proj, k_proj, v_proj = self.attention.q_proj, self.attention.k_proj, self.attention.v_proj
        query, key, value = q_proj(normed), k_proj(normed), v_proj(normed)
        if features is not None:
            features = self.norm_features(features)
            key, value = _append(k_proj(features), key), _append(v_proj(features), value)
            # A copy, because not every kernel of attention takes a batch whose stride is 0
            query = query.expand(features.shape[0], -1, -1).contiguous()
        query, key, value = (self.attention.split_heads(states) for states in (query, key, value))
        weights = None
        if num_attentions > 0:
            weights = self.attention.compute_weights(query[:, :, -num_attentions:], key, attention_mask)
        return latents + self.attention.o_proj(self.attention.attend(query, key, value, attention_mask)), weights


class FlamingoPerceiverResampler(nn.Module):
    """
    Perceiver resampler: turns any number of visual features into `L` latents (paper, section 2.1 and figure 5).

    Keys and values come from the features and the latents together. A learned embedding is added to each frame; a
    video with more frames than embeddings gets them by linear interpolation, first to first and last to last (paper,
    appendix A.3.2: "30 frames at test time").

    The paper compares it with a Transformer and an MLP of as many weights (table 3, row vi), but does not say how these
    produce `L` outputs. `config.resampler_type` means:

    - `"perceiver"`: the latents attend, and the features do not change.
    - `"transformer"`: features and latents are one sequence that attends to itself, and the outputs at the latents
      are kept: the cost is quadratic in `F * P`.
    - `"mlp"`: each feature goes through residual feed-forward layers by itself. The frames are averaged, and the `P`
      tokens are average-pooled to `L` (`adaptive_avg_pool1d`; with `P < L`, tokens are repeated). There are no latents
      to learn.
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
        self.standardization = FlamingoFeatureStandardization(config)
        self.layers = nn.ModuleList(FlamingoResamplerLayer(config) for _ in range(config.resampler_num_layers))
        self.norm = nn.LayerNorm(size)

    def forward(
        self,
        features: torch.Tensor,
        frame_mask: torch.BoolTensor | None = None,
        output_attentions: bool = False,
    ) -> torch.Tensor | tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """
        Resample features to latents.

        Args:
            features (`torch.Tensor` of shape `(M, F, P, Dv)`): The features of `M` images or videos.
            frame_mask (`torch.BoolTensor` of shape `(M, F)`, *optional*): True at real frames. By default all are real.
            output_attentions (`bool`, *optional*, defaults to `False`): Whether to return where the latents looked, too.

        Returns:
            `torch.Tensor` of shape `(M, L, Dv)`; with `output_attentions` also a tuple of `(M, heads, L, F * P + L)`, one for
            each layer, which are the weights that the latents give the features and the latents. In a resampler of type "mlp",
            where nothing attends, it holds the weights of the pooling.
        """
        num_media, num_frames, num_patches, _ = features.shape
        features = self.standardization(features).to(self.norm.weight.dtype)
        if self.frame_embeddings is not None:
            features = features + self._frame_embeddings(num_media, num_frames, frame_mask)[:, :, None]
        features = features.flatten(1, 2)  # (M, F, P, Dv) -> (M, F * P, Dv)

        if self.resampler_type == "mlp":
            if self.training and not torch.compiler.is_compiling():
                # Reentrant checkpointing computes no gradient of weights unless some input requires one.
                features = features.requires_grad_()
            for layer in self.layers:
                features = layer(features)
            latents = self.norm(self._pool(features.unflatten(1, (num_frames, num_patches)), frame_mask))
            if not output_attentions:
                return latents
            # The pooling is linear, so its weights are what it makes of the unit vectors.
            units = torch.eye(num_frames * num_patches, dtype=features.dtype, device=features.device)
            units = units.unflatten(0, (num_frames, num_patches)).expand(num_media, -1, -1, -1)
            return latents, (nn.functional.pad(self._pool(units, frame_mask), (0, self.num_latents))[:, None],)

        attention_mask = None
        if frame_mask is not None:
            # (M, F) -> (M, 1, 1, F * P + L); the latents are always visible
            visible = frame_mask.repeat_interleave(num_patches, dim=1)
            visible = nn.functional.pad(visible, (0, self.num_latents), value=True)
            attention_mask = torch.zeros(visible.shape, dtype=features.dtype, device=features.device)
            attention_mask = attention_mask.masked_fill(~visible, torch.finfo(features.dtype).min)[:, None, None]

        # A copy instead of a view: without gradients a view would be a leaf that requires one, which torch's flop counter does not
        # support.
        latents = self.latents[None].clone()
        if self.resampler_type == "transformer":
            latents, features = _append(features, latents), None
        attentions = []
        for layer in self.layers:
            latents = layer(latents, features, attention_mask, self.num_latents if output_attentions else 0)
            if output_attentions:
                latents, weights = latents
                attentions.append(weights)
        latents = self.standardization.standardize_latents(self.norm(latents[:, -self.num_latents :]))
        return (latents, tuple(attentions)) if output_attentions else latents

    def _pool(self, features: torch.Tensor, frame_mask: torch.BoolTensor | None) -> torch.Tensor:
        """Average over the real frames, and over `L` parts of the tokens: `(M, F, P, Dv)` -> `(M, L, Dv)`."""
        if frame_mask is None:
            features = features.mean(dim=1)
        else:
            features = features.masked_fill(~frame_mask[:, :, None, None], 0).sum(dim=1)
            features = features / frame_mask.sum(dim=1).clamp(min=1)[:, None, None]
        return nn.functional.adaptive_avg_pool1d(features.transpose(1, 2), self.num_latents).transpose(1, 2)

    def _frame_embeddings(self, num_media: int, num_frames: int, frame_mask: torch.BoolTensor | None) -> torch.Tensor:
        """Interpolate frame embeddings `(M, F, Dv)` for each video by its own number of real frames."""
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


def add_branch(hidden_states: torch.Tensor, branch: torch.Tensor, scale: torch.Tensor | None) -> torch.Tensor:
    """Add a branch, times the `scale` `(1,)` of its gate if there is one, in one operation."""
    return hidden_states + branch if scale is None else torch.addcmul(hidden_states, scale, branch)


class FlamingoGatedCrossAttentionBlock(GradientCheckpointingLayer):
    """
    Tanh-gated cross-attention and feed-forward network, before a decoder layer (paper, section 2.2 and figure 4).

    `x += tanh(attn_gate) * attention(LN(x), latents)`, then `x += tanh(ffn_gate) * ffn(x)`. The gates, or the last
    projections of both branches (`config.cross_attention_zero_init`), start at 0, so the language model is unchanged at
    first. Without gates (`config.cross_attention_gating`) both branches are added in full. Without hidden units
    (`config.cross_attention_ffn_mult`) there is no feed-forward network.
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
            self.mlp.fc2.ends_branch = True
        # Asked by `FlamingoModel._init_weights`, which sees one module at a time
        self.attention.o_proj.ends_branch = True

    def forward(
        self,
        hidden_states: torch.Tensor,
        latents: torch.Tensor | None,
        layout: SegmentLayout | MaskLayout | None = None,
        cache: MediaCacheLayer | None = None,
        output_attentions: bool = False,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor | None]:
        """
        Add what the tokens see to the input of a decoder layer.

        Args:
            hidden_states (`torch.Tensor` of shape `(B, T, D)`): The input of the decoder layer.
            latents (`torch.Tensor`, *optional*):
                Latents of the images of this call: `(S, L, Dv)` with a `SegmentLayout`, `(B, N, L, Dv)` with a
                `MaskLayout`, `None` if there are none.
            layout (`SegmentLayout` or `MaskLayout`, *optional*): Which token sees which of them.
            cache (`MediaCacheLayer`, *optional*):
                Holds the last image before this call; the last image of this call is written to it. Gradient
                checkpointing drops the argument by this name.
            output_attentions (`bool`, *optional*, defaults to `False`): Whether to return where the tokens looked, too.

        Returns:
            `torch.Tensor` of shape `(B, T, D)`; with `output_attentions` also the weights `(B, heads, T, L)` that each token
            gives the latents of the image it sees, 0 if it sees none, or `None` without any image.
        """
        scales, none = self._find_scales(cache, is_step=hidden_states.shape[1] == 1), (None, None)
        # Training needs less memory if a branch is scaled before its last projection. In inference scaling is a part of the sum. The
        # mode decides, not whether gradients are recorded: a layer that is computed anew for backward must give the same numbers.
        inner, outer = (scales, none) if self.training else (none, scales)
        attended, weights = self._cross_attend(hidden_states, latents, layout, cache, output_attentions, inner[0])
        # Without any image the attention branch adds exactly 0, and the feed-forward branch still runs.
        if attended is not None:
            hidden_states = add_branch(hidden_states, attended, outer[0])
            del attended  # before the feed-forward network needs the most memory
        if self.mlp is not None:
            hidden_states = add_branch(hidden_states, self.mlp(hidden_states, inner[1]), outer[1])
        return (hidden_states, weights) if output_attentions else hidden_states

    def _find_scales(
        self, cache_layer: MediaCacheLayer | None, is_step: bool
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """
        Return `tanh` of both gates, each `None` if there is no gate.

        A step of a generation, of one token, takes those of the text before it from the cache. So it has as few operations as with
        the gates multiplied into `o_proj` and `fc2`, and the weights stay as they are.
        """
        # A gradient must reach the gates, and a compiled graph computes them where they are used.
        keeps = not (cache_layer is None or torch.is_grad_enabled() or torch.compiler.is_compiling())
        # The cache of an exported graph has none.
        scales = getattr(cache_layer, "scales", None) if keeps and is_step else None
        if scales is None:
            gates = (self.attn_gate, self.ffn_gate)
            scales = tuple(None if gate is None else gate.tanh() for gate in gates)
            if keeps:
                cache_layer.scales = scales
        return scales

    def _cross_attend(
        self,
        hidden_states: torch.Tensor,
        latents: torch.Tensor | None,
        layout: SegmentLayout | MaskLayout | None,
        cache_layer: MediaCacheLayer | None,
        output_attentions: bool,
        scale: torch.Tensor | None,
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """
        Attend to the images of this call and the one in the cache, times `scale`.

        Returns:
            `(B, T, D)`, or `None` without any image, and the weights `(B, heads, T, L)`, if asked for.
        """
        is_cached = cache_layer is not None and cache_layer.is_initialized
        if latents is None and not is_cached:
            return None, None

        query = self.attention.q_proj(self.norm(hidden_states))  # (B, T, heads * head_dim)
        if latents is None:
            # Beams of one prompt see one image, so they are one row with more tokens, and its keys are read once:
            # (B, T, ...) -> (B / repeats, repeats * T, ...)
            rows = query.view(-1, cache_layer.num_repeats * query.shape[1], query.shape[2])
            rows = self.attention.split_heads(rows)
            attended = self.attention.attend(rows, cache_layer.keys, cache_layer.values)
            attended = self.attention.o_proj(scale_branch(attended.view_as(query), scale))
            if not output_attentions:
                return attended, None
            weights = self.attention.compute_weights(rows, cache_layer.keys)
            # (B / repeats, heads, repeats * T, L) -> (B, heads, T, L)
            return attended, weights.unflatten(2, (cache_layer.num_repeats, -1)).transpose(1, 2).flatten(0, 1)

        latents, layout = latents.to(hidden_states.device), layout.to(hidden_states.device)
        past = cache_layer.expanded() if is_cached else None
        attend = self._attend_segments if isinstance(layout, SegmentLayout) else self._attend_masked
        attended, weights, last_key, last_value = attend(query, latents, layout, past, output_attentions)
        if cache_layer is not None:
            cache_layer.set_image(last_key, last_value)
        return self.attention.o_proj(scale_branch(attended, scale)), weights

    def _attend_segments(
        self,
        query: torch.Tensor,
        latents: torch.Tensor,
        layout: SegmentLayout,
        past: tuple | None,
        output_attentions: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor]:
        """Let each row of tokens attend to the one image it sees. Also return keys and values of the last images."""
        key, value = self.attention.project_context(latents)  # (S, heads, L, head_dim)
        if past is not None:
            key, value = torch.cat([past[0], key]), torch.cat([past[1], value])
        # Mask by multiplication so that samples without an image get zero keys and values.
        has_media = layout.has_media[:, None, None, None]
        last_key, last_value = key[layout.last_index] * has_media, value[layout.last_index] * has_media
        if layout.key_value_index is not None:
            key, value = key[layout.key_value_index], value[layout.key_value_index]

        # (B, T, ...) -> (R, c, ...) -> attention -> (R * c, ...) -> (B, T, ...); a token without an image gets the row of 0
        rows = query.flatten(0, 1)[layout.token_index].unflatten(0, (len(key), -1))
        rows = self.attention.split_heads(rows)
        attended = self.attention.attend(rows, key, value).flatten(0, 1)
        attended = torch.cat([attended, attended.new_zeros(1, attended.shape[-1])])
        weights = None
        if output_attentions:
            weights = self.attention.compute_weights(rows, key).transpose(1, 2).flatten(0, 1)  # (R * c, heads, L)
            weights = torch.cat([weights, weights.new_zeros(1, *weights.shape[1:])])[layout.slot_index]
            weights = weights.unflatten(0, query.shape[:2]).transpose(1, 2)
        return attended[layout.slot_index].view_as(query), weights, last_key, last_value

    def _attend_masked(
        self,
        query: torch.Tensor,
        latents: torch.Tensor,
        layout: MaskLayout,
        past: tuple | None,
        output_attentions: bool,
    ) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor, torch.Tensor]:
        """Let all tokens attend to all images under a mask. Also return keys and values of the last images."""
        batch_size, num_media, num_latents, _ = latents.shape
        key, value = self.attention.project_context(latents.flatten(1, 2))  # (B, heads, N * L, head_dim)
        if past is None:
            past_key = past_value = key.new_zeros(*key.shape[:2], num_latents, key.shape[-1])
        else:
            past_key, past_value = past
        key, value = torch.cat([past_key, key], dim=2), torch.cat([past_value, value], dim=2)

        query = self.attention.split_heads(query)
        attended = self.attention.attend(query, key, value, layout.attention_mask)
        weights = None
        if output_attentions:
            weights = self.attention.compute_weights(query, key, layout.attention_mask)
            weights = weights.unflatten(-1, (num_media + 1, num_latents)).sum(dim=-2)  # those of the image in view
        # (B, heads, (N + 1) * L, head_dim) -> (B, heads, N + 1, L, head_dim) -> the last image of each sample
        samples = torch.arange(batch_size, device=key.device)
        last_key, last_value = (
            states.unflatten(2, (num_media + 1, num_latents))[samples, :, layout.last_index] for states in (key, value)
        )
        return attended, weights, last_key, last_value
