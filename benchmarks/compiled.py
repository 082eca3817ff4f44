# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Measure `torch.compile`: the forward pass, and steps of `generate()` with a static cache.

    python benchmarks/compiled.py [--workload small] [--text gpt2] [--tokens 64] [--new-tokens 16] [--images 4] [--repeats 5]

The forward pass is compiled with `fullgraph=True`, which fails at a graph break. Steps are compiled by `generate()` itself, with
inductor's default mode on a CPU and `reduce-overhead` (CUDA graphs) on a GPU. "Graphs" is the number of graphs compiled in
all calls: more than one for a case would mean that something was compiled again.
"""

import functools

import common
import torch
from torch._dynamo.utils import counters
from transformers import CompileConfig


def main() -> None:
    """Time each case eager and compiled, print the table and save it if asked to."""
    arguments = common.parser(__doc__, tokens=64, new_tokens=16, images=4).parse_args()
    model = common.build(arguments)
    batch = common.inputs(model, arguments.images, arguments.tokens)
    is_cuda = torch.device(arguments.device).type == "cuda"
    compile_config = CompileConfig(fullgraph=True, dynamic=False, mode="reduce-overhead" if is_cuda else "default")
    compile_config._compile_all_devices = True
    compiled = torch.compile(model, fullgraph=True)
    graphs: dict[str, int] = {}

    def counted(name: str, run, *args, **kwargs) -> float | None:
        before = counters["stats"]["unique_graphs"]
        result = run(*args, **kwargs)
        graphs[name] = graphs.get(name, 0) + counters["stats"]["unique_graphs"] - before
        return result

    @torch.no_grad()
    def forward(model) -> None:
        model(**batch, use_cache=False)

    generate = functools.partial(common.generate, model, batch, arguments.new_tokens)
    static = {"cache_implementation": "static"}
    cases = {
        "forward": functools.partial(counted, "forward", forward, model),
        "forward, compiled": functools.partial(counted, "forward, compiled", forward, compiled),
        "step": functools.partial(counted, "step", generate),
        "step, static cache": functools.partial(
            counted, "step, static cache", generate, **static, disable_compile=True
        ),
        "step, static cache, compiled": functools.partial(
            counted, "step, static cache, compiled", generate, **static, compile_config=compile_config
        ),
    }
    timings = common.time_in_turns(cases, arguments.repeats, arguments.device, warmup=2)
    rows = [
        {
            "": name,
            "ms": f"{1000 * timing.median:.2f}",
            "spread": common.percent(timing.spread),
            "over eager": f"{timing.over(timings[name.split(',')[0]]):.2f}",
            "graphs": graphs[name],
        }
        for name, timing in timings.items()
    ]
    common.report(arguments, rows, f"compiled-{arguments.text or arguments.workload}")


if __name__ == "__main__":
    main()
