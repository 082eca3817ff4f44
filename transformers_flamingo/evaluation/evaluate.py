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

from ..cards.model_card import package_versions
from ..few_shot.demonstrations import DRAW_VERSION, Demonstrations, make_draw_keys
from ..few_shot.engine import FewShotEngine
from ..few_shot.examples import Example
from ..few_shot.retrieval import ImageEmbedder
from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor
from ..saving_flamingo import write_json
from ..utils.fingerprint import fingerprint_weights
from ..utils.redaction import redact_values
from .checks import check_media, check_model, check_references, check_task, check_texts, fingerprint_examples
from .config import EvaluationConfig
from .folder import RESULTS_NAME, hold_folder, merge_summaries
from .lengths import check_lengths
from .predictions import PredictionRun, execute_together
from .task import Task


# Prefixes of the scores with the images and without
CONDITIONS = ("", "blind_")


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
        config ([`EvaluationConfig`], *optional*): Settings. By default they are those of OpenFlamingo.
        batch_size (`int`, *optional*, defaults to 8): Number of queries answered together.
        model_name (`str`, *optional*): Name of the model in the results.

    Returns:
        `dict` with `task`, `split`, `metric`, `model`, `num_queries`, `num_available` (in the whole split), `is_subset`,
        `protocol`, `versions` and `results`. The latter is a list with an entry for each number of shots: `shots`, `mean`, `std`
        (over the seeds, of the population) and `scores` of each seed, and the same as `blind_mean`, `blind_std` and
        `blind_scores`.

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
    queries = _choose_queries(available, config.num_queries)
    check_task(task, queries, support, config)
    check_references(task, queries)
    check_texts(task, processor, chain(queries, support))
    check_model(model)
    engine = FewShotEngine(model, processor, batch_size=batch_size)
    balanced = _is_balanced(task, support, config)
    draw_keys = make_draw_keys(queries, available, by=config.draw_by, size=config.queries_per_draw)
    pools = _draw_pools(model, processor, support, config, balanced, draw_keys)
    check_media(task, chain(queries, *(pool.pool for pool in pools.values())))
    check_lengths(model, processor, task, queries, pools, config.shots)
    weights = fingerprint_weights(model.state_dict())
    settings = asdict(config) | {
        "task": repr(task),
        "model": model_name,
        "weights": weights,
        "queries": len(queries),
        "examples": fingerprint_examples(chain(queries, support)),
        "draw": DRAW_VERSION,
    }
    with hold_folder(directory, redact_values(settings)) as earlier:
        summary = {
            **_describe_queries(task, len(queries), len(available)),
            "metric": task.metric,
            "model": model_name,
            "weights": weights,
            "protocol": _describe_protocol(task, config, pools, balanced),
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


def _choose_queries(available: list[Example], number: int | None) -> list[Example]:
    """Return all queries, or a random subset that is the same for all seeds."""
    if number is None or number >= len(available):
        return available
    chosen = np.random.default_rng(0).choice(len(available), number, replace=False)
    return [available[i] for i in sorted(chosen)]


def _is_balanced(task: Task, support: Sequence[Example], config: EvaluationConfig) -> bool:
    """Return whether demonstrations are class-balanced. By default they are where candidates are ranked and all examples have a group."""
    if config.balanced is not None:
        return config.balanced
    return task.generation is None and all(example.group is not None for example in support)


def _draw_pools(
    model: FlamingoModel,
    processor: FlamingoProcessor,
    support: Sequence[Example],
    config: EvaluationConfig,
    balanced: bool,
    draw_keys: Mapping[str, str],
) -> dict[int, Demonstrations]:
    """Draw the pool of demonstrations of each seed. All share one embedder, so that each image is encoded once."""
    embed = ImageEmbedder(model, processor, clip=config.rices_clip) if config.selection == "rices" else None
    return {
        seed: Demonstrations(
            support,
            selection=config.selection,
            support_size=config.support_size,
            seed=seed,
            balanced=balanced,
            embed=embed,
            draw_keys=draw_keys,
        )
        for seed in config.seeds
    }


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
    task: Task, config: EvaluationConfig, pools: Mapping[int, Demonstrations], balanced: bool
) -> dict[str, Any]:
    """Describe the settings as they took effect."""
    return asdict(config) | {
        "balanced": balanced,
        "support_size": max(len(pool.pool) for pool in pools.values()),
        "num_orders": config.num_orders if task.generation is None else 1,
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

    The runs of one seed go together: each shows the first of the demonstrations that the one with most shots shows.
    """
    entries: dict[int, dict[str, Any]] = {shots: {"shots": shots} for shots in config.shots}
    # Without shots nothing is shared with the others
    groups = [group for group in ([0] if 0 in entries else [], sorted(entries.keys() - {0})) if group]
    for (seed, pool), condition, group in product(
        pools.items(), CONDITIONS if config.blind else CONDITIONS[:1], groups
    ):
        runs = [
            PredictionRun(
                task,
                engine,
                processor,
                pool,
                shots=shots,
                seed=seed,
                num_orders=config.num_orders,
                is_blind=bool(condition),
            )
            for shots in group
        ]
        for shots, scores in zip(
            group, execute_together(runs, directory, queries, state, pool.draw_keys), strict=True
        ):
            entries[shots].setdefault(f"{condition}scores", {})[str(seed)] = scores
    for entry in entries.values():
        for condition in CONDITIONS:
            values = [score[task.metric] for score in entry.get(f"{condition}scores", {}).values()]
            if values:
                entry[f"{condition}mean"], entry[f"{condition}std"] = float(np.mean(values)), float(np.std(values))
    return list(entries.values())
