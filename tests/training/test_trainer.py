# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Train a Flamingo model with frozen backbones with the stock `Trainer`."""

import pytest
import torch
from datasets import Dataset
from factory import END_OF_CHUNK, IMAGE, IMAGE_SIZE, tiny_flamingo, tiny_processor
from PIL import Image
from transformers import Trainer, TrainingArguments

from transformers_flamingo import FlamingoModel
from transformers_flamingo.training import FlamingoDataCollator, GateHistoryCallback


# With embeddings as small as GPT-2's initial ones, which are frozen, no word could become likely
SHARP = {"initializer_range": 0.3}
COLORS = {"w5": (255, 0, 0), "w6": (0, 0, 255)}


def rows(size: int) -> Dataset:
    """Return rows whose word only the color of the image tells."""
    words = [("w5", "w6")[i % 2] for i in range(size)]
    return Dataset.from_list(
        [
            {
                "image": Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), COLORS[word]),
                "prompt": "<image>",
                "completion": f"{word}<|endofchunk|>",
            }
            for word in words
        ]
    )


def train(tmp_path, model: FlamingoModel, size: int = 16, callbacks=(), **kwargs) -> Trainer:
    arguments = {
        "output_dir": str(tmp_path),
        "per_device_train_batch_size": 8,
        "max_steps": 40,
        "learning_rate": 5e-3,
        "weight_decay": 0.1,
        "logging_steps": 10,
        "report_to": "none",
        "remove_unused_columns": False,
        "save_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
    }
    processor = tiny_processor()
    trainer = Trainer(
        model=model,
        args=TrainingArguments(**{**arguments, **kwargs}),
        train_dataset=rows(size),
        data_collator=FlamingoDataCollator(processor),
        processing_class=processor,
        callbacks=list(callbacks),
    )
    trainer.train()
    return trainer


def test_it_learns_what_only_the_image_tells_from_closed_gates(tmp_path):
    model = tiny_flamingo(gates=0.0, text_kwargs=SHARP)
    model.freeze_backbones()
    gates = GateHistoryCallback()
    trainer = train(tmp_path, model, callbacks=[gates], learning_rate=2e-2, lr_scheduler_type="constant")
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    # Two words, one of which is right: a model that ignores the images stays above ln(2) / 2 per token
    assert losses[-1] < 0.2
    assert [entry["step"] for entry in gates.history] == [0, 10, 20, 30, 40]
    assert gates.history[0]["attn"] == gates.history[0]["ffn"] == [0.0, 0.0, 0.0]
    assert max(abs(gate) for gate in gates.history[-1]["attn"]) > 0.01

    processor = tiny_processor()
    for word, color in COLORS.items():
        image = Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), color)
        inputs = processor(images=image, text="<image>", return_tensors="pt")
        generated = model.eval().generate(**inputs, max_new_tokens=4)
        assert processor.batch_decode(generated, skip_special_tokens=True)[0].strip() == word


@pytest.mark.parametrize("text", ["gpt2", "llama"])
def test_weight_decay_leaves_every_frozen_number_as_it_was(tmp_path, text):
    model = tiny_flamingo(text, gates=0.0)
    model.freeze_backbones()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    trainer = train(tmp_path, model, max_steps=3)
    new_rows = [END_OF_CHUNK, IMAGE]
    for name, tensor in model.state_dict().items():
        if name.startswith(("resampler.", "gated_cross_attention.")):
            continue
        if tensor.shape[0] == 99:  # an embedding matrix, by its vocabulary
            assert not torch.equal(tensor[new_rows], before[name][new_rows]), name
            tensor, reference = tensor.clone(), before[name].clone()
            tensor[new_rows] = reference[new_rows] = 0
            assert torch.equal(tensor, reference), name
        else:
            assert torch.equal(tensor, before[name]), name
    # The optimizer holds two numbers for each trained number, and none for the rest
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    held = sum(
        value.numel() for state in trainer.optimizer.state.values() for key, value in state.items() if key != "step"
    )
    assert held == 2 * trained
    assert trained < sum(p.numel() for p in model.parameters())


def test_a_checkpoint_of_the_trainer_loads_and_resumes(tmp_path):
    model = tiny_flamingo(gates=0.0)
    model.freeze_backbones()
    train(tmp_path / "whole", model, max_steps=6)

    half = tiny_flamingo(gates=0.0)
    half.freeze_backbones()
    train(tmp_path / "half", half, max_steps=6, save_strategy="steps", save_steps=3)
    resumed = tiny_flamingo(gates=0.0)
    resumed.freeze_backbones()
    trainer = Trainer(
        model=resumed,
        args=TrainingArguments(
            output_dir=str(tmp_path / "half"),
            per_device_train_batch_size=8,
            max_steps=6,
            learning_rate=5e-3,
            weight_decay=0.1,
            report_to="none",
            remove_unused_columns=False,
            save_strategy="no",
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=rows(16),
        data_collator=FlamingoDataCollator(tiny_processor()),
    )
    trainer.train(resume_from_checkpoint=str(tmp_path / "half" / "checkpoint-3"))
    for name, tensor in model.state_dict().items():
        assert torch.equal(resumed.state_dict()[name], tensor), name
    loaded = FlamingoModel.from_pretrained(tmp_path / "half" / "checkpoint-6")
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
