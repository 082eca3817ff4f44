# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints of OpenFlamingo (mlfoundations, 2023)."""

import os
import re
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

import torch
from huggingface_hub import hf_hub_download
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from ..configuration_flamingo import FlamingoConfig
from ..image_processing_flamingo import FlamingoImageProcessor
from ..model_card import FlamingoModelCardData
from ..modeling_flamingo import FlamingoModel, find_decoder_layers
from ..processing_flamingo import FlamingoProcessor
from . import conversion
from .conversion import MappedKey


logger = logging.get_logger(__name__)


class Release(NamedTuple):
    """What a released checkpoint was trained with."""

    text: str
    cross_attention_every_n_layers: int
    vision: str = "openai/clip-vit-large-patch14"


RELEASES = {
    "openflamingo/OpenFlamingo-3B-vitl-mpt1b": Release("anas-awadalla/mpt-1b-redpajama-200b", 1),
    "openflamingo/OpenFlamingo-3B-vitl-mpt1b-langinstruct": Release("anas-awadalla/mpt-1b-redpajama-200b-dolly", 1),
    "openflamingo/OpenFlamingo-4B-vitl-rpj3b": Release("togethercomputer/RedPajama-INCITE-Base-3B-v1", 2),
    "openflamingo/OpenFlamingo-4B-vitl-rpj3b-langinstruct": Release(
        "togethercomputer/RedPajama-INCITE-Instruct-3B-v1", 2
    ),
    "openflamingo/OpenFlamingo-9B-vitl-mpt7b": Release("anas-awadalla/mpt-7b", 4),
}
CHECKPOINT_NAME = "checkpoint.pt"

# What open_clip calls MODEL/PRETRAINING, where the Hub has the same weights for transformers.
OPEN_CLIP_NAMES = {
    "ViT-B-32/openai": "openai/clip-vit-base-patch32",
    "ViT-B-16/openai": "openai/clip-vit-base-patch16",
    "ViT-L-14/openai": "openai/clip-vit-large-patch14",
    "ViT-L-14-336/openai": "openai/clip-vit-large-patch14-336",
    "ViT-B-32/laion2b_s34b_b79k": "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    "ViT-B-16/laion2b_s34b_b88k": "laion/CLIP-ViT-B-16-laion2B-s34B-b88K",
    "ViT-L-14/laion2b_s32b_b82k": "laion/CLIP-ViT-L-14-laion2B-s32B-b82K",
    "ViT-H-14/laion2b_s32b_b79k": "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
    "ViT-g-14/laion2b_s12b_b42k": "laion/CLIP-ViT-g-14-laion2B-s12B-b42K",
    "ViT-bigG-14/laion2b_s39b_b160k": "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k",
}

NOTES = [
    "Left padding does not move positions, also where it did in OpenFlamingo's `forward` (GPT-NeoX, LLaMA).",
    "Images with an EXIF orientation are turned upright and transparency is blended onto white; OpenFlamingo did neither. "
    "Palette, bilevel, CMYK and YCbCr images become RGB before they are resized, in OpenFlamingo after.",
    "`<image>` is never generated.",
]

HEAD_DIM = 64  # of resampler and gated blocks, in all of OpenFlamingo


def convert_open_flamingo(
    checkpoint: str | os.PathLike,
    output_dir: str | os.PathLike,
    *,
    vision: str | os.PathLike | None = None,
    text: str | os.PathLike | None = None,
    tokenizer: str | os.PathLike | None = None,
    cross_attention_every_n_layers: int | None = None,
    dtype: torch.dtype = torch.float32,
    dry_run: bool = False,
) -> list[MappedKey]:
    """
    Turn an OpenFlamingo checkpoint into a directory for `AutoModelForImageTextToText.from_pretrained`.

    The result has the original's logits, from the same text and pixels, with two improvements: left padding does not
    move positions in GPT-NeoX and LLaMA models, and `<image>` is never generated.

    A checkpoint holds only what was trained: the backbones are loaded from their own directories. If an untied output
    embedding was not trained (LLaMA), the rows of its new tokens are not in any file: give `text` with its embeddings
    resized if you have it. Otherwise they become the mean of the other rows.

    Args:
        checkpoint (`str` or `os.PathLike`):
            A `checkpoint.pt`, a directory with a file of that name, or the name of a released model on the Hub, which fills in the other options:
            `openflamingo/OpenFlamingo-9B-vitl-mpt7b` and its siblings.
        output_dir (`str` or `os.PathLike`): The directory to write. It must not exist, or be empty.
        vision (`str` or `os.PathLike`, *optional*):
            Name or directory of the CLIP vision encoder for transformers, or its name in open_clip: `ViT-L-14`, or
            with the pretraining, `ViT-L-14/openai`.
        text (`str` or `os.PathLike`, *optional*):
            Name or directory of the language model, before its embeddings were resized, or resized.
        tokenizer (`str` or `os.PathLike`, *optional*): Name or directory of its tokenizer; that of `text` by default.
        cross_attention_every_n_layers (`int`, *optional*): As the model was trained.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`):
            What to write. OpenFlamingo computes in float32; its logits are only equal in that.
        dry_run (`bool`, *optional*, defaults to `False`): Check everything and write nothing.

    Returns:
        `list[MappedKey]`: the mapping table, `(source, target, shape)` for each tensor of the checkpoint.

    Raises:
        ValueError: the checkpoint is damaged or does not fit the backbones; or an option is missing.
        OSError: a file or directory cannot be read.
        FileExistsError: `output_dir` is not empty, a file, or the current directory.
    """
    release = RELEASES.get(str(checkpoint))
    if release is not None:
        vision, text = vision or release.vision, text or release.text
        cross_attention_every_n_layers = cross_attention_every_n_layers or release.cross_attention_every_n_layers
    options = {"vision": vision, "text": text, "cross_attention_every_n_layers": cross_attention_every_n_layers}
    missing = [name for name, value in options.items() if value is None]
    if missing:
        raise ValueError(
            f"{checkpoint} is none of the released models ({', '.join(RELEASES)}), and the file does not say what it was "
            f"trained with: give {', '.join(missing)} ({', '.join('--' + name.replace('_', '-') for name in missing)})."
        )
    vision = OPEN_CLIP_NAMES.get(str(vision) if "/" in str(vision) else f"{vision}/openai", vision)
    tokenizer = tokenizer or text

    path = Path(checkpoint, CHECKPOINT_NAME) if Path(checkpoint).is_dir() else Path(checkpoint)
    if not path.is_file() and release is None:
        raise FileNotFoundError(f"There is no file {path}, and the released models are {', '.join(RELEASES)}.")
    with nullcontext() if dry_run else conversion.new_directory(output_dir) as directory:
        if release is not None:
            path = hf_hub_download(checkpoint, CHECKPOINT_NAME)
        source = {key.removeprefix("module."): value for key, value in conversion.read_tensors(path).items()}
        with conversion.reading("vision", vision):
            vision_config = conversion.load_vision_config(vision)
            image_processor = conversion.load_image_processor(vision, vision_config, FlamingoImageProcessor)
        with conversion.reading("text", text):
            text_config = conversion.load_text_config(text)
        with conversion.reading("tokenizer", tokenizer):
            processor = FlamingoProcessor(image_processor, conversion.load_tokenizer(tokenizer))

        config = _make_config(source, vision_config, text_config, processor, cross_attention_every_n_layers, dtype)
        conversion.check_rows(config, len(processor.tokenizer))
        model = conversion.meta_model(config)
        targets = _Targets(
            layers=config.cross_attention_layer_indices,
            rename_backbone=conversion.backbone_renamer(model.language_model, "language_model"),
            layers_name=conversion.module_name(model.language_model, find_decoder_layers(model.language_model)),
        )
        required = ("resampler.", "gated_cross_attention.")
        tensors, table = conversion.map_tensors(source, targets, model, lambda name: name.startswith(required))
        if dry_run:
            return table

        with conversion.reading("text", text):
            language_model = conversion.load_language_model(text, conversion.load_text_config(text), dtype)
        _, head = conversion.embedding_names(language_model)
        _resize(language_model, config.text_config.vocab_size, has_head=head in tensors)
        language_model.config.tie_word_embeddings = config.text_config.tie_word_embeddings
        with conversion.reading("vision", vision):
            vision_model = conversion.load_vision_model(vision, vision_config, dtype)
        with torch.device("meta"):
            model = FlamingoModel(config, vision_model=vision_model, language_model=language_model)
        conversion.fill(model, tensors, dtype)
        card = FlamingoModelCardData.from_model(
            model,
            vision_name=str(vision),
            text_name=str(text),
            source=f"the OpenFlamingo checkpoint {checkpoint}" if release else "an OpenFlamingo checkpoint",
            notes=NOTES,
        )
        conversion.write(directory, model, processor, card)
        return table


@dataclass
class _Targets:
    """Our names for the keys of an OpenFlamingo checkpoint."""

    layers: list[int]
    rename_backbone: Callable[[str], str]
    layers_name: str

    def __call__(self, key: str) -> list[str] | None:
        if key.startswith("vision_encoder."):
            return []  # frozen: that of `vision` is the same
        if key.startswith("perceiver."):
            part = key.replace("perceiver.frame_embs", "perceiver.frame_embeddings")
            return conversion.new_part_targets(part.replace("perceiver.", "resampler.", 1), self.layers)
        if not key.startswith("lang_encoder."):
            return None
        key = key.removeprefix("lang_encoder.")
        # Version 1 lists each gated block and each decoder layer a second time.
        block = re.fullmatch(r".+\.(\d+)\.gated_cross_attn_layer\.(.+)", key) or re.fullmatch(
            r"gated_cross_attn_layers\.(\d+)\.(.+)", key
        )
        if block:
            part = "ffn_gate" if block[2] == "ff_gate" else block[2]
            return conversion.new_part_targets(f"gated.{block[1]}.{part}", self.layers)
        key = key.replace("old_decoder_blocks.", f"{self.layers_name}.", 1).replace(".decoder_layer.", ".")
        return [self.rename_backbone(key)]


def _make_config(
    source: dict[str, torch.Tensor],
    vision_config: PreTrainedConfig,
    text_config: PreTrainedConfig,
    processor: FlamingoProcessor,
    every: int,
    dtype: torch.dtype,
) -> FlamingoConfig:
    """The config of the model that a checkpoint was trained as: its sizes are those of the tensors."""

    def rows(pattern: str) -> int:
        found = [tensor for key, tensor in source.items() if fnmatchcase(key, pattern) and tensor.ndim > 0]
        if not found:
            raise ValueError(f"The file has no key like {pattern}: it is no OpenFlamingo checkpoint.")
        return found[0].shape[0]

    with torch.device("meta"):
        language_model = AutoModelForCausalLM.from_config(text_config)
    rename = conversion.backbone_renamer(language_model, "language_model")
    tensors = {rename(k.removeprefix("lang_encoder.")): v for k, v in source.items() if k.startswith("lang_encoder.")}
    embedding, head = conversion.embedding_names(language_model)
    if embedding in tensors:
        text_config.vocab_size = len(tensors[embedding])
    elif text_config.vocab_size != len(processor.tokenizer):  # OpenFlamingo resizes to just that
        raise ValueError(
            f"The checkpoint lacks the input embedding ({embedding}), which OpenFlamingo trains and saves. Is the file "
            "complete, and is `text` (--text) the language model that it was trained with? Without the embedding `text` "
            f"must have it resized, to {len(processor.tokenizer)} rows; it has {text_config.vocab_size}."
        )
    else:
        logger.warning(
            f"The checkpoint holds no input embedding, so that of `text` stays. It has {text_config.vocab_size} rows, as "
            "many as the tokenizer, but unless those of the special tokens were trained with this checkpoint they mean "
            "nothing."
        )
    if conversion.unties(tensors, embedding, head):
        text_config.tie_word_embeddings = False

    if not 1 <= every <= text_config.num_hidden_layers:
        raise ValueError(
            f"`cross_attention_every_n_layers` (--cross-attention-every-n-layers) is {every}, but the language model has "
            f"{text_config.num_hidden_layers} layers: it must be at least 1 and at most their number."
        )
    block = "lang_encoder.*.gated_cross_attn_layer."
    num_layers = 1 + max(
        (int(m[1]) for key in source if (m := re.match(r"perceiver\.layers\.(\d+)\.", key))), default=-1
    )
    has_frames = "perceiver.frame_embs" in source
    text_config.dtype = dtype
    return conversion.make_config(
        vision_config=vision_config,
        text_config=text_config,
        cross_attention_every_n_layers=every,
        cross_attention_num_heads=rows(block + "attn.to_q.weight") // HEAD_DIM,
        cross_attention_head_dim=HEAD_DIM,
        cross_attention_ffn_mult=rows(block + "ff.1.weight") // rows(block + "ff.0.weight"),
        resampler_num_layers=num_layers,
        resampler_num_latents=rows("perceiver.latents"),
        resampler_num_heads=rows("perceiver.layers.0.0.to_q.weight") // HEAD_DIM,
        resampler_head_dim=HEAD_DIM,
        resampler_ffn_mult=rows("perceiver.layers.0.1.1.weight") // rows("perceiver.norm.weight"),
        resampler_num_frames=rows("perceiver.frame_embs") if has_frames else 0,
        image_token_id=processor.image_token_id,
        end_of_chunk_token_id=processor.end_of_chunk_token_id,
        pad_token_id=processor.tokenizer.pad_token_id,
    )


def _resize(language_model: PreTrainedModel, num_rows: int, has_head: bool) -> None:
    """Resize the embeddings as OpenFlamingo did. Rows that no file holds become the mean of the others."""
    old = language_model.get_input_embeddings().weight.shape[0]
    if num_rows == old:
        return
    language_model.resize_token_embeddings(num_rows, mean_resizing=False)
    head = language_model.get_output_embeddings().weight
    if num_rows > old and head is not language_model.get_input_embeddings().weight and not has_head:
        with torch.no_grad():
            head[old:] = head[:old].mean(dim=0)
        logger.warning(
            f"The checkpoint holds no output embedding, so rows {old} to {num_rows - 1} of it, those of the added tokens, "
            "are the mean of the others. OpenFlamingo never trained them either; to have its very numbers give `text` "
            "as a directory with the embeddings resized."
        )
