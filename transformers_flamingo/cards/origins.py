# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Find out what a model or a dataset is called on the Hub, also if it was loaded from a folder.

Cards name it, because the Hub links a model with its base models and its datasets. The Hub is not asked, and a path of this
machine is never a name.
"""

import json
import os
import re
from pathlib import Path
from typing import Any

from huggingface_hub import metadata_load
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from transformers.utils import CONFIG_NAME
from yaml import YAMLError


_CARD_NAME = "README.md"
# The cache of the Hub: `models--OWNER--NAME/snapshots/REVISION`
_SNAPSHOT = re.compile(r"(?:^|[/\\])(?:models|datasets)--([^/\\]+)[/\\]snapshots(?:[/\\]|$)")
# Where `datasets` downloaded a file: `hf://datasets/OWNER/NAME@REVISION/FILE`
_DOWNLOADED = re.compile(r"^hf://datasets/([^/@]+/[^/@]+)(?:@|/)")


def is_hub_name(name: Any) -> bool:
    """Check that this can be the name of a repository, `OWNER/NAME` or `NAME`, and is not a local path."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not os.path.exists(name)


def public_name(name: str) -> str:
    """Return a Hub name as it is, and the last part of a local path: cards do not leak where it is on this machine."""
    return name if is_hub_name(name) else os.path.basename(os.path.normpath(name))


def find_origins(path: str | os.PathLike) -> list[str]:
    """
    Return the names on the Hub of what a local folder holds, or of what that was made from.

    It is in the path if the folder is in the cache of the Hub. Otherwise the card of the folder names it (`base_model`), or
    its configuration, in which older releases of transformers wrote the name that the model was loaded by.

    Args:
        path (`str` or `os.PathLike`): A folder with a model, or a path to the files of a dataset.

    Returns:
        Names `OWNER/NAME`, none if nothing in the folder says it.
    """
    if name := find_cached_name(path):
        return [name]
    names = _names_in_card(Path(path)) or [_name_in_config(Path(path))]
    # A name without an owner may as well be that of a folder elsewhere
    return [name for name in names if isinstance(name, str) and "/" in name and is_hub_name(name)]


def find_name(name_or_path: str | os.PathLike | None) -> str | None:
    """Return the name on the Hub of what was loaded by this name or path; `None` for another local path, or none."""
    if not name_or_path:
        return None
    return find_cached_name(name_or_path) or (name_or_path if is_hub_name(name_or_path) else None)


def find_cached_name(path: str | os.PathLike) -> str | None:
    """Return the name of the repository whose files these are, if the path is in the cache of the Hub."""
    found = _SNAPSHOT.search(os.fspath(path))
    return found[1].replace("--", "/", 1) if found else None


def find_dataset_names(dataset: Any) -> list[str]:
    """Return the names of the datasets on the Hub of which this `datasets.Dataset` was made, in the order of their files."""
    info = getattr(dataset, "info", None)
    found = map(_DOWNLOADED.match, getattr(info, "download_checksums", None) or ())
    return list(dict.fromkeys(match[1] for match in found if match))


def _names_in_card(folder: Path) -> list[Any]:
    """Return the base models that the card of a folder names. A card that cannot be read names none."""
    try:
        names = (metadata_load(folder / _CARD_NAME) or {}).get("base_model")
    except (OSError, ValueError, YAMLError):  # somebody else wrote it, and nothing else needs it
        return []
    return names if isinstance(names, list) else [names] if names else []


def _name_in_config(folder: Path) -> Any:
    """Return the name that the configuration of a folder was loaded by."""
    try:
        config = json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return config.get("_name_or_path") if isinstance(config, dict) else None
