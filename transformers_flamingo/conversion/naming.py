# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Give the weights of a checkpoint the names that the reader of its peer knows, whatever the training wrapped them in."""

import re
from collections.abc import Iterable

from ..utils.weight_files import MERGE_ADAPTER


# What DataParallel, torch.compile, FSDP and activation checkpointing put into names.
_WRAPPERS = re.compile(
    r"(?<![^.])(?:module|_orig_mod|_forward_module|_fsdp_wrapped_module|_checkpoint_wrapped_module|_ddp_module)\."
)
_ADAPTERS = re.compile(
    r"(?<![^.])(lora_\w+|base_layer|modules_to_save|original_module|ia3_\w+|vera_\w+|hada_\w+|lokr_\w+|oft_\w+|boft_\w+|"
    r"prompt_encoder|prompt_embeddings)(\.|$)"
)

# Otter (EvolvingLMMs-Lab, 2023) is OpenFlamingo with other names in its two new parts: pattern -> OpenFlamingo's.
OTTER = {
    r"^(perceiver\.layers\.\d+)\.feed_forward\.": r"\1.1.",
    r"^(perceiver\.layers\.\d+)\.(norm_media|norm_latents|to_q|to_kv|to_out)\.": r"\1.0.\2.",
    r"^(lang_encoder\..*gated_cross_attn_layer(?:s\.\d+)?)\.feed_forward\.": r"\1.ff.",
}

# open_clip's vision transformer: pattern -> names in transformers' CLIP. Joined queries, keys and values are three.
_OPEN_CLIP = {
    r"class_embedding": ["embeddings.class_embedding"],
    r"conv1\.weight": ["embeddings.patch_embedding.weight"],
    r"positional_embedding": ["embeddings.position_embedding.weight"],
    r"ln_pre\.(weight|bias)": [r"pre_layrnorm.\1"],
    r"ln_post\.(weight|bias)": [r"post_layernorm.\1"],
    r"transformer\.resblocks\.(\d+)\.ln_([12])\.(weight|bias)": [r"encoder.layers.\1.layer_norm\2.\3"],
    r"transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)": [
        rf"encoder.layers.\1.self_attn.{name}_proj.\2" for name in "qkv"
    ],
    r"transformer\.resblocks\.(\d+)\.attn\.out_proj\.(weight|bias)": [r"encoder.layers.\1.self_attn.out_proj.\2"],
    r"transformer\.resblocks\.(\d+)\.mlp\.c_fc\.(weight|bias)": [r"encoder.layers.\1.mlp.fc1.\2"],
    r"transformer\.resblocks\.(\d+)\.mlp\.c_proj\.(weight|bias)": [r"encoder.layers.\1.mlp.fc2.\2"],
}


def peer_names(keys: Iterable[str], root: str, renames: dict[str, str] | None = None) -> dict[str, str]:
    """
    Return the peer's own name for each key of a checkpoint: without wrappers, and without what comes before the model.

    Args:
        keys (`Iterable[str]`): Names in the checkpoint.
        root (`str`): Pattern of a part that each name of the peer begins with.
        renames (`dict[str, str]`, *optional*): Patterns and what to replace them by.

    Raises:
        ValueError: there is an adapter in the checkpoint, which has to be merged, or more than one model.
    """
    keys = list(keys)
    if adapters := [key for key in keys if _ADAPTERS.search(key)]:
        raise ValueError(
            f"The checkpoint holds an adapter (LoRA or another one of peft) in {len(adapters)} of its {len(keys)} tensors, such as "
            f"{adapters[0]}. {MERGE_ADAPTER}"
        )
    names, prefixes = {}, set()
    for key in keys:
        name = _WRAPPERS.sub("", key)
        if match := re.search(rf"(?<![^.])(?:{root})", name):
            prefixes.add(name[: match.start()])
            name = name[match.start() :]
        for pattern, replacement in (renames or {}).items():
            name = re.sub(pattern, replacement, name)
        names[key] = name
    if len(prefixes) > 1:
        raise ValueError(
            f"The checkpoint holds {len(prefixes)} models, under {', '.join(map(repr, sorted(prefixes)))}, perhaps a teacher or "
            "averaged weights. Keep the keys of the one to convert."
        )
    return names


def open_clip_names(key: str) -> list[str] | None:
    """Return the names in transformers' CLIP vision encoder of a weight of open_clip's, `None` for another key."""
    for pattern, targets in _OPEN_CLIP.items():
        if match := re.fullmatch(pattern, key):
            return [match.expand(target) for target in targets]
    return None
