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
    Return the modules whose parameters are gathered and freed together, inner ones first.

    They are each gated block, the resampler, each decoder layer, the rest of the language model (embeddings, last norm,
    head), and the vision encoder. The rest of the model, which is not in the list, is the trained token rows. If each
    backbone is trained or frozen as a whole, so is each unit, and a frozen unit needs no memory for gradients and no
    communication to reduce them.
    """
    units: list[nn.Module] = [*model.gated_cross_attention, model.resampler]
    units += find_decoder_layers(model.language_model)
    units.append(model.language_model)
    if model.vision_model is not None:
        units.append(model.vision_model)
    return units


def shard_model(model: FlamingoModel, *, reshard_after_forward: bool = True, **kwargs: Any) -> FlamingoModel:
    """
    Shard a model in place, each of `sharding_units` separately. The process group must exist.

    The trained rows of a frozen embedding get their own memory ([`TokenRows`]), because a sharded matrix does not have
    rows to share memory with.

    Args:
        model ([`FlamingoModel`]): The model, frozen as it will be trained, on its device. Create the optimizer afterwards.
        reshard_after_forward (`bool`, *optional*, defaults to `True`):
            Whether to free a unit between forward and backward.
        kwargs: Passed to `fully_shard`, such as `mesh` and `mp_policy`. Those that are `None` are not passed.

    Returns:
        [`FlamingoModel`]: The same model.
    """
    kwargs = {name: value for name, value in kwargs.items() if value is not None}
    model.detach_token_rows()
    for unit in sharding_units(model):
        fully_shard(unit, reshard_after_forward=reshard_after_forward, **kwargs)
    # Hooks of the embeddings read the token rows, outside of any forward that would gather them: they stay gathered
    fully_shard(model, reshard_after_forward=False, **kwargs)
    return model


def full_state_dict(model: FlamingoModel) -> dict[str, torch.Tensor]:
    """
    Gather the state dict of a sharded model, in the form that an unsharded model has. Every process calls this.

    Returns:
        `dict`: Tensors on the CPU in process 0, and nothing in the other processes.
        `FlamingoModel.from_pretrained(None, config=..., state_dict=...)` and `load_state_dict` accept it.
    """
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return model.merge_token_rows(get_model_state_dict(model, options=options))
