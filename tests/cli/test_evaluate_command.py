# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo evaluate`."""

import json
import re

import pytest
from processes import launch
from words import evaluate_on_machines

from transformers_flamingo_cli import main
from transformers_flamingo_cli.evaluate import EvaluationArguments, _make_tasks
from transformers_flamingo_miniature.demo import build_miniature_flamingo


def test_evaluate_writes_scores_plots_and_a_card(tmp_path, capsys):
    model, processor = build_miniature_flamingo()
    for part in (model, processor):
        part.save_pretrained(tmp_path / "model")
    options = ["--shots", "0", "2", "--seeds", "0", "--num-queries", "4", "--option", "num_support=8", "num_queries=9"]
    arguments = ["--task", "miniature_shapes", "miniature_questions", *options, "--output-dir", str(tmp_path / "out")]
    assert main(["evaluate", str(tmp_path / "model"), *arguments]) == 0
    assert "miniature_shapes, subset of 4 of 7 queries, 2 shots: accuracy " in capsys.readouterr().out
    for task in ("miniature_shapes", "miniature_questions"):
        assert {"results.json", "settings.json", "shots.png", "shots-2_seed-0_blind.jsonl"} <= {
            path.name for path in (tmp_path / "out" / task).iterdir()
        }
    card = (tmp_path / "out" / "README.md").read_text()
    assert (
        "| miniature\\_shapes, subset of 4 of 7 queries | accuracy, subset | test | 4 | 0 | random" in card
        and "2 shots" in card
    )
    assert main(["evaluate", str(tmp_path / "model"), "--task", "cocoa"]) == 1
    assert "no task 'cocoa'" in capsys.readouterr().err


def options(*data: str, task=("coco", "flickr30k"), **kwargs) -> EvaluationArguments:
    return EvaluationArguments(model="m", task=list(task), data=list(data), **kwargs)


@pytest.fixture
def folders(tmp_path, monkeypatch):
    for folder, file in (
        ("COCO", "dataset_coco.json"),
        ("a=b", "dataset_flickr30k.json"),
        ("a=b", "dataset_coco.json"),
    ):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / file).write_text("{}")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (["coco=COCO", "flickr30k=a=b"], ["COCO", "a=b"]),
        (["coco=COCO", "a=b"], ["COCO", "a=b"]),  # one of its own, and one for all others
        (["a=b"], ["a=b", "a=b"]),
    ],
)
def test_each_task_has_its_folder(folders, data, expected):
    assert [task.data for task in _make_tasks(options(*data))] == expected


def test_an_option_may_be_of_one_task(tmp_path):
    both = {"task": ("miniature_captions", "miniature_shapes")}
    given = [("num_queries", "7"), ("miniature_shapes.num_queries", "9"), ("miniature_captions.num_support", "5")]
    first, second = _make_tasks(options(option=given, **both))
    assert (first.num_queries, first.num_support, second.num_queries) == (7, 5, 9)
    with pytest.raises(ValueError, match="'miniature_shapes' has no split"):
        _make_tasks(options(option=[("miniature_shapes.splits", "x")], **both))


def test_data_that_nothing_reads_is_refused(folders):
    with pytest.raises(
        ValueError, match="'vqav2=x' is for the task 'vqav2', which is not among the tasks: coco, flickr30k"
    ):
        _make_tasks(options("vqav2=x"))
    with pytest.raises(ValueError, match="--data is given twice for the task 'coco': 'x' and 'y'"):
        _make_tasks(options("coco=x", "coco=y"))
    with pytest.raises(ValueError, match="--data is given twice for all tasks: 'x' and 'y'"):
        _make_tasks(options("x", "y"))
    with pytest.raises(ValueError, match="--data x has no effect: miniature_shapes reads no files"):
        _make_tasks(options("x", task=["miniature_shapes"]))
    with pytest.raises(ValueError, match="--data x has no effect: miniature_shapes reads no files"):
        _make_tasks(options("coco=COCO", "miniature_shapes=x", task=["coco", "miniature_shapes"]))
    first, _ = _make_tasks(options("COCO", task=["coco", "miniature_shapes"]))
    assert first.data == "COCO"


def test_the_help_of_a_task_lists_its_files(capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--task", "imagenet", "coco", "--help"])
    text = capsys.readouterr().out
    assert "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt" in text
    assert "dataset_coco.json    train2014/    val2014/" in text
    assert "compared with OpenFlamingo: yes" in text
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    text = capsys.readouterr().out
    assert "  hateful_memes       Hateful Memes (Kiela et al. 2020), scored by the ROC-AUC, in percent" in text
    assert "dataset_coco.json" not in text


def test_two_machines_write_what_one_writes_into_a_folder_that_they_share(tmp_path):
    model, processor = build_miniature_flamingo()
    for part in (model, processor):
        part.save_pretrained(tmp_path / "model")
    arguments = [
        str(tmp_path / "model"),
        "--task",
        "miniature_shapes",
        "--shots",
        "2",
        "--seeds",
        "0",
        "--batch-size",
        "1",
    ]
    arguments += ["--option", "num_support=8", "num_queries=5"]
    assert main(["evaluate", *arguments, "--output-dir", str(tmp_path / "one")]) == 0
    shared = tmp_path / "shared"
    shared.mkdir()
    assert launch(evaluate_on_machines, str(shared), str(tmp_path / "two"), *arguments, world_size=2) == [0, 0]
    files = {path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*") if path.is_file()}
    assert {path.relative_to(tmp_path / "two") for path in (tmp_path / "two").rglob("*") if path.is_file()} == files
    for file in sorted(files):
        one, two = ((tmp_path / name / file).read_bytes() for name in ("one", "two"))
        if file.suffix == ".jsonl":
            for line, other in zip(map(json.loads, one.splitlines()), map(json.loads, two.splitlines()), strict=True):
                # Images are encoded in batches of others, so rounding differs
                assert line.pop("likelihoods") == pytest.approx(other.pop("likelihoods"), abs=1e-4)
                assert line == other
        elif file.suffix != ".png":
            assert two == one, file
    first, second = ((shared / f"machine-{rank}" / "log").read_text() for rank in (0, 1))
    assert "2 shots: accuracy" in first and "accuracy" not in second
    assert not [path for path in (tmp_path / "two").rglob(".*") if path.name != ".lock"]

    # The same command, but each machine has a folder of this name for itself
    apart = tmp_path / "apart"
    apart.mkdir()
    assert launch(evaluate_on_machines, str(apart), "out", *arguments, world_size=2) == [1, 1]
    said = (apart / "machine-0" / "log").read_text()
    assert re.search(
        r"'out/miniature_shapes' is not the same folder for all processes: process 1 on '.*' cannot see what", said
    )
    assert "on a disk that all machines have" in said
    assert not list((apart / "machine-0" / "out" / "miniature_shapes").glob(".seen*"))
