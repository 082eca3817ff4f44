# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Build the converted model: first without memory, for its names and shapes, then with the weights of the checkpoint."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from ..configuration_flamingo import FlamingoConfig
from ..modeling_flamingo import FlamingoModel
from ..utils.names import summarize_names
from .errors import first_line


def make_config(**fields: Any) -> FlamingoConfig:
    """Make the config of the converted model, with a `ValueError` that says what is wrong with its fields."""
    try:
        return FlamingoConfig(**fields)
    except StrictDataclassError as error:
        raise ValueError(str(error.__cause__ or error)) from error


def meta_language_model(config: PreTrainedConfig) -> PreTrainedModel:
    """Build a language model without memory, with a `ValueError` if its config describes none."""
    with _on_meta_device():
        return AutoModelForCausalLM.from_config(config)


def meta_model(config: FlamingoConfig) -> FlamingoModel:
    """Build the converted model without memory, with a `ValueError` if its config describes none."""
    with _on_meta_device():
        return FlamingoModel(config)


@contextmanager
def _on_meta_device() -> Iterator[None]:
    try:
        with torch.device("meta"):
            yield
    # Sizes that divide by 0, negative sizes, unknown activations and values of other types: the models do not check them.
    except (ArithmeticError, LookupError, RuntimeError, StrictDataclassError, TypeError) as error:
        raise ValueError(
            f"No model can be built from the configs of the backbones: {type(error).__name__}: {first_line(error)}. Fix or "
            "fetch their config.json again."
        ) from error


def module_name(model: nn.Module, module: nn.Module) -> str:
    """Return the name of `module` in `model`."""
    return next(name for name, candidate in model.named_modules() if candidate is module)


def embedding_names(language_model: PreTrainedModel) -> tuple[str, str]:
    """Return the names in [`FlamingoModel`] of the weights of a language model's input and output embedding."""
    modules = language_model.get_input_embeddings(), language_model.get_output_embeddings()
    embedding, head = (f"language_model.{module_name(language_model, module)}.weight" for module in modules)
    return embedding, head


def has_untied_head(tensors: dict[str, torch.Tensor], embedding: str, head: str) -> bool:
    """
    Tell whether a checkpoint has an output embedding that differs from its input embedding.

    Args:
        tensors (`dict[str, torch.Tensor]`): The checkpoint. Embeddings have the shape `(V, D)`.
        embedding, head (`str`): Names of the input and the output embedding in it.
    """
    return head in tensors and not (embedding in tensors and torch.equal(tensors[embedding], tensors[head]))


def assign_weights(model: FlamingoModel, tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> FlamingoModel:
    """
    Assign the tensors of a checkpoint to the parameters of a model, without a copy if they have `dtype` already.

    Args:
        model ([`FlamingoModel`]): The model. Parameters on the meta device must be among the tensors.
        tensors (`dict[str, torch.Tensor]`): Tensors by their names in the model.
        dtype (`torch.dtype`): The dtype of the converted model.

    Raises:
        ValueError: values are too large for `dtype`, or parameters of the model have no weights.
    """
    tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    if names := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise ValueError(
            f"Weights are too large for {dtype}: {summarize_names(names)}. Pass `dtype` (--dtype) bfloat16 or float32."
        )
    model.load_state_dict(tensors, strict=False, assign=True)
    model.tie_weights()
    empty = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if empty:
        raise ValueError(
            f"Neither the checkpoint nor the backbones have weights for {summarize_names(empty)}. Pass complete ones."
        )
    return model.eval()
