# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints that are known to be whole, and checkpoints of the trained parameters alone."""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from ..saving_flamingo import disk_errors, remove_leftovers, sync_folder, write_json


logger = logging.get_logger(__name__)

MANIFEST_NAME = "manifest.json"
TRAINABLE_NAME = "trainable.safetensors"
# `Trainer.push_to_hub` does not publish names with an underscore
LOCK_NAME = "_training.lock"


@contextmanager
def lock_output(directory: str | os.PathLike) -> Iterator[None]:
    """
    Keep other trainings out of an output folder, for as long as the block lasts or the process lives.

    Blocks of one process may be nested.

    Raises:
        OSError: another process trains into the folder, or it cannot be written.
    """
    directory = Path(directory)
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(directory.resolve() / LOCK_NAME, is_singleton=True, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise OSError(
                f"Another training is writing to {str(directory)!r}, and the two would overwrite each other's files. Wait "
                "until it has ended, or give another `output_dir`."
            ) from None
    try:
        remove_leftovers(directory)
        yield
    finally:
        lock.release()


def write_manifest(checkpoint: str | os.PathLike) -> None:
    """
    Declare a checkpoint whole: the names, sizes and SHA-256 of its files, in `manifest.json`, which appears at once.

    Call it when everything is written, and before an older checkpoint is deleted. It first waits until the files are on
    the disk, for a manifest that survives a power failure must not vouch for files that do not.
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
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_damage(checkpoint: str | os.PathLike, *, checksums: bool = True) -> str | None:
    """
    Say what is wrong with a checkpoint, compared with its manifest; `None` if nothing is.

    Args:
        checkpoint (`str`): The folder.
        checksums (`bool`, *optional*, defaults to `True`): Whether to read the files too, in addition to comparing their sizes.
    """
    checkpoint = Path(checkpoint)
    if not checkpoint.is_dir():
        return "there is no such folder"
    try:
        files = json.loads((checkpoint / MANIFEST_NAME).read_text(encoding="utf-8"))["files"]
        expected = {name: (entry["size"], entry["sha256"]) for name, entry in files.items()}
    except FileNotFoundError:
        return f"it has no {MANIFEST_NAME}, which is written last: its writing was cut short"
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


def agree(function: Callable[[], str | None]) -> str | None:
    """
    Return what `function` returns in the main process, in each process.

    A folder is then read by one of them, and they do not come to different conclusions. If it fails in one, it fails in
    all: none is left waiting for the others.

    Raises:
        OSError, ValueError: it raised one in the main process.
    """
    answer: list[Any] = [None]
    if PartialState().is_main_process:
        try:
            answer = [function()]
        except (OSError, ValueError) as error:  # the others wait for an answer
            answer = [error]
    if PartialState().num_processes > 1:
        broadcast_object_list(answer)
    if isinstance(answer[0], Exception):
        raise answer[0]
    return answer[0]


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
        damage = find_damage(path, checksums=False) if path.is_dir() else None
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
        if hasattr(module, "refresh_token_rows"):  # a model that was moved has not done so yet, and would undo this
            module.refresh_token_rows()
    for name, tensor in load_file(path).items():
        parameters[name].copy_(tensor)


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (", ..." if len(names) > 4 else "") if names else "none"
