# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Say what is wrong with the folder or name of a backbone, before its weights are read.

The two names are easily swapped, and what transformers says then is a list of two hundred classes, or of files that are missing.

The file travels with a checkpoint as remote code: it stays flat and imports nothing of its own package.
"""

import inspect
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_MAPPING, AutoConfig, PreTrainedConfig


#: Arguments of `from_pretrained` that say where the files of a model are. The configuration and the tokenizer need them too.
FILE_ARGUMENTS = (
    "cache_dir",
    "force_download",
    "gguf_file",
    "local_files_only",
    "revision",
    "subfolder",
    "token",
    "trust_remote_code",
)
_ROLES = {"vision": "vision encoder", "text": "language model"}
_ORDER = "The vision encoder is named first (`vision`), and the language model second (`text`)."


def read_backbone_config(
    name_or_path: str | os.PathLike, role: Literal["vision", "text"], file_arguments: dict[str, Any]
) -> PreTrainedConfig:
    """
    Read the configuration of a backbone from files that were checked.

    Args:
        name_or_path (`str` or `os.PathLike`): Folder or Hub name.
        role (`str`): `"vision"` or `"text"`.
        file_arguments (`dict`): Those of `from_pretrained` that are named in [`FILE_ARGUMENTS`].

    Raises:
        FileNotFoundError: there is no such folder, or no such GGUF file in it.
        ValueError: its weights are in GGUF files, and none is named.
    """
    check_files(name_or_path, role, file_arguments.get("gguf_file"))
    with explain_gguf(name_or_path, file_arguments.get("gguf_file")):
        return AutoConfig.from_pretrained(name_or_path, **file_arguments)


@contextmanager
def explain_gguf(name_or_path: str | os.PathLike, gguf_file: str | None) -> Iterator[None]:
    """
    Say that a GGUF file is damaged. Its reader unpacks what is there, and fails with the error of whatever that is not.

    Args:
        name_or_path (`str` or `os.PathLike`): Folder or Hub name.
        gguf_file (`str`, *optional*): The GGUF file in it that is read. Without one, errors stay as they are.

    Raises:
        ValueError: the file is damaged, or of a model that transformers does not read from GGUF.
    """
    try:
        yield
    # `struct.error` is not a ValueError, and what is unpacked may be a key, an index or a type that does not exist
    except (struct.error, ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
        if gguf_file is None:
            raise
        raise ValueError(
            f"{gguf_file!r} of {os.fspath(name_or_path)!r} cannot be read ({type(error).__name__}: {error}). It is truncated or damaged, "
            "or of a model that transformers does not read from GGUF. Fetch it again, or give the model as safetensors."
        ) from error


def is_missing_path(name: str) -> bool:
    """Return whether a name is a path that does not exist: it cannot be a Hub name, which has one slash at most."""
    path = Path(name)
    return not path.exists() and (path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1)


def check_files(name_or_path: str | os.PathLike, role: Literal["vision", "text"], gguf_file: str | None) -> None:
    """
    Check that the folder of a backbone exists, and has the files that are read. Nothing is checked for a Hub name.

    Args:
        name_or_path (`str` or `os.PathLike`): Folder or Hub name.
        role (`str`): `"vision"` or `"text"`.
        gguf_file (`str`, *optional*): The GGUF file in it.

    Raises:
        FileNotFoundError: it does not exist, or the GGUF file does not.
        ValueError: its weights are in GGUF files, and none is named.
    """
    name, path = os.fspath(name_or_path), Path(name_or_path)
    if path.suffix == ".gguf" and path.is_file():
        raise ValueError(
            f"{name!r} is a file. Give its folder, {str(path.parent)!r}, and `text_gguf_file={path.name!r}`."
        )
    if not path.is_dir():
        if is_missing_path(name):
            raise FileNotFoundError(
                f"There is no folder {name!r}, which should be that of the {_ROLES[role]}. Check the path."
            )
        return
    files = sorted(file.name for file in path.glob("*.gguf"))
    if gguf_file is not None and not any(path.rglob(os.path.basename(gguf_file))):  # it may be in a `subfolder`
        remedy = (
            f"Its GGUF files are {', '.join(files)}."
            if files
            else f"It has no GGUF file. Give the folder that has it, or leave `{role}_gguf_file` out to read the weights of this one."
        )
        raise FileNotFoundError(f"{name!r} has no {gguf_file!r}. {remedy}")
    if gguf_file is None and files and not (path / "config.json").exists():
        remedy = (
            f"Name the one that is read: `text_gguf_file={files[0]!r}` (in a recipe, in `model_config`)."
            if role == "text"
            else "transformers reads language models from such files. Use a vision encoder that is saved with its config.json."
        )
        raise ValueError(f"{name!r} has no config.json, and its weights are in GGUF: {', '.join(files)}. {remedy}")


def check_kind(name_or_path: str | os.PathLike, role: Literal["vision", "text"], config: PreTrainedConfig) -> None:
    """
    Check that a model of this configuration can be the vision encoder or the language model.

    Args:
        name_or_path (`str` or `os.PathLike`): Folder or Hub name, for the message.
        role (`str`): `"vision"` or `"text"`.
        config (`PreTrainedConfig`): The configuration.

    Raises:
        ValueError: it is a model of another kind.
    """
    if reason := _find_wrong_kind(config, role):
        raise ValueError(f"{os.fspath(name_or_path)!r} {reason}")


def explain_missing_part(
    name_or_path: str | os.PathLike, role: Literal["vision", "text"], kwargs: dict[str, Any], error: Exception
) -> Exception:
    """
    Return the error to raise when the image processor or the tokenizer of a backbone cannot be loaded.

    It is another one if the backbone itself is of the wrong kind. Its configuration is read only now, because a processor may be
    saved without one.

    Args:
        name_or_path (`str` or `os.PathLike`): Folder or Hub name.
        role (`str`): `"vision"` or `"text"`.
        kwargs (`dict`): Arguments of `from_pretrained`.
        error (`Exception`): What was raised.
    """
    try:
        config = AutoConfig.from_pretrained(
            name_or_path, **{name: kwargs[name] for name in FILE_ARGUMENTS if name in kwargs}
        )
    except Exception:  # the first error says more
        return error
    reason = _find_wrong_kind(config, role)
    return ValueError(f"{os.fspath(name_or_path)!r} {reason}") if reason else error


def _find_wrong_kind(config: PreTrainedConfig, role: Literal["vision", "text"]) -> str | None:
    """Tell why a model of this configuration cannot be the vision encoder or the language model, if nothing else is wrong."""
    code = getattr(config, "auto_map", None) or {}
    kind = f"is a model of type {config.model_type!r}"
    if config.model_type == "flamingo":
        return f"{kind}, a Flamingo, and not one of its backbones. Load it with `FlamingoModel.from_pretrained`."
    if role == "text":
        if type(config) in MODEL_FOR_CAUSAL_LM_MAPPING or "AutoModelForCausalLM" in code:
            return None
        return f"{kind}, which is no causal language model of transformers (`AutoModelForCausalLM`). {_ORDER}"
    vision_config = getattr(config, "vision_config", None) or config
    if type(vision_config) not in MODEL_MAPPING or "AutoModel" in code:
        return None  # `build_vision_model` says so
    model_class = MODEL_MAPPING[type(vision_config)]
    if isinstance(model_class, tuple):
        return None
    parameters = inspect.signature(model_class.forward).parameters
    if "input_ids" in parameters and "pixel_values" not in parameters:
        return f"{kind}, which reads text and no pixels, so it cannot be the vision encoder. {_ORDER}"
    return None
