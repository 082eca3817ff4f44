# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
import os
import pickle
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from factory import tiny_config, tiny_text_config, tiny_vision_config
from safetensors.torch import save_file
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from transformers_flamingo import FlamingoImageProcessor
from transformers_flamingo.checkpoints.conversion import (
    MappedKey,
    check_rows,
    format_table,
    load_image_processor,
    load_tokenizer,
    new_directory,
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
    with pytest.raises(ValueError, match="no file of weights.*Git LFS pointer or a web page"):
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
    (tmp_path / "out").mkdir()
    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert os.listdir(tmp_path) == ["out"]


def test_parents_are_made_and_go_again_with_an_error(tmp_path):
    for output_dir, error in ((tmp_path / "a" / "b", None), (tmp_path / "c" / "d", ValueError)):
        with nullcontext() if error is None else pytest.raises(error), new_directory(output_dir):
            assert output_dir.parent.is_dir()
            if error is not None:
                raise error
    assert os.listdir(tmp_path) == ["a"] and os.listdir(tmp_path / "a") == ["b"]


def test_what_a_killed_run_left_is_removed_by_the_next(tmp_path):
    (tmp_path / ".out.partial").mkdir()
    (tmp_path / ".out.partial" / "half").write_text("half")
    with new_directory(tmp_path / "out") as directory:
        (directory / "whole").write_text("whole")
    assert os.listdir(tmp_path) == ["out"] and os.listdir(tmp_path / "out") == ["whole"]


def test_only_a_new_or_empty_directory_is_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    for name, what in (("file", "a file"), ("full", "not empty"), ("empty", "the current directory")):
        with pytest.raises(FileExistsError, match=f"{name} exists and is {what}"), new_directory(tmp_path / name):
            pass
    with pytest.raises(FileExistsError, match="the current directory"), new_directory("."):
        pass
    assert sorted(os.listdir(tmp_path)) == ["empty", "file", "full"]


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_its_target_is_written(tmp_path, exists):
    (tmp_path / "link").symlink_to("target")
    if exists:
        (tmp_path / "target").mkdir()
    with new_directory(tmp_path / "link") as directory:
        (directory / "whole").write_text("whole")
    assert (tmp_path / "link").is_symlink() and os.listdir(tmp_path / "target") == ["whole"]


@pytest.mark.parametrize("name", ["gpt2", "mpt", "llama", "gemma"])
def test_a_directory_without_a_tokenizer_is_refused(tmp_path, name):
    """transformers makes one of special tokens alone, or none."""
    tiny_text_config(name).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="no tokenizer in .*--tokenizer"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(("num_tokens", "num_unpadded"), [(99, 0), (98, 0), (90, 1), (60, 0), (93, 0)])
def test_embeddings_for_other_tokens_are_a_warning_padded_ones_are_not(caplog, num_tokens, num_unpadded):
    config = tiny_config()  # 99 rows
    check_rows(config, num_tokens, num_unpadded)
    assert ("embeddings for 99 tokens" in caplog.text) == (num_tokens != 99)
    caplog.clear()
    config.text_config.vocab_size = 104  # padded to a multiple of 8
    check_rows(config, 99)
    check_rows(config, 104)
    config.text_config.vocab_size = 105  # and a token later
    check_rows(config, 100, num_unpadded=1)
    assert caplog.text == ""


def test_special_tokens_without_a_row_are_an_error():
    config = tiny_config()
    config.text_config.vocab_size = 98
    with pytest.raises(ValueError, match="'image_token_id': 98.*embeddings for 98 tokens"):
        check_rows(config, 99)


def test_all_settings_of_a_clip_processor_are_kept(tmp_path):
    settings = {"size": {"shortest_edge": 10}, "crop_size": {"height": 8, "width": 8}}
    settings |= {"resample": 2, "do_normalize": False, "rescale_factor": 1 / 127.5}
    stock = CLIPImageProcessorPil(**settings)
    stock.save_pretrained(tmp_path)
    loaded = load_image_processor(tmp_path, tiny_vision_config(), FlamingoImageProcessor)
    assert type(loaded) is FlamingoImageProcessor
    image = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)  # a crop where both rules agree
    assert np.array_equal(loaded(image)["pixel_values"][0], stock(image)["pixel_values"][0])


def test_an_encoder_that_is_no_clip_keeps_its_own_processor(tmp_path):
    config = tiny_vision_config("siglip")
    config.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="siglip_vision_model it is not known how pixels are scaled"):
        load_image_processor(tmp_path, config, FlamingoImageProcessor)
    stock = SiglipImageProcessorPil(size={"height": 8, "width": 8})
    stock.save_pretrained(tmp_path)
    loaded = load_image_processor(tmp_path, config, FlamingoImageProcessor)
    image = np.full((20, 30, 3), 200, dtype=np.uint8)
    assert np.array_equal(loaded(image)["pixel_values"][0], stock(image)["pixel_values"][0])


def test_a_clip_without_a_processor_gets_clips_and_one_of_another_size_is_an_error(tmp_path):
    config = tiny_vision_config()
    config.save_pretrained(tmp_path)
    loaded = load_image_processor(tmp_path, config, FlamingoImageProcessor)
    assert loaded(np.zeros((20, 30, 3), dtype=np.uint8), return_tensors="pt")["pixel_values"].shape == (1, 3, 8, 8)
    CLIPImageProcessorPil().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="crops to 224 x 224, but its encoder takes 8 x 8"):
        load_image_processor(tmp_path, config)


def test_the_table_as_text():
    table = [MappedKey("a.b", "model.long", (2, 3)), MappedKey("bias", None, (), "an old buffer")]
    assert format_table(table) == (
        "SOURCE  TARGET                     SHAPE\n"
        "a.b     model.long                 2x3\n"
        "bias    (left out: an old buffer)  scalar"
    )
