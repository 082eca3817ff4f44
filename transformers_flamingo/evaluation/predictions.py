# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Predictions of a run: one number of shots, one seed, with or without images.

They are written line by line as they are made, so an interrupted run resumes where it stopped. Each process writes its own
file, `NAME.part-RANK.jsonl`, and the main process joins them into `NAME.jsonl` at the end.

Runs that differ in the number of shots alone are made together, because each of them shows the first of the demonstrations that the
largest shows. So do the queries with the same demonstrations, one after another.
"""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from accelerate import PartialState
from transformers.utils import logging

from ..data import blank_image
from ..few_shot.demonstrations import Demonstrations, permute_demonstrations
from ..few_shot.engine import FewShotEngine
from ..few_shot.examples import Example
from ..few_shot.prompts import MediaItem, Prompt, build_prompt, media_identity
from ..processing_flamingo import FlamingoProcessor
from ..saving_flamingo import write_text
from ..utils.names import count_of
from .cost import CostMeter
from .task import Prediction, Task


logger = logging.get_logger(__name__)

_BLANK = MediaItem("blank", blank_image((224, 224)), "The blank image")

# Fields of a line, and those without which it is damaged
_FIELDS = ("id", "shots", "prompt", "text", "likelihoods", "references", "score")
_REQUIRED_FIELDS = {"id", "text", "likelihoods"}


class PredictionRun:
    """
    Predictions and scores of one number of shots and one seed.

    Args:
        task ([`Task`]): The task.
        engine ([`FewShotEngine`]): Generates or ranks.
        processor ([`FlamingoProcessor`]): Builds the prompts.
        pool ([`Demonstrations`]): Chooses the demonstrations of this seed.
        shots (`int`): Number of demonstrations. At 0, `num_text_demonstrations` of the task are shown without their images.
        seed (`int`): Seed of the permutations of demonstrations.
        num_orders (`int`): Number of orders of the demonstrations to average over, when candidates are ranked.
        is_blind (`bool`): Whether each image is replaced by a blank one.

    Attributes:
        name (`str`): Name of the files, such as `"shots-4_seed-0_blind"`.
    """

    def __init__(
        self,
        task: Task,
        engine: FewShotEngine,
        processor: FlamingoProcessor,
        pool: Demonstrations,
        *,
        shots: int,
        seed: int,
        num_orders: int,
        is_blind: bool,
    ):
        self.task, self.engine, self.processor, self.pool = task, engine, processor, pool
        self.shots, self.seed, self.is_blind = shots, seed, is_blind
        self.num_orders = num_orders if task.generation is None else 1
        self.name = f"shots-{shots}_seed-{seed}" + ("_blind" if is_blind else "")

    def read(self, directory: Path) -> dict[str, dict[str, Any]]:
        """Read the predictions that are there, those of all processes, by the id of their query."""
        whole = directory / f"{self.name}.jsonl"
        records = read_predictions(whole) if whole.is_file() else {}
        for part in directory.glob(f"{self.name}.part-*.jsonl"):
            records |= read_predictions(part)
        return records

    def open_part(self, directory: Path, rank: int) -> TextIO:
        """Open the file of a process, to append predictions."""
        path = directory / f"{self.name}.part-{rank}.jsonl"
        if path.is_file():  # a line that was cut off must not run into the next
            content = path.read_bytes()
            os.truncate(path, content.rfind(b"\n") + 1)
        return open(path, "a", encoding="utf-8")

    def finish(
        self, directory: Path, queries: Sequence[Example], records: dict[str, dict[str, Any]], state: PartialState
    ) -> dict[str, float]:
        """
        Join the predictions of all processes, and score them.

        Args:
            directory (`Path`): The folder of the task.
            queries (`Sequence[Example]`): All queries, in order.
            records (`dict`): What [`~PredictionRun.read`] gave before missing predictions were made.
            state (`PartialState`): The processes that share the queries.

        Returns:
            `dict[str, float]`: The scores by name.

        Raises:
            OSError: predictions that were written are gone.
            ValueError: a score is not a finite number.
        """
        whole = directory / f"{self.name}.jsonl"
        parts = sorted(directory.glob(f"{self.name}.part-*.jsonl"))
        for part in parts:
            records |= read_predictions(part)
        gone = [query.id for query in queries if query.id not in records]
        if gone:
            raise OSError(
                f"{str(directory)!r}: the predictions of {count_of(len(gone), 'query', 'queries')} of {self.name} are gone, such as {gone[0]!r}. Another "
                "process writes into this folder. Choose another output directory."
            )
        ordered = [records[query.id] for query in queries]
        each, scores = self._score(queries, ordered)
        state.wait_for_everyone()
        if state.is_main_process and (parts or not whole.is_file()):
            for record, score in zip(ordered, each or [None] * len(ordered), strict=True):
                record["score"] = score
            write_text(whole, "".join(_to_line(record) for record in ordered))
            for part in parts:
                part.unlink()
        return scores

    def _score(
        self, queries: Sequence[Example], records: Sequence[dict[str, Any]]
    ) -> tuple[list[float] | None, dict[str, float]]:
        """Return the score of each prediction, if the metric has them, and the scores of all by name."""
        predictions = [Prediction(q, r["text"], r["likelihoods"]) for q, r in zip(queries, records, strict=True)]
        each, scores = self.task.score_each(predictions), self.task.score(predictions)
        if not all(map(math.isfinite, [*(each or ()), *scores.values()])):
            raise ValueError(
                f"{self.task.name}, {self.name}: the scores {scores} are not finite numbers. Check the references of the task."
            )
        return each, scores

    def make_prompts(self, query: Example) -> tuple[list[Example], list[Prompt]]:
        """Return the demonstrations of a query, and a prompt for each order of them."""
        demonstrations = self.pool.choose(query, self.shots or self.task.num_text_demonstrations)
        orders = [demonstrations]
        if self.num_orders > 1:
            orders = permute_demonstrations(demonstrations, self.num_orders, self.seed)
        return demonstrations, [self._build_prompt(query, order) for order in orders]

    def _build_prompt(self, query: Example, demonstrations: Sequence[Example]) -> Prompt:
        prompt = build_prompt(
            self.processor,
            query,
            demonstrations,
            text_only=self.shots == 0,
            separator=self.task.demonstration_separator,
        )
        # An image is encoded once for all questions about it
        media = tuple(replace(item, key=media_identity(item.data) or item.key) for item in prompt.query_media)
        prompt = replace(prompt, query_media=media)
        if self.is_blind:
            blank = {name: (_BLANK,) * len(getattr(prompt, name)) for name in ("prefix_media", "query_media")}
            prompt = replace(prompt, **blank)
        return prompt


def execute_together(
    runs: Sequence[PredictionRun],
    directory: Path,
    queries: Sequence[Example],
    state: PartialState,
    meter: CostMeter,
    draw_keys: Mapping[str, str],
) -> list[dict[str, float]]:
    """
    Make the missing predictions of runs of one task and engine, join those of all processes, and score each run.

    Args:
        runs (`Sequence[PredictionRun]`): The runs. They share what their prompts have in common.
        directory (`Path`): The folder of the task.
        queries (`Sequence[Example]`): All queries, in order.
        state (`PartialState`): The processes that share the queries.
        meter ([`CostMeter`]): Shows how much of all runs is done.
        draw_keys (`Mapping[str, str]`): For the id of each query, what it has in common with those of the same demonstrations.

    Returns:
        `list[dict[str, float]]`: The scores of each run by name.

    Raises:
        OSError: predictions that were written are gone.
        ValueError: a score is not a finite number.
    """
    records = [run.read(directory) for run in runs]
    state.wait_for_everyone()  # all processes have read before one of them writes
    by_draw: dict[str, list[tuple[Example, list[int]]]] = {}
    for query in queries:
        missing = [i for i, found in enumerate(records) if query.id not in found]
        if missing:
            by_draw.setdefault(draw_keys[query.id], []).append((query, missing))
    own_draws = list(by_draw.values())[state.process_index :: state.num_processes]
    if own_draws:
        _predict(runs, directory, [pair for draw in own_draws for pair in draw], state, meter)
    state.wait_for_everyone()
    return [run.finish(directory, queries, found, state) for run, found in zip(runs, records, strict=True)]


def _predict(
    runs: Sequence[PredictionRun],
    directory: Path,
    missing: Sequence[tuple[Example, list[int]]],
    state: PartialState,
    meter: CostMeter,
) -> None:
    """Answer queries, each for the runs that it is missing in, and append the predictions to the files of the runs."""
    task, engine = runs[0].task, runs[0].engine
    # Several batches at once, from which the engine makes batches of similar length
    step = 4 * engine.batch_size
    scores: dict[int, list[float]] = {i: [] for i in sorted({i for _, indices in missing for i in indices})}
    with ExitStack() as files:
        parts = {i: files.enter_context(runs[i].open_part(directory, state.process_index)) for i in scores}
        for start in range(0, len(missing), step):
            chosen = [(i, query) for query, indices in missing[start : start + step] for i in indices]
            new: dict[int, list[Prediction]] = {}
            for (i, query), record in zip(chosen, _answer([(runs[i], query) for i, query in chosen]), strict=True):
                parts[i].write(_to_line(record))
                new.setdefault(i, []).append(Prediction(query, record["text"], record["likelihoods"]))
            for part in parts.values():
                part.flush()
            for i, predictions in new.items():
                # A rough guide for metrics of all predictions at once (CIDEr): the mean over parts
                scores[i] += task.score_each(predictions) or []
                score = 100 * float(np.mean(scores[i])) if scores[i] else None
                meter.advance(runs[i].name, len(predictions), score)


def _answer(asked: Sequence[tuple[PredictionRun, Example]]) -> Iterator[dict[str, Any]]:
    """Yield the record of each query in its run, as it is written."""
    task, engine = asked[0][0].task, asked[0][0].engine
    made = [run.make_prompts(query) for run, query in asked]
    if task.generation is not None:
        texts = engine.generate([prompts[0] for _, prompts in made], task.generation)
        answers: Iterable[tuple[str, list[float] | None]] = ((task.postprocess(text), None) for text in texts)
    else:
        answers = _rank(task, engine, [query for _, query in asked], [prompts for _, prompts in made])
    for (_, query), (demonstrations, prompts), (text, likelihoods) in zip(asked, made, answers, strict=True):
        yield {
            "id": query.id,
            "shots": [example.id for example in demonstrations],
            "prompt": prompts[0].text,
            "text": text,
            "likelihoods": likelihoods,
            "references": query.references,
        }


def _rank(
    task: Task, engine: FewShotEngine, queries: Sequence[Example], prompts: Sequence[Sequence[Prompt]]
) -> list[tuple[str, list[float]]]:
    """Return the best candidate of each query, with the likelihoods of all, averaged over its prompts."""
    flat = [prompt for query_prompts in prompts for prompt in query_prompts]
    candidates = [
        query.candidates for query, query_prompts in zip(queries, prompts, strict=True) for _ in query_prompts
    ]
    scores = iter(engine.rank(flat, candidates, length_normalized=task.length_normalized))
    answers = []
    for query, query_prompts in zip(queries, prompts, strict=True):
        mean = np.mean([next(scores) for _ in query_prompts], axis=0)
        answers.append((query.candidates[int(mean.argmax())], mean.tolist()))
    return answers


def read_predictions(path: Path) -> dict[str, dict[str, Any]]:
    """
    Read the predictions of one run by the id of their query.

    A last line that was cut off is ignored. Other damaged lines are reported and skipped, and their queries are answered again.
    """
    records, damaged = {}, 0
    for line in path.read_bytes().split(b"\n")[:-1]:
        try:
            record = json.loads(line)
            records[record["id"]] = {name: record[name] for name in _FIELDS if name in record}
            complete = record.keys() >= _REQUIRED_FIELDS and isinstance(record["text"], str)
            if complete and record["likelihoods"] is not None:
                complete = all(isinstance(value, float | int) for value in record["likelihoods"])
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            damaged += 1
            continue
        if not complete:
            del records[record["id"]]
            damaged += 1
    if damaged:
        logger.warning(f"{str(path)!r} has {count_of(damaged, 'damaged line')}, whose queries are answered again.")
    return records


def _to_line(record: dict[str, Any]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"
