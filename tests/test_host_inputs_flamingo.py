# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Test that a forward pass on an accelerator waits for it as seldom as it can, and says the same about wrong inputs."""

from contextlib import contextmanager

import pytest
import torch
from factory import IMAGE, prompt, random_images, tiny_flamingo
from pretend_accelerator import PretendAccelerator, PretendTensor, to_accelerator

from transformers_flamingo.host_inputs_flamingo import to_host


# Language models whose own forward pass waits, or does not, and one without positions
TEXTS = ("gpt2", "opt", "llama", "mpt")


def batch(**changes) -> dict[str, torch.Tensor]:
    """Make two samples: two images and padding on the right, and one image and a padded one."""
    ids = prompt("IabIcdeE", "IabcE___")
    labels = ids.masked_fill((ids == IMAGE) | (ids == ids[1, -1]), -100)
    inputs = {
        "input_ids": ids,
        "attention_mask": (ids != ids[1, -1]).long(),
        "pixel_values": random_images(2, 2),
        "frame_attention_mask": torch.tensor([[1, 1], [1, 0]]),
        "labels": labels,
    }
    return {name: value for name, value in {**inputs, **changes}.items() if value is not None}


def moved(inputs: dict) -> dict:
    return {name: PretendTensor(value) if isinstance(value, torch.Tensor) else value for name, value in inputs.items()}


@contextmanager
def counted(waits: list[str]):
    with PretendAccelerator() as accelerator:
        yield accelerator
    waits += accelerator.waits


def bare_waits(model, inputs: dict) -> list[str]:
    """Return where the language model alone waits for the same text."""
    waits = []
    with counted(waits), torch.no_grad():
        model.language_model(**{name: inputs[name] for name in ("input_ids", "attention_mask")}, use_cache=False)
    return waits


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("with_padding", [False, True])
def test_a_training_step_waits_once_more_than_the_language_model(text, with_padding):
    inputs = batch()
    if not with_padding:
        inputs = {name: value[:1] for name, value in inputs.items()}
    expected = tiny_flamingo(text)
    expected.freeze_backbones()
    loss = expected.train()(**inputs).loss
    loss.backward()

    model = tiny_flamingo(text)
    model.freeze_backbones()
    model, on_device = to_accelerator(model.train()), moved(inputs)
    waits = []
    with counted(waits):
        got = model(**on_device).loss
        got.backward()
        assert got.cpu().item() == pytest.approx(loss.item(), rel=1e-6)
    waits.pop()  # of the comparison
    assert waits[0].startswith("host_inputs_flamingo.py")  # before anything is queued
    assert len(waits) == 1 + len(bare_waits(model, on_device))
    assert with_padding or len(waits) <= 2
    for (name, parameter), same in zip(model.named_parameters(), expected.parameters(), strict=True):
        if same.grad is not None:
            torch.testing.assert_close(parameter.grad.values, same.grad, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("text", TEXTS)
def test_a_prompt_waits_once_and_a_token_not_at_all(text):
    inputs = batch(labels=None)
    if text == "mpt":
        inputs = {name: value[:1] for name, value in inputs.items()}
    model = tiny_flamingo(text)
    new = {"input_ids": prompt("a", "b")[: len(inputs["input_ids"])]}
    new["attention_mask"] = torch.nn.functional.pad(inputs["attention_mask"], (0, 1), value=1)
    with torch.no_grad():
        first = model(**inputs, use_cache=True)
        second = model(**new, cache=first.cache)
        model = to_accelerator(model)
        prefill, token, bare_token = [], [], []
        with counted(prefill):
            got = model(**moved(inputs), use_cache=True)
        with counted(token):
            got_second = model(**moved(new), cache=got.cache)
        text_alone = {name: moved(inputs)[name] for name in ("input_ids", "attention_mask")}
        with PretendAccelerator():
            past = model.language_model(**text_alone, use_cache=True)
        with counted(bare_token):
            model.language_model(**moved(new), cache=past.cache)
    torch.testing.assert_close(got.logits.values, first.logits)
    torch.testing.assert_close(got_second.logits.values, second.logits)
    assert len(prefill) == 1 + len(bare_waits(model, moved(inputs)))
    assert len(token) == len(bare_token)


def generation_waits(model, inputs: dict, num_tokens: int, **kwargs) -> list[str]:
    waits = []
    with counted(waits):
        model.generate(**inputs, max_new_tokens=num_tokens, min_new_tokens=num_tokens, **kwargs)
    return waits


@pytest.mark.parametrize(("kwargs", "of_images"), [({"do_sample": False}, 0), ({"num_beams": 3}, 1)])
def test_a_generated_token_waits_as_that_of_the_language_model(kwargs, of_images):
    model = tiny_flamingo("gpt2")
    inputs = {name: value[:1] for name, value in batch(labels=None).items()}
    expected = model.generate(**inputs, max_new_tokens=4, min_new_tokens=4, **kwargs)
    model, on_device = to_accelerator(model), moved(inputs)
    with PretendAccelerator():
        got = model.generate(**on_device, max_new_tokens=4, min_new_tokens=4, **kwargs)
    assert got.tolist() == expected.tolist()
    text = {name: on_device[name] for name in ("input_ids", "attention_mask")}
    per_token, of_text = (
        len(generation_waits(generator, given, 5, **kwargs)) - len(generation_waits(generator, given, 4, **kwargs))
        for generator, given in ((model, on_device), (model.language_model, text))
    )
    # A beam search tells once whether beams stay with their image, for all blocks
    assert per_token == of_text + of_images


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frame_attention_mask": torch.tensor([[1, 0], [1, 0]])}, r"sample 0: 2 markers, 1 images"),
        ({"frame_attention_mask": torch.tensor([[1, 2], [1, 0]])}, "`frame_attention_mask` holds 2"),
        ({"attention_mask": torch.full((2, 8), 3)}, "`attention_mask` holds 3"),
        ({"input_ids": prompt("IabIcdeE", "IabcE___").index_fill(1, torch.tensor([2]), 10_000)}, "`input_ids` holds 10000"),
        ({"labels": torch.full((2, 8), -100)}, "supervise no token"),
        ({"labels": torch.full((2, 8), 10_000)}, "`labels` holds 10000"),
        ({"media_index": torch.full((2, 8), 2)}, "`media_index` is 2 at token 0 of sample 1"),
        ({"pixel_values": None, "frame_attention_mask": None}, r"sample 0: 2 markers, 0 images"),
    ],
)  # fmt: skip
def test_wrong_inputs_are_named_as_on_the_cpu(changes, message):
    """An assertion of a kernel would end the process, or leave a device that no longer works."""
    model = to_accelerator(tiny_flamingo("gpt2").train())
    with PretendAccelerator(), pytest.raises(ValueError, match=message):
        model(**moved(batch(**changes)))


def test_one_transfer_for_all_whole_numbers():
    given = (torch.arange(6).view(2, 3), None, torch.tensor([True, False]), torch.tensor([0.5]), "text")
    waits = []
    with counted(waits):
        got = to_host(*(PretendTensor(value) if isinstance(value, torch.Tensor) else value for value in given))
    assert len(waits) == 2  # whole numbers and booleans, and floats
    for value, expected in zip(got, given, strict=True):
        if isinstance(expected, torch.Tensor):
            assert type(value) is torch.Tensor and value.dtype == expected.dtype
            assert torch.equal(value, expected)
        else:
            assert value is expected
    assert to_host(given[0])[0] is given[0]  # nothing to do
