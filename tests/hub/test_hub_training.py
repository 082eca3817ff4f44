# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Check what `flamingo train` publishes, what it keeps to itself, and what it does without a network."""

import json
from pathlib import Path

import pytest
import yaml
from hub_server import TOKEN, HubServer
from recipes import message_of, miniature_recipe, train_in_process

from transformers_flamingo.training.checkpointing import LOCK_NAME
from transformers_flamingo_cli import main


@pytest.fixture
def recipe(tmp_path) -> dict:
    assert main(["miniature-data", str(tmp_path / "data"), "--num-pictures", "20", "--num-videos", "2"]) == 0
    return miniature_recipe(tmp_path / "data", tmp_path / "out")


@pytest.mark.parametrize("when", ["always", "at the end"])
def test_without_network_the_finished_model_stays(tmp_path, recipe, when, monkeypatch):
    def refuse(*_, **__):
        raise ConnectionError

    recipe |= {"push_to_hub": True, "hub_model_id": "someone/tiny", "hub_token": TOKEN, "max_steps": 1}
    with HubServer() as hub:
        environment = hub.environment(tmp_path / "hf")
        if when == "always":
            environment["HF_ENDPOINT"] = "http://127.0.0.1:9"  # nobody answers there
        else:  # it is reachable when the training begins, but does not accept the files
            monkeypatch.setattr(hub.RequestHandlerClass, "_commit", refuse)
            monkeypatch.setattr(hub, "handle_error", lambda *_: None)
        result = train_in_process(tmp_path, recipe, **environment)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr, result.stderr
    line = message_of(result)
    assert "hf upload someone/tiny" in line and "finished and saved" in line
    assert {"model.safetensors", "config.json", "README.md"} <= {p.name for p in (tmp_path / "out").iterdir()}
    json.loads((tmp_path / "out" / "report" / "metrics.json").read_text())
    assert TOKEN not in result.stderr + result.stdout


def test_no_secret_is_in_any_file_or_log(tmp_path, recipe):
    token, password, key = TOKEN, "pass1234word", "key1234of1234wandb"
    recipe |= {
        "push_to_hub": True,
        "hub_model_id": "someone/tiny",
        "hub_strategy": "all_checkpoints",
        "run_name": f"https://user:{password}@host/run",
        "lr_scheduler_kwargs": {},
        "accelerator_config": {"gradient_accumulation_kwargs": None},
        "log_level": "info",
    }
    with HubServer() as hub:
        environment = hub.environment(tmp_path / "hf")
        environment.pop("HF_TOKEN", None)
        result = train_in_process(
            tmp_path, recipe, "--hub_token", token, "--trackio_space_id", f"a/b?api_key={key}", **environment
        )
        assert result.returncode == 0, result.stderr[-3000:]
        sent = hub.repositories["someone/tiny"].files()
        everything = [
            content
            for repository in hub.repositories.values()
            for commit in repository.commits.values()
            for content in commit.values()
        ]
    names = {Path(name).name for name in sent}
    assert {"model.safetensors", "README.md", "recipe.yaml", "training_args.bin", "metrics.json"} <= names
    assert LOCK_NAME not in names
    written = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    for secret in (token, password, key):
        assert not [1 for content in [*everything, *written] if secret.encode() in content]
        assert secret not in result.stdout + result.stderr
    assert yaml.safe_load(sent["recipe.yaml"])["hub_model_id"] == "someone/tiny"
