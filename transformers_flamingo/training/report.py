# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Figures of a training run, from its log. Needs matplotlib."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..cards.plotting import Curve, plot_branches, plot_gates, plot_image_use, plot_losses, plot_scores
from .held_out import SCORES


def plot_run(directory: str | Path, log: Sequence[Mapping[str, Any]]) -> None:
    """
    Draw what [`FlamingoTrainer`] logged, where there is something to show: `loss.png`, `image_use.png`, `gates.png`, `branches.png`
    and `scores.png`.

    Args:
        directory (`str`): Where to.
        log (`Sequence[dict]`): `trainer.state.log_history`.
    """
    directory = Path(directory)
    curves: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for entry in log:
        for name, value in entry.items():
            if isinstance(value, int | float):
                curves[name].append((entry["step"], value))

    def named(prefix: str, suffix: str = "") -> dict[str, Curve]:
        names = [name for name in curves if name.startswith(prefix) and name.endswith(suffix)]
        return {name.removeprefix(prefix).removesuffix(suffix) or "all": curves[name] for name in names}

    training = named("loss/") or {"training": curves["loss"]}
    held_out = {name.removesuffix("_").replace("_blind", ", blind"): c for name, c in named("eval_", "loss").items()}
    if held_out or any(training.values()):  # a short run may end before its first log
        plot_losses(directory / "loss.png", {name: curve for name, curve in training.items() if curve}, held_out)

    swapped = {"other": named("image_use/loss_other_images"), "blank": named("image_use/loss_blank_images")}
    if swapped["other"] or swapped["blank"]:
        own = {name: c for name, c in named("image_use/loss").items() if not name.startswith("_")}
        plot_image_use(
            directory / "image_use.png",
            {name.removeprefix("/"): curve for name, curve in own.items()},
            {
                f"{name.removeprefix('/')}, {kind}": c
                for kind, of_kind in swapped.items()
                for name, c in of_kind.items()
            },
        )

    for prefix, file, plot in (("gate", "gates.png", plot_gates), ("branch", "branches.png", plot_branches)):
        values = {kind: named(f"{prefix}/{kind}/") for kind in ("attn", "ffn")}
        if values["attn"]:
            layers = [int(layer) for layer in values["attn"]]
            steps = [step for step, _ in next(iter(values["attn"].values()))]
            history = [
                {"step": step}
                | {kind: [curve[i][1] for curve in of_kind.values()] for kind, of_kind in values.items()}
                for i, step in enumerate(steps)
            ]
            plot(directory / file, history, layers)

    scores = {name: curve for score in SCORES for name, curve in _scores(named("eval_", score), score).items()}
    if scores:
        plot_scores(directory / "scores.png", scores)


def _scores(curves: Mapping[str, Curve], score: str) -> dict[str, Curve]:
    return {f"{name.removesuffix('_').replace('_blind', ', blind')}: {score}": c for name, c in curves.items()}
