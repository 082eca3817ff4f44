# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""What the benchmarks do on a GPU, as far as no GPU is needed: peaks by name, rates, memory before anything is allocated."""

import argparse
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch
from factory import tiny_config

from transformers_flamingo import FlamingoModel


FOLDER = Path(__file__).parents[2] / "benchmarks"
pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="the source distribution has no benchmarks")


@pytest.fixture(scope="module")
def scripts():
    """Import a script of the benchmarks by its name."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.syspath_prepend(FOLDER)
        yield import_module
        for name in ("common", "devices", "report", "run_all"):
            sys.modules.pop(name, None)


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA A10G", None),  # not an A10
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
        ("NVIDIA GeForce GTX 970", None),
    ],
)
def test_the_peak_of_a_device(scripts, name, tflops):
    peak = scripts("devices").find_peak_flops(name)
    assert peak == (None if tflops is None else tflops * 1e12)


def test_operations_are_shown_as_a_share_of_the_peak(scripts):
    devices = scripts("devices")
    left, right = torch.randn(10, 20), torch.randn(20, 30)
    assert devices.count_flops(lambda: left @ right) == 2 * 10 * 20 * 30
    assert devices.rates(312 * 10**12, 2.0, "NVIDIA A100-PCIE-40GB") == {"TFLOP/s": "156", "MFU": "50.0%"}
    assert devices.rates(10**12, 2.0, "a card of tomorrow") == {"TFLOP/s": "0.5", "MFU": "peak unknown"}
    assert devices.rates(10**12, 2.0, devices.device_name("cpu"))["MFU"] == "peak unknown"


def test_weights_are_counted_before_they_are_allocated(scripts):
    devices = scripts("devices")

    def build() -> FlamingoModel:
        model = FlamingoModel(tiny_config())
        model.vision_model.requires_grad_(False)
        return model

    model = build()
    memory = devices.plan_memory(build)
    weights = sum(parameter.numel() for parameter in model.parameters())
    frozen = sum(parameter.numel() for parameter in model.vision_model.parameters())
    assert memory.gradients == 4 * (weights - frozen)
    assert memory.weights == 4 * weights + sum(buffer.nbytes for buffer in model.buffers())
    devices.check_memory(memory, memory.total, "tiny")
    with pytest.raises(SystemExit, match="tiny needs 0.00 GB of weights and 0.00 GB of gradients"):
        devices.check_memory(memory, memory.total - 1, "tiny")


@pytest.mark.parametrize("name", ["gpu", "cuda:99"])
def test_a_device_that_torch_lacks_is_an_error(scripts, name):
    devices = scripts("devices")
    assert devices.parse_device("cpu") == "cpu"
    with pytest.raises(
        argparse.ArgumentTypeError, match=f"torch cannot use the device '{name}' .*Choose `--device cpu`"
    ):
        devices.parse_device(name)


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("run_all", ["--device", "cuda:99"], "argument --device: torch cannot use the device 'cuda:99'"),
        ("run_all", ["--device", "gpu", "--dry-run"], "argument --device: 'gpu' is not a device of torch"),
        ("report", ["--device", "gpu"], "argument --device: 'gpu' is not a device of torch"),
    ],
)
def test_an_unknown_device_is_an_error_of_the_option(scripts, script, arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [f"{script}.py", *arguments])
    with pytest.raises(SystemExit, match="2"):
        scripts(script).main()
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["--images", "0"], ["--images", "-1"], ["--images", "many"], ["--repeats", "0"], ["--layers", "-1"]]
)
def test_a_number_out_of_its_range_is_an_error_of_the_option(scripts, arguments, capsys):
    parser = scripts("common").parser("A benchmark.", images=4, layers=0)
    assert parser.parse_args(["--layers", "0", "--images", "1"]).layers == 0
    with pytest.raises(SystemExit, match="2"):
        parser.parse_args(arguments)
    assert f"argument {arguments[0]}: '{arguments[1]}' is not a whole number from" in capsys.readouterr().err


def test_all_scripts_are_run_on_the_device(scripts):
    run_all = scripts("run_all")
    commands = run_all.commands("cuda", "large")
    assert [Path(command[1]).name for command in commands] == list(run_all.SCRIPTS)
    assert all(Path(command[1]).exists() for command in commands)
    assert all(command[2:] == ["--device", "cuda", "--workload", "large", "--save"] for command in commands)
