# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Choose the demonstrations for a query."""

import os
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import permutations, zip_longest
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from .examples import Example
from .image_index import ImageIndex
from .prompts import media_identity
from .retrieval import Embed


if TYPE_CHECKING:
    from accelerate import PartialState


Selection = Literal["random", "fixed", "rices"]
DrawBy = Literal["image", "query"]

# Another number for each change of what is drawn, so that predictions after other demonstrations are not taken for those of today.
# 2: fewer demonstrations are the first of more.
DRAW_VERSION = 2

#: Size of the pool of random demonstrations in the paper and in OpenFlamingo.
RANDOM_POOL_SIZE = 2048


class Demonstrations:
    """
    Choose demonstrations for queries. The choice for a query depends only on the seed, the query and the pool, so it is the same
    for any order of queries, batch size and number of processes.

    Random and fixed demonstrations are nested: fewer are the first of more, so that one computation of 32 serves 4, 8 and 16 (see
    [`FewShotEngine`]). For each number they are a uniform draw in random order, as if they were drawn for that number alone. Balanced
    ones are in random order within each round of the groups. `"rices"` is not nested, because the most similar come last.

    Args:
        support (`Sequence[Example]`): The examples to choose from.
        selection (`str`, *optional*, defaults to `"random"`):
            `"random"`: a random set for each query (OpenFlamingo's protocol). `"fixed"`: one random set for all, so that its cache
            is computed once. `"rices"`: the examples whose image is most similar to the query's, the most similar last (Yang et
            al. 2022; paper, section 2.5).
        support_size (`int`, *optional*):
            Number of random examples in the pool. `None` uses all. By default it is 2048, and with `"rices"` it is all, both as in
            OpenFlamingo.
        seed (`int`, *optional*, defaults to 0): Seed of the pool and of each choice.
        balanced (`bool`, *optional*, defaults to `False`): Whether the numbers of demonstrations of each `group` differ by at most 1.
        embed ([`ImageEmbedder`], *optional*): Returns vectors for the images of examples. Needed for `"rices"`.
        index_dir (`str`, *optional*), faiss (`str`, *optional*): See [`ImageIndex`].
        draw_keys (`Mapping[str, str]`, *optional*):
            For ids of queries, a text that those with the same random demonstrations have in common ([`make_draw_keys`]). By default
            the id, so that each has its own.

    Attributes:
        pool (`list[Example]`): The examples to choose from.
        index ([`ImageIndex`], *optional*): The images of the pool, with `"rices"`.

    Raises:
        ValueError: the selection is unknown, `"rices"` has no `embed`, `balanced` is set for examples without a `group`, or an
            example has no answer.
    """

    def __init__(
        self,
        support: Sequence[Example],
        *,
        selection: Selection = "random",
        support_size: int | Literal["default"] | None = "default",
        seed: int = 0,
        balanced: bool = False,
        embed: Embed | None = None,
        index_dir: str | os.PathLike | None = None,
        faiss: str | None = None,
        draw_keys: Mapping[str, str] | None = None,
    ):
        if selection not in get_args(Selection):
            raise ValueError(f"`selection` is {selection!r}. It can be {', '.join(get_args(Selection))}.")
        if selection == "rices" and embed is None:
            raise ValueError("`selection='rices'` compares images, so it needs `embed`. Pass an ImageEmbedder.")
        unanswered = [example.id for example in support if example.answer is None]
        if unanswered:
            raise ValueError(
                f"{len(unanswered)} examples have no answer to show, such as {unanswered[0]!r}. Remove them from the support."
            )
        self.selection, self.seed, self.balanced = selection, seed, balanced
        self.draw_keys = draw_keys or {}
        if support_size == "default":
            support_size = None if selection == "rices" else RANDOM_POOL_SIZE
        pool = np.arange(len(support))
        if support_size is not None and support_size < len(support):
            pool = np.sort(np.random.default_rng([seed, 1]).choice(len(support), support_size, replace=False))
        self.pool = [support[i] for i in pool]
        self.groups: dict[str | None, np.ndarray] = {None: np.arange(len(self.pool))}
        if balanced:
            by_group = defaultdict(list)
            for index, example in enumerate(self.pool):
                if example.group is None:
                    raise ValueError(
                        f"`balanced` is set, but example {example.id!r} has no group. Balance is for classification: remove it."
                    )
                by_group[example.group].append(index)
            self.groups = {group: np.array(by_group[group]) for group in sorted(by_group)}
        self.index = None
        if selection == "rices":
            self.index = ImageIndex(embed, self.pool, directory=index_dir, faiss=faiss)
        self._nearest: dict[str, np.ndarray] = {}  # of each query, from the most similar

    def prepare(self, queries: Sequence[Example], count: int, state: "PartialState | None" = None) -> None:
        """
        Find the `count` examples nearest to each of many queries at once, which is much faster than one by one. [`~Demonstrations.choose`] then
        looks them up, also for fewer. Processes of one `state` share what must be encoded. It has no effect on other selections, nor on balanced ones, which compare by class.
        """
        if self.index is None or self.balanced or count > len(self.pool):
            return
        new = [query for query in queries if len(self._nearest.get(query.id, ())) < count]
        if new:
            rows, _ = self.index.build(state).search(new, count, state=state)
            self._nearest.update(zip([query.id for query in new], rows.astype(np.int32), strict=True))

    def choose_many(self, queries: Sequence[Example], count: int) -> list[list[Example]]:
        """Return what [`~Demonstrations.choose`] does for each of many queries, which are searched for at once and not remembered."""
        if self.index is None or self.balanced or not queries or count > len(self.pool):
            return [self.choose(query, count) for query in queries]
        rows, _ = self.index.search(queries, count, keeps=False)
        return [[self.pool[i] for i in nearest[::-1]] for nearest in rows]

    def choose(self, query: Example, count: int) -> list[Example]:
        """
        Return `count` demonstrations for a query, in the order in which they are shown.

        Raises:
            ValueError: the pool has fewer examples.
        """
        if count > len(self.pool):
            raise ValueError(
                f"{count} demonstrations are asked for, and the pool has {len(self.pool)}. Ask for fewer, or use a larger support."
            )
        if self.selection == "rices" and not self.balanced:
            nearest = self._nearest.get(query.id, ())
            if len(nearest) < count:
                nearest = self.index.search([query], count, keeps=False)[0][0]
            chosen = nearest[:count][::-1]
        elif self.selection == "rices":
            similarity = self.index.similarities(query)
            ordered = [m[np.argsort(-similarity[m], kind="stable")] for m in self.groups.values()]
            ordered.sort(key=lambda members: -similarity[members[0]])  # the most similar group gives the odd ones
            chosen = _take_in_turn(ordered, count)
            chosen = sorted(chosen, key=lambda i: (similarity[i], -i))
        else:
            # Not `hash`, which differs between processes
            key = 0
            if self.selection == "random":
                name = self.draw_keys.get(query.id, query.id)  # of a file whose name may not be UTF-8
                key = zlib.crc32(name.encode(errors="surrogateescape"))
            rng = np.random.default_rng([self.seed, 2, key])
            ordered = [rng.permutation(members) for members in self.groups.values()]
            chosen = _take_in_turn(ordered, count, rng)
        return [self.pool[i] for i in chosen]


def _take_in_turn(groups: Sequence[np.ndarray], count: int, rng: np.random.Generator | None = None) -> list[int]:
    """
    Return the first `count` of the first members of all groups, then their second members, and so on.

    With `rng` each of these rounds is in a random order. What it draws does not depend on `count`, so fewer are the first of more.
    """
    chosen: list[int] = []
    for members in zip_longest(*(group.tolist() for group in groups)):
        if len(chosen) >= count:
            break
        members = [index for index in members if index is not None]
        chosen += members if rng is None else rng.permutation(members).tolist()
    return chosen[:count]


def make_draw_keys(
    queries: Sequence[Example], available: Iterable[Example] | None = None, *, by: DrawBy = "image", size: int = 1
) -> dict[str, str]:
    """
    Decide which queries have the same random demonstrations.

    Args:
        queries (`Sequence[Example]`): The queries.
        available (`Iterable[Example]`, *optional*):
            All queries of the benchmark, where `queries` is a part of it. Then the demonstrations of a query do not depend on the part.
        by (`str`, *optional*, defaults to `"image"`):
            `"image"`: those with the same files of images. `"query"`: each has its own.
        size (`int`, *optional*, defaults to 1): Number of queries that have the same at least, the rest aside.

    Returns:
        `dict[str, str]`: a text for the id of each query, the same where demonstrations are the same.
    """
    keys = {query.id: query.id for query in queries}
    if by == "image":
        first: dict[
            Any, str
        ] = {}  # the name of a draw is the id of its first query: paths differ from machine to machine
        for query in queries if available is None else available:
            identities = tuple(map(media_identity, query.media))
            if identities and None not in identities:
                first_id = first.setdefault(identities, query.id)
                if query.id in keys:
                    keys[query.id] = first_id
    if size > 1:
        counts = Counter(keys.values())
        merged: dict[str, str] = {}
        name, number = "", size
        for key in sorted(counts, key=lambda key: (zlib.crc32(key.encode()), key)):
            if number >= size:
                name, number = key, 0
            merged[key] = name
            number += counts[key]
        keys = {query_id: merged[key] for query_id, key in keys.items()}
    return keys


def permute_demonstrations(demonstrations: Sequence[Example], count: int, seed: int) -> list[list[Example]]:
    """
    Return at most `count` different orders of the demonstrations, the given one first, for prompt ensembling.

    Args:
        demonstrations (`Sequence[Example]`): The demonstrations. Fewer than 6 may have fewer orders than `count`.
        count (`int`): Maximum number of orders.
        seed (`int`): Seed of the orders.
    """
    if len(demonstrations) <= 5:
        every = [list(order) for order in permutations(demonstrations)]
        rest = np.random.default_rng([seed, 3]).permutation(len(every) - 1) + 1
        return [every[0], *(every[i] for i in rest[: count - 1])]
    rng = np.random.default_rng([seed, 3])
    found = {tuple(range(len(demonstrations)))}
    ordered = [list(demonstrations)]
    while len(ordered) < count:
        order = tuple(rng.permutation(len(demonstrations)).tolist())
        if order not in found:
            found.add(order)
            ordered.append([demonstrations[i] for i in order])
    return ordered
