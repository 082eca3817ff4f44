# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Configurations of the sizes and recipes that people ask about, without downloads: for estimates of memory and FLOP."""

from typing import Any

from transformers import CLIPVisionConfig, LlamaConfig, MistralConfig, OPTConfig, PreTrainedConfig

from ..configuration_flamingo import FlamingoConfig
from .recipe_file import RECIPES, read_recipe_file


# CLIP ViT-L/14, 0.3B
VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
}


def _opt(num_layers: int, width: int, num_heads: int) -> OPTConfig:
    return OPTConfig(
        vocab_size=50274,  # OPT's 50272, <|endofchunk|> and <image>
        num_hidden_layers=num_layers,
        hidden_size=width,
        word_embed_proj_dim=width,
        ffn_dim=4 * width,
        num_attention_heads=num_heads,
    )


def _small_llama() -> LlamaConfig:
    return LlamaConfig(
        vocab_size=49154,  # SmolLM2's 49152, <|endofchunk|> and <image>
        num_hidden_layers=32,
        hidden_size=960,
        intermediate_size=2560,
        num_attention_heads=15,
        num_key_value_heads=5,
        tie_word_embeddings=True,
    )


# Name -> what it is, the language model, and the shipped recipe that has the shape of the new parts
SHAPES: dict[str, tuple[str, Any, str | None]] = {
    "1b": ("CLIP ViT-L/14 and SmolLM2-360M, a block before each layer", _small_llama, None),
    "3b": ("CLIP ViT-L/14 and OPT-1.3B, the recipe `flamingo-3b`", lambda: _opt(24, 2048, 32), "shapes/flamingo-3b"),
    "9b": ("CLIP ViT-L/14 and OPT-6.7B, the recipe `flamingo-9b`", lambda: _opt(32, 4096, 32), "shapes/flamingo-9b"),
    "80b": (
        "CLIP ViT-L/14 and 80 layers of width 8192, the shape `flamingo-80b`",
        lambda: _opt(80, 8192, 64),
        "shapes/flamingo-80b",
    ),
    "caption": ("CLIP ViT-L/14 and OPT-1.3B, the recipe `caption`", lambda: _opt(24, 2048, 32), "caption"),
    # The defaults of the class are Mistral-7B, but for its 32000 tokens, <|endofchunk|> and <image>
    "lora": ("CLIP ViT-L/14 and Mistral-7B, the recipe `lora`", lambda: MistralConfig(vocab_size=32002), "lora"),
}


def shape_config(name: str) -> FlamingoConfig:
    """
    Make the configuration of a size.

    Args:
        name (`str`): A key of `SHAPES`: `"1b"`, `"3b"`, `"9b"`, `"80b"`, `"caption"` or `"lora"`.

    Raises:
        ValueError: there is no such size.
    """
    if name not in SHAPES:
        raise ValueError(f"There is no shape {name!r}. Shapes are {', '.join(SHAPES)}.")
    _, make_text_config, recipe = SHAPES[name]
    text_config: PreTrainedConfig = make_text_config()
    fields = {} if recipe is None else read_recipe_file(RECIPES / f"{recipe}.yaml")["model_config"]
    return FlamingoConfig.from_vision_text_configs(
        CLIPVisionConfig(**VISION),
        text_config,
        image_token_id=text_config.vocab_size - 1,
        end_of_chunk_token_id=text_config.vocab_size - 2,
        **fields,
    )
