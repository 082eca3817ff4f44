# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Measure the cost of a query with 32 shots over that of a query without shots.

    python benchmarks/few_shot_cost.py [--workload small] [--queries 8] [--pool 64] [--repeats 5] [--device cpu]

Each query is an image with a question of 8 tokens, answered by 5 greedy tokens. Each shot is an image with 12 tokens. The
table has the medians and the ratio to 0 shots of

- fixed shots: their cache is computed once, and the images of the queries are new;
- random shots from a pool whose images were encoded before;
- no reuse: every prompt from its pixels, as in OpenFlamingo's evaluation.
"""

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import count

import common
import numpy as np
import torch

from transformers_flamingo.few_shot.engine import FewShotEngine
from transformers_flamingo.few_shot.examples import GenerationSettings
from transformers_flamingo.few_shot.prompts import MediaItem, Prompt


SETTINGS = GenerationSettings(max_new_tokens=5, num_beams=1, extra={"min_new_tokens": 5})
NUMBERS = count()


def prompts(
    pool: list[tuple[MediaItem, str]], shots: int, queries: int, rng: np.random.Generator, fixed: bool
) -> Iterator[Prompt]:
    """Yield prompts of `shots` examples of the pool and a query with a new image."""
    chosen = rng.choice(len(pool), shots, replace=False)
    for _ in range(queries):
        if not fixed:
            chosen = rng.choice(len(pool), shots, replace=False)
        prefix = "".join(f"<image>{pool[i][1]}<|endofchunk|>" for i in chosen)
        yield Prompt(
            prefix,
            f"<image>{common.words(rng, 8)}",
            tuple(pool[i][0] for i in chosen),
            (common.random_image(next(NUMBERS)),),
        )


def answer(engine: FewShotEngine, asked: list[Prompt]) -> float:
    """Generate the answers and return the seconds per query."""

    def synchronize() -> None:
        if engine.model.device.type == "cuda":
            torch.cuda.synchronize()

    synchronize()
    start = time.perf_counter()
    engine.generate(asked, SETTINGS)
    synchronize()
    return (time.perf_counter() - start) / len(asked)


def prompt_forward(engine: FewShotEngine, prompt: Prompt) -> Callable[[], None]:
    """Return the forward pass of one prompt alone, with its images encoded before."""
    engine.encode(prompt.media)
    ids = torch.tensor(engine.processor.tokenizer([prompt.text])["input_ids"], device=engine.model.device)
    features = engine._image_features([prompt.media])

    @torch.inference_mode()
    def forward() -> None:
        engine.model(input_ids=ids, use_cache=True, logits_to_keep=1, **features)

    return forward


def main() -> None:
    """Time the queries, print the table and save it if asked to."""
    arguments = common.parser(__doc__, queries=8, pool=64).parse_args()
    model = common.build(arguments)
    processor = common.processor(model)
    rng = np.random.default_rng(0)
    pool = [(common.random_image(next(NUMBERS)), common.words(rng, 12)) for _ in range(arguments.pool)]

    def reused(shots: int, fixed: bool) -> float:
        engine = FewShotEngine(model, processor, batch_size=arguments.queries, shares_prefix=fixed)
        asked = list(prompts(pool, shots, arguments.queries, rng, fixed))
        engine.encode([item for prompt in asked for item in prompt.prefix_media])
        if fixed and shots:  # an earlier query has left the cache of the shots
            before = asked[0]
            query_media = (common.random_image(next(NUMBERS)),)
            engine.generate([Prompt(before.prefix, before.query, before.prefix_media, query_media)], SETTINGS)
        return answer(engine, asked)

    def nothing_reused(shots: int) -> float:
        seconds = []
        for prompt in prompts(pool, shots, arguments.queries, rng, fixed=False):
            engine = FewShotEngine(model, processor, batch_size=1, shares_prefix=False)
            seconds.append(answer(engine, [prompt]))
        return statistics.mean(seconds)

    kinds = {
        "fixed shots, their cache shared": functools.partial(reused, fixed=True),
        "random shots, images encoded before": functools.partial(reused, fixed=False),
        "nothing reused, as OpenFlamingo evaluates": nothing_reused,
    }
    cases = {f"{kind} {shots}": functools.partial(run, shots) for kind, run in kinds.items() for shots in (0, 32)}
    prompt = next(prompts(pool, 32, 1, rng, fixed=False))
    cases["prompt alone"] = prompt_forward(FewShotEngine(model, processor), prompt)
    timings = common.time_in_turns(cases, arguments.repeats, arguments.device)

    rows = []
    for kind in kinds:
        none, many = timings[f"{kind} 0"], timings[f"{kind} 32"]
        rows.append(
            {
                "": kind,
                "0 shots, ms": common.milliseconds(none),
                "32 shots, ms": common.milliseconds(many),
                "spread": common.percent(many.spread),
                "ratio": f"{many.over(none):.2f}",
            }
        )
    alone = timings["prompt alone"]
    rows.append({"": "forward of a prompt with 32 shots, alone", "32 shots, ms": common.milliseconds(alone)})
    rows[-1]["spread"] = common.percent(alone.spread)
    common.report(arguments, rows, "few_shot_cost")


if __name__ == "__main__":
    main()
