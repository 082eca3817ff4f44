# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Contrastive training of a vision encoder with captions (Alayrac et al. 2022, appendix B.1.3)."""

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional as F
from transformers import BaseImageProcessor, PreTrainedTokenizerBase, Trainer

from ..data import BadSampleError, Reader, decode_image, row_location


def contrastive_loss(
    image_embeds: torch.Tensor, text_embeds: torch.Tensor, logit_scale: torch.Tensor | float
) -> torch.Tensor:
    """
    Compute the paper's two-term contrastive loss: find the image of each text, and the text of each image.

    It is the sum of both terms (Alayrac et al. 2022, appendix B.1.3), where CLIP's loss is their mean.

    Args:
        image_embeds, text_embeds (`torch.Tensor` of shape `(B, K)`):
            Normalized. Row `i` of one belongs only to row `i` of the other, so if two images have the same caption, it
            counts as wrong for the other image.
        logit_scale (`torch.Tensor` of shape `()`): The inverse temperature.

    Returns:
        `torch.Tensor` of shape `()`.
    """
    # In half precision, adjacent values near 100 are half a unit apart
    with torch.autocast(image_embeds.device.type, enabled=False):
        logits = logit_scale * text_embeds.float() @ image_embeds.float().T  # (B, B): a text in each row
    pairs = torch.arange(len(logits), device=logits.device)
    return F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)


class _GatherWithGradient(torch.autograd.Function):
    """
    Gather rows `(B, K)` of all processes, as `(processes * B, K)`.

    Each process computes the same loss from the gathered rows, so the gradient of its own rows needs no further exchange. It
    is multiplied by the number of processes, because parameter gradients are averaged over processes afterwards.
    """

    @staticmethod
    def forward(ctx, rows: torch.Tensor) -> torch.Tensor:
        """Concatenate the rows of all processes."""
        gathered = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        """Return the gradient of the rows of this process."""
        return gradient.chunk(dist.get_world_size())[dist.get_rank()] * dist.get_world_size()


class ContrastiveTrainer(Trainer):
    """
    `Trainer` of a two-tower model such as `CLIPModel` or `VisionTextDualEncoderModel` with [`contrastive_loss`].

    The negatives are all other pairs of the step over **all processes**, and the gradient goes through all of them: two
    processes with batches of 128 compute the same as one with 256. Micro-batches of gradient accumulation are not each
    other's negatives. The temperature stays above 0.01, as in CLIP.
    """

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor | tuple[torch.Tensor, Any]:
        """Compute [`contrastive_loss`] over the pairs of all processes."""
        outputs = model(**inputs)
        embeds = outputs.image_embeds, outputs.text_embeds
        if self.args.world_size > 1:
            embeds = map(_GatherWithGradient.apply, embeds)
        logit_scale = self.accelerator.unwrap_model(model).logit_scale
        loss = contrastive_loss(*embeds, logit_scale.exp().clamp(max=100))
        return (loss, outputs) if return_outputs else loss


@dataclass
class ContrastiveCollator:
    """
    Collate rows of a dataset into `pixel_values` `(B, C, H, W)`, `input_ids` and `attention_mask` `(B, T)`.

    Args:
        reader ([`~data.Reader`]): Reads the rows.
        image_processor, tokenizer: Make the tensors.
        max_length (`int`): Maximum number of tokens of a caption, including the end-of-sequence token. Of several captions, it is the first.

    Raises:
        BadSampleError: a row does not have exactly one image with a text, or cannot be read. The message names file and row.
    """

    reader: Reader
    image_processor: BaseImageProcessor
    tokenizer: PreTrainedTokenizerBase
    max_length: int

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Collate the rows."""
        pairs = [self._read_pair(row) for row in rows]
        images, texts = zip(*pairs, strict=True)
        # A text tower may read the caption at its end, where tokenizers of language models put no token
        input_ids = self.tokenizer(list(texts), truncation=True, max_length=self.max_length - 1)["input_ids"]
        special = set(self.tokenizer.all_special_ids)
        input_ids = [ids if ids[-1] in special else [*ids, self.tokenizer.eos_token_id] for ids in input_ids]
        batch = self.tokenizer.pad({"input_ids": input_ids}, padding_side="right", return_tensors="pt")
        pixels = self.image_processor([image.convert("RGB") for image in images], return_tensors="pt")
        return {**batch, "pixel_values": pixels["pixel_values"]}

    def _read_pair(self, row: dict[str, Any]) -> tuple[Any, str]:
        chunks = [chunk for chunk in self.reader.read(row) if chunk.item is not None and chunk.text]
        if len(chunks) != 1 or isinstance(chunks[0].item, list):
            raise BadSampleError(
                f"{row_location(row)}: the row has {len(chunks)} images or videos with text. Contrastive training needs rows of one "
                "image with its text."
            )
        return decode_image(chunks[0].item, row_location(row)), chunks[0].text
