# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Check of the longest prompt of an evaluation, before anything is computed."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from transformers.utils import logging

from ..few_shot.demonstrations import Demonstrations
from ..few_shot.examples import Example
from ..few_shot.prompts import build_prompt
from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor
from .task import Task


if TYPE_CHECKING:
    from accelerate import PartialState


logger = logging.get_logger(__name__)


def check_lengths(
    model: FlamingoModel,
    processor: FlamingoProcessor,
    task: Task,
    queries: Sequence[Example],
    pools: Mapping[int, Demonstrations],
    shots: Iterable[int],
    state: "PartialState | None" = None,
) -> None:
    """
    Check that every prompt with its answer fits into the positions of the language model.

    Rotary positions have no limit. If a prompt is longer than the texts such a model was trained on, a warning is logged.

    Args:
        model ([`FlamingoModel`]): The model.
        processor ([`FlamingoProcessor`]): Its processor.
        task ([`Task`]): The task.
        queries (`Sequence[Example]`): The queries.
        pools (`Mapping[int, Demonstrations]`): The pool of demonstrations of each seed.
        shots (`Iterable[int]`): Numbers of demonstrations.
        state (`PartialState`, *optional*): The processes that share the encoding, if images must be compared.

    Raises:
        ValueError: a prompt is too long. The message names the query, the number of shots and the numbers that fit.
    """
    limit = model.max_text_length
    trained = getattr(model.config.text_config, "max_position_embeddings", None)
    if limit is not None:
        problem = find_too_long(processor, task, limit, queries, pools, shots, state)
        if problem:
            raise ValueError(f"{problem} Nothing was computed.")
    elif trained is not None:
        problem = find_too_long(processor, task, trained, queries, pools, shots, state)
        if problem:
            logger.warning(f"{problem} Its scores may be lower for that reason alone.")


def find_too_long(
    processor: FlamingoProcessor,
    task: Task,
    limit: int,
    queries: Sequence[Example],
    pools: Mapping[int, Demonstrations],
    shots: Iterable[int],
    state: "PartialState | None" = None,
) -> str | None:
    """
    Describe the longest prompt that does not fit into `limit` positions, at the smallest number of shots for which there is one.

    If the longest query fits together with the longest demonstrations, so does every prompt, and no more is measured. With
    `selection="rices"` demonstrations depend on the images, which are compared only if the lengths alone do not decide.
    """
    lengths = _Lengths(task, processor, queries)
    fitting: list[int] = []
    for count in sorted(shots):
        for seed, pool in pools.items():
            worst = lengths.longest(pool, count, limit, state)
            if worst is not None:
                query, length, budget = worst
                what = "its answer may add" if task.generation is not None else "the longest candidate adds"
                fit = f"these fit: {', '.join(map(str, fitting))}" if fitting else "none of those asked for fits"
                return (
                    f"{task.name}: with {count} shots (seed {seed}) the prompt of query {query.id!r} has {length} tokens and {what} "
                    f"{budget}, but the language model has {limit} positions. Use fewer shots ({fit}), shorter texts, or a language "
                    "model with more positions."
                )
        fitting.append(count)
    return None


class _Lengths:
    """
    Numbers of tokens of queries and demonstrations, each text tokenized once.

    Special tokens split a text before tokenization, so the number of tokens of a prompt is the sum over its parts.
    """

    def __init__(self, task: Task, processor: FlamingoProcessor, queries: Sequence[Example]):
        self.task, self.processor, self.queries = task, processor, queries
        overhead = processor.tokenizer.num_special_tokens_to_add()
        self.of_queries = [
            overhead + n
            for n in self._count([processor.few_shot_text([], (len(q.media), q.prompt))[1] for q in queries])
        ]
        self.budgets = self._budgets()
        self._of_pools: dict[tuple[int, bool], list[int]] = {}

    def _count(self, texts: Sequence[str]) -> list[int]:
        if not texts:
            return []
        # The 1.3 million examples of ImageNet have 1,000 texts
        distinct = list(dict.fromkeys(texts))
        ids = self.processor.tokenizer(distinct, add_special_tokens=False, verbose=False)["input_ids"]
        lengths = dict(zip(distinct, map(len, ids), strict=True))
        return [lengths[text] for text in texts]

    def _budgets(self) -> list[int]:
        """Return the number of positions for the answer to each query. The last token of an answer is not fed to the model."""
        settings = self.task.generation
        if settings is not None:
            return [settings.extra.get("max_new_tokens", settings.max_new_tokens) - 1] * len(self.queries)
        known = {tuple(query.candidates): 0 for query in self.queries}
        for candidates in known:
            known[candidates] = max(max(self._count(candidates)) - 1, 0)
        return [known[tuple(query.candidates)] for query in self.queries]

    def longest(
        self, pool: Demonstrations, shots: int, limit: int, state: "PartialState | None" = None
    ) -> tuple[Example, int, int] | None:
        """Return the query with the longest prompt, its number of tokens and that of its answer, or `None` if all fit."""
        count = shots or self.task.num_text_demonstrations
        is_text_only = shots == 0
        lengths = sorted(self._of_pool(pool, is_text_only))
        needs = [length + budget for length, budget in zip(self.of_queries, self.budgets, strict=True)]
        if max(needs) + sum(lengths[-count:] if count else []) <= limit:
            return None
        if pool.selection == "rices" and max(needs) + sum(lengths[:count]) > limit:
            worst = needs.index(max(needs))
            return self.queries[worst], self.of_queries[worst] + sum(lengths[:count]), self.budgets[worst]
        pool.prepare(self.queries, count, state)
        by_example = dict(zip(map(id, pool.pool), self._of_pool(pool, is_text_only), strict=True))
        chosen = (pool.choose(query, count) for query in self.queries)
        totals = [
            need + sum(by_example[id(example)] for example in shown) for need, shown in zip(needs, chosen, strict=True)
        ]
        worst = totals.index(max(totals))
        if totals[worst] <= limit:
            return None
        query = self.queries[worst]
        prompt = build_prompt(
            self.processor,
            query,
            pool.choose(query, count),
            text_only=is_text_only,
            separator=self.task.demonstration_separator,
        )
        length = len(self.processor.tokenizer(prompt.text, verbose=False)["input_ids"])
        return (query, length, self.budgets[worst]) if length + self.budgets[worst] > limit else None

    def _of_pool(self, pool: Demonstrations, is_text_only: bool) -> list[int]:
        key = (id(pool), is_text_only)
        if key not in self._of_pools:
            separator = self.task.demonstration_separator
            shots = [(0 if is_text_only else len(shown.media), shown.prompt + shown.answer) for shown in pool.pool]
            texts = [self.processor.few_shot_text([shot], separator=separator)[0] for shot in shots]
            self._of_pools[key] = self._count(texts)
        return self._of_pools[key]
