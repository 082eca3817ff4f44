# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
What a device can do, and whether a workload fits on it: peak FLOP/s of known GPUs, model FLOP utilization, memory of weights.

Nothing here needs a GPU: devices are known by their names, and weights are counted on the meta device.
"""

import argparse
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode


# Dense bfloat16 TFLOP/s of the tensor cores, without sparsity, from NVIDIA's data sheets. The first pattern that is found in the name
# of a device counts, so variants come before what they vary.
PEAK_TFLOPS = {
    r"B200": 2250,
    r"H200 NVL": 835,
    r"H200": 989,
    r"H100 NVL": 835,
    r"H100 PCIe": 756,
    r"H100": 989,
    r"A100": 312,
    r"L40S": 362,
    r"L4": 121,
    r"A40": 150,
    r"A10": 125,
}


def find_peak_flops(device_name: str) -> float | None:
    """Return the peak FLOP/s in bfloat16 of a device by the name that torch gives it, or `None` of an unknown one."""
    for pattern, tflops in PEAK_TFLOPS.items():
        if re.search(rf"\b{pattern}\b", device_name):
            return tflops * 1e12
    return None


def parse_device_name(name: str) -> str:
    """
    Check that a name is one of torch's devices, of this machine or of another, as the `type` of an option.

    Raises:
        argparse.ArgumentTypeError: torch knows no such device.
    """
    try:
        torch.device(name)
    except RuntimeError as error:
        raise argparse.ArgumentTypeError(f"{name!r} is not a device of torch, such as cpu, cuda or cuda:1") from error
    return name


def parse_device(name: str) -> str:
    """
    Check that torch has a device, as the `type` of an option.

    Raises:
        argparse.ArgumentTypeError: torch has no device of that name.
    """
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # builds of torch without CUDA raise the latter
        first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise argparse.ArgumentTypeError(
            f"torch cannot use the device {name!r} ({first_line}). Choose `--device cpu`, or for a GPU install torch with CUDA."
        ) from error
    return name


def count_flops(case: Callable[[], Any]) -> int:
    """Count the floating-point operations of the matrix products of `case`, forward and backward."""
    with FlopCounterMode(display=False) as counter:
        case()
    return counter.get_total_flops()


def rates(flops: int, seconds: float, device_name: str | None) -> dict[str, str]:
    """
    Format the speed of a case as columns of a table.

    Args:
        flops (`int`): Operations of the case.
        seconds (`float`): Its time.
        device_name (`str`, *optional*): Name of the GPU; `None` for a CPU.

    Returns:
        `dict`: "TFLOP/s", and "MFU", its share of the peak of the device, or "peak unknown".
    """
    peak = None if device_name is None else find_peak_flops(device_name)
    share = "peak unknown" if peak is None else f"{flops / seconds / peak:.1%}"
    return {"TFLOP/s": f"{flops / seconds / 1e12:.3g}", "MFU": share}


def device_name(device: str) -> str | None:
    """Return the name of a GPU, or `None` for a CPU."""
    return torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else None


@dataclass(frozen=True)
class WeightMemory:
    """Bytes of the weights of a model and, if it is trained, of their gradients. Activations are not counted."""

    weights: int
    gradients: int

    @property
    def total(self) -> int:
        """Return the sum."""
        return self.weights + self.gradients

    def __str__(self) -> str:
        return f"{self.weights / 1e9:.2f} GB of weights and {self.gradients / 1e9:.2f} GB of gradients"


def plan_memory(build: Callable[[], nn.Module]) -> WeightMemory:
    """Count the memory of a model that `build` makes, on the meta device: nothing is allocated."""
    with torch.device("meta"):
        model = build()
    trained = [parameter.nbytes for parameter in model.parameters() if parameter.requires_grad]
    return WeightMemory(sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers())), sum(trained))


def check_memory(memory: WeightMemory, free: int, what: str) -> None:
    """
    Check that weights and gradients fit, before they are allocated.

    Args:
        memory ([`WeightMemory`]): What is needed.
        free (`int`): Bytes that are free on the device.
        what (`str`): Name of the workload.

    Raises:
        SystemExit: they do not fit.
    """
    if memory.total > free:
        raise SystemExit(
            f"{what} needs {memory}, {memory.total / 1e9:.2f} GB without activations, but {free / 1e9:.2f} GB are free on the "
            "device. Stop other processes on it, or choose `--workload small` or a smaller `--text`."
        )
