# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Load a saved Flamingo with its processor, and refuse a model whose files would silently load as something else."""

import os
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoProcessor
from transformers.utils import logging

from ..backbone_files_flamingo import is_missing_path
from ..configuration_flamingo import FlamingoConfig
from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor
from .hub_names import check_can_look_up
from .partial_models import add_part, fetch_partial, find_partial, name_base, read_base, record_base
from .plugins import TEXT_BACKBONES, VISION_BACKBONES, plugin_path
from .redaction import explain
from .weight_files import check_folder, check_weight_map, check_weights_file, read_json


#: Options of the language model's `from_pretrained` that say which files it reads. The tokenizer is in them too.
TOKENIZER_OPTIONS = ("text_gguf_file", "text_revision", "text_subfolder")


def load_flamingo(
    name_or_path: str | os.PathLike, dtype: str | torch.dtype = "auto", device: str | torch.device | None = None
) -> tuple[FlamingoModel, FlamingoProcessor]:
    """
    Load a saved Flamingo and its processor.

    `from_pretrained` only warns about weights that are missing and initializes them randomly. Here they are an error. A folder or
    repository with adapters, or with the trained parameters alone, is loaded into the model that it belongs to.

    Args:
        name_or_path (`str` or `os.PathLike`): Folder or Hub name.
        dtype (`str` or `torch.dtype`, *optional*, defaults to `"auto"`): Dtype of the parameters; `"auto"` keeps the saved one.
        device (`str` or `torch.device`, *optional*): Device of the model; by default the accelerator, if there is one.

    Raises:
        FileNotFoundError: the folder or one of its files does not exist.
        ValueError: a file is damaged, the model is not a Flamingo, or its weights do not fit its configuration.
    """
    name = os.fspath(name_or_path)
    if device is None:
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    folder = fetch_partial(name)
    if find_partial(folder) is not None:
        model, processor = load_partial(folder, dtype)
        record_base(model, model=name)  # stays known when it is trained further
        return model.to(device), processor
    config = read_flamingo_config(name)
    processor = AutoProcessor.from_pretrained(name, trust_remote_code=False)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # silences its table of weights; the errors below say the same in one line
    try:
        model, info = FlamingoModel.from_pretrained(
            name, config=config, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True
        )
    finally:
        logging.set_verbosity(verbosity)
    check_weights(name, info)
    _check_settings(name, model, processor)
    if getattr(model, "is_quantized", False):  # quantized weights cannot be moved; they were loaded onto their device
        return model, processor
    return model.to(device), processor


def load_partial(
    folder: str, dtype: str | torch.dtype = "auto", base: dict[str, str] | None = None
) -> tuple[FlamingoModel, FlamingoProcessor]:
    """
    Load the model that a folder has a part of, on the CPU: its base with the trained parameters in it, or with its adapters merged.

    Args:
        folder (`str`): The folder.
        dtype (`str` or `torch.dtype`, *optional*, defaults to `"auto"`): Dtype of the parameters; `"auto"` is that of the base.
        base (`dict`, *optional*): `model`, or `vision` and `text`, if the base is no longer where the folder says.

    Raises:
        FileNotFoundError: the folder does not say what it belongs to.
        ValueError: the base cannot be loaded, or the part does not fit it.
    """
    check_name(folder)
    record = read_base(folder) if base is None else {**_settings(folder), **base}
    try:
        model, processor = _load_base(folder, record, dtype)
    except (OSError, TypeError, ValueError) as error:
        raise ValueError(
            f"{folder!r} has only {find_partial(folder)}. The model that they belong to, {name_base(record)}, cannot be loaded "
            f"({explain(error).rstrip('.')}). If it was moved: flamingo merge {folder} NEW_FOLDER --base MODEL, or --vision and "
            "--text for two backbones."
        ) from error
    if (Path(folder) / "processor_config.json").is_file():  # that of `PeftModel.save_pretrained` has none
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    return add_part(model, folder, name_base(record)), processor


def _settings(folder: str) -> dict[str, Any]:
    """Return the part of `base_model.json` that stays true when the base was moved."""
    try:
        return {name: value for name, value in read_base(folder).items() if name in ("config", "options")}
    except FileNotFoundError:
        return {}


def _load_base(
    folder: str, record: dict[str, Any], dtype: str | torch.dtype
) -> tuple[FlamingoModel, FlamingoProcessor]:
    if "model" in record:
        if os.path.realpath(record["model"]) == os.path.realpath(folder):
            raise ValueError("it would be its own base")
        return load_flamingo(record["model"], dtype, "cpu")
    vision, text = plugin_path(VISION_BACKBONES, record["vision"]), plugin_path(TEXT_BACKBONES, record["text"])
    for check in (check_name, check_can_look_up):
        check(vision)
        check(text)
    options = {**record.get("config", {}), **record.get("options", {})} | ({} if dtype == "auto" else {"dtype": dtype})
    model = FlamingoModel.from_vision_text_pretrained(vision, text, **options)
    of_files = {name: options[name] for name in TOKENIZER_OPTIONS if name in options}
    return model, FlamingoProcessor.from_vision_text_pretrained(vision, text, **of_files)


def check_name(name: str) -> None:
    """
    Check the files of a local model before a library opens them. Nothing is checked for a Hub name.

    Raises:
        FileNotFoundError: the folder does not exist.
        NotADirectoryError: `name` is a file.
        ValueError: the folder has a pipe or a device in it, or its files are damaged or could take any amount of memory.
    """
    path = Path(name)
    if path.is_file():
        raise NotADirectoryError(f"{name!r} is a file. Pass the folder that a model was saved into.")
    if is_missing_path(name):
        raise FileNotFoundError(f"There is no folder {name!r}. Pass a folder with a saved model, or its Hub name.")
    check_folder(name)
    for file in sorted(path.glob("*config.json")):
        _check_json(file)
    for file in sorted(path.glob("pytorch_model*.bin")):  # safetensors checks its own files
        check_weights_file(file)


def _check_flamingo_folder(name: str) -> None:
    """Check that the files of a local model are readable, and that they are a complete model."""
    path = Path(name)
    check_name(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise FileNotFoundError(
                f"{name!r} has no config.json. Pass a folder that a complete Flamingo was saved into."
            )
        for file in sorted(path.glob("*.json")):
            _check_json(file)


def _check_json(file: Path) -> None:
    """
    Check a JSON file of a model, and the files of weights that it names if it is an index.

    The libraries do not name a damaged file, and they ignore a damaged generation_config.json.
    """
    content = read_json(file, max_bytes=None)  # the tokenizer.json of a large vocabulary has more than 16 MiB
    if file.name.endswith(".index.json"):
        shards = set(check_weight_map(file, content).values())
        if not isinstance(content.get("metadata"), dict):  # transformers reads it
            raise ValueError(f"{file} has no `metadata`: it is damaged. Fetch it again.")
        if missing := sorted(shard for shard in shards if not (file.parent / shard).is_file()):
            raise FileNotFoundError(f"{file} names {missing[0]!r}, which is missing. Fetch it.")


def read_flamingo_config(name: str) -> FlamingoConfig:
    """
    Read the configuration of a saved Flamingo, after a look at its files.

    Args:
        name (`str`): Folder or Hub name.

    Raises:
        FileNotFoundError: the folder or one of its files does not exist.
        ValueError: a file is damaged, or the model is not a Flamingo.
    """
    _check_flamingo_folder(name)
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (TypeError, AttributeError, KeyError) as error:  # values of unexpected types
        raise ValueError(f"The config.json of {name!r} is not one of a Flamingo: {error}") from error
    if not isinstance(config, FlamingoConfig):
        raise ValueError(f"{name!r} is a model of type {config.model_type!r}. Pass a Flamingo.")
    return config


def check_weights(name: str, info: dict) -> None:
    """
    Refuse a model with weights that would be random or lost.

    Args:
        name (`str`): Folder or Hub name, for the message.
        info (`dict`): Loading information of `from_pretrained(..., output_loading_info=True)`.

    Raises:
        ValueError: weights are missing, left over, or have another shape than the configuration says.
    """
    problems = {
        "have another shape than its configuration says": [
            f"{key} ({tuple(saved)} in the file, {tuple(expected)} in the model)"
            for key, saved, expected in info["mismatched_keys"]
        ],
        "are missing": list(info["missing_keys"]),
        "are unknown to its configuration": list(info["unexpected_keys"]),
    }
    for problem, found in problems.items():
        if found:
            raise ValueError(
                f"{name!r}: {len(found)} weights {problem}, such as {sorted(found)[0]}. They would be random or lost. Use the "
                "config.json that was saved with these weights, or fetch the model again."
            )


def _check_settings(name: str, model: FlamingoModel, processor: FlamingoProcessor) -> None:
    """Refuse settings that transformers loads without a check. They would fail in the first answer, without their names."""
    limit = processor.tokenizer.model_max_length
    if isinstance(limit, bool) or not isinstance(limit, int | float):
        raise ValueError(
            f"{name!r}: `model_max_length` in tokenizer_config.json is {limit!r}, not a number. Fix the file, or fetch it again."
        )
    num_tokens = model.config.text_config.vocab_size
    for field, value in vars(model.generation_config).items():
        if not field.endswith("_token_id") or value is None:
            continue
        ids = value if isinstance(value, list | tuple) else [value]
        is_integer = all(isinstance(id, int) and not isinstance(id, bool) for id in ids)
        # Only forced tokens must be in the vocabulary: others are never generated, and some models have a padding of -1.
        if not is_integer or (field.startswith("forced_") and not all(0 <= id < num_tokens for id in ids)):
            raise ValueError(
                f"{name!r}: `{field}` in generation_config.json is {value!r}, which is not a token of its vocabulary of {num_tokens}. "
                "Fix the file, or fetch it again."
            )


def check_answer_length(model: FlamingoModel, num_tokens: int, max_new_tokens: int) -> None:
    """
    Check that a prompt and its answer fit into the positions of the language model. `generate()` would cut the answer.

    Args:
        model ([`FlamingoModel`]): The model.
        num_tokens (`int`): Length of the prompt in tokens.
        max_new_tokens (`int`): Maximum number of tokens of the answer.

    Raises:
        ValueError: they do not fit.
    """
    limit = model.max_text_length
    if limit is not None and num_tokens + max_new_tokens - 1 > limit:  # the last token is not fed to the model
        raise ValueError(
            f"The prompt has {num_tokens} tokens and the answer may have {max_new_tokens}, but the language model has {limit} "
            "positions. Shorten the prompt (fewer examples, a new chat), or allow fewer new tokens."
        )
