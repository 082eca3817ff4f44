# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Map the tensors of a peer's checkpoint to the converted model, and check that none is missing, left over or misshapen.

Letters in shapes: `Dv` vision width, `F` frames.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import torch
from transformers import PreTrainedModel
from transformers.utils import logging

from ..modeling_flamingo import FlamingoModel
from ..utils.names import summarize_names
from ..utils.weight_files import check_finite


logger = logging.get_logger(__name__)

# Buffers that old versions of transformers saved. Current models compute them.
_OLD_BUFFERS = re.compile(r"\.(attn|attention)\.(bias|masked_bias)$|\.rotary_emb\.inv_freq$|\.position_ids$")
MAX_LISTED = 20  # of the keys of each problem: enough to see which part of the model they belong to


class MappedKey(NamedTuple):
    """
    A row of the mapping table: the tensor of a checkpoint and what became of it. Joined keys and values give two rows.

    Attributes:
        source (`str`): Name of the tensor in the checkpoint.
        target (`str`, *optional*): Its name in the converted model; `None` if it is not converted.
        shape (`tuple[int, ...]`): Its shape in the converted model, or in the checkpoint if it is not converted.
        reason (`str`): `"converted"`, or why it is not converted.
    """

    source: str
    target: str | None
    shape: tuple[int, ...]
    reason: str = "converted"


def map_tensors(
    source: dict[str, torch.Tensor],
    targets: Callable[[str], list[str] | str | None],
    model: FlamingoModel,
    is_required: Callable[[str], bool],
) -> tuple[dict[str, torch.Tensor], list[MappedKey]]:
    """
    Give each tensor of a checkpoint its name in `model`, and check that everything fits.

    Args:
        source (`dict[str, torch.Tensor]`): The checkpoint.
        targets (`Callable[[str], list[str] | str | None]`):
            Function from a key of the checkpoint to its names in `model`: several for joined weights. It returns the reason as
            a `str` if the tensor is not converted, and `None` if the key is unknown.
        model ([`FlamingoModel`]): The model to convert to, on the meta device.
        is_required (`Callable[[str], bool]`): Tells whether a weight of the model, by its name, must be in the checkpoint.

    Returns:
        The tensors under their names in `model`, and the mapping table.

    Raises:
        ValueError: keys are missing or unexpected, tensors have a wrong shape or dtype or are not finite, or two tensors for
            one weight differ. All problems are listed.
    """
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    tensors: dict[str, torch.Tensor] = {}
    table: list[MappedKey] = []
    described: set[str] = set()
    unexpected, misshapen, wrong_dtype, contradictory = [], [], [], []
    for key, tensor in source.items():
        names = targets(key)
        if isinstance(names, list):
            described.update(names)
        if names is None or (isinstance(names, list) and any(name not in expected for name in names)):
            names = _reason_to_skip(key, tensor)
        if names is None:
            unexpected.append(key)
            continue
        if isinstance(names, str):
            table.append(MappedKey(key, None, tuple(tensor.shape), names))
            continue
        # One byte is a quantized weight or float8, which means nothing without the scales that are kept elsewhere.
        if not tensor.is_floating_point() or tensor.element_size() < 2:
            wrong_dtype.append(f"{key} {tensor.dtype}")
            continue
        # Not strict: a tensor of fewer rows than names gives fewer chunks, and those have the wrong shape.
        for name, part in zip(names, tensor.chunk(len(names)) if tensor.ndim else [tensor], strict=False):
            if part.ndim == len(expected[name]) + 1 and 1 in part.shape:
                part = part.squeeze(1)  # flamingo-mini's frame embeddings, (F, 1, Dv)
            if tuple(part.shape) != expected[name]:
                misshapen.append(f"{key} {tuple(part.shape)}, but {name} {expected[name]}")
                continue
            if name in tensors and not torch.equal(tensors[name], part):
                contradictory.append(f"{key} and another key for {name}")
            # Cloned, because safetensors refuses to write two tensors that share memory
            tensors[name] = part if len(names) == 1 else part.clone()
            table.append(MappedKey(key, name, tuple(part.shape)))
    problems = {
        "missing": sorted(name for name in expected if is_required(name) and name not in described),
        "unexpected": unexpected,
        "of another shape": misshapen,
        "of a dtype that holds no weights (quantized weights have to be dequantized first)": wrong_dtype,
        "contradicting each other": contradictory,
    }
    if any(problems.values()):
        raise ValueError(
            "The checkpoint does not fit the model that was described, so it was not converted. "
            + " ".join(
                f"{problem.capitalize()} ({len(keys)}): {summarize_names(keys, limit=MAX_LISTED)}."
                for problem, keys in problems.items()
                if keys
            )
            + " Check the backbones and the interval of gated blocks."
        )
    check_finite("The checkpoint", tensors)
    return tensors, table


def _reason_to_skip(key: str, tensor: torch.Tensor) -> str | None:
    """Return why a tensor that the model does not have need not be converted; `None` if it is an error."""
    if _OLD_BUFFERS.search(key):
        return "an old buffer, the model computes it"
    if "." not in key and tensor.numel() == 1:
        return "a counter next to the weights"
    return None


def separate_frozen(
    tensors: dict[str, torch.Tensor], table: list[MappedKey], vision_model: PreTrainedModel, dtype: torch.dtype
) -> list[MappedKey]:
    """
    Separate the tensors of a checkpoint's vision encoder that were trained from those that are equal to those of `vision`.

    Args:
        tensors (`dict[str, torch.Tensor]`):
            The checkpoint's tensors by their names in the model. The equal ones are removed, because `vision_model` has them.
        table (`list[MappedKey]`): The mapping table.
        vision_model (`PreTrainedModel`): The encoder of `vision`.
        dtype (`torch.dtype`):
            The dtype of the converted model. Two weights are compared in it, or in that of the checkpoint if it is coarser.

    Returns:
        `list[MappedKey]`: the table with what became of these tensors.
    """
    frozen, trained = set(), set()
    for name, tensor in vision_model.state_dict().items():
        name = f"vision_model.{name}"
        if name in tensors:
            saved = tensors[name]
            common = saved.dtype if saved.element_size() < dtype.itemsize else dtype
            is_equal = torch.equal(saved.to(common), tensor.to(common))
            (frozen if is_equal else trained).add(name)
    for name in frozen:
        del tensors[name]
    if trained:
        logger.warning(
            f"{len(trained)} of the {len(trained) + len(frozen)} tensors of the checkpoint's vision encoder differ from `vision`: "
            "it was fine-tuned. They are converted."
        )
    reasons = dict.fromkeys(frozen, "frozen, equal to `vision`") | dict.fromkeys(trained, "trained, unlike `vision`")
    return [
        row._replace(target=None if row.target in frozen else row.target, reason=reasons.get(row.target, row.reason))
        for row in table
    ]


def format_table(table: list[MappedKey]) -> str:
    """Format the mapping table as text: source key, target key, shape, and what became of it."""
    rows = [(row.source, row.target or "-", "x".join(map(str, row.shape)) or "scalar", row.reason) for row in table]
    rows = [("SOURCE", "TARGET", "SHAPE", "REASON"), *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(f"{a:{widths[0]}}  {b:{widths[1]}}  {c:{widths[2]}}  {d}" for a, b, c, d in rows)
