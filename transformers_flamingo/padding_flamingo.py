# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Which images of a padded batch are real, without a mask.

Samples with fewer images than others are padded with images of zeros at the end. `frame_attention_mask` says so, but a
client that forwards only the tensors it knows by name (TRL's GRPO and RLOO) drops it. What it never drops are the pixels and
the text, and they tell the same.

Shapes: `B` batch, `N` images or videos per sample, `F` frames, `C, H, W` pixels, `T` text length.

The file travels with a checkpoint as remote code: it stays flat and imports only its siblings.
"""

import torch


def find_real_images(
    pixel_values: torch.FloatTensor, num_markers: torch.LongTensor | None = None
) -> torch.BoolTensor | None:
    """
    Find the images that are not padding: those up to the last one of their sample that has any value but 0, and those that
    the text marks.

    Normalization leaves no image of zeros alone, but without it a black one is zero. The markers of the text tell it from
    padding. An image that is neither marked nor zero stays, so that the check of the numbers finds it.

    Args:
        pixel_values (`torch.FloatTensor` of shape `(B, N, C, H, W)` or `(B, N, F, C, H, W)`): The pixels.
        num_markers (`torch.LongTensor` of shape `(B,)`, *optional*): How many images the text of each sample marks.

    Returns:
        `torch.BoolTensor` of shape `(B, N)`. Without markers a batch of zeros alone is real, too. `None` in a compiled graph,
        whose shapes are static, so that the mask is needed there, and for what is not pixels of such a shape.
    """
    if torch.compiler.is_compiling() or not isinstance(pixel_values, torch.Tensor):
        return None
    if pixel_values.ndim not in (5, 6) or 0 in pixel_values.shape:
        return None
    has_values = pixel_values.flatten(2).any(dim=2)  # (B, N)
    # Also those before one with values: padding is at the end
    is_real = has_values.flip(1).cummax(dim=1).values.flip(1)
    if num_markers is not None and len(num_markers) == len(is_real):
        positions = torch.arange(is_real.shape[1], device=is_real.device)
        return is_real | (positions < num_markers.to(is_real.device)[:, None])
    return is_real if is_real.any() else torch.ones_like(is_real)
