# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Settings of a few-shot evaluation. `flamingo evaluate --help` is made from the fields and their `help`."""

from dataclasses import dataclass, field
from typing import get_args

from ..few_shot.demonstrations import DrawBy, Selection


@dataclass(kw_only=True)
class EvaluationConfig:
    """
    Settings of a few-shot evaluation. The defaults are OpenFlamingo's.

    Args:
        shots (`list[int]`, *optional*, defaults to `[0, 4, 8, 16, 32]`):
            Numbers of demonstrations before a query. At 0, `num_text_demonstrations` of the task are shown without their images.
        seeds (`list[int]`, *optional*, defaults to `[0, 1, 2]`): Seeds from 0 to 2^32 - 1. Each draws its own demonstrations.
        selection (`str`, *optional*, defaults to `"random"`): See [`Demonstrations`].
        balanced (`bool`, *optional*):
            Whether demonstrations are class-balanced. By default they are if the task ranks candidates and all examples have a group.
        support_size (`int`, *optional*, defaults to 2048):
            Number of random examples that demonstrations are drawn from. `None` uses all.
        draw_by (`str`, *optional*, defaults to `"image"`):
            Whether random demonstrations are drawn for each `"image"`, so that all questions about it have the same and share their
            computation, or for each `"query"`, as OpenFlamingo does. A query gets each set with the same probability either way, so
            the mean of the scores over draws is the same, too. Where images have several questions, scores of single seeds differ a little more.
        queries_per_draw (`int`, *optional*, defaults to 1):
            At least so many queries have the same random demonstrations and share their computation. With more than 1, the scores of single
            seeds differ more. 1 is the protocol of the papers.
        num_queries (`int`, *optional*): Size of a random subset of the queries, the same for all seeds. By default all are asked.
        num_orders (`int`, *optional*, defaults to 1):
            Prompt ensembling for ranking: log-likelihoods are averaged over this many orders of the demonstrations. 6 in
            the paper and in OpenFlamingo.
        blind (`bool`, *optional*, defaults to `True`):
            Whether to repeat every prompt with a gray image instead of each image, for the blind score.
        rices_clip (`str`, *optional*): See [`ImageEmbedder`].

    Raises:
        ValueError: a value is out of its range.
    """

    shots: list[int] = field(
        default_factory=lambda: [0, 4, 8, 16, 32],
        metadata={"help": "Numbers of demonstrations before a query; at 0 some are shown without their images."},
    )
    seeds: list[int] = field(
        default_factory=lambda: [0, 1, 2], metadata={"help": "Seeds. Each draws its own demonstrations."}
    )
    selection: Selection = field(
        default="random",
        metadata={
            "help": "How to select demonstrations: a random set per query, one fixed set, or the most similar images."
        },
    )
    balanced: bool | None = field(
        default=None,
        metadata={
            "help": "Whether demonstrations are class-balanced. By default they are where candidates are ranked and all examples "
            "have a class."
        },
    )
    support_size: int | None = field(
        default=2048, metadata={"help": "Number of random examples that demonstrations are drawn from."}
    )
    draw_by: DrawBy = field(
        default="image",
        metadata={
            "help": "Whether random demonstrations are drawn for each image, so that all its questions share them and what they cost, "
            "or for each query."
        },
    )
    queries_per_draw: int = field(
        default=1,
        metadata={
            "help": "At least so many queries share random demonstrations, and what they cost. With more than 1, scores vary more from "
            "seed to seed."
        },
    )
    num_queries: int | None = field(
        default=None,
        metadata={
            "help": "Number of queries to draw at random. Scores of a subset are marked as such. By default all queries are used."
        },
    )
    num_orders: int = field(
        default=1,
        metadata={"help": "Number of orders of the demonstrations to average over, when candidates are ranked."},
    )
    blind: bool = field(default=True, metadata={"help": "Whether to compute the blind (no-image) baseline."})
    rices_clip: str | None = field(
        default=None,
        metadata={
            "help": "Name or directory of a CLIP or SigLIP to compare images by, with `rices`. By default the model's own vision "
            "encoder is used."
        },
    )

    def __post_init__(self):
        self.shots, self.seeds = list(self.shots), list(self.seeds)
        for name in ("shots", "seeds"):
            values = getattr(self, name)
            if not values or min(values) < 0 or len(set(values)) < len(values):
                raise ValueError(f"`{name}` is {values}. Give at least one, none twice and none below 0.")
        if max(self.seeds) >= 2**32:
            raise ValueError(f"`seeds` is {self.seeds}. numpy takes seeds from 0 to {2**32 - 1}.")
        if self.selection not in get_args(Selection):
            raise ValueError(f"`selection` is {self.selection!r}. It can be {', '.join(get_args(Selection))}.")
        if self.draw_by not in get_args(DrawBy):
            raise ValueError(f"`draw_by` is {self.draw_by!r}. It can be {', '.join(get_args(DrawBy))}.")
        for name in ("support_size", "queries_per_draw", "num_queries", "num_orders"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}, but it must be at least 1.")
        for name, default in (("draw_by", "image"), ("queries_per_draw", 1)):
            if getattr(self, name) != default and self.selection != "random":
                raise ValueError(
                    f"`{name}` is {getattr(self, name)!r} and has no effect with `selection={self.selection!r}`, which draws nothing for "
                    "a query. Remove it, or use `selection='random'`."
                )
        if self.rices_clip is not None and self.selection != "rices":
            raise ValueError(
                f"`rices_clip` is {self.rices_clip!r} and has no effect with `selection={self.selection!r}`. Remove it, or use "
                "`selection='rices'`."
            )
