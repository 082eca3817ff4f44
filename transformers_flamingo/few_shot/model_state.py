# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The state of a model between calls: its mode, and whether its weights are those of before."""

import functools
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, without dropout, and each of its modules back into its own mode at the end."""
    training = [module for module in model.modules() if module.training]
    if training:
        model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def in_evaluation_mode(method: Callable[..., Any]) -> Callable[..., Any]:
    """Make a method run while `self.model` is in evaluation mode."""

    @functools.wraps(method)
    def run(self: Any, *args: Any, **kwargs: Any) -> Any:
        with evaluating(self.model):
            return method(self, *args, **kwargs)

    return run


def weights_state(model: nn.Module) -> Hashable:
    """
    Return a value that changes when the weights do: by an optimizer, by `load_state_dict`, on another device, with another adapter.

    It reads no weight. What writes through `parameter.data` is not seen.
    """
    state: list[Hashable] = []
    for weight in model.parameters():
        if weight.is_meta:  # offloaded: its place changes with each use
            continue
        version = None if weight.is_inference() else weight._version
        state.append((_pointer(weight), version))
    for module in model.modules():  # of peft, without importing it
        kind = type(module)  # whose attributes are found faster
        if isinstance(getattr(kind, "active_adapters", None), property) and hasattr(kind, "disable_adapters"):
            state.append((tuple(module.active_adapters), module.disable_adapters))
    return tuple(state)


class WeightWatch:
    """Watch of the weights of a model, for caches that are computed with them."""

    def __init__(self, model: nn.Module):
        self.model, self._state = model, weights_state(model)

    def have_changed(self) -> bool:
        """Return whether the weights have changed since the last call."""
        before, self._state = self._state, weights_state(self.model)
        return before != self._state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.model = state["model"]
        self._state = weights_state(self.model)  # they are in other places here


def _pointer(weight: torch.Tensor) -> int:
    try:
        return weight.data_ptr()
    except RuntimeError:  # of a tensor that wraps others, as quantized ones are
        return id(weight)
