# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Measure the cost of one more token after a prompt with 0, 1 or 32 images.

    python benchmarks/decode.py [--workload small] [--text gpt2] [--tokens 256] [--new-tokens 16] [--repeats 5]

All prompts have the same number of tokens. The model is compared with the bare language model with a cache of the same
length, and with the gated blocks alone, run one after the other on one token and the cached keys and values of one image.
"Floor" is the sum of these two: the work that a step cannot avoid.
"""

import functools
from dataclasses import replace

import common
import torch


def main() -> None:
    """Time a step of each model, print the table and save it if asked to."""
    parser = common.parser(__doc__, tokens=256, new_tokens=16)
    arguments = parser.parse_args()
    model = common.build(arguments)
    batches = {n: common.inputs(model, n, arguments.tokens) for n in (0, 1, 32)}
    del batches[0]["pixel_values"]
    cases = {
        f"{n} images": functools.partial(common.generate, model, batch, arguments.new_tokens)
        for n, batch in batches.items()
    }
    cases["bare language model"] = functools.partial(
        common.generate, model.language_model, batches[0], arguments.new_tokens
    )
    with torch.no_grad():
        media_layers = model(**batches[1]).cache.layers[-len(model.gated_cross_attention) :]
    hidden_states = torch.randn(1, 1, model.config.text_config.hidden_size).to(model.device, model.dtype)

    @torch.no_grad()
    def blocks() -> float:
        start = common.read_clock(model.device)
        for _ in range(arguments.new_tokens):
            for block, layer in zip(model.gated_cross_attention, media_layers, strict=True):
                block(hidden_states, None, None, layer)
        return (common.read_clock(model.device) - start) / arguments.new_tokens

    cases["gated blocks alone"] = blocks
    timings = common.time_in_turns(cases, arguments.repeats, arguments.device)
    counts = {
        f"{n} images": common.count_step(functools.partial(common.generate, model, batch), arguments.device)
        for n, batch in batches.items()
    }
    bare = common.count_step(functools.partial(common.generate, model.language_model, batches[0]), arguments.device)
    blocks_of_all_steps = common.count(blocks, arguments.device)
    gated = replace(
        blocks_of_all_steps,
        flops=blocks_of_all_steps.flops // arguments.new_tokens,
        operations=blocks_of_all_steps.operations // arguments.new_tokens,
    )
    both = replace(bare, flops=bare.flops + gated.flops, operations=bare.operations + gated.operations)
    counts |= {"bare language model": bare, "gated blocks alone": gated, "floor": both}

    floor = common.Timing(
        [
            sum(pair)
            for pair in zip(timings["bare language model"].seconds, timings["gated blocks alone"].seconds, strict=True)
        ]
    )
    one = timings["1 images"]
    rows = []
    for name, timing in {**timings, "floor": floor}.items():
        rows.append(
            {
                "": name,
                "GFLOP": f"{counts[name].flops / 1e9:.3f}",
                "operations": counts[name].operations,
                "ms per token": f"{1000 * timing.median:.2f}",
                "over 1 image": f"{timing.over(one):.3f}",
                "over the floor": f"{timing.over(floor):.3f}",
                "spread": common.percent(timing.spread),
            }
        )
    common.report(arguments, rows, f"decode-{arguments.text or arguments.workload}")


if __name__ == "__main__":
    main()
