# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""A classifier or reward model: scores of the last real token, its losses, what is trained, and what is saved."""

import pytest
import torch
from factory import PAD, open_gates, prompt, random_images, tiny_config, tiny_flamingo, tiny_processor
from flamingos import assert_close, far, pad_images, pad_rows, some_families
from torch import nn
from transformers import (
    AutoModelForImageTextToText,
    AutoModelForSequenceClassification,
    Trainer,
    TrainingArguments,
    pipeline,
)

from transformers_flamingo import FlamingoForSequenceClassification, attention_maps


def tiny_classifier(text: str = "gpt2", **kwargs) -> FlamingoForSequenceClassification:
    """Build a tiny random classifier in evaluation mode, with open gates."""
    torch.manual_seed(0)
    return open_gates(FlamingoForSequenceClassification(tiny_config(text, **kwargs))).eval()


def untied(**kwargs) -> FlamingoForSequenceClassification:
    """Build one whose language model has a head of its own."""
    return tiny_classifier("llama", text_kwargs={"tie_word_embeddings": False}, **kwargs)


# Scores.


@some_families
@pytest.mark.parametrize("side", ["left", "right"])
@torch.no_grad()
def test_scores_are_those_of_the_last_real_token(text, side):
    model = tiny_classifier(text, num_labels=3)
    causal = tiny_flamingo(text)
    causal.load_state_dict(model.state_dict(), strict=False)
    ids, mask = pad_rows(["abIcd", "Ia", "abc"], side)
    images = random_images(3, 1)
    pixels, image_mask = pad_images([images[0], images[1], images[2][:0]])
    outputs = model(input_ids=ids, attention_mask=mask, pixel_values=pixels, frame_attention_mask=image_mask)
    assert outputs.logits.shape == (3, 3)
    for index, row in enumerate([prompt("abIcd"), prompt("Ia"), prompt("abc")]):
        given = {} if index == 2 else {"pixel_values": images[index : index + 1]}
        states = causal.base_model(input_ids=row, **given).last_hidden_state
        assert_close(outputs.logits[index], model.score(states[0, -1]))
        assert_close(model(input_ids=row, **given).logits[0], outputs.logits[index])


@torch.no_grad()
def test_without_a_mask_padding_is_what_has_the_id_of_padding():
    model = tiny_classifier(text_kwargs={"pad_token_id": None})
    ids = prompt("abcd", "ab__")
    expected = model(input_ids=ids, attention_mask=(ids != PAD).long()).logits
    with pytest.raises(ValueError, match="2 samples and neither an `attention_mask` nor a padding token"):
        model(input_ids=ids)
    assert_close(model(input_ids=ids[:1]).logits, expected[:1])
    for config in (model.config, model.config.text_config):  # Trainer sets the one, and TRL the other
        config.pad_token_id = PAD
        assert_close(model(input_ids=ids).logits, expected)
        config.pad_token_id = None
    embeds = model.get_input_embeddings()(ids)
    assert_close(model(inputs_embeds=embeds, attention_mask=(ids != PAD).long()).logits, expected)
    assert_close(model(inputs_embeds=embeds[:, :2]).logits[1], expected[1])


def test_a_sample_of_padding_alone_is_refused():
    ids = prompt("ab", "__")
    with pytest.raises(ValueError, match="Sample 1 of 2 .counted from 0. has no token that is not padding"):
        tiny_classifier()(input_ids=ids, attention_mask=(ids != PAD).long())


@torch.no_grad()
def test_images_change_the_scores_of_the_texts_that_have_some():
    model = tiny_classifier()
    inputs = {"input_ids": prompt("Iab", "cab"), "attention_mask": torch.ones(2, 3, dtype=torch.long)}
    logits = []
    for seed in (0, 1):
        pixels, mask = pad_images([random_images(1, seed=seed), random_images(0)])
        logits.append(model(**inputs, pixel_values=pixels, frame_attention_mask=mask).logits)
    assert far(logits[0][0], logits[1][0])
    assert torch.equal(logits[0][1], logits[1][1])
    with pytest.raises(ValueError, match="sample 0: 1 markers, 0 images"):
        model(**inputs)


@torch.no_grad()
def test_it_says_where_it_looked():
    outputs = tiny_classifier()(
        input_ids=prompt("aIb"), pixel_values=random_images(1, 1), output_cross_attentions=True
    )
    maps = attention_maps(outputs)
    assert_close(maps.sum(dim=(2, 3, 4)), torch.tensor([[0.0, 1.0, 1.0]]))
    assert outputs.image_hidden_states.shape == (1, 1, 5, 24)


# Losses.

LOGITS = {"input_ids": prompt("ab", "cd"), "attention_mask": torch.ones(2, 2, dtype=torch.long)}


@pytest.mark.parametrize(
    ("num_labels", "labels", "problem", "expected"),
    [
        (1, torch.tensor([0.5, 2]), "regression", lambda z, y: ((z[:, 0] - y) ** 2).mean()),
        (1, torch.tensor([[1], [2]]), "regression", lambda z, y: ((z - y) ** 2).mean()),
        (3, torch.ones(2, 3), "regression", lambda z, y: ((z - y) ** 2).mean()),
        (3, torch.tensor([2, 0]), "single_label_classification", nn.functional.cross_entropy),
        (
            3,
            torch.tensor([[1.0, 0, 1], [0, 0, 0]]),
            "multi_label_classification",
            nn.functional.binary_cross_entropy_with_logits,
        ),
    ],
    ids=["value", "whole-values", "values", "class", "labels"],
)
def test_the_loss_is_that_of_the_problem(num_labels, labels, problem, expected):
    chosen = problem if problem == "regression" and num_labels > 1 else None  # otherwise the labels tell it
    model = tiny_classifier(num_labels=num_labels, problem_type=chosen)
    outputs = model(**LOGITS, labels=labels)
    torch.testing.assert_close(outputs.loss, expected(outputs.logits, labels))
    assert model.config.problem_type == problem
    outputs.loss.backward()
    assert model.score.weight.grad.any()


@pytest.mark.parametrize(
    ("num_labels", "labels", "problem", "message"),
    [
        (
            3,
            torch.ones(2),
            "regression",
            r"shape \(2,\), but regression with 3 labels needs numbers of shape \(2, 3\)",
        ),
        (1, torch.ones(2, 2), None, r"regression with 1 labels needs numbers of shape \(2,\) or \(2, 1\)"),
        (3, torch.ones(2, 3).long(), None, "single_label_classification with 3 labels needs whole numbers of shape"),
        (3, torch.ones(2), "single_label_classification", "type torch.float32 and shape .*needs whole numbers"),
        (3, torch.ones(2), None, r"multi_label_classification with 3 labels needs numbers of shape \(2, 3\)"),
        (3, torch.tensor([0, 3]), None, r"`labels` are \[0, 3\], but classes are 0 to 2, or -100"),
        (3, torch.tensor([-1, 0]), None, r"`labels` are \[-1, 0\], but classes are 0 to 2"),
        (3, torch.tensor([-100, -100]), None, "one at least must be known"),
        (1, torch.tensor([1.0, float("nan")]), None, "NaN or infinite"),
    ],
)
def test_labels_that_do_not_fit_are_refused(num_labels, labels, problem, message):
    with pytest.raises(ValueError, match=message):
        tiny_classifier(num_labels=num_labels, problem_type=problem)(**LOGITS, labels=labels)


def test_the_stock_trainer_averages_the_loss_over_accumulated_batches(tmp_path):
    ids, images, labels = prompt("Iab", "Icd", "Ief", "Igh"), random_images(4, 1), torch.tensor([0, 1, 2, 0])
    rows = [
        {"input_ids": i, "pixel_values": x, "labels": y} for i, x, y in zip(ids, images, labels.tolist(), strict=True)
    ]
    model = tiny_classifier("llama", num_labels=3)
    nn.functional.cross_entropy(model(input_ids=ids, pixel_values=images).logits, labels).backward()
    expected = model.score.weight.detach() - 0.1 * model.score.weight.grad
    for batch_size in (4, 2):
        model = tiny_classifier("llama", num_labels=3)
        arguments = TrainingArguments(
            str(tmp_path), max_steps=1, learning_rate=0.1, optim="sgd", max_grad_norm=0, per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=4 // batch_size, save_strategy="no", report_to="none", use_cpu=True, disable_tqdm=True,
        )  # fmt: skip
        Trainer(model, arguments, train_dataset=rows).train()
        assert_close(model.score.weight.detach(), expected)


# What is trained.


def test_frozen_backbones_leave_the_scores_and_what_only_flamingo_has():
    model = untied()
    assert not model.get_output_embeddings().weight.requires_grad, "it is not used"
    model.freeze_backbones()
    trained = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert trained == {"score", "resampler", "gated_cross_attention", "input_token_rows"}
    assert model.output_token_rows is None
    model.train()
    model(input_ids=prompt("aIb"), pixel_values=random_images(1, 1), labels=torch.tensor([1])).loss.backward()
    without = {name for name, p in model.named_parameters() if p.requires_grad and p.grad is None}
    assert without == set()
    head = model.get_output_embeddings().weight.clone()
    model.detach_token_rows()
    rows = model.merge_token_rows(model.state_dict())
    assert torch.equal(rows["language_model.lm_head.weight"], head)
    model.unfreeze_backbones()
    assert {name for name, p in model.named_parameters() if not p.requires_grad} == {"language_model.lm_head.weight"}
    assert all(p.requires_grad for p in tiny_classifier().parameters()), "a tied head is the input embedding"


def test_a_batch_of_texts_gives_a_gradient_of_zero_to_what_only_images_use():
    """Other processes may have images, and would wait."""
    model = tiny_classifier().train()
    model(**LOGITS, labels=torch.tensor([0, 1])).loss.backward()
    assert all(not p.grad.any() for p in model.resampler.parameters())
    assert model.gated_cross_attention[0].mlp.fc1.weight.grad.any()
    # So does the body, which trainers call that compute the loss themselves
    causal = tiny_flamingo().train()
    causal.base_model(input_ids=prompt("ab")).last_hidden_state.sum().backward()
    assert all(not p.grad.any() for p in causal.resampler.parameters())


# Saving and loading.


def test_a_head_is_new_on_the_checkpoint_of_a_flamingo(tmp_path):
    causal = tiny_flamingo("llama", text_kwargs={"tie_word_embeddings": False})
    causal.save_pretrained(tmp_path / "causal")
    model, info = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "causal", num_labels=1, output_loading_info=True
    )
    assert type(model) is FlamingoForSequenceClassification
    assert info["missing_keys"] == {"score.weight"}
    assert not info["unexpected_keys"]
    assert model.score.weight.shape == (1, 32)
    assert model.score.weight.any()
    assert not model.get_output_embeddings().weight.requires_grad
    assert not model.can_generate()
    for name, value in causal.state_dict().items():
        assert torch.equal(model.state_dict()[name], value), name
    model.save_pretrained(tmp_path / "scores")
    again, info = AutoModelForImageTextToText.from_pretrained(tmp_path / "scores", output_loading_info=True)
    assert info["unexpected_keys"] == {"score.weight"}
    assert torch.equal(again.get_output_embeddings().weight, causal.get_output_embeddings().weight)


def test_names_of_labels_and_the_problem_are_saved(tmp_path):
    names = {0: "no", 1: "maybe", 2: "yes"}
    model = tiny_classifier(
        id2label=names, label2id={v: k for k, v in names.items()}, problem_type="multi_label_classification"
    )
    model.save_pretrained(tmp_path)
    again, info = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert again.config.id2label == names
    assert again.config.num_labels == 3
    assert again.config.problem_type == "multi_label_classification"
    inputs = {"input_ids": prompt("aIb"), "pixel_values": random_images(1, 1)}
    assert torch.equal(again(**inputs).logits, model(**inputs).logits)
    # The stock pipeline is for texts alone
    classify = pipeline("text-classification", model=again, tokenizer=tiny_processor().tokenizer)
    result = classify("w5 w6")[0]
    assert result["label"] in names.values()
    with pytest.raises(ValueError, match="1 markers, 0 images"):
        classify("<image>w5")
