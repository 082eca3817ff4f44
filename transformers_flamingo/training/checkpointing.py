# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints that are known to be whole, and checkpoints of the trained parameters alone."""

import json
import os
import re
import shutil
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging


logger = logging.get_logger(__name__)

MANIFEST_NAME = "manifest.json"
TRAINABLE_NAME = "trainable.safetensors"


def write_manifest(checkpoint: str | os.PathLike) -> None:
    """
    Declare a checkpoint whole: the names and sizes of its files, in `manifest.json`, which appears at once.

    Call it when everything is written, and before an older checkpoint is deleted.
    """
    checkpoint = Path(checkpoint)
    files = {
        path.relative_to(checkpoint).as_posix(): path.stat().st_size
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and not path.name.startswith(MANIFEST_NAME)
    }
    temporary = checkpoint / f"{MANIFEST_NAME}.tmp"
    with open(temporary, "w") as file:
        json.dump({"files": files}, file, indent=2)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, checkpoint / MANIFEST_NAME)


def remove_manifest(checkpoint: str | os.PathLike) -> None:
    """Declare that a checkpoint is about to be written, perhaps over an older one of the same step."""
    (Path(checkpoint) / MANIFEST_NAME).unlink(missing_ok=True)


def find_damage(checkpoint: str | os.PathLike) -> str | None:
    """What is wrong with a checkpoint, compared with its manifest, or `None`."""
    checkpoint = Path(checkpoint)
    try:
        files = json.loads((checkpoint / MANIFEST_NAME).read_text())["files"]
    except FileNotFoundError:
        return f"it has no {MANIFEST_NAME}, which is written last: its writing was cut short"
    for name, size in files.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, and had {size}"
    return None


def get_last_checkpoint(output_dir: str | os.PathLike) -> str | None:
    """
    The last checkpoint in `output_dir` that is whole, or `None` if there is none.

    One that is not, because the run was killed while it was written or deleted, is passed over with a warning. So
    `trainer.train(resume_from_checkpoint=get_last_checkpoint(args.output_dir))` starts a run or goes on with it.
    """
    found = {}
    for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        step = re.fullmatch(rf"{PREFIX_CHECKPOINT_DIR}-(\d+)", path.name)
        if step and path.is_dir():
            found[int(step[1])] = path
    for _, path in sorted(found.items(), reverse=True):
        damage = find_damage(path)
        if damage is None:
            return str(path)
        logger.warning(f"{path} cannot be resumed from: {damage}. The checkpoint before it is used, if there is one.")
    return None


def remove_damaged(output_dir: str | os.PathLike) -> None:
    """
    Delete the checkpoints that are not whole.

    One that stays would be counted as a checkpoint when older ones are deleted, and a whole one could go in its place.
    """
    for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        damage = find_damage(path) if path.is_dir() else None
        if damage is not None:
            logger.warning(f"{path} is deleted, as `save_total_limit` asks: {damage}.")
            shutil.rmtree(path, ignore_errors=True)


def save_trainable(model: nn.Module, directory: str | os.PathLike, state_dict: dict | None = None) -> None:
    """
    Save the parameters that require a gradient, and no other, to `trainable.safetensors`.

    Args:
        model (`nn.Module`): The model, frozen as it is trained.
        directory (`str`): Where to.
        state_dict (`dict`, *optional*): Its parameters by name, where they are not in the model itself (sharding).
    """
    tensors = {
        name: (parameter if state_dict is None else state_dict[name]).detach().cpu().clone().contiguous()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    save_file(tensors, Path(directory) / TRAINABLE_NAME, metadata={"format": "pt"})


@torch.no_grad()
def load_trainable(model: nn.Module, directory: str | os.PathLike) -> None:
    """
    Load what a training run with `save_trainable_only` saved into a model that has its backbones already.

    ```python
    model = FlamingoModel.from_vision_text_pretrained(VISION, TEXT)
    model.freeze_backbones()
    load_trainable(model, "output/checkpoint-1000")
    ```

    Args:
        model (`nn.Module`): The model, with the same parameters frozen as in training.
        directory (`str`): The checkpoint.

    Raises:
        FileNotFoundError: there is no `trainable.safetensors`.
        ValueError: the parameters saved are not those that are trainable here, or one has another shape. Nothing is
            loaded then.
    """
    path = Path(directory) / TRAINABLE_NAME
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no {TRAINABLE_NAME} in {str(directory)!r}. It is written with `save_trainable_only`; any other "
            "checkpoint is loaded by `FlamingoModel.from_pretrained`."
        )
    parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    with safe_open(path, framework="pt") as file:
        saved = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    missing, unexpected = sorted(set(parameters) - set(saved)), sorted(set(saved) - set(parameters))
    if missing or unexpected:
        raise ValueError(
            f"{str(path)!r} does not hold the trainable parameters of this model: {len(missing)} are missing "
            f"({_some(missing)}) and {len(unexpected)} are not trainable here ({_some(unexpected)}). Freeze the model "
            "as it was trained (`freeze_backbones`) before loading, and build it from the same configuration."
        )
    wrong = [name for name, parameter in parameters.items() if tuple(parameter.shape) != saved[name]]
    if wrong:
        shapes = "; ".join(f"{name} {saved[name]} there, {tuple(parameters[name].shape)} here" for name in wrong[:4])
        raise ValueError(
            f"{str(path)!r} has parameters of other shapes than this model ({shapes}). Build the model from the "
            "configuration beside it."
        )
    for module in model.modules():
        if hasattr(module, "_share_token_rows"):  # a model that was moved has not done so yet, and would undo this
            module._share_token_rows()
    for name, tensor in load_file(path).items():
        parameters[name].copy_(tensor)


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "") if names else "none"
