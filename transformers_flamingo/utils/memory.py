# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Run a model without weights, and count the bytes that its tensors would take.

The model is the real one and runs its real code, on fake tensors: they have a shape and a data type, and no values. Only the small
inputs that decide shapes (token ids and masks) are real. Each operation says which memory it makes, and the garbage collector which
memory is freed, so the peak is that of the allocator without its rounding. `training/memory.py` has the estimate of a training.

Shapes: `B` batch, `N` images per sample, `T` text length, `P` patches, `L` latents, `Dv` vision width.
"""

import copy
import warnings
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry, sdpa_backward_flop_count, sdpa_flop_count, shape_wrapper
from transformers.cache_utils import Cache

from ..configuration_flamingo import FlamingoConfig
from ..media_cache_flamingo import MediaCacheLayer
from ..modeling_flamingo import FlamingoModel


# Patches of an image, for a model that gets features instead of pixels: 16 x 16, as of 224 pixels in patches of 14
NUM_PATCHES = 256


# FLOP by the shapes of the fused attention of a CPU, for which torch has no formula: `custom_mapping` of `FlopCounterMode`
CPU_ATTENTION: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: (
        lambda query, key, value, *args, **kwargs: sdpa_flop_count(query, key, value)
    ),
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: (
        lambda gradient, query, key, value, *args, **kwargs: sdpa_backward_flop_count(gradient, query, key, value)
    ),
}
# The formulas of all operations, which get tensors
FORMULAS: dict[Any, Callable[..., int]] = {
    **flop_registry,
    **{operation: shape_wrapper(formula) for operation, formula in CPU_ATTENTION.items()},
}


class CostCounter(TorchDispatchMode):
    """
    Count the FLOP of operations, and the bytes of the tensors that they make, until these are freed.

    Attributes:
        flops (`int`): FLOP of all products and convolutions, by torch's own formulas.
        activations, gradients (`int`): Bytes that are in use now. All that is not a complete gradient is among the activations.
        peaks (`list[tuple[int, int]]`): Activations and gradients, whenever one of them has grown.
    """

    def __init__(self):
        super().__init__()
        self.flops = self.activations = self.gradients = 0
        self.peaks: list[tuple[int, int]] = [(0, 0)]
        self._sizes: dict[int, int] = {}  # of the memory that is counted among the activations
        self._references: dict[int, weakref.ref] = {}

    def count(self, *tensors: torch.Tensor) -> None:
        """Count tensors that exist already, such as inputs."""
        for tensor in tensors:
            self._add(tensor, tensor.untyped_storage().nbytes())

    def exclude(self, *tensors: torch.Tensor) -> None:
        """Do not count tensors that exist already, such as weights."""
        for tensor in tensors:
            self._add(tensor, 0)

    def hold_gradients(self, model: nn.Module) -> None:
        """Count the gradients of a model as such, each from when it is complete. They stay until the next step."""
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(self._hold_gradient)

    def peak(self, gradient_share: float = 1.0) -> int:
        """Return the largest sum of activations and of a share of the gradients, which may be sharded, at one moment."""
        return max(round(activations + gradient_share * gradients) for activations, gradients in self.peaks)

    def _add(self, tensor: torch.Tensor, num_bytes: int) -> None:
        storage = tensor.untyped_storage()
        key = id(storage)
        if key in self._references:
            return
        self._references[key] = weakref.ref(storage, lambda _: self._free(key))
        self._sizes[key] = num_bytes
        self.activations += num_bytes
        if num_bytes > 0:
            self.peaks.append((self.activations, self.gradients))

    def _free(self, key: int) -> None:
        del self._references[key]
        self.activations -= self._sizes.pop(key)

    def _hold_gradient(self, parameter: nn.Parameter) -> None:
        key = id(parameter.grad.untyped_storage())
        num_bytes, self._sizes[key] = self._sizes[key], 0
        self.activations -= num_bytes
        self.gradients += num_bytes

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        is_question = function is torch.ops.aten._local_scalar_dense.default
        if is_question and isinstance(args[0], FakeTensor) and args[0].dtype is torch.bool:
            return True  # the one question that the model asks about values: whether pixels or features are finite
        result = function(*args, **(kwargs or {}))
        formula = FORMULAS.get(function.overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=result)
        for tensor in tensors_of(result):
            self._add(tensor, tensor.untyped_storage().nbytes())
        return result


class FakeModels:
    """
    Make weights and tensors without values. Real tensors may be mixed with them.

    They are on "cpu", as the inputs whose values the model reads. There `scaled_dot_product_attention` does not keep its weights for
    backward, as on an accelerator, and unlike on "meta".
    """

    def __init__(self):
        self.mode = FakeTensorMode(allow_non_fake_inputs=True)

    def fill(self, model: nn.Module) -> None:
        """Replace the weights of a model on "meta" by fake ones. Those that modules share stay shared."""
        made: dict[torch.Tensor, torch.Tensor] = {}
        for module in model.modules():
            for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False)):
                if parameter not in made:
                    values = self.empty(*parameter.shape, dtype=parameter.dtype)
                    made[parameter] = nn.Parameter(values, requires_grad=parameter.requires_grad)
                module.register_parameter(name, made[parameter])
            for name, buffer in list(module.named_buffers(recurse=False)):
                module.register_buffer(name, self.empty(*buffer.shape, dtype=buffer.dtype))

    def empty(self, *shape: int, dtype: torch.dtype) -> torch.Tensor:
        """Make a tensor."""
        with self.mode:
            return torch.empty(shape, dtype=dtype)


def build_without_weights(config: FlamingoConfig, dtype: torch.dtype) -> FlamingoModel:
    """Build a model on "meta", in evaluation mode."""
    with torch.device("meta"):
        return FlamingoModel(copy.deepcopy(config)).to(dtype).eval()


@contextmanager
def count_costs() -> Iterator[CostCounter]:
    """Count the memory of what is computed in the block."""
    with warnings.catch_warnings():
        # The trained rows of a frozen embedding compare addresses, which fake tensors do not have
        warnings.filterwarnings("ignore", "Accessing the data pointer of FakeTensor")
        with CostCounter() as costs:
            yield costs


def make_text(config: FlamingoConfig, batch_size: int, num_images: int, text_length: int) -> torch.LongTensor:
    """
    Make token ids `(B, T)` in which `num_images` markers are at equal distances.

    Raises:
        ValueError: there is no text, or it is shorter than its markers.
    """
    if batch_size < 1 or num_images < 0 or text_length < max(1, num_images):
        raise ValueError(
            f"`batch_size` is {batch_size}, `text_length` {text_length} and `num_images` {num_images}, but there must be at least one "
            "text, and one token for the marker of each image."
        )
    input_ids = torch.full((batch_size, text_length), _find_word(config))
    input_ids[:, torch.arange(num_images) * text_length // max(num_images, 1)] = config.image_token_id
    return input_ids


def _find_word(config: FlamingoConfig) -> int:
    """Return a token that is not a special one."""
    special = {config.image_token_id, config.end_of_chunk_token_id, *(config.image_token_ids or ())}
    return next(token_id for token_id in range(len(special) + 1) if token_id not in special)


def make_images(fakes: FakeModels, model: FlamingoModel, batch_size: int, num_images: int) -> dict[str, Any]:
    """
    Make `B * N` images as arguments of `forward`: pixels, or features for a model without a vision encoder.

    Args:
        fakes ([`FakeModels`]): Makes the tensors.
        model ([`FlamingoModel`]): The model.
        batch_size, num_images (`int`): `B` and `N`.
    """
    if num_images == 0:
        return {}
    mask = torch.ones(batch_size, num_images, dtype=torch.long)
    if model.vision_model is None:
        width, dtype = model.config.vision_hidden_size, model.language_model.dtype
        features = fakes.empty(batch_size, num_images, NUM_PATCHES, width, dtype=dtype)
        return {"mm_encoder_outputs": {"image": {"last_hidden_state": features}}, "frame_attention_mask": mask}
    size = getattr(model.config.vision_config, "image_size", None) or 224
    height, width = (size, size) if isinstance(size, int) else size
    pixels = fakes.empty(batch_size, num_images, 3, height, width, dtype=torch.float32)
    return {"pixel_values": pixels, "frame_attention_mask": mask}


def encode_images(
    images: dict[str, Any], fakes: FakeModels, model: FlamingoModel, dtype: torch.dtype
) -> dict[str, Any]:
    """
    Replace pixels by the features that the vision encoder makes of them, as training does with `cache_features`.

    Args:
        images (`dict`): Of [`make_images`].
        fakes ([`FakeModels`]): Makes the tensors.
        model ([`FlamingoModel`]): The model.
        dtype (`torch.dtype`): Type of the features.
    """
    if "pixel_values" not in images:
        return images
    pixels, mask = images["pixel_values"], images["frame_attention_mask"]
    with torch.no_grad(), count_costs():
        features = model.get_image_features(pixels[:1, :1], mask[:1, :1]).last_hidden_state  # (1, 1, P, Dv)
    features = fakes.empty(*mask.shape, *features.shape[2:], dtype=dtype)
    return {"mm_encoder_outputs": {"image": {"last_hidden_state": features}}, "frame_attention_mask": mask}


def check_counts(**counts: int) -> None:
    """
    Check arguments of an estimate.

    Raises:
        ValueError: one of them is below 1.
    """
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"`{name}` is {count}, but it must be at least 1.")


def tensors_of(values: Any) -> list[torch.Tensor]:
    """Return the tensors in nested dicts, lists and tuples."""
    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def count_bytes(*tensors: torch.Tensor) -> int:
    """Return the bytes of the memory that tensors have, counting memory that they share once."""
    storages = {id(tensor.untyped_storage()): tensor.untyped_storage().nbytes() for tensor in tensors}
    return sum(storages.values())


@dataclass(frozen=True)
class InferenceMemory:
    """
    Bytes of a generation on one device.

    Args:
        weights (`int`): The weights.
        prefill (`int`): Peak of all else while the prompt is read, with the cache that it leaves.
        cache_per_token (`int`): Cache of one token of one sequence. A beam is a sequence.
        media_cache (`int`): Cache of the last image of a prompt, whatever the numbers of images, tokens and beams.
        latents_per_image (`int`): Latents of an image, which can be kept instead of the image.
        cache (`int`): The cache at the last token, of all sequences.
        total (`int`): The peak of the whole.
    """

    weights: int
    prefill: int
    cache_per_token: int
    media_cache: int
    latents_per_image: int
    cache: int
    total: int


def estimate_inference_memory(
    config: FlamingoConfig,
    *,
    batch_size: int = 1,
    num_images: int = 1,
    text_length: int = 256,
    max_new_tokens: int = 32,
    num_beams: int = 1,
    dtype: torch.dtype = torch.bfloat16,
) -> InferenceMemory:
    """
    Estimate the memory of `generate()`. No weights are made or read.

    Args:
        config ([`FlamingoConfig`]): The model.
        batch_size (`int`, *optional*, defaults to 1): Number of prompts, `B`.
        num_images (`int`, *optional*, defaults to 1): Number of images of each prompt, `N`: 33 for 32 shots and a query.
        text_length (`int`, *optional*, defaults to 256): Number of tokens of each prompt, `T`.
        max_new_tokens (`int`, *optional*, defaults to 32): Number of tokens that are generated.
        num_beams (`int`, *optional*, defaults to 1): Number of beams.
        dtype (`torch.dtype`, *optional*, defaults to `torch.bfloat16`): Type of the weights.

    Returns:
        [`InferenceMemory`]

    Raises:
        ValueError: a number is too small.
    """
    check_counts(max_new_tokens=max_new_tokens, num_beams=num_beams)
    fakes = FakeModels()
    model = build_without_weights(config, dtype)
    fakes.fill(model)
    input_ids = make_text(config, batch_size, num_images, text_length)
    images = make_images(fakes, model, batch_size, num_images)
    weights = count_bytes(*model.parameters(), *model.buffers())
    with torch.no_grad(), count_costs() as costs:
        costs.exclude(*model.parameters(), *model.buffers())
        costs.count(input_ids, *tensors_of(images))
        cache = model(input_ids=input_ids, use_cache=True, logits_to_keep=1, **images).cache
        prefill = costs.peak()
        text_cache, media_cache = _count_cache(cache)
        if num_beams > 1:
            cache.batch_repeat_interleave(num_beams)
        word = torch.full((batch_size * num_beams, 1), _find_word(config))
        model(input_ids=word, cache=cache, use_cache=True)
        peak = costs.peak()
    num_sequences = batch_size * num_beams
    per_token = text_cache // (batch_size * text_length)
    return InferenceMemory(
        weights=weights,
        prefill=prefill,
        cache_per_token=per_token,
        media_cache=media_cache // batch_size,
        latents_per_image=config.resampler_num_latents * config.vision_hidden_size * dtype.itemsize,
        cache=per_token * num_sequences * (text_length + max_new_tokens) + media_cache,
        total=weights + max(prefill, peak + per_token * num_sequences * (max_new_tokens - 1)),
    )


def _count_cache(cache: Cache) -> tuple[int, int]:
    """Return the bytes of the keys and values of the text, and of those of the last images."""
    sizes = {True: 0, False: 0}
    for layer in cache.layers:
        sizes[isinstance(layer, MediaCacheLayer)] += count_bytes(*tensors_of((layer.keys, layer.values)))
    return sizes[False], sizes[True]
