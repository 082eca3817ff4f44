# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Check that the statistics in the log are those that counting gives."""

import json
import math
from itertools import islice

import pytest
import runs
import torch
from datasets import Dataset
from factory import tiny_processor
from processes import launch
from runs import NO_DROPOUT, model, source, trainer, write_pairs, write_shards

from transformers_flamingo.training import FlamingoDataCollator, FlamingoTrainer, FlamingoTrainingArguments


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("data")
    return {"pairs": write_pairs(root / "pairs", 11), "shards": write_shards(root / "shards", 2, 8)}


def run(tmp_path, sources, *, resume=None, **kwargs) -> FlamingoTrainer:
    trained = trainer(tmp_path, sources, flamingo=model(text_kwargs=NO_DROPOUT), **kwargs)
    trained.output = trained.train(resume_from_checkpoint=resume)
    return trained


def steps_of(trained) -> list[dict]:
    return [entry for entry in trained.state.log_history if "loss" in entry]


def summary_of(trained) -> dict:
    (summary,) = (entry for entry in trained.state.log_history if "train_loss" in entry)
    return summary


def test_an_epoch_is_the_rows_trained_on_over_those_there_are(tmp_path, paths):
    trained = run(tmp_path, [source("a", paths["pairs"], batch_size=3)], max_steps=4, gradient_accumulation_steps=2)
    assert [entry["epoch"] for entry in steps_of(trained)] == [6 / 11, 12 / 11, 18 / 11, 24 / 11]
    assert summary_of(trained)["epoch"] == trained.state.epoch == 24 / 11


@pytest.mark.parametrize("kind", ["several", "stream"])
def test_without_a_length_there_is_no_epoch(tmp_path, paths, kind):
    several = [source("a", paths["pairs"]), source("b", paths["pairs"])]
    stream = [source("a", paths["shards"], streaming=True)]
    trained = run(tmp_path, several if kind == "several" else stream, max_steps=2, save_strategy="steps", save_steps=2)
    assert len(trained.state.log_history) == 3
    assert not any("epoch" in entry for entry in trained.state.log_history)
    trained.save_state()
    for path in (tmp_path / "trainer_state.json", tmp_path / "checkpoint-2" / "trainer_state.json"):
        assert json.loads(path.read_text())["epoch"] is None


@pytest.mark.parametrize("strategy", ["accumulate", "round_robin"])
def test_rows_and_steps_per_second_are_those_of_this_run(tmp_path, paths, strategy):
    sources = [source("a", paths["pairs"], batch_size=5), source("b", paths["shards"], batch_size=1, streaming=True)]
    trained = run(
        tmp_path, sources, max_steps=4, gradient_accumulation_steps=2, mixture_strategy=strategy, logging_steps=3
    )
    rows = 4 * 2 * (5 + 1) if strategy == "accumulate" else 2 * 2 * (5 + 1)
    summary = summary_of(trained)
    assert summary["train_samples_per_second"] * summary["train_runtime"] == pytest.approx(rows, rel=0.01)
    assert summary["train_steps_per_second"] * summary["train_runtime"] == pytest.approx(4, rel=0.01)
    assert summary["train_runtime"] > 0
    assert "total_flos" not in summary


def test_the_learning_rate_is_that_of_all_but_the_gates(tmp_path, paths):
    kwargs = {
        "learning_rate": 2e-3,
        "gate_learning_rate_multiplier": 20,
        "lr_scheduler_type": "linear",
        "max_steps": 4,
    }
    trained = run(tmp_path, [source("a", paths["pairs"])], **kwargs)
    expected = [2e-3, 1.5e-3, 1e-3, 0.5e-3]  # the learning rate of each step
    assert [entry["learning_rate"] for entry in steps_of(trained)] == pytest.approx(expected)


@pytest.mark.parametrize("logging_steps", [1, 2, 3, 100])
def test_the_loss_of_the_training_is_the_mean_over_all_steps(tmp_path, paths, logging_steps):
    sources = [source("a", paths["pairs"], weight=0.5), source("b", paths["shards"], streaming=True)]
    each = [entry["loss"] for entry in steps_of(run(tmp_path / "each", sources, max_steps=5))]
    trained = run(tmp_path / "some", sources, max_steps=5, logging_steps=logging_steps, gradient_accumulation_steps=1)
    mean = pytest.approx(sum(each) / 5, rel=1e-6)
    assert summary_of(trained)["train_loss"] == mean
    assert trained.output.training_loss == mean
    assert trained.output.metrics["train_loss"] == mean


def test_the_statistics_of_a_resumed_run_are_those_of_the_whole(tmp_path, paths):
    sources = [source("a", paths["pairs"], batch_size=3)]
    kwargs = {
        "logging_steps": 2,
        "max_steps": 7,
        "save_strategy": "steps",
        "save_steps": 1,
        "include_num_input_tokens_seen": "non_padding",
    }
    whole = run(tmp_path / "run", sources, **kwargs)
    batches = list(islice(trainer(tmp_path / "x", sources).get_train_dataloader(), 7))
    tokens = [int(batch.inputs["attention_mask"].sum()) for batch in batches]
    resumed = run(tmp_path / "run", sources, resume=str(tmp_path / "run" / "checkpoint-3"), **kwargs)
    for trained in (whole, resumed):
        summary = summary_of(trained)
        assert summary["num_input_tokens_seen"] == sum(tokens)
        assert summary["epoch"] == 21 / 11
        assert [entry["num_input_tokens_seen"] for entry in steps_of(trained)] == [
            sum(tokens[:step]) for step in (2, 4, 6)
        ]
    assert summary_of(resumed)["train_loss"] == summary_of(whole)["train_loss"]
    assert resumed.output.training_loss == whole.output.training_loss
    # The speed is that of this part, of 4 steps with 3 rows each
    summary = summary_of(resumed)
    assert summary["train_steps_per_second"] * summary["train_runtime"] == pytest.approx(4, rel=0.01)
    assert summary["train_samples_per_second"] * summary["train_runtime"] == pytest.approx(12, rel=0.01)
    whole_losses, resumed_losses = ([entry["loss/a"] for entry in steps_of(trained)] for trained in (whole, resumed))
    assert resumed_losses == whole_losses


def test_the_statistics_of_two_processes_are_those_of_one(tmp_path, paths):
    records = []
    for name, world_size, size in (("one", 1, 4), ("two", 2, 2)):
        codes = launch(
            runs.train,
            tmp_path / f"{name}.json",
            tmp_path / name,
            [source("a", paths["pairs"], batch_size=size)],
            world_size=world_size,
            model={"text_kwargs": NO_DROPOUT},
            max_steps=3,
            logging_steps=2,
            include_num_input_tokens_seen="non_padding",
        )
        assert codes == [0] * world_size
        records.append(json.loads((tmp_path / f"{name}.json").read_text()))
    assert [record["world_size"] for record in records] == [1, 2]
    one, two = (next(e for e in record["logs"] if "train_loss" in e) for record in records)
    assert two["train_loss"] == pytest.approx(one["train_loss"], rel=1e-4)
    assert two["epoch"] == one["epoch"] == 12 / 11
    assert two["num_input_tokens_seen"] == one["num_input_tokens_seen"]
    for summary in (one, two):
        assert summary["train_samples_per_second"] * summary["train_runtime"] == pytest.approx(12, rel=0.01)


@pytest.mark.parametrize("packing", [False, True])
def test_the_statistics_of_an_ordinary_dataset(tmp_path, packing):
    rows = Dataset.from_list([{"text": "w5 w6 w7" + " w8" * (i % 3)} for i in range(7)])
    arguments = FlamingoTrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        num_train_epochs=2,
        per_device_train_batch_size=2,
        packing=packing,
        logging_steps=3,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        save_strategy="no",
    )
    trained = FlamingoTrainer(
        model(text_kwargs=NO_DROPOUT),
        arguments,
        train_dataset=rows,
        data_collator=FlamingoDataCollator(tiny_processor(), max_length=16, packing=packing),
    )
    trained.train()
    summary = summary_of(trained)
    assert summary["epoch"] == 2
    assert summary["train_samples_per_second"] * summary["train_runtime"] == pytest.approx(14, rel=0.01)
    losses = [entry["loss"] * 3 for entry in steps_of(trained)]
    assert [entry["step"] for entry in steps_of(trained)] == [3, 6]
    assert 6 * min(losses) / 3 < summary["train_loss"] * 8 < sum(losses) + 2 * max(losses)


def test_a_loss_of_nan_stops_the_training(tmp_path, paths, monkeypatch):
    def spoiled(steps: set[int], **kwargs):
        run = trainer(
            tmp_path / "out", [source("a", paths["pairs"])], save_strategy="steps", save_steps=1, max_steps=9, **kwargs
        )
        compute_loss = run.compute_loss

        def compute(*args, **kwargs):
            loss = compute_loss(*args, **kwargs)
            # Without a gradient: the weights stay finite
            return loss.detach() * math.nan + 0 * loss.nan_to_num() if run.state.global_step in steps else loss

        monkeypatch.setattr(run, "compute_loss", compute)
        return run

    run = spoiled({2, 3, 4, 5, 6})
    with pytest.raises(ValueError, match="NaN or infinite for the last 3 optimizer steps up to step 5"):
        run.train()
    assert run.state.global_step == 5
    run = spoiled({2, 3, 5, 6, 8})  # never three in a row
    run.train()
    assert run.state.global_step == 9
    run = spoiled({2}, max_non_finite_steps=1)
    with pytest.raises(ValueError, match="for the last 1 optimizer steps up to step 3"):
        run.train()
    run = spoiled({6, 7, 8}, logging_strategy="no")
    with pytest.raises(ValueError, match="for the last 3 optimizer steps up to step 9"):
        run.train()


def test_weights_of_nan_are_not_saved_over_good_ones(tmp_path, paths):
    good = run(tmp_path, [source("a", paths["pairs"])], max_steps=2, save_strategy="steps", save_steps=1)
    good.save_model()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")}
    assert len(before) == 3
    with torch.no_grad():
        good.model.resampler.latents[0, 0] = math.inf
    with pytest.raises(ValueError, match="not saved and not published"):
        good.save_model()
    with pytest.raises(ValueError, match="not saved and not published"):
        good._save_checkpoint(good.model, trial=None)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")} == before


def test_the_files_of_a_run_are_valid_json_even_if_its_losses_are_nan(tmp_path, paths):
    def refuse(constant):
        raise ValueError(constant)

    trained = run(tmp_path, [source("a", paths["pairs"])], max_steps=1)
    trained.state.log_history.append({"loss": math.nan, "step": 1})
    trained.state.best_metric = -math.inf
    trained._run_state.log.losses = [math.nan]
    trained._save_checkpoint(trained.model, trial=None)
    trained.save_state()
    files = sorted(tmp_path.rglob("*.json"))
    assert {"trainer_state.json", "run_state_0.json", "manifest.json"} < {path.name for path in files}
    for path in files:
        json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse)
    resumed = trainer(tmp_path, [source("a", paths["pairs"])], max_steps=2)
    resumed.train(resume_from_checkpoint=True)
    assert math.isnan(steps_of(resumed)[-1]["loss/a"])
