# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Checkpoints and backbones that cannot be converted: each gives one clear error, and nothing is written."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError
from huggingface_hub.utils import httpx
from peers import GPT2, LLAMA, rewrite, write_open_flamingo
from safetensors.torch import load_file, save_file

from transformers_flamingo.conversion import convert_flamingo_mini, convert_open_flamingo
from transformers_flamingo.conversion.errors import explain_read_error


GOLDEN = Path(__file__).parents[1] / "golden" / "flamingo_mini" / "gpt2_every1"
MINI = {"vision": GOLDEN / "vision_base", "text": GOLDEN / "lm_base", "tokenizer": GOLDEN / "tokenizer"}
QUERY = "perceiver.layers.1.0.to_q.weight"


@pytest.fixture
def files(tmp_path):
    return write_open_flamingo(tmp_path, *GPT2)


def refused(files, message: str, kind: type[Exception] = ValueError, **options) -> None:
    """Check that a conversion is refused in one line and that nothing is written."""
    out = files.checkpoint.with_name("out")
    with pytest.raises(kind, match=message) as error:
        convert_open_flamingo(files.checkpoint, out, **files.options | options)
    assert "\n" not in str(error.value)
    assert not out.exists() and not list(out.parent.glob(".*.partial"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t * float("nan"),
            "NaN or infinite weights.*resampler.layers.1.attention.q_proj.*earlier checkpoint",
        ),
        (lambda t: t.masked_fill(t > 0, float("inf")), "NaN or infinite weights"),
        (lambda t: t.to(torch.float8_e4m3fn), r"dtype.*dequantized first.*to_q.weight torch.float8_e4m3fn"),
        (lambda t: t.to(torch.int8), r"dtype.*dequantized first.*to_q.weight torch.int8"),
        (lambda t: t.to(torch.bool), "to_q.weight torch.bool"),
        (lambda t: t.to(torch.complex64), "to_q.weight torch.complex64"),
        (lambda t: t.T.contiguous(), r"shape \(1\): perceiver.layers.1.0.to_q.weight \(24, 128\), but"),
        (lambda t: t[None], r"\(1, 128, 24\), but"),
        (lambda t: t.sum(), r"to_q.weight \(\), but"),
        (lambda t: t[:0], r"\(0, 24\), but"),
    ],
)
def test_impossible_weights_are_refused(files, change, message):
    rewrite(files.checkpoint, lambda keys: keys | {QUERY: change(keys[QUERY])})
    with pytest.raises(ValueError, match=message):
        convert_open_flamingo(files.checkpoint, "unused", **files.options, dry_run=True)
    refused(files, message)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_other_floating_point_dtypes_are_read(files, dtype):
    rewrite(files.checkpoint, lambda keys: {key: value.to(dtype) for key, value in keys.items()})
    table = convert_open_flamingo(files.checkpoint, files.checkpoint.with_name("out"), **files.options)
    written = load_file(files.checkpoint.with_name("out") / "model.safetensors")
    given = torch.load(files.checkpoint, weights_only=True)[QUERY].float()
    assert torch.equal(written["resampler.layers.1.attention.q_proj.weight"], given) and table


def test_weights_too_large_for_the_dtype_are_refused(files):
    rewrite(files.checkpoint, lambda keys: keys | {QUERY: keys[QUERY] * 0 + 1e6})
    refused(
        files, r"too large for torch.float16: resampler.layers.1.*--dtype. bfloat16 or float32", dtype=torch.float16
    )


def test_a_number_in_a_name_cannot_ask_for_any_size(files):
    rewrite(files.checkpoint, lambda keys: keys | {"perceiver.layers.1000000000.0.to_q.weight": torch.zeros(128, 24)})
    refused(files, "Unexpected .*perceiver.layers.1000000000|Missing")


BACKBONES = {
    "truncated": lambda folder: os.truncate(folder / "model.safetensors", 3000),
    "cut in its header": lambda folder: os.truncate(folder / "model.safetensors", 30),
    "a pointer": lambda folder: (folder / "model.safetensors").write_text(
        "version https://git-lfs.github.com/spec/v1\n"
    ),
    "not finite": lambda folder: change_weights(folder, lambda t: t * float("nan")),
    "of another shape": lambda folder: change_weights(folder, lambda t: torch.zeros(3, 3)),
}


def change_weights(folder: Path, change) -> None:
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith(("mlp.fc1.weight", "mlp.c_fc.weight")))
    save_file(weights | {name: change(weights[name])}, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("option", ["vision", "text"])
@pytest.mark.parametrize("fault", BACKBONES)
def test_a_backbone_with_damaged_weights_is_refused(files, option, fault):
    BACKBONES[fault](files.options[option])
    refused(files, str(files.options[option]))


@pytest.mark.parametrize("option", ["vision", "text", "tokenizer"])
def test_a_backbone_with_a_pipe_in_its_folder_is_refused(files, option):
    """Opening the pipe would wait forever."""
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        path = files.options[option] / name
        if path.exists():
            path.unlink()
            os.mkfifo(path)
            refused(files, f"{name} is a pipe")
            path.unlink()


@pytest.mark.parametrize("option", ["vision", "text"])
@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "3",
        "",
        "[" * 10**5,
        '{"model_type": "nonsense"}',
        '{"hidden_size": "wide"}',
        '{"hidden_size": 0}',
        '{"num_hidden_layers": 1000000000, "n_layer": 1000000000}',
        '{"num_hidden_layers": -1, "n_layer": -1}',
        '{"num_attention_heads": 0, "n_head": 0}',
        '{"vocab_size": -5, "image_size": -5}',
        '{"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": true}}',
        '{"hidden_act": "nonsense", "activation_function": "nonsense"}',
    ],
)
def test_a_backbone_with_a_damaged_config_is_refused(files, option, content):
    path = files.options[option] / "config.json"
    try:
        path.write_text(json.dumps(json.loads(path.read_text()) | json.loads(content)))
    except (ValueError, TypeError, RecursionError):
        path.write_text(content)
    out = files.checkpoint.with_name("out")
    with pytest.raises((ValueError, OSError)):
        convert_open_flamingo(files.checkpoint, out, **files.options)
    assert not out.exists()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"xattn_every": 0}, "`xattn_every` is 0 in the config.json of .*whole number from 1 to 100000"),
        ({"xattn_every": "2"}, "`xattn_every` is '2'"),
        ({"xattn_heads": True}, "`xattn_heads` is True"),
        ({"resampler_depth": None}, "`resampler_depth` is None"),
        ({"resampler_num_latents": 1.5}, "`resampler_num_latents` is 1.5"),
        ({"lm": 3}, "`lm` is 3 .*text"),
        ({"clip_model_type": ["a"]}, "`clip_model_type` is"),
        ({"xattn_act": "nonsense"}, "`xattn_act` is 'nonsense'"),
        ({"resampler_depth": 10**9}, "`resampler_depth` is 1000000000"),
    ],
)
def test_an_impossible_setting_of_flamingo_mini_is_named(tmp_path, settings, message):
    shutil.copytree(GOLDEN / "hf", tmp_path / "hf")
    config = json.loads((tmp_path / "hf" / "config.json").read_text())
    (tmp_path / "hf" / "config.json").write_text(json.dumps(config | settings))
    with pytest.raises(ValueError, match=message):
        convert_flamingo_mini(tmp_path / "hf", tmp_path / "out", **MINI)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("content", ["[]", "{", "3", '{"lm": "a", "lm": "b"}', ""])
def test_a_damaged_config_of_flamingo_mini_is_named(tmp_path, content):
    shutil.copytree(GOLDEN / "hf", tmp_path / "hf")
    (tmp_path / "hf" / "config.json").write_text(content)
    with pytest.raises(ValueError, match="config.json .*Fetch it again"):
        convert_flamingo_mini(tmp_path / "hf", tmp_path / "out", **MINI)


def test_a_tokenizer_with_an_empty_unknown_token_is_read(tmp_path):
    """Many repositories of LLaMA 1 have such a tokenizer."""
    files = write_open_flamingo(tmp_path, *LLAMA)
    path = tmp_path / "tokenizer" / "tokenizer_config.json"
    empty = {"tokenizer_class": "LLaMATokenizer", "bos_token": "", "eos_token": "", "unk_token": ""}
    path.write_text(json.dumps(json.loads(path.read_text()) | empty))
    convert_open_flamingo(files.checkpoint, tmp_path / "out", **files.options)
    assert (tmp_path / "out" / "model.safetensors").exists()


# Errors of the Hub, chained as transformers and huggingface_hub chain them.
def response(status: int) -> httpx.Response:
    return httpx.Response(status, request=httpx.Request("GET", "https://huggingface.co/a/b"))


def chained(cause: Exception) -> OSError:
    try:
        raise OSError("Several\nlines of advice") from cause
    except OSError as error:
        return error


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            GatedRepoError("long", response=response(403)),
            "it is gated. Accept its terms on https://huggingface.co/a/b",
        ),
        (chained(GatedRepoError("long", response=response(401))), "it is gated"),
        (
            chained(RepositoryNotFoundError("long", response=response(404))),
            "neither a directory nor a repository of the Hub",
        ),
        (LocalEntryNotFoundError("long"), "the Hub cannot be reached"),
        (chained(httpx.ConnectError("long")), "the Hub cannot be reached"),
        (chained(httpx.ReadTimeout("long")), "the Hub cannot be reached"),
        (OSError("Several\nlines"), "Several"),
    ],
)
def test_an_error_of_the_hub_is_one_line_with_the_remedy(error, message):
    explanation = explain_read_error(error, "a/b")
    assert message in explanation and "\n" not in explanation


def test_without_a_connection_the_remedy_is_named(files, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    refused(files, "--vision. is a/b, which cannot be read: .*the Hub cannot be reached", OSError, vision="a/b")
    refused(files, "--text. is a/b, which cannot be read: .*the Hub cannot be reached", OSError, text="a/b")
    with pytest.raises(OSError, match="mpt7b, which cannot be read: .*the Hub cannot be reached") as error:
        convert_open_flamingo("openflamingo/OpenFlamingo-9B-vitl-mpt7b", files.checkpoint.with_name("out"))
    assert "\n" not in str(error.value)
    with pytest.raises(OSError, match="a/b, which cannot be read: .*the Hub cannot be reached"):
        convert_flamingo_mini("a/b", files.checkpoint.with_name("out"))
