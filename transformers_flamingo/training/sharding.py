# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Sharding of a Flamingo over processes with FSDP2 (`torch.distributed.fsdp.fully_shard`)."""

from typing import Any

import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.fsdp import fully_shard

from ..language_models_flamingo import find_decoder_layers
from ..modeling_flamingo import FlamingoModel


def sharding_units(model: FlamingoModel) -> list[nn.Module]:
    """
    The modules whose parameters are gathered and freed together, inner ones first.

    Each is either trained or frozen as a whole, if the backbones are: each gated block, the resampler, each decoder
    layer, what is left of the language model (embeddings, last norm, head), and the vision encoder. What is left of
    the Flamingo itself are the trained token rows. A frozen unit so needs no gradient, and its reduction none.
    """
    units: list[nn.Module] = [*model.gated_cross_attention, model.resampler]
    units += find_decoder_layers(model.language_model)
    units.append(model.language_model)
    if model.vision_model is not None:
        units.append(model.vision_model)
    return units


def shard_model(model: FlamingoModel, *, reshard_after_forward: bool = True, **kwargs: Any) -> FlamingoModel:
    """
    Shard a model in place, each of `sharding_units` by itself. The process group must exist.

    The trained rows of a frozen embedding get memory of their own ([`TokenRows`]), since a sharded matrix has no rows
    to share it with.

    Args:
        model ([`FlamingoModel`]): The model, frozen as it will be trained, on its device. Make the optimizer after.
        reshard_after_forward (`bool`, *optional*, defaults to `True`):
            Whether a unit is freed between forward and backward.
        kwargs: Passed to `fully_shard`, such as `mesh` and `mp_policy`. `None` is left out.
    """
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    model.detach_token_rows()
    for unit in sharding_units(model):
        fully_shard(unit, reshard_after_forward=reshard_after_forward, **kwargs)
    # Its rows are read by hooks of the embeddings, not by a forward of their own: they stay gathered throughout
    fully_shard(model, reshard_after_forward=False, **kwargs)
    return model


def full_state_dict(model: FlamingoModel) -> dict[str, torch.Tensor]:
    """
    The state dict of a sharded model as that of an ordinary one, on the CPU of process 0 and empty on the others.

    Every process calls it. `FlamingoModel.from_pretrained(None, config=..., state_dict=...)` and `load_state_dict`
    take it.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return model.merge_token_rows(get_model_state_dict(model, options=options))
