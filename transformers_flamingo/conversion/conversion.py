# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Share what both readers need: loading backbones, giving weights new names, and checking that none is missing or left over.

Letters in shapes: `V` vocabulary, `D` text width, `Dv` vision width, `L` latents, `F` frames.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
    StrictDataclassError,
)
from huggingface_hub.utils import httpx
from torch import nn
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
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
    logging,
)

from ..configuration_flamingo import FlamingoConfig
from ..modeling_flamingo import FlamingoModel
from ..mpt_flamingo import add_mpt_qk_norm
from ..tokenizers_flamingo import load_tokenizer as load_auto_tokenizer
from ..utils.names import summarize_names
from ..utils.weight_files import check_folder, find_file, read_pretrained_tensors, weight_files
from .mosaic_gpt import is_mosaic_gpt, mosaic_gpt_config, mosaic_gpt_key


logger = logging.get_logger(__name__)

MAX_LAYERS = 10_000  # each takes memory, even before it has weights

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
    target: str | None  # None: not converted
    shape: tuple[int, ...]
    reason: str = "converted"  # or why it is not


# ---------------------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------------------


@contextmanager
def reading(option: str, name_or_path: str | os.PathLike) -> Iterator[None]:
    """
    Name the option whose value cannot be read.

    Raises:
        OSError: there is no such folder, or the Hub cannot be reached or refuses.
        ValueError: a file of it is damaged, or says what no library understands.
    """
    flag = f" (--{option})" if option in ("vision", "text", "tokenizer") else ""
    what = f"`{option}`{flag} is {name_or_path}, which cannot be"
    try:
        check_folder(name_or_path)
        yield
    except OSError as error:
        raise OSError(f"{what} read: {reason(error, name_or_path)}") from error
    except ValueError as error:
        if "\n" not in str(error):
            raise
        raise ValueError(f"{what} used: {first_line(error)} Fix or fetch its files again.") from error
    except (ImportError, MemoryError):
        raise
    except Exception as error:  # libraries raise anything for files that they did not write
        if _is_of_the_connection(error):
            raise OSError(f"{what} read: {reason(error, name_or_path)}") from error
        raise ValueError(
            f"{what} used: {type(error).__name__}: {first_line(error)}. Fix or fetch its files again."
        ) from error


def reason(error: BaseException, name_or_path: str | os.PathLike) -> str:
    """Say in one line why a folder or Hub repository could not be read, and what to do."""
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
            "it is neither a directory nor a repository of the Hub that you may read. Check the name; if it is private, log in "
            "with `hf auth login`."
        )
    if any(isinstance(link, LocalEntryNotFoundError) or _is_of_the_connection(link) for link in chain):
        return (
            "it is not a directory, and the Hub cannot be reached. Check the name and the connection, or download it elsewhere and pass "
            "the directory."
        )
    return first_line(error)


def _is_of_the_connection(error: BaseException) -> bool:
    return isinstance(error, ConnectionError | httpx.TransportError)


def load_vision_config(name_or_path: str | os.PathLike) -> PreTrainedConfig:
    """Configuration of a vision encoder; a two-tower model gives its vision tower."""
    config = _check_backbone(name_or_path, AutoConfig.from_pretrained(name_or_path))
    config = getattr(config, "vision_config", config)
    if not hasattr(config, "image_size"):
        raise ValueError(
            f"{name_or_path} is not a vision encoder: its type is {config.model_type}, and its config has no `image_size`. "
            "Pass another as `vision` (--vision)."
        )
    return config


def _check_backbone(name_or_path: str | os.PathLike, config: PreTrainedConfig) -> PreTrainedConfig:
    num_layers = getattr(getattr(config, "vision_config", config), "num_hidden_layers", 1)
    if not isinstance(num_layers, int) or not 1 <= num_layers <= MAX_LAYERS:
        raise ValueError(
            f"The config of {name_or_path} says {num_layers!r} layers, but a model has 1 to {MAX_LAYERS}. Fix or fetch its "
            "config.json again."
        )
    if getattr(config, "quantization_config", None) is not None:
        raise ValueError(f"{name_or_path} is quantized. Pass the model that it was made from.")
    return config


def load_text_config(name_or_path: str | os.PathLike) -> PreTrainedConfig:
    """Configuration of a language model; MosaicGPT, which transformers does not know, as the MPT that it became."""
    values, _ = PreTrainedConfig.get_config_dict(name_or_path)
    if is_mosaic_gpt(values):
        config = mosaic_gpt_config(values)
        config.name_or_path = str(name_or_path)
        return config
    return _check_backbone(name_or_path, AutoConfig.from_pretrained(name_or_path))


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
        add_mpt_qk_norm(model)
    tensors = {mosaic_gpt_key(key): value.to(dtype) for key, value in read_pretrained_tensors(name_or_path).items()}
    _refuse_not_finite(name_or_path, tensors)
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    if wrong := [name for name in tensors if name in shapes and tensors[name].shape != shapes[name]]:
        raise ValueError(
            f"{name_or_path} has weights of other shapes than its config says: {summarize_names(wrong, limit=20)}."
        )
    missing, unexpected = model.load_state_dict(tensors, strict=False, assign=True)
    model.tie_weights()
    _refuse_missing(name_or_path, set(missing) - {"lm_head.weight"})
    if unexpected:
        raise ValueError(
            f"{name_or_path} has weights that MosaicGPT has no place for: {summarize_names(unexpected, limit=20)}."
        )
    return model


def _load(auto_class: type, name_or_path: str | os.PathLike, config: PreTrainedConfig, dtype: torch.dtype):
    weight_files(name_or_path)  # checked before a library opens them
    try:
        model, report = auto_class.from_pretrained(name_or_path, config=config, dtype=dtype, output_loading_info=True)
    except RuntimeError as error:
        raise ValueError(f"{name_or_path} has other weights than its config says: {first_line(error)}") from error
    _refuse_missing(name_or_path, report["missing_keys"])
    _refuse_not_finite(name_or_path, dict(model.named_parameters()))
    return model


def _refuse_not_finite(what: str | os.PathLike, tensors: Mapping[str, torch.Tensor]) -> None:
    if names := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise ValueError(
            f"{what} has NaN or infinite weights, so all it computes would be NaN: {summarize_names(names, limit=20)}. Take an earlier checkpoint."
        )


def _refuse_missing(name_or_path: str | os.PathLike, missing: list[str] | set[str]) -> None:
    if missing:
        raise ValueError(
            f"{name_or_path} lacks weights of the model that its config describes: {summarize_names(sorted(missing), limit=20)}. They "
            "would be random numbers."
        )


def load_tokenizer(name_or_path: str | os.PathLike) -> PreTrainedTokenizerBase:
    """Load a tokenizer, with a `ValueError` where there is none."""
    try:
        tokenizer = load_auto_tokenizer(name_or_path)
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
    if any(find_file(name_or_path, name) for name in (IMAGE_PROCESSOR_NAME, PROCESSOR_NAME)):
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
            f"encoder takes {size} x {size} pixels: every image would fail. Fix its {IMAGE_PROCESSOR_NAME}."
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
        if key not in known and model.config.model_type == "mpt":
            key = mosaic_gpt_key(key)
        if key not in known:
            key, _ = rename_source_key(key, renamings, [], model.base_model_prefix, known)
        return f"{prefix}.{key}"

    return rename


def map_tensors(
    source: dict[str, torch.Tensor],
    targets: Callable[[str], list[str] | str | None],
    model: FlamingoModel,
    required: Callable[[str], bool],
) -> tuple[dict[str, torch.Tensor], list[MappedKey]]:
    """
    Give each tensor of a checkpoint its name in `model`, and check that everything fits.

    Args:
        source (`dict[str, torch.Tensor]`): The checkpoint.
        targets (`Callable[[str], list[str] | str | None]`):
            Our names for one of its keys: several for joined weights, the reason (`str`) if it is not converted, `None` if it is
            unknown.
        model ([`FlamingoModel`]): The model to be filled, on the meta device.
        required (`Callable[[str], bool]`): Whether a name of the model must be in the checkpoint.

    Returns:
        The tensors under their new names, and the mapping table.

    Raises:
        ValueError: keys are missing, unexpected, of a wrong shape or dtype, or not finite, or two say different things; all are
            listed.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    tensors: dict[str, torch.Tensor] = {}
    table: list[MappedKey] = []
    unexpected, wrong, dtypes, contradictions = [], [], [], []
    for key, tensor in source.items():
        names = targets(key)
        if names is None or (not isinstance(names, str) and any(name not in expected for name in names)):
            names = _reason_to_leave_out(key, tensor)
        if names is None:
            unexpected.append(key)
            continue
        if isinstance(names, str):
            table.append(MappedKey(key, None, tuple(tensor.shape), names))
            continue
        if not tensor.is_floating_point() or tensor.element_size() < 2:
            dtypes.append(f"{key} {tensor.dtype}")
            continue
        for name, part in zip(names, tensor.chunk(len(names)) if tensor.ndim else [tensor], strict=False):
            if part.ndim == len(expected[name]) + 1 and 1 in part.shape:
                part = part.squeeze(1)  # flamingo-mini's frame embeddings, (F, 1, Dv)
            if tuple(part.shape) != expected[name]:
                wrong.append(f"{key} {tuple(part.shape)}, but {name} {expected[name]}")
                continue
            if name in tensors and not torch.equal(tensors[name], part):
                contradictions.append(f"{key} and another key for {name}")
            # Cloned: two parts of one memory are refused when weights are written.
            tensors[name] = part if len(names) == 1 else part.clone()
            table.append(MappedKey(key, name, tuple(part.shape)))
    described = {name for names in map(targets, source) if isinstance(names, list) for name in names}
    missing = sorted(name for name in expected if required(name) and name not in described)
    problems = {
        "missing": missing,
        "unexpected": unexpected,
        "of another shape": wrong,
        "of a dtype that holds no weights (quantized weights have to be dequantized first)": dtypes,
        "contradicting each other": contradictions,
    }
    if any(problems.values()):
        raise ValueError(
            "The checkpoint does not fit the model that was described, so it was not converted. "
            + " ".join(
                f"{kind.capitalize()} ({len(keys)}): {summarize_names(keys, limit=20)}."
                for kind, keys in problems.items()
                if keys
            )
            + " Check the backbones and the interval of gated blocks."
        )
    _refuse_not_finite("The checkpoint", tensors)
    return tensors, table


def _reason_to_leave_out(key: str, tensor: torch.Tensor) -> str | None:
    if _OLD_BUFFERS.search(key):
        return "an old buffer, the model computes it"
    if "." not in key and tensor.numel() == 1:
        return "a counter next to the weights"
    return None


def keep_frozen(
    tensors: dict[str, torch.Tensor], table: list[MappedKey], vision_model: PreTrainedModel, dtype: torch.dtype
) -> list[MappedKey]:
    """
    Tell the vision encoder's tensors of a checkpoint that were trained from those that are equal to the ones in `vision`.

    Args:
        tensors (`dict[str, torch.Tensor]`): Under our names. Those that are equal are removed: the encoder has them.
        table (`list[MappedKey]`): The mapping table.
        vision_model (`PreTrainedModel`): The encoder of `vision`.
        dtype (`torch.dtype`): What is written. Two weights are equal if they are in it, or in the checkpoint's where that is coarser.

    Returns:
        `list[MappedKey]`: the table with what became of them.
    """
    frozen, trained = set(), set()
    for name, tensor in vision_model.state_dict().items():
        name = f"vision_model.{name}"
        if name in tensors:
            given = tensors[name]
            common = given.dtype if given.element_size() < dtype.itemsize else dtype
            is_equal = torch.equal(given.to(common), tensor.to(common))
            (frozen if is_equal else trained).add(name)
    for name in frozen:
        del tensors[name]
    if trained:
        logger.warning(
            f"{len(trained)} of the {len(trained) + len(frozen)} tensors of the checkpoint's vision encoder differ from `vision`: it was "
            "trained along. They are converted."
        )
    reasons = dict.fromkeys(frozen, "frozen, equal to `vision`") | dict.fromkeys(trained, "trained, unlike `vision`")
    return [
        row._replace(target=None if row.target in frozen else row.target, reason=reasons.get(row.target, row.reason))
        for row in table
    ]


def first_line(error: Exception) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


# ---------------------------------------------------------------------------------------------------------------------
# Building
# ---------------------------------------------------------------------------------------------------------------------


def make_config(**fields: Any) -> FlamingoConfig:
    """The config, with a `ValueError` that says what is wrong with it."""
    try:
        return FlamingoConfig(**fields)
    except StrictDataclassError as error:
        raise ValueError(str(error.__cause__ or error)) from error


def meta_language_model(config: PreTrainedConfig) -> PreTrainedModel:
    """Build a language model without memory, with a `ValueError` if its config describes none."""
    with _building():
        return AutoModelForCausalLM.from_config(config)


def meta_model(config: FlamingoConfig) -> FlamingoModel:
    """Build the model without memory: names and shapes."""
    with _building():
        return FlamingoModel(config)


@contextmanager
def _building() -> Iterator[None]:
    try:
        with torch.device("meta"):
            yield
    except (ArithmeticError, LookupError, RuntimeError, StrictDataclassError, TypeError) as error:
        raise ValueError(
            f"No model can be built from the configs of the backbones: {type(error).__name__}: {first_line(error)}. Fix or "
            "fetch their config.json again."
        ) from error


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
    tensors = {name: tensor.to(dtype) for name, tensor in tensors.items()}
    if names := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise ValueError(
            f"Weights are too large for {dtype}: {summarize_names(names, limit=20)}. Pass `dtype` (--dtype) bfloat16 or float32."
        )
    model.load_state_dict(tensors, strict=False, assign=True)
    model.tie_weights()
    empty = [name for name, parameter in model.named_parameters() if parameter.is_meta]
    if empty:
        raise ValueError(f"No weights were found for {summarize_names(empty, limit=20)}.")
    return model.eval()


def format_table(table: list[MappedKey]) -> str:
    """Lay the mapping table out as text: source key, target key, shape, and what became of it."""
    rows = [(row.source, row.target or "-", "x".join(map(str, row.shape)) or "scalar", row.reason) for row in table]
    rows = [("SOURCE", "TARGET", "SHAPE", "REASON"), *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(f"{a:{widths[0]}}  {b:{widths[1]}}  {c:{widths[2]}}  {d}" for a, b, c, d in rows)
