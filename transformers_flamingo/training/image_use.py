# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Measure on a training batch whether a model uses its images: the loss with the own images against that with others.

The two losses are of the same tokens and the same weights, so that what remains between them is what the images tell. Other
images are better than blank ones, which a model has never seen: it may react to them without telling any two images apart.

Shapes: `B` batch, `N` images or videos per sample, `T` text length, `D` text width, `L` latents, `Dv` vision width.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import nn

from ..image_features_flamingo import as_image_mask
from ..modeling_flamingo import FlamingoModel
from ..padding_flamingo import find_real_images
from ..visibility_flamingo import compute_media_index, find_documents


@dataclass(frozen=True)
class ImageUseMeasurement:
    """
    Losses of a batch with its own images and with others, and the sizes of the branches: a result of [`measure_image_use`].

    Args:
        loss (`float`): Mean loss of the supervised tokens that see an image, with their own images.
        swapped_loss (`float`): The same with other images, or with blank ones.
        is_blank (`bool`): Whether the images were replaced by blank ones, because all images of the batch are the same.
        attn, ffn (`list[float]`):
            For each gated block, the root mean square of what its branch adds to the hidden states, gate included, over that
            of these hidden states. `ffn` is empty for blocks without a feed-forward branch.
    """

    loss: float
    swapped_loss: float
    is_blank: bool
    attn: list[float]
    ffn: list[float]


@dataclass(frozen=True)
class ImageSwap:
    """
    A choice of the images that a batch gets instead of its own.

    Args:
        labels (`torch.LongTensor` of shape `(B, T)`): Those of tokens that see an image; -100 elsewhere.
        sees_image (`torch.BoolTensor` of shape `(B, T)`): Which tokens see an image.
        places (`list[tuple[int, int]]`): Row and number of each real image, from 0, counted without padding.
        sources (`list[tuple[int, int]]`, *optional*):
            For each of them, the place of the image that it is replaced by. `None`: blank images.
    """

    labels: torch.Tensor
    sees_image: torch.Tensor
    places: list[tuple[int, int]]
    sources: list[tuple[int, int]] | None


def measure_image_use(model: FlamingoModel, inputs: Mapping[str, Any]) -> ImageUseMeasurement | None:
    """
    Compare the loss of a batch with its own images and with those of other rows of the batch.

    Each image is replaced by another one, of a row with another text where there is one, so that no text has its own image. If
    all images of the batch are the same, they are replaced by blank ones. Images are encoded once. This costs two forward passes without
    gradient, and changes nothing: neither weights nor gradients, nor the mode of a module, nor a random state.

    Args:
        model ([`FlamingoModel`]): The model.
        inputs (`dict`): Its inputs, with `input_ids` and `labels`, on its device.

    Returns:
        [`ImageUseMeasurement`], or `None` if no supervised token sees an image.
    """
    swap = plan_swap(model, inputs)
    return None if swap is None else measure_swap(model, inputs, swap)


def plan_swap(model: FlamingoModel, inputs: Mapping[str, Any]) -> ImageSwap | None:
    """
    Choose another image for each image of a batch. Nothing is computed by the model.

    Returns:
        [`ImageSwap`], or `None` if no supervised token sees an image.
    """
    input_ids, labels, media = inputs.get("input_ids"), inputs.get("labels"), _find_media(inputs)
    if input_ids is None or labels is None or media is None:
        return None
    sees_image = _sees_image(model, inputs)
    # The label of a token is predicted from the token before it
    labels = labels.masked_fill(~nn.functional.pad(sees_image[:, :-1], (1, 0)), -100)
    if not (labels[:, 1:] != -100).any():
        return None
    name, tensor = media
    is_real = torch.ones(tensor.shape[:2], dtype=torch.bool)
    mask = inputs.get("frame_attention_mask")
    if mask is None and name == "pooler_output":
        mask = inputs["mm_encoder_outputs"]["image"].get("image_attention_mask")
    elif mask is None and name == "pixel_values":
        mask = find_real_images(tensor, model.find_markers(input_ids, None, inputs.get("attention_mask")).sum(dim=1))
    if mask is not None:
        is_real = as_image_mask(mask).cpu()
    indices = is_real.nonzero().tolist()
    contents = [
        hash(tensor[row, index].contiguous().cpu().view(torch.uint8).numpy().tobytes()) for row, index in indices
    ]
    counts = is_real.sum(dim=1).tolist()
    places = [(row, number) for row, count in enumerate(counts) for number in range(count)]
    texts = [row[row != -100].tolist() for row in labels]
    return ImageSwap(labels, sees_image, places, _choose_others(places, contents, counts, texts))


def _find_media(inputs: Mapping[str, Any]) -> tuple[str, torch.Tensor] | None:
    """Return the images of a batch, as pixels, features or latents, and the name of the argument."""
    if inputs.get("pixel_values") is not None:
        return "pixel_values", inputs["pixel_values"]
    outputs = (inputs.get("mm_encoder_outputs") or {}).get("image") or {}
    for name in ("pooler_output", "last_hidden_state"):
        if outputs.get(name) is not None:
            return name, outputs[name]
    return None


def _sees_image(model: FlamingoModel, inputs: Mapping[str, Any]) -> torch.Tensor:
    """Return which tokens see an image: `(B, T)`."""
    input_ids, mask = inputs["input_ids"], inputs.get("attention_mask")
    media_index = inputs.get("media_index")
    if media_index is None:
        markers = model.find_markers(input_ids, None, mask)
        documents = None
        if mask is None:
            documents = find_documents(inputs.get("position_ids"), input_ids.shape, use_cache=False)
        media_index = compute_media_index(markers, documents)
    sees_image = media_index > 0
    return sees_image if mask is None or mask.ndim != 2 else sees_image & mask.bool()


def _choose_others(
    places: list[tuple[int, int]], contents: list[int], counts: list[int], texts: list[list[int]]
) -> list[tuple[int, int]] | None:
    """
    Choose another image for each image of a batch.

    Args:
        places (`list[tuple[int, int]]`): Row and number of each image.
        contents (`list[int]`): A number for what is in each of them.
        counts (`list[int]`): Number of images of each row.
        texts (`list[list[int]]`): What is learned of each row.

    Returns:
        `list`: For each image the place of one with other content, of a row with another text where there is one, or of
        another row at least; `None` if all images are the same.
    """
    if len(set(contents)) < 2:
        return None
    chosen = []
    for i, (row, _) in enumerate(places):
        # Begin a row further on, so that the images of a row get different ones, in their order
        first = (i + counts[row]) % len(places)
        wanted = (
            lambda j, row=row: texts[places[j][0]] != texts[row],
            lambda j, row=row: places[j][0] != row,
            lambda j: True,
        )
        others = (
            j
            for is_wanted in wanted
            for j in chain(range(first, len(places)), range(first))
            if contents[j] != contents[i] and is_wanted(j)
        )
        chosen.append(places[next(others)])
    return chosen


def measure_swap(model: FlamingoModel, inputs: Mapping[str, Any], swap: ImageSwap) -> ImageUseMeasurement:
    """
    Compute the losses of [`measure_image_use`] for images that are already chosen.

    With sharded weights, each process must call this at the same time, and none with blank images: the processes gather the
    weights of each module together.
    """
    # Arguments that would give the loss another divisor, or other tokens
    inputs = {name: value for name, value in inputs.items() if name not in ("num_items_in_batch", "shift_labels")}
    inputs |= {"labels": swap.labels, "skip_logits": True, "use_cache": False, "return_dict": True}
    with _undisturbed(model):
        with _recorded_branches(model, swap.sees_image) as branches:
            outputs = model(**inputs)
        if swap.sources is None:
            inputs.update(_with_blank_images(inputs))
        else:
            inputs.update(_with_other_latents(outputs.image_hidden_states, swap))
        swapped_loss = model(**inputs).loss
    attn, ffn = branches["attn"], branches["ffn"]
    tensors = (outputs.loss, swapped_loss, *attn, *ffn)  # of several devices, if the layers are
    numbers = torch.stack([tensor.float().to(outputs.loss.device) for tensor in tensors]).tolist()
    return ImageUseMeasurement(
        numbers[0], numbers[1], swap.sources is None, numbers[2 : 2 + len(attn)], numbers[2 + len(attn) :]
    )


def _with_blank_images(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the images of a batch as zeros: pixels of the mean color, or features that say nothing."""
    name, tensor = _find_media(inputs)
    if name == "pixel_values":
        return {name: torch.zeros_like(tensor)}
    return {"mm_encoder_outputs": {"image": {**inputs["mm_encoder_outputs"]["image"], name: torch.zeros_like(tensor)}}}


def _with_other_latents(latents: torch.Tensor, swap: ImageSwap) -> dict[str, Any]:
    """Return the images of a batch as latents `(B, N, L, Dv)`, each image replaced by the chosen one."""
    to, of = (torch.tensor(pairs, device=latents.device).T for pairs in (swap.places, swap.sources))
    swapped = latents.index_put((to[0], to[1]), latents[of[0], of[1]])
    mask = torch.zeros(latents.shape[:2], dtype=torch.long, device=latents.device)  # (B, N)
    mask[to[0], to[1]] = 1  # the model returns latents with the real images first
    images = {"pooler_output": swapped}
    return {"pixel_values": None, "frame_attention_mask": mask, "mm_encoder_outputs": {"image": images}}


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Compute without gradient in evaluation mode, and restore the mode of each module and the random states."""
    modes = {module: module.training for module in model.modules()}
    device = next(model.parameters()).device
    model.eval()
    try:
        with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _recorded_branches(model: FlamingoModel, sees_image: torch.Tensor) -> Iterator[dict[str, list[torch.Tensor]]]:
    """
    Record what the branches of each gated block add, for one forward pass.

    It is taken from the hidden states before and after, so that it holds for any kind of gate, and for sharded gates.
    """
    branches: dict[str, list[torch.Tensor]] = {"attn": [], "ffn": []}
    between: dict[nn.Module, torch.Tensor] = {}  # the hidden states between the branches of a block

    def add(kind: str, before: torch.Tensor, after: torch.Tensor) -> None:
        is_seen = sees_image.to(before.device)
        before, after = before[is_seen].float(), after[is_seen].float()
        branches[kind].append((after - before).norm() / before.norm())

    def keep(block: nn.Module, mlp: nn.Module, args: tuple) -> None:
        between[block] = args[0]

    def record(block: nn.Module, args: tuple, output: torch.Tensor) -> None:
        middle = between.pop(block, None)
        add("attn", args[0], output if middle is None else middle)
        if middle is not None:
            add("ffn", middle, output)

    with ExitStack() as hooks:
        for block in model.gated_cross_attention:
            hooks.callback(block.register_forward_hook(record).remove)
            if block.mlp is not None:
                hooks.callback(block.mlp.register_forward_pre_hook(partial(keep, block)).remove)
        yield branches
