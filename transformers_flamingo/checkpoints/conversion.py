# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
What both readers share: reading weights safely, naming them anew, checking that none is missing or left over, and
writing a directory that is complete or does not exist.

Letters in shapes: `V` vocabulary, `D` text width, `Dv` vision width, `L` latents, `F` frames.
"""

import json
import os
import pickle
import re
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    BaseImageProcessor,
    MptForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightRenaming, rename_source_key
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.utils import (
    IMAGE_PROCESSOR_NAME,
    PROCESSOR_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
    cached_file,
    logging,
)

from ..configuration_flamingo import FlamingoConfig
from ..model_card import FlamingoModelCardData
from ..modeling_flamingo import FlamingoModel, normalise_mpt_queries_and_keys
from ..processing_flamingo import FlamingoProcessor
from .mosaic_gpt import is_mosaic_gpt, mosaic_gpt_config, mosaic_gpt_key


logger = logging.get_logger(__name__)

# Buffers that old versions of transformers wrote and that today's models compute.
_OLD_BUFFERS = re.compile(r"\.(attn|attention)\.(bias|masked_bias)$|\.rotary_emb\.inv_freq$|\.position_ids$")

# The parts that both peers took from the same code, by their names in a sublayer. Two targets: keys and values.
_ATTENTION = {
    "to_q": ["attention.q_proj"],
    "to_k": ["attention.k_proj"],
    "to_v": ["attention.v_proj"],
    "to_kv": ["attention.k_proj", "attention.v_proj"],
    "to_out": ["attention.o_proj"],
}
_FEED_FORWARD = {"0": ["mlp.norm"], "1": ["mlp.fc1"], "3": ["mlp.fc2"]}
RESAMPLER_LAYER = {
    "0.norm_media": ["norm_features"],
    "0.norm_latents": ["norm_latents"],
    **{f"0.{name}": targets for name, targets in _ATTENTION.items()},
    **{f"1.{name}": targets for name, targets in _FEED_FORWARD.items()},
}
GATED_BLOCK = {
    "attn.norm": ["norm"],
    **{f"attn.{name}": targets for name, targets in _ATTENTION.items()},
    **{f"{ff}.{name}": targets for ff in ("ff", "ffw") for name, targets in _FEED_FORWARD.items()},
}


class MappedKey(NamedTuple):
    """One row of the mapping table: what became of a tensor. Joined keys and values give two rows."""

    source: str
    target: str | None  # None: left out
    shape: tuple[int, ...]
    reason: str = ""  # why it is left out


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------


def read_tensors(path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """
    The tensors of one file, mapped into memory where its format allows: they are read when they are used.

    Raises:
        ValueError: the file is damaged, or holds something other than tensors. Nothing in it is ever executed.
    """
    path = Path(path)
    with open(path, "rb") as file:
        head = file.read(9)
    is_safetensors = head[8:] == b"{"  # after the length of its header
    if not is_safetensors and not head.startswith((b"PK", b"\x80")):  # a zip archive, a pickle
        raise ValueError(
            f"{path} is no file of weights: it begins with {head!r}. Is it empty, a Git LFS pointer or a web page? "
            "Fetch it again."
        )
    try:
        state_dict = load_file(path) if is_safetensors else _load_pickle(path)
    # Their texts are not quoted: torch's advice is to read the file with `weights_only=False`, which runs what is in it.
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        raise ValueError(
            f"{path} holds something other than tensors{f' ({found[1]})' if found else ''} or is damaged. Unpickling it "
            "could run any program, so it was not read."
        ) from error
    except Exception as error:  # a damaged pickle raises anything
        raise ValueError(
            f"{path} holds no weights that can be read: it is damaged, probably truncated. Fetch it again."
        ) from error
    if isinstance(state_dict, dict) and isinstance(state_dict.get("model_state_dict"), dict):
        state_dict = state_dict["model_state_dict"]  # as OpenFlamingo's own training writes it
    if not isinstance(state_dict, dict) or not all(isinstance(value, torch.Tensor) for value in state_dict.values()):
        raise ValueError(
            f"{path} holds no flat dict of tensors, which a checkpoint of a model is. Is it one of an optimizer?"
        )
    return {str(key): value for key, value in state_dict.items()}


def _load_pickle(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap" not in str(error):
            raise
    return torch.load(path, map_location="cpu", weights_only=True)  # torch's format before 1.6


def read_pretrained_tensors(name_or_path: str | os.PathLike) -> dict[str, torch.Tensor]:
    """The tensors of a model directory or Hub repository, sharded or not."""
    for file_name, index_name in ((SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME), (WEIGHTS_NAME, WEIGHTS_INDEX_NAME)):
        path = _find_file(name_or_path, file_name)
        if path is not None:
            return read_tensors(path)
        index = _find_file(name_or_path, index_name)
        if index is not None:
            names = sorted(set(json.loads(Path(index).read_text())["weight_map"].values()))
            shards = [read_tensors(cached_file(name_or_path, name)) for name in names]
            return {key: value for shard in shards for key, value in shard.items()}
    raise FileNotFoundError(f"{name_or_path} has no weights: neither {SAFE_WEIGHTS_NAME} nor {WEIGHTS_NAME}.")


def _find_file(name_or_path: str | os.PathLike, file_name: str) -> str | None:
    return cached_file(
        name_or_path,
        file_name,
        _raise_exceptions_for_missing_entries=False,
    )


@contextmanager
def reading(option: str, name_or_path: str | os.PathLike) -> Iterator[None]:
    """Name the option whose value cannot be read."""
    try:
        yield
    except OSError as error:
        path = str(name_or_path)
        is_missing_path = path.startswith((".", os.sep)) and not os.path.exists(path)
        reason = "there is no such directory" if is_missing_path else error
        raise OSError(f"`{option}` (--{option}) is {path}, which cannot be read: {reason}") from error


def load_vision_config(name_or_path: str | os.PathLike) -> PreTrainedConfig:
    """Configuration of a vision encoder; a two-tower model gives its vision tower."""
    config = AutoConfig.from_pretrained(name_or_path)
    config = getattr(config, "vision_config", config)
    if not hasattr(config, "image_size"):
        raise ValueError(
            f"{name_or_path} is no vision encoder: its type is {config.model_type}, and its config has no `image_size`. "
            "Give another as `vision` (--vision)."
        )
    return config


def load_text_config(name_or_path: str | os.PathLike) -> PreTrainedConfig:
    """Configuration of a language model; MosaicGPT, which transformers does not know, as the MPT that it became."""
    values, _ = PreTrainedConfig.get_config_dict(name_or_path)
    if is_mosaic_gpt(values):
        config = mosaic_gpt_config(values)
        config._name_or_path = str(name_or_path)
        return config
    return AutoConfig.from_pretrained(name_or_path)


def load_vision_model(
    name_or_path: str | os.PathLike, config: PreTrainedConfig, dtype: torch.dtype
) -> PreTrainedModel:
    """A vision encoder with all its weights; a `ValueError` if some are missing."""
    return _load(AutoModel, name_or_path, config, dtype)


def load_language_model(
    name_or_path: str | os.PathLike, config: PreTrainedConfig, dtype: torch.dtype
) -> PreTrainedModel:
    """A causal language model with all its weights; a `ValueError` if some are missing."""
    values, _ = PreTrainedConfig.get_config_dict(name_or_path)
    if not is_mosaic_gpt(values):
        return _load(AutoModelForCausalLM, name_or_path, config, dtype)
    with torch.device("meta"):
        model = MptForCausalLM(config)
        normalise_mpt_queries_and_keys(model)
    tensors = {mosaic_gpt_key(key): value.to(dtype) for key, value in read_pretrained_tensors(name_or_path).items()}
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if wrong := [name for name in tensors if name in shapes and tensors[name].shape != shapes[name]]:
        raise ValueError(f"{name_or_path} has weights of other shapes than its config says: {_list(wrong)}.")
    missing, unexpected = model.load_state_dict(tensors, strict=False, assign=True)
    model.tie_weights()
    _refuse_missing(name_or_path, set(missing) - {"lm_head.weight"})
    if unexpected:
        raise ValueError(f"{name_or_path} has weights that MosaicGPT has no place for: {_list(unexpected)}.")
    return model


def _load(auto_class: type, name_or_path: str | os.PathLike, config: PreTrainedConfig, dtype: torch.dtype):
    try:
        model, report = auto_class.from_pretrained(name_or_path, config=config, dtype=dtype, output_loading_info=True)
    except RuntimeError as error:
        raise ValueError(f"{name_or_path} has other weights than its config says: {_first_line(error)}") from error
    _refuse_missing(name_or_path, report["missing_keys"])
    return model


def _refuse_missing(name_or_path: str | os.PathLike, missing: list[str] | set[str]) -> None:
    if missing:
        raise ValueError(
            f"{name_or_path} lacks weights of the model that its config describes: {_list(sorted(missing))}. They "
            "would be random numbers."
        )


def load_tokenizer(name_or_path: str | os.PathLike) -> PreTrainedTokenizerBase:
    """A tokenizer; a `ValueError` where there is none."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(name_or_path)
        # Without files one is made nevertheless, of special tokens alone.
        ids = tokenizer("Some text", add_special_tokens=False)["input_ids"]
        if ids and not set(tokenizer.get_vocab().values()) <= set(tokenizer.all_special_ids):
            return tokenizer
        cause = None
    except ValueError as error:  # nothing to make one from
        cause = error
    raise ValueError(f"There is no tokenizer in {name_or_path}: give one as `tokenizer` (--tokenizer).") from cause


def check_rows(config: FlamingoConfig, num_tokens: int, num_unpadded: int = 0) -> None:
    """
    Compare the tokenizer with the embedding of a checkpoint: by another tokenizer every token gets another's row.

    Args:
        config ([`FlamingoConfig`]): Of the model.
        num_tokens (`int`): Length of the tokenizer.
        num_unpadded (`int`, *optional*, defaults to 0):
            How many of the tokens were given a row after the others had been padded, as is common and harmless.

    Raises:
        ValueError: a special token has no row.
    """
    num_rows = config.text_config.vocab_size
    token_ids = {name: getattr(config, name) for name in ("image_token_id", "end_of_chunk_token_id")}
    if max(token_ids.values()) >= num_rows:
        raise ValueError(
            f"The tokenizer gives {token_ids}, but the checkpoint has embeddings for {num_rows} tokens: it was trained "
            "with another tokenizer. Give that as `tokenizer` (--tokenizer)."
        )
    rest = num_tokens - num_unpadded
    if num_rows - num_unpadded not in {-(-rest // multiple) * multiple for multiple in (1, 8, 16, 32, 64, 128, 256)}:
        logger.warning(
            f"The checkpoint has embeddings for {num_rows} tokens, and the tokenizer has {num_tokens}. Check that the "
            "checkpoint was trained with this tokenizer: with another every word would mean something else."
        )


def load_image_processor(
    name_or_path: str | os.PathLike, config: PreTrainedConfig, cls: type[BaseImageProcessor] | None = None
) -> BaseImageProcessor:
    """
    The image processor of a vision encoder; as `cls` if it is CLIP's. A CLIP without any gets CLIP's for its size.

    Raises:
        ValueError: it is unknown how the encoder wants its pixels, or they would not have its size.
    """
    size = config.image_size
    if any(_find_file(name_or_path, name) for name in (IMAGE_PROCESSOR_NAME, PROCESSOR_NAME)):
        stock = AutoImageProcessor.from_pretrained(name_or_path)
    elif config.model_type == "clip_vision_model":
        stock = CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    else:
        raise ValueError(
            f"{name_or_path} has no {IMAGE_PROCESSOR_NAME}, and of a {config.model_type} it is not known how pixels are "
            "scaled. Put that file of the original encoder there."
        )
    if not type(stock).__name__.startswith("CLIPImageProcessor"):
        return stock
    if stock.do_center_crop and (stock.crop_size.height, stock.crop_size.width) != (size, size):
        raise ValueError(
            f"The image processor of {name_or_path} crops to {stock.crop_size.height} x {stock.crop_size.width}, but its "
            f"encoder takes {size} x {size} pixels: every image would fail. Mend its {IMAGE_PROCESSOR_NAME}."
        )
    return stock if cls is None else cls.from_dict(stock.to_dict())


# ---------------------------------------------------------------------------------------------------------------------
# Naming
# ---------------------------------------------------------------------------------------------------------------------


def new_part_targets(part: str, layers: list[int]) -> list[str] | None:
    """
    Our names for a weight of resampler or gated blocks, `None` if there is none.

    Args:
        part (`str`):
            The peer's name, begun as `resampler.` or, for the block before decoder layer i, `gated.{i}.`.
        layers (`list[int]`): The decoder layers that have a gated block.
    """
    if match := re.fullmatch(r"(resampler\.layers\.\d+)\.(\d\.\w+)\.(weight|bias)", part):
        prefix, names, table = match[1], match[2], RESAMPLER_LAYER
    elif match := re.fullmatch(r"gated\.(\d+)\.(\w+\.\w+)\.(weight|bias)", part):
        if int(match[1]) not in layers:
            return None
        prefix, names, table = f"gated_cross_attention.{layers.index(int(match[1]))}", match[2], GATED_BLOCK
    elif match := re.fullmatch(r"gated\.(\d+)\.(attn_gate|ffn_gate)", part):
        return [f"gated_cross_attention.{layers.index(int(match[1]))}.{match[2]}"] if int(match[1]) in layers else None
    else:
        whole = ("resampler.latents", "resampler.frame_embeddings", "resampler.norm.weight", "resampler.norm.bias")
        return [part] if part in whole else None
    return [f"{prefix}.{name}.{match[3]}" for name in table[names]] if names in table else None


def backbone_renamer(model: PreTrainedModel, prefix: str) -> Callable[[str], str]:
    """
    A function from the names that an old version of transformers gave the weights of `model` to today's, with `prefix`
    in front. transformers keeps the table of what it renamed.
    """
    known = model.state_dict()
    renamings = [entry for entry in get_model_conversion_mapping(model) if isinstance(entry, WeightRenaming)]

    def rename(key: str) -> str:
        if key not in known:
            key, _ = rename_source_key(key, renamings, [], model.base_model_prefix, known)
        return f"{prefix}.{key}"

    return rename


def map_tensors(
    source: dict[str, torch.Tensor],
    targets: Callable[[str], list[str] | None],
    model: FlamingoModel,
    required: Callable[[str], bool],
) -> tuple[dict[str, torch.Tensor], list[MappedKey]]:
    """
    Give each tensor of a checkpoint its name in `model`, and check that everything fits.

    Args:
        source (`dict[str, torch.Tensor]`): The checkpoint.
        targets (`Callable[[str], list[str] | None]`):
            Our names for one of its keys: two for joined keys and values, none (`[]`) for what is frozen and read from
            the backbone's own directory, `None` for what is unknown.
        model ([`FlamingoModel`]): The model to be filled, on the meta device.
        required (`Callable[[str], bool]`): Whether a name of the model must be in the checkpoint.

    Returns:
        The tensors under their new names, and the mapping table.

    Raises:
        ValueError: keys are missing, unexpected or of a wrong shape, or two say different things; all are listed.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    tensors: dict[str, torch.Tensor] = {}
    table: list[MappedKey] = []
    unexpected, wrong, contradictions = [], [], []
    for key, tensor in source.items():
        names = targets(key)
        known = names is not None and all(name in expected for name in names)
        reason = "frozen, the backbone has it"
        if not known and _OLD_BUFFERS.search(key):
            names, known, reason = [], True, "an old buffer, the model computes it"
        if not known:
            unexpected.append(key)
        elif not names:
            table.append(MappedKey(key, None, tuple(tensor.shape), reason))
        # Cloned: two halves of one memory are refused when weights are written.
        parts = [tensor] if not known or len(names) < 2 else [half.clone() for half in tensor.chunk(len(names))]
        for name, part in zip(names if known else [], parts, strict=False):
            if part.ndim == len(expected[name]) + 1 and 1 in part.shape:
                part = part.squeeze(1)  # flamingo-mini's frame embeddings, (F, 1, Dv)
            if tuple(part.shape) != expected[name]:
                wrong.append(f"{key} {tuple(part.shape)}, but {name} {expected[name]}")
            elif name in tensors and not torch.equal(tensors[name], part):
                contradictions.append(f"{key} and another key for {name}")
            tensors[name] = part
            table.append(MappedKey(key, name, tuple(part.shape)))
    missing = sorted(name for name in expected if required(name) and name not in tensors)
    problems = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": wrong,
        "contradicting each other": contradictions,
    }
    if any(problems.values()):
        raise ValueError(
            "The checkpoint does not fit the model that was described, so it was not converted. "
            + " ".join(f"{kind.capitalize()} ({len(keys)}): {_list(keys)}." for kind, keys in problems.items() if keys)
            + " Check the backbones and the interval of gated blocks."
        )
    return tensors, table


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _list(keys: Iterable[str], limit: int = 20) -> str:
    keys = list(keys)
    return ", ".join(keys[:limit]) + (f", and {len(keys) - limit} more" if len(keys) > limit else "")


# ---------------------------------------------------------------------------------------------------------------------
# Building and writing
# ---------------------------------------------------------------------------------------------------------------------


def make_config(**fields: Any) -> FlamingoConfig:
    """The config, with a `ValueError` that says what is wrong with it."""
    try:
        return FlamingoConfig(**fields)
    except StrictDataclassError as error:
        raise ValueError(str(error.__cause__ or error)) from error


def meta_model(config: FlamingoConfig) -> FlamingoModel:
    """The model without memory: names and shapes."""
    with torch.device("meta"):
        return FlamingoModel(config)


def module_name(model: nn.Module, module: nn.Module) -> str:
    """The name of `module` in `model`."""
    return next(name for name, candidate in model.named_modules() if candidate is module)


def embedding_names(language_model: PreTrainedModel) -> tuple[str, str]:
    """The names in [`FlamingoModel`] of the weights of a language model's input and output embedding."""
    modules = language_model.get_input_embeddings(), language_model.get_output_embeddings()
    embedding, head = (f"language_model.{module_name(language_model, module)}.weight" for module in modules)
    return embedding, head


def unties(tensors: dict[str, torch.Tensor], embedding: str, head: str) -> bool:
    """Whether a checkpoint has an output embedding of its own: other numbers than its input embedding."""
    return head in tensors and not (embedding in tensors and torch.equal(tensors[embedding], tensors[head]))


def fill(model: FlamingoModel, tensors: dict[str, torch.Tensor], dtype: torch.dtype) -> FlamingoModel:
    """Put the tensors of a checkpoint in their places, without a copy where the dtype is right already."""
    model.load_state_dict({name: t.to(dtype) for name, t in tensors.items()}, strict=False, assign=True)
    model.tie_weights()
    empty = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if empty:
        raise ValueError(f"No weights were found for {_list(empty)}.")
    return model.eval()


@contextmanager
def new_directory(output_dir: str | os.PathLike) -> Iterator[Path]:
    """
    A directory `.NAME.partial` beside `output_dir` that takes its name in the end. If anything fails, nothing is left;
    what a killed run left is removed by the next.

    Raises:
        FileExistsError: `output_dir` is not empty, a file, or the current directory.
    """
    given, output_dir = output_dir, Path(output_dir).resolve()  # a link stays, and its target is written
    what = None
    if output_dir.is_dir():
        # The current directory, even an empty one, would be replaced under the feet of the shell.
        what = (
            "the current directory" if output_dir == Path.cwd() else "not empty" if any(output_dir.iterdir()) else None
        )
    elif output_dir.exists():
        what = "a file"
    if what:
        raise FileExistsError(f"{given} exists and is {what}. Nothing was written; name a new directory.")
    new_parents = [parent for parent in output_dir.parents if not parent.exists()]
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    temporary = output_dir.with_name(f".{output_dir.name}.partial")
    if temporary.exists():
        shutil.rmtree(temporary)
    try:
        temporary.mkdir()
        yield temporary
        temporary.replace(output_dir)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        with suppress(OSError):  # another program put something there
            for parent in new_parents:
                parent.rmdir()
        raise


def write(directory: Path, model: FlamingoModel, processor: FlamingoProcessor, card: FlamingoModelCardData) -> None:
    """Model, processor and card, for `from_pretrained`."""
    model.save_pretrained(directory)
    processor.save_pretrained(directory)
    card.save(directory / "README.md")


def format_table(table: list[MappedKey]) -> str:
    """The mapping table as text: source key, target key, shape."""
    rows = [
        (row.source, row.target or f"(left out: {row.reason})", "x".join(map(str, row.shape)) or "scalar")
        for row in table
    ]
    rows = [("SOURCE", "TARGET", "SHAPE"), *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return "\n".join(f"{a:{widths[0]}}  {b:{widths[1]}}  {c}".rstrip() for a, b, c in rows)
