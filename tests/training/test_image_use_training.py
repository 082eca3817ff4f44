# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Train models that use their images and models that do not: what is said, logged, kept and drawn."""

import json
import logging
from collections.abc import Iterator

import pytest
import runs
import torch
from datasets import Dataset
from factory import IMAGE_SIZE, tiny_flamingo, tiny_processor
from peft import get_peft_model
from PIL import Image
from processes import launch
from runs import NO_DROPOUT, digest, losses, model, source, trainer, write_pairs
from transformers import Trainer, TrainingArguments

from transformers_flamingo.training import (
    DataSource,
    FlamingoDataCollator,
    FlamingoTrainer,
    FlamingoTrainingArguments,
    ImageUseCallback,
    lora_config,
    measure_image_use,
)
from transformers_flamingo.training.image_use import ImageUseMeasurement
from transformers_flamingo.training.image_use_history import ImageUseHistory, choose_interval, count_settling_steps
from transformers_flamingo.training.report import plot_run


HELP = (
    "What helps: train longer; look at the data with `flamingo check` (do the images differ, and does the text depend on them?); "
    "lower `resampler_learning_rate_multiplier` to 0.1; raise `learning_rate`; standardize the features (`calibrate_features`), unless the log says that it was done; if the gates stay "
    "near 0 (`gate/...` in the log), let them start open (`cross_attention_zero_init: projections`), or raise "
    "`gate_learning_rate_multiplier`."
)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> str:
    return write_pairs(tmp_path_factory.mktemp("data") / "pairs", 11)


@pytest.fixture
def said() -> Iterator[list[str]]:
    """Collect what is said of the use of images, as `LEVEL text`."""
    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(f"{record.levelname} {record.getMessage()}")
    logger = logging.getLogger("transformers_flamingo.training.image_use_history")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def measured(trained: FlamingoTrainer) -> list[dict]:
    prefixes = ("image_use", "branch", "step")
    entries = [{k: v for k, v in entry.items() if k.startswith(prefixes)} for entry in trained.state.log_history]
    return [entry for entry in entries if len(entry) > 1]


def test_a_model_that_does_not_look_is_named(tmp_path, pairs, said):
    flamingo = model(gates=0.0, text_kwargs=NO_DROPOUT)
    sources = [source("pairs", pairs, batch_size=4)]
    trained = trainer(
        tmp_path, sources, flamingo=flamingo, max_steps=12, warmup_steps=3, image_use_steps=2, learning_rate=1e-7
    )
    trained.train()
    summary = trained.image_use_summary()
    (numbers,) = summary["sources"]
    assert (summary["is_used"], summary["step"]) == (False, 12)
    assert (numbers["name"], numbers["measurements"], numbers["swapped_for"]) == ("pairs", 5, "other images")
    assert numbers["loss"] == pytest.approx(numbers["swapped_loss"], abs=1e-3)
    loss = f"{numbers['loss']:.3f} with their own image and {numbers['swapped_loss']:.3f} with another one of the batch (pairs)"
    text = (
        f"The images are not used yet. Up to step 12, tokens that see an image have a loss of {loss}. So the model predicts the "
        f"text without looking. {HELP}"
    )
    assert summary["text"] == text
    # After the warm-up and three measurements, which are those of steps 4, 6 and 8; again at the end, and not in between
    assert [line[:60] for line in said] == [
        "WARNING Step 8: The images are not used yet. Up to step 8, t",
        "WARNING At the end of the training: The images are not used ",
    ]
    assert said[1] == f"WARNING At the end of the training: {text}"
    assert [entry["step"] for entry in measured(trained)] == [2, 4, 6, 8, 10, 12]
    branches = [f"branch/{kind}/{layer}" for kind in ("attn", "ffn") for layer in range(3)]
    names = ["image_use/loss/pairs", "image_use/loss_other_images/pairs", *branches, "step"]
    assert all(list(entry) == names for entry in measured(trained))
    assert "loss/pairs" in trained.state.log_history[0]  # not another source of this name
    trained.create_model_card()
    card = (tmp_path / "README.md").read_text()
    assert f"\n\n## Use of the images\n\n**{text}**\n\n| training batches |" in card
    assert f"\n| pairs | 5 | {numbers['loss']:.3f} | {numbers['swapped_loss']:.3f} | other images |\n" in card


def colors(tmp_path, cls=FlamingoTrainer, arguments=FlamingoTrainingArguments, callbacks=(), **kwargs) -> Trainer:
    """Train on rows whose word only the color of the image tells."""
    rows = [
        {
            "image": Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), color),
            "prompt": "<image>",
            "completion": f"{word}<|endofchunk|>",
        }
        for word, color in (("w5", (255, 0, 0)), ("w6", (0, 0, 255)))
    ]
    flamingo = tiny_flamingo(gates=0.0, text_kwargs={"initializer_range": 0.3})
    flamingo.freeze_backbones()
    values = {
        "output_dir": str(tmp_path),
        "per_device_train_batch_size": 8,
        "max_steps": 40,
        "learning_rate": 2e-2,
        "lr_scheduler_type": "constant",
        "logging_steps": 5,
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "remove_unused_columns": False,
        "report_to": "none",
    }
    processor = tiny_processor()
    trained = cls(
        flamingo,
        arguments(**{**values, **kwargs}),
        train_dataset=Dataset.from_list(rows * 8),
        data_collator=FlamingoDataCollator(processor),
        processing_class=processor,
        callbacks=list(callbacks),
    )
    trained.train()
    return trained


def test_a_model_that_looks_is_praised_and_the_report_draws_it(tmp_path, said):
    trained = colors(tmp_path, image_use_steps=2)
    summary = trained.image_use_summary()
    (numbers,) = summary["sources"]
    assert summary["is_used"] is True
    assert summary["text"].startswith("The images are used. Up to step 40, tokens that see an image have a loss of ")
    assert numbers["swapped_loss"] > numbers["loss"] + 0.5
    assert not any("At the end" in line for line in said)
    assert [line.split()[0] for line in said] == ["INFO"]
    assert list(measured(trained)[0])[:2] == ["image_use/loss", "image_use/loss_other_images"]
    trained.create_model_card()
    card = (tmp_path / "README.md").read_text()
    assert "\n\n## Use of the images\n\nThe images are used. " in card
    assert (
        "\n| training data | 5 | " in card or "\n| training data | 6 | " in card or "\n| training data | 7 | " in card
    )
    plot_run(tmp_path, trained.state.log_history)
    assert {"image_use.png", "gates.png", "branches.png"} <= {path.name for path in tmp_path.glob("*.png")}


def test_without_measurements_the_card_says_so(tmp_path, said):
    trained = colors(tmp_path, max_steps=2, logging_steps=1, image_use_steps=0)
    assert measured(trained) == []
    assert trained.image_use_summary() == {
        "is_used": None,
        "text": "It is not known whether the images are used: no batch with images was measured after the beginning of the run.",
        "step": None,
        "sources": [],
    }
    trained.create_model_card()
    assert f"\n\n{trained.image_use_summary()['text']}\n\n" in (tmp_path / "README.md").read_text()
    plot_run(tmp_path, trained.state.log_history)
    assert not (tmp_path / "image_use.png").exists()
    assert said == []


def test_the_stock_trainer_has_a_callback(tmp_path, said):
    stock = {"cls": Trainer, "arguments": TrainingArguments}
    callback = ImageUseCallback(2)
    trained = colors(tmp_path, callbacks=[callback], **stock)
    assert callback.verdict.is_used is True
    assert [entry["step"] for entry in callback.history] == list(range(2, 41, 2))
    assert list(callback.history[0])[:3] == ["step", "image_use/loss", "image_use/loss_other_images"]
    assert len(callback.history[0]) == 9
    assert not trained.model._forward_pre_hooks
    plain = colors(tmp_path, **stock)
    assert digest(plain.model) == digest(trained.model)

    said.clear()
    closed = ImageUseCallback()
    colors(tmp_path, callbacks=[closed], learning_rate=1e-7, **stock)
    assert closed.verdict.summary()["is_used"] is False
    assert [line[:55] for line in said] == [
        "WARNING Step 25: The images are not used yet. Up to ste",
        "WARNING At the end of the training: The images are not ",
    ]
    with pytest.raises(ValueError, match="ImageUseCallback got a Linear"):
        callback.on_train_begin(None, None, None, model=torch.nn.Linear(1, 1))


def test_the_training_is_the_same_to_the_bit(tmp_path, pairs):
    """With dropout: the measurements must not draw from the generators of the training."""
    records = []
    for steps in (0, 1):
        flamingo = model()
        sources = [source("a", pairs), source("b", pairs, batch_size=3)]
        trained = trainer(
            tmp_path / str(steps), sources, flamingo=flamingo, image_use_steps=steps, gradient_accumulation_steps=2
        )
        trained.train()
        records.append((digest(trained.model), losses(trained.state.log_history), torch.get_rng_state().tolist()))
        assert bool(measured(trained)) == bool(steps)
    assert records[0] == records[1]


def test_a_resumed_run_continues_its_measurements(tmp_path, pairs, said):
    # Logged every three steps, so that the checkpoint is between a measurement and its log
    kwargs = {"max_steps": 12, "image_use_steps": 1, "logging_steps": 3, "save_strategy": "steps", "save_steps": 2}
    sources = [source("pairs", pairs)]
    whole = trainer(tmp_path, sources, flamingo=model(gates=0.0), learning_rate=1e-7, **kwargs)
    whole.train()
    assert len(said) == 2
    for step in (2, 10, 12):
        resumed = trainer(tmp_path, sources, flamingo=model(gates=0.0), learning_rate=1e-7, **kwargs)
        before = len(said)
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
        assert measured(resumed) == measured(whole)
        assert resumed.image_use_summary() == whole.image_use_summary()
        # What was said before the checkpoint is not said again, but for the end
        assert len(said) - before == (2 if step == 2 else 1)


def test_a_batch_of_one_image_is_measured_with_a_blank_one(tmp_path, pairs):
    trained = trainer(
        tmp_path, [source("pairs", pairs, batch_size=1)], max_steps=4, image_use_steps=1, gradient_accumulation_steps=2
    )
    trained.train()
    assert all("image_use/loss_blank_images/pairs" in entry for entry in measured(trained))
    summary = trained.image_use_summary()
    assert summary["sources"][0]["swapped_for"] == "blank images"
    assert "with a blank one, as the batch has no other (pairs)" in summary["text"]
    plot_run(tmp_path, trained.state.log_history)
    assert (tmp_path / "image_use.png").exists()


@pytest.mark.parametrize("strategy", ["accumulate", "round_robin"])
def test_each_source_with_images_is_measured(tmp_path, pairs, strategy):
    texts = [{"parts": [{"type": "text", "text": f"w{i} w7"}]} for i in range(5, 25)]
    (tmp_path / "text.jsonl").write_text("\n".join(map(json.dumps, texts)))
    sources = [
        source("a", pairs),
        DataSource(name="text", format="parts", path=str(tmp_path / "text.jsonl"), batch_size=2),
        source("b", pairs, batch_size=3),
    ]
    # Every third step of three sources that take turns: none is left out
    trained = trainer(tmp_path, sources, max_steps=12, image_use_steps=3, mixture_strategy=strategy)
    trained.train()
    names = {name for entry in measured(trained) for name in entry if name.startswith("image_use/loss/")}
    assert names == {"image_use/loss/a", "image_use/loss/b"}
    assert [s["name"] for s in trained.image_use_summary()["sources"]] == ["a", "b"]


def test_adapters_and_half_precision(tmp_path, pairs):
    flamingo = tiny_flamingo(gates=0.2)
    adapted = get_peft_model(flamingo, lora_config(flamingo, r=2))
    trained = trainer(tmp_path, [source("a", pairs)], flamingo=adapted, max_steps=2, image_use_steps=1, bf16=True)
    trained.train()
    assert [len(entry) for entry in measured(trained)] == [9, 9]
    assert all(0 < entry["branch/attn/0"] < 10 for entry in measured(trained))


def test_two_processes_measure_their_own_batches(tmp_path, pairs):
    sources = [source("a", pairs)]
    kwargs = {"max_steps": 1, "image_use_steps": 1, "save_strategy": "no"}
    codes = launch(
        runs.train,
        tmp_path / "record.json",
        tmp_path / "out",
        sources,
        world_size=2,
        model={"text_kwargs": NO_DROPOUT},
        **kwargs,
    )
    assert codes == [0, 0]
    log = json.loads((tmp_path / "record.json").read_text())["logs"][0]
    flamingo, mixture = model(text_kwargs=NO_DROPOUT), trainer(tmp_path, sources).mixture
    each = []
    for process in range(2):
        rows = mixture.with_settings(seed=42, process=process, num_processes=2)
        each.append(measure_image_use(flamingo, next(iter(rows)).inputs))
    assert each[0] != each[1]
    assert log["image_use/loss/a"] == pytest.approx((each[0].loss + each[1].loss) / 2, abs=1e-5)
    expected = (each[0].swapped_loss + each[1].swapped_loss) / 2
    assert log["image_use/loss_other_images/a"] == pytest.approx(expected, abs=1e-5)
    assert log["branch/attn/1"] == pytest.approx((each[0].attn[1] + each[1].attn[1]) / 2, rel=1e-4)


def test_negative_steps_are_refused(tmp_path):
    with pytest.raises(
        ValueError, match="`image_use_steps` is -1, but it must be at least 1, or 0 for no measurements"
    ):
        FlamingoTrainingArguments(str(tmp_path), image_use_steps=-1)


@pytest.mark.parametrize(
    ("max_steps", "warmup", "settling"), [(12, 5, 5), (100, 0, 25), (9000, 0, 500), (9000, 0.1, 900)]
)
def test_the_beginning_of_a_run_is_not_judged(tmp_path, max_steps, warmup, settling):
    assert count_settling_steps(TrainingArguments(str(tmp_path), warmup_steps=warmup), max_steps) == settling


@pytest.mark.parametrize(("max_steps", "interval"), [(1, 5), (100, 5), (300, 15), (1000, 50), (100_000, 50)])
def test_how_often_it_is_measured(tmp_path, max_steps, interval):
    assert choose_interval(FlamingoTrainingArguments(str(tmp_path)).image_use_steps, max_steps) == interval
    assert choose_interval(7, max_steps) == 7


def test_a_source_is_due_once_in_an_interval_and_in_the_last_step():
    history = ImageUseHistory(["a", "b"])
    assert [step for step in range(1, 13) if history.is_due("a", step, 5, 12)] == [5, 10, 12]
    assert not history.is_due("a", 12, 5, 12)  # another micro-batch of this step
    assert [step for step in (1, 4, 7, 9, 12) if history.is_due("b", step, 5, 13)] == [7, 12]
    assert not history.is_due("b", 13, 0, 13)


def verdicts(*differences: float, loss: float = 1.0, kind: bool = False) -> list[bool | None]:
    """Return the verdict after each measurement."""
    history, found = ImageUseHistory([""]), []
    for step, difference in enumerate(differences):
        history.add("", ImageUseMeasurement(loss, loss + difference, kind, [0.1], []))
        history.pop(None, step + 1, 0, ["branch/attn/0"])
        found.append(history.is_used)
    return found


def test_the_verdict():
    assert verdicts(0, 0, 0, 0) == [None, None, False, False]
    assert verdicts(0.5, 0.4, 0.5) == [None, None, True]
    assert verdicts(-0.5, -0.5, -0.5) == [None, None, False]  # a wrong image that helps is noise
    # The last five count, and a verdict stays as long as the next one is uncertain
    assert verdicts(0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0) == [None, None] + [False] * 10
    assert verdicts(0, 0, 0, 1, 1, 1, 1) == [None, None, False, False, False, True, True]
    # 2 % of the loss, and at least .01
    assert verdicts(*[0.05] * 3, loss=3.0)[-1] is False
    assert verdicts(*[0.07] * 3, loss=3.0)[-1] is True
    assert verdicts(*[0.009] * 3, loss=0.1)[-1] is False
    assert verdicts(*[float("nan")] * 3) == [None] * 3


def test_a_warning_is_withdrawn_as_loudly_as_it_was_given(said):
    history = ImageUseHistory([""])
    for step, difference in enumerate([0.0] * 4 + [1.0] * 5 + [0.0] * 5):
        was_used = history.is_used
        history.add("", ImageUseMeasurement(1.0, 1.0 + difference, False, [0.1], []))
        history.pop(None, step, -1, ["branch/attn/0"])
        history.announce(was_used, step)
    assert [line[:45] for line in said] == [
        "WARNING Step 2: The images are not used yet. ",
        "WARNING Step 6: The images are used. Up to st",
        "WARNING Step 13: The images are not used yet.",
    ]
    history.announce_end(13)  # it has just been said
    assert len(said) == 3
    history.announce_end(14)
    assert said[3].startswith("WARNING At the end of the training: The images are not used yet. ")


def test_one_source_that_looks_is_enough():
    history = ImageUseHistory(["pages", "pairs"])
    for step in range(1, 4):
        history.add("pages", ImageUseMeasurement(2.0, 2.0, False, [0.1], [0.2]))
        history.add("pairs", ImageUseMeasurement(1.0, 2.0, False, [0.3], [0.4]))
        entries = history.pop(None, step, 0, ["branch/attn/0", "branch/ffn/0"])
    assert history.is_used is True
    assert entries == {
        "image_use/loss/pages": 2.0,
        "image_use/loss_other_images/pages": 2.0,
        "image_use/loss/pairs": 1.0,
        "image_use/loss_other_images/pairs": 2.0,
        "branch/attn/0": pytest.approx(0.2),
        "branch/ffn/0": pytest.approx(0.3),
    }
    assert history.describe() == (
        "The images are used. Up to step 3, tokens that see an image have a loss of 2.000 with their own image and 2.000 with "
        "another one of the batch (pages); 1.000 with their own image and 2.000 with another one of the batch (pairs)."
    )
    assert history.pop(None, 4, 0, ["branch/attn/0", "branch/ffn/0"]) == {}


def test_blank_images_count_only_where_there_are_hardly_others():
    history = ImageUseHistory([""])
    kinds = []
    for step, is_blank in enumerate([False, True, True, True, False, False]):
        history.add("", ImageUseMeasurement(1.0, 1.0 if is_blank else 2.0, is_blank, [0.1], []))
        history.pop(None, step, -1, ["branch/attn/0"])
        kinds.append((history.summary()["sources"][0]["swapped_for"], history.is_used))
    assert kinds == [
        ("other images", None),
        ("other images", None),
        ("blank images", None),
        ("blank images", False),
        ("blank images", False),
        ("other images", True),
    ]


def test_the_warm_up_is_not_judged():
    history = ImageUseHistory([""])
    for step in range(1, 8):
        history.add("", ImageUseMeasurement(1.0, 1.0, False, [0.1], []))
        assert "image_use/loss" in history.pop(None, step, 5, ["branch/attn/0"])
    assert history.is_used is None
    assert history.describe().startswith("It is not known whether the images are used: the measurements are too few")
