# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Pretraining of a language model."""

import multiprocessing
import os
import signal

import datasets
import pytest
import torch
from factory import tiny_tokenizer
from pretraining_runs import GPT2, logged, training, write_texts
from runs import write_pairs
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    Trainer,
    TrainerCallback,
    TrainingArguments,
    set_seed,
)

from transformers_flamingo.pretraining import TextPretrainingArguments, pretrain_text, train_language_model
from transformers_flamingo.training.interruption import TrainingInterrupted


class Send(TrainerCallback):
    """Send a real signal to this process and its workers at the beginning of the third step."""

    def __init__(self, number: int):
        self.number = number

    def on_step_begin(self, args, state, control, **kwargs):
        if state.global_step == 2:
            for process in (*multiprocessing.active_children(), multiprocessing.current_process()):
                os.kill(process.pid, self.number)


def test_any_reader_gives_texts(tmp_path, pairs):
    """The texts of `write_pairs` are concatenated, each with its end-of-sequence token, and cut into blocks."""
    tiny_tokenizer().save_pretrained(tmp_path / "tokenizer")
    arguments = TextPretrainingArguments(
        data_path=pairs,
        data_format="image_text_pairs",
        text_config={**GPT2, "vocab_size": 120},
        tokenizer=str(tmp_path / "tokenizer"),
        block_size=5,
    )
    trained = pretrain_text(arguments, training(tmp_path / "text", max_steps=1))
    assert trained.model.config.vocab_size == 120
    assert trained.model.config.eos_token_id == 2
    # Text i has 2 + i % 3 tokens and its end: 12 of them have 48, and 3 fill no block
    blocks = trained.train_dataset["input_ids"]
    assert list(blocks[0]) == [10, 50, 2, 10, 51]
    assert len(blocks) == 9
    batch = trained.data_collator([trained.train_dataset[0]])
    assert torch.equal(batch["labels"], batch["input_ids"])

    continued = TextPretrainingArguments(
        data_path=arguments.data_path, data_format="image_text_pairs", block_size=5, text=str(tmp_path / "text")
    )
    again = pretrain_text(continued, training(tmp_path / "again", max_steps=1, learning_rate=0.0))
    state = trained.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in again.model.state_dict().items())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_a_checkpoint_from_which_it_continues(tmp_path, caplog, number):
    texts = write_texts(tmp_path / "texts.jsonl")
    arguments = TextPretrainingArguments(data_path=texts, text_config=GPT2, block_size=16)
    whole = pretrain_text(arguments, training(tmp_path / "whole", max_steps=4))

    class Stopped(Trainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.add_callback(Send(number))

    before = signal.getsignal(number)
    rows, tokenizer = whole.train_dataset, AutoTokenizer.from_pretrained(tmp_path / "whole")
    options = {"max_steps": 4, "resume_from_checkpoint": "auto", "dataloader_num_workers": 1}
    set_seed(42)
    model = GPT2LMHeadModel(GPT2Config(**whole.model.config.to_dict()))
    with pytest.raises(TrainingInterrupted, match="stopped by .* after step 3 of 4.*--resume_from_checkpoint auto"):
        train_language_model(
            model, tokenizer, rows, training(tmp_path / "parts", **options), Stopped, stops_on_signals=True
        )
    assert signal.getsignal(number) is before
    assert "has no checkpoint: the training starts at step 0" in caplog.text
    resumed = train_language_model(
        model, tokenizer, rows, training(tmp_path / "parts", **options), stops_on_signals=True
    )
    assert "The training resumes from" in caplog.text
    assert resumed.state.global_step == 4
    assert signal.getsignal(number) is before
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], tensor), name


def test_a_block_that_does_not_fit_is_refused(tmp_path):
    texts = write_texts(tmp_path / "texts.jsonl")
    with pytest.raises(ValueError, match="the model has 64 positions"):
        pretrain_text(TextPretrainingArguments(data_path=texts, text_config=GPT2, block_size=65), training(tmp_path))
    few = TextPretrainingArguments(data_path=texts, text_config={**GPT2, "n_positions": 9999}, block_size=9999)
    with pytest.raises(ValueError, match="fill no row of 9999 tokens"):
        pretrain_text(few, training(tmp_path))


def test_a_misspelled_field_of_a_backbone_is_refused(tmp_path):
    path = write_pairs(tmp_path / "pairs", 4)
    training = TrainingArguments(str(tmp_path / "out"), use_cpu=True, report_to="none")
    for config, message in (
        ({"n_embdd": 32}, "GPT2Config has no 'n_embdd'.*Did you mean 'n_embd'"),
        ({"n_embd": "wide"}, "cannot be made of .*'n_embd' expected int"),
    ):
        arguments = TextPretrainingArguments(
            data_path=path,
            data_format="image_text_pairs",
            text_config={"model_type": "gpt2", **config},
            vocab_size=300,
        )
        with pytest.raises(ValueError, match=message):
            pretrain_text(arguments, training)


def test_pretraining_that_becomes_nan_stops_and_keeps_the_saved_model(tmp_path):
    path = write_pairs(tmp_path / "pairs", 8)
    small = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 8}
    arguments = TextPretrainingArguments(
        data_path=path, data_format="image_text_pairs", text_config=small, vocab_size=300, block_size=4
    )

    def train(**kwargs):
        training = TrainingArguments(
            str(tmp_path / "out"),
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_steps=1,
            hub_token="hf_secretsecret",
            **kwargs,
        )
        return pretrain_text(arguments, training)

    train(max_steps=1)
    out = tmp_path / "out"
    before = {path: path.read_bytes() for path in out.iterdir() if path.is_file()}
    assert {"config.json", "model.safetensors", "training_args.bin"} <= {path.name for path in before}
    assert not [path for path, content in before.items() if b"hf_secretsecret" in content]
    for steps, message in ((50, "the training is stopped"), (2, "not saved and not published")):
        with pytest.raises(ValueError, match=message):
            train(max_steps=steps, learning_rate=1e38, max_grad_norm=0.0)
        assert {path: path.read_bytes() for path in before} == before


def test_rows_of_token_ids_with_labels(tmp_path):
    """The loss is the mean over all labels of a step, however it is divided into micro-batches."""
    rows = torch.randint(3, 90, (4, 6), generator=torch.Generator().manual_seed(0))
    counted = torch.tensor([[0, 1, 1, 0, 1, 1], [0, 1, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 1, 1]]).bool()
    positions = torch.arange(10, 16).expand(4, 6)
    config = GPT2Config(**{**GPT2, "vocab_size": 120, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "attn_pdrop": 0.0})
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        logits = model(input_ids=rows, position_ids=positions).logits
    losses = torch.nn.functional.cross_entropy(logits[:, :-1].transpose(1, 2), rows[:, 1:], reduction="none")
    expected = losses[counted[:, 1:]].mean().item()
    columns = {"input_ids": rows, "labels": rows.where(counted, -100), "position_ids": positions}
    data = datasets.Dataset.from_dict({name: tensor.tolist() for name, tensor in columns.items()})
    for size in (4, 2):
        arguments = training(
            tmp_path / str(size),
            max_steps=1,
            learning_rate=0.0,
            per_device_train_batch_size=size,
            gradient_accumulation_steps=4 // size,
            train_sampling_strategy="sequential",
        )
        trainer = train_language_model(model, tiny_tokenizer(), data, arguments)
        assert logged(trainer) == [pytest.approx(expected, rel=1e-5)]
    saved = AutoModelForCausalLM.from_pretrained(tmp_path / "4").state_dict()
    assert all(torch.equal(tensor, saved[name]) for name, tensor in model.state_dict().items())
    assert len(AutoTokenizer.from_pretrained(tmp_path / "4")) == len(tiny_tokenizer())
