# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Name the weights of a checkpoint: first as its peer names them, whatever the training wrapped them in, then as our model does.

The tables follow the peers' code: the resampler and the gated blocks of open_flamingo/src/helpers.py (OpenFlamingo) and
flamingo_mini/perceiver_resampler.py and gated_cross_attention.py (flamingo-mini), modeling_otter.py (Otter), and
open_clip/transformer.py (open_clip).
"""

import re
from collections.abc import Callable, Iterable

from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key

from ..utils.weight_files import MERGE_ADAPTER
from .mosaic_gpt import mosaic_gpt_key


# Parts that DataParallel, torch.compile, FSDP and activation checkpointing add to names.
_WRAPPERS = re.compile(
    r"(?<![^.])(?:module|_orig_mod|_forward_module|_fsdp_wrapped_module|_checkpoint_wrapped_module|_ddp_module)\."
)
_ADAPTERS = re.compile(
    r"(?<![^.])(lora_\w+|base_layer|modules_to_save|original_module|ia3_\w+|vera_\w+|hada_\w+|lokr_\w+|oft_\w+|boft_\w+|"
    r"prompt_encoder|prompt_embeddings)(\.|$)"
)

# Otter (EvolvingLMMs-Lab, 2023) is OpenFlamingo with other names in the resampler and the gated blocks: pattern ->
# OpenFlamingo's.
OTTER = {
    r"^(perceiver\.layers\.\d+)\.feed_forward\.": r"\1.1.",
    r"^(perceiver\.layers\.\d+)\.(norm_media|norm_latents|to_q|to_kv|to_out)\.": r"\1.0.\2.",
    r"^(lang_encoder\..*gated_cross_attn_layer(?:s\.\d+)?)\.feed_forward\.": r"\1.ff.",
}

# open_clip's vision transformer: pattern -> names in transformers' CLIP. Joined queries, keys and values have three.
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

# Both peers took these parts from the same code (lucidrains/flamingo-pytorch), so their names in a sublayer agree: the peer's
# name -> ours. Joined keys and values have two.
_ATTENTION = {
    "to_q": ["attention.q_proj"],
    "to_k": ["attention.k_proj"],
    "to_v": ["attention.v_proj"],
    "to_kv": ["attention.k_proj", "attention.v_proj"],
    "to_out": ["attention.o_proj"],
}
_FEED_FORWARD = {"0": ["mlp.norm"], "1": ["mlp.fc1"], "3": ["mlp.fc2"]}
_RESAMPLER_LAYER = {
    "0.norm_media": ["norm_features"],
    "0.norm_latents": ["norm_latents"],
    **{f"0.{name}": targets for name, targets in _ATTENTION.items()},
    **{f"1.{name}": targets for name, targets in _FEED_FORWARD.items()},
}
_GATED_BLOCK = {
    "attn.norm": ["norm"],
    **{f"attn.{name}": targets for name, targets in _ATTENTION.items()},
    **{f"{ff}.{name}": targets for ff in ("ff", "ffw") for name, targets in _FEED_FORWARD.items()},
}
_WHOLE_NAMES = ("resampler.latents", "resampler.frame_embeddings", "resampler.norm.weight", "resampler.norm.bias")


def peer_names(keys: Iterable[str], root: str, renames: dict[str, str] | None = None) -> dict[str, str]:
    """
    Return the peer's name for each key of a checkpoint, without wrappers and without a prefix before the model.

    Args:
        keys (`Iterable[str]`): Names in the checkpoint.
        root (`str`): Pattern of the first part of each name of the peer.
        renames (`dict[str, str]`, *optional*): Patterns and their replacements, applied to each name.

    Raises:
        ValueError: the checkpoint holds an adapter, which has to be merged, or more than one model.
    """
    keys = list(keys)
    if adapters := [key for key in keys if _ADAPTERS.search(key)]:
        raise ValueError(
            f"The checkpoint holds an adapter (LoRA or another PEFT method) in {len(adapters)} of its {len(keys)} tensors, such as "
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
            f"The checkpoint holds {len(prefixes)} models, under {', '.join(map(repr, sorted(prefixes)))}; one may be a teacher or "
            "averaged weights. Keep only the keys of the one to convert."
        )
    return names


def open_clip_names(key: str) -> list[str] | None:
    """Return the names in transformers' CLIP vision encoder for a weight of open_clip's; `None` if the key is not one."""
    for pattern, targets in _OPEN_CLIP.items():
        if match := re.fullmatch(pattern, key):
            return [match.expand(target) for target in targets]
    return None


def new_part_targets(part: str, layers: list[int]) -> list[str] | None:
    """
    Return our names for a weight of the resampler or of the gated blocks; `None` if there are none.

    Args:
        part (`str`):
            The peer's name of the weight, where `resampler.` is in front of those of the resampler, and `gated.{i}.` of those of
            the gated block before decoder layer `i`.
        layers (`list[int]`): Decoder layers that have a gated block.
    """
    if match := re.fullmatch(r"(resampler\.layers\.\d+)\.(\d\.\w+)\.(weight|bias)", part):
        prefix, names, table = match[1], match[2], _RESAMPLER_LAYER
    elif match := re.fullmatch(r"gated\.(\d+)\.(\w+\.\w+)\.(weight|bias)", part):
        if int(match[1]) not in layers:
            return None
        prefix, names, table = f"gated_cross_attention.{layers.index(int(match[1]))}", match[2], _GATED_BLOCK
    elif match := re.fullmatch(r"gated\.(\d+)\.(attn_gate|ffn_gate)", part):
        return [f"gated_cross_attention.{layers.index(int(match[1]))}.{match[2]}"] if int(match[1]) in layers else None
    else:
        return [part] if part in _WHOLE_NAMES else None
    return [f"{prefix}.{name}.{match[3]}" for name in table[names]] if names in table else None


def backbone_renamer(model: PreTrainedModel, prefix: str) -> Callable[[str], str]:
    """
    Return a function from the name of a weight of `model` in an old version of transformers to its current name.

    transformers keeps the table of its renames.

    Args:
        model (`PreTrainedModel`): The backbone, which may be on the meta device.
        prefix (`str`): Name of the backbone in [`FlamingoModel`]. It comes before the current name.
    """
    known = model.state_dict()
    renamings = [entry for entry in get_model_conversion_mapping(model) if isinstance(entry, WeightRenaming)]

    def rename(key: str) -> str:
        if key not in known and model.config.model_type == "mpt":
            key = mosaic_gpt_key(key)
        if key not in known:
            key, _ = rename_source_key(key, renamings, [], model.base_model_prefix, known)
        return f"{prefix}.{key}"

    return rename
