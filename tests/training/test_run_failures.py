# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""A training that cannot go well: one line that says so, nothing wrong left behind, and no secret anywhere."""

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hub_server import TOKEN, HubServer
from processes import launch
from runs import source, write_pairs

from transformers_flamingo.cli import main
from transformers_flamingo.training import get_last_checkpoint
from transformers_flamingo.training.checkpointing import LOCK_NAME, lock_output


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    directory = tmp_path_factory.mktemp("data")
    assert main(["miniature-data", str(directory), "--num-pictures", "20", "--num-videos", "2"]) == 0
    return str(directory)


@pytest.fixture
def recipe(tmp_path, data) -> dict:
    return {
        "vision": "miniature",
        "text": "miniature",
        "model_config": {"resampler_num_layers": 1, "resampler_num_latents": 2, "cross_attention_every_n_layers": 3},
        "output_dir": str(tmp_path / "out"),
        "use_cpu": True,
        "max_steps": 4,
        "logging_steps": 1,
        "save_steps": 2,
        "report_to": "none",
        "dataloader_pin_memory": False,
        "data": {"pairs": {"format": "image_text_pairs", "path": f"{data}/train/pairs.parquet", "batch_size": 1}},
    }


def train(tmp_path: Path, recipe: dict, *arguments: str) -> int:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return main(["train", str(tmp_path / "recipe.yaml"), *arguments])


def train_elsewhere(tmp_path: Path, recipe: dict, *arguments: str, preexec_fn=None, **environment: str):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return subprocess.run(
        [sys.executable, "-m", "transformers_flamingo.cli", "train", str(tmp_path / "recipe.yaml"), *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        preexec_fn=preexec_fn,
        stdin=subprocess.DEVNULL,
        timeout=300,
    )


def one_line(capsys) -> str:
    error = capsys.readouterr().err
    (line,) = (line for line in error.splitlines() if line.startswith("flamingo train: "))
    assert "Traceback" not in error
    return line


def test_a_training_that_becomes_nan_ends_with_an_error_and_publishes_nothing(tmp_path, recipe, capsys):
    assert train(tmp_path, recipe, "--max_steps", "2") == 0
    out = tmp_path / "out"
    good = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != "recipe.yaml"}
    assert {out / "README.md", out / "model.safetensors", out / "report" / "metrics.json"} < good.keys()
    capsys.readouterr()
    # A learning rate that no weight survives
    options = ["--resume_from_checkpoint", "auto", "--learning_rate", "1e38", "--max_grad_norm", "0"]
    assert train(tmp_path, recipe, "--max_steps", "30", "--save_strategy", "no", *options) == 1
    assert "the training is stopped" in one_line(capsys)
    assert {path: path.read_bytes() for path in good} == good


def test_weights_that_become_nan_at_the_very_end_are_not_published(tmp_path, recipe, capsys):
    options = ["--learning_rate", "1e38", "--max_grad_norm", "0", "--save_strategy", "no"]
    assert train(tmp_path, recipe, "--max_steps", "1", *options, "--max_non_finite_steps", "100") in (0, 1)
    assert train(tmp_path, recipe, "--max_steps", "2", *options, "--max_non_finite_steps", "100") == 1
    assert "not saved and not published" in one_line(capsys)
    if not (tmp_path / "out" / "config.json").exists():
        assert not (tmp_path / "out" / "README.md").exists()


def test_an_ignored_argument_and_a_missing_metric_are_refused_before_training(tmp_path, recipe, data, capsys):
    assert train(tmp_path, recipe, "--per_device_train_batch_size", "4") == 1
    assert "`data.pairs.batch_size` (now 1)" in one_line(capsys)
    recipe |= {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 2}
    held_out = {"format": "image_text_pairs", "path": f"{data}/validation/pairs.parquet"}
    assert train(tmp_path, {**recipe, "evaluation": {"a": held_out, "b": held_out}, "evaluation_max_rows": 1}) == 1
    assert "Set it to one of a_loss, a_exact_match" in one_line(capsys)
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_a_full_disk_is_named_and_the_model_before_stays(tmp_path, recipe):
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))

    result = train_elsewhere(tmp_path, recipe, preexec_fn=limit)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    line = result.stderr.splitlines()[-1]
    assert line.startswith("flamingo train: ") and "cannot be written: File too large" in line
    assert "Free some space" in line
    assert get_last_checkpoint(tmp_path / "out") is None
    assert not list((tmp_path / "out").rglob("config.json"))


def test_a_folder_that_cannot_be_written(tmp_path, recipe, capsys):
    (tmp_path / "file").write_text("")
    assert train(tmp_path, {**recipe, "output_dir": str(tmp_path / "file" / "out")}) == 1
    assert str(tmp_path / "file") in one_line(capsys)


def test_two_trainings_in_one_folder(tmp_path, recipe, capsys):
    code = (
        "import sys, time; from transformers_flamingo.training.checkpointing import lock_output\n"
        f"with lock_output({str(tmp_path / 'out')!r}): print('held', flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        assert train(tmp_path, recipe) == 1
        assert "Another training is writing" in one_line(capsys)
        assert [path.name for path in (tmp_path / "out").iterdir()] == [LOCK_NAME]
        other.kill()
    # The lock of a process that was killed is nobody's
    with lock_output(tmp_path / "out"), lock_output(tmp_path / "out"):
        pass


@pytest.mark.parametrize("when", ["always", "at the end"])
def test_without_network_the_finished_model_stays(tmp_path, recipe, when):
    recipe |= {"push_to_hub": True, "hub_model_id": "someone/tiny", "hub_token": TOKEN, "max_steps": 1}
    with HubServer() as hub:
        environment = hub.environment(tmp_path / "hf")
        if when == "always":
            environment["HF_ENDPOINT"] = "http://127.0.0.1:9"  # nobody answers there
        else:
            # The Hub is there when the training begins, and knows nothing of commits
            recipe["hub_model_id"] = "stranger/tiny"
        result = train_elsewhere(tmp_path, recipe, **environment)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr, result.stderr
    line = result.stderr.splitlines()[-1]
    if when == "always":
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
        "report_to": "tensorboard",
        "run_name": f"https://user:{password}@host/run",
        "lr_scheduler_kwargs": {},
        "accelerator_config": {"gradient_accumulation_kwargs": None},
        "log_level": "info",
    }
    with HubServer() as hub:
        environment = hub.environment(tmp_path / "hf")
        environment.pop("HF_TOKEN", None)
        result = train_elsewhere(
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
    assert any(name.startswith("events.out") for name in names)
    assert LOCK_NAME not in names
    written = [path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()]
    for secret in (token, password, key):
        assert not [1 for content in [*everything, *written] if secret.encode() in content]
        assert secret not in result.stdout + result.stderr
    assert yaml.safe_load(sent["recipe.yaml"])["hub_model_id"] == "someone/tiny"


def _train_to_the_end(directory: str, path: str) -> None:
    from runs import trainer

    run = trainer(directory, [source("a", path)], max_steps=2, save_strategy="steps", save_steps=1)
    run.train()
    run.save_model()


def test_only_the_first_process_writes_what_is_shared(tmp_path):
    path = write_pairs(tmp_path / "pairs", 8)
    assert launch(_train_to_the_end, str(tmp_path / "out"), path, world_size=2) == [0, 0]
    assert {p.name for p in (tmp_path / "out").iterdir()} >= {"model.safetensors", "checkpoint-1", "checkpoint-2"}
    assert get_last_checkpoint(tmp_path / "out") == str(tmp_path / "out" / "checkpoint-2")
    assert not list((tmp_path / "out").rglob("*.partial"))
