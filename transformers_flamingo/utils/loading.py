# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Load a saved Flamingo with its processor, refuse what would load as something else, and know how long a text it reads."""

import json
import os
from pathlib import Path

import torch
from transformers import AutoConfig, AutoProcessor
from transformers.utils import logging

from ..configuration_flamingo import FlamingoConfig
from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor
from .weight_files import check_folder, check_weights_file


def load_flamingo(
    name_or_path: str | os.PathLike, dtype: str | torch.dtype = "auto", device: str | torch.device | None = None
) -> tuple[FlamingoModel, FlamingoProcessor]:
    """
    Load a saved Flamingo and its processor.

    `from_pretrained` only warns of weights that a file lacks, and leaves them at random. Here they are an error.

    Args:
        name_or_path (`str` or `os.PathLike`): Folder or Hub name.
        dtype (`str` or `torch.dtype`, *optional*, defaults to `"auto"`): Of the parameters; `"auto"` is as saved.
        device (`str` or `torch.device`, *optional*): By default the accelerator, if there is one.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it is not a Flamingo, or its weights do not belong to its configuration.
    """
    name = os.fspath(name_or_path)
    _check_folder(name)
    config = _read_config(name)
    processor = AutoProcessor.from_pretrained(name, trust_remote_code=False)
    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()  # its report of the weights in many lines; the errors below have what it says
    try:
        model, info = FlamingoModel.from_pretrained(
            name, config=config, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True
        )
    finally:
        logging.set_verbosity(verbosity)
    check_weights(name, info)
    _check_settings(name, model, processor)
    if getattr(model, "is_quantized", False):  # it is where its weights were quantized
        return model, processor
    if device is None:
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    return model.to(device), processor


def check_name(name: str) -> None:
    """
    Check what libraries would open of a local model; of a Hub name, nothing.

    Raises:
        FileNotFoundError: there is no such folder.
        NotADirectoryError: it is a file.
        ValueError: a file in it is none, such as a FIFO, or its weights are damaged or would take any amount of memory.
    """
    path = Path(name)
    if path.is_file():
        raise NotADirectoryError(f"{name!r} is a file. Give the folder that a model was saved into.")
    if not path.exists() and (path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1):
        raise FileNotFoundError(f"There is no folder {name!r}. Give a folder with a saved model, or its Hub name.")
    check_folder(name)
    for file in sorted(path.glob("*config.json")):
        _check_json(file)
    for file in sorted(path.glob("pytorch_model*.bin")):  # safetensors checks its files by itself
        check_weights_file(file)


def _check_folder(name: str) -> None:
    path = Path(name)
    check_name(name)
    if (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
        raise ValueError(
            f"{name!r} has adapters alone. Load them with `peft.PeftModel.from_pretrained` on the model they were trained on, "
            "merge them, and save the merged model."
        )
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise FileNotFoundError(
                f"{name!r} has no config.json. Give a folder that a whole Flamingo was saved into."
            )
        for file in sorted(path.glob("*.json")):
            _check_json(file)


def _check_json(file: Path) -> None:
    """Name a damaged file. The libraries do not, and ignore a damaged generation_config.json."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{str(file)!r} is not JSON ({error}). It is cut short or damaged: fetch it again."
        ) from error
    if not isinstance(content, dict):
        raise ValueError(
            f"{str(file)!r} holds a {type(content).__name__}, not an object. It is damaged: fetch it again."
        )
    if file.name.endswith(".index.json"):
        shards = content.get("weight_map")
        if not isinstance(shards, dict) or not shards or not isinstance(content.get("metadata"), dict):
            raise ValueError(f"{str(file)!r} has no `weight_map` with `metadata`. It is damaged: fetch it again.")
        missing = sorted({str(shard) for shard in shards.values() if not (file.parent / str(shard)).is_file()})
        if missing:
            raise FileNotFoundError(f"{str(file)!r} names {missing[0]!r}, which is missing. Fetch it.")


def _read_config(name: str) -> FlamingoConfig:
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (TypeError, AttributeError, KeyError) as error:  # values of other types than JSON's object has there
        raise ValueError(f"The config.json of {name!r} is not one of a Flamingo: {error}") from error
    if not isinstance(config, FlamingoConfig):
        raise ValueError(f"{name!r} is a model of type {config.model_type!r}. Give a Flamingo.")
    return config


def check_weights(name: str, info: dict) -> None:
    """Refuse a model of which a part would be random, or whose file holds more than its configuration says."""
    problems = {
        "have another shape than its configuration says": [
            f"{key} ({tuple(saved)} in the file, {tuple(wanted)} in the model)"
            for key, saved, wanted in info["mismatched_keys"]
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
    """Refuse settings that the libraries load as they are, and that would end the first answer with their words."""
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
        is_whole = all(isinstance(id, int) and not isinstance(id, bool) for id in ids)
        # Others outside the vocabulary are never generated, and some models have a padding of -1
        if not is_whole or (field.startswith("forced_") and not all(0 <= id < num_tokens for id in ids)):
            raise ValueError(
                f"{name!r}: `{field}` in generation_config.json is {value!r}, which is not a token of its vocabulary of {num_tokens}. "
                "Fix the file, or fetch it again."
            )


def check_answer_length(model: FlamingoModel, num_tokens: int, max_new_tokens: int) -> None:
    """
    Check that a prompt and its answer fit into the positions of the language model. `generate()` would cut the answer.

    Raises:
        ValueError: they do not.
    """
    limit = model.max_text_length
    if limit is not None and num_tokens + max_new_tokens - 1 > limit:  # the last token is not fed to the model
        raise ValueError(
            f"The prompt has {num_tokens} tokens and the answer may have {max_new_tokens}, but the language model has {limit} "
            "positions. Shorten the prompt (fewer examples, a new chat), or allow fewer new tokens."
        )
