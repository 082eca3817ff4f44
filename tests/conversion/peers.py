# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints in the layout of OpenFlamingo, made from a tiny Flamingo that their conversion must reproduce."""

from dataclasses import dataclass
from pathlib import Path

import torch
from factory import prompt, random_images, tiny_flamingo, tiny_processor, tiny_tokenizer

from transformers_flamingo import FlamingoModel


MODULES = {
    "norm_features": "0.norm_media",
    "norm_latents": "0.norm_latents",
    "attention.q_proj": "0.to_q",
    "attention.o_proj": "0.to_out",
    "mlp.norm": "1.0",
    "mlp.fc1": "1.1",
    "mlp.fc2": "1.3",
}
BLOCK_MODULES = {
    "norm": "attn.norm",
    "attention.q_proj": "attn.to_q",
    "attention.o_proj": "attn.to_out",
    "mlp.norm": "ff.0",
    "mlp.fc1": "ff.1",
    "mlp.fc2": "ff.3",
}
# The sizes of heads are fixed in OpenFlamingo.
OPEN_FLAMINGO = {
    "cross_attention_num_heads": 2,
    "cross_attention_head_dim": 64,
    "resampler_num_heads": 2,
    "resampler_head_dim": 64,
    "resampler_num_frames": 0,
}


# family, its list of decoder layers, and embeddings in the checkpoint: the peer's name -> ours
GPT2 = ("gpt2", "transformer.h", {"transformer.wte.weight": "transformer.wte.weight"})
OPT = ("opt", "model.decoder.layers", {"model.decoder.embed_tokens.weight": "model.decoder.embed_tokens.weight"})
LLAMA = ("llama", "model.layers", {"model.embed_tokens.weight": "model.embed_tokens.weight"})
MPT = ("mpt", "transformer.blocks", {"transformer.wte.weight": "transformer.wte.weight"})
GPT_NEOX = (
    "gpt_neox",
    "gpt_neox.layers",
    {"gpt_neox.embed_in.weight": "gpt_neox.embed_in.weight", "embed_out.weight": "lm_head.weight"},
)


def trained_keys(model: FlamingoModel, layers_name: str) -> dict[str, torch.Tensor]:
    """Return the resampler and the gated blocks of a model under OpenFlamingo's names."""
    state = model.state_dict()
    keys = {"perceiver.latents": state["resampler.latents"]}
    keys |= {f"perceiver.norm.{name}": state[f"resampler.norm.{name}"] for name in ("weight", "bias")}
    for i in range(model.config.resampler_num_layers):
        keys |= _sublayers(state, f"resampler.layers.{i}", MODULES, f"perceiver.layers.{i}", "0.to_kv")
    for index, layer in enumerate(model.config.cross_attention_layer_indices):
        ours, theirs = f"gated_cross_attention.{index}", f"lang_encoder.{layers_name}.{layer}.gated_cross_attn_layer"
        keys |= _sublayers(state, ours, BLOCK_MODULES, theirs, "attn.to_kv")
        keys |= {f"{theirs}.attn_gate": state[f"{ours}.attn_gate"], f"{theirs}.ff_gate": state[f"{ours}.ffn_gate"]}
    return {key: value.clone() for key, value in keys.items()}


def _sublayers(state, ours: str, modules: dict[str, str], theirs: str, to_kv: str) -> dict[str, torch.Tensor]:
    keys = {}
    for name, peer_name in modules.items():
        for kind in ("weight", "bias"):
            if f"{ours}.{name}.{kind}" in state:
                keys[f"{theirs}.{peer_name}.{kind}"] = state[f"{ours}.{name}.{kind}"]
    key, value = (state[f"{ours}.attention.{name}.weight"] for name in ("k_proj", "v_proj"))
    return keys | {f"{theirs}.{to_kv}.weight": torch.cat([key, value])}


@dataclass
class OpenFlamingoFiles:
    """A tiny model, and the files from which `convert_open_flamingo` must reproduce it."""

    model: FlamingoModel
    checkpoint: Path
    options: dict


def write_open_flamingo(
    directory: Path, text: str, layers_name: str, embeddings: dict[str, str], every: int = 1, **kwargs
) -> OpenFlamingoFiles:
    """
    Write the checkpoint and the backbones of a tiny model in OpenFlamingo's layout.

    Args:
        directory (`Path`): Folder for all files.
        text (`str`): Family of the language model.
        layers_name (`str`): The peer's name of the list of decoder layers.
        embeddings (`dict[str, str]`): The peer's names of embeddings in the checkpoint -> ours.
        every (`int`, *optional*, defaults to 1): Interval of the gated blocks in decoder layers.
        **kwargs: Other fields of the config.
    """
    model = tiny_flamingo(text, cross_attention_every_n_layers=every, **OPEN_FLAMINGO, **kwargs)
    with torch.no_grad():
        for parameter in [*model.resampler.parameters(), *model.gated_cross_attention.parameters()]:
            parameter.add_(0.1 * torch.randn_like(parameter))  # so that norms and gates differ
    state = model.state_dict()
    keys = trained_keys(model, layers_name)
    keys |= {f"lang_encoder.{theirs}": state[f"language_model.{ours}"].clone() for theirs, ours in embeddings.items()}
    torch.save(keys, directory / "checkpoint.pt")
    model.language_model.save_pretrained(directory / "text")
    model.vision_model.save_pretrained(directory / "vision")
    tiny_processor().image_processor.save_pretrained(directory / "vision")
    tiny_tokenizer().save_pretrained(directory / "tokenizer")
    options = {name: directory / name for name in ("vision", "text", "tokenizer")}
    return OpenFlamingoFiles(model, directory / "checkpoint.pt", {**options, "cross_attention_every_n_layers": every})


def logits_of(model):
    """Return the logits of a fixed prompt with two images, `(B, T, V)`."""
    with torch.no_grad():
        return model(prompt("aIbcEIde"), pixel_values=random_images(1, 2)).logits


def rewrite(path, change):
    """Rewrite a checkpoint with the dict that `change` returns, or that it changed in place."""
    keys = torch.load(path, weights_only=True)
    keys = change(keys) or keys
    torch.save(keys, path)


def open_clip_keys(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the weights of a CLIP vision encoder under the names of open_clip's `VisionTransformer`."""
    keys = {
        "class_embedding": state["embeddings.class_embedding"],
        "conv1.weight": state["embeddings.patch_embedding.weight"],
        "positional_embedding": state["embeddings.position_embedding.weight"],
        "proj": torch.ones(24, 16),
    }
    for kind in ("weight", "bias"):
        keys |= {f"ln_pre.{kind}": state[f"pre_layrnorm.{kind}"], f"ln_post.{kind}": state[f"post_layernorm.{kind}"]}
        for i in range(sum(name.endswith("fc1.weight") for name in state)):
            ours, theirs = f"encoder.layers.{i}", f"transformer.resblocks.{i}"
            joined = torch.cat([state[f"{ours}.self_attn.{name}_proj.{kind}"] for name in "qkv"])
            keys |= {
                f"{theirs}.attn.in_proj_{kind}": joined,
                f"{theirs}.attn.out_proj.{kind}": state[f"{ours}.self_attn.out_proj.{kind}"],
                f"{theirs}.ln_1.{kind}": state[f"{ours}.layer_norm1.{kind}"],
                f"{theirs}.ln_2.{kind}": state[f"{ours}.layer_norm2.{kind}"],
                f"{theirs}.mlp.c_fc.{kind}": state[f"{ours}.mlp.fc1.{kind}"],
                f"{theirs}.mlp.c_proj.{kind}": state[f"{ours}.mlp.fc2.{kind}"],
            }
    return {name: tensor.clone() for name, tensor in keys.items()}
