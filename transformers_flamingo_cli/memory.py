# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""`flamingo memory`: estimate what a training or a generation takes on each GPU."""

import argparse
import os
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from .parsing import UsageError, add_fields, check_range, read_fields


if TYPE_CHECKING:
    from transformers_flamingo import FlamingoConfig


HELP = "Estimate the memory of a training or a generation, and its speed. No weights are read, and no GPU is needed."
# Options of one of the two estimates, which the other would ignore
OF_TRAINING = (
    "peak_tflops",
    "gpus",
    "sharding",
    "activation_checkpointing",
    "quantization",
    "lora_rank",
    "cache_features",
    "optimizer",
    "trained_dtype",
    "train_vision",
    "train_text",
    "train_token_embeddings",
)
OF_INFERENCE = ("new_tokens", "beams")
# Not counted: the context of CUDA, the buffers of NCCL, and what the allocator wastes
RESERVED_GIB = 3


@dataclass(kw_only=True)
class MemoryArguments:
    """
    Arguments of `flamingo memory`.

    Args:
        source (`str`): A shape (`"1b"`, `"3b"`, `"9b"`, `"80b"`), that of a recipe (`"caption"`, `"lora"`), or a saved Flamingo.
        inference (`bool`, *optional*, defaults to `False`): Whether a generation is estimated instead of a training.
        gpu_memory (`float`, *optional*): GiB of a GPU, to say whether it fits.
        peak_tflops (`float`, *optional*): TFLOP per second of a GPU at best, to say how many steps a day has.
        utilization (`float`, *optional*, defaults to 0.4): Share of it that a training reaches.
        batch_size, images, text_length (`int`, *optional*): Texts on one GPU, images of each, and tokens of each.
        gpus, sharding, activation_checkpointing, quantization, lora_rank, cache_features, optimizer, train_vision, train_text,
        train_token_embeddings, trained_dtype:
            Of a training: see [`estimate_training_memory`].
        dtype (`str`, *optional*, defaults to `"bfloat16"`): Type of the weights that are not trained.
        new_tokens, beams (`int`, *optional*): Of a generation.

    Raises:
        ValueError: a number is out of its range, or an option would have no effect.
    """

    source: str
    inference: bool = field(default=False, metadata={"help": "Estimate a generation instead of a training."})
    gpu_memory: float | None = field(default=None, metadata={"help": "GiB of a GPU, to be told whether it fits."})
    peak_tflops: float | None = field(
        default=None,
        metadata={"help": "TFLOP per second of a GPU at best, such as 989 of an H100, to be told the steps of a day."},
    )
    utilization: float = field(default=0.4, metadata={"help": "Share of these that the training reaches."})
    batch_size: int = field(default=8, metadata={"help": "Number of texts on each GPU."})
    images: int = field(default=5, metadata={"help": "Number of images of each text."})
    text_length: int = field(default=256, metadata={"help": "Number of tokens of each text."})
    dtype: Literal["bfloat16", "float16", "float32"] = field(
        default="bfloat16", metadata={"help": "Type of the weights that are not trained."}
    )
    gpus: int = field(default=1, metadata={"help": "Number of GPUs."})
    sharding: Literal["ddp", "fsdp2", "zero3"] = field(
        default="ddp",
        metadata={"help": "What they divide: ddp nothing, fsdp2 and zero3 weights, gradients and optimizer."},
    )
    activation_checkpointing: bool = field(default=False, metadata={"help": "Compute layers once more in backward."})
    quantization: Literal["4bit", "8bit"] | None = field(
        default=None, metadata={"help": "Keep the frozen language model in 4 or 8 bits."}
    )
    lora_rank: int | None = field(default=None, metadata={"help": "Rank of LoRA adapters on the language model."})
    cache_features: bool = field(default=False, metadata={"help": "Read kept features instead of images."})
    optimizer: Literal["adamw", "adamw_8bit", "sgd"] = field(default="adamw", metadata={"help": "The optimizer."})
    trained_dtype: Literal["bfloat16", "float16", "float32"] = field(
        default="float32", metadata={"help": "Type of the weights that are trained."}
    )
    train_vision: bool = field(default=False, metadata={"help": "Train the vision encoder too."})
    train_text: bool = field(default=False, metadata={"help": "Train the language model too."})
    train_token_embeddings: bool = field(
        default=True,
        metadata={"help": "Train the embeddings of the tokens that mark an image and the end of a chunk."},
    )
    new_tokens: int = field(default=32, metadata={"help": "With --inference: number of tokens that are generated."})
    beams: int = field(default=1, metadata={"help": "With --inference: number of beams."})

    def __post_init__(self):
        for name in ("batch_size", "text_length", "gpus", "lora_rank", "new_tokens", "beams"):
            check_range(self, name, 1)
        check_range(self, "images", 0)
        defaults = {field.name: field.default for field in fields(self)}
        unused = [
            name for name in (OF_TRAINING if self.inference else OF_INFERENCE) if getattr(self, name) != defaults[name]
        ]
        if unused:
            of, instead = ("training", "without") if self.inference else ("generation", "with")
            raise ValueError(
                f"{' and '.join(f'`{name}`' for name in unused)} would have no effect: give what is only of a {of} {instead} `inference`."
            )
        if self.gpus == 1 and self.sharding != "ddp":
            raise ValueError(
                f"`sharding` is {self.sharding!r}, but there is one GPU, so nothing is divided. Give `gpus`, too."
            )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the model and the options."""
    parser.add_argument(
        "source",
        metavar="SHAPE_OR_MODEL",
        help="1b, 3b, 9b or 80b; caption or lora, which are the shapes of these recipes; or a saved Flamingo.",
    )
    add_fields(parser, MemoryArguments, exclude=["source"])


def run(arguments: argparse.Namespace) -> None:
    """Print the estimate."""
    options = read_fields(MemoryArguments, arguments)

    from transformers_flamingo.training.shapes import SHAPES, shape_config
    from transformers_flamingo.utils.loading import check_name, read_flamingo_config

    if options.source in SHAPES:
        config = shape_config(options.source)
        print(f"{options.source}: {SHAPES[options.source][0]}")
    elif "/" not in options.source and not os.path.exists(options.source):
        raise UsageError(
            f"There is no shape and no folder {options.source!r}. Shapes are {', '.join(SHAPES)}; a model is a folder, or OWNER/NAME"
        )
    else:
        check_name(options.source)
        config = read_flamingo_config(options.source)
    try:
        lines, peak = (_estimate_inference if options.inference else _estimate_training)(config, options)
    except ValueError as error:
        raise UsageError(str(error)) from error
    batch = f"{options.batch_size} texts of {options.text_length} tokens and {options.images} images"
    lines.insert(0, ("batch on each GPU", f"    {batch}"))
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        print(f"{name:<{width}}  {value}")
    if options.gpu_memory is not None:
        needed = peak + RESERVED_GIB
        verb = "fits" if needed <= options.gpu_memory else "does not fit"
        print(
            f"It {verb} in {options.gpu_memory:g} GiB: {peak:.1f} GiB, and about {RESERVED_GIB} for the context of CUDA, the buffers of "
            "NCCL and what the allocator wastes."
        )


def _gib(number: float) -> str:
    return f"{number / 2**30:8.2f} GiB"


def _sizes(options: MemoryArguments) -> dict[str, Any]:
    """Return the arguments that both estimates have."""
    import torch

    return {
        "batch_size": options.batch_size,
        "num_images": options.images,
        "text_length": options.text_length,
        "dtype": getattr(torch, options.dtype),
    }


def _estimate_training(config: "FlamingoConfig", options: MemoryArguments) -> tuple[list[tuple[str, str]], float]:
    """Return the lines of a training, and its peak in GiB."""
    import torch

    from transformers_flamingo.training import estimate_training_memory

    found = estimate_training_memory(
        config,
        **_sizes(options),
        num_gpus=options.gpus,
        sharding=options.sharding,
        trained_dtype=getattr(torch, options.trained_dtype),
        optimizer=options.optimizer,
        activation_checkpointing=options.activation_checkpointing,
        quantization=options.quantization,
        cached_features=options.cache_features,
        train_vision=options.train_vision,
        train_text=options.train_text,
        train_token_embeddings=options.train_token_embeddings,
        lora_rank=options.lora_rank,
    )
    parts = ("weights", "gradients", "optimizer", "activations", "buffers")
    lines = [(name, _gib(getattr(found, name))) for name in parts]
    lines += [("peak on each GPU", _gib(found.total)), ("a step on each GPU", f"{found.flops / 1e12:8.1f} TFLOP")]
    if options.peak_tflops is not None:
        steps = found.steps_per_day(options.peak_tflops * 1e12, options.utilization)
        texts = steps * options.batch_size * options.gpus
        lines.append(
            ("steps per day", f"{steps:8,.0f}, which are {texts:,.0f} texts and {texts * options.images:,.0f} images")
        )
    return lines, found.total / 2**30


def _estimate_inference(config: "FlamingoConfig", options: MemoryArguments) -> tuple[list[tuple[str, str]], float]:
    """Return the lines of a generation, and its peak in GiB."""
    from transformers_flamingo.utils.memory import estimate_inference_memory

    found = estimate_inference_memory(
        config,
        **_sizes(options),
        max_new_tokens=options.new_tokens,
        num_beams=options.beams,
    )
    small = {
        "cache of a token": found.cache_per_token,
        "cache of the last image": found.media_cache,
        "latents of an image": found.latents_per_image,
    }
    lines = [
        ("weights", _gib(found.weights)),
        *((name, f"{number / 2**10:8.0f} KiB") for name, number in small.items()),
        ("cache of all texts", _gib(found.cache)),
        ("peak", _gib(found.total)),
    ]
    return lines, found.total / 2**30
