# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
The few-shot protocol of the paper and OpenFlamingo over one task: `flamingo evaluate`.

Each pair of a number of shots and a seed is a *run*. Its predictions are kept as they come, so that a run that was
killed goes on where it stopped, and several processes share its queries.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from PIL import Image
from tqdm.auto import tqdm

from ..model_card import package_versions
from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor
from .demonstrations import Demonstrations, Selection, build_prompt, orders
from .engine import FewShotEngine, Medium, Prompt
from .retrieval import ImageEmbedder
from .task import Example, Prediction, Task
from .video import Video


RESULTS_NAME = "results.json"
SETTINGS_NAME = "settings.json"

_BLANK = Medium("blank", Image.new("RGB", (224, 224), (127, 127, 127)), "The blank image")


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """
    How a task is evaluated. The defaults are OpenFlamingo's.

    Args:
        shots (`tuple[int, ...]`, *optional*, defaults to `(0, 4, 8, 16, 32)`):
            Demonstrations before a query. At 0, `num_text_demonstrations` of the task are shown without their images.
        seeds (`tuple[int, ...]`, *optional*, defaults to `(0, 1, 2)`): Each draws its own demonstrations.
        selection (`str`, *optional*, defaults to `"random"`): See [`Demonstrations`].
        balanced (`bool`, *optional*): Whether demonstrations are class-balanced; by default where examples have groups.
        support_size (`int`, *optional*, defaults to 2048): Examples that demonstrations are drawn from.
        num_queries (`int`, *optional*): Queries that are asked, by chance (the same for all seeds); all by default.
        num_orders (`int`, *optional*, defaults to 1):
            Prompt ensembling, for ranking: log-likelihoods are averaged over so many orders of the demonstrations. The
            paper's and OpenFlamingo's 6.
        blind (`bool`, *optional*, defaults to `True`):
            Whether every prompt is also asked with a grey picture in the place of each image, for the blind score.
        rices_clip (`str`, *optional*): See [`ImageEmbedder`].

    Raises:
        ValueError: a value is out of its range.
    """

    shots: tuple[int, ...] = (0, 4, 8, 16, 32)
    seeds: tuple[int, ...] = (0, 1, 2)
    selection: Selection = "random"
    balanced: bool | None = None
    support_size: int | None = 2048
    num_queries: int | None = None
    num_orders: int = 1
    blind: bool = True
    rices_clip: str | None = None

    def __post_init__(self):
        object.__setattr__(self, "shots", tuple(self.shots))
        object.__setattr__(self, "seeds", tuple(self.seeds))
        for name in ("shots", "seeds"):
            values = getattr(self, name)
            if not values or min(values) < 0 or len(set(values)) < len(values):
                raise ValueError(f"`{name}` is {values}. Give at least one, none twice and none below 0.")
        for name in ("support_size", "num_queries", "num_orders"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}, but it must be at least 1.")


def evaluate(
    model: FlamingoModel,
    processor: FlamingoProcessor,
    task: Task,
    output_dir: str | os.PathLike,
    protocol: Protocol | None = None,
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

    A run that was killed goes on where it stopped when it is called again. Under `accelerate launch` or `torchrun` the
    processes share the queries. Predictions do not depend on the number of processes, the batch size or the order.

    Args:
        model ([`FlamingoModel`]): The model, on its device.
        processor ([`FlamingoProcessor`]): Its processor.
        task ([`Task`]): What it is evaluated on.
        output_dir (`str`): Where to write.
        protocol ([`Protocol`], *optional*): How.
        batch_size (`int`, *optional*, defaults to 8): Queries answered together.
        model_name (`str`, *optional*): For the results.

    Returns:
        `dict` with `task`, `metric`, `model`, `num_queries`, `protocol`, `versions` and `results`, a list with for each
        number of shots `shots`, `mean`, `std` (over the seeds, population) and `scores` of each seed, and the same as
        `blind_mean`, `blind_std` and `blind_scores`.

    Raises:
        ValueError: the output directory is of other settings, or the support pool is too small.
        FileNotFoundError: an image is missing. Nothing was computed then.
    """
    protocol = protocol or Protocol()
    state = PartialState(cpu=model.device.type == "cpu")  # or it would not see the other processes of `torchrun`
    directory = Path(output_dir)
    queries, support = list(task.queries()), list(task.support())
    if protocol.num_queries is not None and protocol.num_queries < len(queries):
        chosen = np.random.default_rng(0).choice(len(queries), protocol.num_queries, replace=False)
        queries = [queries[i] for i in sorted(chosen)]
    _check(task, queries, support, protocol)
    _check_texts(task, processor, chain(queries, support))
    if batch_size < 1:
        raise ValueError(f"`batch_size` is {batch_size}, but it must be at least 1.")
    engine = FewShotEngine(model, processor, batch_size=batch_size, shares_prefix=protocol.selection == "fixed")
    embed = None
    if protocol.selection == "rices":
        embed = ImageEmbedder(model, processor, clip=protocol.rices_clip)
    balanced = protocol.balanced
    if balanced is None:
        balanced = task.generation is None and all(example.group is not None for example in support)
    pools = {
        seed: Demonstrations(
            support,
            selection=protocol.selection,
            support_size=protocol.support_size,
            seed=seed,
            balanced=balanced,
            embed=embed,
        )
        for seed in protocol.seeds
    }
    _check_media(task, chain(queries, *(pool.pool for pool in pools.values())))
    if state.is_main_process:
        directory.mkdir(parents=True, exist_ok=True)
        settings = asdict(protocol) | {
            "task": repr(task),
            "model": model_name,
            "weights": weights_fingerprint(model),
            "queries": len(queries),
            "examples": _examples_fingerprint(chain(queries, support)),
        }
        _check_settings(directory / SETTINGS_NAME, settings)
    state.wait_for_everyone()

    results = []
    for shots in protocol.shots:
        entry: dict[str, Any] = {"shots": shots}
        for condition in ("", "blind_") if protocol.blind else ("",):
            scores = []
            for seed, pool in pools.items():
                run = _Run(task, engine, processor, pool, shots, seed, protocol.num_orders, is_blind=bool(condition))
                scores.append(run.execute(directory, queries, state))
            values = [score[task.metric] for score in scores]
            entry[f"{condition}mean"], entry[f"{condition}std"] = float(np.mean(values)), float(np.std(values))
            entry[f"{condition}scores"] = dict(zip(map(str, protocol.seeds), scores, strict=True))
        results.append(entry)
    summary = {
        "task": task.name,
        "metric": task.metric,
        "model": model_name,
        "weights": weights_fingerprint(model),
        "num_queries": len(queries),
        "protocol": asdict(protocol)
        | {"shots": list(protocol.shots), "seeds": list(protocol.seeds), "balanced": balanced},
        "results": results,
        "versions": package_versions("torch", "transformers", "transformers-flamingo"),
    }
    if (directory / RESULTS_NAME).is_file():
        earlier = json.loads((directory / RESULTS_NAME).read_text(encoding="utf-8"))
        summary = _merge(earlier, summary, task.metric)
    state.wait_for_everyone()
    if state.is_main_process:
        (directory / RESULTS_NAME).write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    state.wait_for_everyone()
    return summary


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
        done = _read(whole) if whole.is_file() else {}
        for part in directory.glob(f"{self.name}.part-*.jsonl"):
            done |= _read(part)
        state.wait_for_everyone()  # all have read before one writes
        missing = [query for query in queries if query.id not in done]
        mine = missing[state.process_index :: state.num_processes]
        if mine:
            self._predict(directory / f"{self.name}.part-{state.process_index}.jsonl", mine, state)
        state.wait_for_everyone()
        parts = sorted(directory.glob(f"{self.name}.part-*.jsonl"))
        for part in parts:
            done |= _read(part)
        records = [done[query.id] for query in queries]
        predictions = [Prediction(q, r["text"], r["likelihoods"]) for q, r in zip(queries, records, strict=True)]
        each = self.task.score_each(predictions)
        state.wait_for_everyone()
        if state.is_main_process and (parts or not whole.is_file()):
            for record, score in zip(records, each or [None] * len(records), strict=True):
                record["score"] = score
            temporary = whole.with_suffix(".tmp")
            temporary.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
            temporary.replace(whole)
            for part in parts:
                part.unlink()
        return self.task.score(predictions)

    def _predict(self, path: Path, queries: Sequence[Example], state: PartialState) -> None:
        if path.is_file():  # a line that a kill cut short must not run into the next
            whole = path.read_bytes()
            os.truncate(path, whole.rfind(b"\n") + 1)
        # So many at once that queries of like length find each other
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
                    file.write(json.dumps(record) + "\n")
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


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """The records of a file by id. A last line that was cut short is not one."""
    records = {}
    for line in path.read_text(encoding="utf-8").split("\n")[:-1]:
        record = json.loads(line)
        records[record["id"]] = record
    return records


def _check(task: Task, queries: Sequence[Example], support: Sequence[Example], protocol: Protocol) -> None:
    ids = [query.id for query in queries]
    if not ids or len(set(ids)) < len(ids):
        raise ValueError(f"{task.name} has {len(ids)} queries with {len(set(ids))} different ids. Each needs its own.")
    most = max(max(protocol.shots), task.num_text_demonstrations if 0 in protocol.shots else 0)
    available = len(support) if protocol.support_size is None else min(len(support), protocol.support_size)
    if most > available:
        raise ValueError(f"{most} demonstrations are asked for, and {task.name} has {available} to choose from.")
    without = [query.id for query in queries if task.generation is None and not query.candidates]
    if without:
        raise ValueError(
            f"{task.name} ranks candidates, and {len(without)} queries have none, such as {without[0]!r}."
        )


def _check_media(task: Task, examples: Iterable[Example]) -> None:
    missing = sorted(
        {
            path
            for example in examples
            for medium in example.media
            for frame in (medium if isinstance(medium, list | tuple) else [medium])
            if (path := _path(frame)) is not None and not os.path.exists(path)
        }
    )
    if missing:
        raise FileNotFoundError(
            f"{task.name}: {len(missing)} images or videos are missing, such as {', '.join(missing[:5])}. Nothing was computed. "
            "Fetch them, or check where the task looks for them."
        )


def _path(medium: Any) -> str | None:
    """The local path of a medium, if it is one."""
    if isinstance(medium, Video):
        medium = medium.path
    if isinstance(medium, dict):
        medium = medium.get("path") if medium.get("bytes") is None else None
    is_path = isinstance(medium, str | os.PathLike) and "://" not in str(medium)
    return str(medium) if is_path else None


def _check_texts(task: Task, processor: FlamingoProcessor, examples: Iterable[Example]) -> None:
    """A marker in the data would be read as one."""
    for example in examples:
        for text in (example.prompt, example.answer or ""):
            if processor.image_token in text or processor.end_of_chunk_token in text:
                raise ValueError(
                    f"{task.name}, example {example.id!r}: the text {text!r} contains {processor.image_token!r} or "
                    f"{processor.end_of_chunk_token!r}, which would be read as a marker. Remove it from the data."
                )


def weights_fingerprint(model: FlamingoModel) -> str:
    """Tells models apart: names, shapes, dtypes and some values of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        flat = tensor.detach().flatten()
        some = flat[:: max(1, len(flat) // 64)][:65]
        digest.update(some.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _examples_fingerprint(examples: Iterable[Example]) -> str:
    digest = hashlib.sha256()
    for e in examples:
        digest.update(repr((e.id, e.prompt, e.answer, e.references, e.candidates, e.group)).encode())
    return digest.hexdigest()[:16]


def _merge(earlier: dict[str, Any], summary: dict[str, Any], metric: str) -> dict[str, Any]:
    """The results of an earlier call with other shots or seeds, and those of this one."""
    by_shots = {entry["shots"]: entry for entry in earlier["results"]}
    for entry in summary["results"]:
        merged = by_shots.setdefault(entry["shots"], {"shots": entry["shots"]})
        for condition in ("", "blind_"):
            scores = merged.get(f"{condition}scores", {}) | entry.get(f"{condition}scores", {})
            if scores:
                values = [score[metric] for score in scores.values()]
                merged[f"{condition}mean"], merged[f"{condition}std"] = float(np.mean(values)), float(np.std(values))
                merged[f"{condition}scores"] = scores
    protocol = dict(summary["protocol"])
    for name in ("shots", "seeds"):
        protocol[name] = sorted({*earlier["protocol"][name], *protocol[name]})
    return {**summary, "protocol": protocol, "results": [by_shots[shots] for shots in sorted(by_shots)]}


def _check_settings(path: Path, settings: dict[str, Any]) -> None:
    """What the predictions there depend on must be what they depend on here."""
    # Each run is in a file of its own: these may be added to
    settings = {key: value for key, value in settings.items() if key not in ("shots", "seeds", "blind")}
    if path.is_file():
        there = json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name in settings if there.get(name) != settings[name]]
        if changed:
            raise ValueError(
                f"{str(path.parent)!r} has predictions with other {', '.join(changed)}: "
                f"{ {name: there.get(name) for name in changed} } there, "
                f"{ {name: settings[name] for name in changed} } here. Choose another output directory, or delete it."
            )
    else:
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)
