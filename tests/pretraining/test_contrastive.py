# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The contrastive loss, in one process and in two."""

import json
import math

import pytest
import torch
from processes import launch
from runs import contrast

from transformers_flamingo.pretraining import contrastive_loss


def test_the_loss_is_the_sum_of_both_terms():
    images = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    texts = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    # Similarities, a text in each row: 0.6 0.8 / 0.0 1.0
    to_image = [-math.log(math.exp(3) / (math.exp(3) + math.exp(4))), -math.log(math.exp(5) / (1 + math.exp(5)))]
    to_text = [-math.log(math.exp(3) / (math.exp(3) + 1)), -math.log(math.exp(5) / (math.exp(4) + math.exp(5)))]
    expected = sum(to_image) / 2 + sum(to_text) / 2
    assert contrastive_loss(images, texts, 5.0).item() == pytest.approx(expected, rel=1e-6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert contrastive_loss(images, texts, 5.0).item() == pytest.approx(expected, rel=1e-6)


def test_two_processes_contrast_with_the_pairs_of_both(tmp_path, pairs):
    records = []
    for world_size in (1, 2):
        directory = tmp_path / str(world_size)
        assert launch(contrast, str(directory), pairs, 6 // world_size, world_size=world_size) == [0] * world_size
        records.append(json.loads((directory / "record.json").read_text()))
    alone, both = records
    assert (alone["world_size"], both["world_size"]) == (1, 2)
    assert alone["logs"][0]["loss"] == pytest.approx(2 * math.log(6), rel=0.3)
    for entry, other in zip(both["logs"], alone["logs"], strict=True):
        assert entry == pytest.approx(other, rel=1e-4)
