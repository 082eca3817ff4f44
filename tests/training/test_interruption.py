# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Ctrl-C and SIGTERM end a training after its step, with a checkpoint from which it continues as if nothing had happened."""

import contextlib
import io
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from processes import launch
from recipes import miniature_recipe
from runs import digest, losses, source, trainer, write_pairs
from transformers import TrainerCallback

from transformers_flamingo.training import get_last_checkpoint
from transformers_flamingo.training.interruption import TrainingInterrupted
from transformers_flamingo_cli import main


class Send(TrainerCallback):
    """Send real signals to this process at the beginning of a step."""

    def __init__(self, *signals: int, step: int = 2):
        self.signals, self.step = signals, step

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            for number in self.signals:
                os.kill(os.getpid(), number)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    return write_pairs(tmp_path_factory.mktemp("data") / "pairs", 8)


def make(directory: Path, path: str, *callbacks: TrainerCallback, **kwargs):
    return trainer(
        directory, [source("a", path)], callbacks=list(callbacks), **{"enable_jit_checkpoint": True, **kwargs}
    )


def run(a_trainer, checkpoint: str | None = None) -> None:
    with contextlib.redirect_stdout(io.StringIO()):
        a_trainer.train(resume_from_checkpoint=checkpoint)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_stops_after_the_step_and_continues_exactly(path, tmp_path, number, caplog):
    whole = make(tmp_path / "whole", path)
    run(whole)
    before = signal.getsignal(number)
    stopped = make(tmp_path / "parts", path, Send(number))
    with pytest.raises(TrainingInterrupted) as error:
        run(stopped)
    assert signal.getsignal(number) == before
    assert error.value.signal_number == number
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    checkpoint = tmp_path / "parts" / "checkpoint-3"
    assert str(error.value) == (
        f"stopped by {name} after step 3 of 6. {checkpoint} is complete. To go on, give the same command with "
        "`--resume_from_checkpoint auto`."
    )
    assert "Stopping after this step" in caplog.text
    assert get_last_checkpoint(tmp_path / "parts") == str(checkpoint)
    resumed = make(tmp_path / "parts", path)
    run(resumed, str(checkpoint))
    assert digest(resumed.model) == digest(whole.model)
    assert losses(resumed.state.log_history) == losses(whole.state.log_history)


def test_a_second_ctrl_c_stops_at_once(path, tmp_path):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt) as error:
        run(make(tmp_path, path, Send(signal.SIGINT, signal.SIGINT)))
    assert not isinstance(error.value, TrainingInterrupted)
    assert get_last_checkpoint(tmp_path) is None
    assert signal.getsignal(signal.SIGINT) == before


def test_a_trainer_leaves_signals_alone_by_default(path, tmp_path):
    # A job in the background of a shell ignores Ctrl-C, and so do the tests then
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            run(make(tmp_path, path, Send(signal.SIGINT), enable_jit_checkpoint=False))
    finally:
        signal.signal(signal.SIGINT, before)
    assert get_last_checkpoint(tmp_path) is None


def _signal_to_one(directory: str, path: str) -> None:
    sends = [Send(signal.SIGTERM)] if os.environ["RANK"] == "1" else []
    try:
        run(make(Path(directory), path, *sends))
    except TrainingInterrupted as error:
        sys.exit(error.signal_number)


def test_a_signal_to_one_process_stops_all_after_the_same_step(path, tmp_path):
    assert launch(_signal_to_one, str(tmp_path), path, world_size=2) == [signal.SIGTERM] * 2
    assert get_last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-3")


def test_the_command_says_how_to_go_on_and_workers_let_it_finish(tmp_path):
    assert main(["miniature-data", str(tmp_path / "data"), "--num-pictures", "12", "--num-videos", "1"]) == 0
    recipe = miniature_recipe(tmp_path / "data", tmp_path / "out") | {"max_steps": 100_000, "save_strategy": "no"}
    recipe |= {"dataloader_num_workers": 1, "disable_tqdm": True, "image_use_steps": 0}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    command = [sys.executable, "-m", "transformers_flamingo_cli", "train", str(tmp_path / "recipe.yaml")]
    resume = ["--resume_from_checkpoint", "auto"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        [*command, *resume],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    ) as process:
        while "'loss'" not in (line := process.stdout.readline()):
            assert line or process.poll() is None, process.stderr.read()
        os.killpg(process.pid, signal.SIGTERM)  # as a cluster does: also to the worker
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert "has no complete checkpoint: the training starts at step 0" in errors
    (line,) = (line for line in errors.splitlines() if line.startswith("flamingo train: "))
    assert "stopped by SIGTERM after step" in line and "`--resume_from_checkpoint auto`" in line
    checkpoint = get_last_checkpoint(tmp_path / "out")
    step = int(checkpoint.rpartition("-")[2])
    assert main([*command[3:], *resume, "--max_steps", str(step + 1)]) == 0
