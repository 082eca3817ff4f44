# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Folders that hold a part of a model: PEFT adapters, or the parameters that were trained (`save_trainable_only`).

Next to them, `base_model.json` says what they belong to: a saved Flamingo, or two backbones and the fields of their
`FlamingoConfig`. So every command loads such a folder as it loads a complete model. Where on this machine a local base is, is in
`_base_model.json`: names with an underscore are not published.
"""

import functools
import os
from dataclasses import fields
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download, snapshot_download
from huggingface_hub.errors import EntryNotFoundError
from safetensors import safe_open
from torch import nn
from transformers.utils import CONFIG_NAME

from ..backbone_files_flamingo import is_missing_path
from ..configuration_flamingo import FlamingoConfig
from ..modeling_flamingo import FlamingoModel
from ..saving_flamingo import write_json
from .hub_names import check_can_look_up
from .plugins import TEXT_BACKBONES, VISION_BACKBONES, find_plugins
from .redaction import explain, redact
from .trainable import TRAINABLE_NAME, load_trainable
from .weight_files import read_json


BASE_NAME = "base_model.json"
LOCAL_BASE_NAME = f"_{BASE_NAME}"
ADAPTER_NAME = "adapter_config.json"


def find_partial(name: str | os.PathLike) -> str | None:
    """Return what a local folder has of a model, if it has only a part of one: `"adapters"` or `"the trained parameters"`."""
    path = Path(name)
    if (path / TRAINABLE_NAME).is_file():
        return "the trained parameters"
    if (path / ADAPTER_NAME).is_file() and not (path / "config.json").is_file():
        return "adapters"
    return None


@functools.cache
def fetch_partial(name: str) -> str:
    """
    Return the folder of a repository of the Hub that has only a part of a model, which is downloaded, and any other name as it is.

    The name of a complete model stays: transformers downloads what it needs of it.

    Args:
        name (`str`): Folder or Hub name.

    Raises:
        FileNotFoundError: there is no such folder, and the Hub cannot be reached.
    """
    if os.path.exists(name) or is_missing_path(name):
        return name
    check_can_look_up(name)
    try:
        if not _is_on_hub(name, TRAINABLE_NAME) and (
            _is_on_hub(name, CONFIG_NAME) or not _is_on_hub(name, ADAPTER_NAME)
        ):
            return name
        return snapshot_download(name, ignore_patterns=["checkpoint-*"])  # of a training, which has pushed them too
    # No such repository, no access or no network: transformers says so in its own words when it looks for the model there
    except (OSError, ValueError):
        return name


def _is_on_hub(name: str, file: str) -> bool:
    try:
        hf_hub_download(name, file)
    except EntryNotFoundError:
        return False
    return True


def record_base(model: nn.Module, /, **names: Any) -> None:
    """
    Remember what a model was loaded from, for the folders that will hold a part of it.

    Args:
        model ([`FlamingoModel`]): The model.
        names: `model`, a saved Flamingo, or `vision`, `text` and `options`, as [`describe_base`] returns them.
    """
    model.base_record = {name: _absolute(value) for name, value in names.items() if value}


def describe_base(model: nn.Module) -> dict[str, Any]:
    """
    Describe what a model was loaded from.

    Args:
        model (`nn.Module`): A [`FlamingoModel`], or a `PeftModel` around one.

    Returns:
        `dict`: `model`, the folder or name of a saved Flamingo; or `vision` and `text`, those of the backbones, and `options`,
        what was passed to their `from_pretrained`. Always `config`: the fields of the [`FlamingoConfig`]. Local paths are
        absolute, so that the folder can be loaded from anywhere on this machine.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = inner.config
    inner.update_feature_config()  # a resumed training has loaded statistics
    record = getattr(inner, "base_record", None)
    if record is None and config.name_or_path:
        record = {"model": config.name_or_path}
    elif record is None:
        configs = {"vision": config.vision_config, "text": config.text_config}
        record = {part: getattr(of_part, "name_or_path", None) for part, of_part in configs.items()}
    values = config.to_dict()
    # `Trainer` turns `use_cache` off for the training. A base that is built with it would generate without a cache
    known = [f.name for f in fields(FlamingoConfig) if f.name not in ("vision_config", "text_config", "use_cache")]
    record = {name: _absolute(value) for name, value in record.items() if value}
    return {**record, "config": {name: values[name] for name in known if values.get(name) is not None}}


def save_base(model: nn.Module, directory: str | os.PathLike) -> None:
    """
    Write what a model was loaded from next to the part of it that is saved.

    Args:
        model (`nn.Module`): A [`FlamingoModel`], or a `PeftModel` around one.
        directory (`str` or `os.PathLike`): The folder.
    """
    record = describe_base(model)
    public = {
        name: f"./{Path(value).name}" if isinstance(value, str) and os.path.isabs(value) else value
        for name, value in record.items()
    }
    write_json(Path(directory) / BASE_NAME, public)
    if public != record:
        write_json(Path(directory) / LOCAL_BASE_NAME, record)


def _absolute(name: Any) -> Any:
    """Return a local path in full. Names on the Hub and those that a package registers stay."""
    if not isinstance(name, str) or name in find_plugins(VISION_BACKBONES) or name in find_plugins(TEXT_BACKBONES):
        return name
    return os.path.abspath(name) if os.path.exists(name) else name


def add_part(model: FlamingoModel, folder: str, base_name: str) -> FlamingoModel:
    """
    Put what a folder has into the base model that it belongs to. Adapters are merged.

    Args:
        model ([`FlamingoModel`]): The base. It is changed.
        folder (`str`): The folder.
        base_name (`str`): Name of the base, for messages.

    Raises:
        ValueError: the part does not fit the base.
    """
    has_adapters = (Path(folder) / ADAPTER_NAME).is_file()
    try:
        if not (Path(folder) / TRAINABLE_NAME).is_file():
            model = _peft().PeftModel.from_pretrained(model, folder)
        elif has_adapters:
            peft = _peft()
            model = peft.get_peft_model(model, peft.LoraConfig.from_pretrained(folder))
            load_trainable(model, folder)
        else:
            _load_trained(model, folder)
        model = model.merge_and_unload() if has_adapters else model
    except (RuntimeError, ValueError) as error:
        raise ValueError(
            f"{folder!r} does not fit its base, {base_name}: {explain(error)} Use the model that it was trained on."
        ) from error
    record_base(model, model=folder)  # stays known when it is trained further
    return model.eval()


def _load_trained(model: FlamingoModel, folder: str) -> None:
    """Load the trained parameters into their base, frozen as it was trained."""
    with safe_open(Path(folder) / TRAINABLE_NAME, framework="pt") as file:
        names = list(file.keys())
    model.freeze_backbones(train_token_embeddings=any(name.startswith("input_token_rows.") for name in names))
    model.unfreeze_backbones(
        vision_model=any(name.startswith("vision_model.") for name in names),
        language_model=any(name.startswith("language_model.") for name in names),
    )
    load_trainable(model, folder)
    model.unfreeze_backbones()


def read_base(folder: str) -> dict[str, Any]:
    """
    Return what the base of a folder with a part of a model is, as [`describe_base`] does.

    Raises:
        FileNotFoundError: the folder does not say.
        ValueError: its `base_model.json` is damaged.
    """
    paths = [Path(folder) / name for name in (LOCAL_BASE_NAME, BASE_NAME)]
    record = next((read_json(path) for path in paths if path.is_file()), {})
    if record.get("model") or (record.get("vision") and record.get("text")):
        return record
    adapters = Path(folder) / ADAPTER_NAME
    named = read_json(adapters).get("base_model_name_or_path") if adapters.is_file() else None
    if named:
        return {"model": named}
    raise FileNotFoundError(
        f"{folder!r} has only {find_partial(folder)}, and no {BASE_NAME} that says which model they belong to. Name it: flamingo "
        f"merge {folder} NEW_FOLDER --base MODEL, or --vision and --text for two backbones."
    )


def name_base(record: dict[str, Any]) -> str:
    """Return the names of the base in a record, for messages."""
    names = [record["model"]] if "model" in record else [record["vision"], record["text"]]
    return " and ".join(repr(redact(name)) for name in names)


def _peft() -> Any:
    try:
        import peft
    except ImportError as error:
        raise ImportError("Adapters need PEFT: `pip install transformers-flamingo[train]`.", name="peft") from error
    return peft
