# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Tiny models for all tests: random weights, open gates, no download.

With closed gates a Flamingo is its language model, so most tests would prove nothing. `tiny_flamingo` opens them.
"""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    CLIPVisionConfig,
    Dinov2Config,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
    ViTConfig,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from transformers_flamingo import FlamingoConfig, FlamingoModel, FlamingoProcessor


VOCAB_SIZE = 99
PAD, BOS, EOS = 0, 1, 2
END_OF_CHUNK, IMAGE = 97, 98
IMAGE_SIZE = 8

_SPECIAL = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS}
_LLAMA_LIKE = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 128,
    **_SPECIAL,
}
_OPT = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 32,
    "word_embed_proj_dim": 32,
    "ffn_dim": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    **_SPECIAL,
}
_GPT2 = {"vocab_size": VOCAB_SIZE, "n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 128, **_SPECIAL}

# name -> (model_type, fields)
TEXT_CONFIGS: dict[str, tuple[str, dict]] = {
    "gpt2": ("gpt2", _GPT2),
    "opt": ("opt", _OPT),
    # The shape of opt-350m: layer norm after, and embeddings narrower than the layers.
    "opt_350m": ("opt", {**_OPT, "do_layer_norm_before": False, "word_embed_proj_dim": 16}),
    "llama": ("llama", _LLAMA_LIKE),
    "gpt_neox": (
        "gpt_neox",
        {
            "vocab_size": VOCAB_SIZE,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
            **_SPECIAL,
        },
    ),
    "qwen3": ("qwen3", _LLAMA_LIKE),
    "smollm3": ("smollm3", _LLAMA_LIKE),
    "gemma": ("gemma", _LLAMA_LIKE),
    "gemma3": ("gemma3_text", {**_LLAMA_LIKE, "sliding_window": 8}),
    "mistral": ("mistral", {**_LLAMA_LIKE, "sliding_window": None}),
    # Families that do not pass keywords down to their layers.
    "mpt": (
        "mpt",
        {"vocab_size": VOCAB_SIZE, "d_model": 32, "n_layers": 3, "n_heads": 4, "max_seq_len": 128, **_SPECIAL},
    ),
    "bloom": ("bloom", {"vocab_size": VOCAB_SIZE, "hidden_size": 32, "n_layer": 3, "n_head": 4, **_SPECIAL}),
    "falcon": (
        "falcon",
        {
            "vocab_size": VOCAB_SIZE,
            "hidden_size": 32,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "max_position_embeddings": 128,
            **_SPECIAL,
        },
    ),
    "gptj": ("gptj", {**_GPT2, "rotary_dim": 4}),
    "gpt_neo": (
        "gpt_neo",
        {
            "vocab_size": VOCAB_SIZE,
            "hidden_size": 32,
            "num_layers": 3,
            "num_heads": 4,
            "attention_types": [[["global", "local", "global"], 1]],
            "window_size": 8,
            "max_position_embeddings": 128,
            **_SPECIAL,
        },
    ),
}
# Families that cannot be compiled: a graph cannot read a context variable.
DROPS_KEYWORDS = ("mpt", "bloom", "falcon", "gpt_neo")

_VISION = {
    "hidden_size": 24,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": IMAGE_SIZE,
    "patch_size": 4,
}
VISION_CONFIGS: dict[str, type[PreTrainedConfig]] = {
    "clip": CLIPVisionConfig,
    "siglip": SiglipVisionConfig,
    "dinov2": Dinov2Config,
    "vit": ViTConfig,
}


def tiny_text_config(name: str = "gpt2", **kwargs) -> PreTrainedConfig:
    """Make a tiny configuration of a language model of `TEXT_CONFIGS`."""
    model_type, fields = TEXT_CONFIGS[name]
    return AutoConfig.for_model(model_type, **{**fields, **kwargs})


def tiny_vision_config(name: str = "clip", **kwargs) -> PreTrainedConfig:
    """Make a tiny configuration of a vision encoder of `VISION_CONFIGS`."""
    return VISION_CONFIGS[name](**{**_VISION, **kwargs})


def tiny_config(
    text: str = "gpt2",
    vision: str = "clip",
    *,
    text_kwargs: dict | None = None,
    vision_kwargs: dict | None = None,
    **kwargs,
) -> FlamingoConfig:
    """Make a tiny configuration of a Flamingo; `kwargs` are fields of it."""
    fields = {
        "cross_attention_num_heads": 2,
        "cross_attention_head_dim": 8,
        "resampler_num_layers": 2,
        "resampler_num_latents": 5,
        "resampler_num_heads": 2,
        "resampler_head_dim": 8,
        "resampler_num_frames": 4,
        "image_token_id": IMAGE,
        "end_of_chunk_token_id": END_OF_CHUNK,
    }
    return FlamingoConfig.from_vision_text_configs(
        tiny_vision_config(vision, **(vision_kwargs or {})),
        tiny_text_config(text, **(text_kwargs or {})),
        **{**fields, **kwargs},
    )


def open_gates(model: FlamingoModel, value: float = 0.5) -> FlamingoModel:
    """Set all gates to a value, in place, and return the model."""
    with torch.no_grad():
        for block in model.gated_cross_attention:
            for gate in (block.attn_gate, block.ffn_gate):
                if gate is not None:
                    gate.fill_(value)
    return model


def tiny_flamingo(text: str = "gpt2", vision: str = "clip", *, seed: int = 0, gates: float = 0.5, **kwargs):
    """Build a tiny random model in evaluation mode, with open gates."""
    torch.manual_seed(seed)
    return open_gates(FlamingoModel(tiny_config(text, vision, **kwargs)), gates).eval()


def random_images(*shape: int, seed: int = 0) -> torch.Tensor:
    """Draw pixels `(*shape, 3, H, W)`."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, 3, IMAGE_SIZE, IMAGE_SIZE, generator=generator)


def prompt(*rows: str, seed: int = 0) -> torch.LongTensor:
    """
    Return ids `(B, T)` of texts written as letters: `I` is `<image>`, `E` is `<|endofchunk|>`, `_` is padding, and any other
    letter is a word (the same letter is the same word).
    """
    letters = {"I": IMAGE, "E": END_OF_CHUNK, "_": PAD}
    return torch.tensor([[letters.get(c, 3 + (ord(c) * 7 + seed) % 90) for c in row] for row in rows])


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Make a tokenizer of the words `w3` to `w96`, whose ids are their numbers; `<|endofchunk|>` and `<image>` will be 97 and 98."""
    words = ["<pad>", "<bos>", "<eos>", *(f"w{i}" for i in range(3, END_OF_CHUNK))]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="w3"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="w3"
    )


def tiny_processor() -> FlamingoProcessor:
    """Make the processor of `tiny_flamingo`."""
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return FlamingoProcessor(CLIPImageProcessorPil(size=size, crop_size=size), tiny_tokenizer())
