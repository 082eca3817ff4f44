# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Check the arguments of a predictor before anything is computed."""

import os
from collections.abc import Mapping
from numbers import Integral, Real
from typing import Any

from torch import nn


def check_parts(model: Any, processor: Any) -> None:
    """
    Check that a model and a processor are those.

    Raises:
        ValueError: they are something else, such as the name of a model.
    """
    if isinstance(model, str | os.PathLike):
        raise ValueError(
            f"`model` is {os.fspath(model)!r}, a name. Use `FewShotPredictor.from_pretrained({os.fspath(model)!r}, demonstrations, ...)`, "
            "which loads the model and its processor."
        )
    if not isinstance(model, nn.Module):
        raise ValueError(f"`model` is a {type(model).__name__}, but it must be a FlamingoModel.")
    if not hasattr(processor, "few_shot_text"):
        raise ValueError(
            f"`processor` is a {type(processor).__name__}, but it must be the FlamingoProcessor of the model. Load it with "
            "`AutoProcessor.from_pretrained`, or both with `FewShotPredictor.from_pretrained`."
        )


def check_integer(name: str, value: Any, least: int) -> None:
    """
    Check an integer. `None` stands for a default.

    Raises:
        ValueError: it is something else, or less than `least`.
    """
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"`{name}` is {value!r}, but it must be an integer of at least {least}.")
    if value < least:
        raise ValueError(f"`{name}` is {value}, but it must be at least {least}.")


def check_values(
    *, batch_size: Any, seed: Any, top_k: Any, max_new_tokens: Any, num_beams: Any, length_penalty: Any, **texts: Any
) -> None:
    """
    Check numbers and texts.

    Args:
        batch_size, seed, top_k, max_new_tokens, num_beams, length_penalty: Numbers.
        texts: Arguments that are texts, by name.

    Raises:
        ValueError: one is of another type, or out of its range.
    """
    if batch_size is None or seed is None:
        raise ValueError(f"`{'seed' if batch_size is not None else 'batch_size'}` is None, but it must be an integer.")
    check_integer("batch_size", batch_size, 1)
    check_integer("seed", seed, 0)
    check_integer("top_k", top_k, 0)
    check_integer("max_new_tokens", max_new_tokens, 1)
    check_integer("num_beams", num_beams, 1)
    if length_penalty is not None and (isinstance(length_penalty, bool) or not isinstance(length_penalty, Real)):
        raise ValueError(f"`length_penalty` is {length_penalty!r}, but it must be a number.")
    for name, value in texts.items():
        if value is not None and not isinstance(value, str):
            raise ValueError(f"`{name}` is {value!r}, but it must be a text.")


def check_generate_kwargs(arguments: Any) -> None:
    """
    Check other arguments of `generate()`.

    Raises:
        ValueError: they are not a mapping.
    """
    if arguments is not None and not isinstance(arguments, Mapping):
        raise ValueError(f"`generate_kwargs` is {arguments!r}, but it must be a dict of arguments of `generate()`.")


def check_index_dir(index_dir: Any) -> None:
    """
    Check that a folder of embeddings can be written, and make it.

    Raises:
        ValueError: it is not a path, or it cannot be made or written.
    """
    if index_dir is None:
        return
    if not isinstance(index_dir, str | os.PathLike):
        raise ValueError(f"`index_dir` is {index_dir!r}, but it must be the path of a folder.")
    try:
        os.makedirs(index_dir, exist_ok=True)
    except OSError as error:
        raise ValueError(
            f"`index_dir` is {os.fspath(index_dir)!r}, which cannot be made ({error}). Give a folder that can be written."
        ) from error
    if not os.access(index_dir, os.W_OK | os.X_OK):
        raise ValueError(f"`index_dir` is {os.fspath(index_dir)!r}, which cannot be written. Give another folder.")


def find_top_k(top_k: int | None, selection: str, available: int) -> int:
    """
    Return the number of demonstrations of a query.

    Args:
        top_k (`int`, *optional*): That asked for.
        selection (`str`): How they are chosen.
        available (`int`): How many there are.

    Raises:
        ValueError: there are fewer.
    """
    if top_k is None:
        return available if selection == "fixed" else min(8, available)
    if not 0 <= top_k <= available:
        raise ValueError(f"`top_k` is {top_k}, but it must be from 0 to {available}, the number of demonstrations.")
    return top_k
