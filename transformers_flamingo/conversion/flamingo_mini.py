# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints of flamingo-mini (David Hansmair, 2023): `dhansmair/flamingo-mini`, `dhansmair/flamingo-tiny`."""

import os
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.utils import CONFIG_NAME, cached_file

from ..cards.model_card import FlamingoModelCardData
from ..configuration_flamingo import FlamingoConfig
from ..processing_flamingo import FlamingoProcessor
from ..utils.weight_files import read_json, read_pretrained_tensors
from . import conversion, writing
from .conversion import MappedKey
from .naming import peer_names


ROOT = r"flamingo\.(?:lm|lm_head|resampler|vision_encoder)\."  # each key begins so
END_OF_CHUNK_TOKEN = "<EOC>"
MAX_SIZE = 100_000  # of any setting of a config
ACTIVATIONS = {"gelu": "gelu", "relu": "relu", "sqrelu": "relu2"}
# What the config of an older model may lack.
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
    "`<image>` is ordinary text and not a token of this model, and every token `<`, with or without a space before it, marks "
    "an image: a text that comes with images cannot hold any other `<`. Without images `<` is only a sign.",
    "The end of a chunk is `<EOC>`.",
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
    Turn a flamingo-mini model into a directory for `AutoModelForImageTextToText.from_pretrained`.

    The result has the original's ids, image locations and logits, from the same text and pixels. Two things differ on
    purpose: a batch is padded on the left by default, as generation needs, and left padding does not move positions.

    flamingo-mini has no image token: it reads `<image>` as ordinary text and takes every `<` for an image. So does the
    result (`image_token_ids` of its config, `image_token_is_text` of its processor), at that price: a text that is
    given together with images cannot hold any other `<`, and more `<` than images is an error, where flamingo-mini
    let the text after it attend to all images alike. Without images `<` is only a sign, as it was.

    Args:
        source (`str` or `os.PathLike`): Name or directory of the model: what its `save_pretrained` wrote.
        output_dir (`str` or `os.PathLike`): The directory to write. It must not exist, or be empty.
        vision, text (`str` or `os.PathLike`, *optional*):
            Name or directory of the backbones. By default what the model's config names. All weights are in `source`;
            of the backbones only the configs, the image processor and the tokenizer are read.
        tokenizer (`str` or `os.PathLike`, *optional*): Name or directory of the tokenizer; that of `text` by default.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`): What to write.
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
    settings = _read_settings(source)
    vision, text = vision or settings["clip_model_type"], text or settings["lm"]
    # Its processor takes one tokenizer for all sizes; they are equal.
    tokenizer = tokenizer or text

    with nullcontext() if dry_run else writing.new_directory(output_dir) as directory:
        source_tensors, names = _read(source)
        with conversion.reading("vision", vision):
            vision_config = conversion.load_vision_config(vision)
            image_processor = conversion.load_image_processor(vision, vision_config)
        with conversion.reading("text", text):
            text_config = conversion.load_text_config(text)
        with conversion.reading("tokenizer", tokenizer):
            text_tokenizer = conversion.load_tokenizer(tokenizer)
        text_tokenizer.pad_token = text_tokenizer.eos_token
        processor = FlamingoProcessor(
            image_processor, text_tokenizer, end_of_chunk_token=END_OF_CHUNK_TOKEN, image_token_is_text=True
        )

        config = _make_config(settings, source_tensors, vision_config, text_config, processor, dtype)
        conversion.check_rows(config, len(text_tokenizer), num_unpadded=1)  # `<EOC>` after the language model's rows
        model = conversion.meta_model(config)
        writing.check_space(directory, model, dtype)
        targets = _Targets(
            layers=config.cross_attention_layer_indices,
            rename_text=conversion.backbone_renamer(model.language_model, "language_model"),
            rename_vision=conversion.backbone_renamer(model.vision_model, "vision_model"),
            text_prefix=model.language_model.base_model_prefix,
        )
        _, head = conversion.embedding_names(model.language_model)
        tied = {head} if config.tie_word_embeddings else set()
        tensors, table = conversion.map_tensors(source_tensors, targets, model, lambda name: name not in tied)
        table = [row._replace(source=names[row.source]) for row in table]
        if dry_run:
            return table

        conversion.fill(model, tensors, dtype)
        name = str(source) if not Path(source).exists() else Path(source).name
        card = FlamingoModelCardData.from_model(
            model,
            vision_name=str(vision),
            text_name=str(text),
            source=f"the flamingo-mini checkpoint {name}",
            notes=NOTES,
        )
        writing.write(directory, model, processor, card)
        return table


def _read_settings(source: str | os.PathLike) -> dict[str, Any]:
    """Return the config of a flamingo-mini model, with what older ones lack."""
    with conversion.reading("source", source):
        settings = DEFAULTS | read_json(cached_file(source, CONFIG_NAME))
    lacking = sorted({"lm", "clip_model_type"} - settings.keys())
    if lacking:
        raise ValueError(f"{source} is not a flamingo-mini model: its {CONFIG_NAME} lacks {', '.join(lacking)}.")
    for name, default in (DEFAULTS | {"lm": "", "clip_model_type": ""}).items():
        value = settings[name]
        if type(value) is not type(default) or (isinstance(value, int) and not 1 <= value <= MAX_SIZE):
            kind = "text" if isinstance(default, str) else f"a whole number from 1 to {MAX_SIZE}"
            raise ValueError(
                f"`{name}` is {value!r} in the {CONFIG_NAME} of {source}, but must be {kind}. Fix the file."
            )
    return settings


def _read(source: str | os.PathLike) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the tensors of a model under flamingo-mini's names, and for each of these the name that it has in the file."""
    with conversion.reading("source", source):
        tensors = read_pretrained_tensors(source, ROOT)
    found = peer_names(tensors, ROOT)
    if len(set(found.values())) < len(found):
        raise ValueError(f"{source} has two tensors of one name, once with the prefixes of a wrapper. Remove one.")
    return {name: tensors[key] for key, name in found.items()}, {name: key for key, name in found.items()}


@dataclass
class _Targets:
    """Our names for the keys of a flamingo-mini model."""

    layers: list[int]
    rename_text: Callable[[str], str]
    rename_vision: Callable[[str], str]
    text_prefix: str  # the decoder's name in today's causal language model: flamingo-mini took it out

    def __call__(self, key: str) -> list[str] | None:
        if not key.startswith("flamingo."):
            return None
        key = key.removeprefix("flamingo.")
        if key.startswith("resampler."):
            part = key.replace("resampler.time_pos_emb", "resampler.frame_embeddings")
            return conversion.new_part_targets(part, self.layers)
        if block := re.fullmatch(r"lm\..+\.(\d+)\.xattn_block\.(.+)", key):
            part = {"alpha_attn": "attn_gate", "alpha_ffw": "ffn_gate"}.get(block[2], block[2])
            return conversion.new_part_targets(f"gated.{block[1]}.{part}", self.layers)
        if key.startswith("vision_encoder."):
            return [self.rename_vision(key.removeprefix("vision_encoder."))]
        if key.startswith("lm."):
            return [self.rename_text(key.replace("lm.", f"{self.text_prefix}.", 1).replace(".lm_block.", "."))]
        return [self.rename_text(key)] if key == "lm_head.weight" else None


def _make_config(
    settings: dict,
    source: dict[str, torch.Tensor],
    vision_config: PreTrainedConfig,
    text_config: PreTrainedConfig,
    processor: FlamingoProcessor,
    dtype: torch.dtype,
) -> FlamingoConfig:
    """The config of the model that flamingo-mini's own config describes."""
    head = source.get("flamingo.lm_head.weight")
    if head is None:
        raise ValueError("The file has no key flamingo.lm_head.weight: it is not a flamingo-mini model.")
    text_config.vocab_size = len(head)
    language_model = conversion.meta_language_model(text_config)
    # flamingo-mini copied the output embedding and trained both: they are one only if they stayed equal.
    module = language_model.get_input_embeddings()
    name = conversion.module_name(language_model.base_model, module)
    text_config.tie_word_embeddings = torch.equal(head, source.get(f"flamingo.lm.{name}.weight", head))
    text_config.dtype = dtype
    for name in ("xattn_act", "resampler_act"):
        if settings[name] not in ACTIVATIONS:
            raise ValueError(f"`{name}` is {settings[name]!r}, but flamingo-mini has {', '.join(ACTIVATIONS)}.")
    return conversion.make_config(
        vision_config=vision_config,
        text_config=text_config,
        cross_attention_layers=list(range(0, text_config.num_hidden_layers, settings["xattn_every"])),
        cross_attention_num_heads=settings["xattn_heads"],
        cross_attention_head_dim=settings["xattn_dim_head"],
        cross_attention_ffn_mult=settings["xattn_ff_mult"],
        cross_attention_activation=ACTIVATIONS[settings["xattn_act"]],
        resampler_num_layers=settings["resampler_depth"],
        resampler_num_latents=settings["resampler_num_latents"],
        resampler_num_heads=settings["resampler_heads"],
        resampler_head_dim=settings["resampler_dim_head"],
        resampler_ffn_mult=settings["resampler_ff_mult"],
        resampler_activation=ACTIVATIONS[settings["resampler_act"]],
        resampler_num_frames=settings["resampler_num_time_embeds"],
        vision_feature_select_strategy="full",
        image_token_id=processor.image_token_id,
        image_token_ids=processor.image_token_ids,
        end_of_chunk_token_id=processor.end_of_chunk_token_id,
        pad_token_id=processor.tokenizer.pad_token_id,
    )
