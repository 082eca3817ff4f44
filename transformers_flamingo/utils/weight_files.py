# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Read files of weights that others made, without executing anything in them or taking more memory than they have bytes on disk.

Every file is checked before torch, safetensors or transformers opens it: its kind, the sizes that it claims against its own, and
the names of the objects that it would construct.
"""

import io
import json
import os
import pickle
import pickletools
import re
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors.torch import load_file
from transformers.utils import (
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
    cached_file,
    logging,
)

from ..files_flamingo import special_kind
from .names import summarize_names


logger = logging.get_logger(__name__)

# Limits of the part of a file that describes its tensors: 10,000 tensors take less than 3 MB. Parsed, it takes up to 60 times
# as much memory.
MAX_HEADER_BYTES = 16 * 2**20
MAX_PICKLE_BYTES = 4 * 2**20
MAX_PICKLE_OPERATIONS = 500_000  # a tensor takes 25

# Objects of the standard library that settings next to weights are made of. Anything else of it could run a program.
_STANDARD_SETTINGS = re.compile(
    r"(argparse|collections|dataclasses|datetime|decimal|enum|fractions|pathlib|typing|uuid)\.|types\.SimpleNamespace$|"
    r"(__builtin__|builtins)\.(bool|dict|float|int|list|object|str|tuple|unicode)$"
)
# Codecs that lengthen bytes each time they are applied: a short pickle that repeats them takes any amount of memory.
_GROWING_CODECS = re.compile(r"(hex|base_?64|uu|quopri|quoted[-_]?printable|zlib|zip|bz2)(_?codec)?", re.IGNORECASE)
_AVERAGE = re.compile(r"ema|swa|average|shadow", re.IGNORECASE)
_OPTIMIZER = re.compile(r"optim|sched|scaler|callback|^state$|param_groups", re.IGNORECASE)

_FETCH_AGAIN = "Fetch it again."
_JOIN_ZERO = (
    "The weights are split over several files by DeepSpeed. Join them with the script that DeepSpeed wrote next to them, "
    "`python zero_to_fp32.py . joined`, and pass the file that it writes."
)
MERGE_ADAPTER = (
    "Merge it into the weights first, where it was trained: `model.merge_and_unload()` of peft. Then save the weights and "
    "convert them."
)
_JOIN_DCP = (
    "The weights are split over several files by torch.distributed.checkpoint. Join them with "
    "`python -m torch.distributed.checkpoint.format_utils dcp_to_torch DIRECTORY checkpoint.pt`, and pass that file."
)


class _Setting:
    """Stub for an object that is saved next to weights: it ignores its state."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "_Setting":
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


class _MappingSetting:
    """Stub for a dict of another class: it gives an `OrderedDict`, which is one of the classes that torch fills."""

    def __new__(cls, *args: Any, **kwargs: Any) -> OrderedDict:
        return OrderedDict()


# ---------------------------------------------------------------------------------------------------------------------
# Checking
# ---------------------------------------------------------------------------------------------------------------------


def check_regular(path: str | os.PathLike) -> int:
    """
    Return the size of a regular file in bytes.

    Raises:
        FileNotFoundError: there is no file of that name.
        ValueError: it is something else, such as a pipe or a device. Reading it may never end.
    """
    status = os.stat(path)
    if (kind := special_kind(status)) is not None:
        raise ValueError(f"{path} is {kind}. Pass a regular file.")
    return status.st_size


def check_folder(name_or_path: str | os.PathLike) -> None:
    """
    Check the entries of a model folder before a library opens them. Nothing is checked for a Hub name.

    Raises:
        ValueError: an entry is a pipe or a device, or a JSON file of settings is too large.
    """
    if not os.path.isdir(name_or_path):
        return
    for path in sorted(Path(name_or_path).iterdir()):
        if path.is_dir() or not path.exists():  # who needs the file reports a dangling link
            continue
        size = check_regular(path)
        if path.name.endswith("config.json") and size > MAX_HEADER_BYTES:
            raise ValueError(f"{path} has {size} bytes, more than {MAX_HEADER_BYTES}: it is damaged. {_FETCH_AGAIN}")


def read_json(path: str | os.PathLike, max_bytes: int | None = MAX_HEADER_BYTES) -> dict[str, Any]:
    """
    Read a file that holds one JSON object.

    Args:
        path (`str` or `os.PathLike`): The file.
        max_bytes (`int`, *optional*, defaults to 16 MiB):
            Maximum size of the file. `None` is for files that may be large, such as the tokenizer.json of a large vocabulary.

    Raises:
        FileNotFoundError: there is no file of that name.
        ValueError: the file is too large, does not hold a JSON object, or names a key twice.
    """
    size = check_regular(path)
    if max_bytes is not None and size > max_bytes:
        raise ValueError(f"{path} has {size} bytes, more than {max_bytes}: it is damaged. {_FETCH_AGAIN}")
    return _parse_json(path, Path(path).read_bytes())


def _parse_json(path: str | os.PathLike, text: bytes) -> dict[str, Any]:
    """Parse the JSON object that a file holds or, for safetensors, begins with."""
    repeated: list[str] = []

    def make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) < len(pairs):
            names = [name for name, _ in pairs]
            repeated.append(next(name for name in names if names.count(name) > 1))
        return result

    try:
        value = json.loads(text, object_pairs_hook=make_object)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} does not hold valid JSON ({error}): it is cut short or damaged. {_FETCH_AGAIN}"
        ) from error
    if repeated:
        raise ValueError(f"{path} names {repeated[0]!r} twice, so it is unknown which one is right. {_FETCH_AGAIN}")
    if not isinstance(value, dict):
        raise ValueError(f"{path} holds a {type(value).__name__} instead of an object: it is damaged. {_FETCH_AGAIN}")
    return value


def check_weights_file(path: str | os.PathLike) -> set[str] | None:
    """
    Check a file of weights before a library opens it.

    Returns:
        `set[str]`: Names of the objects that a pickle constructs; `None` for a safetensors file, which constructs none.

    Raises:
        FileNotFoundError: there is no file of that name.
        ValueError: the file is damaged or of another kind, claims more than it holds, or could take any amount of memory.
    """
    size = check_regular(path)
    with open(path, "rb") as file:
        head = file.read(9)
        if head[8:] == b"{":  # the JSON of safetensors, after 8 bytes with its length
            return _check_safetensors(path, file, size)
        if head.startswith(b"PK"):
            return _check_zip(path, file, size)
        if head.startswith(b"\x80"):
            return _check_pickles(path, file, size)
    raise ValueError(
        f"{path} is not a file of weights: it begins with {head!r}. Is it empty, a Git LFS pointer or a web page? "
        f"{_FETCH_AGAIN}"
    )


def _damaged(path: str | os.PathLike) -> ValueError:
    return ValueError(f"{path} has no weights that can be read: it is damaged, probably truncated. {_FETCH_AGAIN}")


def _check_safetensors(path: str | os.PathLike, file: io.BufferedReader, size: int) -> None:
    file.seek(0)
    length = int.from_bytes(file.read(8), "little")
    if length > size - 8:
        raise _damaged(path)
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"{path} has a header of {length} bytes, more than {MAX_HEADER_BYTES}. {_FETCH_AGAIN}")
    header = _parse_json(path, file.read(length))
    try:
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        is_whole = 8 + length + end == size
    except (TypeError, KeyError, IndexError):
        is_whole = False
    if not is_whole:
        raise _damaged(path)


def _check_zip(path: str | os.PathLike, file: io.BufferedReader, size: int) -> set[str]:
    file.seek(0)
    try:
        archive = zipfile.ZipFile(file)
    # Broad: zipfile documents only BadZipFile, but damaged bytes also raise struct.error, NotImplementedError, UnicodeDecodeError,
    # OverflowError, ValueError and OSError.
    except Exception as error:
        raise _damaged(path) from error
    entries = archive.infolist()
    names = [PurePosixPath(entry.filename).name for entry in entries]
    if "constants.pkl" in names:
        raise ValueError(
            f"{path} is a TorchScript program rather than weights. Save only the weights where it was made: "
            "`torch.save(model.state_dict(), file)`."
        )
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise ValueError(
            f"{path} is a compressed archive, which may unpack to any size. torch saves weights uncompressed: if this "
            "is an archive of a folder, unpack it and pass the file or folder of weights."
        )
    if len({entry.filename for entry in entries}) < len(entries) or sum(entry.file_size for entry in entries) > size:
        raise ValueError(f"{path} claims to hold more than its {size} bytes: it is damaged. {_FETCH_AGAIN}")
    pickles = [entry for entry, name in zip(entries, names, strict=True) if name == "data.pkl"]
    if len(pickles) != 1:
        raise ValueError(
            f"{path} is an archive that torch did not write. If it is an archive of a folder, unpack it and pass the file or "
            "folder of weights."
        )
    if pickles[0].file_size > MAX_PICKLE_BYTES:
        raise _too_long(path)
    try:
        data = archive.read(pickles[0])
    except Exception as error:  # broad for the same reason
        raise _damaged(path) from error
    return _scan_pickle(path, io.BytesIO(data))


def _check_pickles(path: str | os.PathLike, file: io.BufferedReader, size: int) -> set[str]:
    """Check the five pickles at the beginning of a file of torch before 1.6."""
    file.seek(0)
    stream = io.BytesIO(file.read(MAX_PICKLE_BYTES))
    return set().union(*(_scan_pickle(path, stream, is_cut=size > MAX_PICKLE_BYTES) for _ in range(5)))


def _too_long(path: str | os.PathLike) -> ValueError:
    return ValueError(
        f"{path} describes its content at more length than weights need, so reading it could take any amount of memory. Save "
        "only the weights where it was made: `torch.save(model.state_dict(), file)`."
    )


def _scan_pickle(path: str | os.PathLike, stream: io.BytesIO, is_cut: bool = False) -> set[str]:
    """
    Return the names of the objects that a pickle constructs, without constructing them.

    Args:
        path (`str` or `os.PathLike`): The file, for messages.
        stream (`io.BytesIO`): The pickle.
        is_cut (`bool`, *optional*, defaults to `False`): Whether the stream holds only the beginning of a long file.

    Raises:
        ValueError: the pickle is damaged, too long, or could allocate more memory than the file has bytes.
    """
    names, strings = set(), set()
    count = 0
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if opcode.name == "GLOBAL":
                names.add(argument.replace(" ", "."))
            elif isinstance(argument, str):
                strings.add(argument)
            if count >= MAX_PICKLE_OPERATIONS:
                break
    # Broad: pickletools decodes arguments with many codecs and converters, each of which raises its own errors on damaged bytes.
    except Exception as error:
        raise _too_long(path) if is_cut and stream.tell() >= MAX_PICKLE_BYTES else _damaged(path) from error
    if count >= MAX_PICKLE_OPERATIONS:
        raise _too_long(path)
    is_growing = "_codecs.encode" in names and any(_GROWING_CODECS.fullmatch(text) for text in strings)
    if is_growing or names & {"builtins.bytearray", "__builtin__.bytearray"}:
        raise ValueError(
            f"{path} holds an object other than a tensor that could take any amount of memory. Save only the weights where it "
            "was made: `torch.save(model.state_dict(), file)`."
        )
    return names


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------


def read_tensors(path: str | os.PathLike, root: str | None = None) -> dict[str, torch.Tensor]:
    """
    Read the tensors of one file. They are memory-mapped where its format allows, so values are read when they are used.

    Args:
        path (`str` or `os.PathLike`): The file.
        root (`str`, *optional*):
            Pattern of the first part of the names of a model's weights. It finds the dict of weights among other entries,
            which may hold tensors too. Without it, a dict is taken for weights if it holds only tensors.

    Raises:
        FileNotFoundError: there is no file of that name.
        ValueError: the file is damaged, or holds something other than tensors. Nothing in it is ever executed.
    """
    path = Path(path)
    if "zero_pp_rank" in path.name:
        raise ValueError(f"{path} is one of several files. {_JOIN_ZERO}")
    if path.suffix == ".distcp":
        raise ValueError(f"{path} is one of several files. {_JOIN_DCP}")
    names = check_weights_file(path)
    try:
        content = load_file(path) if names is None else _load_pickle(path, names)
    # The message is not quoted: torch advises to read the file with `weights_only=False`, which would run the programs in it.
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise ValueError(
            f"{path} holds something other than tensors{f' ({found[1]})' if found else ''} or is damaged. Unpickling it "
            "could run any program, so it was not read. If it is yours, save only the weights where it was made: "
            "`torch.save(model.state_dict(), file)`."
        ) from error
    # Broad: a damaged file that passed the checks fails anywhere in torch's unpickler (KeyError, TypeError, struct.error, ...) or
    # with SafetensorError, a direct subclass of Exception.
    except Exception as error:
        raise _damaged(path) from error
    tensors = _find_weights(path, content, re.compile(root) if root else None)
    size = path.stat().st_size
    for name, tensor in tensors.items():
        if tensor.is_meta or tensor.layout != torch.strided or tensor.is_quantized:
            raise ValueError(f"{path} holds {name} as a quantized, sparse or empty tensor. Save it as a dense tensor.")
        if tensor.numel() * tensor.element_size() > size:  # an expanded tensor: few numbers in the file, repeated
            raise ValueError(
                f"{path} claims {tuple(tensor.shape)} values for {name}, more than it holds: it is damaged. {_FETCH_AGAIN}"
            )
    return tensors


def _is_setting(name: str) -> bool:
    """
    Tell whether an object that a pickle constructs is taken for settings, so that a stub can replace it.

    Other objects are refused: modules of torch hold weights that would be lost, and a function means that the file is hostile.
    """
    module, _, last = name.rpartition(".")
    package = module.partition(".")[0]
    if package in sys.stdlib_module_names or package == "__builtin__":
        return _STANDARD_SETTINGS.match(name) is not None
    return package != "torch" and (last[:1].isupper() or package == "numpy")


def _load_pickle(path: Path, names: set[str]) -> Any:
    """Load a checked file with `weights_only=True`, with stubs for the settings in it."""
    names = {name.replace("__builtin__.", "builtins.") for name in names if _is_setting(name)}
    stubs = [(_MappingSetting if name.lower().endswith("dict") else _Setting, name) for name in names]
    with torch.serialization.safe_globals(stubs):
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError as error:
            if "mmap" not in str(error):
                raise
        return torch.load(path, map_location="cpu", weights_only=True)  # torch's format before 1.6


def _find_weights(path: Path, content: Any, root: re.Pattern | None) -> dict[str, torch.Tensor]:
    """Find the dict of weights in the content of a file: under any name, next to settings and optimizers."""
    found = dict(_weight_dicts(content, root)) or dict(_weight_dicts(content, None))
    averages = [name for name in found if _AVERAGE.search(name)]
    if len(found) > len(averages):
        found = {name: weights for name, weights in found.items() if name not in averages}
    if not found:
        held = "only the state of an optimizer" if _is_optimizer(content) else "no weights under the names of a model"
        raise ValueError(
            f"{path} holds {held}: it is not a flat dict of tensors, as a checkpoint of a model is. Pass the file that the "
            "weights were saved to."
        )
    if len(found) > 1:
        raise ValueError(
            f"{path} holds several models, under {', '.join(map(repr, found))}. Keep only the one to convert: "
            "`torch.save(torch.load(file)[name], new_file)`."
        )
    [(name, weights)] = found.items()
    if averages:
        logger.warning(
            f"{path} holds averaged weights under {averages[0]!r}. "
            + (f"The weights under {name!r} are used instead." if name not in averages else "They are used.")
        )
    if "param_shapes" in content and any(tensor.numel() == 0 for tensor in weights.values()):
        raise ValueError(f"{path} holds names without weights. {_JOIN_ZERO}")
    return weights


def _weight_dicts(content: Any, root: re.Pattern | None) -> Iterator[tuple[str, dict[str, torch.Tensor]]]:
    """
    Yield the dicts of weights in the content of a file, each with its place, such as `model.ema`.

    With `root` these are the dicts with a key of the model; the state dicts of its modules, if there is one for each, are
    joined. Without it they are the dicts that hold only tensors.
    """
    waiting, seen = [("", content)], set()
    without_root = []
    while waiting:
        place, value = waiting.pop(0)
        if not isinstance(value, Mapping) or id(value) in seen:  # a pickle may name one object any number of times
            continue
        seen.add(id(value))
        parts = [(str(key), part) for key, part in value.items() if not _OPTIMIZER.search(str(key).partition(".")[0])]
        tensors = {key: part.detach() for key, part in parts if isinstance(part, torch.Tensor)}
        modules = [(key, part) for key, part in parts if isinstance(part, Mapping)]
        if root is not None and any(root.search(f"{key}.") for key in [*tensors, *dict(modules)]):
            for key, part in modules:  # the state dict of each module
                if root.search(f"{key}."):
                    tensors |= {f"{key}.{name}": t.detach() for name, t in part.items() if isinstance(t, torch.Tensor)}
            yield place, tensors
            continue
        if tensors and len(parts) == len(value):
            without_root.append((place, tensors))
        waiting += [(f"{place}.{key}" if place else key, part) for key, part in modules]
    if root is None:
        yield from without_root


def _is_optimizer(content: Any) -> bool:
    return isinstance(content, Mapping) and any(_OPTIMIZER.search(str(key)) for key in content)


def find_weight_files(name_or_path: str | os.PathLike) -> tuple[list[Path], dict[str, str]]:
    """
    Find and check the files that hold the weights of a model folder or Hub repository.

    Returns:
        The files, and the index from the name of a weight to the name of the file that must hold it. The index is empty if the
        weights are in one file.

    Raises:
        FileNotFoundError: there are no such files, or one that the index names is missing.
        ValueError: a file or the index is damaged.
    """
    if os.path.isdir(name_or_path):
        _refuse_split_folder(Path(name_or_path))
    for file_name, index_name in ((SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME), (WEIGHTS_NAME, WEIGHTS_INDEX_NAME)):
        path = find_file(name_or_path, file_name)
        if path is not None:
            check_weights_file(path)
            return [Path(path)], {}
        index = find_file(name_or_path, index_name)
        if index is not None:
            weight_map = check_weight_map(index, read_json(index))
            paths = [_find_shard(name_or_path, index, name) for name in sorted(set(weight_map.values()))]
            for path in paths:
                check_weights_file(path)
            return paths, weight_map
    raise FileNotFoundError(
        f"{name_or_path} has no weights: neither {SAFE_WEIGHTS_NAME} nor {WEIGHTS_NAME}, nor an index of several files."
    )


def read_pretrained_tensors(name_or_path: str | os.PathLike, root: str | None = None) -> dict[str, torch.Tensor]:
    """
    Read the tensors of a model folder or Hub repository, sharded or not.

    Args:
        name_or_path (`str` or `os.PathLike`): Folder or Hub name.
        root (`str`, *optional*): See [`read_tensors`].

    Raises:
        FileNotFoundError: there are no files of weights, or one is missing.
        ValueError: a file is damaged, or the files differ from what their index says.
    """
    paths, weight_map = find_weight_files(name_or_path)
    tensors: dict[str, torch.Tensor] = {}
    for path in paths:
        shard = read_tensors(path, root)
        if differing := [name for name in shard if name in tensors and not same_values(tensors[name], shard[name])]:
            raise ValueError(f"Two files of {name_or_path} have different values for {differing[0]}. {_FETCH_AGAIN}")
        if lacking := [name for name, file in weight_map.items() if file == path.name and name not in shard]:
            raise ValueError(f"{path} lacks {lacking[0]}, which the index says it holds. {_FETCH_AGAIN}")
        tensors |= shard
    return tensors


def same_values(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Tell whether two tensors are equal in shape and values."""
    return a.shape == b.shape and torch.equal(a, b.to(a.dtype))


def check_finite(source: str | os.PathLike, tensors: Mapping[str, torch.Tensor]) -> None:
    """
    Check that weights are finite.

    Args:
        source (`str` or `os.PathLike`): Where the weights are from, for the message.
        tensors (`Mapping[str, torch.Tensor]`): Weights by name.

    Raises:
        ValueError: some are NaN or infinite.
    """
    if names := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise ValueError(
            f"{source} has NaN or infinite weights, so all outputs would be NaN: {summarize_names(names)}. Use an earlier "
            "checkpoint."
        )


def find_file(name_or_path: str | os.PathLike, file_name: str) -> str | None:
    """Return the path of a file in a model folder or Hub repository; `None` if there is no file of that name."""
    return cached_file(name_or_path, file_name, _raise_exceptions_for_missing_entries=False)


def check_weight_map(path: str | os.PathLike, index: dict[str, Any]) -> dict[str, str]:
    """
    Return the `weight_map` of the index of a sharded model: from the name of a weight to the name of its file.

    Args:
        path (`str` or `os.PathLike`): The file of the index, for the message.
        index (`dict[str, Any]`): Its content.

    Raises:
        ValueError: it has none, or one of other types.
    """
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise ValueError(
            f"{path} has no `weight_map` from the names of weights to the names of files: it is damaged. {_FETCH_AGAIN}"
        )
    return weight_map


def _find_shard(name_or_path: str | os.PathLike, index: str, name: str) -> Path:
    """Return the path of a file that an index names. The file must be in the folder of the index, or in the Hub's cache."""
    if not name or re.search(r"[/\\\0]", name) or name in (".", ".."):
        raise ValueError(f"{index} names {name!r}, which is not the name of a file in its folder. {_FETCH_AGAIN}")
    path = find_file(name_or_path, name)
    if path is None:
        raise FileNotFoundError(f"{name_or_path} lacks {name}, which its index names. {_FETCH_AGAIN}")
    folder = Path(index).parent.resolve()
    if folder.parent.name == "snapshots":  # of the Hub's cache, which links to ../../blobs
        folder = folder.parent.parent
    if not Path(path).resolve().is_relative_to(folder):
        raise ValueError(f"{path} is a link to a file outside of {folder}. Copy the file itself into it.")
    return Path(path)


def _refuse_split_folder(folder: Path) -> None:
    """Raise a `ValueError` that says how to join the files that DeepSpeed, torch and peft write instead of a model."""
    names = {path.name for path in folder.iterdir()}
    if names & {SAFE_WEIGHTS_NAME, WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_INDEX_NAME}:
        return
    if "zero_to_fp32.py" in names or any(re.fullmatch(r"global_step\d+|zero_pp_rank_.*", name) for name in names):
        raise ValueError(f"{folder} is a checkpoint of DeepSpeed. {_JOIN_ZERO}")
    if ".metadata" in names or any(name.endswith(".distcp") for name in names):
        raise ValueError(f"{folder} is a distributed checkpoint. {_JOIN_DCP}")
    if "adapter_config.json" in names:
        raise ValueError(f"{folder} is an adapter of peft. {MERGE_ADAPTER}")
