# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Check PEFT adapters on a Flamingo model: what they train, what they save, and quantized language models below them."""

import logging
import sys

import pytest
import torch
from factory import (
    END_OF_CHUNK,
    IMAGE,
    VOCAB_SIZE,
    open_gates,
    prompt,
    random_images,
    tiny_config,
    tiny_flamingo,
    tiny_processor,
)
from peft import AutoPeftModel, PeftModel, get_peft_model
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AqlmConfig,
    AutoConfig,
    AutoModelForImageTextToText,
    BitsAndBytesConfig,
    Conv1D,
    EetqConfig,
    Trainer,
    TrainingArguments,
)
from transformers.quantizers.quantizers_utils import should_convert_module

from transformers_flamingo import FlamingoConfig, FlamingoForSequenceClassification, FlamingoModel, pretrained_flamingo
from transformers_flamingo.training import FlamingoDataCollator, GateHistoryCallback, lora_config, parameter_groups


texts = pytest.mark.parametrize("text", ["gpt2", "opt", "llama"])  # the first two are tied
NEW_ROWS = [END_OF_CHUNK, IMAGE]
# All linear layers of the decoder.
LORA_LAYERS = {
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "opt": ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"),
    "llama": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
}


def batch() -> dict[str, torch.Tensor]:
    ids = prompt("aIbcEIdeE", "Iab_cIEdf")
    return {"input_ids": ids, "pixel_values": random_images(2, 2)}


def with_lora(model: FlamingoModel, **kwargs) -> PeftModel:
    return get_peft_model(model, lora_config(model, **{"r": 4, **kwargs}))


def train(model: PeftModel, steps: int = 3) -> list[float]:
    model.train()
    inputs = batch()
    optimizer = torch.optim.AdamW(parameter_groups(model, 1e-2))
    losses = []
    for _ in range(steps):
        loss = model(**inputs, labels=inputs["input_ids"]).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    model.eval()
    return losses


@torch.no_grad()
def logits(model) -> torch.Tensor:
    return model.eval()(**batch()).logits


@texts
def test_a_new_adapter_changes_nothing(text):
    model = tiny_flamingo(text)
    expected = logits(model)
    torch.testing.assert_close(logits(with_lora(model)), expected, rtol=0, atol=1e-6)


@texts
def test_exactly_what_is_to_be_trained_changes(text):
    model = tiny_flamingo(text)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    adapted = with_lora(model)
    losses = train(adapted)
    assert losses[-1] < losses[0]

    # Below the adapter every number of the model is as it was.
    kept = {
        name.removeprefix("base_model.model.")
        .replace("token_adapter.", "")
        .replace("base_layer.", "")
        .replace("original_module.", ""): tensor
        for name, tensor in adapted.state_dict().items()
        if not any(part in name for part in ("lora_", "modules_to_save.", "trainable_tokens_"))
    }
    assert kept.keys() == before.keys()
    for name, tensor in kept.items():
        assert torch.equal(tensor, before[name]), name

    # Merged, only what is to be trained is another.
    for name, tensor in adapted.merge_and_unload().state_dict().items():
        is_lora = name.startswith("language_model.") and name.split(".")[-2] in LORA_LAYERS[text]
        if name.startswith(("resampler.", "gated_cross_attention.")) or (is_lora and name.endswith("weight")):
            assert not torch.equal(tensor, before[name]), name
        elif len(tensor) == VOCAB_SIZE:
            changed = (tensor != before[name]).any(dim=1).nonzero().flatten().tolist()
            assert changed == NEW_ROWS, name
        else:
            assert torch.equal(tensor, before[name]), name


@texts
def test_merged_it_gives_the_same_logits(text):
    adapted = with_lora(tiny_flamingo(text))
    base = logits(adapted)
    train(adapted)
    expected = logits(adapted)
    assert (expected - base).abs().max() > 0.1
    merged = adapted.merge_and_unload()
    assert type(merged) is FlamingoModel
    torch.testing.assert_close(logits(merged), expected, rtol=0, atol=1e-5)
    is_tied = merged.get_input_embeddings().weight is merged.get_output_embeddings().weight
    assert is_tied == merged.config.tie_word_embeddings == (text != "llama")


@texts
def test_the_merged_model_is_saved_and_loaded_as_a_flamingo(text, tmp_path):
    adapted = with_lora(tiny_flamingo(text))
    train(adapted)
    expected = logits(adapted)
    adapted.merge_and_unload().save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    torch.testing.assert_close(logits(loaded), expected, rtol=0, atol=1e-5)


@texts
def test_the_adapter_is_saved_alone_and_loaded_onto_a_fresh_model(text, tmp_path, caplog):
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    tiny_flamingo(text).save_pretrained(base)
    adapted = with_lora(FlamingoModel.from_pretrained(base))
    losses = train(adapted)
    expected = logits(adapted)
    adapted.save_pretrained(adapter)

    # What a push of this directory sends.
    assert {path.name for path in adapter.iterdir()} == {
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    }
    saved = load_file(adapter / "adapter_model.safetensors")
    assert all(len(tensor) != VOCAB_SIZE for tensor in saved.values())
    rows = {name: tensor.shape for name, tensor in saved.items() if "trainable_tokens_delta" in name}
    assert list(rows.values()) == [(2, 32)] * (2 if text == "llama" else 1)
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert sum(tensor.numel() for tensor in saved.values()) == trained

    loaded = [
        PeftModel.from_pretrained(FlamingoModel.from_pretrained(base), adapter),
        AutoPeftModel.from_pretrained(adapter, import_allowlist=["transformers_flamingo"]),
        AutoModelForImageTextToText.from_pretrained(adapter),
    ]
    assert "LOAD REPORT" not in caplog.text  # the new rows of a tied head are saved once
    for model in loaded:
        torch.testing.assert_close(logits(model), expected, rtol=0, atol=0)
    damaged = {name: tensor for name, tensor in saved.items() if name not in rows}
    save_file(damaged, adapter / "adapter_model.safetensors")
    AutoModelForImageTextToText.from_pretrained(adapter)
    assert "trainable_tokens_delta.default | MISSING" in caplog.text
    save_file(saved, adapter / "adapter_model.safetensors")
    resumed = PeftModel.from_pretrained(FlamingoModel.from_pretrained(base), adapter, is_trainable=True)
    assert train(resumed)[0] < losses[0]


def test_without_the_adapter_the_model_is_the_old_one():
    model = tiny_flamingo()
    expected = logits(model)
    adapted = with_lora(model)
    train(adapted)
    with adapted.disable_adapter():
        torch.testing.assert_close(logits(adapted), expected, rtol=0, atol=0)


def test_it_generates_from_images():
    adapted = with_lora(tiny_flamingo(gates=2.0, text_kwargs={"initializer_range": 0.3}))
    train(adapted, steps=1)
    ids = prompt("abI")
    arguments = {"max_new_tokens": 8, "eos_token_id": -1}
    images = [random_images(1, 1, seed=seed) for seed in range(8)]
    generated = [adapted.generate(input_ids=ids, pixel_values=image, **arguments) for image in images]
    assert len({tuple(row[0].tolist()) for row in generated}) > 1
    merged = adapted.merge_and_unload()
    for image, expected in zip(images, generated, strict=True):
        assert torch.equal(merged.generate(input_ids=ids, pixel_values=image, **arguments), expected)


@texts
def test_gradient_checkpointing_gives_the_same_gradients(text):
    gradients = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        adapted = with_lora(tiny_flamingo(text, text_kwargs={"attention_dropout": 0.0}), lora_dropout=0.0)
        for module in adapted.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        if checkpointing:
            adapted.activation_checkpointing_enable()
        adapted.train()
        inputs = batch()
        adapted(**inputs, labels=inputs["input_ids"]).loss.backward()
        gradients.append({name: p.grad for name, p in adapted.named_parameters() if p.requires_grad})
    assert gradients[0].keys() == gradients[1].keys()
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-4, atol=1e-6, msg=name)


def test_the_stock_trainer_trains_it(tmp_path):
    processor = tiny_processor()
    base = tmp_path / "base"
    tiny_flamingo(gates=0.0).save_pretrained(base)
    adapted = with_lora(FlamingoModel.from_pretrained(base))
    gates = GateHistoryCallback()
    red = Image.new("RGB", (8, 8), (255, 0, 0))
    rows = [{"image": red, "prompt": "<image>", "completion": "w5 w6<|endofchunk|>"} for _ in range(4)]
    trainer = Trainer(
        model=adapted,
        args=TrainingArguments(
            output_dir=str(tmp_path / "out"),
            per_device_train_batch_size=2,
            max_steps=4,
            learning_rate=1e-2,
            logging_steps=1,
            gradient_checkpointing=True,
            remove_unused_columns=False,
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=rows,
        data_collator=FlamingoDataCollator(processor),
        callbacks=[gates],
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]
    assert gates.history[0]["attn"] == [0.0] * 3
    assert all(gates.history[-1]["attn"])

    checkpoint = tmp_path / "out" / "checkpoint-4"
    assert not (checkpoint / "model.safetensors").exists()
    loaded = PeftModel.from_pretrained(FlamingoModel.from_pretrained(base), checkpoint)
    torch.testing.assert_close(logits(loaded), logits(adapted), rtol=0, atol=0)


def test_parameter_groups_know_the_gates_and_the_gated_blocks():
    adapted = with_lora(tiny_flamingo())
    matrices, rest, gates = parameter_groups(adapted, 1e-3, weight_decay=0.1, gate_learning_rate_multiplier=10)
    assert len(gates["params"]) == 6 and gates["lr"] == 1e-2
    decayed = {id(p) for p in matrices["params"]}
    names = [name for name, p in adapted.named_parameters() if id(p) in decayed]
    assert names and all(".gated_cross_attention." in name for name in names)
    assert len(rest["params"]) > 0


def test_given_fields_override_and_stay_in_the_language_model():
    # CLIP's layers have these names too.
    adapted = with_lora(tiny_flamingo("opt"), target_modules=["q_proj", "v_proj"], r=2, modules_to_save=["resampler"])
    trained = [name for name, p in adapted.named_parameters() if p.requires_grad]
    with_lora_layers = {name.split(".lora_")[0] for name in trained if ".lora_" in name}
    assert len(with_lora_layers) == 3 * 2
    assert all(".language_model." in name for name in with_lora_layers)
    assert not any("gated_cross_attention" in name for name in trained)
    assert adapted.peft_config["default"].r == 2


def test_tokens_of_ordinary_text_stay_frozen():
    model = tiny_flamingo(image_token_ids=[5, 6], image_token_id=5)
    config = lora_config(model)
    assert config.trainable_token_indices == {"language_model.transformer.wte": [END_OF_CHUNK]}


def test_a_head_with_a_bias_keeps_it(caplog):
    model = tiny_flamingo("gptj")
    torch.nn.init.normal_(model.get_output_embeddings().bias)
    expected = logits(model)
    with caplog.at_level(logging.WARNING):
        config = lora_config(model)
    assert config.trainable_token_indices == {"language_model.transformer.wte": NEW_ROWS}
    torch.testing.assert_close(logits(get_peft_model(model, config)), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("task_type", [None, "SEQ_CLS"])
def test_a_classifier_trains_its_scores_and_no_head_of_the_language_model(task_type, tmp_path):
    def classifier() -> FlamingoForSequenceClassification:
        torch.manual_seed(0)
        config = tiny_config("llama", text_kwargs={"tie_word_embeddings": False}, num_labels=3)
        return open_gates(FlamingoForSequenceClassification(config))

    model = classifier()
    adapted = get_peft_model(model, lora_config(model, r=4, task_type=task_type))
    assert model.score.modules_to_save["default"].weight.requires_grad
    assert not any("lm_head" in name for name, p in model.named_parameters() if p.requires_grad)
    optimizer = torch.optim.SGD([p for p in adapted.parameters() if p.requires_grad], lr=1.0)
    inputs = {"input_ids": prompt("aIb", "Icd"), "pixel_values": random_images(2, 1)}
    adapted(**inputs, labels=torch.tensor([0, 2])).loss.backward()
    assert all(p.grad is not None for p in adapted.parameters() if p.requires_grad)
    optimizer.step()
    adapted.eval().save_pretrained(tmp_path)
    with torch.no_grad():
        expected = adapted(**inputs).logits
        again = PeftModel.from_pretrained(classifier(), tmp_path).eval()
        assert torch.equal(again(**inputs).logits, expected)
        torch.testing.assert_close(again.merge_and_unload()(**inputs).logits, expected)


def test_freeze_backbones_and_adapters_exclude_each_other():
    model = tiny_flamingo()
    model.freeze_backbones()
    with pytest.raises(ValueError, match="omit `freeze_backbones\\(\\)`"):
        lora_config(model)
    model.unfreeze_backbones()
    adapted = with_lora(model)
    trained = sum(p.numel() for p in adapted.parameters() if p.requires_grad)
    assert trained == sum(p.numel() for p in with_lora(tiny_flamingo()).parameters() if p.requires_grad)
    with pytest.raises(ValueError, match="has PEFT adapters"):
        adapted.freeze_backbones()
    merged = adapted.merge_and_unload()
    merged.freeze_backbones()
    assert merged.input_token_rows is not None


def test_without_peft_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(ImportError, match=r"transformers-flamingo\[train\]"):
        lora_config(tiny_flamingo())


def test_only_a_whole_flamingo_that_peft_has_not_changed_has_a_config():
    model = tiny_flamingo()
    for other in (model.language_model, with_lora(model)):
        with pytest.raises(ValueError, match=f"got a {type(other).__name__}.*before `get_peft_model`"):
            lora_config(other)


# Quantized language models. The widths are multiples of 64: bitsandbytes' blocks on a CPU must fill the rows.

WIDE = {
    "gpt2": {"n_embd": 64},
    "opt": {"hidden_size": 64, "word_embed_proj_dim": 64, "ffn_dim": 128},
    "llama": {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16},
}
bits = pytest.mark.parametrize("bits", [8, 4])


@pytest.fixture
def bitsandbytes():
    return pytest.importorskip("bitsandbytes")


def quantized_layers(model, bits: int) -> set[str]:
    name = {8: "Linear8bitLt", 4: "Linear4bit"}[bits]
    return {path for path, module in model.named_modules() if type(module).__name__ == name}


def decoder_layers(model, text: str) -> set[str]:
    return {
        path
        for path, _ in model.named_modules()
        if path.startswith("language_model.") and path.split(".")[-1] in LORA_LAYERS[text]
    }


@texts
@bits
def test_only_the_language_model_is_quantized(bitsandbytes, text, bits, tmp_path):
    model = tiny_flamingo(text, text_kwargs=WIDE[text])
    model.save_pretrained(tmp_path / "full")
    config = BitsAndBytesConfig(**{f"load_in_{bits}bit": True})
    quantized = AutoModelForImageTextToText.from_pretrained(tmp_path / "full", quantization_config=config)
    assert quantized_layers(quantized, bits) == decoder_layers(model, text)
    assert config.llm_int8_skip_modules is None  # that of the caller does not change
    for name in ("vision_model", "resampler", "gated_cross_attention"):
        for key, tensor in getattr(quantized, name).state_dict().items():
            assert torch.equal(tensor, model.state_dict()[f"{name}.{key}"]), key

    # Saved before anything is computed: on some CPUs the first 4-bit forward rounds the scales.
    quantized.save_pretrained(tmp_path / "quantized")
    loaded = FlamingoModel.from_pretrained(tmp_path / "quantized")
    assert quantized_layers(loaded, bits) == decoder_layers(model, text)
    result = logits(quantized)
    torch.testing.assert_close(logits(loaded), result, rtol=0, atol=1e-6)
    error = (result - logits(model)).abs().max()
    assert 0 < error < {8: 0.01, 4: 0.1}[bits]

    inputs = batch()
    generated = quantized.generate(**inputs, max_new_tokens=3, eos_token_id=-1)
    assert generated.shape == (2, inputs["input_ids"].shape[1] + 3)


@bits
def test_given_names_are_skipped_in_addition_to_the_head(bitsandbytes, bits, tmp_path):
    """Take names as users of a bare language model know them. Their list replaces the default one, which has the head."""
    model = tiny_flamingo("llama", text_kwargs={**WIDE["llama"], "tie_word_embeddings": False})
    model.save_pretrained(tmp_path)
    for given in (["lm_head"], ["model.layers.0"], []):
        config = BitsAndBytesConfig(**{f"load_in_{bits}bit": True}, llm_int8_skip_modules=given)
        quantized = FlamingoModel.from_pretrained(tmp_path, quantization_config=config)
        expected = decoder_layers(model, "llama")
        if given == ["model.layers.0"]:
            expected = {name for name in expected if ".layers.0." not in name}
        assert quantized_layers(quantized, bits) == expected


@pytest.mark.parametrize("text", ["gpt2", "opt", "llama", "gpt_neox", "gptj", "mpt", "falcon"])
@pytest.mark.parametrize("given", [None, [], ["lm_head"], ["vision_model"]])
@pytest.mark.parametrize("suffix", ["", ".weight"], ids=["modules", "weights"])  # torchao compares names of weights
def test_every_quantizer_takes_the_decoder_alone(text, given, suffix):
    config = EetqConfig(modules_to_not_convert=given)
    names = pretrained_flamingo._quantize_only_the_decoder(config).modules_to_not_convert
    model = tiny_flamingo(text, text_kwargs={"tie_word_embeddings": False})
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear | Conv1D)}
    taken = {name for name in linear if should_convert_module(name + suffix, names)}
    head = next(name for name, module in model.named_modules() if module is model.get_output_embeddings())
    assert head in linear and head not in taken
    assert taken == {name for name in linear if name.startswith("language_model.") and name != head}


@pytest.mark.parametrize("model_type", ["bert", "bert-generation", "electra", "roberta"])
@pytest.mark.parametrize("suffix", ["", ".weight"], ids=["modules", "weights"])
def test_a_head_of_several_modules_is_left_as_it_is(model_type, suffix):
    sizes = {
        "hidden_size": 32,
        "embedding_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
    }
    text = AutoConfig.for_model(model_type, is_decoder=True, vocab_size=VOCAB_SIZE, **sizes)
    with torch.device("meta"):
        model = FlamingoModel(
            FlamingoConfig(None, text, vision_hidden_size=24, image_token_id=98, end_of_chunk_token_id=97)
        )
    names = pretrained_flamingo._quantize_only_the_decoder(EetqConfig()).modules_to_not_convert
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    taken = {name for name in linear if should_convert_module(name + suffix, names)}
    assert taken == {name for name in linear if name.startswith("language_model.") and ".layer." in name}


def test_a_quantizer_that_would_take_everything_is_refused(tmp_path):
    tiny_flamingo().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="AqlmConfig has no list of modules to skip"):
        FlamingoModel.from_pretrained(tmp_path, quantization_config=AqlmConfig())


@bits
@pytest.mark.parametrize("skipped", [None, ["lm_head", "model.layers.0"]], ids=["default", "given"])
def test_a_quantized_language_model_is_joined_to_a_vision_encoder(bitsandbytes, bits, skipped, tmp_path):
    source = tiny_flamingo("llama", text_kwargs=WIDE["llama"])
    source.vision_model.save_pretrained(tmp_path / "vision")
    source.language_model.save_pretrained(tmp_path / "text")
    model = FlamingoModel.from_vision_text_pretrained(
        tmp_path / "vision",
        tmp_path / "text",
        text_quantization_config=BitsAndBytesConfig(**{f"load_in_{bits}bit": True}, llm_int8_skip_modules=skipped),
        image_token_id=IMAGE,
        end_of_chunk_token_id=END_OF_CHUNK,
    )
    open_gates(model)
    expected = decoder_layers(source, "llama")
    if skipped is not None:
        expected = {name for name in expected if ".layers.0." not in name}
    assert quantized_layers(model, bits) == expected
    model.save_pretrained(tmp_path / "joined")
    loaded = FlamingoModel.from_pretrained(tmp_path / "joined")
    assert quantized_layers(loaded, bits) == expected
    torch.testing.assert_close(logits(loaded), logits(model), rtol=0, atol=1e-6)


@texts
@bits
def test_an_adapter_trains_on_a_quantized_language_model(bitsandbytes, text, bits, tmp_path):
    tiny_flamingo(text, text_kwargs=WIDE[text]).save_pretrained(tmp_path / "base")
    arguments = {"quantization_config": BitsAndBytesConfig(**{f"load_in_{bits}bit": True})}
    adapted = with_lora(FlamingoModel.from_pretrained(tmp_path / "base", **arguments))
    before = {name: p.clone() for name, p in adapted.named_parameters() if not p.requires_grad}
    losses = train(adapted)
    assert losses[-1] < losses[0]
    for name, parameter in adapted.named_parameters():
        assert parameter.requires_grad or torch.equal(parameter, before[name]), name
    assert any("lora_A" in name for name, p in adapted.named_parameters() if p.requires_grad)

    adapted.save_pretrained(tmp_path / "adapter")
    fresh = FlamingoModel.from_pretrained(tmp_path / "base", **arguments)
    loaded = PeftModel.from_pretrained(fresh, tmp_path / "adapter")
    torch.testing.assert_close(logits(loaded), logits(adapted), rtol=0, atol=1e-5)
