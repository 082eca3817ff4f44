# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Check what `FlamingoTrainer` computes from a mixture, in one process."""

from itertools import islice

import pytest
import torch
from datasets import Dataset
from factory import END_OF_CHUNK, IMAGE, IMAGE_SIZE, tiny_flamingo, tiny_processor
from peft import get_peft_model
from PIL import Image
from runs import NO_DROPOUT, losses, model, source, trainer, write_pairs, write_shards

from transformers_flamingo.training import (
    FlamingoDataCollator,
    FlamingoTrainer,
    FlamingoTrainingArguments,
    lora_config,
)
from transformers_flamingo.training.callbacks import summarize_layers
from transformers_flamingo.training.statistics import LogAccumulator


@pytest.fixture(scope="module")
def paths(tmp_path_factory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("data")
    return {
        "pairs": write_pairs(root / "pairs", 24),
        "shards": write_shards(root / "shards", 2, 8),
        "broken": write_pairs(root / "broken", 8, broken=(2, 5)),
        "broken_shards": write_shards(root / "broken_shards", 2, 8, broken=(2, 3, 11)),
    }


def run(tmp_path, sources, flamingo=None, **kwargs) -> FlamingoTrainer:
    flamingo = model(text_kwargs=NO_DROPOUT) if flamingo is None else flamingo
    trained = trainer(tmp_path, sources, flamingo=flamingo, **{"max_steps": 3, **kwargs})
    trained.train()
    return trained


def logged(trained: FlamingoTrainer, name: str) -> list[float]:
    return [entry[name] for entry in trained.state.log_history if name in entry]


def test_the_loss_is_the_weighted_sum_of_the_token_means(tmp_path, paths):
    sources = [
        source("pairs", paths["pairs"], weight=0.2, batch_size=3),
        source("shards", paths["shards"], streaming=True, weight=1.5),
    ]
    flamingo = model(text_kwargs=NO_DROPOUT)
    trained = trainer(tmp_path, sources, flamingo=flamingo, max_steps=1, gradient_accumulation_steps=2)
    batches = list(islice(trained.get_train_dataloader(), 4))
    assert [batch.source for batch in batches] == [0, 1, 0, 1]

    flamingo.train()
    expected, means = 0.0, []
    for index, weight in enumerate((0.2, 1.5)):
        source_inputs = [batch.inputs for batch in batches if batch.source == index]
        tokens = sum(int((inputs["labels"][:, 1:] != -100).sum()) for inputs in source_inputs)
        losses = [flamingo(**inputs).loss * int((inputs["labels"][:, 1:] != -100).sum()) for inputs in source_inputs]
        means.append(sum(losses) / tokens)
        expected = expected + weight * means[-1]
    expected.backward()
    gradients = {name: p.grad.clone() for name, p in flamingo.named_parameters() if p.grad is not None}
    norm = torch.stack([gradient.norm() for gradient in gradients.values()]).norm()
    flamingo.zero_grad()

    trained.train()
    (log,) = (entry for entry in trained.state.log_history if "loss" in entry)
    assert log["loss"] == pytest.approx(expected.item(), rel=1e-5)
    assert [log["loss/pairs"], log["loss/shards"]] == pytest.approx([mean.item() for mean in means], rel=1e-5)
    assert log["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)


def test_accumulating_equals_the_large_batch(tmp_path, paths):
    def train(batch_size, steps):
        sources = [
            source("pairs", paths["pairs"], batch_size=batch_size, weight=0.5),
            source("shards", paths["shards"], batch_size=batch_size, streaming=True),
        ]
        return run(tmp_path, sources, gradient_accumulation_steps=steps)

    large, small = train(4, 1), train(2, 2)
    for name in ("loss", "loss/pairs", "loss/shards"):
        assert logged(small, name) == pytest.approx(logged(large, name), rel=1e-4)
    assert len(logged(large, "loss")) == 3


def test_round_robin_takes_one_source_per_step(tmp_path, paths):
    sources = [source("a", paths["pairs"], weight=0.5), source("b", paths["shards"])]
    trained = run(tmp_path, sources, mixture_strategy="round_robin", gradient_accumulation_steps=2, max_steps=4)
    entries = losses(trained.state.log_history)
    assert [sorted(name for name in entry if name.startswith("loss/")) for entry in entries] == [
        ["loss/a"],
        ["loss/b"],
        ["loss/a"],
        ["loss/b"],
    ]
    for entry in entries:
        expected = 0.5 * entry["loss/a"] if "loss/a" in entry else entry["loss/b"]
        assert entry["loss"] == pytest.approx(expected, rel=1e-6)


def test_a_log_covers_the_steps_since_the_last(tmp_path, paths):
    sources = [source("a", paths["pairs"], weight=0.5), source("b", paths["shards"])]
    each = run(tmp_path, sources, max_steps=4)
    both = run(tmp_path, sources, max_steps=4, logging_steps=2)
    for name in ("loss", "loss/a", "loss/b"):
        first, second, third, fourth = logged(each, name)
        assert logged(both, name) == pytest.approx([(first + second) / 2, (third + fourth) / 2], rel=1e-5)


def test_logs_say_how_the_training_goes(tmp_path, paths):
    trained = run(tmp_path, [source("a", paths["pairs"])], max_steps=1)
    (entry,) = (entry for entry in trained.state.log_history if "loss" in entry)
    assert entry["tokens_per_second"] > entry["images_per_second"] > 0
    blocks = trained.model.gated_cross_attention
    assert [entry[f"gate/attn/{i}"] for i in range(3)] == [block.attn_gate.tanh().item() for block in blocks]
    assert [entry[f"gate/ffn/{i}"] for i in range(3)] == [block.ffn_gate.tanh().item() for block in blocks]
    assert 0.05 < entry["peak_memory_gb"] < 100  # of this process


def test_all_layers_are_in_the_log_and_their_summary_is_printed(tmp_path, paths, capsys):
    trained = trainer(tmp_path, [source("a", paths["pairs"])], max_steps=1)
    trained.train()
    printed = capsys.readouterr().out
    assert all(f"gate/attn/{i}" in trained.state.log_history[0] for i in range(3))
    assert "'gate/attn': '0.197 (0.197 to 0.197)'" in printed or "'gate/attn': '0." in printed
    assert "gate/attn/0" not in printed and "branch/attn/0" not in printed and "'loss'" in printed
    assert summarize_layers({"gate/attn/3": 0.5, "gate/attn/7": -0.25, "loss": 1.0, "loss/a": 2.0}) == {
        "loss": 1.0,
        "loss/a": 2.0,
        "gate/attn": "0.125 (-0.25 to 0.5)",
    }


def test_bad_rows_are_counted_in_the_log(tmp_path, paths):
    trained = run(tmp_path, [source("a", paths["broken"], batch_size=4)], max_steps=2, skip_bad_samples=True)
    assert logged(trained, "skipped/a")[-1] == 2
    assert trained.state.log_history[-2]["skipped/a"] == 2


@pytest.mark.parametrize("streaming", [False, True])
def test_each_bad_row_is_counted_and_said_once_however_often_it_is_read(tmp_path, paths, streaming, caplog):
    name = "broken_shards" if streaming else "broken"
    given = source("a", paths[name], batch_size=4, streaming=streaming)
    trained = run(tmp_path, [given], max_steps=8, skip_bad_samples=True)  # more than two passes
    num_bad = 3 if streaming else 2
    assert logged(trained, "skipped/a")[-1] == num_bad
    assert caplog.text.count("Skipped in data source 'a'") == num_bad


def test_an_epoch_is_a_pass_over_a_single_source(tmp_path, paths):
    trained = run(tmp_path, [source("a", paths["pairs"], batch_size=5)], max_steps=-1, num_train_epochs=1)
    assert trained.state.global_step == 5
    assert trained.state.epoch == 25 / 24  # the last step begins the second pass
    for sources in (
        [source("a", paths["shards"], streaming=True)],
        [source("a", paths["pairs"]), source("b", paths["pairs"])],
    ):
        with pytest.raises(ValueError, match="`max_steps` is not given"):
            run(tmp_path, sources, max_steps=-1)


def test_the_arguments_of_the_caller_do_not_change(tmp_path, paths):
    sources = [source("a", paths["pairs"]), source("b", paths["pairs"])]
    trained = trainer(tmp_path, sources, gradient_accumulation_steps=3)
    assert trained.args.gradient_accumulation_steps == 6
    again = FlamingoTrainer(
        trained.model,
        FlamingoTrainingArguments(output_dir=str(tmp_path), use_cpu=True, max_steps=1),
        train_dataset=trained.mixture,
    )
    assert again.args.gradient_accumulation_steps == 2


def test_arguments_that_contradict_a_mixture_are_refused(tmp_path, paths):
    with pytest.raises(ValueError, match="`args` is of type NoneType"):
        FlamingoTrainer(model())
    with pytest.raises(ValueError, match="makes its own parameter groups"):
        FlamingoTrainer(
            model(),
            FlamingoTrainingArguments(output_dir=str(tmp_path), use_cpu=True),
            optimizer_cls_and_kwargs=(torch.optim.AdamW, {"params": []}),
        ).create_optimizer()


def test_packing_changes_no_loss(tmp_path, paths):
    sources = [
        source("pairs", paths["pairs"], weight=0.2, batch_size=5, max_length=16),
        source("shards", paths["shards"], streaming=True, weight=1.5, batch_size=3, max_length=16),
    ]
    flamingo = model(text_kwargs=NO_DROPOUT)
    packed = trainer(tmp_path, sources, flamingo=flamingo, packing=True, gradient_accumulation_steps=2, max_steps=3)
    shapes = [batch.inputs["input_ids"].shape for batch in islice(packed.get_train_dataloader(), 4)]
    assert all(
        rows < batch_size and length <= 16 for (rows, length), batch_size in zip(shapes, (5, 3) * 2, strict=True)
    )
    packed.train()
    padded = run(tmp_path, sources, gradient_accumulation_steps=2)
    for name in ("loss", "loss/pairs", "loss/shards", "grad_norm"):
        assert len(logged(padded, name)) == 3
        assert logged(packed, name) == pytest.approx(logged(padded, name), rel=1e-4 if name == "grad_norm" else 1e-5)


def test_packed_tokens_are_counted_without_padding():
    rows = [{"text": " ".join(["w5"] * length)} for length in (6, 5, 3, 2)]
    accumulators = []
    for collator in (
        FlamingoDataCollator(tiny_processor()),
        FlamingoDataCollator(tiny_processor(), max_length=9, packing=True),
    ):
        accumulators.append(LogAccumulator())
        accumulators[-1].count([collator(rows)])
    assert [accumulator.tokens for accumulator in accumulators] == [16, 16]


def test_packing_that_would_leak_or_has_no_length_is_refused_before_training(tmp_path, paths):
    sources = [source("a", paths["pairs"], max_length=16)]
    with pytest.raises(ValueError, match="Bloom.* cannot keep apart the documents"):
        trainer(tmp_path, sources, flamingo=model(text="bloom"), packing=True)
    with pytest.raises(ValueError, match="Data source 'a' has no `max_length`"):
        trainer(tmp_path, [source("a", paths["pairs"])], packing=True)
    arguments = FlamingoTrainingArguments(output_dir=str(tmp_path), use_cpu=True, max_steps=1, packing=True)
    with pytest.raises(ValueError, match="the data collator does not pack"):
        FlamingoTrainer(model(), arguments, train_dataset=[{"text": "w5 w6"}])
    arguments.packing = False
    with pytest.raises(ValueError, match="Bloom.* cannot keep apart the documents"):
        FlamingoTrainer(
            model(text="bloom"),
            arguments,
            train_dataset=[{"text": "w5 w6"}],
            data_collator=FlamingoDataCollator(tiny_processor(), max_length=8, packing=True),
        )


def test_packing_goes_with_peft(tmp_path, paths):
    flamingo = tiny_flamingo()
    adapted = get_peft_model(flamingo, lora_config(flamingo, r=2))
    trained = run(tmp_path, [source("a", paths["pairs"], max_length=16)], adapted, packing=True, max_steps=1)
    assert logged(trained, "loss")[0] > 0


@pytest.mark.parametrize(
    ("kwargs", "tolerance"),
    [
        # The graphs that a GPU would run, without generating their code, which takes minutes
        ({"torch_compile": True, "torch_compile_backend": "aot_eager"}, 1e-4),
        ({"activation_checkpointing": True}, 1e-5),
        ({"activation_checkpointing": True, "packing": True}, 1e-5),
        ({"bf16": True}, 0.05),
    ],
)
def test_faster_and_smaller_steps_compute_the_same(tmp_path, paths, kwargs, tolerance):
    sources = [
        source("pairs", paths["pairs"], max_length=16),
        source("shards", paths["shards"], max_length=16, streaming=True),
    ]
    plain, other = (run(tmp_path, sources, max_steps=2, **given) for given in ({}, kwargs))
    assert logged(other, "loss") == pytest.approx(logged(plain, "loss"), rel=tolerance)
    assert logged(other, "grad_norm") == pytest.approx(logged(plain, "grad_norm"), rel=10 * tolerance)


@pytest.mark.parametrize("text", ["gpt2", "llama"])
def test_frozen_numbers_stay_and_have_no_optimizer_state(tmp_path, paths, text):
    flamingo = model(text=text)
    before = {name: tensor.clone() for name, tensor in flamingo.state_dict().items()}
    sources = [source("a", paths["pairs"]), source("b", paths["shards"], streaming=True)]
    trained = run(tmp_path, sources, flamingo, gate_learning_rate_multiplier=3.0)
    rows = [END_OF_CHUNK, IMAGE]
    changed = set()
    for name, tensor in flamingo.state_dict().items():
        same = tensor == before[name]
        if not same.all():
            changed.add(name.split(".")[0])
        if name.startswith("language_model.") and not same.all():
            others = [i for i in range(len(same)) if i not in rows]
            assert same[others].all(), name
    assert changed == {"resampler", "gated_cross_attention", "language_model"}
    state = trained.optimizer.state_dict()["state"]
    sizes = [p.numel() for p in flamingo.parameters() if p.requires_grad]
    assert sum(entry["exp_avg"].numel() for entry in state.values()) == sum(sizes)
    groups = trained.optimizer.param_groups
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0, 0.0]
    assert [group["initial_lr"] for group in groups] == pytest.approx([1e-2, 1e-2, 3e-2])


@pytest.mark.parametrize("packing", [False, True])
def test_a_dataset_of_rows_trains_as_with_the_stock_trainer(tmp_path, packing):
    rows = Dataset.from_list(
        [
            {
                "image": Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), (i * 20, 0, 0)),
                "prompt": "<image>",
                "completion": f"w{i + 5}<|endofchunk|>",
            }
            for i in range(8)
        ]
    )
    arguments = FlamingoTrainingArguments(
        output_dir=str(tmp_path),
        use_cpu=True,
        num_train_epochs=1,
        per_device_train_batch_size=2,
        packing=packing,
        logging_steps=1,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        save_strategy="no",
    )
    trained = FlamingoTrainer(
        model(),
        arguments,
        train_dataset=rows,
        data_collator=FlamingoDataCollator(tiny_processor(), max_length=8, packing=packing),
    )
    trained.train()
    entries = [entry for entry in trained.state.log_history if "loss" in entry]
    assert [entry["step"] for entry in entries] == [1, 2, 3, 4]
    assert all(entry["images_per_second"] > 0 for entry in entries)
