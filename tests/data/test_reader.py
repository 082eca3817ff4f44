# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
import gzip
import json
import pickle
import zipfile

import pytest
from data_factory import both, png, write_jsonl, write_tar
from datasets import Dataset, Features, Image, List, Value
from torch.utils.data import DataLoader

from transformers_flamingo.data import BadSampleError, Reader, row_location
from transformers_flamingo.data.columns import parse_record
from transformers_flamingo.data.data_files import find_files
from transformers_flamingo.data.formats.image_text_pairs import ImageTextPairs


def numbers(rows):
    return [parse_record(row)["n"] for row in rows]


@both
def test_each_row_knows_its_file_and_place(tmp_path, streaming):
    write_jsonl(tmp_path / "a.jsonl", [{"n": 0}, {"n": 1, "mixed": "text"}])
    write_jsonl(tmp_path / "b.jsonl", [{"n": 2, "mixed": [1]}])
    rows = list(Reader().load(str(tmp_path), streaming=streaming))
    assert numbers(rows) == [0, 1, 2]
    places = [("a", 0), ("a", 1), ("b", 0)]
    assert [row_location(row) for row in rows] == [f"{tmp_path}/{name}.jsonl, row {row}" for name, row in places]
    assert row_location(parse_record(rows[2])) == row_location(rows[2])


@both
def test_compressed_files_and_lists(tmp_path, streaming):
    lines = '{"n": 0}\n{"n": 1}\n'
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write(lines)
    with zipfile.ZipFile(tmp_path / "b.jsonl.zip", "w") as file:
        file.writestr("b.jsonl", lines)
    (tmp_path / "c.json").write_text(json.dumps([{"n": 2}, {"n": 3, "id": "x"}], indent=1))
    assert numbers(Reader().load(str(tmp_path), streaming=streaming)) == [0, 1, 0, 1, 2, 3]


@both
def test_a_table_is_all_text(tmp_path, streaming):
    (tmp_path / "metadata.csv").write_text('file_name,text\na.png,007\nb.png,"NA, or\nnone"\n')
    rows = list(Reader().load(str(tmp_path / "*.csv"), streaming=streaming))
    assert [row["text"] for row in rows] == ["007", "NA, or\nnone"]
    (tmp_path / "metadata.tsv").write_text("file_name\ttext\na.png\ta, b\n")
    assert next(iter(Reader().load(str(tmp_path / "*.tsv"), streaming=streaming)))["text"] == "a, b"


@both
def test_media_stay_undecoded(tmp_path, streaming):
    broken = {"bytes": b"broken", "path": None}
    features = Features(
        {"image": Image(), "more": List(Image()), "parts": List({"image": Image(), "n": Value("int32")})}
    )
    row = {"image": broken, "more": [broken, None], "parts": [{"image": broken, "n": 1}]}
    Dataset.from_list([row], features=features.copy()).to_parquet(tmp_path / "a.parquet")
    loaded = next(iter(Reader().load(str(tmp_path), streaming=streaming)))
    assert {name: loaded[name] for name in row} == row


@both
def test_a_tar_may_mix_kinds_of_members(tmp_path, streaming):
    write_tar(
        tmp_path / "a.tar", {"0.jpg": png(1), "0.txt": b"a", "1.png": png(2), "1.txt": b"b", "1.json": b'{"x": 1}'}
    )
    rows = list(ImageTextPairs().load(str(tmp_path), streaming=streaming))
    assert [(bool(row["jpg"]), bool(row["png"]), row["txt"]) for row in rows] == [
        (True, False, "a"),
        (False, True, "b"),
    ]
    assert row_location(rows[1]) == f"{tmp_path}/a.tar, sample '1'"
    with pytest.raises(ValueError, match="Reader does not read .tar files"):
        Reader().load(str(tmp_path))


def test_the_split_chooses_files(tmp_path):
    for name in ("train-0.jsonl", "test-0.jsonl", "retrain.jsonl"):
        write_jsonl(tmp_path / name, [{}])
    (tmp_path / "train").mkdir()
    write_jsonl(tmp_path / "train" / "metadata.jsonl", [{}])

    def names(path, split):
        return [file.removeprefix(f"{tmp_path}/") for file in find_files(path, split)]

    assert names(str(tmp_path), "train") == ["train-0.jsonl", "train/metadata.jsonl"]
    assert names(str(tmp_path / "*-0.jsonl"), "test") == ["test-0.jsonl"]
    assert names(str(tmp_path), "train+test") == ["test-0.jsonl", "train-0.jsonl", "train/metadata.jsonl"]
    with pytest.raises(FileNotFoundError, match="4 files, but none is a .* file of split 'validation'"):
        find_files(str(tmp_path), "validation")
    with pytest.raises(FileNotFoundError, match="leads to no file"):
        find_files(str(tmp_path / "nothing"))
    (tmp_path / "train" / "metadata.jsonl").rename(tmp_path / "train" / "image.png")
    with pytest.raises(FileNotFoundError, match="A folder of images needs a table next to them"):
        find_files(str(tmp_path / "train"))
    (tmp_path / "train.csv").write_text("a\n1\n")
    with pytest.raises(ValueError, match=r"several kinds \(csv, json\)"):
        find_files(str(tmp_path), "train")


@both
def test_a_broken_line_is_an_error_of_its_row(tmp_path, streaming):
    (tmp_path / "a.jsonl").write_text('{"n": 0}\n{"n": 1\n[3]\n')
    rows = list(Reader().load(str(tmp_path), streaming=streaming))
    assert parse_record(rows[0])["n"] == 0
    with pytest.raises(BadSampleError, match="a.jsonl, row 1: it is not JSON"):
        parse_record(rows[1])
    with pytest.raises(BadSampleError, match="a.jsonl, row 2: its JSON is a list instead of an object"):
        parse_record(rows[2])


def test_a_list_in_a_file_of_lines(tmp_path):
    (tmp_path / "a.json").write_text('{"n": 0}\n{"n": 1}\n')
    with pytest.raises(Exception, match="must be named .jsonl"):
        Reader().load(str(tmp_path))
    (tmp_path / "a.json").write_text('{"n": 0}')
    with pytest.raises(Exception, match="holds a dict instead of a list"):
        Reader().load(str(tmp_path))


def test_workers_share_a_stream_without_overlap(tmp_path):
    for name in "abc":
        write_jsonl(tmp_path / f"{name}.jsonl", [{"n": f"{name}{i}"} for i in range(3)])
    stream = Reader().load(str(tmp_path), streaming=True)
    loaded = DataLoader(stream, batch_size=None, num_workers=2)
    assert sorted(numbers(loaded)) == [f"{name}{i}" for name in "abc" for i in range(3)]


def test_a_stream_resumes_where_it_stopped(tmp_path):
    for name in "abc":
        write_jsonl(tmp_path / f"{name}.jsonl", [{"n": f"{name}{i}"} for i in range(3)])
    stream = Reader().load(str(tmp_path), streaming=True)
    iterator = iter(stream)
    first = [next(iterator) for _ in range(5)]
    again = Reader().load(str(tmp_path), streaming=True)
    again.load_state_dict(stream.state_dict())
    rest = list(again)
    assert numbers([*first, *rest]) == [f"{name}{i}" for name in "abc" for i in range(3)]
    assert row_location(rest[0]).endswith("b.jsonl, row 2")


def test_relative_paths_start_at_the_root(tmp_path):
    row = {"__file__": "data/metadata.csv"}
    located = {"bytes": None, "path": "data/a.png"}
    assert (
        Reader().resolve_path("a.png", row) == Reader().resolve_path({"bytes": None, "path": "a.png"}, row) == located
    )
    assert Reader(media_root="images").resolve_path("a.png", row)["path"] == "images/a.png"
    assert Reader(media_root="images").resolve_path(["/a.png"], row)[0]["path"] == "/a.png"
    assert Reader(media_root="images").resolve_path("https://host/a.png", row)["path"] == "https://host/a.png"
    embedded = {"bytes": b"", "path": "a.png"}
    assert Reader(media_root="images").resolve_path(embedded, row) is embedded


def test_readers_can_be_sent_to_workers():
    reader = ImageTextPairs(media_root="images", prompt="Output:")
    assert pickle.loads(pickle.dumps(reader)) == reader
