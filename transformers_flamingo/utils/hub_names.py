# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Say soon that a name is neither a folder nor can be looked up: a mistyped folder looks like a name of the Hub."""

import functools
import os
import time

from huggingface_hub import constants, hf_hub_url
from huggingface_hub.errors import HFValidationError
from huggingface_hub.file_download import repo_folder_name
from huggingface_hub.utils import get_session
from transformers.utils import CONFIG_NAME

from ..backbone_files_flamingo import is_missing_path
from .errors import is_of_network
from .redaction import one_line


# `huggingface_hub` tries each file six times in 23 seconds, and transformers looks for several files
_PAUSES = (0.0, 1.0, 2.0)
_TIMEOUT = 10.0


@functools.cache
def check_can_look_up(name: str) -> None:
    """
    Check that a name of the Hub can be looked up there, if it is not a local one and nothing of it is in the cache.

    Args:
        name (`str`): Folder or Hub name.

    Raises:
        FileNotFoundError: there is no such folder, and the Hub cannot be reached.
    """
    if os.path.exists(name) or is_missing_path(name) or _is_cached(name):
        return
    try:
        url = hf_hub_url(name, CONFIG_NAME)
    except HFValidationError:  # transformers says what a name can be
        return
    error = _try_to_reach(url)
    if error is not None:
        raise FileNotFoundError(
            f"There is no folder {name!r}, and the Hub cannot be reached to look for a model of that name "
            f"({one_line(str(error), 200).rstrip('.')}). Check the path, or the network if it is a name of the Hub."
        ) from error


def _is_cached(name: str) -> bool:
    folder = repo_folder_name(repo_id=name, repo_type="model")
    return os.path.isdir(os.path.join(constants.HF_HUB_CACHE, folder, "snapshots"))


def _try_to_reach(url: str) -> Exception | None:
    """Return why the Hub cannot be reached. Any answer will do: transformers says what is wrong with it."""
    for pause in _PAUSES:
        time.sleep(pause)
        try:
            get_session().head(url, timeout=_TIMEOUT)
        # The errors of a session depend on the library that it is of
        except Exception as error:
            if isinstance(error, ConnectionError):  # `HF_HUB_OFFLINE` asks for no connection
                return error
            if not is_of_network(error):
                return None
            last = error
        else:
            return None
    return last
