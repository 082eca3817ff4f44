# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Layer norms of queries and keys in MPT (QK norm): its option `qk_ln`.

`mpt-1b-redpajama-200b`, the language model of OpenFlamingo-3B, needs it. transformers accepts the option in the config but
does not implement it.

Shapes: `B` batch, `T` text length, `D` text width.
"""

import torch
from torch import nn
from transformers import PreTrainedModel


class MptQKNorm(nn.Linear):
    """
    The projection to queries, keys and values of an MPT attention, with a layer norm of queries and of keys over their
    full width, before they are split into heads.

    The norms are part of the projection, so the rest of the stock model does not change.

    Args:
        projection (`nn.Linear`): The stock projection, whose weight is shared.
        eps (`float`): Epsilon of the layer norms.
    """

    def __init__(self, projection: nn.Linear, eps: float):
        size = projection.in_features
        kwargs = {"bias": False, "device": projection.weight.device, "dtype": projection.weight.dtype}
        super().__init__(size, 3 * size, **kwargs)
        self.weight = projection.weight
        self.q_ln = nn.LayerNorm(size, eps=eps, **kwargs)
        self.k_ln = nn.LayerNorm(size, eps=eps, **kwargs)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Project `(B, T, D)` to normalized queries and keys, and values: `(B, T, 3 * D)`."""
        query, key, value = super().forward(hidden_states).chunk(3, dim=-1)
        return torch.cat([self.q_ln(query), self.k_ln(key), value], dim=-1)


def _find_attentions(language_model: PreTrainedModel) -> list[nn.Module]:
    """Find the attention modules of an MPT that need the norms. Other models have none."""
    attn_config = getattr(language_model.config, "attn_config", None)
    if language_model.config.model_type != "mpt" or not attn_config.qk_ln:
        return []
    if attn_config.clip_qkv:
        raise ValueError(
            f"`text_config.attn_config` has both `qk_ln` and `clip_qkv={attn_config.clip_qkv}`. MPT clips before the norm, "
            "and transformers would clip after it, so the outputs would be wrong. No released model has both."
        )
    return [module for module in language_model.modules() if hasattr(module, "Wqkv")]


def add_mpt_qk_norm(language_model: PreTrainedModel) -> None:
    """
    Add the layer norms of queries and keys to an MPT whose config has `qk_ln`. Other models do not change.

    Raises:
        ValueError: the config also clips queries, keys and values.
    """
    for attention in _find_attentions(language_model):
        attention.Wqkv = MptQKNorm(attention.Wqkv, language_model.config.layer_norm_epsilon)


def check_mpt_qk_norm(language_model: PreTrainedModel) -> None:
    """
    Check that an MPT whose config has `qk_ln` has the layer norms.

    Raises:
        ValueError: it lacks them, because transformers built it.
    """
    if any(not isinstance(module.Wqkv, MptQKNorm) for module in _find_attentions(language_model)):
        raise ValueError(
            "`text_config.attn_config.qk_ln` is set, but transformers' MPT has no layer norm of queries and keys, so it "
            "would silently produce wrong outputs. Build the model from its config, or convert the checkpoint with "
            "`transformers_flamingo.conversion`."
        )
