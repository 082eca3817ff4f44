# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo pretrain`, from the shipped recipes to a Flamingo of both backbones."""

from PIL import Image

from transformers_flamingo import FlamingoModel, FlamingoProcessor
from transformers_flamingo_cli import main


def test_pretrained_backbones_from_the_command_line(tmp_path, pairs):
    options = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--use_cpu", "true"]
    for kind in ("vision", "text"):
        given = ["--data_path", pairs, "--data_format", "image_text_pairs", "--output_dir", str(tmp_path / kind)]
        given += [f"--{kind}_config.num_hidden_layers", "1"]
        assert main(["pretrain", kind, f"pretraining/{kind}", *given, *options]) == 0
    model = FlamingoModel.from_vision_text_pretrained(str(tmp_path / "vision"), str(tmp_path / "text"))
    assert model.config.text_config.num_hidden_layers == model.config.vision_config.num_hidden_layers == 1
    processor = FlamingoProcessor.from_vision_text_pretrained(str(tmp_path / "vision"), str(tmp_path / "text"))
    inputs = processor(images=[[Image.new("RGB", (64, 64), "red")]], text=["<image>a red"], return_tensors="pt")
    assert model(**inputs).logits.isfinite().all()
