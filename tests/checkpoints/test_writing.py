# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The directory of a converted model is whole or missing, whatever happens while it is written."""

import os
from contextlib import nullcontext

import pytest

from transformers_flamingo.checkpoints.writing import new_directory


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


def test_parents_are_made_and_go_again_with_an_error(tmp_path):
    for output_dir, error in ((tmp_path / "a" / "b", None), (tmp_path / "c" / "d", ValueError)):
        with nullcontext() if error is None else pytest.raises(error), new_directory(output_dir):
            assert output_dir.parent.is_dir()
            if error is not None:
                raise error
    assert os.listdir(tmp_path) == ["a"] and os.listdir(tmp_path / "a") == ["b"]


def test_what_a_killed_run_left_is_named_and_stays(tmp_path, caplog):
    """It may be that of another process, which is still running."""
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
