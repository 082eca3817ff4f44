# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Weights inside the files of trainers: they are unwrapped where that is possible, else an error says what to do."""

import argparse
import collections
import datetime
import json
import re
import shutil
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from peers import GPT2, LLAMA, logits_of, rewrite, write_open_flamingo
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText, TrainingArguments

from transformers_flamingo.conversion import convert_flamingo_mini, convert_open_flamingo


State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_open_flamingo(tmp_path_factory.mktemp("peer"), *GPT2)


@pytest.fixture(scope="module")
def table(files):
    return convert_open_flamingo(files.checkpoint, "unused", **files.options, dry_run=True)


def prefixed(prefix: str) -> Callable[[State], State]:
    """Return a function that adds a prefix to all names."""
    return lambda state: {prefix + key: value for key, value in state.items()}


def otter(state: State) -> State:
    """Give tensors Otter's names (modeling_otter.py): perceiver sublayers are not in a list, feed-forwards are named."""
    state = {re.sub(r"(perceiver\.layers\.\d+)\.1\.", r"\1.feed_forward.", key): value for key, value in state.items()}
    state = {re.sub(r"(perceiver\.layers\.\d+)\.0\.", r"\1.", key): value for key, value in state.items()}
    return {
        key.replace("gated_cross_attn_layer.ff.", "gated_cross_attn_layer.feed_forward."): v
        for key, v in state.items()
    }


class AttributeDict(dict):
    """A custom dict class, such as Lightning has."""


AVERAGED = {"perceiver.latents": torch.full((64, 24), 7.0)}
SETTINGS = {
    "args": argparse.Namespace(lr=1e-4, path=Path("data"), seen=collections.defaultdict(dict)),
    "hyper_parameters": AttributeDict(lr=1e-4),
    "best": np.float64(3.5),
    "date": datetime.date(2024, 1, 1),
    "config": types.SimpleNamespace(width=3),
    "training": TrainingArguments(output_dir="x", report_to="none"),
}
OPTIMIZER = {"state": {0: {"exp_avg": torch.ones(3), "step": torch.ones(())}}, "param_groups": [{"params": [0]}]}

CONTAINERS = {
    "DDP": prefixed("module."),
    "DDP of one part": lambda state: {
        re.sub(r"^lang_encoder\.", "lang_encoder.module.", k): v for k, v in state.items()
    },
    "Lightning": lambda state: {
        "state_dict": prefixed("model.")(state),
        "epoch": 1,
        "pytorch-lightning_version": "2.1",
    },
    "Lightning with another name": lambda state: {"state_dict": prefixed("flamingo.net.")(state), "loops": {}},
    "DeepSpeed": lambda state: {"module": state, "ds_version": "0.9", "optimizer": OPTIMIZER, "ds_config": {"a": 1}},
    "torch.compile": prefixed("_orig_mod."),
    "torch.compile in DDP in Lightning": lambda state: {"state_dict": prefixed("model.module._orig_mod.")(state)},
    "torch.compile of a part": lambda s: {
        k.replace("lang_encoder.", "lang_encoder._orig_mod."): v for k, v in s.items()
    },
    "FSDP and checkpointing": lambda state: {
        re.sub(r"(\.h\.\d+|perceiver)\.", r"\1._fsdp_wrapped_module._checkpoint_wrapped_module.", k): v
        for k, v in prefixed("_fsdp_wrapped_module.")(state).items()
    },
    "DeepSpeed in Lightning": lambda state: {"state_dict": prefixed("_forward_module.model.")(state)},
    "OpenFlamingo": lambda s: {
        "model_state_dict": prefixed("module.")(s),
        "optimizer_state_dict": OPTIMIZER,
        "epoch": 0,
    },
    "settings": lambda state: {"model_state_dict": state, **SETTINGS},
    "custom names": lambda state: {"checkpoint": {"weights": {"net": state}}, "iteration": 5},
    "a module each": lambda state: {
        part: {k.removeprefix(f"{part}."): v for k, v in state.items() if k.startswith(part)}
        for part in ("perceiver", "lang_encoder")
    },
    "averaged as well": lambda state: {"model": state, "model_ema": AVERAGED},
    "averaged alone": lambda state: {"ema_state_dict": state},
    "AveragedModel": lambda state: prefixed("module.")(state) | {"n_averaged": torch.tensor(3)},
    "numbers between": lambda state: {**state, "epoch": 3, "best": 0.5, "name": "flamingo", "scheduler": None},
    "Otter": otter,
    "Otter in DDP": lambda state: prefixed("module.")(otter(state)),
    "parameters": lambda state: {key: torch.nn.Parameter(value) for key, value in state.items()},
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_wrappers_around_the_weights_are_removed(files, table, tmp_path, name):
    path = tmp_path / "last.ckpt"
    torch.save(CONTAINERS[name](torch.load(files.checkpoint, weights_only=True)), path)
    found = convert_open_flamingo(path, "unused", **files.options, dry_run=True)
    converted = [row for row in found if row.target is not None]
    assert {(row.target, row.shape) for row in converted} == {(row.target, row.shape) for row in table}
    assert len(converted) == len(table)
    assert {row.reason for row in found if row.target is None} <= {"a counter next to the weights"}


def test_the_table_has_the_names_of_the_file(files, tmp_path):
    keys = otter(torch.load(files.checkpoint, weights_only=True))
    torch.save(prefixed("module.")(keys), tmp_path / "otter.pt")
    table = convert_open_flamingo(tmp_path / "otter.pt", "unused", **files.options, dry_run=True)
    assert {row.source for row in table} == {f"module.{key}" for key in keys}


@pytest.mark.parametrize("legacy", [False, True])
def test_a_container_in_each_format_of_torch(files, tmp_path, legacy):
    content = CONTAINERS["settings"](torch.load(files.checkpoint, weights_only=True))
    torch.save(content, tmp_path / "file.pt", _use_new_zipfile_serialization=not legacy)
    convert_open_flamingo(tmp_path / "file.pt", tmp_path / "out", **files.options)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out").eval()
    assert torch.equal(logits_of(model), logits_of(files.model))


@pytest.mark.parametrize("averaged", [True, False])
def test_averaged_weights_are_named(files, tmp_path, caplog, averaged):
    state = torch.load(files.checkpoint, weights_only=True)
    torch.save(
        {"ema_state_dict": state} if averaged else {"model": state, "model_ema": AVERAGED}, tmp_path / "file.pt"
    )
    convert_open_flamingo(tmp_path / "file.pt", "unused", **files.options, dry_run=True)
    expected = (
        "'ema_state_dict'. They are used" if averaged else "'model_ema'. The weights under 'model' are used instead"
    )
    assert f"file.pt holds averaged weights under {expected}" in caplog.text


def test_otter_as_transformers_saves_it(tmp_path):
    """Sharded, with both backbones inside."""
    files = write_open_flamingo(tmp_path, *LLAMA, every=2)
    state = torch.load(files.checkpoint, weights_only=True)
    state |= {f"vision_encoder.vision_model.{k}": v.clone() for k, v in files.model.vision_model.state_dict().items()}
    for key, value in files.model.language_model.state_dict().items():
        key = re.sub(r"layers\.(\d+)\.", r"layers.\1.decoder_layer.", key)
        state[f"lang_encoder.{key}"] = value.clone()
    state = otter(state)
    folder = tmp_path / "otter"
    folder.mkdir()
    names = {key: f"pytorch_model-0000{1 + number % 2}-of-00002.bin" for number, key in enumerate(state)}
    for name in set(names.values()):
        torch.save({key: value for key, value in state.items() if names[key] == name}, folder / name)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    table = convert_open_flamingo(folder, tmp_path / "out", **files.options)
    assert {row.source for row in table} == state.keys()
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out").eval()
    assert torch.equal(logits_of(model), logits_of(files.model))


def test_files_of_safetensors_in_all_forms(files, table, tmp_path):
    state = prefixed("module.")(torch.load(files.checkpoint, weights_only=True))
    save_file(state, tmp_path / "weights.safetensors")
    (tmp_path / "one").mkdir()
    save_file(state, tmp_path / "one" / "model.safetensors")
    (tmp_path / "two").mkdir()
    names = {key: f"model-{number % 2}.safetensors" for number, key in enumerate(state)}
    for name in set(names.values()):
        save_file({key: value for key, value in state.items() if names[key] == name}, tmp_path / "two" / name)
    (tmp_path / "two" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    for name in ("weights.safetensors", "one", "two"):
        found = convert_open_flamingo(tmp_path / name, "unused", **files.options, dry_run=True)
        assert {row.target for row in found} == {row.target for row in table}, name


LORA = "lang_encoder.transformer.h.0.attn.c_attn.lora_A.default.weight"
REFUSED = {
    "LoRA": (
        lambda state: state | {LORA: torch.ones(2, 3)},
        r"an adapter .*such as lang_encoder.*lora_A.*merge_and_unload",
    ),
    "LoRA of peft": (
        lambda state: {"base_model.model." + k.replace(".wte.", ".wte.modules_to_save."): v for k, v in state.items()},
        "merge_and_unload",
    ),
    "LoRA with a base": (
        lambda state: {k.replace(".to_q.", ".to_q.base_layer."): v for k, v in state.items()},
        "merge_and_unload",
    ),
    "an optimizer": (lambda state: OPTIMIZER, "only the state of an optimizer"),
    "an optimizer in a container": (
        lambda state: {"optimizer_state_dict": OPTIMIZER, "lr_scheduler_state_dict": {"last": 3}, "epoch": 3},
        "only the state of an optimizer",
    ),
    "an optimizer by names": (
        lambda state: {"optimizer": {"state": {key: {"exp_avg": value} for key, value in state.items()}}},
        "only the state of an optimizer",
    ),
    "averages without names": (
        lambda state: {"decay": 0.99, "shadow_params": [*state.values()]},
        "no weights under the names",
    ),
    "two models in a container": (
        lambda state: {"student": state, "teacher": dict(state)},
        "several models, under 'student', 'teacher'. Keep only the one",
    ),
    "two models by prefixes": (
        lambda state: prefixed("online_model.")(state) | prefixed("ema_model.")(state),
        "2 models, under 'ema_model.', 'online_model.'.*Keep",
    ),
    "ZeRO 3": (
        lambda state: {"module": {k: torch.empty(0) for k in state}, "param_shapes": [dict.fromkeys(state, 3)]},
        "python zero_to_fp32.py",
    ),
    "a name twice": (
        lambda state: state | {"module.perceiver.latents": torch.ones(64, 24)},
        "2 models, under '', 'module.'|two tensors for perceiver.latents with different values",
    ),
    "nothing": (lambda state: {}, "no weights"),
    "a list": (lambda state: [*state.values()], "no weights"),
    "one tensor": (lambda state: torch.ones(3), "no weights"),
    "numbers": (lambda state: {key: value.tolist() for key, value in state.items()}, "no weights"),
    "a module": (lambda state: torch.nn.Linear(2, 2), "something other than tensors.*state_dict"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_cannot_be_unwrapped_are_refused_with_the_remedy(files, tmp_path, name):
    wrap, message = REFUSED[name]
    torch.save(wrap(torch.load(files.checkpoint, weights_only=True)), tmp_path / "last.ckpt")
    with pytest.raises(ValueError, match=message):
        convert_open_flamingo(tmp_path / "last.ckpt", tmp_path / "out", **files.options)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["latest", "global_step10/", "zero_to_fp32.py"], "zero_to_fp32.py"),
        (["zero_pp_rank_0_mp_rank_00_model_states.pt"], "zero_to_fp32.py"),
        ([".metadata", "__0_0.distcp"], "format_utils dcp_to_torch"),
        (["adapter_config.json", "adapter_model.safetensors"], "merge_and_unload"),
        (["config.json"], "has no weights"),
    ],
)
def test_a_folder_of_parts_is_refused_with_the_remedy(files, tmp_path, names, message):
    for name in names:
        (tmp_path / name).mkdir() if name.endswith("/") else (tmp_path / name).write_bytes(b"")
    with pytest.raises((ValueError, OSError), match=message):
        convert_open_flamingo(tmp_path, tmp_path / "out", **files.options)


@pytest.mark.parametrize("name", ["zero_pp_rank_0_mp_rank_00_optim_states.pt", "__0_0.distcp"])
def test_one_file_of_several_is_refused_with_the_remedy(files, tmp_path, name):
    torch.save({}, tmp_path / name)
    with pytest.raises(ValueError, match="one of several files.*python"):
        convert_open_flamingo(tmp_path / name, tmp_path / "out", **files.options)


def test_containers_of_flamingo_mini_are_unwrapped(tmp_path):
    golden = Path(__file__).parents[1] / "golden" / "flamingo_mini" / "gpt2_every1"
    options = {"vision": golden / "vision_base", "text": golden / "lm_base", "tokenizer": golden / "tokenizer"}
    plain = convert_flamingo_mini(golden / "hf", "unused", **options, dry_run=True)
    for prefix in ("module.", "_orig_mod.", "model.module."):
        directory = tmp_path / prefix
        shutil.copytree(golden / "hf", directory)
        rewrite(directory / "pytorch_model.bin", lambda state, prefix=prefix: {"state_dict": prefixed(prefix)(state)})
        table = convert_flamingo_mini(directory, "unused", **options, dry_run=True)
        assert [row.target for row in table] == [row.target for row in plain]
