# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The loss in training: that of all logits, without ever having them all."""

import copy

import pytest
import torch
from factory import (
    TEXT_CONFIGS,
    VOCAB_SIZE,
    prompt,
    random_images,
    tiny_config,
    tiny_flamingo,
    tiny_vision_config,
)
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, Trainer, TrainingArguments

from transformers_flamingo import FlamingoConfig, FlamingoModel, loss_flamingo


SUPERVISED = 9


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Four tokens at a time: nine supervised ones take three chunks, the last not full."""
    monkeypatch.setattr(loss_flamingo, "LOSS_CHUNK_SIZE", 4)


def batch() -> dict[str, torch.Tensor]:
    """18 tokens, of which 9 are predicted."""
    ids = prompt("abIcdEIef", "aIbcdefIg")
    labels = ids.clone()
    labels[:, :4] = labels[0, 6] = -100
    assert (labels[:, 1:] != -100).sum() == SUPERVISED
    return {"input_ids": ids, "pixel_values": random_images(2, 2), "labels": labels}


def loss_and_gradients(
    model: FlamingoModel, scale: float = 1.0, **inputs
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    model.zero_grad()
    loss = model(**inputs).loss
    (scale * loss).backward()
    return loss.detach(), {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def assert_equal_to_all_logits(model: FlamingoModel, **inputs) -> None:
    expected, expected_gradients = loss_and_gradients(model, **batch(), **inputs, skip_logits=False)
    loss, gradients = loss_and_gradients(model, **batch(), **inputs, skip_logits=True)
    torch.testing.assert_close(loss, expected)
    assert gradients.keys() == expected_gradients.keys()
    for name, gradient in gradients.items():
        # That of a gate is one sum over everything that its branch adds, in which large terms cancel
        atol = 1e-4 if name.endswith("_gate") else 1e-6
        torch.testing.assert_close(gradient, expected_gradients[name], rtol=1e-4, atol=atol, msg=name)


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "unfrozen"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("text", TEXT_CONFIGS)
def test_loss_and_gradients_are_those_of_all_logits(text, tied, frozen):
    model = tiny_flamingo(text, text_kwargs={"tie_word_embeddings": tied})
    if frozen:
        model.freeze_backbones()
    assert_equal_to_all_logits(model)


@pytest.mark.parametrize(
    ("model_type", "fields"),
    [
        ("cohere", {"logit_scale": 0.25}),
        ("granite", {"logits_scaling": 3.0}),
        ("gemma2", {"final_logit_softcapping": 0.5, "query_pre_attn_scalar": 8, "head_dim": 8}),
        ("phi", {"partial_rotary_factor": 0.5}),  # a head with a bias
        ("modernbert-decoder", {}),  # a linear map by the name of `decoder`
    ],
)
def test_what_a_family_does_to_its_logits_is_done(model_type, fields):
    _, llama = TEXT_CONFIGS["llama"]
    config = FlamingoConfig.from_vision_text_configs(
        tiny_vision_config(), AutoConfig.for_model(model_type, **{**llama, **fields}), **special_fields()
    )
    torch.manual_seed(0)
    model = FlamingoModel(config).eval()
    with torch.no_grad():
        for parameter in model.get_output_embeddings().parameters():
            parameter.normal_()
    assert_equal_to_all_logits(model)
    model.freeze_backbones()
    assert_equal_to_all_logits(model)


def special_fields() -> dict[str, int]:
    config = tiny_config()
    return {name: getattr(config, name) for name in ("image_token_id", "end_of_chunk_token_id")}


def test_options_of_the_loss():
    """A number of items from outside, as `Trainer` passes it with gradient accumulation; labels shifted by the caller."""
    model, inputs = tiny_flamingo(), batch()
    assert_equal_to_all_logits(model, num_items_in_batch=torch.tensor(27))
    mean = model(**inputs, skip_logits=True).loss
    torch.testing.assert_close(model(**inputs, skip_logits=True, num_items_in_batch=27).loss * 3, mean)
    shifted = torch.nn.functional.pad(inputs["labels"][:, 1:], (0, 1), value=-100)
    torch.testing.assert_close(model(**inputs, skip_logits=True, shift_labels=shifted).loss, mean)
    other = {**inputs, "labels": inputs["labels"].masked_fill(inputs["labels"] == -100, 5), "ignore_index": 5}
    torch.testing.assert_close(model(**other, skip_logits=True).loss, model(**other).loss)


@pytest.mark.parametrize("skip_logits", [True, False])
def test_labels_with_nothing_to_learn_are_refused(skip_logits):
    """The stock loss would be NaN, the mean of nothing."""
    model, inputs = tiny_flamingo(), batch()
    labels = torch.full_like(inputs["labels"], -100)
    labels[:, 0] = 5  # a first token is never predicted
    one_token = {"input_ids": prompt("a"), "labels": prompt("a")}
    for nothing in (
        {**inputs, "labels": labels},
        one_token,
        {**inputs, "shift_labels": torch.full_like(labels, -100)},
    ):
        with pytest.raises(ValueError, match="labels supervise no token: after the shift by one, all are -100"):
            model(**nothing, skip_logits=skip_logits)
    # Of one batch of several, whose losses are added
    loss = model(**{**inputs, "labels": labels}, skip_logits=skip_logits, num_items_in_batch=3).loss
    assert loss == 0


@pytest.mark.parametrize("labels", [prompt("abcd", "abcd"), prompt("abcdefghi"), prompt("abcdefghi")[0]], ids=str)
def test_labels_of_another_shape_are_refused(labels):
    with pytest.raises(ValueError, match=r"labels have shape .* but the text has \(2, 9\)"):
        tiny_flamingo()(**{**batch(), "labels": labels}, skip_logits=True)


def test_a_wrapped_language_model_gets_all_supervised_logits_at_once():
    """peft and `torch.compile` may wrap the language model alone."""
    model = tiny_flamingo("llama")
    expected = model(**batch()).loss
    language_model = model.language_model
    model.language_model = torch.compile(language_model, backend="eager")
    torch.testing.assert_close(model(**batch(), skip_logits=True).loss, expected)
    torch._dynamo.reset()
    model.language_model = get_peft_model(language_model, LoraConfig(target_modules=["q_proj"]))
    loss = model(**batch(), skip_logits=True).loss
    torch.testing.assert_close(loss, expected)  # LoRA begins as nothing
    loss.backward()


def test_a_loss_of_ones_own_gets_all_supervised_logits_at_once():
    calls = []

    def squared(logits, labels, vocab_size, shift_labels=None, **kwargs):
        calls.append(logits.shape)
        return (logits.float() ** 2).mean() ** 0.5  # no sum over tokens

    model = tiny_flamingo()
    expected = model(**batch()).logits[torch.nn.functional.pad(batch()["labels"][:, 1:] != -100, (0, 1))]
    model.loss_function = squared
    loss = model(**batch(), skip_logits=True).loss
    assert calls[-1].numel() == SUPERVISED * VOCAB_SIZE
    torch.testing.assert_close(loss, (expected**2).mean() ** 0.5)


class LargestTensor(TorchDispatchMode):
    """The most elements that any operation has put out."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


def test_no_tensor_has_the_logits_of_all_tokens():
    """Neither forward nor backward, with a vocabulary next to which everything else is small."""
    vocab_size = 5000
    model = tiny_flamingo("llama", text_kwargs={"vocab_size": vocab_size, "tie_word_embeddings": True})
    model.freeze_backbones()
    model.train()
    weight = model.get_output_embeddings().weight.numel()
    ids = prompt("aI" + "bcdefgh" * 10)
    inputs = {"input_ids": ids.expand(8, -1), "pixel_values": random_images(8, 1), "labels": ids.expand(8, -1)}
    assert ids.numel() * 8 * vocab_size > 10 * weight
    with LargestTensor() as largest:
        output = model(**inputs)
        output.loss.backward()
    assert output.logits is None
    assert largest.numel <= weight


def test_the_head_is_run_once_for_each_supervised_token():
    model = tiny_flamingo().train()
    rows = []
    model.get_output_embeddings().register_forward_hook(lambda head, args, output: rows.append(args[0].shape[:-1]))
    model(**batch()).loss.backward()
    assert [shape.numel() for shape in rows] == [4, 4, 1]


def test_when_logits_are_returned():
    model, inputs = tiny_flamingo(), batch()
    labels = inputs.pop("labels")
    all_logits = (2, 9, VOCAB_SIZE)
    assert model(**inputs, labels=labels).logits.shape == all_logits
    model.train()
    assert model(**inputs, labels=labels).logits is None
    assert model(**inputs, labels=labels, skip_logits=False).logits.shape == all_logits
    assert model(**inputs).logits.shape == all_logits
    kept = model(**inputs, labels=labels[:, -3:], logits_to_keep=3)
    assert kept.logits.shape == (2, 3, VOCAB_SIZE) and kept.loss is not None
    with pytest.raises(ValueError, match="no `labels`"):
        model(**inputs, skip_logits=True)
    with pytest.raises(ValueError, match="contradict"):
        model(**inputs, labels=labels, skip_logits=True, logits_to_keep=3)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "unfrozen"])
def test_a_loss_without_gradients(frozen, mode):
    model, inputs = tiny_flamingo(), batch()
    if frozen:
        model.freeze_backbones()
    expected = model(**inputs).loss.detach()
    with mode(), FlopCounterMode(display=False) as with_logits:
        model(**inputs)
    with mode(), FlopCounterMode(display=False) as alone:
        loss = model(**inputs, skip_logits=True).loss
    torch.testing.assert_close(loss.clone(), expected)
    assert not loss.requires_grad
    assert alone.get_total_flops() < with_logits.get_total_flops()  # and no gradient is computed on the way


def test_half_precision_weights_get_the_gradient_of_the_mean_and_not_of_a_rounded_one():
    """1 / 7 is no number in bfloat16."""
    torch.manual_seed(0)
    states, weight = torch.randn(64, 32).bfloat16(), torch.randn(99, 32).bfloat16().requires_grad_()
    targets = torch.randint(99, (64,))

    def summed(states, targets):
        return torch.nn.functional.cross_entropy((states @ weight.T).float(), targets, reduction="sum")

    exact = weight.detach().float().requires_grad_()
    (torch.nn.functional.cross_entropy(states.float() @ exact.T, targets, reduction="sum") / 7).backward()
    (loss_flamingo.ChunkedLoss.apply(summed, 4, True, states, targets, weight) / 7).backward()
    slope = (weight.grad.float() * exact.grad).sum() / (exact.grad**2).sum()
    assert abs(slope - 1) < 1e-3


def test_two_models_that_share_a_language_model_and_threads_are_left_alone():
    """The stand-in for the decoder is of one call: the model's own modules are what they were."""
    model = tiny_flamingo().train()
    before = [(name, id(module)) for name, module in model.named_modules()]
    model(**batch()).loss.backward()
    assert [(name, id(module)) for name, module in model.named_modules()] == before
    assert copy.deepcopy(model).state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_mixed_precision(dtype):
    """In float16 the gradient of a mean over many tokens vanishes, unless a gradient scaler gets hold of it before."""
    model = tiny_flamingo()
    model.freeze_backbones()
    expected, expected_gradients = loss_and_gradients(model, **batch(), skip_logits=False)
    many = {"num_items_in_batch": torch.tensor(SUPERVISED * 1e7)}
    with torch.autocast("cpu", dtype=dtype):
        loss, gradients = loss_and_gradients(model, **batch(), skip_logits=True)
        _, scaled_gradients = loss_and_gradients(model, scale=1e7, **batch(), **many, skip_logits=True)
    torch.testing.assert_close(loss, expected, rtol=0.02, atol=0)
    assert gradients.keys() == scaled_gradients.keys() == expected_gradients.keys()
    for some in (gradients, scaled_gradients):
        gradient, expected = (
            g["gated_cross_attention.2.mlp.fc2.weight"].flatten() for g in (some, expected_gradients)
        )
        assert torch.nn.functional.cosine_similarity(gradient, expected, dim=0) > 0.99
        torch.testing.assert_close(gradient.norm(), expected.norm(), rtol=0.02, atol=0)


# Nothing to predict.


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "lora"])
@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_without_a_target_the_gradient_is_0_as_in_the_stock_loss(tied, wrapped):
    """The stock loss is NaN then, and its gradient 0: one empty batch must not destroy the weights."""
    model = tiny_flamingo(text_kwargs={"tie_word_embeddings": tied}).train()
    model.freeze_backbones()
    if wrapped:  # the head cannot be run by itself
        model.language_model = get_peft_model(model.language_model, LoraConfig(r=2, target_modules=["c_attn"]))
    inputs = batch() | {"num_items_in_batch": torch.tensor(0)}  # as `Trainer` counts them
    inputs["labels"] = torch.full_like(inputs["input_ids"], -100)
    inputs["labels"][:, 0] = 5  # a first token is never predicted
    loss, gradients = loss_and_gradients(model, **inputs)
    expected, expected_gradients = loss_and_gradients(model, **inputs, skip_logits=False)
    assert loss.isnan() and expected.isnan()
    assert gradients and expected_gradients
    for name, gradient in gradients.items():
        assert not gradient.any(), name
        assert not expected_gradients[name].any(), name


def test_an_empty_batch_trains_nothing_under_the_stock_trainer(tmp_path):
    model = tiny_flamingo()
    model.freeze_backbones()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    inputs = batch() | {"labels": torch.full((2, 9), -100)}
    arguments = TrainingArguments(
        tmp_path, max_steps=2, use_cpu=True, report_to="none", save_strategy="no", weight_decay=0.0, disable_tqdm=True
    )
    Trainer(model, arguments, train_dataset=[1, 2], data_collator=lambda rows: inputs).train()
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, before[name]), name
