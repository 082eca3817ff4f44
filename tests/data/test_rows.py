# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Data files are read whole or refused by name, and what is wrong with one row stays with it."""

import bz2
import gzip
import io
import json
import lzma
import os
import tarfile
import zipfile

import pytest
from data_factory import png, write_jsonl, write_tar
from datasets import Dataset, Features, Image, Value

from transformers_flamingo.data import BadSampleError, Reader
from transformers_flamingo.data.data_files import find_files
from transformers_flamingo.data.formats.image_text_pairs import ImageTextPairs
from transformers_flamingo.data.formats.mmc4 import MMC4


both = pytest.mark.parametrize("streaming", [False, True])
PAIRS = {f"{i}.{kind}": png(i) if kind == "jpg" else f"text {i}".encode() for i in range(4) for kind in ("jpg", "txt")}


def texts(reader, path, streaming):
    """The text of each row, or the message by which it is refused."""
    found = []
    for row in reader.load(str(path), streaming=streaming):
        try:
            found.append(reader.read(row)[0].text)
        except BadSampleError as error:
            found.append(str(error))
    return found


# Splits


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


# Which files


def test_only_regular_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "a.jsonl")
    with pytest.raises(ValueError, match="a.jsonl' is a pipe, where"):
        find_files(str(tmp_path))
    (tmp_path / "zero.csv").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="zero.csv' is a device, where"):
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
    """Whatever its time says: an archive that is unpacked again sets that of its files."""
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
            assert texts(ImageTextPairs(), path, streaming) == [text]


# Files that are cut short


@both
@pytest.mark.parametrize("suffix", ["tar", "tar.gz"])
@pytest.mark.parametrize("keep", [1, 3, 4, 7, 8])
def test_a_tar_that_is_cut_between_members_is_an_error(tmp_path, keep, suffix, streaming):
    """`tarfile` itself takes the end of the file for the end of the archive."""
    path = tmp_path / "cut.tar"
    write_tar(path, PAIRS)
    with tarfile.open(path) as archive:
        ends = [member.offset for member in archive][1:]
    data = path.read_bytes()
    ends.append(len(data.rstrip(b"\0")) + 511 >> 9 << 9)
    cut = data[: ends[keep - 1]]
    path.unlink()
    (tmp_path / f"cut.{suffix}").write_bytes(gzip.compress(cut) if suffix == "tar.gz" else cut)
    seen = []
    with pytest.raises(ValueError, match=rf"cut.{suffix}' cannot be read to its end"):
        seen.extend(ImageTextPairs().load(str(tmp_path), streaming=streaming))
    # The last sample may lack members
    assert len(seen) <= max(0, (keep - 1) // 2)


@both
@pytest.mark.parametrize("cut", ["in a member", "in a header", "one block of zeros", "two archives", "noise"])
def test_a_damaged_tar_is_an_error(tmp_path, cut, streaming):
    path = tmp_path / "a.tar"
    write_tar(path, PAIRS)
    data = path.read_bytes()
    end = len(data.rstrip(b"\0")) + 511 >> 9 << 9
    path.write_bytes(
        {
            "in a member": data[: end - 512 + 3],
            "in a header": data[: end - 1024 + 100],
            "one block of zeros": data[: end + 512],
            "two archives": data + data,
            "noise": data[:2048] + b"x" * 512 + data[2560:],
        }[cut]
    )
    with pytest.raises(ValueError, match=r"a.tar' cannot be read to its end"):
        list(ImageTextPairs().load(str(path), streaming=streaming))


def test_zeros_behind_the_end_do_not_matter(tmp_path):
    write_tar(tmp_path / "a.tar", PAIRS)
    data = (tmp_path / "a.tar").read_bytes().rstrip(b"\0")
    for zeros in (1024, 100_000):
        (tmp_path / "a.tar").write_bytes(data + b"\0" * (-len(data) % 512 + zeros))
        assert texts(ImageTextPairs(), tmp_path, True) == [f"text {i}" for i in range(4)]


@both
@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress], ids=["gz", "bz2", "xz"])
def test_a_compressed_file_is_read_whole_or_refused(tmp_path, pack, streaming):
    suffix = {gzip.compress: "gz", bz2.compress: "bz2", lzma.compress: "xz"}[pack]
    data = pack("".join(json.dumps({"image": "a", "text": f"text {i}"}) + "\n" for i in range(500)).encode())
    path = tmp_path / f"a.jsonl.{suffix}"
    path.write_bytes(data)
    assert texts(ImageTextPairs(), path, streaming) == [f"text {i}" for i in range(500)]
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
    found = texts(ImageTextPairs(), tmp_path / "a.jsonl", streaming)
    assert found[0] == "one" and "a.jsonl, row 1: it is not JSON" in found[1] and len(found) == 2
    (tmp_path / "a.jsonl").write_text('\ufeff{"image": "a", "text": "one"}\n\n{"image": "a", "text": "two\u2028"}')
    assert texts(ImageTextPairs(), tmp_path / "a.jsonl", streaming) == ["one", "two"]


# What is wrong with one row


@both
@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"1.jpg": png(1), "1.txt": b"caf\xe9"}, "sample '1': its member 'txt' is not UTF-8"),
        ({"1\udce9.jpg": png(1), "1\udce9.txt": b"a"}, r"sample '1\\\\xe9': the name of '1\\\\xe9.jpg' is not UTF-8"),
        ({"1.jpg": png(1), "1.JPG": png(2), "1.txt": b"a"}, "sample '1': it has two members of the kind 'jpg'"),
        ({"1.jpg": png(1)}, "sample '1': no value in 'text'"),
        ({"1.txt": b"a"}, "sample '1': no value in 'image'"),
    ],
)
def test_a_bad_sample_of_a_tar_is_one(tmp_path, members, message, streaming):
    with tarfile.open(tmp_path / "a.tar", "w", errors="surrogateescape", format=tarfile.GNU_FORMAT) as archive:
        for name, data in {"0.jpg": png(0), "0.txt": b"first", **members, "2.JPG": png(2), "2.txt": b"last"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    first, bad, last = texts(ImageTextPairs(), tmp_path, streaming)
    assert (first, last) == ("first", "last")
    assert bad.startswith(f"{tmp_path}/a.tar, ")
    assert message.replace(r"\\\\", r"\\") in bad


@both
def test_a_link_in_a_tar_is_a_bad_sample(tmp_path, streaming):
    write_tar(tmp_path / "a.tar", {"0.jpg": png(0), "0.txt": b"a"})
    with tarfile.open(tmp_path / "a.tar", "a") as archive:
        for name, kind in (("1.jpg", tarfile.LNKTYPE), ("2.jpg", tarfile.SYMTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "0.jpg"
            archive.addfile(info)
    found = texts(ImageTextPairs(), tmp_path, streaming)
    assert found[0] == "a"
    assert all("its member 'jpg' is a link, which is not followed" in message for message in found[1:])
    assert len(found) == 3


def test_a_tar_without_samples_is_an_error(tmp_path):
    write_tar(tmp_path / "a.tar", {"README": b"a", "._0.jpg": b"b"})
    with pytest.raises(ValueError, match="no member that is named as a sample"):
        list(ImageTextPairs().load(str(tmp_path), streaming=True))


@both
def test_a_json_member_that_is_none_is_a_bad_sample(tmp_path, streaming):
    page = {"text_list": ["a"], "image_info": [{"matched_text_index": 0, "matched_sim": 1, "image_base64": "AAAA"}]}
    write_tar(tmp_path / "a.tar", {"0.json": b"{", "1.json": json.dumps(page).encode(), "2.json": b"\xff"})
    found = texts(MMC4(), tmp_path, streaming)
    assert "sample '0': it is not JSON" in found[0]
    assert "sample '2': its member 'json' is not UTF-8" in found[2]
    assert found[1] == "a"


@both
def test_bad_rows_of_tables_and_lines(tmp_path, streaming):
    (tmp_path / "a.csv").write_bytes(b"image,text\na,one, two\na,caf\xe9\na\na,last\n")
    found = texts(ImageTextPairs(), tmp_path / "a.csv", streaming)
    assert [message.removeprefix(f"{tmp_path}/a.csv, row ")[:12] for message in found] == [
        "0: 3 values,",
        "1: it is not",
        "2: 1 values,",
        "last",
    ]
    (tmp_path / "a.jsonl").write_bytes(b'{"image": "a", "text": "caf\xe9"}\n{"image": "a", "text": "last"}\n')
    found = texts(ImageTextPairs(), tmp_path / "a.jsonl", streaming)
    assert "row 0: it is not UTF-8" in found[0] and found[1] == "last"


def test_a_comma_in_all_rows_of_a_table_moves_no_column(tmp_path):
    """Pandas takes the first column for an index then, and so the image for its text."""
    (tmp_path / "a.csv").write_text("image,text\na.png,red, and big\nb.png,blue, and small\n")
    assert all("3 values, where the 2 columns" in message for message in texts(ImageTextPairs(), tmp_path, False))


def test_tables_of_other_columns_go_together(tmp_path):
    (tmp_path / "a.csv").write_text("image,text\na.png,red\n")
    (tmp_path / "b.csv").write_text("caption,image\nblue,b.png\n")
    assert texts(ImageTextPairs(), tmp_path, False) == ["red", "blue"]
    (tmp_path / "b.csv").write_text("text,text\nblue,b.png\n")
    with pytest.raises(ValueError, match="b.csv' cannot be read .*each once"):
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
