# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Checkpoint integrity checks, and saving and loading of trainable parameters only."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from ..feature_standardization_flamingo import STATISTICS
from ..saving_flamingo import remove_leftovers, sync_folder, write_json
from ..utils.folders import lock_folder
from ..utils.names import summarize_names


logger = logging.get_logger(__name__)

MANIFEST_NAME = "manifest.json"
TRAINABLE_NAME = "trainable.safetensors"
# `Trainer.push_to_hub` does not publish names with an underscore
LOCK_NAME = "_training.lock"

# Ends of the names of buffers that belong to what was trained: the statistics of features and latents
_STATISTICS = tuple(f"standardization.{name}" for name in STATISTICS)


@contextmanager
def lock_output(directory: str | os.PathLike) -> Iterator[None]:
    """
    Keep other trainings out of an output folder for as long as the block lasts.

    Blocks of one process may be nested: a recipe locks its folder, and then the training in it does.

    Raises:
        BlockingIOError: another process trains into the folder.
        OSError: the folder cannot be written.
    """
    message = (
        f"Another training is writing to {str(directory)!r}, and the two would overwrite each other's files. Wait until it has "
        "ended, or give another `output_dir`."
    )
    with lock_folder(directory, LOCK_NAME, message=message, nested=True):
        remove_leftovers(directory)
        yield


def write_manifest(checkpoint: str | os.PathLike) -> None:
    """
    Mark a checkpoint as complete: write the names, sizes and SHA-256 of its files to `manifest.json`, atomically.

    Call it when everything is written, and before an older checkpoint is deleted. It first waits until the files are on
    the disk, because a manifest that survives a power failure must not vouch for files that do not.
    """
    checkpoint = Path(checkpoint)
    sync_folder(checkpoint)
    paths = [path for path in sorted(checkpoint.rglob("*")) if path.is_file() and path.name != MANIFEST_NAME]
    with ThreadPoolExecutor() as threads:
        checksums = threads.map(_checksum, paths)
        files = {
            path.relative_to(checkpoint).as_posix(): {"size": path.stat().st_size, "sha256": checksum}
            for path, checksum in zip(paths, checksums, strict=True)
        }
    write_json(checkpoint / MANIFEST_NAME, {"files": files})


def _checksum(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_damage(checkpoint: str | os.PathLike, *, checksums: bool = True) -> str | None:
    """
    Compare a checkpoint with its manifest.

    Args:
        checkpoint (`str`): The folder.
        checksums (`bool`, *optional*, defaults to `True`):
            Whether to read the files and compare their checksums, in addition to their sizes.

    Returns:
        `str` or `None`: What is wrong, as the second half of a sentence, or `None` if the checkpoint is complete.
    """
    checkpoint = Path(checkpoint)
    if not checkpoint.is_dir():
        return "there is no such folder"
    try:
        files = json.loads((checkpoint / MANIFEST_NAME).read_text(encoding="utf-8"))["files"]
        expected = {name: (entry["size"], entry["sha256"]) for name, entry in files.items()}
    except FileNotFoundError:
        return f"it has no {MANIFEST_NAME}, which is written last: saving it was interrupted"
    except (AttributeError, KeyError, TypeError, ValueError):
        return f"its {MANIFEST_NAME} is damaged, or of an earlier release, whose manifests had no checksums"
    for name, (size, _) in expected.items():
        path = checkpoint / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, and had {size}"
    if not checksums:
        return None
    with ThreadPoolExecutor() as threads:
        found = threads.map(_checksum, [checkpoint / name for name in expected])
        changed = [name for (name, (_, sha)), now in zip(expected.items(), found, strict=True) if now != sha]
    return f"the content of {', '.join(changed)} has changed since it was written" if changed else None


def get_last_checkpoint(output_dir: str | os.PathLike) -> str | None:
    """
    Return the last complete checkpoint in `output_dir`, or `None` if there is none.

    A checkpoint that is not complete, because the run was killed while it was written or deleted, is skipped with a warning.
    So `trainer.train(resume_from_checkpoint=get_last_checkpoint(args.output_dir))` starts a run or resumes it.
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
        logger.warning(f"{path} cannot be resumed from: {damage}. The previous checkpoint is used, if there is one.")
    return None


def remove_damaged(output_dir: str | os.PathLike) -> None:
    """
    Delete the checkpoints that are not complete.

    They would count as checkpoints when older ones are deleted, so that a complete one could be deleted instead of them.
    """
    for path in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        damage = find_damage(path, checksums=False) if path.is_dir() else None
        if damage is not None:
            logger.warning(f"{path} is deleted, as `save_total_limit` asks: {damage}.")
            shutil.rmtree(path, ignore_errors=True)


def save_trainable(model: nn.Module, directory: str | os.PathLike, state_dict: dict | None = None) -> None:
    """
    Save the parameters that require a gradient, and the statistics of the vision features, to `trainable.safetensors`.

    Args:
        model (`nn.Module`): The model, frozen as it is trained.
        directory (`str`): The folder to save to.
        state_dict (`dict`, *optional*): The parameters by name, if those of the model itself are sharded.
    """
    tensors = {
        name: (parameter if state_dict is None else state_dict[name]).detach().cpu().clone().contiguous()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    tensors |= {name: buffer.cpu().clone() for name, buffer in model.named_buffers() if name.endswith(_STATISTICS)}
    save_file(tensors, Path(directory) / TRAINABLE_NAME, metadata={"format": "pt"})


@torch.no_grad()
def load_trainable(model: nn.Module, directory: str | os.PathLike) -> None:
    """
    Load what a training run with `save_trainable_only` saved into a model that already has its backbones.

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
        ValueError: the saved parameters are not the trainable parameters of the model, or one has another shape. Nothing is
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
    statistics = {name for name in saved if name.endswith(_STATISTICS)}
    missing, unexpected = sorted(set(parameters) - set(saved)), sorted(set(saved) - set(parameters) - statistics)
    if missing or unexpected:
        raise ValueError(
            f"{str(path)!r} does not hold the trainable parameters of this model: {len(missing)} are missing "
            f"({summarize_names(missing)}) and {len(unexpected)} are not trainable in it ({summarize_names(unexpected)}). Freeze the model "
            "as it was trained (`freeze_backbones`) before loading, and build it from the same configuration."
        )
    mismatched = [name for name, parameter in parameters.items() if tuple(parameter.shape) != saved[name]]
    if mismatched:
        shapes = "; ".join(
            f"{name}: saved {saved[name]}, current {tuple(parameters[name].shape)}" for name in mismatched[:4]
        )
        raise ValueError(
            f"{str(path)!r} has parameters of other shapes than this model ({shapes}). Build the model from the "
            "configuration next to it."
        )
    tensors = load_file(path)
    # PEFT has two copies of the statistics, which are equal
    given = {name.rpartition(".")[2]: tensors[name] for name in statistics}
    for module in model.modules():
        # A model that was moved refreshes its token rows at the next forward, which would undo the loading
        if hasattr(module, "refresh_token_rows"):
            module.refresh_token_rows()
            module.set_feature_statistics(given)
    for name, parameter in parameters.items():
        parameter.copy_(tensors[name])
