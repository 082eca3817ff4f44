# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
State of a run that stock checkpoints lack: the position in the data, and statistics. It makes resuming exact.

Each process has its own state, in its own file of a checkpoint, because it reads its own part of each stream and adds up its
own losses. `transformers.trainer_callback.ExportableState` cannot hold it: `Trainer` asks only the main process for the state
of its callbacks, and restores it in new objects after it has asked for the loader, which needs the position.
"""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object

from ..saving_flamingo import write_json
from .arguments import FlamingoTrainingArguments
from .image_use_history import ImageUseHistory
from .micro_batch import MixtureBatch
from .mixture import DataMixture
from .statistics import LogAccumulator, RunStatistics, from_json


def data_seed(args: FlamingoTrainingArguments) -> int:
    """Return the seed of the data."""
    return args.seed if args.data_seed is None else args.data_seed


@dataclass
class DataPosition:
    """
    Position of one process in a mixture.

    Args:
        setup (`dict`): Everything that the position depends on: in other data it would be another place.
        micro_batch (`int`): Number of the next micro-batch.
        streams (`dict`): For each streamed source (its index as a string) the states of its shards, by their number.
        skipped (`dict`):
            For each source the bad rows that this process has skipped: their numbers, or for a stream how many they are.
    """

    setup: dict[str, Any]
    micro_batch: int = 0
    streams: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    skipped: dict[str, list[int] | int] = field(default_factory=dict)

    @classmethod
    def at_start(
        cls, mixture: DataMixture, args: FlamingoTrainingArguments, gradient_accumulation_steps: int
    ) -> "DataPosition":
        """
        Return the position before the first micro-batch.

        Args:
            mixture ([`DataMixture`]): The mixture.
            args ([`FlamingoTrainingArguments`]): The arguments of the trainer.
            gradient_accumulation_steps (`int`): Micro-batches of one source per optimizer step.
        """
        # Only the last part of a path, because data may be moved
        sources = [{**asdict(source), "path": os.path.basename(source.path)} for source in mixture.sources]
        setup = {
            "seed": data_seed(args),
            "strategy": args.mixture_strategy,
            "gradient_accumulation_steps": gradient_accumulation_steps,
            "processes": args.world_size,
            "sources": json.loads(json.dumps(sources)),  # as they are when they come out of a file
            # The permutation of a source that is not streamed depends on the number of its rows
            "rows": [
                None if source.streaming else len(rows)
                for source, rows in zip(mixture.sources, mixture.rows, strict=True)
            ],
        }
        if any(source.streaming for source in mixture.sources):
            setup["dataloader_num_workers"] = args.dataloader_num_workers
            # The order of its files depends on their number, and a position in one on what is before it
            setup["files"] = [
                rows.describe_files() if source.streaming else None
                for source, rows in zip(mixture.sources, mixture.rows, strict=True)
            ]
        return cls(setup)

    def advance(self, batches: Sequence[MixtureBatch], sources: Sequence[str]) -> list[tuple[str, str]]:
        """
        Move behind the next micro-batches.

        Args:
            batches (`list[MixtureBatch]`): The micro-batches.
            sources (`list[str]`): Names of the sources.

        Returns:
            `list[tuple[str, str]]`: The source of each row that was skipped for the first time, and what is wrong with it. A
            row is read again in each pass, and as a replacement of others.
        """
        self.micro_batch += len(batches)
        messages = []
        for batch in batches:
            name = sources[batch.source]
            for row, is_new, message in batch.skipped:
                if row is None:
                    self.skipped[name] = self.skipped.get(name, 0) + is_new
                elif is_new := row not in self.skipped.setdefault(name, []):
                    self.skipped[name].append(row)
                if is_new:
                    messages.append((name, message))
            if batch.stream is not None:
                shard, state = batch.stream
                self.streams.setdefault(str(batch.source), {})[str(shard)] = state
        return messages

    def count_skipped(self) -> dict[str, int]:
        """Count the different rows that any process has skipped, by source. Every process calls this."""
        of_all = gather_object([self.skipped])
        counts = {}
        for name in {name for of_one in of_all for name in of_one}:
            given = [of_one[name] for of_one in of_all if name in of_one]
            is_counted = isinstance(given[0], int)  # the processes share a stream without overlap
            counts[name] = sum(given) if is_counted else len({row for rows in given for row in rows})
        return counts

    def check_is_of(self, current: "DataPosition", checkpoint: Path) -> None:
        """
        Raise an error if this position, which a checkpoint saved, is not one in the current data.

        Raises:
            ValueError: the data, or the way they are read, have changed.
        """
        saved, current = self.setup, current.setup
        changed = [name for name in saved | current if saved.get(name) != current.get(name)]
        if changed:
            raise ValueError(
                f"The checkpoint {str(checkpoint)!r} is of a run with other {', '.join(changed)}: saved "
                f"{ {name: saved.get(name) for name in changed} }, current { {name: current.get(name) for name in changed} }. "
                "The saved data position is no longer valid. Use the same settings, or restart the data with "
                "`ignore_data_skip=True` (`--ignore_data_skip true`)."
            )


class RunState:
    """
    State of one process in a run.

    Args:
        device (`torch.device`): The device of the losses.
        max_non_finite_steps (`int`): See [`FlamingoTrainingArguments`].
        position ([`DataPosition`], *optional*): The position in the mixture. `None` for another dataset.
        sources (`Sequence[str]`, *optional*): Names of the sources of the mixture.

    Attributes:
        statistics ([`RunStatistics`]): Totals of the run.
        log ([`LogAccumulator`]): Metrics since the last log step.
        image_use ([`ImageUseHistory`]): Whether the model uses its images.
        steps_before (`int`): Number of optimizer steps before this call of `train`.
        stock_log (`tuple`, *optional*):
            After `load`, the stock loop's sum of losses since the last log step, and that step. The loop begins with 0.
    """

    def __init__(
        self,
        device: torch.device,
        max_non_finite_steps: int,
        position: DataPosition | None = None,
        sources: Sequence[str] = (),
    ):
        self.position = position
        self.statistics = RunStatistics(device, max_non_finite_steps)
        self.log = LogAccumulator(sources)
        self.image_use = ImageUseHistory(sources or [""])
        self.steps_before = 0
        self.stock_log: tuple[float, int] | None = None

    def save(
        self, checkpoint: Path, process: int, *, step: int, loss: float, last_logged: int, has_optimizer: bool
    ) -> None:
        """
        Write the state of this process into a checkpoint.

        Args:
            checkpoint (`Path`): The checkpoint.
            process (`int`): Index of this process.
            step (`int`): Number of optimizer steps of the run.
            loss (`float`): The stock loop's sum of losses since the last log step.
            last_logged (`int`): The last log step.
            has_optimizer (`bool`): Whether the checkpoint has the state of the optimizer.
        """
        state = {
            "data": None if self.position is None else asdict(self.position),
            "statistics": {**self.statistics.state(), "steps": step},
            "has_optimizer": has_optimizer,
            "log": {**self.log.state(), "loss": loss, "last_logged": last_logged},
            "image_use": self.image_use.state(),
        }
        write_json(_file(checkpoint, process), state)

    def load(self, checkpoint: Path, process: int, *, restart_data: bool) -> None:
        """
        Continue from the state of this process in a checkpoint.

        Args:
            checkpoint (`Path`): The checkpoint.
            process (`int`): Index of this process.
            restart_data (`bool`): Whether to keep the current position in the data instead of the saved one.

        Raises:
            ValueError: the checkpoint is not one of this run.
        """
        file = _file(checkpoint, process)
        if not file.is_file():
            raise ValueError(
                f"There is no {file.name} in {str(checkpoint)!r}: the run had fewer processes, or another trainer."
            )
        state = json.loads(file.read_text(encoding="utf-8"))
        if not state["has_optimizer"]:
            raise ValueError(
                f"{str(checkpoint)!r} was saved with `save_only_model`: without the state of its optimizer, the run would "
                "continue as another one. Begin a new run with the checkpoint as its model (in a recipe, `model`)."
            )
        self.log.load(state["log"])
        self.image_use.load(state["image_use"])
        self.stock_log = (from_json(state["log"]["loss"]), state["log"]["last_logged"])
        self.statistics.load(state["statistics"])
        self.steps_before = state["statistics"]["steps"]
        if self.position is None or restart_data:
            return
        saved = DataPosition(**(state["data"] or {"setup": {}}))
        saved.check_is_of(self.position, checkpoint)
        self.position = saved


def _file(checkpoint: Path, process: int) -> Path:
    """Return the path of the state of a process in a checkpoint."""
    return checkpoint / f"run_state_{process}.json"
