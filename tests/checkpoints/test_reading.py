# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Weights in files that others made: every damaged, hostile or unusual one is one clear error, within bounded memory."""

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from transformers_flamingo.checkpoints.reading import read_tensors


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


def test_a_file_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Harmful()}, "checkpoint.pt")
    with pytest.raises(ValueError, match=r"something other than tensors \(\w+\.mkdir\)") as error:
        read_tensors("checkpoint.pt")
    assert "weights_only" not in str(error.value)  # torch's advice would run it
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
def test_another_kind_of_file_is_named_as_such(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match="not a file of weights.*Git LFS pointer or a web page"):
        read_tensors(tmp_path / name)


def test_a_pickle_of_nonsense_is_damaged(tmp_path):
    (tmp_path / "weights.pt").write_bytes(b"\x80\x02hello\n")
    with pytest.raises(ValueError, match="damaged"):
        read_tensors(tmp_path / "weights.pt")


def test_formats(tmp_path):
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
