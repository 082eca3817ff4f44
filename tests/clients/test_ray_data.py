# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`examples/ray_data.py` as its user runs it, on a Ray of this machine; and what is left when a process of it is killed."""

import contextlib
import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.dataset
import pytest
from PIL import Image


pytest.importorskip("ray")

# Ray starts a dozen processes, which takes long where others work
pytestmark = pytest.mark.timeout(900)

EXAMPLE = Path(__file__).parents[2] / "examples" / "ray_data.py"
# The Ray of a large machine, on a small one
START = """
import ray, runpy, sys
ray.init(num_cpus=3, include_dashboard=False, object_store_memory=100 * 2**20)
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def draw_images(folder: Path, count: int) -> set[str]:
    """Draw images into folders of 100, and return their paths."""
    for i in range(count):
        path = folder / str(i // 100) / f"{i:04}.{'PNG' if i % 50 == 0 else 'png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 8), (i % 256, i // 256, 90)).save(path)
    return {str(path) for path in folder.rglob("*.[pP]*")}


@pytest.fixture
def start(saved, tmp_path):
    """Return `start(*options)`, which starts the example with a log, in a home of its own: Ray writes its token there."""
    started = []
    for word, color in (("w5 w6", "red"), ("w7", "blue")):
        (tmp_path / "shown").mkdir(exist_ok=True)
        Image.new("RGB", (16, 8), color).save(tmp_path / "shown" / f"{color}.png")
        (tmp_path / "shown" / f"{color}.txt").write_text(word)

    def start_example(*options: str, log: Path) -> subprocess.Popen:
        environment = {**os.environ, "HOME": str(tmp_path), "HF_HOME": str(tmp_path / "hf"), "OMP_NUM_THREADS": "1"}
        command = [
            sys.executable,
            "-c",
            START,
            str(EXAMPLE),
            "--model",
            str(saved),
            "--images",
            "images",
            "--output",
            "out",
        ]
        command += ["--demonstrations", "shown", *options]
        with log.open("w") as file:
            process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=file, stderr=subprocess.STDOUT)
        started.append(process)
        return process

    yield start_example
    for process in started:
        if process.poll() is None:
            process.kill()
            process.wait()


def processes_below(driver: int) -> dict[int, bytes]:
    """Return the command lines of the processes that a process has started, and that these have started."""
    parents, commands = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            commands[int(path.name)] = (path / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue

    def is_below(pid: int) -> bool:
        while pid in parents and pid != driver:
            pid = parents[pid]
        return pid == driver

    return {pid: command for pid, command in commands.items() if pid != driver and is_below(pid)}


def read_rows(tmp_path: Path) -> list[dict]:
    return pyarrow.dataset.dataset(tmp_path / "out", exclude_invalid_files=True).to_table().to_pylist()


def wait_for_rows(tmp_path: Path, process: subprocess.Popen, log: Path) -> list[dict]:
    """Wait until the first rows are written."""
    while process.poll() is None:
        if list((tmp_path / "out").glob("*.parquet")) and (rows := read_rows(tmp_path)):
            return rows
        time.sleep(0.01)
    raise AssertionError(log.read_text())


def test_an_actor_is_killed_and_no_image_is_lost_or_there_twice(start, tmp_path):
    images = draw_images(tmp_path / "images", 1000)
    bad = tmp_path / "images" / "3" / "0333.png"
    bad.write_bytes(b"<html>gone</html>")
    log = tmp_path / "log"
    process = start("--actors", "2", "--rows_per_file", "50", "--batch_size", "4", log=log)
    busy: list[int] = []
    while not busy:  # it is at work, so there is something to lose
        assert process.poll() is None, log.read_text()
        time.sleep(0.01)
        commands = processes_below(process.pid)
        busy = [pid for pid in commands if b"Predictor)).submit" in commands[pid]]
    os.kill(busy[0], signal.SIGKILL)
    assert process.wait(timeout=400) == 0, log.read_text()

    rows = read_rows(tmp_path)
    assert len(rows) == 1000
    assert {row["path"] for row in rows} == images
    assert [row["path"] for row in rows if row["error"] is not None] == [str(bad)]
    assert {row["text"] is None for row in rows} == {True, False}
    assert len({row["text"] for row in rows}) > 2  # they depend on the images
    said = log.read_text()
    assert "1,000 images; 1 of them without a text" in said and "0333.png' cannot be decoded" in said
    assert re.search(r"Task MapWorker\S+Predictor\S+ failed", said)  # the actor was at work


def test_a_killed_job_goes_on_where_it_stopped(start, tmp_path):
    draw_images(tmp_path / "images", 200)
    log = tmp_path / "log"
    process = start("--rows_per_file", "20", "--batch_size", "2", log=log)
    wait_for_rows(tmp_path, process, log)
    # All that runs on the machine, as when it fails; first what would tidy up
    for pid in (process.pid, *processes_below(process.pid)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    before = read_rows(tmp_path)
    assert before

    images = draw_images(tmp_path / "images", 201)  # and one is new
    process = start(log=log)
    assert process.wait(timeout=400) == 0, log.read_text()
    rows = {row["path"]: row for row in read_rows(tmp_path)}
    assert len(read_rows(tmp_path)) == 201 and rows.keys() == images
    assert all(rows[row["path"]] == row for row in before)
    done = re.search(r"Data sink Parquet finished\. (\d+) rows", log.read_text())
    assert 201 - len(before) <= int(done[1]) < 201


def test_what_would_mix_texts_or_wait_for_ever_is_refused(saved, tmp_path, monkeypatch):
    import ray

    spec = importlib.util.spec_from_file_location("ray_data_example", EXAMPLE)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": 2.0})
    options = ["--model", str(saved), "--images", "images", "--output", "out"]
    with pytest.raises(SystemExit, match="2 actors, and a task that reads and writes, need 3 CPUs, and Ray has 2"):
        example.main([*options, "--actors", "2"])
    with pytest.raises(SystemExit, match="'task': 'caption'.*'task': 'classify'.*Give another --output"):
        example.main([*options, "--task", "classify"])
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "texts.parquet").touch()
    with pytest.raises(SystemExit, match="has files, and nothing says which images are done"):
        example.main([*options[:-1], "other"])
