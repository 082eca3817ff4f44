# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Results as a picture and as rows of a card."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..model_card import FlamingoModelCardData
from ..modeling_flamingo import FlamingoModel
from .evaluate import RESULTS_NAME, weights_fingerprint
from .published import PublishedScore


def read_results(directory: str | os.PathLike) -> list[dict[str, Any]]:
    """What [`evaluate`] wrote into the folders of `directory`, in the order of their names."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(Path(directory).glob(f"*/{RESULTS_NAME}"))]


def card_scores(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """A result of [`evaluate`] as `scores` of [`FlamingoModelCardData`]."""
    several = len(summary["protocol"]["seeds"]) > 1
    return [
        {
            "task": summary["task"],
            "metric": summary["metric"],
            "shots": entry["shots"],
            "value": entry["mean"],
            "std": entry["std"] if several else None,
            "blind": entry.get("blind_mean"),
        }
        for entry in summary["results"]
    ]


def write_evaluation_card(model: FlamingoModel, directory: str | os.PathLike, **facts: Any) -> None:
    """
    Write `README.md` into `directory`: the card of a model with its results in the folders there, and no other model's.

    Args:
        model ([`FlamingoModel`]): The model.
        directory (`str`): The output directory, a folder for each task in it.
        facts: Other fields of [`FlamingoModelCardData`].
    """
    weights = weights_fingerprint(model)
    summaries = [summary for summary in read_results(directory) if summary["weights"] == weights]
    scores = [score for summary in summaries for score in card_scores(summary)]
    card = FlamingoModelCardData.from_model(model, scores=scores, **facts)
    card.save(Path(directory) / "README.md")


def plot_results(path: str | os.PathLike, summary: dict[str, Any], published: Sequence[PublishedScore] = ()) -> None:
    """
    Score against shots, with its spread over seeds, the blind score dotted and published scores thin. Needs matplotlib.

    Args:
        path (`str`): The picture.
        summary (`dict`): What [`evaluate`] returned.
        published (`Sequence[PublishedScore]`, *optional*): Those of the same task.
    """
    import matplotlib

    matplotlib.use("Agg")  # no screen is needed
    from matplotlib import pyplot as plt

    entries = sorted(summary["results"], key=lambda entry: entry["shots"])
    shots = [entry["shots"] for entry in entries]
    # Shots double: equal steps for them, 0 included
    place = {count: i for i, count in enumerate(sorted({*shots, *(row.shots for row in published)}))}
    figure, axes = plt.subplots(figsize=(11, 4.5))
    axes.set_prop_cycle(color=plt.get_cmap("tab20").colors)
    series: dict[str, list[PublishedScore]] = {}
    for row in sorted(published, key=lambda row: row.shots):
        series.setdefault(row.model + (", RICES" if row.demonstrations == "rices" else ""), []).append(row)
    for name, rows in sorted(series.items()):
        places, values = [place[row.shots] for row in rows], [row.score for row in rows]
        axes.plot(places, values, ".-", linewidth=0.8, alpha=0.6, label=f"{name} (published)")
    for prefix, style, label in (("", "o-", summary["model"] or "this model"), ("blind_", "o:", "blind")):
        if f"{prefix}mean" in entries[0]:
            means, stds = ([entry[f"{prefix}{kind}"] for entry in entries] for kind in ("mean", "std"))
            places = [place[count] for count in shots]
            axes.errorbar(places, means, yerr=stds, fmt=style, color="black", capsize=3, markersize=4, label=label)
    axes.set(xlabel="shots", ylabel=summary["metric"], title=summary["task"])
    axes.set_xticks(list(place.values()), [str(count) for count in place])
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1.01, 1), borderaxespad=0)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
