# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Parameter groups for the optimizer of a Flamingo model."""

import math
from typing import Any

from ..modeling_flamingo import FlamingoModel


def parameter_groups(
    model: FlamingoModel,
    learning_rate: float,
    weight_decay: float = 0.1,
    gate_learning_rate_multiplier: float = 1.0,
    resampler_learning_rate_multiplier: float = 1.0,
) -> list[dict[str, Any]]:
    """
    Make parameter groups for an optimizer such as `torch.optim.AdamW`. Frozen parameters are not in any of them.

    Weight decay acts only on the matrices of the gated blocks, as in OpenFlamingo. The gates have their own learning
    rate: they start at 0, where the gradient of everything behind them is 0 too, so that a short training spends most of
    its steps on opening them. The resampler can have its own one, too: a new one that moves as fast as the gated blocks soon adds
    the same to all images, and these learn the texts from that (`docs/real-pictures-log.md`).

    Args:
        model ([`FlamingoModel`] or `PeftModel`): The model, frozen as it will be trained.
        learning_rate (`float`): Learning rate of all parameters except the gates and the resampler.
        weight_decay (`float`): Weight decay of the matrices of the gated blocks.
        gate_learning_rate_multiplier (`float`):
            Learning rate multiplier for the gates. A model without gates (`cross_attention_gating="none"`) does not have
            this group and ignores the multiplier, so that a recipe and its ablation can use the same value.
        resampler_learning_rate_multiplier (`float`): Learning rate multiplier for the resampler.

    Returns:
        `list[dict]`: The matrices of the gated blocks, the rest, the resampler if it has another rate, and the gates; empty groups are omitted. Pass them to
        `Trainer(..., optimizers=(AdamW(parameter_groups(model, 1e-4)), None))`.

    Raises:
        ValueError: no parameter requires a gradient, or a multiplier is below 0.
    """
    for name, value in (
        ("gate_learning_rate_multiplier", gate_learning_rate_multiplier),
        ("resampler_learning_rate_multiplier", resampler_learning_rate_multiplier),
    ):
        if not 0 <= value < math.inf:  # AdamW checks the rates of no group
            raise ValueError(
                f"`{name}` is {value}, so its parameters would climb the loss or become NaN. Give a number above 0."
            )
    gates, matrices, resampler, rest = [], [], [], []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.endswith(("attn_gate", "ffn_gate")):
            gates.append(parameter)
        elif "gated_cross_attention." in name and parameter.ndim == 2:
            matrices.append(parameter)
        elif "resampler." in name and resampler_learning_rate_multiplier != 1:
            resampler.append(parameter)
        else:
            rest.append(parameter)
    groups = [
        {"params": matrices, "lr": learning_rate, "weight_decay": weight_decay},
        {"params": rest, "lr": learning_rate, "weight_decay": 0.0},
        {"params": resampler, "lr": learning_rate * resampler_learning_rate_multiplier, "weight_decay": 0.0},
        # Last, because `Trainer` logs the learning rate of the first group
        {"params": gates, "lr": learning_rate * gate_learning_rate_multiplier, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if not groups:
        raise ValueError("No parameter of the model requires a gradient, so there is nothing to train.")
    return groups
