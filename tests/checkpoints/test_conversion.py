# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from transformers_flamingo.checkpoints.conversion import MappedKey, format_table, new_directory, read_tensors


class Harmful:
    def __reduce__(self):
        return os.mkdir, ("harmed",)


def test_a_file_that_would_run_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"weight": Harmful()}, "checkpoint.pt")
    with pytest.raises(ValueError, match="something other than tensors"):
        read_tensors("checkpoint.pt")
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


def test_formats(tmp_path):
    tensors = {"weight": torch.arange(3.0)}
    torch.save(tensors, tmp_path / "new.pt")
    torch.save(tensors, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"model_state_dict": tensors, "epoch": 1}, tmp_path / "training.pt")
    save_file(tensors, tmp_path / "file.safetensors")
    for name in ("new.pt", "old.pt", "training.pt", "file.safetensors"):
        assert torch.equal(read_tensors(tmp_path / name)["weight"], torch.arange(3.0)), name
    torch.save([1, 2], tmp_path / "list.pt")
    with pytest.raises(ValueError, match="no flat dict of tensors"):
        read_tensors(tmp_path / "list.pt")


def test_an_error_while_writing_leaves_nothing(tmp_path):
    def write_half():
        with new_directory(tmp_path / "out") as directory:
            (directory / "half").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert os.listdir(tmp_path) == []


def test_the_table_as_text():
    table = [MappedKey("a.b", "model.long", (2, 3)), MappedKey("attention.bias", None, ())]
    assert format_table(table) == (
        "SOURCE          TARGET      SHAPE\na.b             model.long  2x3\nattention.bias  (left out)"
    )
