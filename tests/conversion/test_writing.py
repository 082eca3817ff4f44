# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The directory of a converted model is complete or missing, whatever happens while it is written."""

import hashlib
import os
import resource
import shutil
import signal
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from peers import GPT2, logits_of, rewrite, write_open_flamingo
from processes import launch
from transformers import AutoModelForImageTextToText

from transformers_flamingo.conversion import convert_open_flamingo
from transformers_flamingo.conversion.writing import new_directory


def test_an_error_while_writing_leaves_nothing(tmp_path):
    def write_half():
        with new_directory(tmp_path / "out") as directory:
            (directory / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert os.listdir(tmp_path) == []
    (tmp_path / "out").mkdir()
    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert os.listdir(tmp_path) == ["out"]


def test_parents_are_created_and_removed_again_with_an_error(tmp_path):
    for output_dir, error in ((tmp_path / "a" / "b", None), (tmp_path / "c" / "d", ValueError)):
        with nullcontext() if error is None else pytest.raises(error), new_directory(output_dir):
            assert output_dir.parent.is_dir()
            if error is not None:
                raise error
    assert os.listdir(tmp_path) == ["a"] and os.listdir(tmp_path / "a") == ["b"]


def test_the_files_of_a_killed_run_are_named_and_kept(tmp_path, caplog):
    """They may belong to another process, which is still running."""
    (tmp_path / ".out.0123abcd.partial").mkdir()
    (tmp_path / ".out.0123abcd.partial" / "half").write_text("half")
    with new_directory(tmp_path / "out") as directory:
        (directory / "whole").write_text("whole")
    assert sorted(os.listdir(tmp_path)) == [".out.0123abcd.partial", "out"]
    assert os.listdir(tmp_path / "out") == ["whole"]
    assert ".out.0123abcd.partial. If none is running, delete it" in caplog.text


def test_only_a_new_or_empty_directory_is_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for name, what in (("file", "a file"), ("full", "not empty"), ("empty", "the current directory")):
        with pytest.raises(FileExistsError, match=f"{name} exists and is {what}"), new_directory(tmp_path / name):
            pass
    with pytest.raises(FileExistsError, match="the current directory"), new_directory("."):
        pass
    assert sorted(os.listdir(tmp_path)) == ["empty", "file", "full"]


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_its_target_is_written(tmp_path, exists):
    (tmp_path / "link").symlink_to("target")
    if exists:
        (tmp_path / "target").mkdir()
    with new_directory(tmp_path / "link") as directory:
        (directory / "whole").write_text("whole")
    assert (tmp_path / "link").is_symlink() and os.listdir(tmp_path / "target") == ["whole"]


def digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("name", ["file/out", "file/deep/out"])
def test_a_file_in_the_path_is_named(tmp_path, name):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="a part of its path is a file. Name another"), new_directory(tmp_path / name):
        pass
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("mode", [0o555, 0o000])
def test_without_permission_the_directory_is_named(tmp_path, mode):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine").chmod(mode)
    user = os.geteuid()
    if user == 0:  # root may write anywhere, so use a user without rights who can reach the folder
        for parent in [tmp_path, *tmp_path.parents[:2]]:
            parent.chmod(0o755)
        os.seteuid(65534)
    try:
        message = "mine/out'? cannot be written: Permission denied"
        with (
            pytest.raises(PermissionError if mode == 0 else OSError, match=message),
            new_directory(tmp_path / "mine" / "out"),
        ):
            pass
    finally:
        os.seteuid(user)
        (tmp_path / "mine").chmod(0o755)
    assert os.listdir(tmp_path / "mine") == []


def test_a_disk_without_enough_space_is_named_before_anything_is_loaded(tmp_path, monkeypatch):
    files = write_open_flamingo(tmp_path, *GPT2)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    (tmp_path / "vision" / "model.safetensors").unlink()  # it is not looked for
    with pytest.raises(OSError, match="the model takes 0.0 GB, and the disk of .* has 0.0 GB left. Free some space"):
        convert_open_flamingo(files.checkpoint, tmp_path / "out", **files.options)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint.pt", "text", "tokenizer", "vision"]


def convert_with_small_files(directory: Path, options: dict) -> None:
    """Convert with a limit on file sizes, as on a disk that fills up while the weights are written."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    try:
        convert_open_flamingo(directory / "checkpoint.pt", directory / "new" / "out", **options)
    except OSError as error:
        (directory / "message").write_text(f"{error}\n{sorted(os.listdir(directory))}")


def test_a_disk_that_fills_up_is_named_and_nothing_is_left(tmp_path):
    files = write_open_flamingo(tmp_path, *GPT2)
    assert launch(convert_with_small_files, tmp_path, files.options) == [0]
    message, names = (tmp_path / "message").read_text().split("\n")
    assert "out' cannot be written: File too large" in message and "Free some space" in message
    assert names == "['checkpoint.pt', 'text', 'tokenizer', 'vision']"


@pytest.mark.parametrize("name", ["checkpoint", "vision", "text"])
def test_an_output_that_is_an_input_is_refused_and_inside_one_nothing_is_lost(tmp_path, name):
    files = write_open_flamingo(tmp_path, *GPT2)
    (tmp_path / "checkpoint").mkdir()
    files.checkpoint.rename(tmp_path / "checkpoint" / "checkpoint.pt")
    before = digests(tmp_path)
    with pytest.raises(FileExistsError, match=f"{name} exists and is not empty. Nothing was written"):
        convert_open_flamingo(tmp_path / "checkpoint", tmp_path / name, **files.options)
    assert digests(tmp_path) == before
    convert_open_flamingo(tmp_path / "checkpoint", tmp_path / name / "out", **files.options)
    after = digests(tmp_path)
    assert before.items() <= after.items() and f"{name}/out/model.safetensors" in after


# ---------------------------------------------------------------------------------------------------------------------
# Processes that are killed, and several at once
# ---------------------------------------------------------------------------------------------------------------------


def convert_into_one(directory: Path, options: dict) -> None:
    """Wait for the other process, and convert a checkpoint of this rank into the folder of both."""
    rank = os.environ["RANK"]
    (directory / f"ready{rank}").touch()
    while not ((directory / "ready0").exists() and (directory / "ready1").exists()):
        time.sleep(0.01)
    try:
        convert_open_flamingo(directory / f"{rank}.pt", directory / "out", **options)
    except FileExistsError as error:
        (directory / f"message{rank}").write_text(str(error))
        sys.exit(3)


def test_two_processes_into_one_folder(tmp_path):
    """One succeeds with all of its files, and the other one is refused."""
    files = write_open_flamingo(tmp_path, *GPT2)
    for rank in range(2):
        shutil.copy(files.checkpoint, tmp_path / f"{rank}.pt")
        rewrite(
            tmp_path / f"{rank}.pt",
            lambda keys, rank=rank: keys | {"perceiver.latents": torch.full((64, 24), 1.0 + rank)},
        )
    codes = launch(convert_into_one, tmp_path, files.options, world_size=2)
    assert sorted(codes) == [0, 3]
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "out")
    assert torch.equal(model.resampler.latents, torch.full((64, 24), 1.0 + codes.index(0)))
    message = (tmp_path / f"message{codes.index(3)}").read_text()
    assert "written by another process meanwhile" in message or "exists and is not empty" in message
    assert not list(tmp_path.glob(".*"))


def convert_until(number: int, directory: Path, options: dict) -> None:
    """Convert, and kill this process at its `number`-th change of files near the output. 0 counts the changes."""
    count = 0

    def watch(event: str, arguments: tuple) -> None:
        nonlocal count
        is_change = event in ("os.rename", "os.mkdir") or (
            event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
        )
        if is_change and str(directory) in str(arguments[0]):
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    convert_open_flamingo(directory / "checkpoint.pt", directory / "out", **options)
    (directory / "changes").write_text(str(count))


def test_a_process_that_is_killed_leaves_the_folder_missing_or_whole(tmp_path):
    files = write_open_flamingo(tmp_path, *GPT2)
    assert launch(convert_until, 0, tmp_path, files.options) == [0]
    num_changes = int((tmp_path / "changes").read_text()) - 1  # the last change writes this file
    whole = digests(tmp_path / "out")
    assert num_changes > 5 and torch.equal(
        logits_of(AutoModelForImageTextToText.from_pretrained(tmp_path / "out").eval()), logits_of(files.model)
    )
    for number in (2, num_changes // 2, num_changes):  # in the middle, and before it is renamed
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        assert launch(convert_until, number, tmp_path, files.options) == [-signal.SIGKILL], number
        assert not (tmp_path / "out").exists()
        convert_open_flamingo(
            files.checkpoint, tmp_path / "out", **files.options
        )  # files left by the killed process do not matter
        assert digests(tmp_path / "out") == whole
