# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Measure `torch.compile`: the forward pass, a training step, and steps of `generate()` with a static cache.

    python benchmarks/compiled.py [--workload small] [--text gpt2] [--tokens 64] [--new-tokens 16] [--images 4] [--repeats 5]

Forward pass and training step are compiled with `fullgraph=True`, which fails at a graph break, and with dynamic numbers of images
and tokens. "Other counts" runs the same compiled model on batches of 2 and 5 images and other lengths of the text. A step of
training is forward and backward with frozen backbones: with all logits, and with the loss in chunks. Steps of `generate()` are
compiled by itself, with inductor's default mode on a CPU and `reduce-overhead` (CUDA graphs) on a GPU, where the forward pass has such a
row, too. "Graphs" is the number of graphs compiled in all calls of a case: more than one would mean that something was compiled
again.
"""

import functools
from collections.abc import Callable
from typing import Any

import common
import devices
import torch
from torch._dynamo.utils import counters
from transformers import CompileConfig


def with_masks(batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Add the masks, which a compiled model needs, and mark the numbers of tokens and images as dynamic."""
    batch = {
        **batch,
        "attention_mask": torch.ones_like(batch["input_ids"]),
        "frame_attention_mask": batch["input_ids"].new_ones(batch["pixel_values"].shape[:2]),
    }
    for tensor in batch.values():
        torch._dynamo.mark_dynamic(tensor, 1)
    return batch


def main() -> None:
    """Time each case eager and compiled, print the table and save it if asked to."""
    arguments = common.parser(__doc__, tokens=64, new_tokens=16, images=4).parse_args()
    model = common.build(arguments)
    batch = common.inputs(model, arguments.images, arguments.tokens)
    masked = with_masks(batch)
    others = [with_masks(common.inputs(model, n, arguments.tokens + 16 * n)) for n in (2, 5)]
    is_cuda = torch.device(arguments.device).type == "cuda"
    compile_config = CompileConfig(fullgraph=True, dynamic=False, mode="reduce-overhead" if is_cuda else "default")
    compile_config._compile_all_devices = True
    compiled = torch.compile(model, fullgraph=True)
    graphs: dict[str, int] = {}

    def counted(name: str, run: Callable[[], Any]) -> float | None:
        before = counters["stats"]["unique_graphs"]
        result = run()
        graphs[name] = graphs.get(name, 0) + counters["stats"]["unique_graphs"] - before
        return result

    @torch.no_grad()
    def forward(model: Callable, batches: list[dict[str, torch.Tensor]]) -> None:
        for inputs in batches:
            model(**inputs, use_cache=False)

    def training_step(call: Callable, batches: list[dict[str, torch.Tensor]], **options: Any) -> None:
        for inputs in batches:
            call(**inputs, labels=inputs["input_ids"], use_cache=False, **options).loss.backward()
            model.zero_grad(set_to_none=True)

    generate = functools.partial(common.generate, model, batch, arguments.new_tokens)
    static = {"cache_implementation": "static"}
    cases: dict[str, Callable[[], Any]] = {
        "forward": functools.partial(forward, model, [masked]),
        "forward, compiled": functools.partial(forward, compiled, [masked]),
        "forward, compiled, other counts": functools.partial(forward, compiled, others),
    }
    if is_cuda:
        graphed = torch.compile(model, fullgraph=True, mode="reduce-overhead")
        cases["forward, CUDA graphs"] = functools.partial(forward, graphed, [masked])
    cases |= {
        "step": generate,
        "step, static cache": functools.partial(generate, **static, disable_compile=True),
        "step, static cache, compiled": functools.partial(generate, **static, compile_config=compile_config),
    }
    rows = measure(arguments, {name: functools.partial(counted, name, case) for name, case in cases.items()}, graphs)

    model.freeze_backbones()
    model.train()
    cases = {
        "training": functools.partial(training_step, model, [masked]),
        "training, compiled, all logits": functools.partial(training_step, compiled, [masked], skip_logits=False),
        "training, compiled, loss in chunks": functools.partial(training_step, compiled, [masked]),
        "training, compiled, loss in chunks, other counts": functools.partial(training_step, compiled, others),
    }
    rows += measure(arguments, {name: functools.partial(counted, name, case) for name, case in cases.items()}, graphs)
    common.report(arguments, rows, f"compiled-{arguments.text or arguments.workload}")


def measure(arguments: Any, cases: dict[str, Callable[[], Any]], graphs: dict[str, int]) -> list[dict[str, str]]:
    """Time the cases, measure their peaks of memory, and return their rows. What is measured together is compared with the first."""
    timings = common.time_in_turns(cases, arguments.repeats, arguments.device, warmup=2)
    peaks = {name: common.peak_bytes(case, arguments.device) for name, case in cases.items()}
    return [
        {
            "": name,
            "ms": f"{1000 * timing.median:.2f}",
            "spread": common.percent(timing.spread),
            "over eager": f"{timing.over(timings[name.split(',')[0]]):.2f}" if "other" not in name else "",
            "peak, MB": common.megabytes(peaks[name]),
            "graphs": graphs[name],
            **(speed(arguments, cases[name.split(",")[0]], timing) if "other" not in name else {}),
        }
        for name, timing in timings.items()
    ]


def speed(arguments: Any, eager: Callable[[], Any], timing: common.Timing) -> dict[str, str]:
    """Return the columns of FLOP/s on a GPU, of the operations of the eager case, or nothing on a CPU or for a step of `generate()`."""
    name = devices.device_name(arguments.device)
    if name is None:
        return {}
    return devices.rates(devices.count_flops(eager), timing.median, name)


if __name__ == "__main__":
    main()
