# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Test that fingerprints tell models apart, and stay what results of earlier versions hold."""

import hashlib

import torch

from transformers_flamingo.utils.fingerprint import fingerprint, fingerprint_weights


def test_parts_are_joined():
    assert fingerprint(["ab", b"c"]) == fingerprint(["abc"]) == hashlib.sha256(b"abc").hexdigest()[:16]
    assert fingerprint([]) == hashlib.sha256().hexdigest()[:16]


def test_the_fingerprint_of_known_weights_does_not_change():
    """`settings.json` and `results.json` of earlier evaluations hold it: with another one they could not be resumed."""
    weights = {"b": torch.arange(200.0).view(2, 100), "a": torch.tensor(1, dtype=torch.int64)}
    assert fingerprint_weights(weights) == "983853d1b2d779fc"


def test_names_shapes_dtypes_and_values_count_and_the_order_does_not():
    weights = {"a": torch.arange(6.0), "b": torch.ones(2)}
    others = [
        {"a": torch.arange(6.0), "c": torch.ones(2)},
        {"a": torch.arange(6.0).view(2, 3), "b": torch.ones(2)},
        {"a": torch.arange(6.0).to(torch.bfloat16), "b": torch.ones(2)},
        {"a": torch.arange(6.0) + 1, "b": torch.ones(2)},
    ]
    for sample in (True, False):
        known = fingerprint_weights(weights, sample=sample)
        assert fingerprint_weights(dict(reversed(weights.items())), sample=sample) == known
        assert all(fingerprint_weights(other, sample=sample) != known for other in others)


def test_without_a_sample_every_bit_counts():
    weights, changed = torch.zeros(1000), torch.zeros(1000)
    changed[1] = 1
    assert fingerprint_weights({"a": weights}) == fingerprint_weights({"a": changed})
    assert fingerprint_weights({"a": weights}, sample=False) != fingerprint_weights({"a": changed}, sample=False)
