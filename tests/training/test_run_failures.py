# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""A training that fails: the error is one line, no broken files are left, and no secret is shown."""

import resource
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from processes import launch
from recipes import message_of, miniature_recipe, train_in_process
from runs import source, write_pairs

from transformers_flamingo.training import get_last_checkpoint
from transformers_flamingo.training.checkpointing import LOCK_NAME, lock_output
from transformers_flamingo_cli import main


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    directory = tmp_path_factory.mktemp("data")
    assert main(["miniature-data", str(directory), "--num-pictures", "20", "--num-videos", "2"]) == 0
    return str(directory)


@pytest.fixture
def recipe(tmp_path, data) -> dict:
    return miniature_recipe(data, tmp_path / "out")


def train(tmp_path: Path, recipe: dict, *arguments: str) -> int:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return main(["train", str(tmp_path / "recipe.yaml"), *arguments])


def one_line(capsys) -> str:
    error = capsys.readouterr().err
    (line,) = (line for line in error.splitlines() if line.startswith("flamingo train: "))
    assert "Traceback" not in error
    return line


# A learning rate that no weight survives. With AdamW it would be refused
FATAL = ["--optim", "sgd", "--learning_rate", "1e38", "--max_grad_norm", "0", "--save_strategy", "no"]


def test_a_training_that_becomes_nan_fails_and_publishes_nothing(tmp_path, recipe, capsys):
    assert train(tmp_path, recipe, "--max_steps", "1", "--save_strategy", "no") == 0
    out = tmp_path / "out"
    good = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != "recipe.yaml"}
    assert {out / "README.md", out / "model.safetensors", out / "report" / "metrics.json"} < good.keys()
    # Long before the end of the training, and in a training that ends before it can be stopped
    for options, message in (
        (["--max_steps", "1000"], "the training is stopped"),
        (["--max_steps", "2"], "not saved and not published"),
    ):
        capsys.readouterr()
        assert train(tmp_path, recipe, *FATAL, *options) == 1
        assert message in one_line(capsys)
        assert {path: path.read_bytes() for path in good} == good


def test_an_ignored_argument_and_a_missing_metric_are_refused_before_training(tmp_path, recipe, data, capsys):
    assert train(tmp_path, recipe, "--per_device_train_batch_size", "4") == 1
    assert "`data.pairs.batch_size` (now 1)" in one_line(capsys)
    recipe |= {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 2}
    held_out = {"format": "image_text_pairs", "path": f"{data}/validation/pairs.parquet"}
    assert train(tmp_path, {**recipe, "evaluation": {"a": held_out, "b": held_out}, "evaluation_max_rows": 1}) == 1
    assert "Set it to one of a_loss, a_exact_match" in one_line(capsys)
    assert not list((tmp_path / "out").glob("*.safetensors"))


def test_a_full_disk_is_reported_and_no_broken_model_is_left(tmp_path, recipe):
    def limit():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))

    result = train_in_process(tmp_path, recipe, preexec_fn=limit)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    line = message_of(result)
    assert "cannot be written: File too large" in line
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
    # A process that was killed no longer holds its lock
    with lock_output(tmp_path / "out"), lock_output(tmp_path / "out"):
        pass


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
