# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
What a Flamingo looked at: from its attention weights to maps over the patches of its images.

A token looks at the latents of one image (`cross_attentions`), and a latent looked at the patches of that image
(`resampler_attentions`). The product of both says which patches the token looked at: [`attention_maps`].

Shapes: `B` batch, `N` images or videos per sample, `F` frames, `P` patches, `L` latents, `T` text length.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedConfig
from transformers.utils import ModelOutput


# What is added to the outputs of a model that is asked for its cross-attentions.
SEEN = ("cross_attentions", "resampler_attentions", "patch_grid", "media_index")


def attention_maps(
    outputs: ModelOutput, image_features: ModelOutput | None = None, grid: Sequence[int] | None = None
) -> torch.Tensor:
    """
    Compute which patches of the image that it sees each token looked at.

    Each map is the mean over all gated blocks and heads, times the mean over all layers and heads of the resampler. It has
    the sum 1, or 0 where the token sees no image. The map of a token shows what the model looked at while it read this token
    and predicted the next one. The maps of `generate()` are moved by one, so that there is one for each generated token: what
    the model looked at when it chose this token.

    Args:
        outputs (`ModelOutput`):
            Those of `forward(..., output_cross_attentions=True)`, or of `generate(..., output_cross_attentions=True,
            return_dict_in_generate=True)`. `output_attentions=True` is enough, too.
        image_features (`ModelOutput`, *optional*):
            For a call that continues from a cache: `get_image_features(..., output_cross_attentions=True)` of the images of the
            text in the cache, of which a token sees the last.
        grid (`Sequence[int]`, *optional*):
            Frames, rows and columns of the patches. The default is what the vision encoder says (`outputs.patch_grid`).

    Returns:
        `torch.FloatTensor` of shape `(B, T, F, rows, columns)`, on the CPU.

    Raises:
        ValueError: the outputs lack what is needed, or `grid` does not fit them.

    Example:

    ```python
    >>> outputs = model.generate(**inputs, output_cross_attentions=True, return_dict_in_generate=True)
    >>> attention_maps(outputs).shape  # of one prompt, 5 new tokens and an encoder of 7 x 7 patches
    torch.Size([1, 5, 1, 7, 7])
    ```
    """
    if not isinstance(outputs, Mapping) or not outputs.get("cross_attentions"):
        raise ValueError(
            "The outputs have no `cross_attentions`, so nothing says where the model looked. Call the model with "
            "`output_cross_attentions=True`, and `generate()` also with `return_dict_in_generate=True`."
        )
    if grid is not None and (len(grid) != 3 or min(grid) < 1):
        raise ValueError(
            f"`grid` is {tuple(grid)}, but it must be the numbers of frames, rows and columns, of at least 1."
        )
    looked, index, rows = _looked_at(outputs)  # (B, T, L), (B, T), (B,)
    sees_any = looked.sum(dim=-1) > 0
    sees_cached = sees_any & (index == 0)
    sources = []
    if (sees_any & (index > 0)).any():
        sources.append((outputs, "`outputs`", rows, index))
    if sees_cached.any():
        if image_features is None:
            raise ValueError(
                "Some tokens looked at an image of an earlier call, which is in the cache, and these outputs do not have its "
                "patches. Pass `image_features=model.get_image_features(..., output_cross_attentions=True)` of the earlier images."
            )
        # The batch of a generation may have several rows for a sample: beams, or sequences
        samples = rows // (len(outputs["media_index"]) // len(image_features["image_attention_mask"]))
        last = image_features["image_attention_mask"].sum(dim=1).cpu()[samples]
        sources.append((image_features, "`image_features`", samples, last[:, None].where(sees_cached, 0)))
    if not sources:
        frames, height, width = grid if grid is not None else (1, 1, 1)
        return looked.new_zeros(*looked.shape[:2], frames, height, width)
    maps = [_map(looked, source, name, samples, seen, grid) for source, name, samples, seen in sources]
    if len({one.shape for one in maps}) > 1:
        raise ValueError(
            f"The images in the cache have patches of {tuple(maps[1].shape[2:])} frames, rows and columns, those of this call "
            f"{tuple(maps[0].shape[2:])}. Their maps do not fit into one tensor: compute the maps of each call by itself."
        )
    return sum(maps)


def _looked_at(outputs: ModelOutput) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    Average over blocks and heads.

    Returns:
        For each token the weights of the latents `(B, T, L)`, the image it sees `(B, T)`, and for each row the row of the images
        `(B,)`.
    """
    media_index = outputs["media_index"].cpu()
    if "sequences" not in outputs:
        looked = torch.stack([weights.float().mean(dim=1).cpu() for weights in outputs["cross_attentions"]])
        return looked.mean(dim=0), media_index, torch.arange(len(media_index))
    # The last token of each step chose the next one. All steps see the image of the last token of the prompt.
    looked = torch.stack(
        [
            torch.stack([weights[:, :, -1].float().mean(dim=1).cpu() for weights in step]).mean(dim=0)
            for step in outputs["cross_attentions"]
        ],
        dim=1,
    )
    num_tokens = looked.shape[1]
    beams = outputs.get("beam_indices")
    if beams is None:
        rows = torch.arange(len(looked))
    else:
        # For each token of a sequence, the row of the batch that it was in when it was chosen; -1 after the end
        beams = beams[:, :num_tokens].cpu()
        num_tokens = beams.shape[1]
        looked = looked[beams.clamp(min=0), torch.arange(num_tokens)] * (beams >= 0)[:, :, None]
        rows = beams[:, 0].clamp(min=0)
    return looked, media_index[rows, -1:].expand(-1, num_tokens), rows


def _map(
    looked: torch.Tensor,
    source: ModelOutput,
    name: str,
    rows: torch.Tensor,
    index: torch.Tensor,
    grid: Sequence[int] | None,
) -> torch.Tensor:
    """Multiply where tokens looked, `(B, T, L)`, by the patches of the image `index` `(B, T)` of their row of a source."""
    attentions = source.get("resampler_attentions")
    if not attentions:
        raise ValueError(
            f"{name} has no `resampler_attentions`, so nothing says which patches the latents looked at: latents were passed "
            "without them. Make them with `get_image_features(..., output_cross_attentions=True)`."
        )
    grids = source.get("patch_grid")
    if grid is None:
        if grids is None:
            raise ValueError(
                f"{name} has no `patch_grid`: the features do not tell in which rows and columns they are. Pass "
                "`grid=(frames, rows, columns)`."
            )
        grids = grids.flatten(0, 1).unique(dim=0).tolist()
        if len(grids) > 1:
            raise ValueError(
                f"The images have patches of different frames, rows and columns: {grids}. Their maps do not fit into one tensor: "
                "compute those of one image at a time."
            )
        grid = grids[0]
    elif grids is not None and math.prod(grid) not in (known := grids.flatten(0, 1).prod(dim=-1).unique().tolist()):
        raise ValueError(
            f"`grid` is {tuple(grid)}, {math.prod(grid)} patches, but the images have {', '.join(map(str, known))}: some would be left "
            "out of the map. Leave `grid` out, or pass one of as many."
        )
    frames, height, width = grid
    # Mean over layers and heads: (B, N, heads, L, F * P + L) -> (B, N, L, F * P)
    patches = torch.stack([weights.float().mean(dim=2).cpu() for weights in attentions]).mean(dim=0)
    patches = patches[..., : patches.shape[-1] - patches.shape[-2]]
    if patches.shape[-1] % frames or patches.shape[-1] // frames < height * width:
        raise ValueError(
            f"The grid has {frames} frames of {height} rows and {width} columns, but the latents looked at {patches.shape[-1]} "
            "tokens of the vision encoder. Pass the `grid` of this encoder."
        )
    # Tokens before the patches, such as a class token, have no place in the image.
    patches = patches.unflatten(-1, (frames, -1))[..., -height * width :].flatten(-2)
    patches = patches / patches.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(patches.dtype).tiny)
    maps = looked.new_zeros(*looked.shape[:2], patches.shape[-1])
    for image in range(patches.shape[1]):
        maps = maps + (looked * (index == image + 1)[:, :, None]) @ patches[rows, image]
    return maps.unflatten(-1, (frames, height, width))


def find_patch_grid(
    num_tokens: int, image_size: Sequence[int] | None, patch_size: Any, map_size: Sequence[int] = ()
) -> tuple[int, int] | None:
    """
    Find in how many rows and columns the patches of an image are.

    Args:
        num_tokens (`int`): Number of tokens of a frame.
        image_size (`Sequence[int]`, *optional*): Height and width of the images.
        patch_size (`int` or `Sequence[int]`, *optional*): That of the vision encoder, if it has one.
        map_size (`Sequence[int]`, *optional*): Height and width of the features, if the encoder returns a map.

    Returns:
        Rows and columns, or `None` if nothing tells them.
    """
    if map_size:
        return tuple(map_size)
    if image_size is not None and isinstance(patch_size, int | Sequence) and patch_size:
        patch_height, patch_width = (patch_size, patch_size) if isinstance(patch_size, int) else tuple(patch_size)[-2:]
        rows, columns = image_size[0] // patch_height, image_size[1] // patch_width
        if 0 < rows * columns <= num_tokens:
            return rows, columns
        # Hierarchical encoders, such as Swin, halve the rows and columns in each stage, and round down or up
        for factor in (2**stage for stage in range(1, 7)):
            for grid in ((rows // factor, columns // factor), (-(-rows // factor), -(-columns // factor))):
                if math.prod(grid) == num_tokens:
                    return grid
    side = math.isqrt(num_tokens)
    return (side, side) if side * side == num_tokens else None


def patch_grids(
    features: torch.Tensor,
    vision_config: PreTrainedConfig | None,
    image_size: Sequence[int] | None = None,
    map_size: Sequence[int] = (),
) -> torch.LongTensor | None:
    """
    Find frames, rows and columns of the patches of images: `(B, N, 3)`, or `None` if nothing tells them.

    Args:
        features (`torch.Tensor` of shape `(B, N, F, P, Dv)`): Features of the images.
        vision_config (`PreTrainedConfig`, *optional*): That of the vision encoder.
        image_size (`Sequence[int]`, *optional*): Height and width of the images. The default is that of the configuration.
        map_size (`Sequence[int]`, *optional*): As in [`find_patch_grid`].
    """
    if image_size is None:
        image_size = getattr(vision_config, "image_size", None)
        image_size = (image_size, image_size) if isinstance(image_size, int) else image_size
    backbone = getattr(vision_config, "backbone_config", None)
    patch_size = getattr(vision_config, "patch_stride", None) or getattr(vision_config, "patch_size", None)
    patch_size = patch_size or getattr(backbone, "patch_size", None)
    num_tokens = features.shape[3]
    grid = find_patch_grid(num_tokens, image_size, patch_size, map_size)
    # The tokens of YOLOS that are not patches come after them
    if grid is None or (getattr(vision_config, "model_type", None) == "yolos" and math.prod(grid) != num_tokens):
        return None
    return torch.tensor((features.shape[2], *grid), device=features.device).expand(*features.shape[:2], 3)


def add_seen(
    outputs: ModelOutput,
    attentions: dict[int, torch.Tensor | None],
    image_features: ModelOutput | None,
    media_index: torch.LongTensor,
    config: PreTrainedConfig,
) -> None:
    """
    Add what a call looked at to its outputs, under the names of `SEEN`.

    Args:
        outputs (`ModelOutput`): Those of the language model.
        attentions (`dict[int, torch.Tensor]`): The weights `(B, heads, T, L)` of the gated block before each decoder layer.
        image_features (`FlamingoImageFeatures`, *optional*): The images of this call.
        media_index (`torch.LongTensor` of shape `(B, T)`): Which of them each token sees.
        config ([`FlamingoConfig`]): The configuration of the model.
    """
    shape = (len(media_index), config.cross_attention_num_heads, media_index.shape[1], config.resampler_num_latents)
    outputs["cross_attentions"] = tuple(
        outputs[0].new_zeros(shape) if attentions[layer] is None else attentions[layer] for layer in sorted(attentions)
    )
    outputs["media_index"] = media_index
    if image_features is not None:
        outputs["resampler_attentions"] = image_features.resampler_attentions
        outputs["patch_grid"] = image_features.patch_grid


@dataclass
class GenerationRecord:
    """
    Record what the steps of a `generate()` looked at.

    Args:
        shows (`bool`, *optional*): Whether the steps are asked for it; `None` before that is known.
        num_prompt_tokens (`int`): Length of the prompt, without what a cache holds of it.
        steps (`list`): For each generated token, the weights `(B, heads, T, L)` of each block.
        prompt (`dict`): What the first step knows of the images, by the names of `SEEN`.
    """

    shows: bool | None = None
    num_prompt_tokens: int = 0
    steps: list[tuple[torch.Tensor, ...]] = field(default_factory=list)
    prompt: dict[str, Any] = field(default_factory=dict)

    def append(self, outputs: ModelOutput, num_new_tokens: int) -> None:
        """Keep what a step looked at that chose `num_new_tokens` tokens: several in assisted decoding."""
        attentions = outputs.get("cross_attentions")
        if not attentions:
            return
        is_first = not self.steps
        if is_first:
            self.prompt = {name: outputs[name] for name in SEEN[1:] if outputs.get(name) is not None}
        # As the stock method splits its own: a step for the prompt, then one for each accepted token. Candidates of assisted
        # decoding that were not accepted follow. Without a cache a step has the whole text.
        length = 1 if outputs.get("cache") is not None else attentions[0].shape[2]
        start = self.num_prompt_tokens if is_first else length
        self.steps.append(tuple(weights[:, :, :start] for weights in attentions))
        for token in range(start, start + num_new_tokens - 1):
            self.steps.append(tuple(weights[:, :, token : token + 1] for weights in attentions))

    def add_to(self, outputs: Any) -> None:
        """Add what was recorded to the outputs of `generate()`, which are a tensor if nothing but tokens was asked for."""
        if self.steps and isinstance(outputs, ModelOutput):
            # Steps that generate() took back, because it looks late for the end of the texts, are not among its own
            num_steps = len(outputs.get("attentions") or self.steps)
            outputs["cross_attentions"] = tuple(self.steps[:num_steps])
            for name, value in self.prompt.items():
                outputs[name] = value


# Set around one call of `generate()`, in the thread of that call.
_current_record: ContextVar[GenerationRecord | None] = ContextVar("flamingo_generation_record", default=None)


@contextmanager
def record_generation() -> Iterator[GenerationRecord]:
    """Record what the steps of a `generate()` look at, if they are asked for it."""
    token = _current_record.set(GenerationRecord())
    try:
        yield _current_record.get()
    finally:
        _current_record.reset(token)


def current_record() -> GenerationRecord:
    """Return the record of the `generate()` that calls, or one that nobody reads."""
    return _current_record.get() or GenerationRecord()
