# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Read MosaicGPT, the first form of MPT: `mpt-1b-redpajama-200b` and its `-dolly`, the language models of OpenFlamingo-3B.

It is an MPT with layer norm of queries and keys (QK norm), under other names. transformers does not support it, and its own
code on the Hub (mosaic_gpt.py) no longer runs.
"""

import re
from typing import Any

from transformers import MptConfig


_RENAMED_MODULES = {
    "ln_1": "norm_1",
    "ln_2": "norm_2",
    "attn.q_ln": "attn.Wqkv.q_ln",
    "attn.k_ln": "attn.Wqkv.k_ln",
    "mlp.mlp_up": "ffn.up_proj",
    "mlp.mlp_down": "ffn.down_proj",
}


def is_mosaic_gpt(config: dict[str, Any]) -> bool:
    """Tell whether the values of a config.json are those of a MosaicGPT."""
    return config.get("model_type") == "mosaic_gpt"


def mosaic_gpt_config(values: dict[str, Any]) -> MptConfig:
    """
    Return the config of the MPT that computes the same as a MosaicGPT.

    Args:
        values (`dict[str, Any]`): Values of the config.json of the MosaicGPT.

    Raises:
        ValueError: it has a setting that transformers' MPT does not support, so the outputs would be wrong.
    """
    supported = {
        "alibi": True,
        "alibi_bias_max": 8,
        "attn_clip_qkv": None,
        "embedding_fraction": 1.0,
        "logit_scale": None,
        "mlp_ratio": 4,
        "no_bias": True,
        "prefix_lm": False,
    }
    unsupported = {name: values[name] for name, value in supported.items() if values.get(name, value) != value}
    if unsupported:
        raise ValueError(
            f"This MosaicGPT has {unsupported}, but transformers' MPT supports only "
            f"{ ({name: supported[name] for name in unsupported}) }: its outputs would be wrong. Pass another `text` (--text)."
        )
    return MptConfig(
        d_model=values["d_model"],
        n_heads=values["n_heads"],
        n_layers=values["n_layers"],
        max_seq_len=values["max_seq_len"],
        vocab_size=values["vocab_size"],
        attn_config={
            "alibi": True,
            "qk_ln": values.get("attn_qk_ln", False),
            "softmax_scale": values.get("softmax_scale"),
        },
    )


def mosaic_gpt_key(key: str) -> str:
    """Return the name of a weight of MosaicGPT in transformers' MPT. The QK norms have those of [`MptQKNorm`]."""
    key = key.removeprefix("model.")  # MosaicML's training code (llm-foundry) adds it
    key = key.replace("transformer.ln_f.", "transformer.norm_f.")
    if match := re.fullmatch(r"(transformer\.blocks\.\d+)\.(.+)\.(weight|bias)", key):
        return f"{match[1]}.{_RENAMED_MODULES.get(match[2], match[2])}.{match[3]}"
    return key
