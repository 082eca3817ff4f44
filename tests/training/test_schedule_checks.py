# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Schedules that cannot work are errors before the first step, and those that are hardly meant are warnings."""

import pytest
import torch
from datasets import Dataset
from runs import model, source, trainer, write_pairs

from transformers_flamingo.training import FlamingoTrainer, FlamingoTrainingArguments
from transformers_flamingo.training.schedule_checks import check_schedule, describe_many_answers, find_doubts


def arguments(tmp_path, **kwargs) -> FlamingoTrainingArguments:
    return FlamingoTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **kwargs)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"warmup_steps": 100}, "`warmup_steps` is 100 and the run has 100 optimizer steps.*to 10 for example"),
        ({"warmup_steps": 5000, "lr_scheduler_type": "cosine"}, "`warmup_steps` is 5000"),
        ({"warmup_steps": 5, "lr_scheduler_type": "constant"}, "'constant', which has no warm-up"),
        ({"learning_rate": 0.2}, "`learning_rate` is 0.2, so the weights would be lost"),
        ({"learning_rate": 0.0}, "`learning_rate` is 0, so no weight would change"),
        ({"learning_rate": 1e-8}, "`learning_rate` is 1e-08, so no weight would change"),
        (
            {"learning_rate": 1e-2, "gate_learning_rate_multiplier": 200},
            r"gates would have the learning rate 2 \(`learning_rate` 0.01 times .* 200\).*at most 100",
        ),
        ({"gate_learning_rate_multiplier": 1e-5}, "gates would have the learning rate 1e-09.*not move"),
        (
            {
                "load_best_model_at_end": True,
                "eval_strategy": "steps",
                "eval_steps": 10,
                "save_steps": 10,
                "eval_delay": 101,
            },
            "no model is the best",
        ),
    ],
)
def test_what_cannot_work(tmp_path, kwargs, message):
    with pytest.raises(ValueError, match=message):
        check_schedule(arguments(tmp_path, **kwargs), 100)


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"warmup_steps": 99},
        {"warmup_steps": 0.1},
        {"lr_scheduler_type": "constant"},
        {"learning_rate": 0.1},
        {"learning_rate": 1e-7},
        {"learning_rate": 5e-2, "gate_learning_rate_multiplier": 20},
        {"learning_rate": 10.0, "optim": "sgd"},
    ],
)
def test_what_can_work(tmp_path, kwargs):
    check_schedule(arguments(tmp_path, **kwargs), 100)


def test_all_reasons_are_named_at_once(tmp_path):
    with pytest.raises(ValueError, match="`learning_rate` is 5.*`warmup_steps` is 200"):
        check_schedule(arguments(tmp_path, learning_rate=5.0, warmup_steps=200), 100)


def test_a_rate_without_effect_is_not_judged(tmp_path):
    check_schedule(arguments(tmp_path, learning_rate=5.0), 100, has_own_optimizer=True)
    check_schedule(arguments(tmp_path, gate_learning_rate_multiplier=1e5), 100, has_gates=False)


def test_what_is_hardly_meant(tmp_path):
    (doubt,) = find_doubts(arguments(tmp_path), 9)
    assert "`logging_steps` is 10, but the run has 9 optimizer steps" in doubt
    for kwargs in ({"logging_first_step": True}, {"logging_steps": 0.5}, {"logging_strategy": "no"}):
        assert find_doubts(arguments(tmp_path, **kwargs), 9) == []
    assert find_doubts(arguments(tmp_path), 10) == []
    (doubt,) = find_doubts(arguments(tmp_path, eval_strategy="steps", eval_delay=50), 40)
    assert "`eval_delay` is 50" in doubt


def test_many_answers():
    text = describe_many_answers(849, 300, 16)
    assert (
        "849 different answers, but the run has 300 optimizer steps of 16 rows, so an answer is seen 5.7 times" in text
    )
    assert "at least 1,000 different" in describe_many_answers(1000, 10, 2.5, at_least=True)


def test_the_trainer_refuses_such_a_run_before_it_begins(tmp_path):
    sources = [source("a", write_pairs(tmp_path / "pairs", 9))]
    with pytest.raises(ValueError, match="`warmup_steps` is 6"):
        trainer(tmp_path / "out", sources, warmup_steps=6)
    # One pass over nine rows is five steps
    with pytest.raises(ValueError, match="`warmup_steps` is 5 and the run has 5"):
        trainer(tmp_path / "out", sources, max_steps=-1, num_train_epochs=1, warmup_steps=5)
    with pytest.raises(ValueError, match="gates would have the learning rate 10"):
        trainer(tmp_path / "out", sources, gate_learning_rate_multiplier=1000)
    without_gates = model(cross_attention_gating="none")
    trainer(tmp_path / "out", sources, flamingo=without_gates, gate_learning_rate_multiplier=1000)


def test_an_ordinary_dataset_is_checked_when_its_length_is_known(tmp_path):
    rows = Dataset.from_dict({"input_ids": [[5, 6, 7]] * 4, "labels": [[5, 6, 7]] * 4})
    args = arguments(tmp_path, num_train_epochs=1, per_device_train_batch_size=2, warmup_steps=2, report_to="none")
    run = FlamingoTrainer(model(), args, train_dataset=rows)
    with pytest.raises(ValueError, match="`warmup_steps` is 2 and the run has 2"):
        run.train()
    own = torch.optim.SGD([p for p in model().parameters() if p.requires_grad], lr=1.0)
    FlamingoTrainer(model(), arguments(tmp_path, learning_rate=7.0), train_dataset=rows, optimizers=(own, None))
