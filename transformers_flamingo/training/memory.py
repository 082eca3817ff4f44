# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Estimate the memory and the FLOP of a training step on each GPU, without weights and without a GPU.

A step runs on fake tensors ([`CostCounter`]), so activations and FLOP are those of the code that trains. What several GPUs divide among
them, and what they hold to talk to each other, is computed from sizes.
"""

import functools
from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from ..configuration_flamingo import FlamingoConfig
from ..modeling_flamingo import FlamingoModel
from ..utils.memory import (
    CostCounter,
    FakeModels,
    build_without_weights,
    check_counts,
    count_bytes,
    count_costs,
    encode_images,
    make_images,
    make_text,
    tensors_of,
)
from .adapters import lora_config
from .sharding import sharding_units


Sharding = Literal["ddp", "fsdp2", "zero3"]
Optimizer = Literal["adamw", "adamw_8bit", "sgd"]
Quantization = Literal["4bit", "8bit"]

# Bytes of the state for each trained number: two of float32; two of 8 bits, with a float32 for each 256; none
STATE_BYTES: dict[str, float] = {"adamw": 8, "adamw_8bit": 2 + 2 * 4 / 256, "sgd": 0}
# Bytes of a quantized number: 4 bits with a float32 for each 64 (NF4, no double quantization); 8 bits
QUANTIZED_BYTES: dict[str, float] = {"4bit": 0.5 + 4 / 64, "8bit": 1}
# Defaults of DeepSpeed: `stage3_max_live_parameters`, and `reduce_bucket_size`
ZERO3_LIVE_PARAMETERS = 1_000_000_000
ZERO3_BUCKET = 500_000_000


@dataclass(frozen=True)
class TrainingMemory:
    """
    Bytes and FLOP of a training step on each GPU.

    Args:
        num_gpus (`int`): Number of GPUs.
        weights (`int`): All weights, frozen ones too.
        gradients (`int`): Gradients of the trained weights, when all are complete.
        optimizer (`int`): State of the optimizer, and the trained weights in float32 where it has its own.
        activations (`int`): Peak of all other tensors: the batch, what backward needs, and what operations make in between.
        buffers (`int`): What GPUs hold to communicate, and a matrix in full precision where it is kept in fewer bits.
        total (`int`):
            The peak of the whole. It is at most the sum of the parts, because gradients are completed while activations are freed.
        flops (`int`): FLOP of a step of this GPU as it is executed: those that checkpointing repeats count twice.
    """

    num_gpus: int
    weights: int
    gradients: int
    optimizer: int
    activations: int
    buffers: int
    total: int
    flops: int

    def steps_per_day(self, peak_flops: float, utilization: float) -> float:
        """
        Return the number of steps in 24 hours.

        Args:
            peak_flops (`float`): FLOP per second of a GPU at best, such as 989e12 of an H100 in bfloat16 without sparsity.
            utilization (`float`): Share of it that a training reaches, such as 0.4.

        Raises:
            ValueError: a number is not above 0, or the share above 1.
        """
        if not peak_flops > 0 or not 0 < utilization <= 1:
            raise ValueError(
                f"`peak_flops` is {peak_flops} and `utilization` {utilization}. Give FLOP per second above 0, and a share from 0 to 1."
            )
        return 86_400 * utilization * peak_flops / self.flops


def estimate_training_memory(
    config: FlamingoConfig,
    *,
    batch_size: int = 8,
    num_images: int = 5,
    text_length: int = 256,
    num_gpus: int = 1,
    sharding: Sharding = "ddp",
    dtype: torch.dtype = torch.bfloat16,
    trained_dtype: torch.dtype = torch.float32,
    optimizer: Optimizer = "adamw",
    activation_checkpointing: bool = False,
    gradient_accumulation_steps: int = 1,
    quantization: Quantization | None = None,
    cached_features: bool = False,
    train_vision: bool = False,
    train_text: bool = False,
    train_token_embeddings: bool = True,
    lora_rank: int | None = None,
) -> TrainingMemory:
    """
    Estimate the memory of a training step on each GPU. No weights are made or read.

    What it does not know of: the context of CUDA and the buffers of NCCL (one to two GiB together), what the allocator wastes, and
    memory inside of kernels.

    Args:
        config ([`FlamingoConfig`]): The model.
        batch_size (`int`, *optional*, defaults to 8): Number of texts in a micro-batch of one GPU, `B`.
        num_images (`int`, *optional*, defaults to 5): Number of images of each text, `N`.
        text_length (`int`, *optional*, defaults to 256): Number of tokens of each text, `T`. All are supervised.
        num_gpus (`int`, *optional*, defaults to 1): Number of GPUs.
        sharding (`str`, *optional*, defaults to `"ddp"`):
            `"ddp"`: a copy of the model on each GPU. `"fsdp2"`: weights, gradients and state sharded by [`shard_model`]. `"zero3"`: by
            DeepSpeed. It has no effect on one GPU.
        dtype (`torch.dtype`, *optional*, defaults to `torch.bfloat16`): Type of the frozen weights.
        trained_dtype (`torch.dtype`, *optional*, defaults to `torch.float32`):
            Type of the trained weights. If it is another one, the step runs under `torch.autocast` to `dtype`.
        optimizer (`str`, *optional*, defaults to `"adamw"`): `"adamw"`, `"adamw_8bit"` or `"sgd"` (without momentum).
        activation_checkpointing (`bool`, *optional*, defaults to `False`): Whether layers are computed once more in backward.
        gradient_accumulation_steps (`int`, *optional*, defaults to 1): Micro-batches of an optimizer step.
        quantization (`str`, *optional*): `"4bit"` or `"8bit"`: the linear layers of the frozen language model, except its head.
        cached_features (`bool`, *optional*, defaults to `False`): Whether features are read instead of pixels.
        train_vision, train_text (`bool`, *optional*, defaults to `False`): Whether the backbones are trained.
        train_token_embeddings (`bool`, *optional*, defaults to `True`): See [`~FlamingoModel.freeze_backbones`].
        lora_rank (`int`, *optional*): Rank of LoRA adapters on the language model ([`lora_config`]).

    Returns:
        [`TrainingMemory`]

    Raises:
        ValueError: a number is too small, a name is unknown, or the arguments contradict each other.
    """
    _check_choices(sharding, optimizer, quantization)
    check_counts(num_gpus=num_gpus, gradient_accumulation_steps=gradient_accumulation_steps)
    if train_text and (quantization is not None or lora_rank is not None):
        raise ValueError(
            "`train_text` trains the weights of the language model, which `quantization` and `lora_rank` keep frozen. Remove one of them."
        )
    if not train_token_embeddings and (train_text or lora_rank is not None):
        raise ValueError(
            "`train_token_embeddings` is false, but the language model or its adapters are trained, whose gradient runs through all layers "
            "anyway. Remove it, or `train_text` and `lora_rank`."
        )
    if cached_features and train_vision:
        raise ValueError(
            "`train_vision` trains the encoder whose features `cached_features` keeps. Remove one of them."
        )
    if quantization is not None and num_gpus > 1 and sharding != "ddp":
        raise ValueError(
            f"`quantization` is {quantization!r}, and quantized weights are not sharded. Use `sharding='ddp'`."
        )
    is_sharded = num_gpus > 1 and sharding != "ddp"
    flamingo, costs = _run_step(
        _Step(
            config_text=config.to_json_string(),
            config=config,
            batch_size=batch_size,
            num_images=num_images,
            text_length=text_length,
            dtype=dtype,
            # Sharded weights are gathered in the type that computes, so nothing casts them
            trained_dtype=dtype if is_sharded else trained_dtype,
            feature_dtype=torch.float32 if torch.float32 == dtype == trained_dtype else torch.float16,
            activation_checkpointing=activation_checkpointing,
            cached_features=cached_features,
            train_vision=train_vision,
            train_text=train_text,
            train_token_embeddings=train_token_embeddings,
            lora_rank=lora_rank,
        )
    )
    weights = _WeightSizes(
        flamingo, num_gpus if is_sharded else 1, by_rows=sharding == "fsdp2", dtype=dtype, quantization=quantization
    )
    num_trained = weights.trained
    state_bytes = STATE_BYTES[optimizer] * (trained_dtype.itemsize / 4 if optimizer == "adamw" else 1)
    weight_bytes, gradient_bytes = trained_dtype.itemsize, trained_dtype.itemsize
    buffers = weights.dequantized
    if is_sharded and sharding == "fsdp2":
        buffers += weights.gathered
    elif is_sharded:
        # As DeepSpeed counts: 2 bytes of the weight, 4 of its gradient, and 4 of the weight in float32 with the state
        weight_bytes, gradient_bytes, state_bytes = dtype.itemsize, 4, 4 + state_bytes
        buffers += min(weights.num_parameters, ZERO3_LIVE_PARAMETERS) * dtype.itemsize
        buffers += min(weights.num_trained, ZERO3_BUCKET) * dtype.itemsize
    elif num_gpus > 1:
        buffers += num_trained * gradient_bytes  # the buckets that DDP reduces
    gradients = num_trained * gradient_bytes
    if gradient_accumulation_steps > 1:
        peak = costs.peak(0) + gradients  # those of the micro-batches before it
    else:
        peak = costs.peak(gradients / max(1, costs.gradients))
    states = round(num_trained * state_bytes)
    total_weights = weights.frozen + num_trained * weight_bytes
    return TrainingMemory(
        num_gpus=num_gpus,
        weights=total_weights,
        gradients=gradients,
        optimizer=states,
        activations=costs.peak(0),
        buffers=buffers,
        total=total_weights + states + buffers + peak,
        flops=costs.flops * gradient_accumulation_steps,
    )


def _check_choices(sharding: str, optimizer: str, quantization: str | None) -> None:
    """Check that all names are known."""
    for name, value, known in (
        ("sharding", sharding, get_args(Sharding)),
        ("optimizer", optimizer, get_args(Optimizer)),
        ("quantization", quantization, (None, *get_args(Quantization))),
    ):
        if value not in known:
            raise ValueError(f"`{name}` is {value!r}. It can be {', '.join(map(repr, known))}.")


class _WeightSizes:
    """
    The sizes of the weights on one GPU of `num_shards` that divide them.

    Args:
        model ([`FlamingoModel`]): The model, frozen as it will be trained.
        num_shards (`int`): Number of GPUs that divide the weights; 1: each has all.
        by_rows (`bool`): Whether whole rows of each weight are divided, as FSDP2 does, and so the first GPU has the most.
        dtype (`torch.dtype`): Type that computes.
        quantization (`str`, *optional*): Of the language model.

    Attributes:
        trained (`int`): Number of the trained weights of this GPU.
        frozen (`int`): Bytes of the frozen weights and the buffers of this GPU.
        dequantized (`int`): Bytes of the largest quantized matrix in `dtype`.
        gathered (`int`): Bytes that FSDP2 holds of the weights and gradients of other GPUs.
        num_parameters, num_trained (`int`): Numbers of all weights and of the trained ones on all GPUs.
    """

    def __init__(
        self,
        model: FlamingoModel,
        num_shards: int,
        *,
        by_rows: bool,
        dtype: torch.dtype,
        quantization: Quantization | None,
    ):
        def shard(parameter: torch.Tensor) -> int:
            if not by_rows or parameter.ndim == 0:
                return -(-parameter.numel() // num_shards)
            return -(-len(parameter) // num_shards) * parameter[0].numel()

        quantized = set() if quantization is None else set(_find_quantized(model))
        parameters = list(model.parameters())
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        frozen = [parameter for parameter in parameters if not parameter.requires_grad]
        self.num_trained = sum(parameter.numel() for parameter in trained)
        self.num_parameters = sum(parameter.numel() for parameter in parameters)
        self.trained = sum(map(shard, trained))
        self.frozen = count_bytes(*model.buffers())
        for parameter in frozen:
            size = QUANTIZED_BYTES[quantization] if parameter in quantized else parameter.itemsize
            self.frozen += round(shard(parameter) * size)
        self.dequantized = max((parameter.numel() for parameter in quantized), default=0) * dtype.itemsize
        self.gathered = self._count_gathered(model) * dtype.itemsize

    @staticmethod
    def _count_gathered(model: FlamingoModel) -> int:
        """
        Count the numbers that FSDP2 gathers at once.

        The embeddings and the head are there as long as the language model runs. Of its layers and the gated blocks there are two, one of
        which computes while the next is gathered, and the message that the first came in. In backward there are the gradients of a
        trained unit and the message to reduce them. The vision encoder is gathered by itself, before.
        """
        sizes, seen = {}, set()
        for unit in sharding_units(model):
            own = [parameter for parameter in unit.parameters() if parameter not in seen]
            seen.update(own)
            sizes[unit] = sum(p.numel() for p in own), sum(p.numel() for p in own if p.requires_grad)
        whole, _ = sizes.pop(model.language_model)
        vision, _ = sizes.pop(model.vision_model, (0, 0))
        text = whole + 3 * max(size for size, _ in sizes.values()) + 2 * max(trained for _, trained in sizes.values())
        return max(text, 2 * vision)


def _find_quantized(model: FlamingoModel) -> list[nn.Parameter]:
    """Return the weights that bitsandbytes quantizes: of the linear layers of the language model, except its head."""
    head = model.get_output_embeddings()
    return [
        module.weight
        for module in model.language_model.modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head and not module.weight.requires_grad
    ]


@dataclass(frozen=True)
class _Step:
    """Hold what decides the tensors of a step: see [`estimate_training_memory`]. Steps of equal configurations are equal."""

    config_text: str
    config: FlamingoConfig = field(compare=False)
    batch_size: int
    num_images: int
    text_length: int
    dtype: torch.dtype
    trained_dtype: torch.dtype
    feature_dtype: torch.dtype
    activation_checkpointing: bool
    cached_features: bool
    train_vision: bool
    train_text: bool
    train_token_embeddings: bool
    lora_rank: int | None


@functools.lru_cache(maxsize=8)  # a step takes seconds, and is the same for any number of GPUs
def _run_step(step: _Step) -> tuple[FlamingoModel, CostCounter]:
    """Run a forward and a backward pass as `Trainer` does, and return the model and the costs."""
    fakes = FakeModels()
    flamingo = build_without_weights(step.config, step.dtype)
    model = _freeze(fakes, flamingo, step)
    images = make_images(fakes, flamingo, step.batch_size, step.num_images)
    if step.cached_features:
        images = encode_images(images, fakes, flamingo, step.feature_dtype)
    input_ids = make_text(step.config, step.batch_size, step.num_images, step.text_length)
    if step.activation_checkpointing:
        flamingo.activation_checkpointing_enable()
    with count_costs() as costs:
        costs.exclude(*model.parameters(), *model.buffers())
        costs.count(input_ids, *tensors_of(images))
        costs.hold_gradients(model)
        with torch.autocast("cpu", step.dtype, enabled=step.trained_dtype != step.dtype):
            loss = model(input_ids=input_ids, labels=input_ids, **images).loss
        loss.backward()
    return flamingo, costs


def _freeze(fakes: FakeModels, flamingo: FlamingoModel, step: _Step) -> nn.Module:
    """Freeze a model as [`build_model`] does, and give it fake weights: trained ones of `trained_dtype`, except the rows of an embedding."""
    trained: list[nn.Module] = [flamingo.resampler, flamingo.gated_cross_attention]
    trained += [flamingo.vision_model] if step.train_vision and flamingo.vision_model is not None else []
    trained += [flamingo.language_model] if step.train_text else []
    for part in trained:
        part.to(step.trained_dtype)
    if step.lora_rank is not None:
        from peft import get_peft_model

        with torch.device("meta"):
            adapters = lora_config(flamingo, r=step.lora_rank, lora_alpha=2 * step.lora_rank)
            model = get_peft_model(flamingo, adapters).train()
        fakes.fill(model)
        return model
    fakes.fill(flamingo)
    flamingo.freeze_backbones(train_token_embeddings=step.train_token_embeddings)
    flamingo.unfreeze_backbones(vision_model=step.train_vision, language_model=step.train_text)
    return flamingo.train()
