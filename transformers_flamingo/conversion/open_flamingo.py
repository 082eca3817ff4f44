# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Convert checkpoints of OpenFlamingo (mlfoundations, 2023).

Keys and sizes are those of its code: open_flamingo/src/flamingo.py, flamingo_lm.py and helpers.py, and factory.py for the
tokenizer and the embeddings.
"""

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
from .backbones import (
    BackboneSettings,
    check_tokenizer_size,
    load_backbone_settings,
    load_language_model,
    load_text_config,
    load_vision_model,
)
from .building import (
    assign_weights,
    embedding_names,
    has_untied_head,
    make_config,
    meta_language_model,
    meta_model,
    module_name,
)
from .errors import name_option_in_errors
from .mapping import MappedKey, map_tensors, separate_frozen
from .naming import OTTER, backbone_renamer, new_part_targets, open_clip_names, peer_names
from .writing import check_space, new_directory, save_converted


logger = logging.get_logger(__name__)


class Release(NamedTuple):
    """The backbones that a checkpoint was trained with, and the interval of its gated blocks in decoder layers."""

    text: str | os.PathLike
    cross_attention_every_n_layers: int
    vision: str | os.PathLike = "openai/clip-vit-large-patch14"


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

# open_clip's MODEL/PRETRAINING -> the repository of the Hub with the same weights for transformers.
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
    "Left padding does not shift positions, unlike in OpenFlamingo's `forward` (GPT-NeoX, LLaMA).",
    "Images with an EXIF orientation are turned upright, and transparency is blended onto white; OpenFlamingo does neither. "
    "Palette, bilevel, CMYK and YCbCr images are converted to RGB before they are resized, in OpenFlamingo afterwards.",
    "`<image>` is never generated.",
]

ROOT = r"(?:perceiver|lang_encoder|vision_encoder)\."  # each key begins with it
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
    Convert an OpenFlamingo checkpoint to a directory for `AutoModelForImageTextToText.from_pretrained`.

    The converted model reproduces the original logits for the same text and pixels, with two improvements: left padding does
    not shift positions in GPT-NeoX and LLaMA models, and `<image>` is never generated.

    A checkpoint holds the weights that were trained. The rest of the backbones is loaded from their own directories. A vision
    encoder in the checkpoint is converted unless it is equal to that of `vision`. If an untied output embedding was not
    trained (LLaMA), no file has the rows of its new tokens: pass `text` with its embeddings resized if you have it.
    Otherwise these rows become the mean of the others.

    Args:
        checkpoint (`str` or `os.PathLike`):
            A file of weights; a directory with a `checkpoint.pt`, `model.safetensors` or `pytorch_model.bin`, sharded or
            not; or the name of a released model on the Hub, which fills in the other options:
            `openflamingo/OpenFlamingo-9B-vitl-mpt7b` and its siblings. The wrappers of DDP, DeepSpeed, Lightning,
            `torch.compile` and other trainers around the weights are removed. Otter's names are supported.
        output_dir (`str` or `os.PathLike`): The directory to write. It must be empty if it exists.
        vision (`str` or `os.PathLike`, *optional*):
            Name or directory of the CLIP vision encoder for transformers, or its name in open_clip: `ViT-L-14`, or
            with the pretraining, `ViT-L-14/openai`.
        text (`str` or `os.PathLike`, *optional*):
            Name or directory of the language model, before its embeddings were resized, or resized.
        tokenizer (`str` or `os.PathLike`, *optional*): Name or directory of its tokenizer; that of `text` by default.
        cross_attention_every_n_layers (`int`, *optional*):
            Interval of the gated blocks in decoder layers, as the model was trained.
        dtype (`torch.dtype`, *optional*, defaults to `torch.float32`):
            The dtype to write. OpenFlamingo computes in float32, so only in that are the logits equal.
        dry_run (`bool`, *optional*, defaults to `False`): Check everything and write nothing.

    Returns:
        `list[MappedKey]`: the mapping table, `(source, target, shape, reason)` for each tensor of the checkpoint.

    Raises:
        ValueError: the checkpoint is damaged or does not fit the backbones; or an option is missing.
        OSError: a file or directory cannot be read.
        FileExistsError: `output_dir` is not empty, a file, or the current directory.
    """
    release = _complete_release(checkpoint, vision, text, cross_attention_every_n_layers)
    vision, text, every = release.vision, release.text, release.cross_attention_every_n_layers
    with nullcontext() if dry_run else new_directory(output_dir) as directory:
        source, names = _read_checkpoint(checkpoint)
        settings = load_backbone_settings(vision, text, tokenizer or text, FlamingoImageProcessor)
        with name_option_in_errors("tokenizer", tokenizer or text):
            # What it was trained with, whatever its language model was before
            processor = FlamingoProcessor(settings.image_processor, settings.tokenizer, chat_template="few_shot")
        config = _make_config(source, settings, processor, every, dtype)
        check_tokenizer_size(config, len(processor.tokenizer))
        model = meta_model(config)
        check_space(directory, model, dtype)

        required = ("resampler.", "gated_cross_attention.")
        targets = _Targets.from_model(model, source)
        tensors, table = map_tensors(source, targets, model, lambda name: name.startswith(required))
        table = [row._replace(source=names[row.source]) for row in table]
        has_vision = any(name.startswith("vision_model.") for name in tensors)
        if has_vision or not dry_run:
            with name_option_in_errors("vision", vision):
                vision_model = load_vision_model(vision, settings.vision_config, dtype)
            table = separate_frozen(tensors, table, vision_model, dtype)
        if dry_run:
            return table

        model, notes = _build_model(config, tensors, vision_model, text, dtype)
        is_released = str(checkpoint) in RELEASES
        card = FlamingoModelCardData.from_model(
            model,
            vision_name=str(vision),
            text_name=str(text),
            source=f"the OpenFlamingo checkpoint {checkpoint}" if is_released else "an OpenFlamingo checkpoint",
            notes=NOTES + notes,
        )
        save_converted(directory, model, processor, card)
        return table


def _complete_release(
    checkpoint: str | os.PathLike,
    vision: str | os.PathLike | None,
    text: str | os.PathLike | None,
    every: int | None,
) -> Release:
    """Return the options that say what a checkpoint was trained with, where a released one fills in those that are `None`."""
    release = RELEASES.get(str(checkpoint))
    if release is not None:
        vision, text, every = (
            vision or release.vision,
            text or release.text,
            every or release.cross_attention_every_n_layers,
        )
    options = {"vision": vision, "text": text, "cross_attention_every_n_layers": every}
    missing = [name for name, value in options.items() if value is None]
    if missing:
        if not os.path.exists(checkpoint):
            raise FileNotFoundError(
                f"There is no checkpoint {str(checkpoint)!r}: no such file exists, and it is not one of the released models "
                f"({', '.join(RELEASES)}). Check the path."
            )
        raise ValueError(
            f"{checkpoint} is not one of the released models ({', '.join(RELEASES)}), and the file does not say what it was "
            f"trained with. Pass {', '.join(missing)} ({', '.join('--' + name.replace('_', '-') for name in missing)})."
        )
    vision = OPEN_CLIP_NAMES.get(str(vision) if "/" in str(vision) else f"{vision}/openai", vision)
    return Release(text, every, vision)


def _read_checkpoint(checkpoint: str | os.PathLike) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """
    Read a checkpoint from a file or folder, or download a released one.

    Returns:
        The tensors under OpenFlamingo's names, and the name in the file for each of OpenFlamingo's.
    """
    path = Path(checkpoint, CHECKPOINT_NAME) if Path(checkpoint, CHECKPOINT_NAME).exists() else Path(checkpoint)
    if not path.exists():
        if str(checkpoint) not in RELEASES:
            raise FileNotFoundError(f"There is no file {path}, and the released models are {', '.join(RELEASES)}.")
        with name_option_in_errors("checkpoint", checkpoint):
            path = Path(hf_hub_download(checkpoint, CHECKPOINT_NAME))
    with name_option_in_errors("checkpoint", path):
        tensors = (read_pretrained_tensors if path.is_dir() else read_tensors)(path, ROOT)
    source, names = {}, {}
    for key, name in peer_names(tensors, ROOT, OTTER).items():
        if name in source and not same_values(source[name], tensors[key]):
            raise ValueError(
                f"{path} has two tensors for {name} with different values: {names[name]} and {key}. Remove one."
            )
        source[name], names[name] = tensors[key], key
    return source, names


def _build_model(
    config: FlamingoConfig,
    tensors: dict[str, torch.Tensor],
    vision_model: PreTrainedModel,
    text: str | os.PathLike,
    dtype: torch.dtype,
) -> tuple[FlamingoModel, list[str]]:
    """Build the model from the backbones and the checkpoint's tensors, and return it with notes for its card."""
    with name_option_in_errors("text", text):
        language_model = load_language_model(text, load_text_config(text), dtype)
    embedding, head = embedding_names(language_model)
    _resize(language_model, config.text_config.vocab_size, has_head=head in tensors)
    language_model.config.tie_word_embeddings = config.text_config.tie_word_embeddings
    notes = _note_trained_backbones(tensors, language_model, (embedding, head))
    with torch.device("meta"):
        model = FlamingoModel(config, vision_model=vision_model, language_model=language_model)
    return assign_weights(model, tensors, dtype), notes


def _note_trained_backbones(
    tensors: dict[str, torch.Tensor], language_model: PreTrainedModel, embeddings: tuple[str, str]
) -> list[str]:
    """Return a note for the model card on each backbone whose weights differ from those of the model that the card names."""
    text = {f"language_model.{name}": tensor for name, tensor in language_model.state_dict().items()}
    is_trained = {
        "vision encoder": any(name.startswith("vision_model.") for name in tensors),
        "language model": any(
            name in text and name not in embeddings and not same_values(text[name], tensor)
            for name, tensor in tensors.items()
        ),
    }
    return [
        f"The {part} was fine-tuned: its weights are those of the checkpoint and differ from those of the pretrained model."
        for part, was_trained in is_trained.items()
        if was_trained
    ]


@dataclass
class _Targets:
    """
    Function from the keys of an OpenFlamingo checkpoint to the names of our model (see [`map_tensors`]).

    Attributes:
        layers (`list[int]`): Decoder layers that have a gated block.
        layers_name (`str`): Name of the list of decoder layers in the language model.
        rename_text, rename_vision (`Callable[[str], str]`): Functions from a name in a backbone to that in our model.
        has_two_towers (`bool`): Whether the vision encoder is in a CLIP with its text encoder.
    """

    layers: list[int]
    layers_name: str
    rename_text: Callable[[str], str]
    rename_vision: Callable[[str], str]
    has_two_towers: bool

    @classmethod
    def from_model(cls, model: FlamingoModel, source: dict[str, torch.Tensor]) -> "_Targets":
        """Make the function for a model, which may be on the meta device, and the checkpoint `source`."""
        return cls(
            layers=model.config.cross_attention_layer_indices,
            layers_name=module_name(model.language_model, find_decoder_layers(model.language_model)),
            rename_text=backbone_renamer(model.language_model, "language_model"),
            rename_vision=backbone_renamer(model.vision_model, "vision_model"),
            has_two_towers=any(re.match(TWO_TOWERS, key) for key in source),
        )

    def __call__(self, key: str) -> list[str] | str | None:
        """Return our names for a key, why it is not converted, or `None` if it is unknown."""
        if key.startswith("vision_encoder."):
            return self._vision_targets(key.removeprefix("vision_encoder."))
        if key.startswith("perceiver."):
            part = key.replace("perceiver.frame_embs", "perceiver.frame_embeddings")
            return new_part_targets(part.replace("perceiver.", "resampler.", 1), self.layers)
        if not key.startswith("lang_encoder."):
            return None
        key = key.removeprefix("lang_encoder.")
        # Version 1 lists each gated block and each decoder layer a second time.
        block = re.fullmatch(r".+\.(\d+)\.gated_cross_attn_layer\.(.+)", key) or re.fullmatch(
            r"gated_cross_attn_layers\.(\d+)\.(.+)", key
        )
        if block:
            part = "ffn_gate" if block[2] == "ff_gate" else block[2]
            return new_part_targets(f"gated.{block[1]}.{part}", self.layers)
        key = key.replace("old_decoder_blocks.", f"{self.layers_name}.", 1).replace(".decoder_layer.", ".")
        return [self.rename_text(key)]

    def _vision_targets(self, key: str) -> list[str] | str | None:
        """Return the same for a key of the vision encoder, in the layout of transformers or of open_clip."""
        is_of_text_tower = self.has_two_towers and not re.match(r"(visual|vision_model)\.", key)
        if is_of_text_tower or key == "visual_projection.weight":
            return "of the text encoder, not used"
        key = key.removeprefix("visual.")
        if key == "proj":
            return "projection of the vision encoder, not used"
        names = open_clip_names(key)
        return [self.rename_vision(key)] if names is None else [f"vision_model.{name}" for name in names]


def _make_config(
    source: dict[str, torch.Tensor],
    settings: BackboneSettings,
    processor: FlamingoProcessor,
    every: int,
    dtype: torch.dtype,
) -> FlamingoConfig:
    """Make the config of the model that a checkpoint was trained as. Its sizes are those of the tensors."""
    sizes = _read_sizes(source)
    text_config = settings.text_config
    _fit_embeddings(text_config, source, len(processor.tokenizer))
    if not 1 <= every <= text_config.num_hidden_layers:
        raise ValueError(
            f"`cross_attention_every_n_layers` (--cross-attention-every-n-layers) is {every}, but the language model has "
            f"{text_config.num_hidden_layers} layers. Pass a number from 1 to {text_config.num_hidden_layers}."
        )
    text_config.dtype = dtype
    return make_config(
        vision_config=settings.vision_config,
        text_config=text_config,
        cross_attention_every_n_layers=every,
        **sizes,
        image_token_id=processor.image_token_id,
        end_of_chunk_token_id=processor.end_of_chunk_token_id,
        pad_token_id=processor.tokenizer.pad_token_id,
    )


def _read_sizes(source: dict[str, torch.Tensor]) -> dict[str, int]:
    """Read the sizes of the resampler and the gated blocks from the shapes of their tensors, as fields of our config."""

    def num_rows(pattern: str) -> int:
        found = [
            tensor for key, tensor in source.items() if fnmatchcase(key, pattern) and tensor.numel() > 0 < tensor.ndim
        ]
        if not found:
            raise ValueError(f"The file has no key like {pattern}: it is not an OpenFlamingo checkpoint.")
        return found[0].shape[0]

    block = "lang_encoder.*.gated_cross_attn_layer."
    # Counted: a number in the name of a damaged file could ask for any number of layers.
    resampler_layers = {m[1] for key in source if (m := re.match(r"perceiver\.layers\.(\d+)\.", key))}
    return {
        "cross_attention_num_heads": num_rows(block + "attn.to_q.weight") // HEAD_DIM,
        "cross_attention_head_dim": HEAD_DIM,
        "cross_attention_ffn_mult": num_rows(block + "ff.1.weight") // num_rows(block + "ff.0.weight"),
        "resampler_num_latents": num_rows("perceiver.latents"),
        "resampler_num_heads": num_rows("perceiver.layers.0.0.to_q.weight") // HEAD_DIM,
        "resampler_num_layers": len(resampler_layers),
        "resampler_head_dim": HEAD_DIM,
        "resampler_ffn_mult": num_rows("perceiver.layers.0.1.1.weight") // num_rows("perceiver.norm.weight"),
        "resampler_num_frames": num_rows("perceiver.frame_embs") if "perceiver.frame_embs" in source else 0,
    }


def _fit_embeddings(text_config: PreTrainedConfig, source: dict[str, torch.Tensor], num_tokens: int) -> None:
    """
    Set the vocabulary size of a language model, and whether its embeddings are tied, to those of a checkpoint.

    Args:
        text_config (`PreTrainedConfig`): The config to change.
        source (`dict[str, torch.Tensor]`): The checkpoint, with embeddings of the shape `(V, D)`.
        num_tokens (`int`): Length of the tokenizer, with the special tokens of Flamingo.

    Raises:
        ValueError: the checkpoint has no input embedding, and that of `text` was not resized for these tokens.
    """
    language_model = meta_language_model(text_config)
    rename = backbone_renamer(language_model, "language_model")
    tensors = {rename(k.removeprefix("lang_encoder.")): v for k, v in source.items() if k.startswith("lang_encoder.")}
    embedding, head = embedding_names(language_model)
    if embedding in tensors:
        text_config.vocab_size = len(tensors[embedding])
    elif text_config.vocab_size != num_tokens:  # OpenFlamingo resizes to the length of the tokenizer
        raise ValueError(
            f"The checkpoint lacks the input embedding ({embedding}), which OpenFlamingo trains and saves. Check that the file "
            "is complete, and that `text` (--text) is the language model that it was trained with. Without the embedding, "
            f"that of `text` must have been resized to {num_tokens} rows; it has {text_config.vocab_size}."
        )
    else:
        logger.warning(
            f"The checkpoint has no input embedding, so that of `text` is kept. It has {text_config.vocab_size} rows, as many "
            "as the tokenizer, but unless those of the special tokens were trained with this checkpoint, they are arbitrary."
        )
    if has_untied_head(tensors, embedding, head):
        text_config.tie_word_embeddings = False


def _resize(language_model: PreTrainedModel, num_rows: int, has_head: bool) -> None:
    """
    Resize the embeddings as OpenFlamingo does. Output rows that no file has become the mean of the others.

    Args:
        language_model (`PreTrainedModel`): The model as `text` has it.
        num_rows (`int`): Number of rows of the checkpoint's input embedding, `V`.
        has_head (`bool`): Whether the checkpoint has the output embedding.
    """
    old = language_model.get_input_embeddings().weight.shape[0]
    if num_rows == old:
        return
    language_model.resize_token_embeddings(num_rows, mean_resizing=False)
    head = language_model.get_output_embeddings().weight
    if num_rows > old and head is not language_model.get_input_embeddings().weight and not has_head:
        with torch.no_grad():
            head[old:] = head[:old].mean(dim=0)
        logger.warning(
            f"The checkpoint has no output embedding, so its rows {old} to {num_rows - 1}, those of the added tokens, are the "
            "mean of the others. OpenFlamingo does not train them either. To reproduce its logits for these tokens, pass "
            "`text` as a directory with the embeddings resized."
        )
