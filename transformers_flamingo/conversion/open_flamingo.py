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
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from ..cards.model_card import FlamingoModelCardData
from ..configuration_flamingo import FlamingoConfig
from ..image_processing_flamingo import FlamingoImageProcessor
from ..language_models_flamingo import find_decoder_layers
from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor
from ..utils.weight_files import read_pretrained_tensors, read_tensors, same_values
from . import conversion, writing
from .conversion import MappedKey
from .naming import OTTER, open_clip_names, peer_names


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

ROOT = r"(?:perceiver|lang_encoder|vision_encoder)\."  # each key begins so
TWO_TOWERS = r"vision_encoder\.(visual\.|text_model\.)"

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

    A checkpoint holds what was trained. The rest of the backbones is loaded from their own directories, and a vision
    encoder in the checkpoint is converted unless it is equal to that of `vision`. If an untied output embedding was not
    trained (LLaMA), the rows of its new tokens are not in any file: pass `text` with its embeddings resized if you have
    it. Otherwise they become the mean of the other rows.

    Args:
        checkpoint (`str` or `os.PathLike`):
            A file of weights; a directory with a `checkpoint.pt`, `model.safetensors` or `pytorch_model.bin`, sharded or
            not; or the name of a released model on the Hub, which fills in the other options:
            `openflamingo/OpenFlamingo-9B-vitl-mpt7b` and its siblings. What DDP, DeepSpeed, Lightning, `torch.compile`
            and other trainers put around the weights is taken off. Otter's names are known.
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
        `list[MappedKey]`: the mapping table, `(source, target, shape, reason)` for each tensor of the checkpoint.

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
            f"{checkpoint} is not one of the released models ({', '.join(RELEASES)}), and the file does not say what it was "
            f"trained with: give {', '.join(missing)} ({', '.join('--' + name.replace('_', '-') for name in missing)})."
        )
    vision = OPEN_CLIP_NAMES.get(str(vision) if "/" in str(vision) else f"{vision}/openai", vision)
    tokenizer = tokenizer or text

    path = Path(checkpoint, CHECKPOINT_NAME) if Path(checkpoint, CHECKPOINT_NAME).exists() else Path(checkpoint)
    if not path.exists() and release is None:
        raise FileNotFoundError(f"There is no file {path}, and the released models are {', '.join(RELEASES)}.")
    with nullcontext() if dry_run else writing.new_directory(output_dir) as directory:
        if release is not None and not path.exists():
            with conversion.reading("checkpoint", checkpoint):
                path = hf_hub_download(checkpoint, CHECKPOINT_NAME)
        source, names = _read(path)
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
        writing.check_space(directory, model, dtype)
        targets = _Targets(
            layers=config.cross_attention_layer_indices,
            rename_text=conversion.backbone_renamer(model.language_model, "language_model"),
            rename_vision=conversion.backbone_renamer(model.vision_model, "vision_model"),
            has_two_towers=any(re.match(TWO_TOWERS, key) for key in source),
            layers_name=conversion.module_name(model.language_model, find_decoder_layers(model.language_model)),
        )
        required = ("resampler.", "gated_cross_attention.")
        tensors, table = conversion.map_tensors(source, targets, model, lambda name: name.startswith(required))
        table = [row._replace(source=names[row.source]) for row in table]
        has_vision = any(name.startswith("vision_model.") for name in tensors)
        if has_vision or not dry_run:
            with conversion.reading("vision", vision):
                vision_model = conversion.load_vision_model(vision, vision_config, dtype)
            table = conversion.keep_frozen(tensors, table, vision_model, dtype)
        if dry_run:
            return table

        model, notes = _complete(config, tensors, vision_model, text, dtype)
        card = FlamingoModelCardData.from_model(
            model,
            vision_name=str(vision),
            text_name=str(text),
            source=f"the OpenFlamingo checkpoint {checkpoint}" if release else "an OpenFlamingo checkpoint",
            notes=NOTES + notes,
        )
        writing.write(directory, model, processor, card)
        return table


def _read(path: str | os.PathLike) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the tensors of a checkpoint under OpenFlamingo's names, and for each of these the name that it has in the file."""
    read = read_pretrained_tensors if Path(path).is_dir() else read_tensors
    with conversion.reading("checkpoint", path):
        tensors = read(path, ROOT)
    source, names = {}, {}
    for key, name in peer_names(tensors, ROOT, OTTER).items():
        if name in source and not same_values(source[name], tensors[key]):
            raise ValueError(
                f"{path} has two tensors for {name} with other values: {names[name]} and {key}. Remove one."
            )
        source[name], names[name] = tensors[key], key
    return source, names


def _complete(
    config: FlamingoConfig,
    tensors: dict[str, torch.Tensor],
    vision_model: PreTrainedModel,
    text: str | os.PathLike,
    dtype: torch.dtype,
) -> tuple[FlamingoModel, list[str]]:
    """Return the model of the backbones with the checkpoint's tensors in it, and notes on them for its card."""
    with conversion.reading("text", text):
        language_model = conversion.load_language_model(text, conversion.load_text_config(text), dtype)
    embedding, head = conversion.embedding_names(language_model)
    _resize(language_model, config.text_config.vocab_size, has_head=head in tensors)
    language_model.config.tie_word_embeddings = config.text_config.tie_word_embeddings
    notes = _trained_backbones(tensors, language_model, (embedding, head))
    with torch.device("meta"):
        model = FlamingoModel(config, vision_model=vision_model, language_model=language_model)
    return conversion.fill(model, tensors, dtype), notes


def _trained_backbones(
    tensors: dict[str, torch.Tensor], language_model: PreTrainedModel, embeddings: tuple[str, str]
) -> list[str]:
    """Return the notes of a card on backbones whose weights are not those of the models that it names."""
    text = {f"language_model.{name}": tensor for name, tensor in language_model.state_dict().items()}
    is_trained = {
        "vision encoder": any(name.startswith("vision_model.") for name in tensors),
        "language model": any(
            name in text and name not in embeddings and not same_values(text[name], tensor)
            for name, tensor in tensors.items()
        ),
    }
    return [
        f"The {part} was trained along: its weights are the checkpoint's, unlike those of the model that it began as."
        for part, was_trained in is_trained.items()
        if was_trained
    ]


@dataclass
class _Targets:
    """Our names for the keys of an OpenFlamingo checkpoint."""

    layers: list[int]
    rename_text: Callable[[str], str]
    rename_vision: Callable[[str], str]
    has_two_towers: bool  # the vision encoder is in a CLIP with its text encoder
    layers_name: str

    def __call__(self, key: str) -> list[str] | str | None:
        if key.startswith("vision_encoder."):
            return self._vision_targets(key.removeprefix("vision_encoder."))
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
        return [self.rename_text(key)]

    def _vision_targets(self, key: str) -> list[str] | str | None:
        if (
            self.has_two_towers and not re.match(r"(visual|vision_model)\.", key)
        ) or key == "visual_projection.weight":
            return "of the text encoder, not used"
        key = key.removeprefix("visual.")
        if key == "proj":
            return "projection of the vision encoder, not used"
        names = open_clip_names(key)
        return [self.rename_vision(key)] if names is None else [f"vision_model.{name}" for name in names]


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
        found = [
            tensor for key, tensor in source.items() if fnmatchcase(key, pattern) and tensor.numel() > 0 < tensor.ndim
        ]
        if not found:
            raise ValueError(f"The file has no key like {pattern}: it is not an OpenFlamingo checkpoint.")
        return found[0].shape[0]

    block = "lang_encoder.*.gated_cross_attn_layer."
    has_frames = "perceiver.frame_embs" in source
    sizes = {
        "cross_attention_num_heads": rows(block + "attn.to_q.weight") // HEAD_DIM,
        "cross_attention_head_dim": HEAD_DIM,
        "cross_attention_ffn_mult": rows(block + "ff.1.weight") // rows(block + "ff.0.weight"),
        "resampler_num_latents": rows("perceiver.latents"),
        "resampler_num_heads": rows("perceiver.layers.0.0.to_q.weight") // HEAD_DIM,
        # Counted, so that a number in a name cannot ask for any size
        "resampler_num_layers": len({m[1] for key in source if (m := re.match(r"perceiver\.layers\.(\d+)\.", key))}),
        "resampler_head_dim": HEAD_DIM,
        "resampler_ffn_mult": rows("perceiver.layers.0.1.1.weight") // rows("perceiver.norm.weight"),
        "resampler_num_frames": rows("perceiver.frame_embs") if has_frames else 0,
    }
    language_model = conversion.meta_language_model(text_config)
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
    text_config.dtype = dtype
    return conversion.make_config(
        vision_config=vision_config,
        text_config=text_config,
        cross_attention_every_n_layers=every,
        **sizes,
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
