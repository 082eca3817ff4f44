# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Train with TRL's `SFTTrainer` and its own collator, on images and messages."""

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForImageTextToText, AutoProcessor


trl = pytest.importorskip("trl")

WORDS = ["w20", "w40"]


def answer(model, processor, image) -> str:
    chat = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "w8"}]}]
    inputs = processor.apply_chat_template(
        chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    generated = model.eval().generate(**inputs, max_new_tokens=4, do_sample=False)
    return processor.decode(generated[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


def make_trainer(model, processor, images, directory, **kwargs):
    rows = [
        {"images": [image], "messages": [{"role": "user", "content": "w8"}, {"role": "assistant", "content": word}]}
        for image, word in zip(images, WORDS, strict=True)
    ]
    settings = {
        "per_device_train_batch_size": 2,
        "learning_rate": 1e-2,
        "max_length": None,
        "assistant_only_loss": True,
        "activation_checkpointing": False,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "dataloader_pin_memory": False,
    }
    arguments = trl.SFTConfig(str(directory), **{**settings, **kwargs})
    return trl.SFTTrainer(model, arguments, train_dataset=Dataset.from_list(rows), processing_class=processor)


def load(saved):
    return AutoModelForImageTextToText.from_pretrained(saved), AutoProcessor.from_pretrained(saved)


def test_the_collator_supervises_the_assistants_turns(saved, images, tmp_path):
    trainer = make_trainer(*load(saved), images, tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        "input_ids": (2, 4),
        "attention_mask": (2, 4),
        "pixel_values": (2, 1, 3, 8, 8),
        "frame_attention_mask": (2, 1),
        "labels": (2, 4),
    }
    assert sorted(batch["labels"].tolist()) == [[-100, -100, 20, 97], [-100, -100, 40, 97]]


def test_the_fused_loss_is_the_models(saved, images, tmp_path):
    model, processor = load(saved)
    trainer = make_trainer(model, processor, images, tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    expected = AutoModelForImageTextToText.from_pretrained(saved)(**batch).loss
    torch.testing.assert_close(trainer.compute_loss(model.eval(), dict(batch)), expected)


@pytest.mark.parametrize("freezes", [False, True], ids=["all", "frozen-backbones"])
def test_it_learns_which_image_has_which_answer(saved, images, tmp_path, freezes):
    torch.manual_seed(0)
    model, processor = load(saved)
    assert [answer(model, processor, image) for image in images] != WORDS
    if freezes:
        model.freeze_backbones()
    trainer = make_trainer(model, processor, images, tmp_path, max_steps=30)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    # With a frozen random head the loss has a floor near 4; the answers are right nevertheless
    assert losses[-1] < losses[0] - 0.5
    assert [answer(model, processor, image) for image in images] == WORDS
