# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Helpers that the training scripts of the miniature share."""

import math
import platform
from pathlib import Path
from typing import Any

from transformers_flamingo.cards.model_card import package_versions
from transformers_flamingo.modeling_flamingo import FlamingoModel
from transformers_flamingo.processing_flamingo import FlamingoProcessor
from transformers_flamingo.saving_flamingo import write_json

from .shipped import TRAINING_RECORD, text_backbone_path, vision_backbone_path


def library_versions() -> dict[str, str]:
    """Return the versions of everything that a training result depends on."""
    versions = package_versions("torch", "transformers", "tokenizers", "numpy", "pillow")
    return {"python": platform.python_version()} | versions


def check_seed(seed: int) -> None:
    """
    Check that every library takes this seed.

    Raises:
        ValueError: it is not from 0 to 2**32 - 1, the largest seed of numpy.
    """
    if not 0 <= seed < 2**32:
        raise ValueError(f"`seed` is {seed}, but it must be from 0 to {2**32 - 1}.")


def join_shipped_backbones(
    text_backbone: str | Path | None = None, **fields: Any
) -> tuple[FlamingoModel, FlamingoProcessor]:
    """
    Join two backbones, frozen, by untrained parts, and return the model with its processor.

    Args:
        text_backbone (`str` or `Path`, *optional*): Folder of another language model than that of `flamingo demo`.
        fields: Fields of [`FlamingoConfig`].
    """
    vision, text = str(vision_backbone_path()), str(text_backbone or text_backbone_path())
    processor = FlamingoProcessor.from_vision_text_pretrained(vision, text)
    model = FlamingoModel.from_vision_text_pretrained(
        vision,
        text,
        image_token_id=processor.image_token_id,
        end_of_chunk_token_id=processor.end_of_chunk_token_id,
        **fields,
    )
    model.freeze_backbones()
    return model, processor


def write_training_record(output_dir: str | Path, record: dict[str, Any]) -> None:
    """Write `record` as `training.json` next to the weights. Model cards are generated from this file."""
    write_json(Path(output_dir) / TRAINING_RECORD, record, indent=2)


def warmup_cosine(step: int, steps: int, warmup_steps: int) -> float:
    """Return the learning rate factor: a linear rise over `warmup_steps`, then half a cosine down to 0 at `steps`."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, steps - warmup_steps)))
