# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Measure the cost of a training step on short captions, with one row per caption and packed into rows.

    python benchmarks/packing.py [--workload small] [--text gpt2] [--documents 32] [--min-tokens 8] [--max-tokens 40]

Captions have uniformly random lengths between the two, and one image each. Image features are cached, so a step includes
the resampler but not the vision encoder. A step is forward and backward with frozen backbones. All cases have the same
captions, and so the same floor: "tokens" minus padding. On a GPU with flash attention there is another table, of the same rows with it
in the language model. The gated blocks have sdpa in both, which needs no mask in them.
"""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import common
import torch
from accelerate.utils import send_to_device
from transformers.utils import is_flash_attn_2_available

from transformers_flamingo import FlamingoModel
from transformers_flamingo.training import FlamingoDataCollator, check_packing


ROW_LENGTHS = (64, 128, 256, 512)


def captions(model: FlamingoModel, number: int, shortest: int, longest: int) -> list[dict[str, Any]]:
    """Return rows of `<image>`, words and `<|endofchunk|>`, `shortest` to `longest` tokens, with features of an image."""
    generator = torch.Generator().manual_seed(0)
    config = model.config.vision_config
    num_patches = (config.image_size // config.patch_size) ** 2
    rows = []
    for length in torch.randint(shortest, longest + 1, (number,), generator=generator).tolist():
        words = [f"w{i}" for i in torch.randint(10, 20_000, (length - 2,), generator=generator).tolist()]
        features = torch.randn(1, num_patches, config.hidden_size, generator=generator).to(model.dtype)
        rows.append({"text": f"<image>{' '.join(words)}<|endofchunk|>", "image_features": features})
    return rows


def step(model: FlamingoModel, batch: dict[str, Any]) -> None:
    """Run forward and backward, without an optimizer."""
    model(**batch).loss.backward()
    model.zero_grad()


def main() -> None:
    """Time a step of each layout, print the table and save it if asked to."""
    arguments = common.parser(__doc__, documents=32, min_tokens=8, max_tokens=40).parse_args()
    model = common.build(arguments)
    model.freeze_backbones()
    check_packing(model)
    model.config.use_cache = False  # as Trainer sets it
    model.train()
    rows = captions(model, arguments.documents, arguments.min_tokens, arguments.max_tokens)
    processor = common.processor(model)
    collators = {"a row each": FlamingoDataCollator(processor)}
    for length in ROW_LENGTHS:
        collators[f"rows of {length}"] = FlamingoDataCollator(processor, max_length=length, packing=True)
    batches = {name: send_to_device(collator(rows), model.device) for name, collator in collators.items()}
    cases = {name: functools.partial(step, model, batch) for name, batch in batches.items()}
    measure(arguments, cases, batches, f"packing-{arguments.text or arguments.workload}")
    if torch.device(arguments.device).type == "cuda":
        if not is_flash_attn_2_available() or model.dtype == torch.float32:
            print("Without flash attention, which needs `flash_attn` and bfloat16 (`--workload large`).")
            return
        model.language_model.set_attn_implementation("flash_attention_2")
        check_packing(model)
        measure(arguments, cases, batches, f"packing-flash-{arguments.text or arguments.workload}")


def measure(
    arguments: argparse.Namespace, cases: dict[str, Callable], batches: dict[str, dict[str, Any]], name: str
) -> None:
    """Time the steps, and report them under a name."""
    timings = common.time_in_turns(cases, arguments.repeats, arguments.device)

    num_tokens = int(batches["a row each"]["attention_mask"].sum())
    baseline = timings["a row each"]
    table = []
    for case, timing in timings.items():
        num_rows, length = batches[case]["input_ids"].shape
        table.append(
            {
                "": case,
                "rows": num_rows,
                "tokens": num_rows * length,
                "padding": common.percent(1 - num_tokens / (num_rows * length)),
                "ms per step": common.milliseconds(timing),
                "spread": common.percent(timing.spread),
                "over a row each": f"{timing.over(baseline):.2f}",
                "peak MB": common.megabytes(common.peak_bytes(cases[case], arguments.device)),
            }
        )
    common.report(arguments, table, name)


if __name__ == "__main__":
    main()
