# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Data files are read whole or refused by name, and an error of one row stays with it."""

import bz2
import gzip
import json
import lzma
import zipfile

import pytest
from data_factory import both, texts_or_errors
from datasets import Dataset, Features, Image, Value

from transformers_flamingo.data import Reader
from transformers_flamingo.data.formats.image_text_pairs import ImageTextPairs


@both
@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress], ids=["gz", "bz2", "xz"])
def test_a_compressed_file_is_read_whole_or_refused(tmp_path, pack, streaming):
    suffix = {gzip.compress: "gz", bz2.compress: "bz2", lzma.compress: "xz"}[pack]
    data = pack("".join(json.dumps({"image": "a", "text": f"text {i}"}) + "\n" for i in range(500)).encode())
    path = tmp_path / f"a.jsonl.{suffix}"
    path.write_bytes(data)
    assert texts_or_errors(ImageTextPairs(), path, streaming) == [f"text {i}" for i in range(500)]
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=f"a.jsonl.{suffix}' cannot be read to its end"):
        list(Reader().load(str(path), streaming=streaming))


@both
def test_other_files_that_are_cut_short(tmp_path, streaming):
    rows = Dataset.from_dict({"image": ["a"] * 9, "text": ["b"] * 9})
    rows.to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-3])
    (tmp_path / "a.json").write_text('[{"text": "a"}, {"te')
    (tmp_path / "a.csv").write_text('image,text\na.png,one\nb.png,"two\nc.png,three\n')
    with zipfile.ZipFile(tmp_path / "a.jsonl.zip", "w") as archive:
        archive.writestr("a.jsonl", "{}")
        archive.writestr("b.jsonl", "{}")
    for name in ("a.parquet", "a.json", "a.csv", "a.jsonl.zip"):
        with pytest.raises(ValueError, match=f"{name}' cannot be read to its end"):
            list(Reader().load(str(tmp_path / name), streaming=streaming))
    (tmp_path / "a.jsonl").write_text('{"image": "a", "text": "one"}\n{"image": "a", "te')
    found = texts_or_errors(ImageTextPairs(), tmp_path / "a.jsonl", streaming)
    assert found[0] == "one" and "a.jsonl, row 1: it is not JSON" in found[1] and len(found) == 2
    (tmp_path / "a.jsonl").write_text('\ufeff{"image": "a", "text": "one"}\n\n{"image": "a", "text": "two\u2028"}')
    assert texts_or_errors(ImageTextPairs(), tmp_path / "a.jsonl", streaming) == ["one", "two"]


@both
def test_bad_rows_of_tables_and_lines(tmp_path, streaming):
    (tmp_path / "a.csv").write_bytes(b"image,text\na,one, two\na,caf\xe9\na\na,last\n")
    found = texts_or_errors(ImageTextPairs(), tmp_path / "a.csv", streaming)
    assert [message.removeprefix(f"{tmp_path}/a.csv, row ")[:12] for message in found] == [
        "0: it has 3 ",
        "1: it is not",
        "2: it has 1 ",
        "last",
    ]
    (tmp_path / "a.jsonl").write_bytes(b'{"image": "a", "text": "caf\xe9"}\n{"image": "a", "text": "last"}\n')
    found = texts_or_errors(ImageTextPairs(), tmp_path / "a.jsonl", streaming)
    assert "row 0: it is not UTF-8" in found[0] and found[1] == "last"


def test_a_comma_in_all_rows_of_a_table_moves_no_column(tmp_path):
    """Pandas would take the first column for an index then, and so the image for its text."""
    (tmp_path / "a.csv").write_text("image,text\na.png,red, and big\nb.png,blue, and small\n")
    assert all(
        "it has 3 values for the 2 columns" in message
        for message in texts_or_errors(ImageTextPairs(), tmp_path, False)
    )


def test_tables_of_different_columns_are_joined(tmp_path):
    (tmp_path / "a.csv").write_text("image,text\na.png,red\n")
    (tmp_path / "b.csv").write_text("caption,image\nblue,b.png\n")
    assert texts_or_errors(ImageTextPairs(), tmp_path, False) == ["red", "blue"]
    (tmp_path / "b.csv").write_text("text,text\nblue,b.png\n")
    with pytest.raises(ValueError, match="b.csv' cannot be read .*each column once"):
        Reader().load(str(tmp_path))


def test_files_without_rows_are_an_error(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="There is no row in .*a.jsonl"):
        Reader().load(str(tmp_path))


def test_embedded_images_stay_undecoded(tmp_path):
    rows = {"image": [{"bytes": b"broken", "path": None}], "text": ["a"]}
    Dataset.from_dict(rows, features=Features({"image": Image(), "text": Value("string")})).to_parquet(
        tmp_path / "a.parquet"
    )
    (row,) = Reader().load(str(tmp_path))
    assert row["image"] == rows["image"][0]
