# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Say in one line which option of a conversion cannot be read, why, and what to do."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import httpx

from ..utils.weight_files import check_folder


@contextmanager
def name_option_in_errors(option: str, name_or_path: str | os.PathLike) -> Iterator[None]:
    """
    Name the option of a conversion in the errors that reading its value raises.

    Args:
        option (`str`): Name of the option, such as `"vision"`.
        name_or_path (`str` or `os.PathLike`): Its value. A folder is checked before anything in it is opened.

    Raises:
        OSError: the folder does not exist, or the Hub cannot be reached or refuses access.
        ValueError: one of its files is damaged, or has content that no library understands.
    """
    flag = f" (--{option})" if option in ("vision", "text", "tokenizer") else ""
    subject = f"`{option}`{flag} is {name_or_path}, which cannot be"
    try:
        check_folder(name_or_path)
        yield
    except OSError as error:
        raise OSError(f"{subject} read: {explain_read_error(error, name_or_path)}") from error
    except ValueError as error:
        if "\n" not in str(error):  # one of ours, which names its file
            raise
        raise ValueError(f"{subject} used: {first_line(error)} Fix or fetch its files again.") from error
    except (ImportError, MemoryError):  # the environment is at fault
        raise
    # Broad: transformers and tokenizers parse files that they did not write without checking them, so a damaged one raises
    # whatever its first misread value leads to. tokenizers even raises plain `Exception`.
    except Exception as error:
        if _is_connection_error(error):
            raise OSError(f"{subject} read: {explain_read_error(error, name_or_path)}") from error
        raise ValueError(
            f"{subject} used: {type(error).__name__}: {first_line(error)}. Fix or fetch its files again."
        ) from error


def explain_read_error(error: BaseException, name_or_path: str | os.PathLike) -> str:
    """Return in one line why a folder or Hub repository could not be read, and what to do."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    path = str(name_or_path)
    if isinstance(error, PermissionError):
        return f"you have no permission to read {error.filename or path}."
    if path.startswith((".", "~", os.sep)) and not os.path.exists(path):
        return "there is no such directory."
    if any(isinstance(link, GatedRepoError) for link in chain):
        return f"it is gated. Accept its terms on https://huggingface.co/{path}, and log in with `hf auth login`."
    if any(isinstance(link, RepositoryNotFoundError | HFValidationError) for link in chain):
        return (
            "it is neither a directory nor a repository of the Hub that you may read. Check the name; if the repository is "
            "private, log in with `hf auth login`."
        )
    if any(isinstance(link, LocalEntryNotFoundError) or _is_connection_error(link) for link in chain):
        return (
            "it is not a directory, and the Hub cannot be reached. Check the name and the connection, or download it elsewhere "
            "and pass the directory."
        )
    return first_line(error)


def _is_connection_error(error: BaseException) -> bool:
    return isinstance(error, ConnectionError | httpx.TransportError)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its type if it has no message."""
    return str(error).partition("\n")[0] or type(error).__name__
