# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Measure the cost of beams: `generate()` with 1, 3 and 8 beams after a prompt with 8 images.

    python benchmarks/beam_search.py [--workload small] [--text gpt2] [--tokens 256] [--new-tokens 8] [--repeats 5]

"Stock prefill" is the same model with the prefill of transformers' `generate()`, which computes the prompt once for each
beam. The floor is computing the prompt once, with its images, and each new token of each beam. The row `prompt` is the time
of the prompt. "Kept for images" is the size of the media cache at the end.
"""

import functools
import types

import common
import torch
from transformers import GenerationMixin

from transformers_flamingo.media_cache_flamingo import MediaCacheLayer


def main() -> None:
    """Time the searches, print the table and save it if asked to."""
    arguments = common.parser(__doc__, tokens=256, new_tokens=8, images=8).parse_args()
    model = common.build(arguments)
    batch = common.inputs(model, arguments.images, arguments.tokens)
    kept: dict[str, int] = {}

    def search(name: str, num_beams: int, is_stock: bool = False) -> float:
        if is_stock:
            model._prefill = types.MethodType(GenerationMixin._prefill, model)
        try:
            start = common.read_clock(model.device)
            output = model.generate(
                **batch,
                num_beams=num_beams,
                max_new_tokens=arguments.new_tokens,
                min_new_tokens=arguments.new_tokens,
                do_sample=False,
                return_dict_in_generate=True,
            )
            seconds = common.read_clock(model.device) - start
        finally:
            model.__dict__.pop("_prefill", None)
        layers = [layer for layer in output.cache.layers if isinstance(layer, MediaCacheLayer)]
        kept[name] = sum(states.nbytes for layer in layers for states in (layer.keys, layer.values))
        return seconds

    @torch.no_grad()
    def prompt() -> None:
        model(**batch, logits_to_keep=1)

    cases = {"prompt": prompt}
    for num_beams in (1, 3, 8):
        cases[f"{num_beams} beams"] = functools.partial(search, f"{num_beams} beams", num_beams)
        if num_beams > 1:
            name = f"{num_beams} beams, stock prefill"
            cases[name] = functools.partial(search, name, num_beams, is_stock=True)
    timings = common.time_in_turns(cases, arguments.repeats, arguments.device)
    counts = {name: common.count(case, arguments.device) for name, case in cases.items()}
    rows = [
        {
            "": name,
            "GFLOP": f"{counts[name].flops / 1e9:.1f}",
            "operations": counts[name].operations,
            "peak, MB": common.megabytes(counts[name].peak_bytes),
            "ms": common.milliseconds(timing),
            "over 1 beam": f"{timing.over(timings['1 beams']):.2f}",
            "spread": common.percent(timing.spread),
            "kept for images, MB": common.megabytes(kept[name]) if name in kept else "",
        }
        for name, timing in timings.items()
    ]
    common.report(arguments, rows, f"beam-search-{arguments.text or arguments.workload}")


if __name__ == "__main__":
    main()
