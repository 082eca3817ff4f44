# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Shard with FSDP2 on two processes, and read the configurations that are shipped."""

import json
import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import load_config_from_file
from factory import END_OF_CHUNK, IMAGE, prompt, random_images
from processes import launch
from runs import model, source, trainer, write_pairs
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from transformers_flamingo import FlamingoModel


HERE = Path(__file__).parent
# Tied and untied, and a head with a bias (gptj) is covered below
TEXTS = ("gpt2", "llama")


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> dict[str, dict]:
    directory = tmp_path_factory.mktemp("sharded")
    paths = [str(HERE), str(HERE.parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(HERE / "sharded_run.py"), str(directory), *TEXTS],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return {text: json.loads((directory / f"{text}.json").read_text()) for text in TEXTS}


@pytest.mark.parametrize("text", TEXTS)
def test_two_processes_shard_every_parameter_and_learn_as_ddp_does(records, text):
    record = records[text]
    assert record["world_size"] == 2
    assert record["unsharded"] == []
    assert 0.5 <= record["share"] < 0.6
    assert record["fsdp"] == pytest.approx(record["ddp"], rel=1e-4)
    assert len(set(record["ddp"])) == 4
    assert record["logits"] < 1e-3
    sharded, replicated = record["image_use"]
    assert sharded.keys() == replicated.keys()
    assert all(sharded[name] == pytest.approx(replicated[name], rel=1e-3) for name in sharded)
    assert not sharded["is_blank"] and sharded["loss"] != sharded["swapped_loss"]


@pytest.mark.parametrize("text", TEXTS)
def test_frozen_and_trained_parameters_are_in_separate_units(records, text):
    # 3 gated blocks, the resampler, 3 decoder layers, the rest of the language model, vision encoder, token rows
    assert records[text]["num_units"] == 10
    assert records[text]["mixed"] == []


@pytest.mark.parametrize("text", TEXTS)
def test_a_full_state_dict_is_that_of_an_ordinary_model(records, text):
    record = records[text]
    assert record["keys"] == []
    assert record["difference"] < 1e-4
    assert "thawed" not in record
    assert record["reloaded"]


@pytest.mark.parametrize("text", ["gpt2", "llama", "gptj", "gemma", "opt_350m"])
def test_separate_rows_compute_what_shared_rows_compute(tmp_path, text):
    shared, separate = model(text=text), model(text=text)
    separate.detach_token_rows()
    with torch.no_grad():  # the matrix is no longer read
        for module in (separate.get_input_embeddings(), separate.get_output_embeddings()):
            module.weight[[END_OF_CHUNK, IMAGE]] = 7.0
    input_ids = prompt("IabEcIdE", "xxIabcEE")
    inputs = {"input_ids": input_ids, "labels": input_ids, "pixel_values": random_images(2, 2)}
    inputs["frame_attention_mask"] = torch.tensor([[1, 1], [1, 0]])
    with torch.no_grad():
        torch.testing.assert_close(separate(**inputs).logits, shared(**inputs).logits)
    for flamingo in (shared, separate):
        flamingo(**inputs).loss.backward()
    expected = {name: p.grad for name, p in shared.named_parameters() if p.requires_grad}
    gradients = {name: p.grad for name, p in separate.named_parameters() if p.requires_grad}
    assert "input_token_rows.token_97" in expected
    torch.testing.assert_close(gradients, expected, rtol=1e-4, atol=1e-6)

    assert separate.state_dict().keys() - shared.state_dict().keys()
    separate.save_pretrained(tmp_path)
    loaded = FlamingoModel.from_pretrained(tmp_path).state_dict()
    torch.testing.assert_close(dict(loaded), dict(shared.state_dict()), rtol=0, atol=0)


def shard_in_trainer(directory: str, path: str) -> None:
    """Create the optimizer of a trainer that uses FSDP2, and write down what it holds."""
    run = trainer(directory, [source("a", path)], max_steps=1, ddp_backend="gloo")
    # accelerate has no FSDP on CPUs: the trainer is told that it is in use
    run.is_fsdp_enabled = True
    run.accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin(fsdp_version=2, reshard_after_forward=True)
    groups = run.create_optimizer().param_groups
    run.create_optimizer()
    parameters = [parameter for group in groups for parameter in group["params"]]
    record = {
        "sharded": isinstance(run.model, FSDPModule),
        "groups": len(groups),
        "is_trained": {id(p) for p in parameters} == {id(p) for p in run.model.parameters() if p.requires_grad},
        "unsharded": sum(not isinstance(parameter, DTensor) for parameter in parameters),
    }
    Path(directory, f"{run.args.process_index}.json").write_text(json.dumps(record))


def test_the_trainer_shards_before_it_creates_the_optimizer(tmp_path):
    path = write_pairs(tmp_path / "pairs", 4)
    assert launch(shard_in_trainer, str(tmp_path), path, world_size=2) == [0, 0]
    for rank in (0, 1):
        record = json.loads((tmp_path / f"{rank}.json").read_text())
        assert record == {"sharded": True, "groups": 3, "is_trained": True, "unsharded": 0}


CONFIGS = {
    "one_gpu": ("NO", 1),
    "eight_gpus_ddp": ("MULTI_GPU", 8),
    "eight_gpus_fsdp2": ("FSDP", 8),
    "multi_node": ("MULTI_GPU", 16),
    "deepspeed_zero2": ("DEEPSPEED", 8),
    "deepspeed_zero3": ("DEEPSPEED", 8),
}


def test_the_configurations_of_accelerate_are_all_there_and_accelerate_reads_them():
    folder = files("transformers_flamingo.training") / "accelerate_configs"
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.yaml" for name in CONFIGS)
    for name, (distributed_type, num_processes) in CONFIGS.items():
        config = load_config_from_file(str(folder / f"{name}.yaml"))  # refuses unknown keys
        assert (config.distributed_type, config.num_processes) == (distributed_type, num_processes), name
        assert config.mixed_precision == "bf16"
        if distributed_type == "FSDP":
            assert config.fsdp_config["fsdp_version"] == 2
        if distributed_type == "DEEPSPEED":
            assert config.deepspeed_config["zero_stage"] == int(name[-1])
