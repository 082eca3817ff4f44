# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Visibility of images: phi, which says which image a token sees, two layouts that express it, and the checks of markers.

The rule is written once, in [`compute_media_index`]. Two layouts turn it into attention, and a test compares them:
[`SegmentLayout`] in eager mode, whose cost does not depend on the number of images, and [`MaskLayout`] under
`torch.compile`, whose shapes are static.

Shapes: `B` batch, `N` images or videos per sample, `T` text length, `D` text width, `L` latents, `Dv` vision width.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import torch
from torch import nn
from transformers.masking_utils import find_packed_sequence_indices

from .checks_flamingo import check_whole_numbers, is_padding_mask


# ---------------------------------------------------------------------------------------------------------------------
# The rule
# ---------------------------------------------------------------------------------------------------------------------


def find_markers(
    input_ids: torch.LongTensor | None,
    inputs_embeds: torch.Tensor | None,
    attention_mask: torch.Tensor | None,
    marker_ids: Sequence[int],
    embedding: nn.Module,
) -> torch.BoolTensor:
    """
    Find the `<image>` tokens of a text, padding aside.

    Args:
        input_ids (`torch.LongTensor` of shape `(B, T)`, *optional*): The text.
        inputs_embeds (`torch.Tensor` of shape `(B, T, D)`, *optional*):
            Its embeddings instead. A marker is recognized by its embedding.
        attention_mask (`torch.Tensor` of shape `(B, past + T)`, *optional*): 1 at text, 0 at padding.
        marker_ids (`Sequence[int]`): The ids that mark an image.
        embedding (`nn.Module`): The input embedding of the language model.

    Returns:
        `torch.BoolTensor` of shape `(B, T)`.
    """
    if input_ids is not None:
        markers = torch.stack([input_ids == token_id for token_id in marker_ids]).any(dim=0)
    else:
        tokens = embedding(torch.tensor(marker_ids, device=inputs_embeds.device))
        markers = torch.stack([(inputs_embeds == token).all(dim=-1) for token in tokens]).any(dim=0)
    if is_padding_mask(attention_mask):
        markers = markers & attention_mask[:, -markers.shape[1] :].bool().to(markers.device)
    return markers


def find_documents(
    position_ids: torch.LongTensor | None, shape: torch.Size, use_cache: bool | None
) -> torch.LongTensor | None:
    """
    Find which document of its row each token belongs to.

    Args:
        position_ids (`torch.LongTensor` of shape `(B, T)`, *optional*): Another document begins where they restart.
        shape (`torch.Size`): `(B, T)`.
        use_cache (`bool`, *optional*): Whether a cache is to be returned.

    Returns:
        `torch.LongTensor` of shape `(B, T)`; `None` if no position restarts.

    Raises:
        ValueError: packed documents are to be cached.
    """
    if position_ids is None or position_ids.ndim != 2 or (use_cache and torch.compiler.is_compiling()):
        return None
    documents = find_packed_sequence_indices(position_ids.expand(shape))
    if documents is not None and use_cache:
        raise ValueError(
            "`position_ids` restart, so several documents are packed into one row, and `use_cache` is set. With a cache, "
            "language models treat the row as one text and the documents would see each other. Omit `use_cache`."
        )
    return documents


def find_document_starts(documents: torch.LongTensor) -> torch.BoolTensor:
    """Find the first token of each document `(B, T)`, of the document of its row that each token is in."""
    is_start = documents != documents.roll(1, dims=-1)
    is_start[:, 0] = True
    return is_start


def build_flash_kwargs(documents: torch.LongTensor, device: torch.device) -> dict[str, torch.Tensor | int]:
    """
    Build the arguments by which flash attention keeps the documents of packed rows apart, for `transformers.FlashAttentionKwargs`.

    transformers derives them from `position_ids` for a batch of one row only; in larger batches the documents would see each other.

    Args:
        documents (`torch.LongTensor` of shape `(B, T)`): The document of its row that each token is in. On the CPU, because the lengths
            of the documents are asked for.
        device (`torch.device`): Where attention is computed.

    Returns:
        `dict`: `cu_seq_lens_q` and `cu_seq_lens_k`, the first tokens of all documents in the flattened rows and the number of tokens, and
        `max_length_q` and `max_length_k`, the length of the longest document.

    Raises:
        ValueError: inside of a compiled graph.
    """
    if torch.compiler.is_compiling():
        raise ValueError(
            "`position_ids` without `attention_mask` may pack several documents into a row, and the language model has flash attention. "
            "The number of documents is not known in a compiled graph, so they would see each other. Do not compile the model, or load it "
            "with `attn_implementation='sdpa'`."
        )
    starts = find_document_starts(documents).flatten().nonzero().squeeze(-1)
    bounds = nn.functional.pad(starts, (0, 1), value=documents.numel()).to(torch.int32)
    longest = int(bounds.diff().max())
    bounds = bounds.to(device)
    return {"cu_seq_lens_q": bounds, "cu_seq_lens_k": bounds, "max_length_q": longest, "max_length_k": longest}


def compute_media_index(markers: torch.BoolTensor, documents: torch.LongTensor | None = None) -> torch.LongTensor:
    """
    Compute the paper's phi (section 2.3): for each token, how many images are marked at or before it.

    Token `t` sees image `phi(t)`, counted from 1, and no other image. With `phi(t) = 0` it sees none.

        text      This  is  <image>  a   cat  .  <image>  <image>  two  dogs
        markers   0     0   1        0   0    0  1        1        0    0
        phi       0     0   1        1   1    1  2        3        3    3

    The paper's figure 7 draws the same rule as a mask. An image directly followed by another is seen by its own
    marker alone. Where documents are packed into one row, a token sees an image of its own document or none:

        documents 0     0   0        1   1    1  1        1        2    2
        phi       0     0   1        0   0    0  2        3        0    0

    Args:
        markers (`torch.BoolTensor` of shape `(B, T)`): True at the `<image>` tokens, padding aside.
        documents (`torch.LongTensor` of shape `(B, T)`, *optional*): The document of its row that each token is in.

    Returns:
        `torch.LongTensor` of shape `(B, T)`.
    """
    media_index = markers.long().cumsum(dim=-1)
    if documents is None:
        return media_index
    # Number of images marked before the document of each token
    before = ((media_index - markers.long()) * find_document_starts(documents)).cummax(dim=-1).values
    return media_index.masked_fill(media_index == before, 0)


# ---------------------------------------------------------------------------------------------------------------------
# Checks: a wrong image must never be seen silently
# ---------------------------------------------------------------------------------------------------------------------


def check_image_counts(markers: torch.BoolTensor, is_image: torch.BoolTensor | None) -> None:
    """
    Check that each sample has as many images as markers.

    Args:
        markers (`torch.BoolTensor` of shape `(B, T)`): True at the `<image>` tokens.
        is_image (`torch.BoolTensor` of shape `(B, N)`, *optional*): True at real images; `None` without any image.

    Raises:
        ValueError: the numbers differ; the message names the samples. In a compiled graph it is an assertion of torch.
    """
    num_markers, num_images = markers.sum(dim=1), _count_images(is_image, markers)
    if torch.compiler.is_compiling() or markers.device.type == "cuda":
        # A graph cannot tell which sample it is, and a step of a generation does not wait, but neither may continue with a wrong image
        torch._assert_async(
            (num_images == num_markers).all(),
            "The number of `<image>` markers in the text differs from the number of images.",
        )
        return
    wrong = (num_images != num_markers).nonzero().flatten().tolist()
    if wrong:
        counts = "; ".join(f"sample {i}: {num_markers[i]} markers, {num_images[i]} images" for i in wrong[:8])
        raise ValueError(
            f"The number of `<image>` markers in the text differs from the number of images ({counts}). Each marker "
            "represents one image or video, so some text would see a wrong image or none. Give one image for each "
            "marker, and mark padding among the images with 0 in `frame_attention_mask`."
        )


def check_media_index(media_index: torch.LongTensor, shape: torch.Size, is_image: torch.BoolTensor | None) -> None:
    """
    Check that each token sees an image that its sample has, or none.

    Args:
        media_index (`torch.LongTensor` of shape `(B, T)`): The image that each token sees, from 1; 0 for none.
        shape (`torch.Size`): `(B, T)` of the text.
        is_image (`torch.BoolTensor` of shape `(B, N)`, *optional*): True at real images; `None` without any image.

    Raises:
        ValueError: the shape or the type is wrong, or an image is named that is not there.
    """
    if media_index.shape != shape:
        raise ValueError(
            f"`media_index` has shape {tuple(media_index.shape)}, but the text has {tuple(shape)}. It must say for each "
            "token which image the token sees."
        )
    if media_index.dtype != torch.bool:
        check_whole_numbers("media_index", media_index)
    num_images = _count_images(is_image, media_index)
    is_wrong = (media_index < 0) | (media_index > num_images[:, None])
    if torch.compiler.is_compiling() or is_wrong.device.type == "cuda":
        torch._assert_async((~is_wrong).all(), "`media_index` names an image that is not there.")
    elif is_wrong.any():
        sample, token = is_wrong.nonzero()[0].tolist()
        raise ValueError(
            f"`media_index` is {media_index[sample, token]} at token {token} of sample {sample}, which has "
            f"{num_images[sample].item()} images. The token would see a wrong image. Give 1 to the number of images of the "
            "sample, or 0 for none."
        )


def _count_images(is_image: torch.BoolTensor | None, text: torch.Tensor) -> torch.LongTensor:
    """Count the images of each sample, `(B,)`, and check that the text `(B, T)` has as many samples."""
    if is_image is None:
        return torch.zeros(len(text), dtype=torch.long, device=text.device)
    num_images = is_image.sum(dim=1).to(text.device)
    if len(num_images) != len(text):
        raise ValueError(
            f"The text has {len(text)} samples, but images were given for {len(num_images)}. Their first dimension, B, "
            "must agree."
        )
    return num_images


# ---------------------------------------------------------------------------------------------------------------------
# The layouts
# ---------------------------------------------------------------------------------------------------------------------


@dataclass
class SegmentLayout:
    """
    The tokens of a batch, regrouped by the image they see, so that each token scores `L` keys instead of `N * L`.

    The tokens that see one image form a segment. Segments are split into `R` rows of `c` slots. Every token in a row
    attends to the latents of one image, so no mask is needed:

        phi of two samples    0 1 1 1 1 2 2 / 1 1 3 3 3 3 3      the segments have 4, 2, 2 and 5 tokens
        rows of c = 5 slots   [1 1 1 1 .]  [2 2 . . .]  [1 1 . . .]  [3 3 3 3 3]

    `c` is the longest segment, or the mean one where lengths differ so much that most slots would be empty, so there
    are never more than about twice as many slots as tokens, regardless of the number of images.

    Key-value rows are numbered: first, if a cache holds earlier images, the `B` rows of the cache; then the `S` images
    of this call that some token sees.
    """

    token_index: torch.LongTensor  # (R * c,)  for each slot, its token as b * T + t; 0 where the slot is empty
    slot_index: torch.LongTensor  # (B * T,)  for each token, its slot; R * c if it sees no image
    key_value_index: torch.LongTensor | None  # (R,)  for each row, its key-value row; None: row r has key-value row r
    last_index: torch.LongTensor  # (B,)  for each sample, the key-value row of its last image; 0 if it has none
    has_media: torch.BoolTensor  # (B,)  whether the sample has an image at all
    last_media_position: int  # position in the sequence of the last marker of the batch

    def to(self, device: torch.device) -> "SegmentLayout":
        """Move the layout to a device."""
        return _to_device(self, device)


@dataclass
class MaskLayout:
    """
    The same rule as a mask over the latents of all images: static shapes, for `torch.compile`, at `(N + 1) * L` keys.

    Image 0 is the one in the cache. Without a cache its keys and values are 0, and so is the attention output.
    """

    attention_mask: torch.Tensor  # (B, 1, T, (N + 1) * L)  additive
    last_index: torch.LongTensor  # (B,)  for each sample, its last image, in 0..N

    def to(self, device: torch.device) -> "MaskLayout":
        """Move the layout to a device."""
        return _to_device(self, device)


def _to_device(layout: SegmentLayout | MaskLayout, device: torch.device) -> SegmentLayout | MaskLayout:
    """Move a layout to a device: with `device_map`, the blocks of one model may be on several."""
    tensors = {f.name: getattr(layout, f.name) for f in fields(layout)}
    tensors = {k: v.to(device) for k, v in tensors.items() if isinstance(v, torch.Tensor)}
    return replace(layout, **tensors)


def _find_last_image(media_index: torch.LongTensor) -> torch.LongTensor:
    """Find the image that the last token of each sample sees, padding (-1) aside: `(B, T)` -> `(B,)`."""
    is_text = media_index >= 0
    last = (is_text * torch.arange(media_index.shape[1], device=media_index.device)).argmax(dim=1, keepdim=True)
    return media_index.gather(1, last).squeeze(1).clamp(min=0)


def build_segment_layout(
    media_index: torch.LongTensor, is_cached: bool, num_past_tokens: int
) -> tuple[SegmentLayout | None, torch.LongTensor]:
    """
    Group tokens by the image they see.

    Args:
        media_index (`torch.LongTensor` of shape `(B, T)`):
            For each token the image it sees: 1..N for those of this call, 0 for the one in the cache, if any, -1 for
            none.
        is_cached (`bool`): Whether a cache holds earlier images.
        num_past_tokens (`int`): Length of the text in the cache.

    Returns:
        The layout, `None` if no token sees an image of this call, and a `torch.LongTensor` of shape `(S,)`: the images
        of this call that are seen, as `b * N_max + (n - 1)` with `N_max = media_index.max()`.
    """
    batch_size, length = media_index.shape
    device = media_index.device
    num_media = int(media_index.max())
    if num_media <= 0:
        return None, media_index.new_empty(0)

    sample = torch.arange(batch_size, device=device)[:, None].expand(-1, length)
    sees = (media_index >= (0 if is_cached else 1)).flatten()
    tokens = sees.nonzero().squeeze(-1)  # (M,) flat positions of the tokens that see an image
    media = (sample * (num_media + 1) + media_index.clamp(min=0)).flatten()[tokens]  # (M,) which one, over the batch

    # Segments: runs of consecutive tokens that see the same image.
    starts = torch.ones_like(media, dtype=torch.bool)
    starts[1:] = media[1:] != media[:-1]
    segment = starts.cumsum(0) - 1  # (M,)
    segment_start = starts.nonzero().squeeze(-1)
    lengths = torch.bincount(segment)
    segment_media = media[segment_start]

    # Rows of c slots. One long segment next to many short ones would leave most slots empty, and they are computed too.
    width = int(lengths.max())
    if len(lengths) * width > 2 * len(tokens):
        width = -(-len(tokens) // len(lengths))
    rows_per_segment = -(-lengths // width)
    first_row = rows_per_segment.cumsum(0) - rows_per_segment
    offset = torch.arange(len(tokens), device=device) - segment_start[segment]
    slot = first_row[segment] * width + offset
    num_slots = int(rows_per_segment.sum()) * width
    token_index = tokens.new_zeros(num_slots).index_copy_(0, slot, tokens)
    slot_index = tokens.new_full((batch_size * length,), num_slots).index_copy_(0, tokens, slot)

    # Key-value rows: the cache's, then one for each distinct image.
    is_new = segment_media % (num_media + 1) > 0
    seen, seen_index = segment_media[is_new].unique(return_inverse=True)
    num_cached = batch_size if is_cached else 0
    key_value_row = segment_media // (num_media + 1)
    key_value_row[is_new] = num_cached + seen_index
    key_value_index = key_value_row.repeat_interleave(rows_per_segment)
    # The common case, one row for each image, needs no copy of keys and values.
    is_identity = len(key_value_index) == num_cached + len(seen) and bool(
        (key_value_index == torch.arange(len(key_value_index), device=device)).all()
    )

    # The last image of each sample, which is the one the next token will see.
    last_media = _find_last_image(media_index)
    last_key = sample[:, 0] * (num_media + 1) + last_media
    last_index = torch.where(
        last_media > 0,
        num_cached + torch.searchsorted(seen, last_key),
        sample[:, 0] if is_cached else torch.zeros_like(last_media),
    )
    first_seen = (media_index == last_media[:, None]).long().argmax(dim=1)
    last_position = int(torch.where(last_media > 0, first_seen, -1).max())

    layout = SegmentLayout(
        token_index=token_index,
        slot_index=slot_index,
        key_value_index=None if is_identity else key_value_index,
        last_index=last_index,
        has_media=(last_media > 0) | is_cached,
        last_media_position=num_past_tokens + last_position,
    )
    # b * (N_max + 1) + n  ->  b * N_max + (n - 1)
    return layout, seen - seen // (num_media + 1) - 1


def build_mask_layout(media_index: torch.LongTensor, latents: torch.Tensor, dtype: torch.dtype) -> MaskLayout:
    """
    Express the rule as a mask.

    Args:
        media_index (`torch.LongTensor` of shape `(B, T)`): As in [`build_segment_layout`].
        latents (`torch.Tensor` of shape `(B, N, L, Dv)`): The latents of this call; only their shape is used.
        dtype (`torch.dtype`): Type of the mask.

    Returns:
        [`MaskLayout`]
    """
    num_media, num_latents = latents.shape[1:3]
    sees = media_index[:, :, None] == torch.arange(num_media + 1, device=media_index.device)  # (B, T, N + 1)
    # Padding tokens attend to image 0 so that no softmax row is fully masked.
    sees[:, :, 0] |= media_index < 0
    mask = torch.zeros(sees.shape, dtype=dtype, device=sees.device).masked_fill(~sees, torch.finfo(dtype).min)
    # (B, T, N + 1) -> (B, 1, T, (N + 1) * L)
    mask = mask.repeat_interleave(num_latents, dim=-1)[:, None]
    return MaskLayout(attention_mask=mask, last_index=_find_last_image(media_index))
