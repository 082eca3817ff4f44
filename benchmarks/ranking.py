# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Measure the cost of ranking 10, 100 and 1,000 candidates after one context.

    python benchmarks/ranking.py [--workload small] [--shots 8] [--repeats 5]

The context is 8 shots and a query: 9 images and about 150 tokens. Its images were encoded before, and it is computed once
in each run. Candidates have 1 to 4 tokens, drawn from 1,000 words. "Floor" is the work that cannot be avoided: the context
and the distinct prefixes of the candidates, without their last tokens, here as plain text, with the probabilities after each token:
256 tokens behind the context, and the others in rows of 256 after an image. "Whole prompts" uses no cache: the context is computed for
each candidate.
"""

import functools

import common
import numpy as np
import torch

from transformers_flamingo.few_shot.engine import FewShotEngine
from transformers_flamingo.few_shot.prompts import Prompt


def main() -> None:
    """Time the rankings, print the table and save it if asked to."""
    arguments = common.parser(__doc__, shots=8).parse_args()
    model = common.build(arguments)
    processor = common.processor(model)
    engine = FewShotEngine(model, processor, shares_prefix=False)
    rng = np.random.default_rng(0)
    images = tuple(common.random_image(i) for i in range(arguments.shots + 1))
    prefix = "".join(f"<image>{common.words(rng, 14)}<|endofchunk|>" for _ in images[1:])
    prompt = Prompt(prefix, f"<image>{common.words(rng, 14)}", images[1:], images[:1])
    engine.encode(images)
    candidates = [common.words(rng, rng.integers(1, 5), 1000) for _ in range(1000)]

    context = torch.tensor(processor.tokenizer([prompt.text])["input_ids"], device=model.device)
    features = engine._image_features([images])
    one_image = {"mm_encoder_outputs": engine._image_features([images[:1]])["mm_encoder_outputs"]}

    @torch.inference_mode()
    def floor(num_tokens: int) -> None:
        ids = torch.ones(1, num_tokens, dtype=torch.long, device=model.device)
        first, *others = ids.split(256, dim=1)
        text = torch.cat([context, first], dim=1)
        model(input_ids=text, use_cache=True, logits_to_keep=1 + first.shape[1], **features).logits.float().logsumexp(
            dim=-1
        )
        for row in others:
            model(input_ids=row, media_index=row, use_cache=False, **one_image).logits.float().logsumexp(dim=-1)

    @torch.inference_mode()
    def whole_prompts(chosen: list[str]) -> None:
        for candidate in chosen:
            ids = torch.tensor(processor.tokenizer([f"{prompt.text} {candidate}"])["input_ids"], device=model.device)
            model(input_ids=ids, use_cache=False, logits_to_keep=5, **features).logits.float().log_softmax(dim=-1)

    cases, tokens = {}, {}
    for number in (10, 100, 1000):
        chosen = candidates[:number]
        rows_of_ids = [tuple(row) for row in processor.tokenizer(chosen)["input_ids"]]
        tokens[number] = len({row[:n] for row in rows_of_ids for n in range(1, len(row))})
        cases[f"floor {number}"] = functools.partial(floor, tokens[number])
        cases[f"rank {number}"] = functools.partial(engine.rank, [prompt], [chosen])
    cases["whole prompts"] = functools.partial(whole_prompts, candidates[:10])
    timings = common.time_in_turns(cases, arguments.repeats, arguments.device)

    rows = []
    for number, num_tokens in tokens.items():
        rank, floor_timing, whole = timings[f"rank {number}"], timings[f"floor {number}"], timings["whole prompts"]
        rows.append(
            {
                "candidates": number,
                "tokens to compute": num_tokens,
                "ms per query": common.milliseconds(rank),
                "spread": common.percent(rank.spread),
                "floor, ms": common.milliseconds(floor_timing),
                "over the floor": f"{rank.over(floor_timing):.2f}",
                "whole prompts, ms": f"{1000 * whole.median * number / 10:.0f}{'' if number == 10 else ' (from 10)'}",
                "peak, MB": common.megabytes(common.peak_bytes(cases[f"rank {number}"], arguments.device)),
                "floor's peak, MB": common.megabytes(common.peak_bytes(cases[f"floor {number}"], arguments.device)),
            }
        )
    common.report(arguments, rows, f"ranking-{arguments.text or arguments.workload}")


if __name__ == "__main__":
    main()
