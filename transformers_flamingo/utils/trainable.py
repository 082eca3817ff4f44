# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Save and load the trained parameters of a model, without the backbones that stayed frozen."""

import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from ..feature_standardization_flamingo import STATISTICS
from .names import summarize_names


TRAINABLE_NAME = "trainable.safetensors"

# Ends of the names of buffers that belong to what was trained: the statistics of features and latents
_STATISTICS = tuple(f"standardization.{name}" for name in STATISTICS)


def save_trainable(model: nn.Module, directory: str | os.PathLike, state_dict: dict | None = None) -> None:
    """
    Save the parameters that require a gradient, and the statistics of the vision features, to `trainable.safetensors`.

    Args:
        model (`nn.Module`): The model, frozen as it is trained.
        directory (`str`): The folder to save to.
        state_dict (`dict`, *optional*): The parameters by name, if those of the model itself are sharded.
    """
    tensors = {
        name: (parameter if state_dict is None else state_dict[name]).detach().cpu().clone().contiguous()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    tensors |= {name: buffer.cpu().clone() for name, buffer in model.named_buffers() if name.endswith(_STATISTICS)}
    save_file(tensors, Path(directory) / TRAINABLE_NAME, metadata={"format": "pt"})


@torch.no_grad()
def load_trainable(model: nn.Module, directory: str | os.PathLike) -> None:
    """
    Load what a training run with `save_trainable_only` saved into a model that already has its backbones.

    ```python
    model = FlamingoModel.from_vision_text_pretrained(VISION, TEXT)
    model.freeze_backbones()
    load_trainable(model, "output/checkpoint-1000")
    ```

    Args:
        model (`nn.Module`): The model, with the same parameters frozen as in training.
        directory (`str`): The checkpoint.

    Raises:
        FileNotFoundError: there is no `trainable.safetensors`.
        ValueError: the saved parameters are not the trainable parameters of the model, or one has another shape. Nothing is
            loaded then.
    """
    path = Path(directory) / TRAINABLE_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {TRAINABLE_NAME} in {str(directory)!r}. It is written with `save_trainable_only`; any other "
            "checkpoint is loaded by `FlamingoModel.from_pretrained`."
        )
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    with safe_open(path, framework="pt") as file:
        saved = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    statistics = {name for name in saved if name.endswith(_STATISTICS)}
    missing, unexpected = sorted(set(parameters) - set(saved)), sorted(set(saved) - set(parameters) - statistics)
    if missing or unexpected:
        raise ValueError(
            f"{str(path)!r} does not hold the trainable parameters of this model: {len(missing)} are missing "
            f"({summarize_names(missing)}) and {len(unexpected)} are not trainable in it ({summarize_names(unexpected)}). Freeze the model "
            "as it was trained (`freeze_backbones`) before loading, and build it from the same configuration."
        )
    mismatched = [name for name, parameter in parameters.items() if tuple(parameter.shape) != saved[name]]
    if mismatched:
        shapes = "; ".join(
            f"{name}: saved {saved[name]}, current {tuple(parameters[name].shape)}" for name in mismatched[:4]
        )
        raise ValueError(
            f"{str(path)!r} has parameters of other shapes than this model ({shapes}). Build the model from the "
            "configuration next to it."
        )
    tensors = load_file(path)
    # PEFT has two copies of the statistics, which are equal
    given = {name.rpartition(".")[2]: tensors[name] for name in statistics}
    for module in model.modules():
        # A model that was moved refreshes its token rows at the next forward, which would undo the loading
        if hasattr(module, "refresh_token_rows"):
            module.refresh_token_rows()
            module.set_feature_statistics(given)
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])
