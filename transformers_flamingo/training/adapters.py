# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""PEFT adapters for a Flamingo model."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging

from ..cards.origins import find_name
from ..modeling_flamingo import FlamingoForSequenceClassification, FlamingoPreTrainedModel
from ..saving_flamingo import write_json, write_text
from ..utils.partial_models import ADAPTER_NAME
from ..utils.weight_files import read_json


logger = logging.get_logger(__name__)

if TYPE_CHECKING:
    from peft import LoraConfig


def lora_config(model: FlamingoPreTrainedModel, **kwargs) -> "LoraConfig":
    """
    Make a `peft.LoraConfig` for `get_peft_model`: it trains what [`~FlamingoModel.freeze_backbones`] leaves trainable, and
    LoRA on the language model.

    | part of the model                                          | what is trained                              |
    |------------------------------------------------------------|----------------------------------------------|
    | linear layers of the language model, except the head       | LoRA                                         |
    | resampler, gated blocks, `score` of a classifier           | in full                                      |
    | rows of `<image>` and `<|endofchunk|>` of the embedding,   | in full                                      |
    | and of the head if it is used and a separate matrix        |                                              |
    | without bias                                               |                                              |
    | everything else                                            | nothing                                      |

    Do not call `freeze_backbones` in addition: PEFT freezes the model itself and trains the rows as its own parameters.

    Args:
        model ([`FlamingoModel`] or [`FlamingoForSequenceClassification`]): The model, quantized or not.
        kwargs:
            Fields of `LoraConfig`, such as `r` and `lora_alpha`. They override the fields chosen here: `target_modules`
            takes names in the language model (`["q_proj", "v_proj"]`), and reaches the other parts only with
            `exclude_modules=None`.

    Returns:
        `peft.LoraConfig`

    Raises:
        ImportError: peft is not installed.
        ValueError: the model was frozen by `freeze_backbones`, or is not a Flamingo.

    Example:

    ```python
    >>> model = get_peft_model(model, lora_config(model, r=16, lora_alpha=32))
    ```
    """
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise ImportError("Adapters need PEFT: `pip install transformers-flamingo[train]`.") from error
    if not isinstance(model, FlamingoPreTrainedModel):
        raise ValueError(
            f"`lora_config` got a {type(model).__name__}, but the names in a config are those of the whole `FlamingoModel`. "
            "Pass that model, before `get_peft_model` changes it."
        )
    if model.input_token_rows is not None:
        raise ValueError(
            "`freeze_backbones()` was called on this model, so the rows of `<image>` and `<|endofchunk|>` are already trainable "
            "parameters, and PEFT would add others for them. PEFT freezes the model itself: omit `freeze_backbones()`, or call "
            "`unfreeze_backbones()` first."
        )
    names = {module: name for name, module in model.named_modules()}
    embedding, head = model.get_input_embeddings(), model.trained_head
    token_rows = {names[embedding]: model.trained_token_ids}
    if head is not None and head.weight is not embedding.weight:
        if getattr(head, "bias", None) is None:
            token_rows[names[head]] = model.trained_token_ids
        else:
            # The module that PEFT replaces it with computes without the bias
            logger.warning(
                f"{names[head]} has a bias, so PEFT cannot train single rows of it: the rows of tokens "
                f"{model.trained_token_ids} in the head stay as they are. They are trained in the embedding."
            )
    defaults = {
        "target_modules": "all-linear",
        "exclude_modules": r"(?!language_model\.).*",
        "modules_to_save": [
            "resampler",
            *(f"gated_cross_attention.{index}" for index in range(len(model.gated_cross_attention))),
            *(["score"] if isinstance(model, FlamingoForSequenceClassification) else []),
        ],
        "trainable_token_indices": token_rows,
        # GPT-2 keeps its matrices transposed. PEFT would detect that too, with a warning in each run
        "fan_in_fan_out": any(isinstance(module, Conv1D) for module in model.language_model.modules()),
    }
    return LoraConfig(**{**defaults, **kwargs})


def name_adapter_base(directory: str | os.PathLike, *, is_published: bool) -> None:
    """
    Name the base of saved adapters by its name on the Hub, if it was loaded from the cache of the Hub.

    A local path stays in a folder that is not published, because PEFT itself finds the base by it. In one that is, it would only tell
    where things are on this machine, so there is none. The commands find the base by `base_model.json`.

    Args:
        directory (`str` or `os.PathLike`): The folder.
        is_published (`bool`): Whether the folder will be on the Hub.
    """
    path = Path(directory) / ADAPTER_NAME
    values = read_json(path)
    base = values.get("base_model_name_or_path")
    name = find_name(base)
    if base != name and (name is not None or is_published):
        write_json(path, {**values, "base_model_name_or_path": name}, indent=2)


@contextmanager
def published_adapter_base(directory: str | os.PathLike) -> Iterator[None]:
    """Name the base of saved adapters as it is published, for as long as the block lasts. Nothing happens without adapters."""
    path = Path(directory) / ADAPTER_NAME
    if not path.is_file():
        yield
        return
    content = path.read_text(encoding="utf-8")
    name_adapter_base(directory, is_published=True)
    try:
        yield
    finally:
        write_text(path, content)


def without_adapters(model: nn.Module) -> nn.Module:
    """Return the model that PEFT wraps, or the model itself if PEFT does not wrap it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model
