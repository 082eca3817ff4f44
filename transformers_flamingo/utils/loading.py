# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Load a saved Flamingo with its processor, and refuse a model whose files would silently load as something else."""

import os
from pathlib import Path

import torch
from transformers import AutoConfig, AutoProcessor
from transformers.utils import logging

from ..configuration_flamingo import FlamingoConfig
from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor
from .weight_files import check_folder, check_weight_map, check_weights_file, read_json


def load_flamingo(
    name_or_path: str | os.PathLike, dtype: str | torch.dtype = "auto", device: str | torch.device | None = None
) -> tuple[FlamingoModel, FlamingoProcessor]:
    """
    Load a saved Flamingo and its processor.

    `from_pretrained` only warns about weights that are missing and initializes them randomly. Here they are an error.

    Args:
        name_or_path (`str` or `os.PathLike`): Folder or Hub name.
        dtype (`str` or `torch.dtype`, *optional*, defaults to `"auto"`): Dtype of the parameters; `"auto"` keeps the saved one.
        device (`str` or `torch.device`, *optional*): Device of the model; by default the accelerator, if there is one.

    Raises:
        FileNotFoundError: the folder or one of its files does not exist.
        ValueError: a file is damaged, the model is not a Flamingo, or its weights do not fit its configuration.
    """
    name = os.fspath(name_or_path)
    _check_flamingo_folder(name)
    config = _read_config(name)
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
    if device is None:
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    return model.to(device), processor


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
    if not path.exists() and (path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1):
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
    if (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
        raise ValueError(
            f"{name!r} has only adapters. Load them with `peft.PeftModel.from_pretrained` on the model they were trained on, "
            "merge them, and save the merged model."
        )
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


def _read_config(name: str) -> FlamingoConfig:
    """Read the config of a model, with a `ValueError` if it is not one of a Flamingo."""
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
