# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Check held-out rows, and what the trainer reports about them."""

import json

import pytest
import torch
from factory import tiny_processor
from PIL import Image
from runs import model, source, trainer, write_pairs

from transformers_flamingo.data import BadSampleError
from transformers_flamingo.evaluation.metrics import word_f1
from transformers_flamingo.training import DataSource, FlamingoDataCollator, GenerationEvalDataset


@pytest.fixture
def pairs(tmp_path) -> str:
    return write_pairs(tmp_path / "pairs", 9)


def test_rows_are_spread_over_the_source(pairs):
    rows = GenerationEvalDataset(source("pairs", pairs), tiny_processor(), max_rows=3)
    assert [rows.eval_prompt(i).reference for i in range(len(rows))] == ["w10 w50", "w10 w54 w7", "w10 w58 w7 w7"]
    assert len(GenerationEvalDataset(source("pairs", pairs), tiny_processor(), max_rows=100)) == 9


def test_a_prompt_ends_before_the_supervised_text(pairs):
    rows = GenerationEvalDataset(source("pairs", pairs), tiny_processor())
    prompt = rows.eval_prompt(4)
    assert prompt.prompt == "<image>"
    assert prompt.images == rows[4]["images"]
    assert rows[4]["text"] == "<image>w10 w54 w7<|endofchunk|>"


def test_blind_rows_have_blank_images_of_the_same_size_and_the_same_text(pairs):
    rows = GenerationEvalDataset(source("pairs", pairs), tiny_processor())
    blind = rows.blind()
    assert [row["text"] for row in blind] == [row["text"] for row in rows]
    assert blind[3]["images"][0].size == rows[3]["images"][0].size
    assert blind[3]["images"][0].getcolors() == [(rows[3]["images"][0].size[0] ** 2, (127, 127, 127))]
    assert rows[3]["images"][0].getcolors() != blind[3]["images"][0].getcolors()


@pytest.mark.parametrize("checkpoint", [None, "checkpoint-1"])
def test_a_training_stops_early_also_if_it_was_resumed(tmp_path, pairs, checkpoint):
    def make(**kwargs):
        held_out = {"held": GenerationEvalDataset(source("held", pairs), tiny_processor(), max_rows=1)}
        return trainer(
            tmp_path / "out",
            [source("a", pairs)],
            eval_dataset=held_out,
            eval_strategy="steps",
            eval_steps=1,
            save_strategy="steps",
            save_steps=1,
            early_stopping_patience=2,
            early_stopping_threshold=1e9,
            **kwargs,
        )

    if checkpoint is not None:
        make(max_steps=1).train()
        checkpoint = str(tmp_path / "out" / checkpoint)
    run = make()
    run.train(resume_from_checkpoint=checkpoint)
    # The first evaluation is the best so far, and the next two are not better
    assert run.state.global_step == 3
    assert run.args.metric_for_best_model == "held_loss"


def test_early_stopping_needs_an_evaluation(tmp_path, pairs):
    with pytest.raises(ValueError, match="nothing is evaluated during the training.*`early_stopping_patience`"):
        trainer(tmp_path, [source("a", pairs)], early_stopping_patience=2)


def test_bad_rows(tmp_path):
    path = write_pairs(tmp_path / "pairs", 4, broken=(2,))
    with pytest.raises(BadSampleError, match="Held-out data 'pairs': .*row 2"):
        GenerationEvalDataset(source("pairs", path), tiny_processor())
    assert len(GenerationEvalDataset(source("pairs", path), tiny_processor(), skip_bad_samples=True)) == 3
    with pytest.raises(ValueError, match="is streamed"):
        GenerationEvalDataset(source("pairs", path, streaming=True), tiny_processor())


def test_an_error_of_held_out_data_does_not_name_a_source_of_the_training(tmp_path):
    with pytest.raises(ValueError) as error:
        GenerationEvalDataset(source("pairs", str(tmp_path / "none")), tiny_processor())
    text = str(error.value)
    assert text.startswith("Held-out data 'pairs' cannot be opened")
    assert (
        "of `evaluation.pairs`, or train without an evaluation (`--eval_strategy no`)" in text
        and "mixture" not in text
    )


def test_rows_that_an_evaluation_cannot_use(tmp_path):
    """Find them before the training instead of in the middle of it."""
    path = write_pairs(tmp_path / "pairs", 3)
    Image.new("F", (8, 8), -5.0).save(tmp_path / "pairs" / "1.png", "TIFF")
    with pytest.raises(BadSampleError, match="Held-out data 'pairs': .*row 1: it cannot be collated .*-5.0"):
        GenerationEvalDataset(source("pairs", path), tiny_processor())
    assert len(GenerationEvalDataset(source("pairs", path), tiny_processor(), skip_bad_samples=True)) == 2
    texts = [[{"type": "text", "text": "w5 w6"}], [{"type": "text", "text": "w7 w8"}]]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"parts": parts}) + "\n" for parts in texts))
    entry = DataSource(name="texts", format="parts", path=str(tmp_path / "texts.jsonl"))
    with pytest.raises(BadSampleError, match="texts.jsonl, row 0: the text 'w5 w6.*no image and no prompt"):
        GenerationEvalDataset(entry, tiny_processor())


def test_the_trainer_reports_loss_and_scores_with_images_and_blind(tmp_path, pairs):
    flamingo = model()
    rows = GenerationEvalDataset(source("pairs", pairs), tiny_processor())
    run = trainer(
        tmp_path / "out",
        [source("pairs", pairs)],
        flamingo=flamingo,
        eval_dataset={"held": rows},
        per_device_eval_batch_size=3,
        generation_max_new_tokens=4,
        eval_strategy="steps",
        eval_steps=3,
    )
    run.train()
    metrics = run.evaluate()

    collator = FlamingoDataCollator(rows.processor)
    flamingo.eval()
    for condition, samples in (("", rows), ("blind_", rows.blind())):
        with torch.no_grad():
            batches = [collator([samples[i] for i in range(start, start + 3)]) for start in (0, 3, 6)]
            losses = [flamingo(**batch).loss.item() for batch in batches]
        assert metrics[f"eval_held_{condition}loss"] == pytest.approx(sum(losses) / 3, rel=1e-5)
        inputs = collator.processor(
            images=[samples.eval_prompt(i).images for i in range(9)], text=["<image>"] * 9, return_tensors="pt"
        )
        new = flamingo.generate(**inputs, max_new_tokens=4)[:, inputs["input_ids"].shape[1] :]
        texts = collator.processor.batch_decode(new, skip_special_tokens=True)
        expected = sum(word_f1(text, samples.eval_prompt(i).reference) for i, text in enumerate(texts)) / 9
        assert metrics[f"eval_held_{condition}word_f1"] == pytest.approx(expected)
    assert metrics["eval_held_loss"] != metrics["eval_held_blind_loss"]

    logged = [entry for entry in run.state.log_history if "eval_held_blind_loss" in entry]
    assert [entry["step"] for entry in logged] == [3, 6, 6]
    written = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()]
    assert [sample["step"] for sample in written] == [3] * 8 + [6] * 16
    assert {key: written[0][key] for key in ("source", "prompt", "reference")} == {
        "source": "pairs",
        "prompt": "<image>",
        "reference": "w10 w50",
    }
