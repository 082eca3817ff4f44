# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Small pretraining runs for the tests."""

import json

from transformers import TrainingArguments


GPT2 = {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 64}


def training(directory, **kwargs) -> TrainingArguments:
    values = {"max_steps": 40, "learning_rate": 1e-2, "per_device_train_batch_size": 6, "logging_steps": 1}
    values |= {"save_strategy": "no", "use_cpu": True, "disable_tqdm": True, "report_to": "none"}
    return TrainingArguments(str(directory), dataloader_pin_memory=False, **{**values, **kwargs})


def logged(trainer) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


def write_texts(path) -> str:
    lines = [{"text": f"the number {i} comes after the number {i - 1}."} for i in range(1, 61)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)
