# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Check the parameter groups of the optimizer."""

import pytest
import torch
from factory import tiny_flamingo

from transformers_flamingo.training import parameter_groups


def test_each_trained_parameter_is_in_one_group():
    model = tiny_flamingo()
    model.freeze_backbones()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = parameter_groups(
        model,
        1e-3,
        weight_decay=0.2,
        gate_learning_rate_multiplier=10.0,
        resampler_learning_rate_multiplier=0.5,
    )
    matrices, rest, resampler, gates = ([names[id(p)] for p in group["params"]] for group in groups)
    assert [group["lr"] for group in groups] == [1e-3, 1e-3, 5e-4, 1e-2]
    assert [group["weight_decay"] for group in groups] == [0.2, 0.0, 0.0, 0.0]
    assert resampler == [name for name, _ in model.named_parameters() if name.startswith("resampler.")]
    assert len(gates) == 6 and all(name.endswith("_gate") for name in gates)
    assert all(name.startswith("gated_cross_attention.") and name.endswith(".weight") for name in matrices)
    assert not any("norm" in name for name in matrices)
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    assert sorted(gates + matrices + resampler + rest) == sorted(trained)


def test_the_optimizer_of_the_groups_moves_the_gates_faster():
    model = tiny_flamingo(gates=0.0)
    model.freeze_backbones()
    optimizer = torch.optim.AdamW(parameter_groups(model, 1e-3, gate_learning_rate_multiplier=20.0))
    ids = torch.tensor([[98, 5, 6]])
    images = torch.randn(1, 1, 3, 8, 8)
    model(input_ids=ids, pixel_values=images, labels=ids).loss.backward()
    optimizer.step()
    for block in model.gated_cross_attention:
        torch.testing.assert_close(block.attn_gate.abs().item(), 0.02, rtol=1e-2, atol=0)


def test_nothing_to_train_is_an_error():
    model = tiny_flamingo()
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="nothing to train"):
        parameter_groups(model, 1e-3)
