# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Train with TRL's trainers, on images and messages: SFT, DPO, KTO, GRPO and RLOO, with and without LoRA, and reward models."""

import pytest
import torch
from datasets import Dataset
from factory import END_OF_CHUNK
from flamingos import count_encoded_frames
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForSequenceClassification,
    AutoProcessor,
    LlavaProcessor,
)

from transformers_flamingo.training import lora_config


trl = pytest.importorskip("trl")

WORDS = ["w20", "w40"]


def answer(model, processor, image) -> str:
    chat = [{"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": "w8"}]}]
    inputs = processor.apply_chat_template(
        chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    generated = model.eval().generate(**inputs, max_new_tokens=4, do_sample=False)
    return processor.decode(generated[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


SETTINGS = {
    "per_device_train_batch_size": 2,
    "learning_rate": 1e-2,
    "activation_checkpointing": False,
    "logging_steps": 1,
    "save_strategy": "no",
    "report_to": "none",
    "use_cpu": True,
    "bf16": False,
    "dataloader_pin_memory": False,
    "disable_tqdm": True,
}


def make_trainer(model, processor, images, directory, peft_config=None, **kwargs):
    rows = [
        {"images": [image], "messages": [{"role": "user", "content": "w8"}, {"role": "assistant", "content": word}]}
        for image, word in zip(images, WORDS, strict=True)
    ]
    arguments = trl.SFTConfig(
        str(directory), **{**SETTINGS, "max_length": None, "assistant_only_loss": True, **kwargs}
    )
    dataset = Dataset.from_list(rows)
    return trl.SFTTrainer(model, arguments, train_dataset=dataset, processing_class=processor, peft_config=peft_config)


def logged(trainer, name: str) -> list[float]:
    return [entry[name] for entry in trainer.state.log_history if name in entry]


def lora() -> LoraConfig:
    """Return a config with the task that TRL sets by default, on the language model."""
    return LoraConfig(
        r=4, task_type="CAUSAL_LM", target_modules="all-linear", exclude_modules=r"(?!language_model\.).*"
    )


def load(saved):
    return AutoModelForImageTextToText.from_pretrained(saved), AutoProcessor.from_pretrained(saved)


def test_the_collator_supervises_the_assistants_turns(saved, images, tmp_path):
    trainer = make_trainer(*load(saved), images, tmp_path)
    batch = next(iter(trainer.get_train_dataloader()))
    assert {name: tuple(value.shape) for name, value in batch.items()} == {
        "input_ids": (2, 4),
        "attention_mask": (2, 4),
        "pixel_values": (2, 1, 3, 8, 8),
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
    losses = logged(trainer, "loss")
    # With a frozen random head the loss has a floor near 4; the answers are right nevertheless
    assert losses[-1] < losses[0] - 0.5
    assert [answer(model, processor, image) for image in images] == WORDS


# Adapters.


def test_sft_trains_adapters(saved, images, tmp_path):
    model, processor = load(saved)
    trainer = make_trainer(model, processor, images, tmp_path, lora(), max_steps=3)
    trainer.train()
    losses = logged(trainer, "loss")
    assert losses[-1] < losses[0]
    trained = {name.split(".")[2] for name, p in trainer.model.named_parameters() if p.requires_grad}
    assert trained == {"language_model"}


def test_the_packages_own_config_without_single_rows(saved, images, tmp_path):
    """TRL multiplies by the weight of the head itself, and PEFT's wrapper of single rows has none."""
    model, processor = load(saved)
    config = lora_config(model, r=4, trainable_token_indices=None)
    trainer = make_trainer(model, processor, images, tmp_path, config, max_steps=3)
    before = {name: p.clone() for name, p in trainer.model.named_parameters() if p.requires_grad}
    trainer.train()
    losses = logged(trainer, "loss")
    assert losses[-1] < losses[0]
    changed = {
        name for name, p in trainer.model.named_parameters() if name in before and not torch.equal(p, before[name])
    }
    for part in ("lora_B", "resampler.modules_to_save", "gated_cross_attention.0.modules_to_save"):
        assert any(part in name for name in changed), part


@pytest.mark.parametrize("stock", [True, False], ids=["stock", "flamingo"])
def test_rows_of_a_head_that_peft_wraps_fail_in_trl(stock, saved, images, tmp_path):
    """With a stock language model alike. When TRL supports it, the documentation of the workaround goes."""
    model, processor = load(saved)
    rows = [{"messages": [{"role": "user", "content": "w8"}, {"role": "assistant", "content": "w9"}]}] * 2
    processing_class = processor
    if stock:
        model = AutoModelForCausalLM.from_config(model.config.text_config)
        config = LoraConfig(trainable_token_indices={"transformer.wte": [END_OF_CHUNK]}, target_modules=["c_attn"])
        processing_class = processor.tokenizer
        processing_class.chat_template = "{% for m in messages %}{{ m['content'] + ' ' }}{% endfor %}"
    else:
        config = lora_config(model, r=4)
        rows = [{"images": [images[0]], **row} for row in rows]
    arguments = trl.SFTConfig(str(tmp_path), **SETTINGS, max_steps=1, max_length=None)
    trainer = trl.SFTTrainer(
        model, arguments, train_dataset=Dataset.from_list(rows), processing_class=processing_class, peft_config=config
    )
    with pytest.raises(AttributeError, match="weight|bias"):
        trainer.train()


def test_a_list_of_modules_cannot_be_saved_by_its_name(saved):
    """PEFT refuses a `ModuleList` of any model. The names of its modules are taken, as `lora_config` gives them."""
    model, _ = load(saved)
    stock = AutoModelForCausalLM.from_config(model.config.text_config)
    for refused, name in ((model, "gated_cross_attention"), (stock, "h")):
        with pytest.raises(TypeError, match="cannot be applied to modules of type.*ModuleList"):
            get_peft_model(refused, LoraConfig(target_modules=["lm_head"], modules_to_save=[name]))
    model, _ = load(saved)
    names = [f"gated_cross_attention.{index}" for index in range(len(model.gated_cross_attention))]
    adapted = get_peft_model(model, LoraConfig(target_modules=["c_attn"], modules_to_save=names))
    assert all(block.attn_gate.requires_grad for block in adapted.get_base_model().gated_cross_attention)


# Preferences.


def prompt_row(images: list, **kwargs) -> dict:
    content = [{"type": "image"}] * len(images) + [{"type": "text", "text": "w8"}]
    return {"images": images, "prompt": [{"role": "user", "content": content}], **kwargs}


def reply(word: str) -> list[dict]:
    return [{"role": "assistant", "content": word}]


@pytest.mark.parametrize("adapted", [False, True], ids=["full", "lora"])
@pytest.mark.parametrize("counts", [(1, 2), (0, 1)], ids=str)
def test_dpo_prefers_what_is_chosen(adapted, counts, saved, images, tmp_path):
    model, processor = load(saved)
    rows = [prompt_row(images[:n], chosen=reply(WORDS[0]), rejected=reply(WORDS[1])) for n in counts]
    arguments = trl.DPOConfig(str(tmp_path), **SETTINGS, max_steps=4, max_length=None)
    encoded = count_encoded_frames(model)
    trainer = trl.DPOTrainer(
        model,
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=processor,
        peft_config=lora() if adapted else None,
    )
    encoded.clear()
    trainer.train()
    assert set(encoded) == {2 * sum(counts)}, "padding is not encoded"
    losses = logged(trainer, "loss")
    assert losses[0] == pytest.approx(0.6931, abs=1e-3), "the model is its own reference at the start"
    assert losses[-1] < losses[0] - 0.01


def test_kto(saved, images, tmp_path):
    model, processor = load(saved)
    rows = [
        prompt_row([image], completion=reply(word), label=label)
        for image, word, label in zip(images, WORDS, (True, False), strict=True)
    ]
    arguments = trl.KTOConfig(str(tmp_path), **SETTINGS, max_steps=2, max_length=None)
    trainer = trl.KTOTrainer(model, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=processor)
    trainer.train()
    assert len(logged(trainer, "loss")) == 2


# Reward models.


def load_scores(saved):
    return AutoModelForSequenceClassification.from_pretrained(saved, num_labels=1), AutoProcessor.from_pretrained(
        saved
    )


def pair_rows(images: list) -> list[dict]:
    return [
        {"images": [image], "chosen": f"<image>w8 {chosen}", "rejected": f"<image>w8 {rejected}"}
        for image, chosen, rejected in zip(images, WORDS, WORDS[::-1], strict=True)
    ]


def make_reward_trainer(model, processing_class, rows, directory, **kwargs):
    names = ("data_collator", "peft_config")
    given = {name: kwargs.pop(name) for name in names if name in kwargs}
    arguments = trl.RewardConfig(str(directory), **{**SETTINGS, **kwargs})
    dataset = Dataset.from_list(rows)
    return trl.RewardTrainer(model, arguments, train_dataset=dataset, processing_class=processing_class, **given)


def test_a_reward_model_of_texts_is_made_from_the_directory(saved, tmp_path):
    rows = [{"chosen": f"w5 {WORDS[0]}", "rejected": f"w6 w7 {WORDS[1]}"}] * 2
    trainer = make_reward_trainer(str(saved), None, rows, tmp_path, max_steps=4)
    assert type(trainer.model).__name__ == "FlamingoForSequenceClassification"
    trainer.train()
    assert logged(trainer, "loss")[-1] < logged(trainer, "loss")[0]
    assert logged(trainer, "accuracy")[-1] == 1


@pytest.mark.parametrize("stock", [True, False], ids=["stock", "flamingo"])
def test_trl_takes_no_processor_for_rewards(stock, saved, images, tmp_path):
    """Of no model. When it does, the documentation of the collator goes."""
    model, processor = load_scores(saved)
    if stock:
        processor = LlavaProcessor(processor.image_processor, processor.tokenizer)
    with pytest.raises(AttributeError, match="has no attribute 'pad_token'"):
        make_reward_trainer(model, processor, pair_rows(images), tmp_path)


def test_the_collator_of_rewards_has_no_images(saved, images, tmp_path):
    model, processor = load_scores(saved)
    trainer = make_reward_trainer(model, processor.tokenizer, pair_rows(images), tmp_path, max_steps=1)
    assert set(next(iter(trainer.get_train_dataloader()))) == {"input_ids", "attention_mask"}
    with pytest.raises(ValueError, match="1 markers, 0 images"):
        trainer.train()


@pytest.mark.parametrize("adapted", [False, True], ids=["full", "lora"])
def test_a_reward_model_of_images_with_a_collator(adapted, saved, images, tmp_path):
    """As `docs/clients.md` has it."""
    model, processor = load_scores(saved)

    def collate(rows: list[dict]) -> dict[str, torch.Tensor]:
        texts = [row[side] for side in ("chosen", "rejected") for row in rows]
        return processor(images=[row["images"] for row in rows] * 2, text=texts, padding=True, return_tensors="pt")

    config = lora_config(model, r=4, task_type="SEQ_CLS") if adapted else None
    settings = {"max_length": None, "remove_unused_columns": False, "max_steps": 20, "learning_rate": 3e-3}
    trainer = make_reward_trainer(
        model, processor.tokenizer, pair_rows(images), tmp_path, data_collator=collate, peft_config=config, **settings
    )
    trainer.train()
    losses = logged(trainer, "loss")
    assert losses[0] == pytest.approx(0.6931, abs=0.02)
    assert losses[-1] < losses[0] - 0.1
    # TRL has put `<eos>` after the texts of its dataset
    scores = [model.eval()(**collate([row])).logits.flatten().tolist() for row in trainer.train_dataset]
    assert all(chosen > rejected for chosen, rejected in scores)


# Rewards.


@pytest.mark.parametrize("counts", [(1, 1), (1, 2), (0, 1)], ids=str)
@pytest.mark.parametrize(
    ("name", "kwargs"),
    [("GRPO", {}), ("GRPO", {"beta": 0.1}), ("GRPO", {"num_iterations": 2}), ("RLOO", {"beta": 0.1})],
    ids=["grpo", "grpo-beta", "grpo-iterations", "rloo"],
)
def test_rewards(name, kwargs, counts, saved, images, tmp_path):
    """TRL forwards the tensors that it knows by name, which a mask of images is not."""
    model, processor = load(saved)
    rows = [prompt_row(images[:n]) for n in counts] * 2
    settings = {**SETTINGS, "per_device_train_batch_size": 4, "num_generations": 2, "max_completion_length": 4}
    settings |= {"max_steps": 2, "disable_dropout": True, **kwargs}
    arguments = getattr(trl, f"{name}Config")(str(tmp_path), **settings)

    def reward(completions, **_) -> list[float]:
        return [float(index) for index, _ in enumerate(completions)]

    encoded = count_encoded_frames(model)
    trainer = getattr(trl, f"{name}Trainer")(
        model, reward, args=arguments, train_dataset=Dataset.from_list(rows), processing_class=processor
    )
    trainer.train()
    assert set(encoded) == {2 * sum(counts)}, "each image of two prompts with two completions, and no padding"
    assert all(torch.isfinite(torch.tensor(loss)) for loss in logged(trainer, "loss"))
    if "beta" in kwargs:
        assert logged(trainer, "kl")[0] == pytest.approx(0, abs=1e-5), "the model is its own reference at the start"


def test_grpo_trains_adapters(saved, images, tmp_path):
    model, processor = load(saved)
    settings = {**SETTINGS, "per_device_train_batch_size": 4, "num_generations": 2, "max_completion_length": 4}
    trainer = trl.GRPOTrainer(
        model,
        lambda completions, **_: [float(index) for index, _ in enumerate(completions)],
        args=trl.GRPOConfig(str(tmp_path), **settings, max_steps=1, beta=0.1),
        train_dataset=Dataset.from_list([prompt_row(images[:n]) for n in (1, 2)] * 2),
        processing_class=processor,
        peft_config=lora(),
    )
    trainer.train()
    assert any(p.any() for name, p in trainer.model.named_parameters() if "lora_B" in name)
