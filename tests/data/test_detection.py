# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Which format files are taken for, why, and what is said of a layout that is not known."""

import json
import re

import PIL.Image
import pytest
from data_factory import embedded, png, write_jsonl, write_png, write_tar
from datasets import Dataset, DatasetDict, Features, Image, List, Value

from transformers_flamingo.data import detect_format
from transformers_flamingo.data.data_files import SeveralSplitsError
from transformers_flamingo.data.detection import UnknownLayoutError


CHAT = [{"role": "user", "content": "what?"}, {"role": "assistant", "content": "a cat"}]
RECORDS = {
    "image_text_pairs": {"file_name": "a.png", "text": "a cat"},
    "obelics": {"images": ["a.png", None], "texts": [None, "a cat"]},
    "mmc4": {"text_list": ["a"], "image_info": [{"matched_sim": 1.0, "matched_text_index": 0, "image_base64": "AA=="}]},
    "parts": {"parts": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "a cat"}]},
    "question_answering": {"image": "a.png", "question": "what?", "answers": ["a cat"]},
    "llava": {"id": 3, "image": "a.png", "conversations": [
        {"from": "human", "value": "<image>\nwhat?"}, {"from": "gpt", "value": "a cat"}]},
    "messages": {"images": [], "messages": CHAT},
    "prompt_completion": {"image": "a.png", "prompt": CHAT[:1], "completion": CHAT[1:]},
    "cauldron": {"images": ["a.png"], "texts": [{"user": "what?", "assistant": "a cat"}]},
    "image_classes": {"file_name": "a.png", "label": "a cat"},
    "label_studio": {"data": {"image": "a.png"}, "annotations": [
        {"result": [{"type": "textarea", "from_name": "x", "value": {"text": ["a"]}}]}]},
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDS)
def test_rows(tmp_path, name):
    write_jsonl(tmp_path / "rows.jsonl", [{}, RECORDS[name], 3])
    found = detect_format(str(tmp_path))
    assert found.format == name
    assert re.fullmatch(f".*: took it for {name}: 'rows.jsonl', with '.*", found.describe())


def test_the_reason_names_the_columns(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,text\na.png,a cat\n")
    write_png(tmp_path / "a.png", 1)
    assert detect_format(str(tmp_path)).reason == "'metadata.csv', with 'file_name' and 'text'"


def test_files_of_other_kinds(tmp_path):
    (tmp_path / "tars").mkdir()
    write_tar(tmp_path / "tars" / "0.tar", {"0.jpg": png(1), "0.json": b'{"caption": "a cat"}'})
    found = detect_format(str(tmp_path / "tars"))
    assert (found.format, found.reason) == ("image_text_pairs", "'0.tar', with 'jpg' and 'json'")

    features = Features(
        {"images": List(Image()), "texts": List({"user": Value("string"), "assistant": Value("string")})}
    )
    row = {"images": [embedded(1)], "texts": [{"user": "what?", "assistant": "a cat"}]}
    rows = Dataset.from_list([row, row], features=features)
    DatasetDict(train=rows, test=rows).save_to_disk(tmp_path / "saved")
    with pytest.raises(SeveralSplitsError):
        detect_format(str(tmp_path / "saved"))
    assert detect_format(str(tmp_path / "saved"), "train").format == "cauldron"

    for number, name in enumerate(("cat/1.png", "dog/2.png")):
        write_png(tmp_path / "classes" / name, number)
    found = detect_format(str(tmp_path / "classes"))
    assert found.reason == "2 images in 2 folders, whose names are the classes ('cat', 'dog')"
    assert found.format == "image_classes"
    for name in ("cat/1.txt", "dog/2.txt"):
        (tmp_path / "classes" / name).write_text("a text")
    found = detect_format(str(tmp_path / "classes"))
    assert found.reason == "2 files such as '1.png', with a text beside each (.txt)"
    assert found.format == "image_text_pairs"


def test_published_files(tmp_path):
    image = {"id": 1, "file_name": "a.jpg"}
    coco = {"images": [image], "annotations": [{"image_id": 1, "caption": "a cat"}]}
    (tmp_path / "captions_train2014.json").write_text(json.dumps(coco))
    found = detect_format(str(tmp_path))
    assert (found.format, found.reason) == ("coco_captions", "'captions_train2014.json', with 'images' as published")

    questions = {"questions": [{"question_id": 1, "image_id": 1, "question": "what?"}]}
    answers = {"annotations": [{"question_id": 1, "answers": [{"answer": "a cat"}]}]}
    (tmp_path / "captions_train2014.json").unlink()
    (tmp_path / "v2_OpenEnded_mscoco_val2014_questions.json").write_text(json.dumps(questions))
    (tmp_path / "v2_mscoco_val2014_annotations.json").write_text(json.dumps(answers))
    assert detect_format(str(tmp_path)).format == "vqav2"

    karpathy = {"images": [{"split": "train", "filename": "a.jpg", "imgid": 1, "sentences": [{"raw": "a cat"}]}]}
    path = tmp_path / "dataset_flickr30k.json"
    path.write_text(json.dumps(karpathy))
    with pytest.raises(SeveralSplitsError) as caught:
        detect_format(str(path))
    assert caught.value.words["train"] == ["train", "restval"]
    assert detect_format(str(path), "train").format == "coco_captions"

    (tmp_path / "fo" / "data").mkdir(parents=True)
    (tmp_path / "fo" / "samples.json").write_text(
        json.dumps({"samples": [{"filepath": "data/a.png", "caption": "a"}]})
    )
    (tmp_path / "fo" / "metadata.json").write_text("{}")
    assert detect_format(str(tmp_path / "fo")).format == "fiftyone"


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (
            {"image": "a.png", "description": "a cat"},
            r"'a.jsonl' has 'image', 'description'\. The nearest format is 'image_text_pairs': it has 'image', and lacks 'text' or 'caption' or "
            r"'captions', a text, a list of texts",
        ),
        (
            {"image": "a.png", "captoin": "a cat"},
            r"The nearest format is 'image_text_pairs': .*\(perhaps 'captoin': rename it\)",
        ),
        (
            {"image": "a.png", "question": "what?", "id": 1},
            r"nearest format is 'question_answering': it has 'image' and 'question', and lacks 'answers' or 'answer'",
        ),
        ({"messages": [{"role": "robot", "content": "a"}]}, r"nearest format is 'messages', but none .*role 'robot'"),
        (
            {"image_url": "https://a/b.png", "caption": "a cat"},
            r"'a.jsonl' has 'image_url', 'caption'. 'image_url' is an address.*`flamingo fetch .*img2dataset",
        ),
        ({"URL": "https://a/b.png", "TEXT": "a cat"}, r"'URL' is an address.*`flamingo fetch .*img2dataset"),
        (
            {"images": ["https://a/b.png", None], "texts": [None, "a cat"]},
            r"index 0 of 'images' is an address.*`flamingo fetch ",
        ),
        ({"x": 1}, r"'a.jsonl' has 'x'\. Formats are image_text_pairs, obelics, .*docs/data-formats.md"),
        (
            {"image": "a.png", "text": "a cat", "label": "cat"},
            r"could be 'image_text_pairs' \('a.jsonl', with 'image' and 'text'\) and 'image_classes' \(.*Choose with `--format`",
        ),
        (
            {"picture": "a.png", "description": "a cat"},
            r"nearest format is 'image_text_pairs'.*\(perhaps 'picture': rename it\).*\(perhaps 'description': rename it\)",
        ),
        (
            {"images": [], "prompt": "what?", "chosen": "a cat", "rejected": "a dog"},
            r"are preferences \(DPO\), which no format reads: TRL .* nearest format is 'prompt_completion'.*perhaps 'chosen'",
        ),
        (
            {"image": "a.png", "label": 0},
            r"nearest format is 'image_classes'.*the class is 0: numbers without names. Give `names` in the `options`",
        ),
    ],
)
def test_what_is_not_known_or_ambiguous(tmp_path, record, message):
    write_jsonl(tmp_path / "a.jsonl", [record])
    with pytest.raises(UnknownLayoutError, match=message):
        detect_format(str(tmp_path))


def test_what_cannot_be_read(tmp_path):
    with pytest.raises(FileNotFoundError, match="leads to no file"):
        detect_format(str(tmp_path / "nowhere"))
    for name in ("1.png", "2.png"):
        write_png(tmp_path / "images" / name, 1)
    with pytest.raises(
        ValueError, match=r"in the folder 'images', and not in a folder for each class.*`a.txt` beside"
    ):
        detect_format(str(tmp_path))
    (tmp_path / "a.json").write_text("[1, 2")
    with pytest.raises(ValueError, match=r"a.json' cannot be read to its end"):
        detect_format(str(tmp_path / "a.json"))
    (tmp_path / "a.json").write_text('{"info": 1, "entries": []}')
    with pytest.raises(ValueError, match=r"a dict instead of a list of records: it has 'info', 'entries'"):
        detect_format(str(tmp_path / "a.json"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b"", "has no row"),
        ("a.csv", b"file_name,text\n", "has no row"),
        ("a.csv", b"", "it is empty, and has no row"),
        ("a.json", b"", "it is empty, and has no row"),
        ("a.json", b"[]", "has no row"),
        ("a.csv", b"file_name,text\na.png,caf\xe9\n", "no row that can be read.*not UTF-8 .it may be Latin-1"),
        ("a.csv", b"file_name;text\na.png;a cat, or two\n", "separated by `;`"),
        ("a.csv", b"file_name;text\na.png;a cat\n", "separated by `;`.* Save it with commas"),
        ("a.csv", b"file_name\ttext\na.png\ta cat\n", "separated by tabs.* Name it .tsv"),
        ("a.json", b'{"images": [{"id": 1}], "annotations": [{"bbox": []}]}', "no 'caption': it is of boxes"),
        ("a.json", b'{"images": [{"id": 1}]}', "no 'annotations' with their captions"),
        (
            "v2_OpenEnded_mscoco_train2014_questions.json",
            b'{"questions": []}',
            "annotations.json' with its answers is",
        ),
        (
            "mine.json",
            b'{"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": []}',
            "taken for 'coco_captions', but none .*row 0: there is no text in 'captions'",
        ),
        ("mine.json", b'{"questions": []}', "its name has no subset"),
    ],
)
def test_whole_files_are_not_called_damaged(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        detect_format(str(tmp_path / name))
    assert "damaged" not in str(caught.value)


def test_an_empty_file_among_others(tmp_path):
    (tmp_path / "0.jsonl").write_text("")
    write_jsonl(tmp_path / "1.jsonl", [RECORDS["image_text_pairs"]])
    assert detect_format(str(tmp_path)).format == "image_text_pairs"


def test_given_options_and_flags(tmp_path):
    results = [{"type": "textarea", "from_name": name, "value": {"text": [name]}} for name in ("c1", "c2")]
    file = tmp_path / "a.jsonl"
    path = str(file)
    write_jsonl(file, [{"data": {"image": "a.png"}, "annotations": [{"result": results}]}])
    with pytest.raises(UnknownLayoutError, match="Choose one with `control` .*`--data.x.options '{\"NAME\": VALUE}'`"):
        detect_format(path, options_flag="--data.x.options")
    assert detect_format(path, options={"control": "c1"}).format == "label_studio"
    write_jsonl(file, [{"image_url": "https://a/b.png", "caption": "a cat"}])
    assert detect_format(path, options={"allow_remote": True}).format == "image_text_pairs"
    write_jsonl(file, [{"image": "a.png", "label": 1}])
    for names in (["red", "blue"], {"1": "blue"}, {1: "blue"}):
        assert detect_format(path, options={"names": names}).format == "image_classes"
    write_jsonl(file, [{"image": "a.png", "text": "a cat", "label": "cat"}])
    with pytest.raises(UnknownLayoutError, match="Choose with `--data.x.format`"):
        detect_format(path, format_flag="--data.x.format")


def test_gifs(tmp_path, caplog):
    for number in range(2):
        write_png(tmp_path / f"{number}.png", number)
        (tmp_path / f"{number}.txt").write_text("a cat")
    frames = [PIL.Image.new("L", (8, 8), value) for value in (0, 255)]
    frames[0].save(tmp_path / "2.gif", save_all=True, append_images=frames[1:])
    (tmp_path / "2.txt").write_text("a cat")
    assert detect_format(str(tmp_path)).format == "image_text_pairs"
    assert not caplog.records
    for number in range(2):
        (tmp_path / f"{number}.png").unlink()
    assert detect_format(str(tmp_path)).format == "video_text_pairs"
    frames[0].save(tmp_path / "2.gif")
    assert detect_format(str(tmp_path)).format == "image_text_pairs"


def test_folders_of_classes(tmp_path, caplog):
    for number, name in enumerate(("things/red/1.png", "animals/red/2.png", "animals/blue/3.png")):
        write_png(tmp_path / "deep" / name, number)
    assert detect_format(str(tmp_path / "deep")).format == "image_classes"
    assert "2 folders named 'red'" in caplog.text and "'blue'" not in caplog.text
    caplog.clear()
    for number, name in enumerate(("train/cat/1.png", "val/cat/2.png", "train/dog/3.png")):
        write_png(tmp_path / "splits" / name, number)
    assert detect_format(str(tmp_path / "splits"), "train+val").format == "image_classes"
    assert not caplog.records
    for number, name in enumerate(("test/1.png", "dog/2.png")):
        write_png(tmp_path / "classes" / name, number)
    with pytest.raises(SeveralSplitsError, match="If 'test' is a class, and no split, rename its folder, .* 'tests'"):
        detect_format(str(tmp_path / "classes"))
