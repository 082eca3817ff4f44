# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Files of weights that others made: every damaged, hostile or unusual one gives one clear error, within bounded memory."""

import copy
import io
import json
import os
import pickle
import random
import struct
import tracemalloc
import warnings
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from transformers_flamingo.utils.weight_files import (
    MAX_HEADER_BYTES,
    MAX_PICKLE_BYTES,
    MAX_PICKLE_OPERATIONS,
    check_folder,
    read_json,
    read_pretrained_tensors,
    read_tensors,
)


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


def test_a_file_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Harmful()}, "checkpoint.pt")
    with pytest.raises(ValueError, match=r"something other than tensors \(\w+\.mkdir\)") as error:
        read_tensors("checkpoint.pt")
    assert "weights_only" not in str(error.value)  # torch advises an option that would run it
    (tmp_path / "plain.pt").write_bytes(pickle.dumps({"weight": Harmful()}))
    with pytest.raises(ValueError):
        read_tensors("plain.pt")
    assert not (tmp_path / "harmed").exists()


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
@pytest.mark.parametrize("kept", [0, 10, -100])
def test_a_file_that_was_cut_short_is_refused(tmp_path, name, kept):
    path = tmp_path / name
    tensors = {"weight": torch.zeros(1000)}
    torch.save(tensors, path) if name.endswith("pt") else save_file(tensors, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="weights"):
        read_tensors(path)


@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
@pytest.mark.parametrize("content", [b"hello\n", b"version https://git-lfs.github.com/spec/v1\n", b"<!DOCTYPE html>"])
def test_another_kind_of_file_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="not a file of weights.*Git LFS pointer or a web page"):
        read_tensors(tmp_path / name)


def test_a_pickle_of_nonsense_is_refused(tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"\x80\x02hello\n")
    with pytest.raises(ValueError, match="damaged"):
        read_tensors(tmp_path / "weights.pt")


def test_all_formats_are_read(tmp_path):
    tensors = {"weight": torch.arange(3.0)}
    torch.save(tensors, tmp_path / "new.pt")
    torch.save(tensors, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"model_state_dict": tensors, "epoch": 1}, tmp_path / "training.pt")
    save_file(tensors, tmp_path / "file.safetensors")
    for name in ("new.pt", "old.pt", "training.pt", "file.safetensors"):
        assert torch.equal(read_tensors(tmp_path / name)["weight"], torch.arange(3.0)), name
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="not a flat dict of tensors"):
        read_tensors(tmp_path / "list.pt")


# Pickles, opcode by opcode: `GLOBAL` names the function that `REDUCE` calls.
GROW = pickle.BINUNICODE + struct.pack("<I", 3) + b"hex" + pickle.TUPLE2 + pickle.REDUCE
ENCODE = b"c_codecs\nencode\n"
BOMBS = {
    "bytearray": b"\x80\x02cbuiltins\nbytearray\n" + b"J" + struct.pack("<i", 2**31 - 1) + b"\x85R.",
    "bytearray of Python 2": b"\x80\x02c__builtin__\nbytearray\n" + b"J" + struct.pack("<i", 2**31 - 1) + b"\x85R.",
    "growing text": b"\x80\x02" + ENCODE * 40 + b"U\x01a" + GROW * 40 + b".",
    "too long": b"\x80\x02X" + struct.pack("<I", MAX_PICKLE_BYTES) + bytes(MAX_PICKLE_BYTES) + b".",
    "too many operations": b"\x80\x02" + b"N" * MAX_PICKLE_OPERATIONS + b".",
    "not a pickle": bytes(1000),
}


def write_zip(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(f"archive/{name}", content)
    return path


def refused(path: Path, message: str = "") -> None:
    """Check that a file is refused with our message, within little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=message) as error:
            read_tensors(path)
        assert tracemalloc.get_traced_memory()[1] < 4 * MAX_HEADER_BYTES
    finally:
        tracemalloc.stop()
    assert str(path) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("bomb", BOMBS)
@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_cannot_allocate_what_its_file_does_not_hold(tmp_path, bomb, legacy):
    path = tmp_path / "weights.pt"
    if legacy:
        start = b"".join(pickle.dumps(part, 2) for part in (torch.serialization.MAGIC_NUMBER, 1001, {}))
        path.write_bytes(start + BOMBS[bomb])
    else:
        write_zip(path, {"data.pkl": BOMBS[bomb], "version": b"3"})
    refused(path, "weights")


def test_a_compressed_archive_is_refused_before_it_is_unpacked(tmp_path):
    """Compressed, 2 GB of zeros take 2 MB."""
    path = tmp_path / "weights.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("archive/data.pkl", "w") as file:
        for _ in range(40):
            file.write(bytes(2**20))
    refused(path, "compressed archive, which may unpack to any size. torch saves weights uncompressed")
    torch.save({"weight": torch.zeros(1000)}, tmp_path / "stored.pt")
    with (
        zipfile.ZipFile(tmp_path / "stored.pt") as stored,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
    ):
        for name in stored.namelist():  # compress only the weights
            kind = zipfile.ZIP_DEFLATED if name.endswith("/data/0") else zipfile.ZIP_STORED
            archive.writestr(name, stored.read(name), compress_type=kind)
    refused(path, "compressed archive")


def test_members_that_overlap_or_have_one_name_are_refused(tmp_path):
    torch.save({"weight": torch.zeros(100_000)}, tmp_path / "weights.pt")
    with zipfile.ZipFile(tmp_path / "weights.pt", "a") as archive:
        entry = next(entry for entry in archive.infolist() if entry.filename.endswith("/data/0"))
        for number in range(5):
            again = copy.copy(entry)
            again.filename = f"{entry.filename}{number}"
            archive.filelist.append(again)
        archive._didModify = True  # write the directory again
    refused(tmp_path / "weights.pt", "claims to hold more than its")
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "twice.pt", "w") as archive:
        warnings.simplefilter("ignore")
        for _ in range(2):
            archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
    refused(tmp_path / "twice.pt", "claims to hold more")


def test_archives_of_other_kinds_are_named(tmp_path):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(2)), tmp_path / "script.pt")
    refused(tmp_path / "script.pt", "is a TorchScript program.*state_dict")
    refused(
        write_zip(tmp_path / "packed.zip", {"model.safetensors": b"x"}),
        "torch did not write. If it is an archive of a folder",
    )


@pytest.mark.parametrize(
    ("make_tensor", "message"),
    [
        (
            lambda: torch.zeros(1).expand(10**6, 10**6),
            r"claims \(1000000, 1000000\) values for weight, more than it holds",
        ),
        (lambda: torch.zeros(3, device="meta"), "quantized, sparse or empty"),
        (lambda: torch.eye(3).to_sparse(), "quantized, sparse or empty"),
        (lambda: torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8), "quantized, sparse or empty"),
    ],
    ids=["repeated", "meta", "sparse", "quantized"],
)
@pytest.mark.filterwarnings("ignore")
def test_tensors_without_their_values_are_refused(tmp_path, make_tensor, message):
    torch.save({"weight": make_tensor()}, tmp_path / "weights.pt")
    refused(tmp_path / "weights.pt", message)


def safetensors(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
HEADERS = {
    "longer than the file": (safetensors({"a": ENTRY}, bytes(8), length=2**62), "damaged, probably truncated"),
    "too long": (safetensors(b'{"a": "' + b"x" * MAX_HEADER_BYTES + b'"}'), "has a header of"),
    "values beyond the end": (safetensors({"a": ENTRY | {"shape": [2**40], "data_offsets": [0, 2**42]}}), "truncated"),
    "values cut": (safetensors({"a": ENTRY}, bytes(7)), "truncated"),
    "values left over": (safetensors({"a": ENTRY}, bytes(9)), "truncated"),
    "another shape": (safetensors({"a": ENTRY | {"shape": [2**40, 2**40]}}, bytes(8)), "damaged"),
    "a hole": (safetensors({"a": ENTRY | {"data_offsets": [8, 16]}}, bytes(16)), "damaged"),
    "a name twice": (safetensors(b'{"a": %b, "a": %b}' % ((json.dumps(ENTRY).encode(),) * 2), bytes(8)), "'a' twice"),
    "text": (safetensors(b"{not JSON}"), "not hold valid JSON"),
    "nesting": (safetensors(b'{"a": ' + b"[" * 10**5), "not hold valid JSON"),
    "no offsets": (safetensors({"a": 3}), "truncated"),
    "an unknown type": (safetensors({"a": ENTRY | {"dtype": "F31"}}, bytes(8)), "damaged"),
    "not in UTF-8": (safetensors(b'{"\xff": 1}'), "not hold valid JSON"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_of_safetensors_cannot_claim_what_the_file_does_not_hold(tmp_path, name):
    content, message = HEADERS[name]
    (tmp_path / "model.safetensors").write_bytes(content)
    refused(tmp_path / "model.safetensors", message)


def test_only_files_that_may_be_large_are_read_beyond_the_limit(tmp_path):
    """The tokenizer.json of a large vocabulary is larger than the header of any file of weights."""
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps({"vocab": "x" * MAX_HEADER_BYTES}))
    assert len(read_json(path, max_bytes=None)["vocab"]) == MAX_HEADER_BYTES
    with pytest.raises(ValueError, match=f"bytes, more than {MAX_HEADER_BYTES}: it is damaged"):
        read_json(path)


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait forever
    (tmp_path / "folder").mkdir()
    for path, kind in (
        (tmp_path / "pipe", "a pipe"),
        (Path("/dev/zero"), "a device"),
        (tmp_path / "folder", "a folder"),
    ):
        refused(path, f"is {kind}. Pass a regular file")
    with pytest.raises(FileNotFoundError, match="nothing"):
        read_tensors(tmp_path / "nothing")
    with pytest.raises(ValueError, match="pipe is a pipe"):
        check_folder(tmp_path)
    (tmp_path / "pipe").unlink()
    check_folder(tmp_path)
    (tmp_path / "config.json").write_bytes(b" " * (MAX_HEADER_BYTES + 1))
    with pytest.raises(ValueError, match=r"config.json has .* bytes, more than"):
        check_folder(tmp_path)


@pytest.mark.parametrize("seed", range(4))
def test_bytes_that_flipped_are_a_clear_error_or_other_values(tmp_path, seed):
    """They never give another exception, a crash or a hang."""
    generator = random.Random(seed)
    tensors = {f"layer.{i}.weight": torch.arange(6.0).reshape(2, 3) for i in range(3)}
    buffers = [io.BytesIO(), io.BytesIO()]
    torch.save(tensors, buffers[0])
    torch.save({"model": tensors, "epoch": 1}, buffers[1], _use_new_zipfile_serialization=False)
    save_file(tensors, tmp_path / "whole.safetensors")
    files = [buffer.getvalue() for buffer in buffers] + [(tmp_path / "whole.safetensors").read_bytes()]
    refusals = []
    for number in range(90):
        content = bytearray(files[number % 3])
        for _ in range(generator.randint(1, 3)):
            content[generator.randrange(len(content))] = generator.randrange(256)
        if generator.random() < 0.2:
            del content[generator.randrange(len(content)) :]
        (tmp_path / "weights").write_bytes(content)
        try:
            assert all(isinstance(tensor, torch.Tensor) for tensor in read_tensors(tmp_path / "weights").values())
        except ValueError as error:
            refusals.append(str(error))
    assert 20 < len(refusals) < 90 and all(str(tmp_path) in message for message in refusals)


def write_sharded(folder: Path, weight_map: object, shards: dict[str, dict[str, torch.Tensor]] | None = None) -> None:
    """Write two files of weights and their index. The index may be any text."""
    folder.mkdir(exist_ok=True)
    for name, tensors in (
        shards or {"1.safetensors": {"a": torch.ones(2)}, "2.safetensors": {"b": torch.ones(3)}}
    ).items():
        save_file(tensors, folder / name)
    text = weight_map if isinstance(weight_map, str) else json.dumps(weight_map)
    (folder / "model.safetensors.index.json").write_text(text)


GOOD = {"a": "1.safetensors", "b": "2.safetensors"}


def test_shards_are_read_together(tmp_path):
    write_sharded(tmp_path, {"weight_map": GOOD})
    assert read_pretrained_tensors(tmp_path).keys() == {"a", "b"}


@pytest.mark.parametrize(
    ("index", "message"),
    [
        ({}, "has no `weight_map`"),
        ({"weight_map": {}}, "has no `weight_map`"),
        ({"weight_map": ["1.safetensors"]}, "has no `weight_map`"),
        ({"weight_map": {"a": 3}}, "has no `weight_map`"),
        ([], "a list instead of an object"),
        ("{", "not hold valid JSON"),
        ("[" * 10**5, "not hold valid JSON"),
        ('{"weight_map": %s}' % ("9" * 5000), "not hold valid JSON"),  # more digits than Python parses
        ('{"weight_map": {"a": "1.safetensors", "a": "2.safetensors"}}', "'a' twice"),
        ({"weight_map": GOOD | {"c": "../outside.safetensors"}}, "not the name of a file in its folder"),
        ({"weight_map": GOOD | {"c": "/etc/passwd"}}, "not the name of a file in its folder"),
        ({"weight_map": GOOD | {"c": "..\\outside.safetensors"}}, "not the name of a file in its folder"),
        ({"weight_map": GOOD | {"c": ".."}}, "not the name of a file in its folder"),
        ({"weight_map": GOOD | {"c": ""}}, "not the name of a file in its folder"),
        ({"weight_map": GOOD | {"c": "link.safetensors"}}, "is a link to a file outside"),
        ({"weight_map": GOOD | {"c": "pipe"}}, "lacks pipe"),
        ({"weight_map": GOOD | {"c": "3.safetensors"}}, "lacks 3.safetensors, which its index names"),
        ({"weight_map": GOOD | {"c": "2.safetensors"}}, "lacks c, which the index says"),
    ],
)
def test_an_index_that_is_wrong_is_refused(tmp_path, index, message):
    save_file({"c": torch.ones(1)}, tmp_path / "outside.safetensors")
    folder = tmp_path / "model"
    write_sharded(folder, index)
    (folder / "link.safetensors").symlink_to(tmp_path / "outside.safetensors")
    os.mkfifo(folder / "pipe")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_pretrained_tensors(folder)


def test_two_shards_that_contradict_each_other_are_refused(tmp_path):
    shards = {"1.safetensors": {"a": torch.ones(2)}, "2.safetensors": {"a": torch.zeros(2), "b": torch.ones(3)}}
    write_sharded(tmp_path, {"weight_map": GOOD}, shards)
    with pytest.raises(ValueError, match="different values for a"):
        read_pretrained_tensors(tmp_path)


def test_links_of_the_cache_of_the_hub_are_followed(tmp_path):
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    snapshot.mkdir(parents=True)
    write_sharded(snapshot, {"weight_map": GOOD})
    blobs = snapshot.parents[1] / "blobs"
    blobs.mkdir()
    for path in list(snapshot.iterdir()):
        path.rename(blobs / path.name)
        path.symlink_to(blobs / path.name)
    assert read_pretrained_tensors(snapshot).keys() == {"a", "b"}
