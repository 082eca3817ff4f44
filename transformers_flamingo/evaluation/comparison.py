# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Why a score is not that of the papers: the facts of its task, and the settings of its run."""

from collections.abc import Mapping
from typing import Any

from ..few_shot.demonstrations import RANDOM_POOL_SIZE
from .config import OPEN_FLAMINGO_CLIP
from .task import Task


def find_mismatch(scored: Mapping[str, Any]) -> str:
    """
    Find out why scores are not those of the benchmark, whatever the settings.

    Args:
        scored (`Mapping`): What was scored, as in [`describe_differences`].

    Returns:
        `str`: The reason, empty if there is none.
    """
    if scored.get("is_subset"):
        return "subset" if scored["num_queries"] < scored["num_available"] else "other data"
    return "" if scored.get("is_published_split", True) else "another split"


def judge_comparability(task: Task, scored: Mapping[str, Any]) -> str | None:
    """
    Return whether scores may be compared with published ones: "no" with a reason, or the verdict of the task.

    Args:
        task ([`Task`]): The task.
        scored (`Mapping`): What was scored, as in [`describe_differences`].

    Returns:
        `str`, or `None` for a task that the papers lack.
    """
    if task.comparison is None:
        return None
    reason = find_mismatch(scored)
    return f"no ({reason})" if reason else task.comparison.verdict


def describe_differences(task: Task, protocol: Mapping[str, Any], scored: Mapping[str, Any]) -> list[str]:
    """
    List what keeps the scores of a run from being compared with published ones, in words.

    Args:
        task ([`Task`]): The task.
        protocol (`Mapping`): The settings as they took effect: `protocol` of the results.
        scored (`Mapping`): What was scored: `is_subset`, `num_queries`, `num_available` and `is_published_split` of the results.

    Returns:
        `list[str]`: The differences of this run, followed by those of the task. Empty if there are none, and for a task that the papers lack.
    """
    if task.comparison is None:
        return []
    found = []
    if scored["is_subset"]:
        found.append(f"{scored['num_queries']:,} queries instead of {scored['num_available']:,}")
    if not scored["is_published_split"]:
        found.append(f"split {scored['split']}, not that of the papers")
    if protocol["selection"] == "fixed":
        found.append("one set of demonstrations for all queries, not one for each")
    if protocol.get("queries_per_draw", 1) > 1:
        found.append(f"one random set of demonstrations for {protocol['queries_per_draw']} queries, not one for each")
    if protocol["selection"] == "random" and protocol["support_size"] != RANDOM_POOL_SIZE:
        found.append(f"demonstrations from {protocol['support_size']:,} examples, not {RANDOM_POOL_SIZE:,}")
    if protocol["selection"] == "rices" and protocol.get("is_support_subset"):
        found.append(f"nearest of {protocol['support_size']:,} examples, not of the whole training set")
    if protocol["selection"] == "rices" and OPEN_FLAMINGO_CLIP.split("/")[1] not in (protocol["rices_clip"] or ""):
        encoder = protocol["rices_clip"] or "the model's own vision encoder"
        found.append(f"images compared by {encoder}, not by CLIP ViT-L/14 (`rices_clip`)")
    if protocol.get("rices_faiss"):
        found.append(f"nearest images found by {protocol['rices_faiss']} of faiss, which may be approximate")
    expected = {"balanced": False} | dict(task.comparison.settings)
    found += [
        f"`{name}` is {protocol[name]}, there {value}" for name, value in expected.items() if protocol[name] != value
    ]
    return [*found, *task.comparison.differences]
