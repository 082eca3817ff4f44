# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""What goes into a forward pass of a Flamingo, and what comes out.

Shapes: `B` batch, `N` images or videos per sample, `L` latents, `T` text length, `Dv` vision width, `V` vocabulary.

The file travels with a checkpoint as remote code: it stays flat and imports only its siblings.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers.cache_utils import Cache
from transformers.utils import ModelOutput


@dataclass
class FlamingoInputs:
    """Text and images of one forward pass. The fields are the arguments of [`FlamingoModel.forward`] with these names."""

    input_ids: torch.LongTensor | None = None
    attention_mask: torch.Tensor | None = None
    pixel_values: torch.FloatTensor | None = None
    frame_attention_mask: torch.Tensor | None = None
    cache: Cache | None = None
    inputs_embeds: torch.FloatTensor | None = None
    position_ids: torch.LongTensor | None = None
    mm_encoder_outputs: dict[str, Any] | None = None
    use_cache: bool | None = None
    media_index: torch.LongTensor | None = None
    interpolate_pos_encoding: bool | None = None
    output_cross_attentions: bool | None = None


@dataclass
class FlamingoOutput(ModelOutput):
    """
    Output of [`FlamingoModel.forward`].

    Args:
        loss (`torch.FloatTensor`, *optional*): Next-token loss, if `labels` were given.
        logits (`torch.FloatTensor` of shape `(B, T, V)`, *optional*):
            Scores of the next token; fewer with `logits_to_keep`, none with `skip_logits`.
        cache (`Cache`, *optional*):
            The language model's cache. One [`MediaCacheLayer`] for each gated block follows its own layers.
        hidden_states, attentions (`tuple`, *optional*): Those of the language model.
        image_hidden_states (`torch.FloatTensor` of shape `(B, N, L, Dv)`, *optional*): The latents of the images.
        cross_attentions (`tuple`, *optional*):
            Where each token looked in each gated block, if asked for: `(B, heads, T, L)`, the weights of the latents of the one
            image that the token sees, 0 if it sees none.
        resampler_attentions (`tuple`, *optional*): Where the latents looked, as in [`FlamingoImageFeatures`].
        patch_grid (`torch.LongTensor` of shape `(B, N, 3)`, *optional*): Frames, rows and columns of the patches.
        media_index (`torch.LongTensor` of shape `(B, T)`, *optional*):
            Which image of this call that is, from 1. 0: the one in the cache, or none.
    """

    loss: torch.FloatTensor | None = None
    logits: torch.FloatTensor | None = None
    cache: Cache | None = None
    hidden_states: tuple[torch.FloatTensor] | None = None
    attentions: tuple[torch.FloatTensor] | None = None
    image_hidden_states: torch.FloatTensor | None = None
    cross_attentions: tuple[torch.FloatTensor] | None = None
    resampler_attentions: tuple[torch.FloatTensor] | None = None
    patch_grid: torch.LongTensor | None = None
    media_index: torch.LongTensor | None = None
