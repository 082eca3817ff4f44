# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Measure the cost of a query with up to 32 shots over that of a query without shots, in time and in tokens.

    python benchmarks/few_shot_cost.py [--workload small] [--queries 8] [--pool 64] [--repeats 5] [--device cpu]

Each query is a new image with a question of a natural length, 4 to 20 tokens, 9 on average, answered by 5 greedy tokens. Each shot is
an image that was encoded before, with 5 to 20 tokens, 12 on average. The cases are

- fixed shots: their cache is computed once, by an earlier query;
- random shots for each query;
- random shots for each of 2 images, which have 5 questions each;
- random shots for each group of 16 queries;
- 4, 8, 16 and 32 shots: each number by itself, and together, where fewer shots are the first of more;
- no reuse: each prompt from its pixels, as in OpenFlamingo's evaluation.

Each figure is that of a query, whose image is encoded; where it has several numbers of shots, of all its prompts. Tokens are those that
the language model computes, with padding and generated tokens. On a CPU, the time is that of the process in all its threads, so that other
load on the machine counts less: run it with one thread (`OMP_NUM_THREADS=1`). Images are those that the gated blocks project to keys and values.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count

import common
import numpy as np
import torch

from transformers_flamingo import FlamingoModel
from transformers_flamingo.few_shot.engine import FewShotEngine
from transformers_flamingo.few_shot.examples import GenerationSettings
from transformers_flamingo.few_shot.prompts import MediaItem, Prompt


SETTINGS = GenerationSettings(max_new_tokens=5, num_beams=1, extra={"min_new_tokens": 5})
SHOTS = (4, 8, 16, 32)
NUMBERS = count()


class Counter:
    """Count the tokens that a model computes, and the images that its gated blocks project to keys and values."""

    def __init__(self, model: FlamingoModel):
        self.tokens = self.images = 0
        model.language_model.register_forward_pre_hook(self._count_tokens, with_kwargs=True)
        model.gated_cross_attention[0].attention.k_proj.register_forward_pre_hook(self._count_images)

    def _count_tokens(self, module: torch.nn.Module, args: tuple, kwargs: dict) -> None:
        self.tokens += kwargs["input_ids"].numel()

    def _count_images(self, module: torch.nn.Module, args: tuple) -> None:
        self.images += len(args[0])

    def of(self, case: Callable[[], object]) -> tuple[int, int]:
        """Run a case and return its numbers of tokens and images."""
        self.tokens = self.images = 0
        case()
        return self.tokens, self.images


class Pool:
    """
    Examples with images, and prompts of them.

    Args:
        size (`int`): Number of examples.
    """

    def __init__(self, size: int):
        self.rng = np.random.default_rng(0)
        self.shots = [(common.random_image(next(NUMBERS)), self.text(12, 5)) for _ in range(size)]

    def text(self, mean: int, shortest: int) -> str:
        """Return a text of a natural length: most are near the mean, and some are much longer."""
        return common.words(self.rng, int(np.clip(round(self.rng.gamma(9, mean / 9)), shortest, 20)))

    def draw(self, number: int) -> list[tuple[MediaItem, str]]:
        """Draw examples."""
        return [self.shots[i] for i in self.rng.choice(len(self.shots), number, replace=False)]

    def prompt(self, shots: Sequence[tuple[MediaItem, str]], question: str | None = None) -> Prompt:
        """Make a prompt of examples and a question, about a new image."""
        prefix = "".join(f"<image>{text}<|endofchunk|>" for _, text in shots)
        images = tuple(image for image, _ in shots)
        return Prompt(prefix, f"<image>{question or self.text(9, 4)}", images, (common.random_image(next(NUMBERS)),))


class Case:
    """
    Prompts that are answered together, in one call or several.

    Args:
        engine ([`FewShotEngine`]): Answers them.
        calls (`Sequence[Sequence[Prompt]]`): The prompts of each call.
        queries (`int`): Number of queries among them.
        before ([`Prompt`]): What is answered before, and may leave its prefix.
        options: Attributes of the engine.
    """

    def __init__(
        self, engine: FewShotEngine, calls: Sequence[Sequence[Prompt]], queries: int, before: Prompt, **options
    ):
        self.engine, self.calls, self.queries, self.before, self.options = engine, calls, queries, before, options

    def __call__(self) -> float:
        """Answer the prompts, whose queries have new images, and return the seconds per query."""
        self.prepare()
        device = self.engine.model.device
        start = common.read_clock(device)
        self.run()
        return (common.read_clock(device) - start) / self.queries

    def prepare(self) -> None:
        """Bring the engine into the state in which the first call finds it."""
        for name, value in {"shares_prefix": True, **self.options}.items():
            setattr(self.engine, name, value)
        self.engine.generate([self.before], replace(SETTINGS, max_new_tokens=1, extra={}))

    def run(self) -> None:
        """Answer the prompts."""
        for call in self.calls:
            # A key that the engine has not seen, so that the image is encoded again
            renewed = [tuple(replace(item, key=next(NUMBERS)) for item in prompt.query_media) for prompt in call]
            prompts = [replace(prompt, query_media=media) for prompt, media in zip(call, renewed, strict=True)]
            self.engine.generate(prompts, SETTINGS)


class Whole(Case):
    """Prompts that are answered from the pixels of all their images."""

    def run(self) -> None:
        """Answer the prompts."""
        for call in self.calls:
            self.engine.generate(
                [
                    replace(
                        prompt, prefix_media=tuple(replace(item, key=next(NUMBERS)) for item in prompt.prefix_media)
                    )
                    for prompt in call
                ],
                SETTINGS,
            )


def make_cases(engine: FewShotEngine, number: int, pool: Pool) -> dict[str, Case]:
    """Make the prompts of all cases, of `number` queries each."""
    other = pool.prompt(pool.draw(1))  # leaves a prefix that nobody needs

    def case(prompts: Sequence[Prompt], queries: int = number, before: Prompt = other, **options) -> Case:
        return Case(engine, [prompts], queries, before, **{"batch_size": number, **options})

    fixed, draws = pool.draw(32), [pool.draw(32) for _ in range(number)]
    questions = [pool.text(9, 4) for _ in range(4 * number)]
    words = " ".join(questions).split()
    mean = len(words) // len(questions)
    equal = [" ".join(words[i * mean : (i + 1) * mean]) for i in range(4 * number)]
    ladder = [[pool.prompt(shots[:k], questions[i]) for i, shots in enumerate(draws)] for k in SHOTS]
    of_images = [pool.prompt(pool.draw(32)) for _ in range(2)]
    warm = pool.prompt(fixed)
    return {
        "0 shots": case([pool.prompt([]) for _ in range(number)]),
        f"32 fixed shots, questions of {mean} tokens": case(
            [pool.prompt(fixed, question) for question in equal], 4 * number, warm
        ),
        "32 fixed shots, questions of natural lengths": case(
            [pool.prompt(fixed, question) for question in questions], 4 * number, warm
        ),
        "32 random shots for each query": case([pool.prompt(shots) for shots in draws]),
        "32 random shots for each image of 5 questions": case(
            [replace(prompt, query=f"<image>{pool.text(9, 4)}") for prompt in of_images for _ in range(5)], 10
        ),
        "32 random shots for each 16 queries": case([pool.prompt(draws[0]) for _ in range(16)], 16),
        "4, 8, 16 and 32 random shots, each by itself": Case(engine, ladder, number, other, batch_size=number),
        "4, 8, 16 and 32 random shots together": case([prompt for call in ladder for prompt in call]),
        "32 shots, nothing reused, as OpenFlamingo evaluates": Whole(
            engine, [[pool.prompt(pool.draw(32))]], 1, other, batch_size=1, shares_prefix=False
        ),
    }


def main() -> None:
    """Time the cases, print the table and save it if asked to."""
    arguments = common.parser(__doc__, queries=8, pool=64).parse_args()
    model, pool = common.build(arguments), Pool(arguments.pool)
    engine = FewShotEngine(model, common.processor(model))
    engine.encode([image for image, _ in pool.shots])
    cases = make_cases(engine, arguments.queries, pool)
    counter, counts = Counter(model), {}
    for name, case in cases.items():  # which is the round that warms up, too
        case.prepare()
        counts[name] = counter.of(case.run)
    timings = common.time_in_turns(cases, arguments.repeats, arguments.device, warmup=0)
    rows = []
    for name, case in cases.items():
        tokens, images = counts[name]
        rows.append(
            {
                "for each query": name,
                "ms": common.milliseconds(timings[name]),
                "spread": common.percent(timings[name].spread),
                "over 0 shots": f"{timings[name].over(timings['0 shots']):.2f}",
                "tokens": f"{tokens / case.queries:.1f}",
                "images projected": f"{images / case.queries:.1f}",
            }
        )
    common.report(arguments, rows, "few_shot_cost")


if __name__ == "__main__":
    main()
