# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""What an evaluation costs: its prompts and images, said before it starts, and one progress bar for all of its runs."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tqdm.auto import tqdm

from ..few_shot.demonstrations import Demonstrations
from ..few_shot.examples import Example
from ..few_shot.prompts import media_identity
from ..processing_flamingo import FlamingoProcessor
from .task import Task


# Queries and demonstrations whose lengths are measured
_SAMPLE = 64


@dataclass(frozen=True)
class RunCost:
    """
    Cost of one run.

    Args:
        prompts (`int`): Number of queries that are not answered yet.
        tokens (`float`): Tokens computed for each, about.
    """

    prompts: int
    tokens: float


def estimate_tokens(
    task: Task,
    processor: FlamingoProcessor,
    pool: Demonstrations,
    queries: Sequence[Example],
    shots: int,
    num_orders: int = 1,
    num_prefixes: float | None = None,
) -> float:
    """
    Estimate the number of tokens computed for one query, from the mean lengths of a few queries, demonstrations and candidates.

    Fixed demonstrations are computed once and count as nothing. Others count `num_prefixes` times, by default once for each order: less
    where prompts share them. Generated tokens count once for each beam.
    """

    def mean_length(texts: Sequence[str]) -> float:
        ids = processor.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []
        return sum(map(len, ids)) / max(1, len(ids))

    asked = _sample(queries)
    shown_length = 0.0
    length = mean_length([processor.few_shot_text([], (len(query.media), query.prompt))[1] for query in asked])
    if pool.selection != "fixed":
        shown = [(len(e.media) if shots else 0, e.prompt + e.answer) for e in _sample(pool.pool)]
        texts = [processor.few_shot_text([shot], separator=task.demonstration_separator)[0] for shot in shown]
        num_prefixes = num_orders if num_prefixes is None else num_prefixes
        shown_length = num_prefixes * (shots or task.num_text_demonstrations) * mean_length(texts)
    if task.generation is not None:
        settings = {"max_new_tokens": task.generation.max_new_tokens, "num_beams": task.generation.num_beams}
        settings |= task.generation.extra
        return shown_length + length + settings["max_new_tokens"] * settings["num_beams"]
    candidates = asked[0].candidates
    return shown_length + num_orders * (length + len(candidates) * mean_length(candidates))


def _sample(examples: Sequence[Example]) -> Sequence[Example]:
    return examples[:: max(1, len(examples) // _SAMPLE)][:_SAMPLE]


def estimate_images(
    queries: Sequence[Example], pools: Mapping[int, Demonstrations], shots: Sequence[int], max_cached: int
) -> int:
    """
    Estimate the number of images that are encoded: of each query and of each demonstration once, or those of the queries once for each
    seed, and once more for 0 shots, if not all are kept.
    """
    of_queries = len(
        {media_identity(item) or (query.id, i) for query in queries for i, item in enumerate(query.media)}
    )
    most, num_passes = max(shots), (0 in shots) + (max(shots) > 0)
    of_pools = sum(
        min(
            sum(len(example.media) for example in pool.pool), most * (1 if pool.selection == "fixed" else len(queries))
        )
        for pool in pools.values()
    )
    if of_queries + of_pools <= max_cached:
        return of_queries + of_pools
    return of_queries * num_passes * len(pools) + of_pools


class CostMeter:
    """
    Progress bar over all runs of an evaluation, with the time that is left for all of them.

    A prompt with 32 shots takes longer than one with none. So the time is estimated from the tokens of each run: by those of the first batch
    at first, and more exactly as more is computed.

    Args:
        name (`str`): Name of the task.
        costs (`Mapping[str, RunCost]`): The cost of each run by its name, of all processes together.
        num_processes (`int`, *optional*, defaults to 1): Number of processes that share each run.
        is_shown (`bool`, *optional*, defaults to `True`): Whether this process shows the bar.
    """

    def __init__(self, name: str, costs: Mapping[str, RunCost], num_processes: int = 1, is_shown: bool = True):
        self.name, self.costs, self.num_processes, self.is_shown = name, costs, num_processes, is_shown
        self.total_tokens = sum(cost.prompts * cost.tokens for cost in costs.values())
        self.done_tokens = 0.0
        self._start: float | None = None
        self._is_said = False

    def __enter__(self) -> "CostMeter":
        total = sum(cost.prompts for cost in self.costs.values())
        # Its own estimate would take all prompts to be equal
        layout = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"
        self.bar = tqdm(total=total, desc=self.name, bar_format=layout, disable=not self.is_shown or not total)
        self._start = time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()

    def seconds_left(self) -> float | None:
        """Return the time that all runs still take, as far as can be told, or `None` before the first batch."""
        if not self.done_tokens:
            return None
        elapsed = time.monotonic() - self._start
        return elapsed * (self.total_tokens - self.done_tokens) / self.done_tokens

    def advance(self, run: str, number: int, score: float | None = None) -> None:
        """Count `number` queries of a run, answered by this process, and with it about as many by each of the others."""
        together = min(number * self.num_processes, self.costs[run].prompts)
        self.done_tokens = min(self.done_tokens + together * self.costs[run].tokens, self.total_tokens)
        self.bar.set_description(f"{self.name} {run}", refresh=False)
        left = format_time(self.seconds_left())
        self.bar.set_postfix_str(
            f"about {left} left" + ("" if score is None else f", score {score:.3g}"), refresh=False
        )
        self.bar.update(min(together, self.bar.total - self.bar.n) if self.bar.total else 0)
        if not self._is_said and self.is_shown and self.done_tokens < self.total_tokens:
            self._is_said = True
            say(f"{self.name}: about {left} for the rest, judged by the first {together:,} prompts.")


def describe_cost(
    name: str,
    shots: Sequence[int],
    seeds: Sequence[int],
    has_blind: bool,
    queries: int,
    costs: Sequence[RunCost],
    images: int,
) -> str:
    """Describe what an evaluation computes: prompts of all runs, and images."""
    prompts = queries * len(costs)
    left = sum(cost.prompts for cost in costs)
    tokens = sorted({round(cost.tokens) for cost in costs})
    lengths = f"{tokens[0]:,}" if len(tokens) == 1 else f"{tokens[0]:,} to {tokens[-1]:,}"
    answered = f" {prompts - left:,} of the prompts are answered already." if left < prompts else ""
    conditions = "2 (with images, blind)" if has_blind else "1 (no blind score)"
    return (
        f"{name}: {queries:,} queries x {len(shots)} (shots {', '.join(map(str, shots))}) x {len(seeds)} (seeds "
        f"{', '.join(map(str, seeds))}) x {conditions} = {prompts:,} prompts, each about {lengths} tokens to compute; about {images:,} images "
        f"to encode.{answered}"
    )


def say(text: str) -> None:
    """Write a line above the progress bar."""
    tqdm.write(text, file=sys.stderr)


def format_time(seconds: float) -> str:
    """Write a time in the two units that matter: `"3 h 20 min"`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = [(days, "days"), (hours, "h"), (minutes, "min"), (seconds, "s")]
    first = next((i for i, (value, _) in enumerate(parts) if value), 3)
    return " ".join(f"{value} {unit}" for value, unit in parts[first : first + 2])
