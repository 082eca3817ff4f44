# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Tell errors that a user can fix from faults of this package: the error boundary of the `flamingo` command.

[`user_message`] is the only place that decides. An error that a user's input or machine can cause becomes one line that says what
to do; anything else stays a traceback, because it should be reported.
"""

import csv
import errno
import lzma
import os
import pickle
import re
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from types import FrameType
from urllib.parse import urlsplit

from packaging.utils import canonicalize_name

from .redaction import one_line


# The packages of this repository. A fault of the code of any of them is a traceback
_PACKAGES = ("transformers_flamingo", "transformers_flamingo_cli", "transformers_flamingo_miniature")

# Errors of the input, the disk, the network and missing packages. This package and its libraries raise `ValueError` for input that
# they refuse; errors of JSON, Unicode, pandas and Arrow derive from it.
_STANDARD = (
    *(ValueError, OSError, ImportError, EOFError, MemoryError),
    *(csv.Error, lzma.LZMAError, pickle.UnpicklingError, tarfile.TarError, zipfile.BadZipFile, zlib.error),
)
# Errors of libraries that do not derive from the above. They are looked up, not imported: a library that was not imported has
# raised nothing.
_OF_LIBRARIES = {
    "datasets.exceptions": ("DatasetsError",),
    "httpx": ("HTTPError", "InvalidURL", "StreamError"),
    "httpx2": ("HTTPError", "InvalidURL", "StreamError"),
    "huggingface_hub.errors": (
        *("HTTPError", "EntryNotFoundError", "StrictDataclassError", "CacheNotFound", "RevisionResolutionError"),
        *("NotASafetensorsRepoError", "SafetensorsParsingError", "XetDownloadError", "CorruptedCacheException"),
    ),
    "jinja2": ("TemplateError",),
    "pyarrow": ("ArrowException",),
    "safetensors": ("SafetensorError",),
    "torch": ("OutOfMemoryError",),
    "yaml": ("YAMLError",),
}
# Libraries read a user's files in functions of these names. Any error there is caused by the files: a missing key of an index is a
# `KeyError`, and `tokenizers` raises a plain `Exception`.
_READERS = {"from_pretrained", "from_dict", "load_file", "safe_open", "load_dataset"}
# torch and the Rust libraries have no types for these errors.
_RUNTIME = {
    r"ignore_mismatched_sizes": "The weights have other shapes than the configuration says. Use the config.json that was saved "
    "with these weights.",
    r"size mismatch for|Error\(s\) in loading state_dict": "{error}. Use the configuration that was saved with these weights.",
    r"PytorchStreamReader|unexpected EOF|corrupted|not a ZIP archive|Invalid magic number|central directory": "A file of weights "
    "is cut short or damaged ({error}). Fetch it again.",
    r"PytorchStreamWriter|inline_container": "A file cannot be written ({error}). Check that the disk is not full, or write "
    "elsewhere.",
    r"out of memory|can't allocate memory|not enough memory": "There is not enough memory ({error}). Use a smaller batch size, a "
    "smaller dtype or a smaller model.",
    r"NVIDIA driver|No CUDA GPUs|CUDA-capable device|invalid device ordinal": "The accelerator cannot be used ({error}). Check its "
    "driver, or hide it: CUDA_VISIBLE_DEVICES=''.",
}
_BY_ERRNO = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "The disk is full{of}. Free some space, or write elsewhere."),
    **dict.fromkeys((errno.EACCES, errno.EPERM), "No permission{of}. Change it, or use another place."),
    errno.EROFS: "The disk is read-only{of}. Write elsewhere.",
    errno.ENOENT: "No such file or folder{of}. Check the path.",
    errno.EEXIST: "A file of that name exists already{of}. Remove it, or give another name.",
    errno.ENAMETOOLONG: "The name is too long for the disk{of}. Give a shorter one.",
    errno.EISDIR: "It is a folder, but a file is needed{of}. Give a file.",
    errno.ENOTDIR: "It is a file, but a folder is needed{of}. Give a folder.",
    errno.EFBIG: "The file is larger than the disk or a limit allows{of}. Write elsewhere, or raise the limit.",
    errno.EMFILE: "Too many files are open{of}. Raise the limit (`ulimit -n`).",
    errno.EPIPE: "The output was closed before the end{of}.",
}
# Longer messages name every weight or column of a file.
_MAX_LENGTH = 1500


def user_message(error: BaseException) -> str | None:
    """
    Describe an error that a user can fix.

    Args:
        error (`BaseException`): The error.

    Returns:
        `str`: One line, without secrets, that says what is wrong and what to do. `None` if the error is a fault of this package.
    """
    message = _message(error)
    return None if message is None else one_line(message, _MAX_LENGTH)


def _message(error: BaseException) -> str | None:
    if type(error).__module__ == "datasets.exceptions" and error.__cause__ is not None:
        return _message(error.__cause__)  # "An error occurred while generating the dataset" hides what happened
    if not isinstance(error, Exception) or isinstance(error, NotImplementedError):
        return None
    if (found := re.search(r"\(os error (\d+)\)", str(error))) is not None:  # of a Rust library
        return _by_errno(int(found[1]), "") or _say(error)
    if isinstance(error, ImportError):
        return _of_import(error)
    if is_of_network(error):
        return _of_network(error)
    if isinstance(error, OSError):
        if (found := re.match(r"(Can't load .+?)\. If you were trying to load it from", str(error))) is not None:
            # transformers says the same whether the Hub cannot be reached or does not have it
            return (
                f"{found[1]}: it is not a local folder with the files of one, and the Hub does not have it or could not be "
                "reached. Check the name and the network, or pass a local path."
            )
        name = "" if error.filename is None else f": {os.fsdecode(error.filename)!r}"
        return (_by_errno(error.errno, name) if _is_plain(error) else None) or _say(error)
    if isinstance(error, RuntimeError):
        for pattern, message in _RUNTIME.items():
            if re.search(pattern, str(error), re.IGNORECASE):
                return message.format(error=_say(error).rstrip("."))
    if type(error).__name__ == "SafetensorError":
        return f"A file of weights is cut short or damaged ({_say(error)}). Fetch it again."
    if isinstance(error, (*_STANDARD, *_library_errors())):
        return _say(error)
    return _of_files(error)


def _say(error: BaseException) -> str:
    """Return the message of an error. Where the message alone says too little, the name of the type comes first."""
    text = str(error)
    # `torch` puts the traceback of a worker into the message. Its last part is the message of the worker's error
    if (found := re.match(r"Caught (\w+) in DataLoader worker process \d+\.\n", text)) is not None:
        text = re.split(rf"\n(?:[\w.]+\.)?{found[1]}: ", text)[-1].strip()
    if isinstance(error, KeyError | EOFError | MemoryError) or not text:
        return f"{type(error).__name__}: {text}" if text else f"{type(error).__name__}"
    return text


def _is_plain(error: OSError) -> bool:
    """Tell whether the system raised an error, so that its message says no more than its number."""
    return error.errno is not None and error.strerror == os.strerror(error.errno)


def _by_errno(number: int | None, name: str) -> str | None:
    message = _BY_ERRNO.get(number)
    return None if message is None else message.format(of=name)


def _library_errors() -> Iterator[type[BaseException]]:
    for module, names in _OF_LIBRARIES.items():
        if module in sys.modules:
            for name in names:
                if (kind := getattr(sys.modules[module], name, None)) is not None:
                    yield kind


def _of_import(error: ImportError) -> str | None:
    """Describe a missing package, which the user can install. A missing module or name of this repository is a fault."""
    if (error.name or "").partition(".")[0] in _PACKAGES:
        return None
    text = _say(error)
    if "pip install" in text:
        return text
    extra = _extra_of(error.name)
    if extra is not None:
        return f'{text}. Install what this command needs: pip install "transformers-flamingo[{extra}]"'
    # A requirement that is not met has its message for a name (`importlib.metadata.PackageNotFoundError`)
    package = (error.name or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError) and package.isidentifier():
        return f"{text}. Install it: pip install {package}"
    return text


def _extra_of(module: str | None) -> str | None:
    """Return the extra of this package that installs `module`, as its metadata says."""
    from importlib.metadata import PackageNotFoundError, packages_distributions, requires

    top = (module or "").partition(".")[0]
    names = {top, *packages_distributions().get(top, ()), {"PIL": "pillow", "yaml": "pyyaml"}.get(top, top)}
    names = {canonicalize_name(name) for name in names}
    try:
        requirements = requires("transformers-flamingo") or []
    except PackageNotFoundError:  # run from its sources
        return None
    for requirement in requirements:
        name, extra = re.match(r"[\w.-]+", requirement)[0], re.search(r"extra\s*==\s*['\"]([\w-]+)", requirement)
        if extra is not None and extra[1] != "dev" and canonicalize_name(name) in names:
            return extra[1]
    return None


def is_of_network(error: BaseException) -> bool:
    """Tell whether a connection failed. An error that a server answers with has its own message."""
    names = {f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(error).__mro__}
    kinds = ("httpx.TransportError", "httpx2.TransportError", "requests.ConnectionError", "requests.Timeout")
    return not names.isdisjoint((*kinds, "urllib.URLError", "urllib3.HTTPError")) and "urllib.HTTPError" not in names


def _of_network(error: BaseException) -> str:
    try:
        to = f" to {urlsplit(str(error.request.url))._replace(query='', fragment='').geturl()}"
    except (AttributeError, RuntimeError):  # httpx raises where no request is known
        to = ""
    return f"There is no connection{to} ({_say(error).rstrip('.')}). Check the network and the address, or give a local path."


def _of_files(error: BaseException) -> str | None:
    """Describe an error of any type that a library raised while it read files, or that names a wrong field of a configuration."""
    frames = list(_frames(error))
    if not frames:
        return None
    is_own = _is_own(frames[-1])
    file = os.path.basename(frames[-1].f_code.co_filename)
    if is_own and isinstance(error, TypeError) and file == "configuration_flamingo.py":
        return _say(error)
    if is_own or not any(frame.f_code.co_name in _READERS and not _is_own(frame) for frame in frames):
        return None
    return (
        f"A file cannot be read ({type(error).__name__}: {error}). It is damaged, or its layout is not what its name says. Fetch or "
        "save it again."
    )


def _frames(error: BaseException) -> Iterator[FrameType]:
    traceback = error.__traceback__
    while traceback is not None:
        yield traceback.tb_frame
        traceback = traceback.tb_next


def _is_own(frame: FrameType) -> bool:
    return frame.f_globals.get("__name__", "").partition(".")[0] in _PACKAGES
