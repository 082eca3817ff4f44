# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Files and folders appear whole or not at all."""

import json
import multiprocessing
import os
import signal
from pathlib import Path

import pytest

from transformers_flamingo.saving_flamingo import update_folder, write_folder, write_json, write_text


def content(directory: Path) -> dict[str, str]:
    return {p.relative_to(directory).as_posix(): p.read_text() for p in sorted(directory.rglob("*")) if p.is_file()}


def write_model(directory: Path, name: str) -> None:
    for file in ("config.json", "model.safetensors"):
        (directory / file).write_text(name)


def _killed_after(number: int, write, directory: Path) -> None:
    """Write model "new", and be killed before the operation on names with this number."""
    calls = 0

    def counted(function):
        def call(*args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    os.rename, os.replace, os.unlink = map(counted, (os.rename, os.replace, os.unlink))
    os.fsync, os.mkdir = map(counted, (os.fsync, os.mkdir))
    with write(directory) as partial:
        write_model(partial, "new")


def _end_of(function, *args) -> int:
    process = multiprocessing.get_context("fork").Process(target=function, args=args)
    process.start()
    process.join()
    return process.exitcode


@pytest.mark.parametrize("write", [write_folder, update_folder])
def test_a_process_killed_at_any_moment_never_leaves_a_mixture(tmp_path, write):
    seen = set()
    for number in range(1, 100):
        directory = tmp_path / str(number) / "model"
        directory.mkdir(parents=True)
        write_model(directory, "old")
        code = _end_of(_killed_after, number, write, directory)
        files = content(directory) if directory.exists() else {}
        files = {name: text for name, text in files.items() if not name.startswith(".")}
        # A folder that loads has configuration and weights of one model
        if "config.json" in files:
            assert files == dict.fromkeys(("config.json", "model.safetensors"), files["config.json"])
        seen.add(files.get("config.json"))
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert number > 8
    assert seen == {"old", None, "new"}
    assert [path.name for path in directory.parent.iterdir()] == ["model"]


def test_a_folder_is_replaced_with_everything_in_it(tmp_path):
    with write_folder(tmp_path / "a" / "b") as partial:
        write_model(partial, "old")
        (partial / "nested").mkdir()
        (partial / "nested" / "more.txt").write_text("old")
    assert len(content(tmp_path / "a" / "b")) == 3
    with write_folder(tmp_path / "a" / "b") as partial:
        write_model(partial, "new")
    assert content(tmp_path / "a") == {"b/config.json": "new", "b/model.safetensors": "new"}


def test_an_updated_folder_keeps_what_is_not_the_model(tmp_path):
    (tmp_path / "checkpoint-1").mkdir()
    (tmp_path / "nested").mkdir()
    (tmp_path / "nested" / "old.txt").write_text("old")
    for name in ("config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json", "recipe.yaml"):
        (tmp_path / name).write_text("old")
    write_model(tmp_path / "checkpoint-1", "old")
    with update_folder(tmp_path) as partial:
        write_model(partial, "new")
        (partial / "nested").mkdir()
        (partial / "nested" / "new.txt").write_text("new")
    assert content(tmp_path) == {
        "checkpoint-1/config.json": "old",
        "checkpoint-1/model.safetensors": "old",
        "config.json": "new",
        "model.safetensors": "new",
        "nested/new.txt": "new",
        "recipe.yaml": "old",
    }


@pytest.mark.parametrize("write", [write_folder, update_folder])
def test_after_an_error_everything_is_as_before(tmp_path, write):
    write_model(tmp_path, "old")

    def fail(directory: Path) -> None:
        with write(directory) as partial:
            (partial / "config.json").write_text("new")
            raise OSError("No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fail(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        fail(tmp_path / "other")
    assert content(tmp_path) == {"config.json": "old", "model.safetensors": "old"}
    assert not list(tmp_path.rglob(".*"))


def test_two_writers_of_one_folder_do_not_touch_each_other(tmp_path):
    with write_folder(tmp_path / "m") as first, write_folder(tmp_path / "m") as second:
        write_model(first, "first")
        write_model(second, "second")
    assert content(tmp_path) == {"m/config.json": "first", "m/model.safetensors": "first"}  # finished last

    def both() -> None:
        with write_folder(tmp_path / "n", overwrite=False) as slow:
            with write_folder(tmp_path / "n", overwrite=False) as quick:
                write_model(quick, "quick")
            write_model(slow, "slow")

    with pytest.raises(FileExistsError, match="would be overwritten"):
        both()
    assert content(tmp_path / "n") == {"config.json": "quick", "model.safetensors": "quick"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m", "n"]


def test_nothing_is_overwritten_unless_it_may_be(tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("old")
    (tmp_path / "empty").mkdir()
    for name in ("full", "full/file"):
        with (
            pytest.raises(FileExistsError, match="is not an empty folder"),
            write_folder(tmp_path / name, overwrite=False),
        ):
            pytest.fail("nothing is computed")
    for name in ("empty", "missing"):
        with write_folder(tmp_path / name, overwrite=False) as partial:
            write_model(partial, "new")
        assert (tmp_path / name / "config.json").read_text() == "new"


def test_what_a_link_points_to_is_replaced(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "file.json").write_text("1")
    (tmp_path / "link").symlink_to(tmp_path / "disk")
    (tmp_path / "file.json").symlink_to(tmp_path / "disk" / "file.json")
    write_json(tmp_path / "file.json", 2)
    assert (tmp_path / "file.json").is_symlink()
    assert (tmp_path / "disk" / "file.json").read_text() == "2\n"
    with write_folder(tmp_path / "link") as partial:
        write_model(partial, "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "config.json").read_text() == "new"


def test_new_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "file").write_text("")
    with write_folder(tmp_path / "folder") as partial:
        write_text(partial / "file", "")
    for name in ("", "file"):
        assert (tmp_path / "folder" / name).stat().st_mode == (tmp_path / "plain" / name).stat().st_mode


def test_json_is_valid_always(tmp_path):
    def refuse(constant: str):
        raise ValueError(constant)

    value = {"loss": float("nan"), "log": [{"a": float("inf")}, (1.5, -float("inf"))], "text": "é\u2028"}
    write_json(tmp_path / "a.json", value)
    read = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"), parse_constant=refuse)
    assert read == {"loss": None, "log": [{"a": None}, [1.5, None]], "text": "é\u2028"}
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == read
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_a_text_that_cannot_be_written_leaves_the_file(tmp_path):
    write_text(tmp_path / "a", "old")
    with pytest.raises(UnicodeEncodeError):
        write_text(tmp_path / "a", "\ud800")
    assert content(tmp_path) == {"a": "old"}
