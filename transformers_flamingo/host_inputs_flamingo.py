# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Copies, on the CPU, of the small inputs of a call: what decides its checks, its layout and its shapes.

Which image a token sees, which images are real and which tokens are supervised follow from whole numbers, and so do the shapes of
what is computed. Asked on an accelerator, each such question waits until everything queued before it is done. So these inputs are copied
once, together, before the images are encoded, and all questions are asked on the CPU.

Shapes: `B` batch, `N` images or videos per sample, `F` frames, `T` text length.

The file travels with a checkpoint as remote code: it stays flat and imports only its siblings.
"""

from dataclasses import dataclass
from typing import Any

import torch

from .checks_flamingo import is_padding_mask
from .outputs_flamingo import FlamingoInputs


def to_host(*tensors: Any) -> tuple[Any, ...]:
    """
    Copy small tensors to the CPU, in one transfer for all whole numbers and booleans of a device.

    Args:
        tensors: Tensors. Anything else, and what is on the CPU already, is returned as it is, and so is all in a compiled graph.

    Returns:
        `tuple`: The copies, of the same types and shapes.
    """
    copies = list(tensors)
    if torch.compiler.is_compiling():
        return tuple(copies)
    transfers: dict[tuple[torch.device, torch.dtype], list[int]] = {}
    for index, tensor in enumerate(tensors):
        if isinstance(tensor, torch.Tensor) and tensor.device.type not in ("cpu", "meta"):
            dtype = tensor.dtype if tensor.is_floating_point() or tensor.is_complex() else torch.long
            transfers.setdefault((tensor.device, dtype), []).append(index)
    for (_, dtype), indices in transfers.items():
        together = torch.cat([tensors[index].reshape(-1).to(dtype) for index in indices]).cpu()
        parts = together.split([tensors[index].numel() for index in indices])
        for index, part in zip(indices, parts, strict=True):
            copies[index] = part.view(tensors[index].shape).to(tensors[index].dtype)
    return tuple(copies)


@dataclass
class HostInputs:
    """
    The inputs of a call that are asked for their values, on the CPU. See [`HostInputs.of`].

    Args:
        input_ids (`torch.LongTensor` of shape `(B, T)`, *optional*): The text.
        attention_mask (`torch.Tensor`, *optional*): The mask of the text. One of four dimensions stays where it is.
        frame_attention_mask (`torch.Tensor` of shape `(B, N)` or `(B, N, F)`, *optional*):
            The mask of the images or frames. By default that of given latents.
        position_ids, media_index, labels, shift_labels (`torch.LongTensor` of shape `(B, T)`, *optional*): As in `forward`.
    """

    input_ids: torch.LongTensor | None = None
    attention_mask: torch.Tensor | None = None
    frame_attention_mask: torch.Tensor | None = None
    position_ids: torch.LongTensor | None = None
    media_index: torch.LongTensor | None = None
    labels: torch.LongTensor | None = None
    shift_labels: torch.LongTensor | None = None

    @classmethod
    def of(
        cls,
        inputs: FlamingoInputs,
        labels: torch.LongTensor | None = None,
        shift_labels: torch.LongTensor | None = None,
    ) -> "HostInputs":
        """
        Copy the inputs of a call.

        In a compiled graph, and for one new token without an image, the tensors stay on their device: a graph has static shapes, and a
        step of a generation, whose prompt was checked, should not wait.

        Args:
            inputs ([`FlamingoInputs`]): Text and images.
            labels, shift_labels (`torch.LongTensor` of shape `(B, T)`, *optional*): What the loss is computed from.
        """
        given = (inputs.mm_encoder_outputs or {}).get("image") if isinstance(inputs.mm_encoder_outputs, dict) else None
        frame_attention_mask = inputs.frame_attention_mask
        if frame_attention_mask is None and isinstance(given, dict) and given.get("pooler_output") is not None:
            frame_attention_mask = given.get("image_attention_mask")
        tensors = {
            "input_ids": inputs.input_ids,
            "attention_mask": inputs.attention_mask,
            "frame_attention_mask": frame_attention_mask,
            "position_ids": inputs.position_ids,
            "media_index": inputs.media_index,
            "labels": labels,
            "shift_labels": shift_labels,
        }
        text = inputs.inputs_embeds if inputs.input_ids is None else inputs.input_ids
        is_step = inputs.cache is not None and getattr(text, "ndim", 0) > 1 and text.shape[1] == 1
        if is_step and inputs.pixel_values is None and given is None:
            return cls(**tensors)
        copied = {name: value for name, value in tensors.items() if name != "attention_mask" or is_padding_mask(value)}
        return cls(**{**tensors, **dict(zip(copied, to_host(*copied.values()), strict=True))})
