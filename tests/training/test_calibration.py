# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Check that a new model standardizes its features by its training images before the first step, and a trained one does not."""

import json
import logging

import pytest
import torch
from datasets import Dataset
from factory import tiny_flamingo, tiny_processor
from PIL import Image
from runs import NO_DROPOUT, losses, model, numbers, source, train, trainer, write_pairs

from transformers_flamingo.data import FlamingoDataCollator
from transformers_flamingo.training import DataMixture, FlamingoTrainer, FlamingoTrainingArguments, load_trainable
from transformers_flamingo.training.calibration import calibration_batches


@pytest.fixture
def warnings(caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    return caplog


@pytest.fixture
def sources(tmp_path):
    return [source("a", write_pairs(tmp_path / "pairs", 10)), source("b", write_pairs(tmp_path / "more", 5, first=20))]


def statistics(flamingo) -> torch.Tensor | None:
    return flamingo.resampler.standardization.mean


def test_a_new_model_is_calibrated_and_trains_alike_otherwise(tmp_path, sources):
    new = model(gates=0.0)
    run = trainer(tmp_path / "out", sources, flamingo=new, max_steps=2)
    run.train()
    again = model(gates=0.0)
    batches = calibration_batches(run.mixture, None, 1, seed=run.args.seed)
    again.calibrate_features(batches)
    assert torch.equal(statistics(new), statistics(again))
    assert len(statistics(new).unique(dim=0)) > 1  # of each position
    # Neither the order of the data nor any random number changed: with closed gates the first loss is the same
    off = trainer(tmp_path / "off", sources, flamingo=model(gates=0.0), max_steps=2, calibrate_features=False)
    off.train()
    assert statistics(off.model) is None
    assert losses(run.state.log_history)[0]["loss"] == losses(off.state.log_history)[0]["loss"]


@pytest.mark.parametrize("setting", [None, False, True])
def test_a_trained_model_keeps_its_features_unless_asked(tmp_path, sources, setting, warnings):
    run = trainer(tmp_path / "out", sources, max_steps=1, calibrate_features=setting)
    run.train()
    assert (statistics(run.model) is None) == (setting is not True)
    assert ("already uses its images" in warnings.text) == (setting is True)


def test_a_second_training_keeps_the_statistics(tmp_path, sources):
    run = trainer(tmp_path / "out", sources, flamingo=model(gates=0.0), max_steps=1)
    run.train()
    first = statistics(run.model).clone()
    other = source("c", write_pairs(tmp_path / "other", 10, first=40))
    trainer(tmp_path / "second", [other], flamingo=run.model, max_steps=1).train()
    assert torch.equal(statistics(run.model), first)


@pytest.mark.parametrize("trainable_only", [False, True])
def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path, sources, trainable_only):
    kwargs = {
        "model": {"gates": 0.0, "text_kwargs": NO_DROPOUT},
        "save_strategy": "steps",
        "save_steps": 2,
        "save_trainable_only": trainable_only,
    }
    train(tmp_path / "whole.json", tmp_path / "whole", sources, max_steps=4, **kwargs)
    train(tmp_path / "half.json", tmp_path / "half", sources, max_steps=2, **kwargs)
    train(tmp_path / "half.json", tmp_path / "half", sources, max_steps=4, **kwargs)
    whole, half = (json.loads((tmp_path / name).read_text()) for name in ("whole.json", "half.json"))
    assert half["begun_at"] == 2
    assert half["digest"] == whole["digest"]


def test_trained_parameters_alone_bring_the_statistics(tmp_path, sources):
    kwargs = {"max_steps": 1, "save_strategy": "steps", "save_trainable_only": True}
    run = trainer(tmp_path / "out", sources, flamingo=model(gates=0.0), **kwargs)
    run.train()
    fresh = model(gates=0.0)
    load_trainable(fresh, tmp_path / "out" / "checkpoint-1")
    assert torch.equal(statistics(fresh), statistics(run.model))
    assert fresh.config.resampler_feature_positions == len(statistics(fresh))
    # Those of a run without statistics take them away again
    trainer(tmp_path / "off", sources, flamingo=model(gates=0.0), calibrate_features=False, **kwargs).train()
    load_trainable(fresh, tmp_path / "off" / "checkpoint-1")
    assert statistics(fresh) is None
    assert fresh.config.resampler_feature_positions == 0


def test_kept_features_give_the_same_statistics(tmp_path, monkeypatch):
    path = write_pairs(tmp_path / "pairs", 10)
    means = []
    for is_kept in (False, True):
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
        run = trainer(
            tmp_path / f"out-{is_kept}",
            [source("a", path, cache_features=is_kept)],
            flamingo=model(gates=0.0),
            max_steps=1,
        )
        run.train()
        means.append(statistics(run.model))
    torch.testing.assert_close(*means, atol=1e-6, rtol=0)


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_stock_dataset(tmp_path, is_stream):
    rows = [{"text": f"<image>w{10 + i}", "image": Image.new("RGB", (16, 16), (i * 20, 0, 0))} for i in range(8)]
    dataset = Dataset.from_list(rows)
    run = FlamingoTrainer(
        model(gates=0.0),
        FlamingoTrainingArguments(str(tmp_path), max_steps=1, use_cpu=True, save_strategy="no", report_to="none"),
        FlamingoDataCollator(tiny_processor()),
        dataset.to_iterable_dataset() if is_stream else dataset,
    )
    run.train()
    direct = model(gates=0.0)
    direct.calibrate_features([FlamingoDataCollator(tiny_processor())(rows)])
    torch.testing.assert_close(statistics(run.model), statistics(direct), atol=1e-5, rtol=0)


def test_one_image_is_too_few(tmp_path, warnings):
    sources = [source("a", write_pairs(tmp_path / "pairs", 1), batch_size=1)]
    run = trainer(tmp_path / "out", sources, flamingo=model(gates=0.0), max_steps=1)
    run.train()
    assert statistics(run.model) is None
    assert "Vision features are not standardized. Features were to be standardized by 1 images." in warnings.text
    # Two files with one and the same image
    sources.append(source("b", write_pairs(tmp_path / "more", 1, first=256), batch_size=1))
    with pytest.raises(ValueError, match="all of them have the same features"):
        trainer(tmp_path / "out", sources, flamingo=model(gates=0.0), max_steps=1, calibrate_features=True).train()


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_images_of_a_small_mixture_are_read_once(tmp_path, batch_size):
    mixture = DataMixture([source("a", write_pairs(tmp_path / "pairs", 5), batch_size=batch_size)], tiny_processor())
    read = [
        number for batch in calibration_batches(mixture, None, 1, seed=0) for number in numbers(batch["input_ids"])
    ]
    assert set(read) == set(range(5))
    assert len(read) == (5 if batch_size == 1 else 8)  # the last batch is full


def test_text_alone_has_no_statistics(tmp_path, warnings):
    rows = [{"text": f"w{10 + i} w5"} for i in range(4)]
    run = FlamingoTrainer(
        tiny_flamingo(gates=0.0),
        FlamingoTrainingArguments(str(tmp_path), max_steps=1, use_cpu=True, save_strategy="no", report_to="none"),
        FlamingoDataCollator(tiny_processor()),
        Dataset.from_list(rows),
    )
    run.train()
    assert "by 0 images" in warnings.text
