# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""An error that a user can cause is one line and an exit code; a fault of this package is a traceback."""

import csv
import errno
import json
import os
import pickle
import shutil
import signal
import sys
import tarfile
import zipfile
import zlib
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest
import torch
import yaml
from datasets.exceptions import DatasetGenerationError
from factory import tiny_flamingo, tiny_processor
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
from huggingface_hub.utils import httpx
from PIL import Image
from safetensors import SafetensorError
from transformers.utils import logging

import transformers_flamingo
from transformers_flamingo.utils.errors import user_message
from transformers_flamingo.utils.loading import load_flamingo
from transformers_flamingo_cli import main, train


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved") / "model"
    tiny_flamingo().save_pretrained(directory)
    tiny_processor().save_pretrained(directory)
    return directory


@pytest.fixture
def model(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "model"))


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "image.png"
    Image.new("RGB", (12, 9)).save(path)
    return str(path)


def run(capsys, *arguments) -> tuple[int, str]:
    """Return the exit code of the command, and its only line of errors."""
    try:
        code = main(list(map(str, arguments)))
    except SystemExit as stop:
        code = stop.code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    return code, lines[0]


def edit(file: str, **values):
    def change(directory: Path) -> None:
        content = json.loads((directory / file).read_text())
        (directory / file).write_text(json.dumps(content | values))

    return change


def cut(file: str, size: int):
    return lambda directory: (directory / file).write_bytes((directory / file).read_bytes()[:size])


def put(file: str, text: str):
    return lambda directory: (directory / file).write_text(text)


def index(content: str):
    def change(directory: Path) -> None:
        (directory / "model.safetensors").rename(directory / "model-1.safetensors")
        (directory / "model.safetensors.index.json").write_text(content)

    return change


def pipe(file: str):
    return lambda directory: ((directory / file).unlink(), os.mkfifo(directory / file))


def link(file: str, target: str):
    return lambda directory: ((directory / file).unlink(), (directory / file).symlink_to(target))


def zeros(file: Path) -> None:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(2**20))


DAMAGED = {
    "weights cut short": (cut("model.safetensors", 3000), "cut short or damaged"),
    "weights cut near the end": (lambda d: cut("model.safetensors", -100)(d), "cut short or damaged"),
    "no bytes of weights": (cut("model.safetensors", 0), "cut short or damaged"),
    "no weights": (lambda d: (d / "model.safetensors").unlink(), "no file named model.safetensors"),
    "other shapes": (
        edit("config.json", cross_attention_head_dim=16),
        "12 weights have another shape than its configuration",
    ),
    "weights missing": (edit("config.json", resampler_num_layers=3), "12 weights are missing"),
    "weights left": (edit("config.json", resampler_num_layers=1), "12 weights are unknown"),
    "unknown field": (edit("config.json", resampler_layers=3), "unknown keywords ['resampler_layers']"),
    "field of another type": (edit("config.json", resampler_num_layers="six"), "expected int, got str"),
    "field out of range": (edit("config.json", resampler_num_layers=-1), "`resampler_num_layers` is -1"),
    "unknown dtype": (edit("config.json", dtype="float99"), "float99"),
    "config nested too deeply": (put("config.json", "[" * 100_000), "config.json does not hold valid JSON"),
    "weights of zeros in a compressed archive": (
        lambda d: ((d / "model.safetensors").unlink(), zeros(d / "pytorch_model.bin")),
        "compressed archive",
    ),
    "a pipe of a tokenizer": (pipe("tokenizer.json"), "tokenizer.json is a pipe"),
    "a device of a config": (link("generation_config.json", "/dev/zero"), "generation_config.json is a device"),
    "an end that is a word": (edit("generation_config.json", eos_token_id="</s>"), "`eos_token_id`"),
    "a forced token outside": (edit("generation_config.json", forced_eos_token_id=10**6), "`forced_eos_token_id`"),
    "a length that is a word": (edit("tokenizer_config.json", model_max_length="long"), "`model_max_length`"),
    "another model": (edit("config.json", model_type="gpt2", auto_map={}), "is a model of type 'gpt2'"),
    "config cut short": (cut("config.json", 40), "config.json does not hold valid JSON"),
    "config of a list": (put("config.json", "[]"), "config.json holds a list"),
    "no config": (lambda d: (d / "config.json").unlink(), "has no config.json"),
    "tokenizer cut short": (cut("tokenizer.json", 100), "tokenizer.json does not hold valid JSON"),
    "tokenizer without contents": (put("tokenizer.json", "{}"), "cannot be read (KeyError: 'added_tokens')"),
    "tokenizer settings of a list": (put("tokenizer_config.json", "[]"), "tokenizer_config.json holds a list"),
    "processor cut short": (cut("processor_config.json", 30), "processor_config.json does not hold valid JSON"),
    "generation settings cut short": (
        cut("generation_config.json", 9),
        "generation_config.json does not hold valid JSON",
    ),
    "index without weight_map": (index("{}"), "no `weight_map`"),
    "index of a missing shard": (
        index('{"metadata": {}, "weight_map": {"a": "gone.safetensors"}}'),
        "'gone.safetensors', which is missing",
    ),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_model_is_one_line(name, model, image, capsys):
    change, expected = DAMAGED[name]
    if name == "weights cut near the end":
        size = (model / "model.safetensors").stat().st_size
        change = cut("model.safetensors", size - 100)
    change(model)
    code, line = run(capsys, "caption", image, "--model", model, "--max-new-tokens", 1)
    assert code == 1
    assert line.startswith("flamingo caption: ")
    assert expected in line


def test_a_whole_model_loads_with_its_own_dtype(model):
    loaded, processor = load_flamingo(model, dtype=torch.float16, device="cpu")
    assert loaded.dtype == torch.float16 and not loaded.training
    assert processor.image_token == "<image>"


FLAGS = [
    ["caption", "x.png", "--model", "m", "--num-beams", "0"],
    ["caption", "x.png", "--model", "m", "--max-new-tokens", "-1"],
    ["caption", "x.png", "--model", "m", "--max-new-tokens", "many"],
    ["caption", "x.png"],
    ["chat", "m", "--port", "70000"],
    ["chat", "m", "--dtype", "float8"],
    ["convert", "open-flamingo", "c", "d", "--cross-attention-every-n-layers", "0"],
    ["convert", "kosmos", "c", "d"],
    ["demo", "--seed", "-1"],
    ["demo", "--learning-rate", "nan"],
    ["demo", "--scale", "0"],
    ["evaluate", "m", "--task", "coco", "--shots", "-1"],
    ["evaluate", "m", "--task", "coco", "--shots", "1.5"],
    ["evaluate", "m", "--task", "coco", "--seeds", str(2**32)],
    ["evaluate", "m", "--task", "coco", "--num-queries", "0"],
    ["evaluate", "m", "--task", "coco", "--support-size", "0"],
    ["evaluate", "m", "--task", "coco", "--num-orders", "0"],
    ["evaluate", "m", "--task", "coco", "--batch-size", "0"],
    ["evaluate", "m", "--task", "coco", "--selection", "best"],
    ["evaluate", "m", "--task", "coco", "--option", "split"],
    ["evaluate", "m", "--task", "coco", "--unknown", "1"],
    ["miniature-data", "d", "--num-pictures", "0"],
    ["miniature-data", "d", "--num-videos", "1e3"],
    ["miniature-backbones", "vision", "d", "--seed", "x"],
    ["miniature-backbones", "vision", "d", "--device", "cuda"],
    ["miniature-backbones", "vision", "d", "--steps", "3"],
    ["miniature-backbones", "text", "d", "--row-length", "32"],
    ["evaluate", "m", "--task", "coco", "--shots", "1", "1"],
    ["evaluate", "m", "--task", "coco", "--rices-clip", "x"],
    ["pretrain", "audio", "r"],
    ["nothing"],
    [],
]


@pytest.mark.parametrize("arguments", FLAGS, ids=" ".join)
def test_a_flag_out_of_range_is_one_line(arguments, capsys):
    code, line = run(capsys, *arguments)
    assert code == 2
    assert line.startswith("flamingo") and line.endswith("--help`.")


INPUTS = [
    (["caption", "gone.png", "--model", "{model}"], "No such image: gone.png"),
    (["caption", "{image}", "{broken}", "--model", "{model}"], "broken.png"),
    (["caption", "{image}", "--model", "{tmp}/gone"], "There is no folder"),
    (["caption", "{image}", "--model", "{image}"], "is a file"),
    (["caption", "{image}", "--model", "{model}", "--max-new-tokens", "200"], "the language model has 128 positions"),
    (["caption", "{image}", "--model", "{model}", "--prompt", "w5 " * 130], "The prompt has 131 tokens"),
    (["evaluate", "{model}", "--task", "cocoa"], "no task 'cocoa'"),
    (["evaluate", "{model}", "--task", "miniature_shapes", "--data", "{tmp}"], "has no effect"),
    (["evaluate", "{model}", "--task", "coco"], "needs `data`"),
    (["evaluate", "{model}", "--task", "coco", "--data", "{tmp}"], "dataset_coco.json"),
    (["evaluate", "{model}", "--task", "vatex", "--data", "x", "--option", "num_frames=0"], "`num_frames`"),
    (["evaluate", "{model}", "--task", "classification", "--data", "x", "--option", "classes=[a"], "`classes`"),
    (["evaluate", "{model}", "--task", "miniature_shapes", "--shots", "1", "--output-dir", "{image}"], "image.png"),
    (["caption", "{image}", "--model", "{model}", "--prompt", "w5 \udce9"], "half of a character"),
    (["train", "miniature", "--vision", "/gone/vision", "--output_dir", "{tmp}/out"], "There is no folder"),
    (["train", "miniature", "--text", "{image}", "--output_dir", "{tmp}/out"], "is a file"),
    (["chat", "{model}", "--host", "192.0.2.1"], "No page can be served at '192.0.2.1'"),
    (["train", "gone"], "There is no recipe 'gone'"),
    (["train", "{yaml}"], "is not valid YAML"),
    (["train", "miniature", "--max_steps", "many"], "max_steps"),
    (["train", "miniature", "--no_such_flag", "1"], "no_such_flag"),
    (["pretrain", "text", "gone"], "There is no recipe 'gone'"),
    (["convert", "open-flamingo", "{tmp}/gone.pt", "{tmp}/out", "--vision", "v", "--text", "t"], "gone.pt"),
    (["convert", "flamingo-mini", "{tmp}/gone", "{tmp}/out"], "gone"),
    (["miniature-data", "{image}/below"], "image.png"),
    (["miniature-backbones", "vision", "{image}/below"], "It is a file, but a folder is needed"),
    (["demo", "--output-dir", "{image}"], "A file of that name exists already"),
    (["miniature-data", "x" * 300], "The name is too long"),
]


@pytest.mark.parametrize(("arguments", "expected"), INPUTS, ids=[" ".join(a)[:60] for a, _ in INPUTS])
def test_input_that_cannot_be_used_is_one_line(arguments, expected, saved, image, tmp_path, capsys):
    (tmp_path / "broken.png").write_bytes(Path(image).read_bytes()[:40])
    (tmp_path / "cut.yaml").write_text("data: [")
    places = {"model": saved, "image": image, "tmp": tmp_path, "broken": tmp_path / "broken.png"}
    places |= {"yaml": tmp_path / "cut.yaml"}
    code, line = run(capsys, *(argument.format(**places) for argument in arguments))
    assert code == 1
    assert expected in line
    assert "Traceback" not in line


def raised(error: BaseException):
    def run(arguments):
        raise error

    return run


def connection_refused() -> Exception:
    return httpx.ConnectError("[Errno 111] Connection refused", request=httpx.Request("GET", "https://hub.test/model"))


USERS = [
    (
        OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "out/model.safetensors"),
        "The disk is full: 'out/model.safetensors'",
    ),
    (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "The disk is full."),
    (SafetensorError("I/O error: No space left on device (os error 28)"), "The disk is full."),
    (Exception("No space left on device (os error 28)"), "The disk is full."),  # of `tokenizers`
    (RuntimeError("[enforce fail at inline_container.cc:626] . unexpected pos 64 vs 0"), "cannot be written"),
    (PermissionError(errno.EACCES, os.strerror(errno.EACCES), "out"), "No permission: 'out'"),
    (OSError(errno.EROFS, os.strerror(errno.EROFS), "out"), "read-only: 'out'"),
    (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "a.csv"), "No such file or folder: 'a.csv'"),
    (OSError("We couldn't connect to 'https://hub.test'\nto load the files."), "to 'https://hub.test' to load"),
    (
        connection_refused(),
        "There is no connection to https://hub.test/model ([Errno 111] Connection refused). Check the network",
    ),
    (httpx.ReadTimeout("timed out"), "There is no connection (timed out)"),
    (LocalEntryNotFoundError("cannot find the file on the Hub"), "cannot find the file"),
    (SafetensorError("Error while deserializing header: header too small"), "cut short or damaged"),
    (RuntimeError("PytorchStreamReader failed reading zip archive: failed finding central directory"), "damaged"),
    (RuntimeError("Error(s) in loading state_dict for X:\n\tsize mismatch for w"), "saved with these weights"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "not enough memory"),
    (MemoryError(), "MemoryError"),
    (pickle.UnpicklingError("invalid load key, '<'."), "invalid load key"),
    (EOFError("Ran out of input"), "EOFError: Ran out of input"),
    (zipfile.BadZipFile("File is not a zip file"), "not a zip file"),
    (tarfile.ReadError("unexpected end of data"), "unexpected end"),
    (zlib.error("Error -3 while decompressing"), "Error -3"),
    (csv.Error("line contains NUL"), "NUL"),
    (yaml.YAMLError("mapping values\nare not allowed here"), "mapping values are not allowed here"),
    (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"), "invalid start byte"),
    (ModuleNotFoundError("No module named 'gradio'", name="gradio"), 'pip install "transformers-flamingo[chat]"'),
    (PackageNotFoundError("The 'deepspeed>=0.9.3' distribution was not found"), "'deepspeed>=0.9.3' distribution"),
    (ModuleNotFoundError("No module named 'av'", name="av"), 'pip install "transformers-flamingo[video]"'),
    (ModuleNotFoundError("No module named 'datasets'", name="datasets"), "pip install"),
    (ModuleNotFoundError("No module named 'bitsandbytes'", name="bitsandbytes"), "pip install bitsandbytes"),
    (ImportError("Reading needs PyAV: pip install 'transformers-flamingo[video]'."), "pip install"),
]


@pytest.mark.parametrize(
    ("error", "expected"), USERS, ids=[type(e).__name__ + str(i) for i, (e, _) in enumerate(USERS)]
)
def test_errors_of_input_and_machine(error, expected, monkeypatch, capsys):
    monkeypatch.setattr(train, "run", raised(error))
    code, line = run(capsys, "train", "x")
    assert code == 1
    assert line.startswith("flamingo train: ")
    assert expected in line


def test_an_answer_of_the_hub_is_one_line(monkeypatch, capsys):
    response = httpx.Response(401, request=httpx.Request("GET", "https://hub.test/model?token=abcdef123456"))
    error = HfHubHTTPError(
        "401 Unauthorized for url: https://hub.test/model?token=abcdef123456\nInvalid", response=response
    )
    monkeypatch.setattr(train, "run", raised(error))
    code, line = run(capsys, "train", "x")
    assert code == 1
    assert "401 Unauthorized" in line and "abcdef123456" not in line


BUGS = [
    KeyError("0"),
    TypeError("unsupported operand"),
    IndexError("list index out of range"),
    AttributeError("'NoneType' object has no attribute 'x'"),
    ZeroDivisionError("division by zero"),
    AssertionError("never"),
    RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
    NotImplementedError("_of"),
    NameError("name 'x' is not defined"),
    RecursionError("maximum recursion depth exceeded"),
    Exception("unknown"),
    ModuleNotFoundError("No module named 'transformers_flamingo.gone'", name="transformers_flamingo.gone"),
    ModuleNotFoundError("No module named 'transformers_flamingo_cli.gone'", name="transformers_flamingo_cli.gone"),
    ModuleNotFoundError(
        "No module named 'transformers_flamingo_miniature.a'", name="transformers_flamingo_miniature.a"
    ),
]


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: type(bug).__name__)
def test_a_fault_of_this_package_is_a_traceback(bug, monkeypatch):
    monkeypatch.setattr(train, "run", raised(bug))
    with pytest.raises(type(bug)) as caught:
        main(["train", "x"])
    assert caught.value is bug


@pytest.mark.parametrize(
    "package", ["transformers_flamingo", "transformers_flamingo_cli", "transformers_flamingo_miniature"]
)
def test_a_fault_of_this_package_while_a_model_is_loaded_is_a_traceback(package, model, image, monkeypatch):
    namespace = {"__name__": f"{package}.planted"}
    exec("def broken(self, *args, **kwargs):\n    return {}['planted']", namespace)
    monkeypatch.setattr(transformers_flamingo.FlamingoProcessor, "__init__", namespace["broken"])
    with pytest.raises(KeyError, match="planted"):
        main(["caption", image, "--model", str(model)])


def test_the_cause_of_a_failed_dataset_is_reported(monkeypatch, capsys):
    error = DatasetGenerationError("An error occurred while generating the dataset")
    error.__cause__ = ValueError("row 3 is not JSON")
    monkeypatch.setattr(train, "run", raised(error))
    assert "row 3 is not JSON" in run(capsys, "train", "x")[1]
    error.__cause__ = KeyError("0")
    assert user_message(error) is None


def test_debugging_shows_the_traceback_too(monkeypatch, capsys):
    monkeypatch.setattr(train, "run", raised(ValueError("planted")))
    verbosity = logging.get_verbosity()
    try:
        logging.set_verbosity_debug()
        assert main(["train", "x"]) == 1
    finally:
        logging.set_verbosity(verbosity)
    lines = capsys.readouterr().err.splitlines()
    assert "Traceback (most recent call last):" in lines
    assert lines[-2:] == ["ValueError: planted", "flamingo train: planted"]


def test_ctrl_c_is_a_line_and_130(monkeypatch, capsys):
    monkeypatch.setattr(train, "run", raised(KeyboardInterrupt()))
    assert run(capsys, "train", "x") == (128 + signal.SIGINT, "flamingo train: stopped by Ctrl-C.")


def test_a_long_message_is_cut(monkeypatch, capsys):
    monkeypatch.setattr(train, "run", raised(ValueError("x" * 10_000)))
    assert len(run(capsys, "train", "x")[1]) < 1600


def test_the_error_for_a_file_that_neither_the_disk_nor_the_hub_has_names_both(tmp_path, monkeypatch):
    """The advice of transformers is about its own addresses, regardless of what was wrong."""
    from transformers import AutoImageProcessor

    (tmp_path / "empty").mkdir()
    with pytest.raises(OSError, match="Can't load image processor") as caught:
        AutoImageProcessor.from_pretrained(tmp_path / "empty")
    message = user_message(caught.value)
    assert message.startswith("Can't load image processor for") and "empty" in message
    assert message.endswith("Check the name and the network, or pass a local path.") and "http" not in message


def test_secrets_are_not_shown(monkeypatch, capsys):
    words = "https://me:pa55word@hub.test/x?access_token=abc12345 with hf_abcdefgh12345678"
    monkeypatch.setattr(train, "run", raised(ValueError(words)))
    line = run(capsys, "train", "x")[1]
    assert "hub.test/x" in line
    assert not any(secret in line for secret in ("pa55word", "abc12345", "hf_abcdefgh"))


def test_the_value_of_an_unknown_option_is_not_shown(capsys):
    code, line = run(capsys, "caption", "x.png", "--model", "m", "--hub-token", "abcdef", "--key=ghijkl")
    assert code == 2
    assert "--hub-token --key" in line and "abcdef" not in line and "ghijkl" not in line


def test_output_that_cannot_be_written_is_a_line(saved, image, monkeypatch, capsys):
    """The output is a closed pipe, or a full disk."""
    arguments = ["caption", image, "--model", saved, "--max-new-tokens", "1"]
    reader, writer = os.pipe()
    os.close(reader)
    with monkeypatch.context() as patch, os.fdopen(writer, "w") as pipe:
        patch.setattr(sys, "stdout", pipe)
        assert run(capsys, *arguments) == (1, "flamingo caption: The output was closed before the end.")
    if Path("/dev/full").exists():
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", open("/dev/full", "w"))  # noqa: SIM115  it cannot be closed, as it cannot be flushed
            code, line = run(capsys, *arguments)
        assert code == 1
        assert "The disk is full" in line


def test_an_error_of_a_worker_is_its_own_message():
    error = ValueError(
        "Caught ValueError in DataLoader worker process 0.\nOriginal Traceback (most recent call last):\n"
        '  File "x.py", line 1, in f\n    raise ValueError(a)\nValueError: row 3: it is\nbroken. Fix it.\n'
    )
    assert user_message(error) == "row 3: it is broken. Fix it."
