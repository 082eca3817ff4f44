# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Which data files a path leads to, and when they have changed."""

import os

import pytest
from data_factory import both, png, texts_or_errors, write_jsonl, write_tar
from datasets import Dataset

from transformers_flamingo.data import Reader
from transformers_flamingo.data.data_files import find_files
from transformers_flamingo.data.formats.image_text_pairs import ImageTextPairs


@pytest.mark.parametrize(
    "names",
    [
        ("data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"),
        ("train.jsonl", "val.jsonl"),
        ("train2014/metadata.csv", "val2014/metadata.csv"),
        ("web_train_000.tar", "web_dev_000.tar"),
        ("train_sft-00000-of-00001.parquet", "test_sft-00000-of-00001.parquet"),
        ("Training/a.tsv", "Validation/a.tsv"),
        ("minival.jsonl.gz", "other.jsonl.gz"),
        ("trainset.json", "testset.json"),
        ("part.json", "validate.json"),
        ("a.json", "held_out/a.json"),
        ("test.jsonl", "validation.jsonl"),
    ],
)
def test_a_folder_of_several_splits_needs_a_choice(tmp_path, names):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match="several splits .*Choose with `split`, such as `split: train`"):
        find_files(str(tmp_path))
    if "/" not in "".join(names):
        with pytest.raises(ValueError, match="several splits"):
            find_files(str(tmp_path / "*"))
    for name in names:
        assert find_files(str(tmp_path / name)) == [str(tmp_path / name)]


@pytest.mark.parametrize(
    "names",
    [
        ("train-0.jsonl", "train/more.jsonl", "a.jsonl"),
        ("retest.jsonl", "trainer.jsonl", "intestine.jsonl"),
        ("validation-0.jsonl", "val-1.jsonl"),
    ],
)
def test_a_folder_of_one_split_needs_none(tmp_path, names):
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert find_files(str(tmp_path)) == sorted(str(tmp_path / name) for name in names)


def test_a_split_is_a_word_or_several(tmp_path):
    for name in ("train2014.jsonl", "val2014.jsonl", "test.jsonl", "retrain.jsonl"):
        (tmp_path / name).touch()

    def names(split):
        return [os.path.basename(file) for file in find_files(str(tmp_path), split)]

    assert names("train") == ["train2014.jsonl"]
    assert names("val+train") == ["train2014.jsonl", "val2014.jsonl"]
    with pytest.raises(ValueError, match="`split` has an empty name"):
        names("train+")


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(ValueError, match="a.jsonl' is a pipe, not a regular file"):
        find_files(str(tmp_path))
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="zero.csv' is a device, not a regular file"):
        find_files(str(tmp_path / "zero.csv"))
    (tmp_path / "b.parquet").mkdir()
    with pytest.raises(ValueError, match="b.parquet' is a folder"):
        find_files(str(tmp_path / "*.parquet"))
    write_jsonl(tmp_path / "c.jsonl", [{}])
    (tmp_path / "d.jsonl").symlink_to(tmp_path / "c.jsonl")
    assert find_files(str(tmp_path / "d.jsonl")) == [str(tmp_path / "d.jsonl")]
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "e.jsonl").symlink_to(tmp_path / "nothing")
    with pytest.raises(ValueError, match="e.jsonl' cannot be read"):
        find_files(str(tmp_path / "folder"))


def test_chains_of_file_systems_are_not_followed(tmp_path):
    with pytest.raises(ValueError, match="is a chain of file systems"):
        Reader().load(f"zip://*.jsonl::{tmp_path}/a.zip")


@both
def test_a_changed_file_is_read_again(tmp_path, streaming):
    """Its time may be the same: an archive that is unpacked again sets the time of its files."""
    for name, write in (
        ("a.jsonl", lambda path, text: write_jsonl(path, [{"image": "a.png", "text": text}])),
        ("a.csv", lambda path, text: path.write_text(f"image,text\na.png,{text}\n")),
        ("a.tar", lambda path, text: write_tar(path, {"0.jpg": png(1), "0.txt": text.encode()})),
        ("a.parquet", lambda path, text: Dataset.from_dict({"image": ["a"], "text": [text]}).to_parquet(path)),
    ):
        path = tmp_path / name
        for text in ("red", "big"):
            write(path, text)
            os.utime(path, ns=(10**18, 10**18))
            assert texts_or_errors(ImageTextPairs(), path, streaming) == [text]


def test_shards_that_are_missing_are_named(tmp_path, caplog):
    for number in (0, 2):
        write_jsonl(tmp_path / f"train-{number:05}-of-00003.jsonl", [{"image": "a.png", "text": "b"}])
    with caplog.at_level("WARNING"):
        assert len(find_files(str(tmp_path))) == 2
    assert "has 2 of the 3 files train-*-of-00003" in caplog.text
    caplog.clear()
    write_jsonl(tmp_path / "train-00001-of-00003.jsonl", [{"image": "a.png", "text": "b"}])
    with caplog.at_level("WARNING"):
        assert len(find_files(str(tmp_path))) == 3
    assert caplog.text == ""
