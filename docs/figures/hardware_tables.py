# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Write the tables of `docs/get-started/hardware.md`, between the markers in it.

    python docs/figures/hardware_tables.py            # all shapes: about eight minutes on one core, without weights and without a GPU
    python docs/figures/hardware_tables.py --shapes 3b 9b --tables speed

Memory is in GiB (2^30 bytes), and numbers of parameters are in 10^9.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from transformers_flamingo.training import estimate_training_memory
from transformers_flamingo.training.shapes import SHAPES, shape_config
from transformers_flamingo.utils.memory import build_without_weights, estimate_inference_memory


# Those of the tables; the others are of single recipes
SIZES = ("1b", "3b", "9b", "80b")
PAGE = Path(__file__).parents[1] / "get-started" / "hardware.md"
GIB = 2**30
# A micro-batch of one GPU
BATCH = {"batch_size": 8, "num_images": 4, "text_length": 256}
# An H100 in bfloat16 without sparsity, and the share of it that is assumed
PEAK_FLOPS, UTILIZATION = 989e12, 0.4
# For the context of CUDA, the buffers of NCCL, and what the allocator wastes
RESERVED = 3 * GIB
# A prompt of 32 shots and a query: 33 images with 24 tokens each
PROMPT = {"num_images": 33, "text_length": 792, "max_new_tokens": 32, "num_beams": 3}

Rows = Iterator[list[str]]


def gib(number: float) -> str:
    """Format a number of bytes."""
    return f"{number / GIB:.1f}" if number < 100 * GIB else f"{number / GIB:.0f}"


def smallest_gpu(memory: int) -> str:
    """Name the smallest usual GPU that a peak fits in."""
    return next((f"{size} GiB" for size in (24, 48, 80) if memory + RESERVED <= size * GIB), "none")


def parameters(name: str) -> Rows:
    """Count the parameters of a shape."""
    model = build_without_weights(shape_config(name), torch.bfloat16)
    model.freeze_backbones()
    parts = (model.vision_model, model.language_model, model.resampler, model.gated_cross_attention, model)
    counts = [sum(p.numel() for p in part.parameters()) for part in parts]
    yield [name, SHAPES[name][0], *(f"{count / 1e9:.2f}" for count in counts)]


SPLITS = [(1, "ddp"), (8, "ddp"), (8, "fsdp2"), (8, "zero3"), (64, "fsdp2"), (64, "zero3"), (1536, "fsdp2")]
SHARDING = {"ddp": "DDP", "fsdp2": "FSDP2", "zero3": "ZeRO-3"}


def training(name: str) -> Rows:
    """Estimate a step on several numbers of GPUs, without and with checkpointing."""
    config = shape_config(name)
    found = {}
    # Those of one step, which is run once, follow each other
    for checkpointing in (False, True):
        for gpus, sharding in SPLITS:
            found[gpus, sharding, checkpointing] = estimate_training_memory(
                config, num_gpus=gpus, sharding=sharding, activation_checkpointing=checkpointing, **BATCH
            )
    for gpus, sharding in SPLITS:
        plain, repeated = (found[gpus, sharding, checkpointing] for checkpointing in (False, True))
        parts = (plain.weights, plain.gradients, plain.optimizer, plain.buffers, plain.activations)
        label = f"{gpus:,}" if gpus == 1 else f"{gpus:,} {SHARDING[sharding]}"
        yield [name, label, *map(gib, parts), gib(repeated.activations), gib(plain.total), gib(repeated.total)]


SAVINGS: dict[str, dict] = {
    "nothing": {},
    "`activation_checkpointing: true`": {"activation_checkpointing": True},
    "and `cache_features` of the source": {"activation_checkpointing": True, "cached_features": True},
    "checkpointing and `train_token_embeddings: false`": {
        "activation_checkpointing": True,
        "train_token_embeddings": False,
    },
    "checkpointing and `quantization: 4bit`": {"activation_checkpointing": True, "quantization": "4bit"},
    "and `optim: adamw_bnb_8bit`": {
        "activation_checkpointing": True,
        "quantization": "4bit",
        "optimizer": "adamw_8bit",
    },
    "checkpointing, `4bit` and `lora_rank: 16`": {
        "activation_checkpointing": True,
        "quantization": "4bit",
        "lora_rank": 16,
    },
}


def savings(name: str) -> Rows:
    """Estimate what each setting saves on one GPU."""
    for label, kwargs in SAVINGS.items():
        if ("lora_rank" in kwargs or "train_token_embeddings" in kwargs) and name not in ("3b", "9b"):
            continue  # the ratio is that of a shape in between, and each takes a run
        found = estimate_training_memory(shape_config(name), **BATCH, **kwargs)
        states = found.gradients + found.optimizer
        yield [name, label, gib(found.weights), gib(states), gib(found.activations), gib(found.total)]


def speed(name: str) -> Rows:
    """Compute the steps, tokens and images of a day."""
    config = shape_config(name)
    steps = [
        estimate_training_memory(config, activation_checkpointing=checkpointing, **BATCH)
        for checkpointing in (False, True)
    ]
    rates = [step.steps_per_day(PEAK_FLOPS, UTILIZATION) for step in steps]
    images = [rates[1] * BATCH["batch_size"] * BATCH["num_images"] * gpus / 1e6 for gpus in (1, 8, 64, 1536)]
    yield [
        name,
        *(f"{step.flops / 1e12:.0f}" for step in steps),
        *(f"{rate:,.0f}" for rate in rates),
        *(f"{number:,.1f}" for number in images),
    ]


def batches(name: str) -> Rows:
    """Say for two micro-batches which GPU they fit in."""
    splits = ((1, "ddp"), (8, "fsdp2"), (64, "fsdp2"))
    peaks = {
        (size, gpus): estimate_training_memory(
            shape_config(name),
            num_gpus=gpus,
            sharding=sharding,
            activation_checkpointing=True,
            **{**BATCH, "batch_size": size},
        ).total
        for size in (8, 32)
        for gpus, sharding in splits
    }
    for gpus, sharding in splits:
        label = f"{gpus:,}" if gpus == 1 else f"{gpus:,} {SHARDING[sharding]}"
        cells = [cell for size in (8, 32) for cell in (gib(peaks[size, gpus]), smallest_gpu(peaks[size, gpus]))]
        yield [name, label, *cells]


def inference(name: str) -> Rows:
    """Estimate a generation."""
    found = estimate_inference_memory(shape_config(name), **PROMPT)
    sizes = (found.cache_per_token, found.media_cache, found.latents_per_image)
    yield [name, gib(found.weights), *(f"{size / 1024:,.0f}" for size in sizes), gib(found.cache), gib(found.total)]


TABLES: dict[str, tuple[Callable[[str], Rows], list[str]]] = {
    "parameters": (
        parameters,
        ["shape", "what it is", "vision encoder", "language model", "resampler", "gated blocks", "all"],
    ),
    "training": (
        training,
        [
            "shape",
            "GPUs",
            "weights",
            "gradients",
            "optimizer",
            "buffers",
            "activations",
            "with checkpointing",
            "peak",
            "peak with checkpointing",
        ],
    ),
    "savings": (savings, ["shape", "on one GPU", "weights", "gradients and optimizer", "activations", "peak"]),
    "batches": (batches, ["shape", "GPUs", "8 texts", "fit in", "32 texts", "fit in"]),
    "speed": (
        speed,
        [
            "shape",
            "TFLOP of a step",
            "with checkpointing",
            "steps per day",
            "with checkpointing",
            "10^6 images per day, 1 GPU",
            "8 GPUs",
            "64",
            "1,536",
        ],
    ),
    "inference": (
        inference,
        [
            "shape",
            "weights",
            "cache of a token, KiB",
            "of the last image, KiB",
            "latents of an image, KiB",
            "cache",
            "peak",
        ],
    ),
}


def line(cells: list[str]) -> str:
    """Format a row of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def update(text: str, name: str, shape: str, rows: list[str]) -> str:
    """Replace the rows of a shape in a table of the page, which are in the order of the shapes."""
    begin, end = f"<!-- begin {name} -->\n", f"<!-- end {name} -->"
    before, rest = text.split(begin)
    table, after = rest.split(end)
    old = table.splitlines()[2:]
    kept = {other: [row for row in old if row.startswith(f"| {other} |")] for other in SIZES} | {shape: rows}
    columns = TABLES[name][1]
    lines = [line(columns), line(["---"] * len(columns)), *(row for other in SIZES for row in kept[other])]
    return before + begin + "".join(f"{row}\n" for row in lines) + end + after


def main() -> None:
    """Write the rows of some shapes, each table when it is done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", nargs="+", choices=SIZES, default=list(SIZES), help="shapes (default: all)")
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES), help="tables (default: all)")
    arguments = parser.parse_args()
    for shape in arguments.shapes:
        for name in arguments.tables:
            rows = [line(cells) for cells in TABLES[name][0](shape)]
            print(f"{shape}: {name}", *rows, sep="\n", flush=True)
            PAGE.write_text(update(PAGE.read_text(encoding="utf-8"), name, shape, rows), encoding="utf-8")


if __name__ == "__main__":
    main()
