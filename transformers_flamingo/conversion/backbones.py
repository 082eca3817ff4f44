# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Load the backbones of a conversion: configs, weights, tokenizer and image processor, each checked."""

import os
from typing import NamedTuple

import torch
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    BaseImageProcessor,
    MptForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.utils import IMAGE_PROCESSOR_NAME, PROCESSOR_NAME, logging

from ..configuration_flamingo import FlamingoConfig
from ..mpt_flamingo import add_mpt_qk_norm
from ..tokenizers_flamingo import load_tokenizer as load_auto_tokenizer
from ..utils.names import summarize_names
from ..utils.weight_files import check_finite, find_file, find_weight_files, read_pretrained_tensors
from .errors import first_line, name_option_in_errors
from .mosaic_gpt import is_mosaic_gpt, mosaic_gpt_config, mosaic_gpt_key


logger = logging.get_logger(__name__)

MAX_LAYERS = 10_000  # each layer takes memory, even before it has weights


class BackboneSettings(NamedTuple):
    """All that a conversion reads of the backbones before their weights."""

    vision_config: PreTrainedConfig
    text_config: PreTrainedConfig
    image_processor: BaseImageProcessor
    tokenizer: PreTrainedTokenizerBase


def load_backbone_settings(
    vision: str | os.PathLike,
    text: str | os.PathLike,
    tokenizer: str | os.PathLike,
    image_processor_class: type[BaseImageProcessor] | None = None,
) -> BackboneSettings:
    """
    Load the configs of both backbones, the image processor and the tokenizer. Errors name the option.

    Args:
        vision, text, tokenizer (`str` or `os.PathLike`): The options of the conversion: names or directories.
        image_processor_class (`type[BaseImageProcessor]`, *optional*): See [`load_image_processor`].
    """
    with name_option_in_errors("vision", vision):
        vision_config = load_vision_config(vision)
        image_processor = load_image_processor(vision, vision_config, image_processor_class)
    with name_option_in_errors("text", text):
        text_config = load_text_config(text)
    with name_option_in_errors("tokenizer", tokenizer):
        return BackboneSettings(vision_config, text_config, image_processor, load_tokenizer(tokenizer))


# ---------------------------------------------------------------------------------------------------------------------
# Configs
# ---------------------------------------------------------------------------------------------------------------------


def load_vision_config(name_or_path: str | os.PathLike) -> PreTrainedConfig:
    """
    Load the config of a vision encoder. Of a two-tower model such as CLIP it is that of the vision tower.

    Raises:
        ValueError: it is not a vision encoder, is quantized, or has an impossible number of layers.
    """
    config = _check_backbone(name_or_path, AutoConfig.from_pretrained(name_or_path))
    config = getattr(config, "vision_config", config)
    if not hasattr(config, "image_size"):
        raise ValueError(
            f"{name_or_path} is not a vision encoder: its type is {config.model_type}, and its config has no `image_size`. "
            "Pass another as `vision` (--vision)."
        )
    return config


def load_text_config(name_or_path: str | os.PathLike) -> PreTrainedConfig:
    """
    Load the config of a language model. MosaicGPT, which transformers does not support, gives that of the equivalent MPT.

    Raises:
        ValueError: it is quantized, has an impossible number of layers, or is a MosaicGPT without an equivalent MPT.
    """
    values, _ = PreTrainedConfig.get_config_dict(name_or_path)
    if is_mosaic_gpt(values):
        config = mosaic_gpt_config(values)
        config.name_or_path = str(name_or_path)
        return config
    return _check_backbone(name_or_path, AutoConfig.from_pretrained(name_or_path))


def _check_backbone(name_or_path: str | os.PathLike, config: PreTrainedConfig) -> PreTrainedConfig:
    """Return the config of a backbone if a conversion can build its model."""
    num_layers = getattr(getattr(config, "vision_config", config), "num_hidden_layers", 1)
    if not isinstance(num_layers, int) or not 1 <= num_layers <= MAX_LAYERS:
        raise ValueError(
            f"The config of {name_or_path} says {num_layers!r} layers, but a model has 1 to {MAX_LAYERS}. Fix or fetch its "
            "config.json again."
        )
    if getattr(config, "quantization_config", None) is not None:
        raise ValueError(
            f"{name_or_path} is quantized, so its weights cannot be converted. Pass the model that it was made from."
        )
    return config


# ---------------------------------------------------------------------------------------------------------------------
# Weights
# ---------------------------------------------------------------------------------------------------------------------


def load_vision_model(
    name_or_path: str | os.PathLike, config: PreTrainedConfig, dtype: torch.dtype
) -> PreTrainedModel:
    """Load a vision encoder with all its weights, with a `ValueError` if some are missing, misshapen or not finite."""
    return _load_model(AutoModel, name_or_path, config, dtype)


def load_language_model(
    name_or_path: str | os.PathLike, config: PreTrainedConfig, dtype: torch.dtype
) -> PreTrainedModel:
    """Load a causal language model with all its weights, with a `ValueError` if some are missing, misshapen or not finite."""
    values, _ = PreTrainedConfig.get_config_dict(name_or_path)
    if is_mosaic_gpt(values):
        return _load_mosaic_gpt(name_or_path, config, dtype)
    return _load_model(AutoModelForCausalLM, name_or_path, config, dtype)


def _load_model(
    auto_class: type, name_or_path: str | os.PathLike, config: PreTrainedConfig, dtype: torch.dtype
) -> PreTrainedModel:
    find_weight_files(name_or_path)  # checks them before a library opens them
    try:
        model, report = auto_class.from_pretrained(name_or_path, config=config, dtype=dtype, output_loading_info=True)
    except RuntimeError as error:
        raise ValueError(
            f"The weights of {name_or_path} do not fit its config. Fetch both again. transformers says: {first_line(error)}"
        ) from error
    _refuse_missing(name_or_path, report["missing_keys"])
    check_finite(name_or_path, dict(model.named_parameters()))
    return model


def _load_mosaic_gpt(name_or_path: str | os.PathLike, config: PreTrainedConfig, dtype: torch.dtype) -> PreTrainedModel:
    """Load the weights of a MosaicGPT into the equivalent MPT. `from_pretrained` would not find them by their names."""
    with torch.device("meta"):
        model = MptForCausalLM(config)
        add_mpt_qk_norm(model)
    tensors = {mosaic_gpt_key(key): value.to(dtype) for key, value in read_pretrained_tensors(name_or_path).items()}
    check_finite(name_or_path, tensors)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if wrong := [name for name in tensors if name in shapes and tensors[name].shape != shapes[name]]:
        raise ValueError(
            f"Weights of {name_or_path} have other shapes than its config says: {summarize_names(wrong)}. Fetch both again."
        )
    missing, unexpected = model.load_state_dict(tensors, strict=False, assign=True)
    model.tie_weights()
    _refuse_missing(name_or_path, set(missing) - {"lm_head.weight"})  # tied
    if unexpected:
        raise ValueError(f"{name_or_path} has weights that MosaicGPT does not have: {summarize_names(unexpected)}.")
    return model


def _refuse_missing(name_or_path: str | os.PathLike, missing: list[str] | set[str]) -> None:
    if missing:
        raise ValueError(
            f"{name_or_path} lacks weights of the model that its config describes: {summarize_names(sorted(missing))}. They "
            "would be random. Fetch its files again."
        )


# ---------------------------------------------------------------------------------------------------------------------
# Tokenizer and image processor
# ---------------------------------------------------------------------------------------------------------------------


def load_tokenizer(name_or_path: str | os.PathLike) -> PreTrainedTokenizerBase:
    """Load a tokenizer, with a `ValueError` if there is none."""
    try:
        tokenizer = load_auto_tokenizer(name_or_path)
        # For a folder without the files of a tokenizer transformers makes one that has only special tokens.
        ids = tokenizer("Some text", add_special_tokens=False)["input_ids"]
        if ids and not set(tokenizer.get_vocab().values()) <= set(tokenizer.all_special_ids):
            return tokenizer
        cause = None
    except ValueError as error:  # transformers has nothing to make one from
        cause = error
    raise ValueError(f"There is no tokenizer in {name_or_path}. Pass one as `tokenizer` (--tokenizer).") from cause


def check_tokenizer_size(config: FlamingoConfig, num_tokens: int, num_unpadded: int = 0) -> None:
    """
    Check the size of a tokenizer against the embedding of a checkpoint. With another tokenizer, tokens get the rows of others.

    Args:
        config ([`FlamingoConfig`]): Config of the model.
        num_tokens (`int`): Length of the tokenizer.
        num_unpadded (`int`, *optional*, defaults to 0):
            Number of tokens whose rows were added after the embedding had been padded. Padding is common and harmless.

    Raises:
        ValueError: a special token has no row.
    """
    num_rows = config.text_config.vocab_size
    token_ids = {name: getattr(config, name) for name in ("image_token_id", "end_of_chunk_token_id")}
    if max(token_ids.values()) >= num_rows:
        raise ValueError(
            f"The tokenizer gives {token_ids}, but the checkpoint has embeddings for {num_rows} tokens: it was trained "
            "with another tokenizer. Pass that as `tokenizer` (--tokenizer)."
        )
    num_padded = num_tokens - num_unpadded
    # Trainers pad embeddings to a multiple of one of these, which matrix products are fast with.
    expected = {-(-num_padded // multiple) * multiple for multiple in (1, 8, 16, 32, 64, 128, 256)}
    if num_rows - num_unpadded not in expected:
        logger.warning(
            f"The checkpoint has embeddings for {num_rows} tokens, and the tokenizer has {num_tokens}. Check that the "
            "checkpoint was trained with this tokenizer: with another one the model would misread every word."
        )


def load_image_processor(
    name_or_path: str | os.PathLike, config: PreTrainedConfig, cls: type[BaseImageProcessor] | None = None
) -> BaseImageProcessor:
    """
    Load the image processor of a vision encoder. A CLIP that has none gets CLIP's, for its image size.

    Args:
        name_or_path (`str` or `os.PathLike`): Name or directory of the vision encoder.
        config (`PreTrainedConfig`): Its config.
        cls (`type[BaseImageProcessor]`, *optional*): Class to use instead of CLIP's, with the same settings.

    Raises:
        ValueError: it is unknown how the encoder expects its pixels, or they would not have its image size.
    """
    size = config.image_size
    if any(find_file(name_or_path, name) for name in (IMAGE_PROCESSOR_NAME, PROCESSOR_NAME)):
        stock = AutoImageProcessor.from_pretrained(name_or_path)
    elif config.model_type == "clip_vision_model":
        stock = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    else:
        raise ValueError(
            f"{name_or_path} has no {IMAGE_PROCESSOR_NAME}, and how a {config.model_type} expects its pixels to be scaled is "
            "not known. Copy that file from the original encoder into the directory."
        )
    if not type(stock).__name__.startswith("CLIPImageProcessor"):
        return stock
    if stock.do_center_crop and (stock.crop_size.height, stock.crop_size.width) != (size, size):
        raise ValueError(
            f"The image processor of {name_or_path} crops to {stock.crop_size.height} x {stock.crop_size.width}, but its "
            f"encoder takes {size} x {size} pixels: every image would fail. Fix its {IMAGE_PROCESSOR_NAME}."
        )
    return stock if cls is None else cls.from_dict(stock.to_dict())
