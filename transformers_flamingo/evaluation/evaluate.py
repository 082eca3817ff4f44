# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
The few-shot protocol of the paper and OpenFlamingo over one task: `flamingo evaluate`.

Each pair of a number of shots and a seed is a *run*. Its predictions are kept as they come, so that a run that was
killed resumes where it stopped, and several processes share its queries.
"""

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from tqdm.auto import tqdm

from ..cards.model_card import package_versions
from ..data import blank_image
from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor
from ..saving_flamingo import write_json, write_text
from ..utils.fingerprint import fingerprint_weights
from ..utils.redaction import redact_values
from .checks import (
    check_media,
    check_model,
    check_references,
    check_task,
    check_texts,
    fingerprint_examples,
)
from .config import EvaluationConfig
from .demonstrations import Demonstrations, build_prompt, orders
from .engine import FewShotEngine, MediaItem, Prompt
from .folder import RESULTS_NAME, hold_folder, merge_summaries, read_predictions
from .lengths import check_lengths
from .retrieval import ImageEmbedder
from .task import Example, Prediction, Task


_BLANK = MediaItem("blank", blank_image((224, 224)), "The blank image")


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

    - `shots-K_seed-S.jsonl`, and with `_blind` at its end the blind one: a line for each query with `id`, `shots` (the
      ids of the demonstrations), `prompt`, `text`, `likelihoods` of the candidates, `references` and `score`;
    - `results.json`: what is returned;
    - `settings.json`: what the predictions depend on. A run with others is refused there.

    A run that was killed resumes where it stopped when it is called again. Under `accelerate launch` or `torchrun` the
    processes share the queries. Predictions do not depend on the number of processes, the batch size or the order.

    Args:
        model ([`FlamingoModel`]): The model, on its device.
        processor ([`FlamingoProcessor`]): Its processor.
        task ([`Task`]): What it is evaluated on.
        output_dir (`str`): Where to write.
        config ([`EvaluationConfig`], *optional*): How.
        batch_size (`int`, *optional*, defaults to 8): Queries answered together.
        model_name (`str`, *optional*): For the results.

    Returns:
        `dict` with `task`, `split`, `metric`, `model`, `num_queries`, `num_available` (of the whole split), `is_subset`,
        `protocol`, `versions` and `results`, a list with for each number of shots `shots`, `mean`, `std` (over the seeds,
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
    queries = _choose_queries(available, config.num_queries)
    check_task(task, queries, support, config)
    check_references(task, queries)
    check_texts(task, processor, chain(queries, support))
    check_model(model)
    engine = FewShotEngine(model, processor, batch_size=batch_size, shares_prefix=config.selection == "fixed")
    pools, balanced = _draw_pools(model, processor, task, support, config)
    check_media(task, chain(queries, *(pool.pool for pool in pools.values())))
    check_lengths(model, processor, task, queries, pools, config.shots)
    settings = asdict(config) | {
        "task": repr(task),
        "model": model_name,
        "weights": fingerprint_weights(model.state_dict()),
        "queries": len(queries),
        "examples": fingerprint_examples(chain(queries, support)),
    }
    with hold_folder(directory, redact_values(settings)) as earlier:
        summary = {
            **_describe(task, len(queries), len(available)),
            "metric": task.metric,
            "model": model_name,
            "weights": settings["weights"],
            "protocol": asdict(config)
            | {
                "shots": list(config.shots),
                "seeds": list(config.seeds),
                "balanced": balanced,
                # What had an effect
                "support_size": max(len(pool.pool) for pool in pools.values()),
                "num_orders": config.num_orders if task.generation is None else 1,
            },
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
    if number is None or number >= len(available):
        return available
    chosen = np.random.default_rng(0).choice(len(available), number, replace=False)
    return [available[i] for i in sorted(chosen)]


def _draw_pools(
    model: FlamingoModel, processor: FlamingoProcessor, task: Task, support: list[Example], config: EvaluationConfig
) -> tuple[dict[int, Demonstrations], bool]:
    """Draw the demonstrations of each seed, and say whether they are class-balanced."""
    balanced = config.balanced
    if balanced is None:
        balanced = task.generation is None and all(example.group is not None for example in support)
    embed = None
    if config.selection == "rices":
        embed = ImageEmbedder(model, processor, clip=config.rices_clip)
    pools = {
        seed: Demonstrations(
            support,
            selection=config.selection,
            support_size=config.support_size,
            seed=seed,
            balanced=balanced,
            embed=embed,
        )
        for seed in config.seeds
    }
    return pools, balanced


def _describe(task: Task, number: int, available: int) -> dict[str, Any]:
    """Say what was scored: a number of queries is a benchmark's score only if they are all of its queries."""
    expected = task.split_sizes.get(task.scored_split)
    return {
        "task": task.name,
        "split": task.scored_split,
        "is_published_split": task.scored_split == next(iter(task.split_sizes), task.scored_split),
        "num_queries": number,
        "num_available": available if expected is None else expected,
        "is_subset": number < available or (expected is not None and number != expected),
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
    results = []
    for shots in config.shots:
        entry: dict[str, Any] = {"shots": shots}
        for condition in ("", "blind_") if config.blind else ("",):
            scores = []
            for seed, pool in pools.items():
                run = _Run(task, engine, processor, pool, shots, seed, config.num_orders, is_blind=bool(condition))
                scores.append(run.execute(directory, queries, state))
            values = [score[task.metric] for score in scores]
            entry[f"{condition}mean"], entry[f"{condition}std"] = float(np.mean(values)), float(np.std(values))
            entry[f"{condition}scores"] = dict(zip(map(str, config.seeds), scores, strict=True))
        results.append(entry)
    return results


class _Run:
    """The predictions of one number of shots and one seed."""

    def __init__(
        self,
        task: Task,
        engine: FewShotEngine,
        processor: FlamingoProcessor,
        pool: Demonstrations,
        shots: int,
        seed: int,
        num_orders: int,
        is_blind: bool,
    ):
        self.task, self.engine, self.processor, self.pool = task, engine, processor, pool
        self.shots, self.seed, self.is_blind = shots, seed, is_blind
        self.num_orders = num_orders if task.generation is None else 1
        self.name = f"shots-{shots}_seed-{seed}" + ("_blind" if is_blind else "")

    def execute(self, directory: Path, queries: Sequence[Example], state: PartialState) -> dict[str, float]:
        """Predict what is not predicted yet, put it together, and score it."""
        whole = directory / f"{self.name}.jsonl"
        done = read_predictions(whole) if whole.is_file() else {}
        for part in directory.glob(f"{self.name}.part-*.jsonl"):
            done |= read_predictions(part)
        state.wait_for_everyone()  # all have read before one writes
        missing = [query for query in queries if query.id not in done]
        mine = missing[state.process_index :: state.num_processes]
        if mine:
            self._predict(directory / f"{self.name}.part-{state.process_index}.jsonl", mine, state)
        state.wait_for_everyone()
        parts = sorted(directory.glob(f"{self.name}.part-*.jsonl"))
        for part in parts:
            done |= read_predictions(part)
        gone = [query.id for query in queries if query.id not in done]
        if gone:
            raise OSError(
                f"{str(directory)!r}: the predictions of {len(gone)} queries of {self.name} are gone, such as {gone[0]!r}. Another "
                "process writes into this folder. Choose another output directory."
            )
        records = [done[query.id] for query in queries]
        predictions = [Prediction(q, r["text"], r["likelihoods"]) for q, r in zip(queries, records, strict=True)]
        each, scores = self.task.score_each(predictions), self.task.score(predictions)
        if not all(map(math.isfinite, [*(each or ()), *scores.values()])):
            raise ValueError(
                f"{self.task.name}, {self.name}: the scores {scores} are not numbers. Check the references of the task."
            )
        state.wait_for_everyone()
        if state.is_main_process and (parts or not whole.is_file()):
            for record, score in zip(records, each or [None] * len(records), strict=True):
                record["score"] = score
            write_text(whole, "".join(_line(record) for record in records))
            for part in parts:
                part.unlink()
        return scores

    def _predict(self, path: Path, queries: Sequence[Example], state: PartialState) -> None:
        if path.is_file():  # a line that a kill cut short must not run into the next
            whole = path.read_bytes()
            os.truncate(path, whole.rfind(b"\n") + 1)
        # Several batches at once: queries of like length find each other
        step = 4 * self.engine.batch_size
        scores: list[float] = []
        with (
            open(path, "a", encoding="utf-8") as file,
            tqdm(total=len(queries), desc=f"{self.task.name} {self.name}", disable=not state.is_main_process) as bar,
        ):
            for start in range(0, len(queries), step):
                chosen = queries[start : start + step]
                new: list[Prediction] = []
                for query, record in zip(chosen, self._answer(chosen), strict=True):
                    file.write(_line(record))
                    new.append(Prediction(query, record["text"], record["likelihoods"]))
                file.flush()
                # Of a metric that looks at all predictions at once (CIDEr), a mean over parts is a rough guide
                scores += self.task.score_each(new) or []
                bar.set_postfix({self.task.metric: 100 * float(np.mean(scores))} if scores else {})
                bar.update(len(chosen))

    def _answer(self, queries: Sequence[Example]) -> Iterator[dict[str, Any]]:
        count = self.shots or self.task.num_text_demonstrations
        shots = [self.pool.choose(query, count) for query in queries]
        ordered = [orders(own, self.num_orders, self.seed) if self.num_orders > 1 else [own] for own in shots]
        prompts = [[self._prompt(query, order) for order in own] for query, own in zip(queries, ordered, strict=True)]
        if self.task.generation is not None:
            texts = self.engine.generate([own[0] for own in prompts], self.task.generation)
            answers = [(self.task.postprocess(text), None) for text in texts]
        else:
            answers = self._rank(queries, prompts)
        for query, own, (text, likelihoods), asked in zip(queries, shots, answers, prompts, strict=True):
            yield {
                "id": query.id,
                "shots": [example.id for example in own],
                "prompt": asked[0].text,
                "text": text,
                "likelihoods": likelihoods,
                "references": query.references,
            }

    def _rank(self, queries: Sequence[Example], prompts: list[list[Prompt]]) -> list[tuple[str, list[float]]]:
        flat = [prompt for own in prompts for prompt in own]
        candidates = [query.candidates for query, own in zip(queries, prompts, strict=True) for _ in own]
        scores = iter(self.engine.rank(flat, candidates, length_normalised=self.task.length_normalised))
        answers = []
        for query, own in zip(queries, prompts, strict=True):
            mean = np.mean([next(scores) for _ in own], axis=0)
            answers.append((query.candidates[int(mean.argmax())], mean.tolist()))
        return answers

    def _prompt(self, query: Example, demonstrations: Sequence[Example]) -> Prompt:
        prompt = build_prompt(self.task, self.processor, query, demonstrations, text_only=self.shots == 0)
        if self.is_blind:
            blank = {name: (_BLANK,) * len(getattr(prompt, name)) for name in ("prefix_media", "query_media")}
            prompt = replace(prompt, **blank)
        return prompt


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"
