# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Convert checkpoints of flamingo-mini (David Hansmair, 2023): `dhansmair/flamingo-mini`, `dhansmair/flamingo-tiny`.

Keys and settings are those of its code: flamingo_mini/modeling_flamingo.py and configuration_flamingo.py, and
flamingo_processor.py for the tokenizer.
"""

import os
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers.utils import CONFIG_NAME, cached_file

from ..cards.model_card import FlamingoModelCardData
from ..configuration_flamingo import FlamingoConfig
from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor
from ..utils.weight_files import read_json, read_pretrained_tensors
from .backbones import BackboneSettings, check_tokenizer_size, load_backbone_settings
from .building import assign_weights, embedding_names, make_config, meta_language_model, meta_model, module_name
from .errors import name_option_in_errors
from .mapping import MappedKey, map_tensors
from .naming import backbone_renamer, new_part_targets, peer_names
from .writing import check_space, new_directory, save_converted


ROOT = r"flamingo\.(?:lm|lm_head|resampler|vision_encoder)\."  # each key begins with it
END_OF_CHUNK_TOKEN = "<EOC>"
MAX_SIZE = 100_000  # maximum of each setting of a config: larger ones would take any amount of memory
ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "sqrelu": "relu2"}
# Settings that the config of an older model may lack, with the defaults of flamingo-mini's configuration_flamingo.py.
DEFAULTS = {
    "xattn_every": 1,
    "xattn_dim_head": 64,
    "xattn_heads": 8,
    "xattn_ff_mult": 4,
    "xattn_act": "gelu",
    "resampler_depth": 6,
    "resampler_dim_head": 64,
    "resampler_heads": 8,
    "resampler_num_latents": 64,
    "resampler_num_time_embeds": 4,
    "resampler_ff_mult": 4,
    "resampler_act": "gelu",
}

NOTES = [
    "This model has no image token: `<image>` is ordinary text, and every token `<`, with or without a space before it, marks "
    "an image. Text that accompanies images must not contain any other `<`. Without images `<` is an ordinary character.",
    "Chunks end with `<EOC>`.",
]


def convert_flamingo_mini(
    source: str | os.PathLike,
    output_dir: str | os.PathLike,
    *,
    vision: str | os.PathLike | None = None,
    text: str | os.PathLike | None = None,
    tokenizer: str | os.PathLike | None = None,
    dtype: torch.dtype = torch.float32,
    dry_run: bool = False,
) -> list[MappedKey]:
    """
    Convert a flamingo-mini model to a directory for `AutoModelForImageTextToText.from_pretrained`.

    The converted model reproduces the original ids, image locations and logits for the same text and pixels. Two things
    differ on purpose: a batch is padded on the left by default, as generation needs, and left padding does not shift
    positions.

    flamingo-mini has no image token: it reads `<image>` as ordinary text and takes every `<` for an image. The converted
    model keeps this behavior (`image_token_ids` of its config, `image_token_is_text` of its processor), with the same
    limitation: text that accompanies images must not contain any other `<`. More `<` than images is an error, where
    flamingo-mini lets the text after it attend to all images. Without images `<` is an ordinary character, as in
    flamingo-mini.

    Args:
        source (`str` or `os.PathLike`): Name or directory of the model, as its `save_pretrained` wrote it.
        output_dir (`str` or `os.PathLike`): The directory to write. It must be empty if it exists.
        vision, text (`str` or `os.PathLike`, *optional*):
            Names or directories of the backbones; by default those that the model's config names. All weights are in
            `source`, so only the configs, the image processor and the tokenizer of the backbones are read.
        tokenizer (`str` or `os.PathLike`, *optional*): Name or directory of the tokenizer; that of `text` by default.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): The dtype to write.
        dry_run (`bool`, *optional*, defaults to `False`): Check everything and write nothing.

    Returns:
        `list[MappedKey]`: the mapping table, `(source, target, shape, reason)` for each tensor of the checkpoint.

    Raises:
        ValueError: the checkpoint is damaged or does not fit the backbones.
        OSError: a file or directory cannot be read.
        FileExistsError: `output_dir` is not empty, a file, or the current directory.
    """
    if Path(source).is_file():
        raise ValueError(f"{source} is a file. Pass the directory or Hub name of a model that flamingo-mini saved.")
    peer_config = _read_peer_config(source)
    vision, text = vision or peer_config["clip_model_type"], text or peer_config["lm"]
    with nullcontext() if dry_run else new_directory(output_dir) as directory:
        source_tensors, names = _read_checkpoint(source)
        # flamingo-mini's processor has one tokenizer for all sizes of the language model. Those of all sizes are equal.
        settings = load_backbone_settings(vision, text, tokenizer or text)
        settings.tokenizer.pad_token = settings.tokenizer.eos_token
        processor = FlamingoProcessor(
            settings.image_processor,
            settings.tokenizer,
            end_of_chunk_token=END_OF_CHUNK_TOKEN,
            chat_template="few_shot",
            image_token_is_text=True,
        )
        config = _make_config(peer_config, source_tensors, settings, processor, dtype)
        check_tokenizer_size(config, len(settings.tokenizer), num_unpadded=1)  # `<EOC>`, after the rows of `text`
        model = meta_model(config)
        check_space(directory, model, dtype)

        _, head = embedding_names(model.language_model)
        tied = {head} if config.tie_word_embeddings else set()
        tensors, table = map_tensors(source_tensors, _Targets.from_model(model), model, lambda name: name not in tied)
        table = [row._replace(source=names[row.source]) for row in table]
        if dry_run:
            return table

        assign_weights(model, tensors, dtype)
        name = str(source) if not Path(source).exists() else Path(source).name  # a local path is not published
        card = FlamingoModelCardData.from_model(
            model,
            vision_name=str(vision),
            text_name=str(text),
            source=f"the flamingo-mini checkpoint {name}",
            notes=NOTES,
        )
        save_converted(directory, model, processor, card)
        return table


def _read_peer_config(source: str | os.PathLike) -> dict[str, Any]:
    """Read the config of a flamingo-mini model, with defaults for settings that an older one lacks."""
    with name_option_in_errors("source", source):
        config_file = cached_file(source, CONFIG_NAME)
        if config_file is None:
            raise ValueError(
                f"{str(source)!r} has no {CONFIG_NAME}, so it is not a saved flamingo-mini model. Pass its folder or Hub name."
            )
        peer_config = DEFAULTS | read_json(config_file)
    lacking = sorted({"lm", "clip_model_type"} - peer_config.keys())
    if lacking:
        raise ValueError(f"{source} is not a flamingo-mini model: its {CONFIG_NAME} lacks {', '.join(lacking)}.")
    for name, default in (DEFAULTS | {"lm": "", "clip_model_type": ""}).items():
        value = peer_config[name]
        if type(value) is not type(default) or (isinstance(value, int) and not 1 <= value <= MAX_SIZE):
            kind = "text" if isinstance(default, str) else f"a whole number from 1 to {MAX_SIZE}"
            raise ValueError(
                f"`{name}` is {value!r} in the {CONFIG_NAME} of {source}, but must be {kind}. Fix the file."
            )
    return peer_config


def _read_checkpoint(source: str | os.PathLike) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """
    Read the weights of a model.

    Returns:
        The tensors under flamingo-mini's names, and the name in the file for each of flamingo-mini's.
    """
    with name_option_in_errors("source", source):
        tensors = read_pretrained_tensors(source, ROOT)
    found = peer_names(tensors, ROOT)
    if len(set(found.values())) < len(found):
        raise ValueError(
            f"{source} has two tensors of the same name, one of them with the prefix of a wrapper. Remove one."
        )
    return {name: tensors[key] for key, name in found.items()}, {name: key for key, name in found.items()}


@dataclass
class _Targets:
    """
    Function from the keys of a flamingo-mini model to the names of our model (see [`map_tensors`]).

    Attributes:
        layers (`list[int]`): Decoder layers that have a gated block.
        rename_text, rename_vision (`Callable[[str], str]`): Functions from a name in a backbone to that in our model.
        text_prefix (`str`): Name of the decoder in the causal language model. flamingo-mini saves only the decoder.
    """

    layers: list[int]
    rename_text: Callable[[str], str]
    rename_vision: Callable[[str], str]
    text_prefix: str

    @classmethod
    def from_model(cls, model: FlamingoModel) -> "_Targets":
        """Make the function for a model, which may be on the meta device."""
        return cls(
            layers=model.config.cross_attention_layer_indices,
            rename_text=backbone_renamer(model.language_model, "language_model"),
            rename_vision=backbone_renamer(model.vision_model, "vision_model"),
            text_prefix=model.language_model.base_model_prefix,
        )

    def __call__(self, key: str) -> list[str] | None:
        """Return our names for a key, or `None` if it is unknown."""
        if not key.startswith("flamingo."):
            return None
        key = key.removeprefix("flamingo.")
        if key.startswith("resampler."):
            part = key.replace("resampler.time_pos_emb", "resampler.frame_embeddings")
            return new_part_targets(part, self.layers)
        if block := re.fullmatch(r"lm\..+\.(\d+)\.xattn_block\.(.+)", key):
            part = {"alpha_attn": "attn_gate", "alpha_ffw": "ffn_gate"}.get(block[2], block[2])
            return new_part_targets(f"gated.{block[1]}.{part}", self.layers)
        if key.startswith("vision_encoder."):
            return [self.rename_vision(key.removeprefix("vision_encoder."))]
        if key.startswith("lm."):
            return [self.rename_text(key.replace("lm.", f"{self.text_prefix}.", 1).replace(".lm_block.", "."))]
        return [self.rename_text(key)] if key == "lm_head.weight" else None


def _make_config(
    peer_config: dict[str, Any],
    source: dict[str, torch.Tensor],
    settings: BackboneSettings,
    processor: FlamingoProcessor,
    dtype: torch.dtype,
) -> FlamingoConfig:
    """Make the config of the model from flamingo-mini's config and the checkpoint's embeddings."""
    head = source.get("flamingo.lm_head.weight")
    if head is None:
        raise ValueError("The file has no key flamingo.lm_head.weight: it is not a flamingo-mini model.")
    text_config = settings.text_config
    text_config.vocab_size = len(head)
    language_model = meta_language_model(text_config)
    # flamingo-mini copies the output embedding and trains both, so they are tied only if they stayed equal.
    name = module_name(language_model.base_model, language_model.get_input_embeddings())
    text_config.tie_word_embeddings = torch.equal(head, source.get(f"flamingo.lm.{name}.weight", head))
    text_config.dtype = dtype
    for name in ("xattn_act", "resampler_act"):
        if peer_config[name] not in ACTIVATIONS:
            raise ValueError(
                f"`{name}` is {peer_config[name]!r}, but flamingo-mini has {', '.join(ACTIVATIONS)}. Fix its {CONFIG_NAME}."
            )
    return make_config(
        vision_config=settings.vision_config,
        text_config=text_config,
        cross_attention_layers=list(range(0, text_config.num_hidden_layers, peer_config["xattn_every"])),
        cross_attention_num_heads=peer_config["xattn_heads"],
        cross_attention_head_dim=peer_config["xattn_dim_head"],
        cross_attention_ffn_mult=peer_config["xattn_ff_mult"],
        cross_attention_activation=ACTIVATIONS[peer_config["xattn_act"]],
        resampler_num_layers=peer_config["resampler_depth"],
        resampler_num_latents=peer_config["resampler_num_latents"],
        resampler_num_heads=peer_config["resampler_heads"],
        resampler_head_dim=peer_config["resampler_dim_head"],
        resampler_ffn_mult=peer_config["resampler_ff_mult"],
        resampler_activation=ACTIVATIONS[peer_config["resampler_act"]],
        resampler_num_frames=peer_config["resampler_num_time_embeds"],
        vision_feature_select_strategy="full",
        image_token_id=processor.image_token_id,
        image_token_ids=processor.image_token_ids,
        end_of_chunk_token_id=processor.end_of_chunk_token_id,
        pad_token_id=processor.tokenizer.pad_token_id,
    )
