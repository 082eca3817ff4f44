# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Lock folders, and decide in the main process for all processes."""

from pathlib import Path

import filelock
import pytest
from accelerate import PartialState
from processes import launch

from transformers_flamingo.utils.folders import call_on_main_process, lock_folder


def test_a_locked_folder_is_refused_until_the_block_ends(tmp_path):
    folder = tmp_path / "new" / "folder"
    with lock_folder(folder, "lock", message="first"):
        with pytest.raises(BlockingIOError, match="^second$"), lock_folder(folder, "lock", message="second"):
            pass
        with lock_folder(folder, "other", message="second"):
            pass
    with lock_folder(folder, "lock", message="second"):
        pass


def test_blocks_of_one_process_may_be_nested_if_asked(tmp_path):
    with lock_folder(tmp_path, "lock", message="first", nested=True):
        with lock_folder(tmp_path / ".." / tmp_path.name, "lock", message="second", nested=True):
            pass
        with pytest.raises(BlockingIOError, match="third"), lock_folder(tmp_path, "lock", message="third"):
            pass


def test_a_disk_without_locks_is_a_warning(tmp_path, monkeypatch):
    def refuse(self, **kwargs):
        raise NotImplementedError

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    entered = False
    with lock_folder(tmp_path, "lock", message="first"):
        entered = True
    assert entered


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"), lock_folder(tmp_path / "file" / "folder", "lock", message="first"):
        pass


def decide_in_each_process(directory: str) -> None:
    """Write what each process decides: its own index, and an error of the main process."""
    state = PartialState(cpu=True, backend="gloo")

    def fail() -> None:
        raise ValueError(f"process {state.process_index}")

    decision = call_on_main_process(lambda: state.process_index)
    with pytest.raises(ValueError, match="^process 0$"):
        call_on_main_process(fail)
    Path(directory, str(state.process_index)).write_text(str(decision))


def test_all_processes_decide_as_the_main_one(tmp_path):
    assert launch(decide_in_each_process, str(tmp_path), world_size=2) == [0, 0]
    assert [(tmp_path / str(rank)).read_text() for rank in (0, 1)] == ["0", "0"]


def test_one_process_decides_by_itself():
    assert call_on_main_process(lambda: 3) == 3
    with pytest.raises(OSError, match="disk"):
        call_on_main_process(lambda: (_ for _ in ()).throw(OSError("disk")))
