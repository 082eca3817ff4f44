# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""A `.tar` is read whole or refused by name, and an error of one sample stays with it."""

import gzip
import io
import json
import tarfile

import pytest
from data_factory import PAIRS, both, png, texts_or_errors, write_tar

from transformers_flamingo.data.formats.image_text_pairs import ImageTextPairs
from transformers_flamingo.data.formats.mmc4 import MMC4


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


def test_zeros_after_the_end_do_not_matter(tmp_path):
    write_tar(tmp_path / "a.tar", PAIRS)
    data = (tmp_path / "a.tar").read_bytes().rstrip(b"\0")
    for zeros in (1024, 100_000):
        (tmp_path / "a.tar").write_bytes(data + b"\0" * (-len(data) % 512 + zeros))
        assert texts_or_errors(ImageTextPairs(), tmp_path, True) == [f"text {i}" for i in range(4)]


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
def test_a_bad_sample_of_a_tar_is_an_error_of_its_own(tmp_path, members, message, streaming):
    with tarfile.open(tmp_path / "a.tar", "w", errors="surrogateescape", format=tarfile.GNU_FORMAT) as archive:
        for name, data in {"0.jpg": png(0), "0.txt": b"first", **members, "2.JPG": png(2), "2.txt": b"last"}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    first, bad, last = texts_or_errors(ImageTextPairs(), tmp_path, streaming)
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
    found = texts_or_errors(ImageTextPairs(), tmp_path, streaming)
    assert found[0] == "a"
    assert all("its member 'jpg' is a link, which is not followed" in message for message in found[1:])
    assert len(found) == 3


def test_a_tar_without_samples_is_an_error(tmp_path):
    write_tar(tmp_path / "a.tar", {"README": b"a", "._0.jpg": b"b"})
    with pytest.raises(ValueError, match="none of its members has the name of a sample"):
        list(ImageTextPairs().load(str(tmp_path), streaming=True))


@both
def test_a_json_member_that_is_not_json_is_a_bad_sample(tmp_path, streaming):
    page = {"text_list": ["a"], "image_info": [{"matched_text_index": 0, "matched_sim": 1, "image_base64": "AAAA"}]}
    write_tar(tmp_path / "a.tar", {"0.json": b"{", "1.json": json.dumps(page).encode(), "2.json": b"\xff"})
    found = texts_or_errors(MMC4(), tmp_path, streaming)
    assert "sample '0': it is not JSON" in found[0]
    assert "sample '2': its member 'json' is not UTF-8" in found[2]
    assert found[1] == "a"
