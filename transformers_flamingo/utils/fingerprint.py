# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Fingerprints that tell whether what was computed earlier belongs to the same model and data."""

import hashlib
from collections.abc import Iterable, Mapping

import torch


def fingerprint(parts: Iterable[str | bytes]) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of `parts`, joined."""
    digest = hashlib.sha256()
    for part in parts:
        # The name of a file may have bytes that are not UTF-8
        digest.update(part.encode(errors="surrogateescape") if isinstance(part, str) else part)
    return digest.hexdigest()[:16]


def fingerprint_weights(weights: Mapping[str, torch.Tensor], *, sample: bool = True) -> str:
    """
    Return the fingerprint of a model: of the names, shapes, dtypes and values of its weights.

    Args:
        weights (`Mapping[str, torch.Tensor]`): The state dict.
        sample (`bool`, *optional*, defaults to `True`):
            Whether to read about 64 values of each weight. That is enough to tell trained models apart and quick for large ones;
            without it every bit counts.
    """

    def parts() -> Iterable[str | bytes]:
        for name, tensor in sorted(weights.items()):
            yield f"{name} {tuple(tensor.shape)} {tensor.dtype}"
            flat = tensor.detach().flatten()
            if sample:
                yield flat[:: max(1, len(flat) // 64)][:65].float().cpu().numpy().tobytes()
            else:
                yield flat.cpu().contiguous().view(torch.uint8).numpy().tobytes()

    return fingerprint(parts())
