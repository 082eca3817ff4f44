# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo predict`: every layout, in any number of processes, killed and resumed, gives what the predictor gives."""

import csv
import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from datasets import Dataset, Image, load_dataset
from factory import tiny_flamingo, tiny_processor
from processes import launch
from words import draw_image

from transformers_flamingo import FewShotPredictor
from transformers_flamingo_cli import main


COUNT = 13
BAD = 5


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A model, images of two classes as demonstrations, and images to classify, of which one is broken and two are the same."""
    root = tmp_path_factory.mktemp("predict")
    tiny_flamingo(gates=0.7).save_pretrained(root / "model")
    tiny_processor().save_pretrained(root / "model")
    for name, numbers in (("w5_w6", range(3)), ("w7", range(3, 6))):
        (root / "shots" / name).mkdir(parents=True)
        for number in numbers:
            draw_image(number).save(root / "shots" / name / f"{number}.png")
    (root / "images").mkdir()
    for number in range(COUNT):
        draw_image(20 + number % (COUNT - 1)).save(root / "images" / f"{number:02}.png")
    (root / "images" / f"{BAD:02}.png").write_bytes(b"not an image")
    return root


def predict(folder: Path, *arguments: str, images: str = "images", demonstrations: str = "shots") -> int:
    options = ["--model", str(folder / "model"), "--demonstrations", str(folder / demonstrations), "--batch-size", "2"]
    return main(["predict", str(folder / images), *options, *map(str, arguments)])


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def assert_same(rows: list, expected: list) -> None:
    """Compare rows; their probabilities up to the last digits, which the size of a batch changes."""
    numbers: list[list[float]] = [[], []]
    texts = [
        json.loads(json.dumps(some), parse_float=lambda n, i=i: numbers[i].append(float(n)))
        for i, some in enumerate((rows, expected))
    ]
    assert texts[0] == texts[1]
    assert numbers[0] == pytest.approx(numbers[1], abs=1e-5)


@pytest.fixture(scope="module")
def expected(folder) -> list[dict]:
    assert predict(folder, "--out", folder / "expected.jsonl") == 0
    return read(folder / "expected.jsonl")


def test_rows_are_what_the_predictor_gives(folder, expected):
    shots = [(folder / "shots" / name / f"{i}.png", text) for name, text, i in _shots()]
    names = {str(path): path for path, _ in shots}
    ordered = [(names[path], dict(shots)[names[path]]) for path in expected[0]["demonstrations"]]
    predictor = FewShotPredictor.from_pretrained(
        folder / "model", ordered, "classify", candidates=["w5 w6", "w7"], on_error="skip", device="cpu"
    )
    paths = sorted((folder / "images").iterdir())
    assert [row["id"] for row in expected] == [row["image"] for row in expected] == list(map(str, paths))
    for row, prediction in zip(expected, predictor(paths), strict=True):
        assert row["text"] == prediction.text
        if row["error"] is None:
            assert {entry["candidate"]: entry["probability"] for entry in row["probabilities"]} == pytest.approx(
                prediction.probabilities
            )
            assert row["probability"] == row["probabilities"][0]["probability"] == pytest.approx(prediction.score)
    assert [number for number, row in enumerate(expected) if row["error"] is not None] == [BAD]
    assert_same(expected[0]["probabilities"], expected[12]["probabilities"])  # the same image twice is two rows


def _shots() -> list[tuple[str, str, int]]:
    return [("w5_w6", "w5 w6", i) for i in range(3)] + [("w7", "w7", i) for i in range(3, 6)]


def test_parquet_has_the_same_rows(folder, expected, capsys):
    assert predict(folder, "--out", folder / "out.parquet", "--top-candidates", "1") == 0
    out = capsys.readouterr().out
    assert " 8 images" not in out and "6 demonstrations, task: classify" in out
    assert "images: 13 files with images and no texts" in out and "out.parquet: 13 rows; " in out
    assert "1 row has no prediction: see the column `error`" in out
    rows = load_dataset("parquet", data_files=str(folder / "out.parquet"), split="train").to_list()
    best = [{**row, "probabilities": row["probabilities"] and row["probabilities"][:1]} for row in expected]
    assert_same(rows, best)
    info = json.loads((folder / "out.parquet.info.json").read_text())
    assert info["summary"]["rows"] == COUNT and info["summary"]["errors"] == 1
    assert not (folder / "out.parquet.parts").exists()
    assert predict(folder, "--out", folder / "out.parquet", "--top-candidates", "1") == 0
    assert "all 13 rows were there already" in capsys.readouterr().out
    assert predict(folder, "--out", folder / "out.parquet", "--shots", "2") == 1
    error = capsys.readouterr().err
    assert (
        "has predictions with other shots, top_candidates: saved {'shots': 6, 'top_candidates': 1}, current" in error
    )


def predict_until(number: int, folder: Path, out: str) -> None:
    """Predict, and be killed after a number of predictions."""
    make = FewShotPredictor.predict_examples

    def predictions(self, queries):
        for count, prediction in enumerate(make(self, queries)):
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)
            yield prediction

    FewShotPredictor.predict_examples = predictions
    assert predict(folder, "--out", folder / out) == 0


def test_a_killed_run_loses_nothing_and_makes_nothing_twice(folder, expected, capsys):
    for number in (9, 2):
        assert launch(predict_until, number, folder, "killed.jsonl") == [-signal.SIGKILL]
        parts = folder / "killed.jsonl.parts" / "0.jsonl"
    assert len(read(parts)) == 11
    with open(parts, "a") as file:
        file.write('{"position": [12, 0, 0], "text": "cut o')
    assert predict(folder, "--out", folder / "killed.jsonl", "--candidates", "w5 w6", "w7", "w8") == 1
    assert "has predictions with other candidates" in capsys.readouterr().err
    assert launch(predict_until, 10**6, folder, "killed.jsonl", world_size=2) == [0, 0]
    assert_same(read(folder / "killed.jsonl"), expected)
    assert json.loads((folder / "killed.jsonl.info.json").read_text())["summary"]["resumed"] == 11


@pytest.mark.parametrize("selection", ["fixed", "rices"])
def test_processes_share_the_rows(folder, tmp_path, selection):
    options = ["--selection", selection, "--shots", "2", "--index-dir", str(tmp_path)][
        : None if selection == "rices" else 4
    ]
    assert predict(folder, "--out", folder / f"one-{selection}.jsonl", *options) == 0
    assert launch(predict_in_two, folder, f"two-{selection}.jsonl", options, world_size=2) == [0, 0]
    assert_same(read(folder / f"two-{selection}.jsonl"), read(folder / f"one-{selection}.jsonl"))


def test_random_demonstrations_are_of_the_image(folder, tmp_path):
    """Not of its name or place."""
    (tmp_path / "copied").mkdir()
    for number, path in enumerate(sorted((folder / "images").iterdir(), reverse=True)):
        (tmp_path / "copied" / f"{number:02}.png").write_bytes(path.read_bytes())
    options = ["--selection", "random", "--shots", "2", "--max-new-tokens", "1"]
    assert predict(folder, "--out", tmp_path / "one.jsonl", *options) == 0
    assert (
        predict(folder, "--out", tmp_path / "two.jsonl", *options, images=os.path.relpath(tmp_path / "copied", folder))
        == 0
    )
    one, two = ([row["demonstrations"] for row in read(tmp_path / f"{name}.jsonl")] for name in ("one", "two"))
    assert one == two[::-1] and len(set(map(str, one))) > 2


def predict_in_two(folder: Path, out: str, options: list[str]) -> None:
    assert predict(folder, "--out", folder / out, *options) == 0


def make_layout(folder: Path, layout: str) -> str:
    """Write the images in a layout, and return the path of it."""
    paths = sorted((folder / "images").iterdir())
    path = folder / layout
    if layout == "table.csv":
        with open(path, "w", newline="") as file:
            csv.writer(file).writerows([["file_name", "note"], *([f"images/{image.name}", "x"] for image in paths)])
    elif layout == "rows.jsonl":
        path.write_text("".join(json.dumps({"image": str(image), "text": "a caption"}) + "\n" for image in paths))
    elif layout == "embedded.parquet":
        rows = Dataset.from_dict({"image": [{"bytes": image.read_bytes(), "path": None} for image in paths]})
        rows.cast_column("image", Image()).to_parquet(path)
    else:
        for number, image in enumerate(paths):
            (path / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
            (path / "ab"[number % 2] / image.name).write_bytes(image.read_bytes())
    return layout


@pytest.mark.parametrize("layout", ["table.csv", "rows.jsonl", "embedded.parquet", "classes"])
def test_every_layout(folder, expected, layout):
    out = folder / f"{layout}.out.jsonl"
    assert predict(folder, "--out", out, images=make_layout(folder, layout)) == 0
    rows = read(out)
    key = (lambda row: Path(row["id"]).name) if layout == "classes" else lambda row: 0  # a stable sort
    got, wanted = (
        [(row["text"], row["probabilities"], row["error"] is None) for row in some]
        for some in (sorted(rows, key=key), expected)
    )
    assert_same(got, wanted)
    if layout != "classes":
        assert rows[3]["id"] == f"{folder / layout}, row 3"
    assert (rows[3]["image"] is None) == (layout == "embedded.parquet")


def test_questions_are_those_of_the_rows(folder, capsys):
    shots = [{"image": f"shots/w7/{i}.png", "question": "w8 w9", "answer": f"w{10 + i}"} for i in (3, 4)]
    (folder / "shots.jsonl").write_text("".join(json.dumps(row) + "\n" for row in shots))
    # One image with two questions in the layout of LLaVA, and one in that of the demonstrations
    turns = [("human", "<image>\nw20"), ("gpt", "w3"), ("human", "w21 w22"), ("gpt", "w4")]
    turns = [{"from": who, "value": value} for who, value in turns]
    (folder / "llava.json").write_text(json.dumps([{"image": "images/00.png", "conversations": turns}]))
    asked = [
        {"image": "images/00.png", "question": "w20"},
        {"image": "images/00.png", "question": "w21 w22"},
        {"image": "images/00.png"},
    ]
    (folder / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))
    options = {"demonstrations": "shots.jsonl"}
    template = ["--prompt", "w30 {question} w31"]
    assert predict(folder, "--out", folder / "asked.out.jsonl", *template, images="asked.jsonl", **options) == 0
    assert "task: answer" in capsys.readouterr().out
    rows = read(folder / "asked.out.jsonl")
    assert [row["question"] for row in rows] == ["w20", "w21 w22", None]
    assert "no value in 'question', only in ['image']" in rows[2]["error"] and "`--question`" in rows[2]["error"]
    assert predict(folder, "--out", folder / "llava.out.jsonl", *template, images="llava.json", **options) == 0
    assert [(row["question"], row["text"]) for row in read(folder / "llava.out.jsonl")] == [
        (row["question"], row["text"]) for row in rows[:2]
    ]
    one = ["--question", "w20", "--out", folder / "one.out.jsonl"]
    assert predict(folder, *one, *template, **options) == 0
    assert read(folder / "one.out.jsonl")[0]["text"] == rows[0]["text"]
    # Images with texts and one question for all: the texts are answers to it
    assert predict(folder, *one[:2], "--out", folder / "texts.out.jsonl") == 0
    assert "6 demonstrations, task: answer" in capsys.readouterr().out
    assert read(folder / "texts.out.jsonl")[0]["question"] == "w20"
    with pytest.raises(SystemExit):
        predict(folder, *one, "--task", "caption")
    assert "the task is 'caption'" in capsys.readouterr().err
    predictor = FewShotPredictor.from_pretrained(
        folder / "model",
        [(folder / shot["image"], shot["question"], shot["answer"]) for shot in shots],
        "answer",
        prompt="w30 {question} w31",
        device="cpu",
    )
    assert predictor(folder / "images" / "00.png", "w20").text == rows[0]["text"]


def test_copied_folders_get_the_same_predictions(folder, tmp_path):
    """Neither the order of all demonstrations nor a random set of them depends on where the folders are."""
    make_layout(folder, "classes")
    for name, copy in (("shots", "of other name"), ("classes", "copied")):
        shutil.copytree(folder / name, tmp_path / copy)
    elsewhere = {"images": str(tmp_path / "copied"), "demonstrations": str(tmp_path / "of other name")}
    for shots in (2, 6):
        options = ["--shots", shots, "--out"]
        assert predict(folder, *options, tmp_path / f"there{shots}.jsonl", images="classes") == 0
        assert predict(folder, *options, tmp_path / f"here{shots}.jsonl", **elsewhere) == 0
        there, here = (
            [
                (Path(row["image"]).name, [Path(path).name for path in row["demonstrations"]], row["probabilities"])
                for row in read(tmp_path / f"{name}{shots}.jsonl")
            ]
            for name in ("there", "here")
        )
        assert_same(here, there)
        assert len(there[0][1]) == shots


def test_a_name_that_is_not_utf_8(folder):
    image = next((folder / "shots" / "w7").iterdir())
    (folder / "bytes").mkdir()
    with open(os.path.join(os.fsencode(folder / "bytes"), b"a\xff.png"), "wb") as file:
        file.write(image.read_bytes())
    for suffix in ("parquet", "jsonl"):
        options = ["--selection", "random", "--out", folder / f"bytes.{suffix}"]
        assert predict(folder, *options, images="bytes") == 0
    (row,) = read(folder / "bytes.jsonl")
    assert row["image"].endswith("a\\udcff.png") and row["error"] is None


def test_errors(folder, capsys):
    (folder / "taken.jsonl").write_text("")
    (folder / "texts.jsonl").write_text('{"a": 1}\n')
    (folder / "broken").mkdir()
    (folder / "broken" / "a.png").write_bytes(b"no")
    (folder / "damaged.csv").write_text("file_name,text\nshots/w7/3.png,a\nbroken/a.png,b\n")
    for arguments, kwargs, message in (
        (["--out", folder / "x.csv"], {}, "Its name must end with .parquet or .jsonl"),
        (["--out", folder / "taken.jsonl"], {}, "is not of `flamingo predict`"),
        (["--out", folder / "x.jsonl"], {"images": "texts.jsonl"}, "has no known layout"),
        (["--out", folder / "x.jsonl"], {"images": "nowhere"}, "leads to no file"),
        (["--out", folder / "x.jsonl"], {"demonstrations": "images"}, "nothing says what is in an image"),
        (["--out", folder / "x.jsonl", "--task", "answer"], {}, "6 of the 6 demonstrations"),
        (["--out", folder / "x.jsonl", "--shots", "7"], {}, "`--shots` is 7, but "),
        (["--out", folder / "x.jsonl", "--prompt", "{foo}:"], {}, "`prompt` is '{foo}:', with {foo}"),
        (
            ["--out", folder / "x.jsonl", "--prompt", "{question}:"],
            {},
            "with {question}, but the task asks no question",
        ),
        (["--out", folder / "x.jsonl"], {"demonstrations": "damaged.csv"}, "damaged.csv, row 1: the image '"),
        (["--out", folder / "x.jsonl"], {"images": "broken"}, "No row could be predicted"),
    ):
        assert predict(folder, *arguments, **kwargs) == 1
        assert message in capsys.readouterr().err
    assert len(read(folder / "x.jsonl")) == 1
    with pytest.raises(SystemExit):
        predict(folder, "--out", "x.jsonl", "--candidates", "w4", "--candidates-file", "x")
    assert "are both given" in capsys.readouterr().err
