# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
What a query costs with 32 shots, over what it costs with none.

    python benchmarks/few_shot_cost.py [--vision-layers 12] [--text-layers 12] [--queries 8] [--repeats 3] [--device cpu]

Shapes of CLIP ViT-B/32 and GPT-2 small, a gated block before every layer, random weights, float32. Each query is an
image with a question of 8 tokens, answered by 5 greedy tokens; each shot an image with 8 + 4 tokens. Printed are medians
over repeats, all in one run, and the ratio to 0 shots, for

- fixed shots: their cache is computed once, and the images of queries are new;
- random shots from a pool whose images were encoded before;
- no reuse: every prompt from its pixels, as OpenFlamingo's evaluation does it.
"""

import argparse
import json
import statistics
import time
from itertools import count

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPVisionConfig, GPT2Config, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from transformers_flamingo import FlamingoConfig, FlamingoModel, FlamingoProcessor
from transformers_flamingo.evaluation.engine import FewShotEngine, Medium, Prompt
from transformers_flamingo.evaluation.task import GenerationSettings


SETTINGS = GenerationSettings(max_new_tokens=5, num_beams=1, extra={"min_new_tokens": 5})
_numbers = count()


def build(vision_layers: int, text_layers: int, device: str) -> tuple[FlamingoModel, FlamingoProcessor]:
    words = {f"w{i}": i for i in range(5000)} | {"<pad>": 5000}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>")
    processor = FlamingoProcessor(CLIPImageProcessorPil(), tokenizer)
    config = FlamingoConfig.from_vision_text_configs(
        CLIPVisionConfig(patch_size=32, num_hidden_layers=vision_layers),
        GPT2Config(n_layer=text_layers),
        image_token_id=processor.image_token_id,
        end_of_chunk_token_id=processor.end_of_chunk_token_id,
    )
    torch.manual_seed(0)
    model = FlamingoModel(config).eval()
    with torch.no_grad():
        for block in model.gated_cross_attention:
            block.attn_gate.fill_(0.5)
            block.ffn_gate.fill_(0.5)
    return model.to(device), processor


def picture() -> Medium:
    number = next(_numbers)
    pixels = np.random.default_rng(number).integers(0, 255, (256, 256, 3), dtype=np.uint8)
    return Medium(number, Image.fromarray(pixels))


def words(rng: np.random.Generator, number: int) -> str:
    return " ".join(f"w{i}" for i in rng.integers(1, 5000, number))


def prompts(pool: list[tuple[Medium, str]], shots: int, queries: int, rng: np.random.Generator, fixed: bool):
    chosen = rng.choice(len(pool), shots, replace=False)
    for _ in range(queries):
        if not fixed:
            chosen = rng.choice(len(pool), shots, replace=False)
        prefix = "".join(f"<image>{pool[i][1]}<|endofchunk|>" for i in chosen)
        yield Prompt(prefix, f"<image>{words(rng, 8)}", tuple(pool[i][0] for i in chosen), (picture(),))


def measure(engine: FewShotEngine, asked: list[Prompt]) -> float:
    """Seconds per query."""
    if engine.model.device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    engine.generate(asked, SETTINGS)
    if engine.model.device.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / len(asked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("vision-layers", 12), ("text-layers", 12), ("queries", 8), ("repeats", 3), ("pool", 64)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    model, processor = build(arguments.vision_layers, arguments.text_layers, arguments.device)
    rng = np.random.default_rng(0)
    pool = [(picture(), words(rng, 12)) for _ in range(arguments.pool)]
    results: dict[str, list[float]] = {}
    for _ in range(arguments.repeats + 1):  # the first warms up
        for shots in (0, 32):
            for name, fixed, reuse in (("fixed", True, True), ("random", False, True), ("no reuse", False, False)):
                engine = FewShotEngine(model, processor, batch_size=arguments.queries, shares_prefix=fixed)
                asked = list(prompts(pool, shots, arguments.queries, rng, fixed))
                if reuse:
                    engine.encode([medium for medium, _ in pool[: 32 if shots else 1]])
                    engine.encode([medium for prompt in asked for medium in prompt.prefix_media])
                    if fixed and shots:  # as the queries before would have left it
                        engine.generate(asked[:1], SETTINGS)
                    asked = (
                        asked
                        if not fixed
                        else [Prompt(p.prefix, p.query, p.prefix_media, (picture(),)) for p in asked]
                    )
                if reuse:
                    results.setdefault(f"{name}, {shots} shots", []).append(measure(engine, asked))
                else:
                    seconds = []
                    for prompt in asked:  # nothing is kept from one query to the next
                        engine = FewShotEngine(model, processor, batch_size=1, shares_prefix=False)
                        seconds.append(measure(engine, [prompt]))
                    results.setdefault(f"{name}, {shots} shots", []).append(statistics.mean(seconds))
    table = {}
    for name, seconds in results.items():
        kind = name.rpartition(",")[0]
        base = statistics.median(results[f"{kind}, 0 shots"][1:])
        median = statistics.median(seconds[1:])
        spread = (max(seconds[1:]) - min(seconds[1:])) / median
        table[name] = {"seconds": median, "spread": spread, "ratio": median / base}
        print(f"{name:22} {1000 * median:8.1f} ms per query, spread {spread:4.0%}, {median / base:6.2f} x 0 shots")
    print(json.dumps(table))


if __name__ == "__main__":
    main()
