# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Check that damaged checkpoints are found, and that complete ones load."""

import json
import logging
import os

import pytest
import torch
from runs import digest, model, source, trainer, write_pairs
from safetensors.torch import load_file, save_file

from transformers_flamingo import FlamingoModel
from transformers_flamingo.training import get_last_checkpoint, load_trainable
from transformers_flamingo.training.checkpointing import find_damage, write_manifest


def write_checkpoints(directory, *steps) -> None:
    """Write complete checkpoints of the given steps."""
    for step in steps:
        folder = directory / f"checkpoint-{step}"
        (folder / "nested").mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"x" * 100)
        (folder / "nested" / "state.json").write_text("{}")
        write_manifest(folder)


def test_the_last_complete_checkpoint_is_found(tmp_path):
    assert get_last_checkpoint(tmp_path) is None
    assert get_last_checkpoint(tmp_path / "no such folder") is None
    write_checkpoints(tmp_path, 8, 16, 100)
    (tmp_path / "checkpoint-best").mkdir()
    assert get_last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-100")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: os.truncate(folder / "model.safetensors", 99), "model.safetensors has 99 bytes, and had 100"),
        (lambda folder: os.remove(folder / "nested" / "state.json"), "nested/state.json is missing"),
        (lambda folder: os.remove(folder / "manifest.json"), "no manifest.json"),
    ],
)
def test_a_damaged_one_is_skipped(tmp_path, damage, message):
    write_checkpoints(tmp_path, 8, 16)
    damage(tmp_path / "checkpoint-16")
    assert message in find_damage(tmp_path / "checkpoint-16")
    assert get_last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-8")


def flip(path) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_one_changed_bit_is_damage_and_what_is_skipped_is_said(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    write_checkpoints(tmp_path, 8, 16, 24)
    flip(tmp_path / "checkpoint-24" / "model.safetensors")
    assert find_damage(tmp_path / "checkpoint-24", checksums=False) is None
    message = "the content of model.safetensors has changed since it was written"
    assert find_damage(tmp_path / "checkpoint-24") == message
    (tmp_path / "checkpoint-16" / "manifest.json").write_text('{"files": {"model.safetensors": 100}}')
    assert get_last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-8")
    assert message in caplog.text
    assert (
        "checkpoint-16 cannot be resumed from: its manifest.json is damaged, or of an earlier release" in caplog.text
    )


@pytest.mark.parametrize("manifest", ["", "{", "[]", '{"files": 3}', '{"files": {"a": {"size": 1}}}', "null"])
def test_a_manifest_that_is_not_one(tmp_path, manifest):
    write_checkpoints(tmp_path, 8)
    (tmp_path / "checkpoint-8" / "manifest.json").write_text(manifest)
    assert "manifest.json is damaged" in find_damage(tmp_path / "checkpoint-8")


def test_every_file_is_on_the_disk_before_the_manifest(tmp_path, monkeypatch):
    synced, manifest = [], []
    fsync, replace = os.fsync, os.replace

    def spy_fsync(descriptor):
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        return fsync(descriptor)

    def spy_replace(source, target):
        manifest.append((str(target), list(synced)))
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    write_checkpoints(tmp_path, 8)
    ((target, before),) = manifest
    folder = tmp_path / "checkpoint-8"
    assert target == str(folder / "manifest.json")
    assert {str(folder / "model.safetensors"), str(folder / "nested" / "state.json"), str(folder)} <= set(before)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "trainer_state.json", "run_state_0.json"])
def test_a_run_does_not_resume_from_changed_bytes(tmp_path, name):
    sources = [source("a", write_pairs(tmp_path / "pairs", 8))]
    kwargs = {"max_steps": 2, "save_strategy": "steps", "save_steps": 1}
    trainer(tmp_path / "out", sources, **kwargs).train()
    flip(tmp_path / "out" / "checkpoint-2" / name)
    with pytest.raises(ValueError, match=f"cannot be resumed from: the content of {name} has changed"):
        trainer(tmp_path / "out", sources, **kwargs).train(str(tmp_path / "out" / "checkpoint-2"))
    resumed = trainer(tmp_path / "out", sources, **kwargs)
    resumed.train(resume_from_checkpoint=True)
    assert resumed._run_state.steps_before == 1


def test_a_checkpoint_without_its_optimizer_is_not_resumed(tmp_path):
    sources = [source("a", write_pairs(tmp_path / "pairs", 8))]
    kwargs = {"max_steps": 1, "save_strategy": "steps", "save_steps": 1, "save_only_model": True}
    trainer(tmp_path / "out", sources, **kwargs).train()
    with pytest.raises(ValueError, match="saved with `save_only_model`"):
        trainer(tmp_path / "out", sources, **kwargs).train(resume_from_checkpoint=True)


def test_a_damaged_one_with_a_higher_step_does_not_cost_a_complete_one(tmp_path):
    write_checkpoints(tmp_path, 8, 16)
    (tmp_path / "checkpoint-16" / "manifest.json").unlink()
    sources = [source("a", write_pairs(tmp_path / "pairs", 8))]
    trainer(tmp_path, sources, max_steps=1, save_strategy="steps", save_steps=1, save_total_limit=1).train()
    assert get_last_checkpoint(tmp_path) is not None
    assert not (tmp_path / "checkpoint-16").exists()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("trained")
    path = write_pairs(root / "pairs", 8)
    run = trainer(
        root / "out", [source("a", path)], max_steps=2, save_strategy="steps", save_steps=2, save_trainable_only=True
    )
    run.train()
    return run.model, root / "out" / "checkpoint-2", path


def test_a_trainable_only_checkpoint_holds_the_trained_parameters_and_the_config(trained):
    flamingo, checkpoint, _ = trained
    saved = load_file(checkpoint / "trainable.safetensors")
    assert saved.keys() == {name for name, p in flamingo.named_parameters() if p.requires_grad}
    assert {"input_token_rows.token_97", "input_token_rows.token_98"} <= saved.keys()
    assert not list(checkpoint.glob("model*.safetensors"))
    assert json.loads((checkpoint / "config.json").read_text())["model_type"] == "flamingo"


def test_it_loads_into_the_same_backbones(trained):
    flamingo, checkpoint, _ = trained
    fresh = model()
    assert digest(fresh) != digest(flamingo)
    # A moved model has token rows with their own memory until it runs
    load_trainable(fresh.double().float(), checkpoint)
    assert digest(fresh) == digest(flamingo)
    fresh(torch.tensor([[5, 97]]))
    assert digest(fresh) == digest(flamingo)


def test_a_run_at_its_end_resumes_and_takes_no_step(trained):
    flamingo, checkpoint, path = trained
    resumed = trainer(checkpoint.parent, [source("a", path)], max_steps=2)
    resumed.train(resume_from_checkpoint=True)
    assert digest(resumed.model) == digest(flamingo)


def test_another_set_of_parameters_is_refused_and_nothing_loaded(trained, tmp_path):
    _, checkpoint, _ = trained
    saved = load_file(checkpoint / "trainable.safetensors")
    unfrozen = model()
    unfrozen.unfreeze_backbones()
    before = digest(unfrozen)
    with pytest.raises(
        ValueError, match=r"missing \(language_model.*and 2 are not trainable in it \(input_token_rows"
    ):
        load_trainable(unfrozen, checkpoint)
    assert digest(unfrozen) == before

    save_file({**saved, "resampler.latents": torch.zeros(4, 24)}, tmp_path / "trainable.safetensors")
    with pytest.raises(ValueError, match=r"resampler.latents: saved \(4, 24\), current \(5, 24\)"):
        load_trainable(model(), tmp_path)
    with pytest.raises(FileNotFoundError, match="no trainable.safetensors"):
        load_trainable(model(), tmp_path / "other")


@pytest.mark.parametrize("text", ["gpt2", "opt", "gpt_neox", "llama"])
def test_a_full_checkpoint_of_any_language_model_resumes_and_loads(tmp_path, text):
    """Resume although transformers saves some parameters under names of older releases, which a stock Trainer ignores."""
    sources = [source("a", write_pairs(tmp_path / "pairs", 8))]
    first = trainer(
        tmp_path / "out", sources, flamingo=model(text=text), max_steps=2, save_strategy="steps", save_steps=1
    )
    first.train()
    other = model(text=text, seed=1)
    resumed = trainer(tmp_path / "out", sources, flamingo=other, max_steps=2)
    resumed.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-1"))
    assert digest(resumed.model) == digest(first.model)
    assert digest(FlamingoModel.from_pretrained(tmp_path / "out" / "checkpoint-2")) == digest(first.model)


def test_a_missing_parameter_is_an_error(tmp_path):
    sources = [source("a", write_pairs(tmp_path / "pairs", 8))]
    trainer(tmp_path / "out", sources, max_steps=1, save_strategy="steps", save_steps=1).train()
    checkpoint = tmp_path / "out" / "checkpoint-1"
    weights = load_file(checkpoint / "model.safetensors")
    del weights["resampler.norm.bias"]
    save_file(weights, checkpoint / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="model.safetensors has"):
        trainer(tmp_path / "out", sources).train(resume_from_checkpoint=str(checkpoint))
    write_manifest(checkpoint)
    with pytest.raises(ValueError, match=r"it lacks \['resampler.norm.bias'\]"):
        trainer(tmp_path / "out", sources).train(resume_from_checkpoint=str(checkpoint))
