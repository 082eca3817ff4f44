# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Few-shot evaluation of a model on one task, by the protocol of the Flamingo paper and OpenFlamingo.

Each pair of a number of shots and a seed is a run (see `predictions.py`). All checks come first, since a run may take hours.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from huggingface_hub import constants

from ..cards.model_card import package_versions
from ..few_shot.demonstrations import DRAW_VERSION, Demonstrations, make_draw_keys
from ..few_shot.engine import FewShotEngine
from ..few_shot.examples import Example
from ..few_shot.retrieval import ImageEmbedder
from ..few_shot.shared_prefixes import can_align
from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor
from ..saving_flamingo import write_json
from ..utils.fingerprint import fingerprint_weights
from ..utils.redaction import redact_values
from .checks import check_media, check_model, check_references, check_task, check_texts, fingerprint_examples
from .comparison import describe_differences, judge_comparability
from .config import ALL, EvaluationConfig
from .cost import CostMeter, RunCost, describe_cost, estimate_images, estimate_tokens, say
from .folder import RESULTS_NAME, hold_folder, merge_summaries
from .lengths import check_lengths
from .predictions import PredictionRun, execute_together
from .task import Task


def evaluate(
    model: FlamingoModel,
    processor: FlamingoProcessor,
    task: Task,
    output_dir: str | os.PathLike,
    config: EvaluationConfig | None = None,
    *,
    batch_size: int = 8,
    model_name: str | None = None,
) -> dict[str, Any]:
    """
    Evaluate a model on a task, and write into `output_dir`

    - `shots-K_seed-S.jsonl`, and `shots-K_seed-S_blind.jsonl` for the blind score: a line for each query with `id`, `shots` (the
      ids of the demonstrations), `prompt`, `text`, `likelihoods` of the candidates, `references` and `score`;
    - `results.json`: the return value;
    - `settings.json`: the settings that the predictions depend on. The folder is refused for other settings.

    An interrupted evaluation resumes when it is called again. Under `accelerate launch` or `torchrun` the processes share the
    queries. Predictions do not depend on the number of processes, the batch size or the order of the queries.

    Args:
        model ([`FlamingoModel`]): The model, on its device.
        processor ([`FlamingoProcessor`]): The processor of the model.
        task ([`Task`]): The task.
        output_dir (`str`): The folder to write into.
        config ([`EvaluationConfig`], *optional*): Settings. By default they are those of the protocol `quick`.
        batch_size (`int`, *optional*, defaults to 8): Number of queries answered together.
        model_name (`str`, *optional*): Name of the model in the results.

    Returns:
        `dict` with `task`, `split`, `metric`, `model`, `num_queries`, `num_available` (in the whole split), `is_subset`,
        `protocol`, `comparable` and `differences` (whether scores may be compared with published ones, and what is not as there), `versions`
        and `results`. The latter is a list with an entry for each number of shots: `shots`, `mean`, `std` (over the seeds, of the
        population) and `scores` of each seed, and the same as `blind_mean`, `blind_std` and `blind_scores`.

    Raises:
        ValueError: the output directory is of other settings, the support pool is too small, a prompt is longer than the language
            model's positions, or a text has a special token. Nothing was computed then.
        FileNotFoundError: an image is missing. Nothing was computed then.
        BlockingIOError: another evaluation is writing into the output directory.
    """
    config = config or EvaluationConfig()
    state = PartialState(cpu=model.device.type == "cpu")  # or it would not see the other processes of `torchrun`
    directory = Path(output_dir)
    if batch_size < 1:
        raise ValueError(f"`batch_size` is {batch_size}, but it must be at least 1.")
    available, support = list(task.queries()), list(task.support())
    is_whole = config.num_queries == ALL or config.num_queries >= len(available)
    queries = available if is_whole else task.subset(available, config.num_queries)
    check_task(task, queries, support, config)
    check_references(task, queries)
    check_texts(task, processor, chain(queries, support))
    check_model(model)
    engine = FewShotEngine(model, processor, batch_size=batch_size)
    balanced = _is_balanced(task, support, config)
    draw_keys = make_draw_keys(queries, available, by=config.draw_by, size=config.queries_per_draw)
    pools = _draw_pools(task, model, processor, support, config, balanced, draw_keys)
    check_media(task, chain(queries, *(pool.pool for pool in pools.values())))
    check_lengths(model, processor, task, queries, pools, config.shots, state)
    weights = fingerprint_weights(model.state_dict())
    settings = asdict(config) | {
        # As they took effect: a limit above what there is is none
        "balanced": balanced,
        "num_queries": ALL if is_whole else config.num_queries,
        "support_size": config.support_size if 0 < config.support_size < len(support) else ALL,
        "num_orders": config.num_orders if task.generation is None else 1,
        "task": task.describe(),
        "model": model_name,
        "weights": weights,
        "queries": len(queries),
        "examples": fingerprint_examples(chain(queries, support)),
        "draw": DRAW_VERSION,
    }
    with hold_folder(directory, redact_values(settings)) as earlier:
        _find_nearest(task, queries, pools, config, state)
        described = _describe_queries(task, len(queries), len(available))
        protocol = _describe_protocol(task, config, pools, balanced, len(support))
        summary = {
            **described,
            "metric": task.metric,
            "model": model_name,
            "weights": weights,
            "protocol": protocol,
            "comparable": judge_comparability(task, described),
            "differences": describe_differences(task, protocol, described),
            "results": _run_all(task, engine, processor, pools, config, queries, directory, state),
            "versions": package_versions("torch", "transformers", "transformers-flamingo"),
        }
        summary = redact_values(summary)
        if earlier is not None:
            summary = merge_summaries(earlier, summary, task.metric)
        if state.is_main_process:
            write_json(directory / RESULTS_NAME, summary)
        state.wait_for_everyone()
    return summary


def _is_balanced(task: Task, support: Sequence[Example], config: EvaluationConfig) -> bool:
    """Return whether demonstrations are class-balanced. By default they are where candidates are ranked and all examples have a group."""
    if config.balanced is not None:
        return config.balanced
    return task.generation is None and all(example.group is not None for example in support)


def _draw_pools(
    task: Task,
    model: FlamingoModel,
    processor: FlamingoProcessor,
    support: Sequence[Example],
    config: EvaluationConfig,
    balanced: bool,
    draw_keys: Mapping[str, str],
) -> dict[int, Demonstrations]:
    """Draw the pool of demonstrations of each seed, or of the first one, if all seeds would show the same."""
    by_image: dict[str, Any] = {}
    seeds = config.seeds
    if config.selection == "rices":
        directory = config.rices_index or Path(constants.HF_HOME) / "transformers_flamingo" / "image_index"
        embed = ImageEmbedder(model, processor, clip=config.rices_clip)
        by_image = {"embed": embed, "index_dir": directory, "faiss": config.rices_faiss}
        has_orders = task.generation is None and config.num_orders > 1
        if not has_orders and not 0 < config.support_size < len(support):
            seeds = seeds[:1]  # the nearest of all are the same for every seed
    return {
        seed: Demonstrations(
            support,
            selection=config.selection,
            support_size=None if config.support_size == ALL else config.support_size,
            seed=seed,
            balanced=balanced,
            draw_keys=draw_keys,
            **by_image,
        )
        for seed in seeds
    }


def _find_nearest(
    task: Task,
    queries: Sequence[Example],
    pools: Mapping[int, Demonstrations],
    config: EvaluationConfig,
    state: PartialState,
) -> None:
    """Index the images of the pools, and search for all queries at once. The processes share what must be encoded."""
    count = max(max(config.shots), task.num_text_demonstrations if 0 in config.shots else 0)
    for pool in pools.values():
        if pool.index is not None and count:
            if state.is_main_process:
                say(
                    f"{task.name}: of {pool.index.num_images:,} images to choose from, {pool.index.count_missing():,} are embedded first."
                )
            pool.index.build(state)
            pool.prepare(queries, count, state)


def _describe_queries(task: Task, number: int, available: int) -> dict[str, Any]:
    """Describe the scored queries. Only the score over all queries of a benchmark is that of the benchmark."""
    expected = task.split_sizes.get(task.scored_split)
    return {
        "task": task.name,
        "split": task.scored_split,
        "is_published_split": task.scored_split == next(iter(task.split_sizes), task.scored_split),
        "num_queries": number,
        "num_available": available if expected is None else expected,
        "is_subset": number < available or (expected is not None and number != expected),
    }


def _describe_protocol(
    task: Task, config: EvaluationConfig, pools: Mapping[int, Demonstrations], balanced: bool, support_size: int
) -> dict[str, Any]:
    """Describe the settings as they took effect."""
    return asdict(config) | {
        "seeds": list(pools),
        "balanced": balanced,
        "support_size": max(len(pool.pool) for pool in pools.values()),
        "num_orders": config.num_orders if task.generation is None else 1,
        "draw_by": config.draw_by if config.selection == "random" else None,
        "is_support_subset": max(len(pool.pool) for pool in pools.values()) < support_size,
    }


def _run_all(
    task: Task,
    engine: FewShotEngine,
    processor: FlamingoProcessor,
    pools: Mapping[int, Demonstrations],
    config: EvaluationConfig,
    queries: Sequence[Example],
    directory: Path,
    state: PartialState,
) -> list[dict[str, Any]]:
    """
    Return the mean, the spread and the scores of all seeds, for each number of shots.

    The runs of one seed go together: each shows the first of the demonstrations that the one with most shots shows. Without shots
    nothing is shared with them.
    """
    conditions = ("", "blind_") if config.blind else ("",)
    runs = {
        (shots, condition, seed): PredictionRun(
            task,
            engine,
            processor,
            pool,
            shots=shots,
            seed=seed,
            num_orders=config.num_orders,
            is_blind=bool(condition),
        )
        for shots in config.shots
        for condition in conditions
        for seed, pool in pools.items()
    }
    meter = _plan(task, engine, processor, pools, runs, queries, directory, state)
    scores: dict[tuple[int, str, int], dict[str, float]] = {}
    groups = [group for group in ([0] if 0 in config.shots else [], sorted({*config.shots} - {0})) if group]
    with meter:
        for (seed, pool), condition, group in product(pools.items(), conditions, groups):
            keys = [(shots, condition, seed) for shots in group]
            together = [runs[key] for key in keys]
            found = execute_together(together, directory, queries, state, meter, pool.draw_keys)
            scores |= zip(keys, found, strict=True)
    results = []
    for shots in config.shots:
        entry: dict[str, Any] = {"shots": shots}
        for condition in conditions:
            by_seed = {str(seed): scores[shots, condition, seed] for seed in pools}
            values = [score[task.metric] for score in by_seed.values()]
            entry[f"{condition}mean"], entry[f"{condition}std"] = float(np.mean(values)), float(np.std(values))
            entry[f"{condition}scores"] = by_seed
        results.append(entry)
    return results


def _plan(
    task: Task,
    engine: FewShotEngine,
    processor: FlamingoProcessor,
    pools: Mapping[int, Demonstrations],
    runs: Mapping[tuple[int, str, int], PredictionRun],
    queries: Sequence[Example],
    directory: Path,
    state: PartialState,
) -> CostMeter:
    """Say what all runs will cost, and return the meter of it."""
    ids = {query.id for query in queries}
    pool = next(iter(pools.values()))
    shots = list(dict.fromkeys(shots for shots, _, _ in runs))
    run = next(iter(runs.values()))
    per_draw = len(queries) / len({pool.draw_keys[query.id] for query in queries})
    is_nested = pool.selection == "random" and can_align(engine.model)
    tokens = {}
    for n in shots:
        # The first order of fewer shots is a part of that of the most shots
        num_prefixes = run.num_orders - (is_nested and 0 < n < max(shots))
        tokens[n] = estimate_tokens(task, processor, pool, queries, n, run.num_orders, num_prefixes / per_draw)
    costs = {
        run.name: RunCost(len(ids - run.read(directory).keys()), tokens[shots]) for (shots, _, _), run in runs.items()
    }
    has_blind = any(condition for _, condition, _ in runs)
    images = estimate_images(queries, pools, shots, engine.max_cached_media)
    if state.is_main_process:
        say(describe_cost(task.name, shots, list(pools), has_blind, len(queries), list(costs.values()), images))
    state.wait_for_everyone()  # all have counted before one of them writes
    return CostMeter(task.name, costs, state.num_processes, state.is_main_process)
