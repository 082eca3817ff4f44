# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Report of an evaluation: a plot, and rows of a model card."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cards.model_card import FlamingoModelCardData
from ..modeling_flamingo import FlamingoModel
from ..utils.fingerprint import fingerprint_weights
from .comparison import find_mismatch
from .folder import RESULTS_NAME, read_summary, set_aside
from .published import PublishedScore


if TYPE_CHECKING:
    from matplotlib.figure import Figure


def read_results(directory: str | os.PathLike) -> list[dict[str, Any]]:
    """Read what [`evaluate`] wrote into the folders of `directory`, in the order of their names, and skip damaged files."""
    summaries = [read_summary(path) for path in sorted(Path(directory).glob(f"*/{RESULTS_NAME}"))]
    return [summary for summary in summaries if summary is not None]


def check_results(directory: str | os.PathLike) -> None:
    """Rename damaged results in the folders of `directory`, with a warning. Otherwise the card would silently lack them."""
    for path in sorted(Path(directory).glob(f"*/{RESULTS_NAME}")):
        if read_summary(path) is None:
            set_aside(path, "The card lacks its scores until that task is evaluated again.")


def describe_queries(summary: dict[str, Any]) -> str:
    """
    Name the scored queries: `"coco"`, or `"coco, subset of 48 of 5,000 queries"`.

    Only a score over all queries of a benchmark has its bare name.
    """
    if not summary.get("is_subset"):
        return summary["task"]
    number, available = summary["num_queries"], summary["num_available"]
    if number < available:
        return f"{summary['task']}, subset of {number:,} of {available:,} queries"
    return f"{summary['task']}, other data: {number:,} queries instead of {available:,}"


def describe_comparability(summary: dict[str, Any]) -> str | None:
    """Describe in a sentence whether scores may be compared with published ones, and what is not as there. `None` if nothing is known."""
    if summary.get("comparable") is None:
        return None
    text = f"{summary['task']}: comparable with published scores: {summary['comparable']}."
    differences = summary.get("differences", ())
    return f"{text} Not as there: {'; '.join(differences)}." if differences else text


def card_scores(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Convert a result of [`evaluate`] to `scores` of [`FlamingoModelCardData`]."""
    protocol = summary["protocol"]
    scores = []
    for entry in summary["results"]:
        seeds = list(map(int, entry["scores"]))
        score = {
            "task": describe_queries(summary),
            "metric": f"{summary['metric']}, subset" if summary.get("is_subset") else summary["metric"],
            "shots": entry["shots"],
            "value": entry["mean"],
            "std": entry["std"] if len(seeds) > 1 else None,
            "blind": entry.get("blind_mean"),
            "queries": summary.get("num_queries"),
            "split": summary.get("split"),
            "seeds": seeds,
            "demonstrations": _demonstrations(protocol),
        }
        scores.append(score)
    return scores


def _demonstrations(protocol: dict[str, Any]) -> str:
    """Describe the choice of demonstrations: `"random from 2,048"`."""
    words = [protocol["selection"]]
    if protocol.get("support_size") is not None:
        words.append(f"from {protocol['support_size']:,}")
    if protocol.get("queries_per_draw", 1) > 1:
        words.append(f"for {protocol['queries_per_draw']} queries each")
    if protocol.get("num_orders", 1) > 1:
        words.append(f"in {protocol['num_orders']} orders")
    return " ".join(words)


def write_evaluation_card(model: FlamingoModel, directory: str | os.PathLike, **facts: Any) -> None:
    """
    Write `README.md` into `directory`: the card of a model with its results in the folders of `directory`.

    Results of other models are left out. A fingerprint of the weights tells models apart.

    Args:
        model ([`FlamingoModel`]): The model.
        directory (`str`): The output directory, a folder for each task in it.
        facts: Other fields of [`FlamingoModelCardData`].
    """
    weights = fingerprint_weights(model.state_dict())
    summaries = [summary for summary in read_results(directory) if summary["weights"] == weights]
    scores = [score for summary in summaries for score in card_scores(summary)]
    notes = [*facts.pop("notes", ()), *filter(None, map(describe_comparability, summaries))]
    card = FlamingoModelCardData.from_model(model, scores=scores, notes=notes, **facts)
    card.save(Path(directory) / "README.md")


def plot_results(
    path: str | os.PathLike, summary: dict[str, Any], published: Sequence[PublishedScore] = ()
) -> "Figure":
    """
    Plot score against shots, with its spread over seeds, the blind score dotted and published scores thin. Needs matplotlib.

    Split, number of queries, seeds and selection are in the title. A score that is not comparable with the published ones (of a
    subset, of other data, of another split) says so there and in the legend.

    Args:
        path (`str`): The image file.
        summary (`dict`): What [`evaluate`] returned.
        published (`Sequence[PublishedScore]`, *optional*): Those of the same task.

    Returns:
        `matplotlib.figure.Figure`: The figure that was written.
    """
    from ..cards.plotting import ShotCurve, ShotPanel, plot_shots

    series: dict[str, dict[int, float]] = {}
    for row in published:
        name = row.model + (", RICES" if row.demonstrations == "rices" else "")
        series.setdefault(name, {})[row.shots] = row.score
    curves = [ShotCurve(f"{name} (published)", scores, style="published") for name, scores in sorted(series.items())]
    mark = find_mismatch(summary)
    name = (summary["model"] or "this model") + (f" ({mark})" if mark else "")
    for prefix, style, label in (("", "measured", name), ("blind_", "control", "blind")):
        entries = [entry for entry in summary["results"] if f"{prefix}mean" in entry]
        if entries:
            means, stds = ({e["shots"]: e[f"{prefix}{kind}"] for e in entries} for kind in ("mean", "std"))
            curves.append(ShotCurve(label, means, "black", style, stds))
    return plot_shots(path, [ShotPanel(plot_title(summary, bool(published)), curves)], summary["metric"])


def plot_title(summary: dict[str, Any], has_published: bool) -> str:
    """Describe a plot, and state if its scores are not comparable with published ones."""
    split = f", split {summary['split']}" if summary.get("split") else ""
    seeds = sorted({int(seed) for entry in summary["results"] for seed in entry["scores"]})
    title = (
        f"{describe_queries(summary)}{split}\n{summary['num_queries']:,} queries; seeds {', '.join(map(str, seeds))}; "
    )
    title += f"demonstrations {_demonstrations(summary['protocol'])}"
    if not has_published:
        return title
    if mark := find_mismatch(summary):
        return f"{title}\nnot comparable with the published scores: {mark}"
    verdict = summary.get("comparable") or "yes"
    return title if verdict == "yes" else f"{title}\ncomparable with the published scores: {verdict}"
