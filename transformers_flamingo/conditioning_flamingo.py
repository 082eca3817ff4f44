# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Conditioning of a stock language model on images, without any state on its modules.

A forward pre-hook on each decoder layer applies the layer's gated block to the [`FlamingoContext`] of the call. The
context is an argument: the composite's `forward` passes it down through the language model as a keyword, or, where a
language model drops keywords, in a context variable. So two threads may call one model, and an exception leaves nothing
behind.
"""

import functools
import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from .checks_flamingo import is_padding_mask
from .language_models_flamingo import find_decoder_layers
from .media_cache_flamingo import MediaCacheLayer, prepare_media_cache
from .visibility_flamingo import MaskLayout, SegmentLayout, build_mask_layout, build_segment_layout


# The keyword under which a FlamingoContext reaches the decoder layers.
CONTEXT_KEYWORD = "flamingo_context"


@dataclass
class FlamingoContext:
    """Inputs of the gated blocks of one forward pass."""

    blocks: dict[int, nn.Module]  # decoder layer -> the block before it
    latents: torch.Tensor | None  # (S, L, Dv) with a SegmentLayout, (B, N, L, Dv) with a MaskLayout
    layout: SegmentLayout | MaskLayout | None
    cache_layers: dict[int, MediaCacheLayer]  # decoder layer -> the cache of its block; empty without a cache
    applied: list[int] = field(default_factory=list)  # the decoder layers whose hook has run
    # decoder layer -> where the tokens looked in the block before it, (B, heads, T, L); None: not asked for
    attentions: dict[int, torch.Tensor | None] | None = None


def build_context(
    blocks: dict[int, nn.Module],
    latents: torch.Tensor | None,
    media_index: torch.LongTensor,
    attention_mask: torch.Tensor | None,
    cache: Cache | None,
    num_text_layers: int,
) -> FlamingoContext:
    """
    Build what all gated blocks of a call share: which token sees which image, and the cache.

    Args:
        blocks (`dict[int, nn.Module]`): The gated blocks, by the decoder layer that each one precedes.
        latents (`torch.Tensor` of shape `(B, N, L, Dv)`, *optional*): Those of the images of this call.
        media_index (`torch.LongTensor` of shape `(B, T)`):
            The image of this call that each token sees, from 1, or 0. On the CPU, except in a compiled graph: the layout is built where
            it is.
        attention_mask (`torch.Tensor` of shape `(B, past + T)`, *optional*): 1 at text, 0 at padding. Likewise.
        cache (`Cache`, *optional*): The language model's cache, which gets one layer for each block.
        num_text_layers (`int`): Number of decoder layers.

    Returns:
        [`FlamingoContext`]
    """
    cache_layers = [] if cache is None else prepare_media_cache(cache, num_text_layers, len(blocks))
    context = FlamingoContext(
        blocks=blocks,
        latents=None,
        layout=None,
        cache_layers=dict(zip(blocks, cache_layers, strict=False)),
    )
    if latents is None:
        return context

    latents = latents.to(next(iter(blocks.values())).norm.weight.dtype)
    if is_padding_mask(attention_mask):
        is_text = attention_mask[:, -media_index.shape[1] :].bool().to(media_index.device)
        media_index = media_index.masked_fill(~is_text, -1)
    if torch.compiler.is_compiling():
        context.latents = latents
        context.layout = build_mask_layout(media_index.to(latents.device), latents, latents.dtype)
        # The position of the last marker is unknown without leaving the graph, so no crop may pass the whole text.
        last_position = None if cache is None else cache.get_seq_length() + media_index.shape[1] - 1
    else:
        is_cached = bool(cache_layers) and cache_layers[0].is_initialized
        num_past_tokens = int(cache.get_seq_length()) if cache is not None else 0
        context.layout, seen = build_segment_layout(media_index, is_cached, num_past_tokens)
        if context.layout is None:
            return context
        context.layout = context.layout.to(latents.device)
        context.latents = latents[:, : int(media_index.max())].flatten(0, 1)  # (B, N, L, Dv) -> (S, L, Dv)
        if len(seen) < len(context.latents):
            context.latents = context.latents[seen.to(latents.device)]
        last_position = context.layout.last_media_position
    for cache_layer in cache_layers:
        cache_layer.last_media_position = last_position
    return context


# For language models that drop keywords before they call their layers (MPT, BLOOM, Falcon, GPT-J, GPT-Neo). It is set
# around one call of the language model, in the thread of that call.
_current_context: ContextVar[FlamingoContext | None] = ContextVar("flamingo_context", default=None)


@contextmanager
def use_context(context: FlamingoContext) -> Iterator[None]:
    """Make `context` the current one for a call of the language model."""
    if torch.compiler.is_compiling():
        yield  # a graph has no context variables, so a compiled model must pass the keyword
        return
    token = _current_context.set(context)
    try:
        yield
    finally:
        _current_context.reset(token)


def _apply_gated_block(layer_index: int, layer: nn.Module, args: tuple, kwargs: dict) -> tuple | None:
    """
    Apply the gated block of a decoder layer, if it has one, to the layer's input: its forward pre-hook.

    Without a context, as when someone calls the language model itself, the hook does nothing. It removes the context
    from the keywords, because the layer passes these to attention functions that may not know it.
    """
    context = kwargs.pop(CONTEXT_KEYWORD, None)
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
    keywords = {"layout": context.layout, "cache": context.cache_layers.get(layer_index)}
    if context.attentions is None:
        hidden_states = context.blocks[layer_index](hidden_states, context.latents, **keywords)
    else:
        hidden_states, context.attentions[layer_index] = context.blocks[layer_index](
            hidden_states, context.latents, output_attentions=True, **keywords
        )
    return (hidden_states, *args), kwargs


@torch.no_grad()
def passes_keywords(language_model: PreTrainedModel) -> bool:
    """
    Tell whether a language model passes keywords on to its decoder layers, as it must in a graph, which has no context variable.

    Args:
        language_model (`PreTrainedModel`): The language model of a Flamingo, which has the hooks. It reads one token.
    """
    parameters = inspect.signature(type(language_model).forward).parameters.values()
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return False
    context = FlamingoContext(blocks={}, latents=None, layout=None, cache_layers={})
    token = torch.zeros(1, 1, dtype=torch.long, device=language_model.get_input_embeddings().weight.device)
    language_model(input_ids=token, use_cache=False, **{CONTEXT_KEYWORD: context})
    return len(context.applied) > 0


def register_block_hooks(language_model: PreTrainedModel) -> None:
    """Register the hook on every decoder layer, unless it is already there (two Flamingo models may share a language model)."""
    for index, layer in enumerate(find_decoder_layers(language_model)):
        hooks = layer._forward_pre_hooks.values()
        if not any(getattr(hook, "func", None) is _apply_gated_block for hook in hooks):
            layer.register_forward_pre_hook(functools.partial(_apply_gated_block, index), with_kwargs=True)
