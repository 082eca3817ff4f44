# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Check which language models can be conditioned on images, and how much text they take.

A language model that does not fit is refused when a Flamingo is built, with the reason. Most of these models would fail
later with an error of torch, and some would silently compute wrong numbers.

The file travels with a checkpoint as remote code: it stays flat and imports only its siblings.
"""

import inspect

import torch
from torch import nn
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    DynamicCache,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.modeling_layers import GradientCheckpointingLayer

from .checks_flamingo import is_padding_mask


# Model types that no property of the model or its configuration tells apart.
_UNSUPPORTED_MODEL_TYPES = {
    "dory": "its layers write to more cache layers than it has decoder layers, and the image's cache comes after them",
    "emu3_text_model": "`AutoModelForCausalLM` cannot build it from its configuration alone, so the saved model would not load",
    "gemma4_assistant": "it drafts for another model, whose hidden states it reads",
    "gemma4_unified_assistant": "it drafts for another model, whose hidden states it reads",
    "minimax": "it accepts only its own cache class, which cannot hold the image",
    "mllama_text_model": "it skips those of its layers that attend to its own images, and the gated blocks before them too",
    "musicgen": "it makes music, whose tokens are several numbers each",
    "musicgen_melody": "it makes music, whose tokens are several numbers each",
    "prophetnet": "its decoder layers predict several tokens at a time, from several streams of hidden states",
    "recurrent_gemma": "it keeps its state in its modules instead of a cache, so no image can be kept with it",
    "xlstm": "it accepts only its own cache class, which cannot hold the image",
}
# Fields of configurations whose decoder layers pass several streams of hidden states on.
_STREAM_FIELDS = ("altup_num_inputs", "hc_count", "hc_mult")


def check_text_config(config: PreTrainedConfig) -> None:
    """
    Check what the configuration of a language model tells, before its weights are loaded.

    Args:
        config (`PreTrainedConfig`): Its configuration, or that of a multimodal model.

    Raises:
        ValueError: a language model of this kind cannot be conditioned on images.
    """
    # MusicGen has two configurations of text, and none that is meant
    text_config = config if config.model_type in _UNSUPPORTED_MODEL_TYPES else config.get_text_config()
    for model_type in (config.model_type, text_config.model_type):
        if model_type in _UNSUPPORTED_MODEL_TYPES:
            raise ValueError(
                f"A language model of type {model_type!r} cannot be conditioned on images: "
                f"{_UNSUPPORTED_MODEL_TYPES[model_type]}. Use another language model."
            )
    for name in _STREAM_FIELDS:
        if getattr(text_config, name, 0):
            raise ValueError(
                f"A language model of type {text_config.model_type!r} cannot be conditioned on images: its decoder layers pass "
                f"on several streams of hidden states (`{name}={getattr(text_config, name)}`), and a gated block reads one, of "
                "shape (B, T, D). Use another language model."
            )


def build_language_model(text_config: PreTrainedConfig) -> PreTrainedModel:
    """
    Build a language model with random weights.

    Raises:
        ValueError: the configuration is not that of a causal language model that can be conditioned on images.
    """
    check_text_config(text_config)
    if type(text_config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(
            f"A language model with a {type(text_config).__name__} cannot be conditioned on images: `AutoModelForCausalLM` builds "
            "no model from such a configuration alone. Use the configuration of a causal language model of transformers, or "
            "register yours (`AutoModelForCausalLM.register`)."
        )
    return AutoModelForCausalLM.from_config(text_config)


def take_language_model(model: PreTrainedModel) -> PreTrainedModel:
    """
    Take the causal language model out of a multimodal one (Gemma 3, Gemma 4, Fuyu, ...): its decoder and its head.

    Args:
        model ([`PreTrainedModel`]): What `AutoModelForCausalLM` loaded. A plain language model is returned as it is.

    Returns:
        A language model with the weights of `model`, which it shares.

    Raises:
        ValueError: the language model inside is not one that exists on its own.
    """
    text_config = model.config.get_text_config(decoder=True)
    if text_config is model.config:
        return model
    with torch.device("meta"):
        language_model = build_language_model(text_config)
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    is_same = type(decoder) is type(language_model.get_decoder()) and type(head) is nn.Linear
    if is_same:
        replace_decoder(language_model, decoder)
        language_model.set_output_embeddings(head)
        # On "meta", what the two do not hold has no values
        parts = [*language_model.parameters(), *language_model.buffers()]
        is_same = not any(part.is_meta for part in parts) or next(model.parameters()).is_meta
    if not is_same:
        raise ValueError(
            f"{type(model).__name__} cannot be conditioned on images: it joins a language model and other models, and is not "
            f"made of the parts of a {type(language_model).__name__}. Use a language model that is saved on its own."
        )
    language_model.generation_config = model.generation_config
    text_config.name_or_path = text_config.name_or_path or model.config.name_or_path  # the base model, for cards
    return language_model.train(model.training)


def replace_decoder(language_model: PreTrainedModel, decoder: nn.Module) -> None:
    """Replace the decoder of a language model. The stock `set_decoder` does nothing for those that call it `model`."""
    language_model.set_decoder(decoder)
    if language_model.get_decoder() is not decoder:
        setattr(language_model, language_model.base_model_prefix, decoder)


def find_decoder_layers(language_model: PreTrainedModel) -> nn.ModuleList:
    """
    Find the decoder layers of a causal language model.

    They are found by their kind and number, because each family has its own names for the modules around them.

    Raises:
        ValueError: the model has none.
    """
    num_layers = language_model.config.num_hidden_layers
    for module in language_model.modules():
        if (
            isinstance(module, nn.ModuleList)
            and len(module) == num_layers
            and all(isinstance(layer, GradientCheckpointingLayer) for layer in module)
        ):
            return module
    raise ValueError(
        f"{type(language_model).__name__} cannot be conditioned on images: no list of {num_layers} decoder layers was "
        "found in it, so the gated cross-attention blocks cannot be placed. A language model needs a `ModuleList` "
        "of `GradientCheckpointingLayer`s, as the causal language models of transformers have."
    )


def check_language_model(language_model: PreTrainedModel) -> None:
    """
    Check that a language model can be conditioned on images.

    Raises:
        ValueError: it has no decoder layers, has no cache of keys and values, sees future tokens, or passes hidden
            states on in a form that the gated blocks cannot read.
    """
    check_text_config(language_model.config)
    reason = _find_obstacle(language_model)
    if reason is not None:
        raise ValueError(f"{type(language_model).__name__} cannot be conditioned on images: {reason}.")


def _find_obstacle(language_model: PreTrainedModel) -> str | None:
    """Return why a language model cannot be conditioned on images, with a remedy; `None` if it can."""
    config = language_model.config
    if (
        "cache" not in inspect.signature(type(language_model).forward).parameters
        or all(DynamicCache(config=config).is_linear)  # Mamba and similar models
    ):
        return (
            "it keeps no keys and values of the text in a `cache`, where the image is kept too. Use a language model "
            "with attention"
        )
    find_decoder_layers(language_model)
    if not _is_causal(language_model):
        return (
            "its tokens see the tokens after them, so it would be trained on what it is to predict. Set "
            "`is_decoder=True` in its configuration (BERT and its relatives) or turn off its bidirectional attention"
        )
    return None


def _is_causal(language_model: PreTrainedModel) -> bool:
    """Return whether no token sees the tokens after it."""
    config = language_model.config
    # Gemma's embedding models. "vision" concerns the image placeholders of Gemma's own multimodal models.
    if getattr(config, "use_bidirectional_attention", None) in (True, "all"):
        return False
    if getattr(config, "is_decoder", True):
        return True
    # GPT-NeoX has the field, at its default `False`, and is causal nevertheless.
    causal = [module.is_causal for module in language_model.modules() if hasattr(module, "is_causal")]
    return len(causal) > 0 and all(causal)


def counts_padding(language_model: PreTrainedModel, max_text_length: int | None) -> bool:
    """
    Return whether padding on the left takes up positions.

    It does if positions are rows of a table, counted from the left edge, and no others can be passed (Bart, Marian and
    related models). ALiBi (MPT) counts distances, which padding does not change.

    Args:
        language_model ([`PreTrainedModel`]): The language model.
        max_text_length (`int`, *optional*): What [`find_max_text_length`] found.
    """
    takes_positions = "position_ids" in inspect.signature(type(language_model).forward).parameters
    has_table = language_model.config.model_type != "mpt" and max_text_length is not None
    return has_table and not takes_positions


def find_max_text_length(language_model: PreTrainedModel) -> int | None:
    """
    Find the maximum number of tokens of a text, `None` if the language model sets no limit.

    There is a limit if positions are rows of a table: learned embeddings (GPT-2, OPT, BERT), precomputed rotations
    (GPT-J), or a fixed ALiBi bias (MPT). Rotary and sinusoidal positions that are computed have none, although the model
    may not have been trained on texts of any length.
    """
    config = language_model.config
    if config.model_type == "mpt":
        return config.max_seq_len
    max_positions = getattr(config, "max_position_embeddings", None) or getattr(config, "max_target_positions", None)
    limits = []
    for name, module in language_model.named_modules():
        last_name = name.rpartition(".")[2]
        if isinstance(module, nn.Embedding) and (last_name == "wpe" or "position" in last_name):
            # OPT and related models leave the first rows unused, RoBERTa those up to the padding id.
            padding_idx = module.padding_idx
            offset = getattr(module, "offset", 0) if padding_idx is None else padding_idx + 1
            # A table of another size belongs to something else, such as a vision encoder (GIT).
            if max_positions is not None and abs(module.num_embeddings - max_positions) <= offset:
                limits.append(module.num_embeddings - offset)
        table = dict(module.named_buffers(recurse=False)).get("embed_positions")
        if table is not None and table.ndim == 2:
            limits.append(len(table))
    return min(limits, default=None)


def find_first_position(language_model: PreTrainedModel) -> int:
    """
    Find the number that a language model gives to its first position.

    It is 0, except for RoBERTa and its relatives, whose positions start behind the padding id. They number positions
    themselves if none are given, and take given ones as they are.
    """
    for name, module in language_model.named_modules():
        if (
            name.endswith("position_embeddings")
            and isinstance(module, nn.Embedding)
            and module.padding_idx is not None
        ):
            return module.padding_idx + 1
    return 0


def infer_position_ids(
    position_ids: torch.LongTensor | None, attention_mask: torch.Tensor | None, length: int, first_position: int = 0
) -> torch.LongTensor | None:
    """
    Count positions `(B, T)` from the first real token, as `generate()` does.

    Several language models count from the left edge whatever the mask says, so a sample would have other logits in a
    padded batch than alone. Rows without padding on the left keep the language model's positions.

    Args:
        position_ids (`torch.LongTensor` of shape `(B, T)`, *optional*): Positions that were given, counted from 0.
        attention_mask (`torch.Tensor` of shape `(B, past + T)`, *optional*): 1 at text, 0 at padding.
        length (`int`): `T`.
        first_position (`int`, *optional*, defaults to 0): What [`find_first_position`] found.

    Returns:
        `torch.LongTensor` of shape `(B, T)`; `None` where the language model may count itself.
    """
    if position_ids is not None:
        return position_ids + first_position if first_position > 0 else position_ids
    if not is_padding_mask(attention_mask):
        return None
    real = attention_mask.long()
    counted = (real.cumsum(dim=1) - 1).masked_fill(real == 0, 0)
    plain = torch.arange(real.shape[1], device=real.device).expand_as(real)
    return torch.where(real[:, :1] == 0, counted, plain)[:, -length:] + first_position
