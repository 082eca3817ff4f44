# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Settings of a few-shot evaluation. `flamingo evaluate --help` is made from the fields and their `help`."""

from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from ..few_shot.demonstrations import RANDOM_POOL_SIZE, DrawBy, Selection


Protocol = Literal["quick", "open_flamingo", "paper"]

#: For `num_queries` and `support_size`: all there are, as in OpenFlamingo's code.
ALL = -1

#: The encoder by which OpenFlamingo compares images.
OPEN_FLAMINGO_CLIP = "openai/clip-vit-large-patch14"

#: What each protocol sets where nothing else is given.
PROTOCOLS: dict[str, dict[str, Any]] = {
    # A benchmark in minutes to an hour on one accelerator. VQAv2 has 6,000 prompts, and 3.2 million by `open_flamingo`
    "quick": {
        "shots": [0, 4, 8],
        "seeds": [0],
        "num_queries": 1000,
        "balanced": None,
        "num_orders": 1,
        "draw_by": "image",
        "blind": True,
    },
    "open_flamingo": {
        "shots": [0, 4, 8, 16, 32],
        "seeds": [0, 1, 2],
        "num_queries": ALL,
        "balanced": False,
        "num_orders": 1,
        "draw_by": "query",
        "blind": False,
    },
    "paper": {
        "shots": [0, 4, 32],
        "seeds": [0],
        "num_queries": ALL,
        "balanced": None,
        "num_orders": 6,
        "draw_by": "image",
        "blind": False,
    },
}


@dataclass(kw_only=True)
class EvaluationConfig:
    """
    Settings of a few-shot evaluation. What is not given is that of the `protocol`.

    | `protocol` | shots | seeds | queries | drawn for each | orders | blind |
    |---|---|---|---|---|---|---|
    | `quick` | 0, 4, 8 | 0 | a random 1,000 | image | 1 | yes |
    | `open_flamingo` | 0, 4, 8, 16, 32 | 0, 1, 2 | all | query | 1 | no |
    | `paper` | 0, 4, 32 | 0 | all | image | 6 | no |

    Args:
        protocol (`str`, *optional*, defaults to `"quick"`): `"quick"`, `"open_flamingo"` or `"paper"`.
        shots (`list[int]`, *optional*):
            Numbers of demonstrations before a query. At 0, `num_text_demonstrations` of the task are shown without their images.
        seeds (`list[int]`, *optional*): Seeds from 0 to 2^32 - 1. Each draws its own demonstrations.
        selection (`str`, *optional*, defaults to `"random"`): See [`Demonstrations`].
        balanced (`bool`, *optional*):
            Whether demonstrations are class-balanced. By `open_flamingo` and with `"rices"` they are not. Otherwise they are if the task
            ranks candidates and all examples have a group.
        support_size (`int`, *optional*):
            Number of random examples that demonstrations are drawn from, -1 for all. By default 2048, and all with `"rices"`.
        draw_by (`str`, *optional*):
            Whether random demonstrations are drawn for each `"image"`, so that all questions about it have the same ones and share
            their computation, or for each `"query"`, as by `open_flamingo`. The mean of scores over draws is the same. Where images
            have several questions, scores vary a little more from seed to seed.
        queries_per_draw (`int`, *optional*, defaults to 1):
            At least this many queries have the same random demonstrations and share their computation. With more than 1, scores vary
            more from seed to seed.
        num_queries (`int`, *optional*): Size of a random subset of the queries, the same for all seeds. -1 asks all.
        num_orders (`int`, *optional*):
            Prompt ensembling for ranking: log-likelihoods are averaged over this many orders of the demonstrations. 6 in the paper
            and in OpenFlamingo's, which published scores of Hateful Memes with it, and has no way to set it for them in its code.
        blind (`bool`, *optional*): Whether to repeat every prompt with a gray image instead of each image, for the blind score.
        rices_clip (`str`, *optional*): See [`ImageEmbedder`]. By `open_flamingo` it is `openai/clip-vit-large-patch14`.
        rices_index (`str`, *optional*):
            Folder that keeps the embeddings of images. By default it is in the cache of Hugging Face.
        rices_faiss (`str`, *optional*): See [`ImageIndex`].

    Raises:
        ValueError: a value is out of its range.
    """

    protocol: Protocol = field(
        default="quick",
        metadata={
            "help": "What is not given: quick (0, 4 and 8 shots of 1,000 queries, with a blind score), open_flamingo (0 to 32 shots "
            "and 3 seeds of all queries) or paper (0, 4 and 32 shots of all queries, 6 orders)."
        },
    )
    shots: list[int] | None = field(
        default=None,
        metadata={"help": "Numbers of demonstrations before a query; at 0 some are shown without their images."},
    )
    seeds: list[int] | None = field(default=None, metadata={"help": "Seeds. Each draws its own demonstrations."})
    selection: Selection = field(
        default="random",
        metadata={
            "help": "How to select demonstrations: a random set per query, one fixed set, or the most similar images."
        },
    )
    balanced: bool | None = field(
        default=None,
        metadata={
            "help": "Whether demonstrations are class-balanced. Random ones are by default where candidates are ranked and all "
            "examples have a class, except by open_flamingo."
        },
    )
    support_size: int | None = field(
        default=None,
        metadata={
            "help": "Number of random examples that demonstrations are drawn from, -1 for all (default: 2048, and all with rices)."
        },
    )
    draw_by: DrawBy | None = field(
        default=None,
        metadata={
            "help": "Whether random demonstrations are drawn for each image, so that all its questions share them and what they cost, "
            "or for each query, as open_flamingo does."
        },
    )
    queries_per_draw: int = field(
        default=1,
        metadata={
            "help": "At least this many queries share random demonstrations, and what they cost. With more than 1, scores vary more from "
            "seed to seed."
        },
    )
    num_queries: int | None = field(
        default=None,
        metadata={"help": "Number of queries to draw at random, -1 for all. Scores of a subset are marked as such."},
    )
    num_orders: int | None = field(
        default=None,
        metadata={"help": "Number of orders of the demonstrations to average over, when candidates are ranked."},
    )
    blind: bool | None = field(default=None, metadata={"help": "Whether to compute the blind (no-image) baseline."})
    rices_clip: str | None = field(
        default=None,
        metadata={
            "help": "Name or directory of a CLIP or SigLIP to compare images by, with `rices` (default: the model's own vision "
            "encoder, and openai/clip-vit-large-patch14 by open_flamingo)."
        },
    )
    rices_index: str | None = field(
        default=None,
        metadata={"help": "Folder that keeps the embeddings of images (default: in the cache of Hugging Face)."},
    )
    rices_faiss: str | None = field(
        default=None,
        metadata={"help": "Search with this index of faiss, such as HNSW32, instead of exactly. Needs faiss."},
    )

    def __post_init__(self):
        if self.protocol not in PROTOCOLS:
            raise ValueError(f"`protocol` is {self.protocol!r}. It can be {', '.join(PROTOCOLS)}.")
        if self.selection not in get_args(Selection):
            raise ValueError(f"`selection` is {self.selection!r}. It can be {', '.join(get_args(Selection))}.")
        for name, value in PROTOCOLS[self.protocol].items():
            if getattr(self, name) is None:
                setattr(self, name, value)
        if self.support_size is None:
            self.support_size = ALL if self.selection == "rices" else RANDOM_POOL_SIZE
        if self.balanced is None and self.selection == "rices":
            self.balanced = False
        if self.rices_clip is None and (self.protocol, self.selection) == ("open_flamingo", "rices"):
            self.rices_clip = OPEN_FLAMINGO_CLIP
        self.shots, self.seeds = list(self.shots), list(self.seeds)
        for name in ("shots", "seeds"):
            values = getattr(self, name)
            if not values or min(values) < 0 or len(set(values)) < len(values):
                raise ValueError(f"`{name}` is {values}. Give at least one, none twice and none below 0.")
        if max(self.seeds) >= 2**32:
            raise ValueError(f"`seeds` is {self.seeds}. numpy takes seeds from 0 to {2**32 - 1}.")
        if self.draw_by not in get_args(DrawBy):
            raise ValueError(f"`draw_by` is {self.draw_by!r}. It can be {', '.join(get_args(DrawBy))}.")
        for name in ("support_size", "num_queries"):
            if getattr(self, name) < 1 and getattr(self, name) != ALL:
                raise ValueError(f"`{name}` is {getattr(self, name)}, but it must be at least 1, or {ALL} for all.")
        for name in ("num_orders", "queries_per_draw"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}, but it must be at least 1.")
        if self.queries_per_draw > 1 and self.selection != "random":
            raise ValueError(
                f"`queries_per_draw` is {self.queries_per_draw} and has no effect with `selection={self.selection!r}`, which draws "
                "nothing for a query. Remove it, or use `selection='random'`."
            )
        for name in ("rices_clip", "rices_index", "rices_faiss"):
            if getattr(self, name) is not None and self.selection != "rices":
                raise ValueError(
                    f"`{name}` is {getattr(self, name)!r} and has no effect with `selection={self.selection!r}`. Remove it, or use "
                    "`selection='rices'`."
                )
