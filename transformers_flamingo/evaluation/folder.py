# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The folder of an evaluation: locks it, checks its settings, and reads and merges its results."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from transformers.utils import logging

from ..saving_flamingo import write_json
from ..utils.folders import call_on_main_process, check_folder_is_shared, lock_folder


logger = logging.get_logger(__name__)

RESULTS_NAME = "results.json"
SETTINGS_NAME = "settings.json"
LOCK_NAME = ".lock"

# Each run has its own file, so runs with other shots and seeds may be added. The last two change no prediction
_NOT_COMPARED = ("shots", "seeds", "blind", "protocol", "rices_index")


@contextmanager
def hold_folder(directory: Path, settings: dict[str, Any]) -> Iterator[dict[str, Any] | None]:
    """
    Lock a folder against other evaluations, and check that its content belongs to this one.

    The processes of one `accelerate launch` or `torchrun` share the folder, and the main process holds the lock. The operating
    system releases it when that process ends, even if it is killed.

    Args:
        directory (`Path`): The folder. It is made if it is missing.
        settings (`dict`): The settings that the predictions depend on.

    Yields:
        `dict` or `None`: The earlier results in the folder, if there are any.

    Raises:
        ValueError: the folder is of other settings, or its settings are damaged. Raised in all processes.
        OSError: another evaluation is writing into it, it cannot be written, or another machine does not see it. Raised in all
            processes.
    """
    message = (
        f"Another evaluation is writing into {str(directory)!r}. Wait until it ends, or choose another output directory. "
        "To share the work between processes, start them with `accelerate launch` or `torchrun`."
    )

    def take() -> None:
        lock.enter_context(lock_folder(directory, LOCK_NAME, message=message))
        _check_settings(directory / SETTINGS_NAME, settings)
        if (directory / RESULTS_NAME).is_file() and read_summary(directory / RESULTS_NAME) is None:
            set_aside(directory / RESULTS_NAME, "The scores are computed again from the predictions.")

    with ExitStack() as lock:
        call_on_main_process(take)
        check_folder_is_shared(directory, "the predictions")
        yield read_summary(directory / RESULTS_NAME)


def _check_settings(path: Path, settings: dict[str, Any]) -> None:
    """Refuse to mix predictions made with different settings."""
    settings = {key: value for key, value in settings.items() if key not in _NOT_COMPARED}
    if not path.is_file():
        write_json(path, settings)
        return
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name in settings if saved.get(name) != settings[name]]
    except (ValueError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"{str(path)!r} is damaged ({error}), so it is unknown which settings the predictions next to it were made with. Delete the folder, "
            "or choose another output directory."
        ) from error
    if changed:
        raise ValueError(
            f"{str(path.parent)!r} has predictions with other {', '.join(changed)}: saved "
            f"{ {name: saved.get(name) for name in changed} }, current { {name: settings[name] for name in changed} }. Choose "
            "another output directory, or delete it."
        )


def read_summary(path: Path) -> dict[str, Any] | None:
    """Read the results of one evaluation. Return `None` if there are none, or the file is damaged or not one of results."""
    if not path.is_file():  # a FIFO would wait for a writer
        return None
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        facts = [summary[name] for name in ("task", "metric", "weights")]
        whole = [*summary["protocol"]["shots"], *summary["protocol"]["seeds"]]
        numbers = []
        for entry in summary["results"]:
            whole.append(entry["shots"])
            for condition in ("", "blind_") if "blind_mean" in entry or "blind_scores" in entry else ("",):
                numbers += [entry[f"{condition}mean"], entry[f"{condition}std"]]
                numbers += [score[summary["metric"]] for score in entry[f"{condition}scores"].values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    is_complete = bool(summary["results"]) and all(isinstance(fact, str) for fact in facts)
    is_complete &= all(isinstance(number, int) and not isinstance(number, bool) for number in whole)
    return summary if is_complete and all(isinstance(number, int | float) for number in numbers) else None


def set_aside(path: Path, consequence: str) -> None:
    """Rename a damaged file, so that it is neither read nor lost, and log a warning that ends with `consequence`."""
    name = path.name + ".damaged"
    logger.warning(f"{str(path)!r} is truncated or damaged. It is renamed to {name!r}. {consequence}")
    path.replace(path.with_name(name))


def merge_summaries(earlier: dict[str, Any], summary: dict[str, Any], metric: str) -> dict[str, Any]:
    """Merge the results of an earlier evaluation, with other shots or seeds, into those of this one."""
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
