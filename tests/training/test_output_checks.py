# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""What a training will save is compared with the free space of the disk before its first step."""

import shutil
from collections import namedtuple

import pytest
import torch
from runs import model, source, trainer, write_pairs

from transformers_flamingo.training import FlamingoTrainingArguments, get_last_checkpoint
from transformers_flamingo.training.output_checks import check_space, estimate_checkpoint


Usage = namedtuple("Usage", "total used free")


def arguments(tmp_path, **kwargs) -> FlamingoTrainingArguments:
    return FlamingoTrainingArguments(str(tmp_path / "out"), use_cpu=True, **kwargs)


def layers() -> torch.nn.Module:
    """Return 1,000 frozen and 200 trained parameters of 4 bytes."""
    module = torch.nn.ParameterList([torch.zeros(1000), torch.zeros(200)])
    module[0].requires_grad_(False)
    return module


@pytest.mark.parametrize(
    ("fields", "weights", "checkpoint"),
    [
        ({}, 4800, 4800 + 1600),
        ({"save_only_model": True}, 4800, 4800),
        ({"save_trainable_only": True}, 800, 2400),
        ({"optim": "adamw_bnb_8bit"}, 4800, 4800 + 400),
        ({"optim": "sgd"}, 4800, 4800 + 800),
    ],
)
def test_the_estimate(tmp_path, fields, weights, checkpoint):
    assert estimate_checkpoint(layers(), arguments(tmp_path, **fields)) == (weights, checkpoint)


def test_it_is_about_what_is_written(tmp_path):
    run = trainer(
        tmp_path / "out",
        [source("a", write_pairs(tmp_path / "pairs", 8))],
        flamingo=model(),
        max_steps=1,
        save_strategy="steps",
    )
    run.train()
    _, estimated = estimate_checkpoint(run.model, run.args)
    weights = ("model.safetensors", "optimizer.pt")
    written = sum((tmp_path / "out" / "checkpoint-1" / name).stat().st_size for name in weights)
    assert estimated == pytest.approx(written, rel=0.35)  # of tensors so small, headers are a large part


def test_too_little_space_is_an_error_before_the_start_and_tight_space_a_warning(tmp_path, monkeypatch, caplog):
    # 10 checkpoints of 6,400 bytes, and the model of 4,800
    args = arguments(tmp_path, save_steps=10, max_steps=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 11_199))
    with pytest.raises(
        OSError, match=r"A checkpoint and the model at the end take about 0\.0 MB, .* Nothing was trained"
    ):
        check_space(layers(), args, 100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 11_200))
    check_space(layers(), args, 100)
    assert "The 10 checkpoints that are kept at a time" in caplog.text
    caplog.clear()
    check_space(layers(), args, 100, first_step=90)
    assert not caplog.text
    check_space(layers(), arguments(tmp_path, save_steps=10, save_total_limit=2), 100)
    assert "The 3 checkpoints" in caplog.text  # the new one, before an old one is deleted
    caplog.clear()
    check_space(layers(), arguments(tmp_path, save_strategy="no"), 100)
    assert not caplog.text


def test_a_training_looks_before_its_first_step(tmp_path, monkeypatch):
    run = trainer(tmp_path / "out", [source("a", write_pairs(tmp_path / "pairs", 8))], save_strategy="steps")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(0, 0, 1000))
    with pytest.raises(OSError, match="the training would fail when it saves"):
        run.train()
    assert run.state.global_step == 0
    assert get_last_checkpoint(tmp_path / "out") is None
