# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Train on a batch without images: by itself, and on a process next to one that has images."""

import pytest
import runs
import torch
from processes import launch
from runs import NO_DROPOUT, model, with_image, without_image


@pytest.mark.parametrize("checkpointing", [None, False, True])
def test_ddp_does_not_wait_for_a_process_without_images(tmp_path, checkpointing):
    assert launch(runs.gradients_of_two, str(tmp_path), checkpointing=checkpointing, world_size=2) == [0, 0]
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    flamingo = model(text_kwargs=NO_DROPOUT).train()
    for step in range(2):
        for inputs in (with_image(step), without_image(step)):
            (flamingo(**inputs).loss / 2).backward()
    expected = {name: p.grad for name, p in flamingo.named_parameters() if p.requires_grad}
    assert expected.keys() == first.keys()
    torch.testing.assert_close(first, second, rtol=0, atol=0)
    torch.testing.assert_close(first, expected, rtol=1e-4, atol=1e-7)


def test_the_loss_stays_to_the_bit_and_unused_parameters_have_gradients_of_0():
    flamingo = model(text_kwargs=NO_DROPOUT)
    inputs = without_image(0)
    with torch.no_grad():
        expected = flamingo.train()(**inputs).loss.item()
    with torch.no_grad():
        flamingo.resampler.latents[0, 0] = float("inf")  # unused, so that it must not have any effect
    loss = flamingo(**inputs).loss
    assert loss.item() == expected
    loss.backward()
    gradients = {name: p.grad for name, p in flamingo.named_parameters() if p.requires_grad}
    assert all(gradient is not None for gradient in gradients.values())
    unused = [g for name, g in gradients.items() if name.startswith("resampler.") or ".attention." in name]
    assert unused and not any(gradient.any() for gradient in unused)
    assert gradients["gated_cross_attention.0.mlp.fc1.weight"].any()
    assert all(p.grad is None for p in flamingo.language_model.parameters())


def test_a_loss_made_from_the_logits_reaches_them_too():
    flamingo = model(text_kwargs=NO_DROPOUT).train()
    logits = flamingo(input_ids=torch.tensor([[8, 9]])).logits
    logits.sum().backward()
    assert all(p.grad is not None for p in flamingo.parameters() if p.requires_grad)
    assert flamingo.eval()(input_ids=torch.tensor([[8, 9]])).logits.shape == logits.shape
