# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""A recipe that is filled in with data of which only the path is known."""

import json

import pytest
import yaml
from PIL import Image

from transformers_flamingo.data.data_files import SeveralSplitsError
from transformers_flamingo.data.detection import UnknownLayoutError
from transformers_flamingo.training import fill_recipe, parse_recipe


CAPTION = {"image": "a.png", "text": "a cat"}
CHAT = {"messages": [{"role": "user", "content": "what?"}, {"role": "assistant", "content": "a cat"}]}


@pytest.fixture
def data(tmp_path):
    """Return a function that writes a file of one record."""

    def write(name, record):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(record) + "\n")
        return str(path)

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    return write


def test_without_held_out_data(data):
    path = data("rows.jsonl", CAPTION)
    values, lines = fill_recipe(path)
    assert values["data"] == {
        "captions": {"format": "image_text_pairs", "path": path, "batch_size": 16, "max_length": 64}
    }
    assert lines == [
        f"{path}: took it for image_text_pairs: 'rows.jsonl', with 'image' and 'text'",
        "no held-out data, so nothing is evaluated: give --evaluation PATH",
        """the source is 'captions': --data.captions.FIELD changes it, such as --data.captions.options '{"media_root": "FOLDER"}'""",
    ]
    recipe = parse_recipe(values, ["--use_cpu", "true", "--bf16", "false", "--data.captions.batch_size", "2"])
    assert (recipe.data[0].batch_size, recipe.evaluation, recipe.training.eval_strategy) == (2, [], "no")
    assert fill_recipe(path, evaluation="null")[1][1] == "no held-out data, as asked for: nothing is evaluated"


def test_splits_are_found(data, tmp_path):
    data("rows/train.jsonl", CAPTION)
    data("rows/val.jsonl", CAPTION)
    data("rows/test.jsonl", CAPTION)
    values, lines = fill_recipe(str(tmp_path / "rows"))
    assert (values["data"]["captions"]["split"], values["evaluation"]["captions"]["split"]) == ("train", "val")
    assert lines[1:-1] == ["trained on: split 'train'; evaluated on: split 'val'"]
    assert values["eval_strategy"] == "steps"
    data("others/train.jsonl", CAPTION)
    data("others/test.jsonl", CAPTION)
    assert fill_recipe(str(tmp_path / "others"))[0]["evaluation"]["captions"]["split"] == "test"
    data("others/more.jsonl", CAPTION)  # of no split
    with pytest.raises(SeveralSplitsError, match="no such word in"):
        fill_recipe(str(tmp_path / "others"))


def test_conversations_get_other_budgets(data):
    path, held_out = data("chat.jsonl", CHAT), data("held-out.jsonl", CAPTION)
    values, lines = fill_recipe(path, evaluation=held_out)
    source = values["data"]["captions"]
    assert source == {"format": "messages", "path": path, "batch_size": 4, "max_length": 512}
    assert lines[1].endswith("took it for image_text_pairs: 'held-out.jsonl', with 'image' and 'text'")
    assert lines[2] == "settings of the source: batch_size 4, max_length 512"
    assert values["evaluation"]["captions"]["format"] == "image_text_pairs"


def test_what_cannot_be_filled_in(data, tmp_path):
    path = data("rows.jsonl", {"image": "a.png", "description": "a cat"})
    with pytest.raises(UnknownLayoutError, match="lacks 'text' or 'caption'"):
        fill_recipe(path)
    recipe = tmp_path / "two.yaml"
    recipe.write_text(yaml.safe_dump({"data": {"a": {}, "b": {}}}))
    with pytest.raises(ValueError, match=r"has several sources \('a', 'b'\).*Give `--data.NAME.path"):
        fill_recipe(path, recipe)


def test_what_the_command_line_says_of_the_source(data, tmp_path):
    results = [{"type": "choices", "from_name": name, "value": {"choices": [name]}} for name in ("c1", "c2")]
    record = {"data": {"image": "a.png"}, "annotations": [{"result": results}]}
    data("rows/train.jsonl", record)
    data("rows/val.jsonl", record)
    path = str(tmp_path / "rows")
    with pytest.raises(UnknownLayoutError, match="`control` .*`--data.captions.options '"):
        fill_recipe(path)
    for argument in ("--data.captions.options.control=c1", '--data.captions.options={"control": "c1"}'):
        values, _ = fill_recipe(path, arguments=["--seed", "3", argument])
        for kind in ("data", "evaluation"):
            source = values[kind]["captions"]
            assert (source["format"], source["options"]) == ("label_studio", {"control": "c1"})
    values, lines = fill_recipe(path, arguments=["--data.captions.format", "messages"])
    assert values["data"]["captions"]["format"] == "messages" and lines[0].endswith("messages: as asked for")
    data("rows/more.jsonl", record)
    with pytest.raises(SeveralSplitsError, match="Here, `split` is given as `--data.captions.split`"):
        fill_recipe(path, arguments=["--data.captions.options.control", "c1"])
    arguments = ["--data.captions.options.control", "c1", "--data.captions.split", "train"]
    assert fill_recipe(path, arguments=arguments)[0]["data"]["captions"]["split"] == "train"
    with pytest.raises(ValueError, match="`--data.caption` changes no source: .* so give `--data.captions.FIELD`"):
        fill_recipe(path, arguments=["--data.caption.options.control", "c1"])
    with pytest.raises(
        UnknownLayoutError, match="the option 'contrl' of `--data.captions.options`. Did you mean 'control'"
    ):
        fill_recipe(path, arguments=["--data.captions.options.contrl", "c1"])
