# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Check that a Flamingo trains beside a frozen language model in 4 or 8 bits, without adapters.

The widths are multiples of 64: bitsandbytes' blocks on a CPU must fill the rows.
"""

import copy
import pickle

import pytest
import torch
from factory import END_OF_CHUNK, IMAGE, VOCAB_SIZE, prompt, random_images, tiny_flamingo, tiny_processor
from PIL import Image
from transformers import BitsAndBytesConfig, Trainer, TrainingArguments

from transformers_flamingo import FlamingoModel
from transformers_flamingo.training import (
    FlamingoDataCollator,
    FlamingoTrainer,
    FlamingoTrainingArguments,
    ModelArguments,
    build_model,
    lora_config,
)


pytest.importorskip("bitsandbytes")

WIDE = {
    "gpt2": {"n_embd": 64},
    "llama": {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16, "num_hidden_layers": 2},
}
ROWS = [
    {"image": Image.new("RGB", (8, 8), color), "prompt": "<image>", "completion": f"{words}<|endofchunk|>"}
    for color, words in (("red", "w5 w6"), ("blue", "w7 w8"))
]
TRAINERS = {"stock": (Trainer, TrainingArguments), "flamingo": (FlamingoTrainer, FlamingoTrainingArguments)}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return the folders of tiny models in full precision, by their language model."""
    folders = {}
    for text, kwargs in WIDE.items():
        folders[text] = tmp_path_factory.mktemp("saved") / text
        tiny_flamingo(text, text_kwargs=kwargs).save_pretrained(folders[text])
        tiny_processor().save_pretrained(folders[text])
    return folders


def load(folder, bits: int) -> FlamingoModel:
    return FlamingoModel.from_pretrained(
        folder, quantization_config=BitsAndBytesConfig(**{f"load_in_{bits}bit": True})
    )


def train(kind: str, model, folder, **kwargs) -> list[float]:
    trainer_class, arguments_class = TRAINERS[kind]
    arguments = arguments_class(
        output_dir=str(folder),
        max_steps=4,
        learning_rate=1e-2,
        logging_steps=1,
        per_device_train_batch_size=2,
        remove_unused_columns=False,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        **kwargs,
    )
    trainer = trainer_class(
        model, arguments, FlamingoDataCollator(tiny_processor()), train_dataset=ROWS, eval_dataset=ROWS
    )
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize(
    ("kind", "text", "bits"),
    [
        ("stock", "llama", 8),
        ("stock", "llama", 4),
        ("stock", "gpt2", 4),
        ("flamingo", "gpt2", 8),
        ("flamingo", "llama", 4),
    ],
)
def test_what_is_beside_the_language_model_is_trained(kind, text, bits, saved, tmp_path):
    model = load(saved[text], bits)
    model.freeze_backbones()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    losses = train(kind, model, tmp_path, eval_strategy="steps", eval_steps=1)
    assert losses[-1] < losses[0] - 0.1

    changed = set()
    for name, tensor in model.state_dict().items():
        if len(tensor.shape) == 2 and len(tensor) == VOCAB_SIZE:
            changed |= set((tensor != before[name]).any(dim=1).nonzero().flatten().tolist())
        elif name.startswith(("vision_model.", "language_model.")):
            assert torch.equal(tensor, before[name]), name
        elif name.startswith("gated_cross_attention."):
            assert not torch.equal(tensor, before[name]), name
    assert changed == {END_OF_CHUNK, IMAGE}

    model.save_pretrained(tmp_path / "trained")
    again = FlamingoModel.from_pretrained(tmp_path / "trained")
    again.freeze_backbones()  # otherwise bitsandbytes packs 4-bit weights, and rounds them
    inputs = {"input_ids": prompt("aIbc"), "pixel_values": random_images(1, 1)}
    with torch.no_grad():
        torch.testing.assert_close(again(**inputs).logits, model.eval()(**inputs).logits, rtol=0, atol=1e-5)


def test_a_recipe_trains_it(saved, tmp_path):
    model, _ = build_model(ModelArguments(model=str(saved["llama"]), quantization="8bit"))
    assert model.is_loaded_in_8bit
    losses = train("flamingo", model, tmp_path)
    assert losses[-1] < losses[0]


def test_gradients_are_those_of_a_model_that_was_never_evaluated(saved):
    """On some CPUs bitsandbytes packs 4-bit weights in the first inference, and a packed layer passes no gradient on."""
    inputs = {"input_ids": prompt("aIbc"), "pixel_values": random_images(1, 1)}
    gradients = []
    for evaluated in (False, True):
        model = load(saved["gpt2"], 4)
        model.freeze_backbones()
        if evaluated:
            with torch.no_grad():
                model.eval()(**inputs)
        for module in model.modules():  # a difference in the masks of dropout would be one, too
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        model.train()(**inputs, labels=inputs["input_ids"]).loss.backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=0, atol=0, msg=name)


def test_adapters_are_trained_through_the_evaluations_of_the_trainer(saved, tmp_path):
    from peft import get_peft_model

    model = load(saved["gpt2"], 4)
    adapted = get_peft_model(model, lora_config(model, r=2))
    losses = train("flamingo", adapted, tmp_path, image_use_steps=1)
    assert losses[-1] < losses[0]
    assert all(p.any() for name, p in adapted.named_parameters() if "lora_B" in name), "each layer had a gradient"


def test_without_freezing_the_stock_trainer_refuses_it(saved, tmp_path):
    model = load(saved["llama"], 8)
    with pytest.raises(ValueError, match="attach trainable adapters"):
        train("stock", model, tmp_path)
    model.freeze_backbones()
    with pytest.raises(ValueError, match="is quantized, and quantized weights have no gradients"):
        model.unfreeze_backbones(language_model=True)
    model.unfreeze_backbones(vision_model=True)
    assert not any(p.requires_grad for p in model.language_model.parameters())


def test_the_quantizer_can_be_copied(saved):
    model = load(saved["llama"], 8)
    model.freeze_backbones()
    quantizer = model.hf_quantizer
    model.freeze_backbones()
    assert model.hf_quantizer is quantizer
    for other in (copy.deepcopy(quantizer), pickle.loads(pickle.dumps(quantizer))):
        assert other.is_qat_trainable and other.is_trainable
        assert other.quantization_config.to_dict() == quantizer.quantization_config.to_dict()
