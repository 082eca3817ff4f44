# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""What a trainer looks at before its first step, and that the training does not notice."""

import json
import random

import numpy as np
import pytest
import torch
from factory import tiny_processor
from runs import digest, model, source, trainer, words, write_pairs, write_shards

from transformers_flamingo.training import DataMixture, GenerationEvalDataset
from transformers_flamingo.training import trainer as trainer_module
from transformers_flamingo.training.text_checks import Answers, check_held_out_texts, check_texts, select_rows


@pytest.fixture(autouse=True)
def messages(monkeypatch) -> list[str]:
    said = []
    monkeypatch.setattr("transformers_flamingo.training.text_checks.logger.warning", said.append)
    return said


def write_texts(path, texts: list[str]) -> str:
    """Write pairs with these texts, none of whose images exists. Return the path of the file."""
    rows = [json.dumps({"file_name": f"{i}.png", "text": text}) for i, text in enumerate(texts)]
    path.write_text("\n".join(rows))
    return str(path)


@pytest.mark.parametrize("streaming", [False, True])
def test_unknown_words_end_a_training_before_its_first_step(tmp_path, streaming):
    path = write_texts(tmp_path / "names.jsonl", ["w5 zebra", "zebra crossing", "w6"])
    run = trainer(tmp_path / "out", [source("names", path, streaming=streaming)])
    with pytest.raises(
        ValueError, match=r"Data source 'names': 37.5% .* \(3 of 8\) .*'zebra' \(2\), 'crossing' \(1\)"
    ):
        run.train()
    assert run.state.global_step == 0


def test_a_few_unknown_words_are_a_warning(tmp_path, messages):
    path = write_texts(tmp_path / "names.jsonl", [*["w5 w6 w7"] * 10, "zebra"])
    run = trainer(tmp_path / "out", [source("names", path)])
    check_texts(run.mixture, run.args, 100, 1)
    (message,) = messages
    assert "Data source 'names': 2.4% of the tokens to learn (1 of 42) are 'w3'" in message


def test_more_answers_than_steps_are_a_warning(tmp_path, messages):
    path = write_texts(tmp_path / "names.jsonl", [f"w{i}" for i in range(50, 90)])
    run = trainer(tmp_path / "out", [source("names", path)])
    check_texts(run.mixture, run.args, 39, 1)
    (message,) = messages
    assert "there are 40 different answers, but the run has 39 optimizer steps of 2 rows" in message
    assert "seen 1.9 times" in message
    check_texts(run.mixture, run.args, 40, 1)
    assert len(messages) == 1


def test_sentences_are_no_answers_to_tell_apart():
    answers = Answers()
    for i in range(3000):
        text = f"<image>this is the sentence number {i}<|endofchunk|>"
        answers.add({"text": text, "supervised": [(7, len(text))]}, "<|endofchunk|>")
    assert (answers.rows, answers.count) == (3000, 0)
    for i in range(3000, 30_000):
        text = f"<image>question {i}? yes<|endofchunk|>"
        answers.add({"text": text, "supervised": [(len(text) - 16, len(text))]}, "<|endofchunk|>")
    assert answers.count == 1


def test_bad_rows_are_left_to_the_training(tmp_path):
    texts = [*["w5 w6"] * 3, "  ", "w5 <image>"]
    run = trainer(tmp_path, [source("names", write_texts(tmp_path / "names.jsonl", texts))])
    check_texts(run.mixture, run.args, 100, 1)


def test_held_out_words(tmp_path, messages):
    folder = write_pairs(tmp_path / "pairs", 3)
    (tmp_path / "pairs" / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "w5 quagga"}')
    rows = GenerationEvalDataset(source("a", folder), tiny_processor())
    check_held_out_texts({"animals": rows, "other": [1]})
    check_held_out_texts(None)
    (message,) = messages
    assert "Held-out data 'animals': 33.3% of the tokens to generate (1 of 3)" in message
    assert "'quagga' (1)" in message


@pytest.mark.parametrize("kind", ["rows", "stream"])
def test_the_training_is_the_same_with_and_without_the_look(tmp_path, kind, monkeypatch):
    if kind == "rows":
        sources = [source("a", write_pairs(tmp_path / "a", 9))]
    else:
        sources = [source("a", write_shards(tmp_path / "a", 2, 5), streaming=True)]
    with_look = trainer(tmp_path / "out", sources)
    with_look.train()
    monkeypatch.setattr(trainer_module, "check_texts", lambda *args: None)
    without = trainer(tmp_path / "out", sources)
    without.train()
    assert digest(with_look.model) == digest(without.model)


@pytest.mark.parametrize("streaming", [False, True])
def test_random_generators_and_the_position_in_the_data_stay(tmp_path, streaming):
    path = write_shards(tmp_path / "a", 3, 4)
    mixture = DataMixture([source("a", path, streaming=streaming)], tiny_processor())
    args = trainer(tmp_path / "out", [source("a", path)], flamingo=model()).args
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()
    check_texts(mixture, args, 100, 1)
    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tolist() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])
    fresh = DataMixture([source("a", path, streaming=streaming)], tiny_processor())
    pairs = zip(iter(mixture), iter(fresh), strict=True)
    for _ in range(8):
        one, other = next(pairs)
        assert torch.equal(one.inputs["input_ids"], other.inputs["input_ids"])
        assert one.stream == other.stream


def test_rows_are_spread_over_a_source_and_the_first_of_a_stream(tmp_path):
    path = write_shards(tmp_path / "a", 2, 5)
    texts = [words(i) for i in range(10)]

    def chosen(streaming: bool, max_rows: int | None) -> list[str]:
        rows = select_rows(source("a", path, streaming=streaming).load(), max_rows)
        return [row["txt"] for row in rows]

    assert chosen(False, 3) == [texts[0], texts[4], texts[9]]
    assert chosen(True, 3) == texts[:3]
    assert chosen(False, None) == chosen(True, None) == chosen(False, 10) == chosen(True, 99) == texts
