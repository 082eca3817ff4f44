# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
An accelerator without hardware: tensors that say they are on `cuda:0`, compute on the CPU, and count how often the host waits.

A wait is an operation whose result the host needs, so that it stops until all that was queued is done: `.item()`, a comparison in an
`if`, a shape that depends on values (`nonzero`, a boolean index), or a copy to the CPU.
"""

import traceback
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map


aten = torch.ops.aten
DEVICE = torch.device("cuda:0")
WAITS = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.equal.default,
    aten._unique2.default,
    aten.unique_dim.default,
    aten.masked_select.default,
    aten.bincount.default,
}
INDEXING = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._index_put_impl_.default}


class PretendTensor(torch.Tensor):
    """A tensor that says it is on the accelerator. Its values are in `values`, on the CPU."""

    @staticmethod
    def __new__(cls, values: torch.Tensor, requires_grad: bool = False):
        return torch.Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device="meta",  # torch has no guard of devices that its build lacks
            requires_grad=requires_grad,
        )

    def __init__(self, values: torch.Tensor, requires_grad: bool = False):
        self.values = values

    device = property(lambda self: DEVICE)
    is_cuda = property(lambda self: True)
    is_meta = property(lambda self: False)

    def tolist(self) -> Any:
        """Return the values, which have to be copied."""
        return self.cpu().tolist()

    def __repr__(self) -> str:
        return f"PretendTensor({self.values})"

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        with PretendAccelerator():
            return function(*args, **(kwargs or {}))


class PretendAccelerator(TorchDispatchMode):
    """
    Run operations on tensors of the accelerator, and count.

    Attributes:
        waits (`list[str]`): The line of the library at which the host waited, for each wait.
        num_operations (`int`): Number of operations on the accelerator.
    """

    def __init__(self):
        super().__init__()
        self.waits: list[str] = []
        self.num_operations = 0
        # Torch would initialize the accelerator otherwise, as it does not under its own FakeTensorMode
        self._mode_key = torch._C._TorchDispatchModeKey.FAKE

    def __enter__(self):
        self._lifts_cpu_only = torch._C._only_lift_cpu_tensors()
        torch._C._set_only_lift_cpu_tensors(True)  # `torch.tensor(..., device=...)` makes it on the CPU, and moves it
        return super().__enter__()

    def __exit__(self, *args):
        torch._C._set_only_lift_cpu_tensors(self._lifts_cpu_only)
        return super().__exit__(*args)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        takes = any(isinstance(leaf, PretendTensor) for leaf in tree_leaves((args, kwargs)))
        device = kwargs.get("device")
        gives = takes if device is None else torch.device(device).type == DEVICE.type
        if takes:
            self.num_operations += 1
            if self._is_wait(function, args, kwargs, gives):
                self.waits.append(_find_line())
        if device is not None:
            kwargs["device"] = torch.device("cpu")
        result = function(*tree_map(_values, args), **tree_map(_values, kwargs))
        if not gives:
            return result
        result = tree_map(lambda leaf: PretendTensor(leaf) if isinstance(leaf, torch.Tensor) else leaf, result)
        if function._schema.is_mutable or any(value.alias_info is not None for value in function._schema.returns):
            return return_and_correct_aliasing(function, args, kwargs, result)
        return result

    @staticmethod
    def _is_wait(function: Callable, args: tuple, kwargs: dict[str, Any], gives: bool) -> bool:
        if function in INDEXING:
            return any(isinstance(i, torch.Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1])
        if function is aten.repeat_interleave.Tensor:
            return kwargs.get("output_size") is None
        return function in WAITS or (function is aten._to_copy.default and not gives)


def _values(leaf: Any) -> Any:
    return leaf.values if isinstance(leaf, PretendTensor) else leaf


def _find_line() -> str:
    """Return the innermost line of this library or of transformers: `file.py: code`."""
    for frame in reversed(traceback.extract_stack()):
        if "transformers" in frame.filename:
            return f"{frame.filename.rsplit('/', 1)[-1]}: {frame.line}"
    return "autograd"


def to_accelerator(model: nn.Module) -> nn.Module:
    """Move a model to the accelerator that is none, in place."""
    moved: dict[torch.Tensor, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                new = moved.get(parameter)
                if new is None:
                    new = nn.Parameter(PretendTensor(parameter.data), requires_grad=parameter.requires_grad)
                module._parameters[name] = moved[parameter] = new
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = PretendTensor(buffer)
    return model
