# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Log-likelihoods of candidates after contexts.

Candidates are scored as a prefix tree, so shared prefixes are computed only once. The first tree is computed together with its
context, so few candidates cost one call of the model. The probability of the last token of a candidate
follows from the logits after the tokens before it, so that token is an input only if another candidate continues it.
"""

import copy
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any

import torch
from torch import nn
from transformers import Cache, DynamicCache, PreTrainedTokenizerBase
from transformers.cache_utils import DynamicLayer

from ..language_models_flamingo import infer_position_ids
from ..media_cache_flamingo import MediaCacheLayer
from ..modeling_flamingo import FlamingoModel
from .batching import Batch


# The first tokens of a candidate
Prefix = tuple[int, ...]
# (row of the batch, prefix of a candidate) -> the first two indices of the logits that follow the prefix
LogitIndex = dict[tuple[int, Prefix], tuple[int, int]]

# A longer context is computed by itself. Its attention needs no mask then, and a second call is little beside it
MAX_JOINED_TOKENS = 512


class CandidateScorer:
    """
    Scorer of candidates after their contexts.

    Args:
        model ([`FlamingoModel`]): The model.
        tokenizer (`PreTrainedTokenizerBase`): Its tokenizer.
        max_tokens (`int`, *optional*, defaults to 256): Approximate number of candidate tokens computed together.
    """

    def __init__(self, model: FlamingoModel, tokenizer: PreTrainedTokenizerBase, max_tokens: int = 256):
        self.model, self.tokenizer, self.max_tokens = model, tokenizer, max_tokens

    def __call__(
        self, candidates: Sequence[Sequence[str]], contexts: Batch, *, length_normalized: bool = True
    ) -> list[list[float]]:
        """
        Score the candidates of each row.

        Args:
            candidates (`Sequence[Sequence[str]]`): The candidates of each row.
            contexts ([`Batch`]): The contexts. Their cache is used up.
            length_normalized (`bool`, *optional*, defaults to `True`): Whether to return the mean over tokens instead of the sum.

        Returns:
            `list[list[float]]`: The log-likelihoods, in nats, of the candidates of each row.

        Raises:
            ValueError: a candidate has no token.
        """
        flat = [candidate for row_candidates in candidates for candidate in row_candidates]
        flat_ids = self.tokenizer(flat, add_special_tokens=False)["input_ids"] if flat else []
        for candidate, ids in zip(flat, flat_ids, strict=True):
            if not ids:
                raise ValueError(f"The candidate {candidate!r} has no token, so it has no likelihood. Remove it.")
        remaining = iter(flat_ids)
        all_ids = [[tuple(next(remaining)) for _ in row_candidates] for row_candidates in candidates]
        next_tokens: dict[tuple[int, Prefix], set[int]] = {}
        for row, row_ids in enumerate(all_ids):
            for ids in row_ids:
                for length, token in enumerate(ids):
                    next_tokens.setdefault((row, ids[:length]), set()).add(token)
        prefixes = [sorted({ids[:n] for ids in row_ids for n in range(1, len(ids))}) for row_ids in all_ids]
        cache = contexts.cache
        if cache is None:
            cache = DynamicCache(config=self.model.config.text_config)
        batches = self._tree_batches if self._supports_tree_attention(cache) else self._row_batches
        log_probs: dict[tuple[int, Prefix], float] = {}
        for inputs, index in batches(prefixes, contexts, cache):
            # Not assigned to a name, which would keep the logits of one chunk while those of the next are computed
            log_probs |= self._gather_log_probs(next_tokens, index, self.model(**inputs, use_cache=True).logits)
        return [
            [
                sum(log_probs[row, ids[:n]] for n in range(1, len(ids) + 1)) / (len(ids) if length_normalized else 1)
                for ids in row_ids
            ]
            for row, row_ids in enumerate(all_ids)
        ]

    @staticmethod
    def _gather_log_probs(
        next_tokens: dict[tuple[int, Prefix], set[int]], index: LogitIndex, logits: torch.Tensor
    ) -> dict[tuple[int, Prefix], float]:
        """Return the log-probability of each token that follows a prefix in `index`, by the prefix with that token."""
        wanted = [(*key, token, *indices) for key, indices in index.items() for token in next_tokens.get(key, ())]
        if not wanted:
            return {}
        token, i, j = torch.tensor([entry[2:] for entry in wanted], device=logits.device).unbind(dim=1)
        # Avoids materializing the softmax over the full vocabulary
        values = logits[i, j, token].float() - logits.float().logsumexp(dim=-1)[i, j]
        return {
            (row, (*prefix, last)): value
            for (row, prefix, last, *_), value in zip(wanted, values.tolist(), strict=True)
        }

    def _supports_tree_attention(self, cache: Cache) -> bool:
        """
        Return whether the model supports tree attention, i.e. arbitrary 4-D masks and position ids.

        It must use the standard attention interface, without flash attention and sliding-window layers. ALiBi and models that
        make their own masks derive positions from the columns, so siblings in the tree would get wrong ones.
        """
        language_model = self.model.language_model
        return (
            language_model.is_backend_compatible()
            and self.model.accepts_position_ids
            and language_model.config._attn_implementation in ("eager", "sdpa")
            and all(type(layer) in (DynamicLayer, MediaCacheLayer) for layer in cache.layers)
        )

    def _tree_batches(
        self, prefixes: list[list[Prefix]], contexts: Batch, cache: Cache
    ) -> Iterator[tuple[dict[str, Any], LogitIndex]]:
        """
        Make inputs in which all prefixes of a row follow its context as one tree. Each token attends to the context, to the tokens
        before it in its prefix and to itself. The context is not copied. If it is short, it is computed with the
        first tree.
        """
        mask, device = contexts.mask, contexts.mask.device
        num_past, num_context = cache.get_seq_length(), mask.shape[1]
        size = max(1, self.max_tokens // len(mask))
        chunks = [_split_into_trees(row_prefixes, size) for row_prefixes in prefixes]
        all_trees = list(zip_longest(*chunks, fillvalue={}))
        joins = bool(all_trees) and num_context - num_past <= MAX_JOINED_TOKENS and not self._has_markers(all_trees[0])
        if not joins:
            yield _context_inputs(contexts, cache), _index_contexts(contexts)
        for number, trees in enumerate(all_trees):
            ids, depths, attends = (tensor.to(device) for tensor in self._build_trees(trees))
            length = ids.shape[1]
            index = {(row, prefix): (row, column) for row, tree in enumerate(trees) for prefix, column in tree.items()}
            inputs: dict[str, Any] = {"cache": cache, "logits_to_keep": length}
            position_ids = mask.sum(dim=1, keepdim=True) + depths - 1
            attends = torch.cat([mask.bool()[:, None].expand(-1, length, -1), attends], dim=-1)
            if joins and number == 0:
                inputs |= contexts.images | {"logits_to_keep": 1 + length}
                ids = torch.cat([contexts.ids[:, num_past:], ids], dim=1)
                context_positions = infer_position_ids(None, mask, num_context - num_past)
                position_ids = torch.cat([context_positions, position_ids], dim=1)
                columns = torch.arange(num_context, device=device)
                rows = columns[num_past:, None]
                # Padding attends to itself: a row of scores of the lowest number alone may overflow to NaN in float16
                is_before = (columns < rows) & mask.bool()[:, None] | (columns == rows)
                attends = torch.cat([nn.functional.pad(is_before, (0, length)), attends], dim=1)
                index = {key: (row, 1 + column) for key, (row, column) in index.items()} | _index_contexts(contexts)
            dtype = self.model.language_model.dtype
            bias = torch.zeros(attends.shape, dtype=dtype, device=device).masked_fill(~attends, torch.finfo(dtype).min)
            inputs["attention_mask"] = bias[:, None]  # (B, 1, T, past + T)
            yield inputs | {"input_ids": ids, "position_ids": position_ids}, index
            cache.crop(-length)

    def _has_markers(self, trees: Sequence[dict[Prefix, int]]) -> bool:
        """
        Return whether a token marks an image. Beside the images of the context it would be another one. After them it may be text
        (`image_token_ids`).
        """
        tokens = torch.tensor([[prefix[-1] for tree in trees for prefix in tree]])
        return bool(self.model.find_markers(tokens, None, None).any())

    def _build_trees(self, trees: Sequence[dict[Prefix, int]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Build the tensors of one tree for each row.

        Returns:
            The tokens `(B, T)`, padded on the right; how many tokens of its prefix each one ends, from 1 `(B, T)`; and which of the others
            it attends to `(B, T, T)`.
        """
        length = max(map(len, trees))
        ids = torch.full((len(trees), length), self.tokenizer.pad_token_id)
        depths = torch.ones_like(ids)
        for row, tree in enumerate(trees):
            ids[row, : len(tree)] = torch.tensor([prefix[-1] for prefix in tree], dtype=torch.long)
            depths[row, : len(tree)] = torch.tensor([len(prefix) for prefix in tree], dtype=torch.long)
        attends = torch.zeros(len(trees), length, length, dtype=torch.bool)
        ancestors = [
            (row, column, tree[prefix[:n]])
            for row, tree in enumerate(trees)
            for prefix, column in tree.items()
            for n in range(1, len(prefix) + 1)
        ]
        attends[torch.tensor(ancestors).unbind(dim=1)] = True
        return ids, depths, attends

    def _row_batches(
        self, prefixes: list[list[Prefix]], contexts: Batch, cache: Cache
    ) -> Iterator[tuple[dict[str, Any], LogitIndex]]:
        """
        Make inputs of the contexts, and then with a row for each longest prefix, after a copy of its context. This works for any
        language model.

        Prefixes are sorted, so one that the next does not continue is a longest one.
        """
        yield _context_inputs(contexts, cache), _index_contexts(contexts)
        mask = contexts.mask
        all_paths = [
            sorted(
                (
                    ids
                    for ids, after in zip_longest(row_prefixes, row_prefixes[1:], fillvalue=())
                    if after[: len(ids)] != ids
                ),
                key=len,
            )
            for row_prefixes in prefixes
        ]
        longest = max((len(path) for paths in all_paths for path in paths), default=1)
        size = max(1, self.max_tokens // (len(mask) * longest))
        for start in range(0, max(map(len, all_paths)), size):
            chunk = [paths[start : start + size] for paths in all_paths]
            repeats = max(map(len, chunk))
            width = max(len(path) for paths in chunk for path in paths)
            ids = torch.full((len(chunk) * repeats, width), self.tokenizer.pad_token_id)
            is_text = torch.zeros_like(ids)
            index: LogitIndex = {}
            for row, paths in enumerate(chunk):
                for i, path in enumerate(paths, row * repeats):
                    ids[i, : len(path)] = torch.tensor(path)
                    is_text[i, : len(path)] = 1
                    index |= {(row, path[:n]): (i, n - 1) for n in range(1, len(path) + 1)}
            repeated = copy.deepcopy(cache)
            repeated.batch_repeat_interleave(repeats)
            inputs = {
                "input_ids": ids.to(mask.device),
                "attention_mask": torch.cat([mask.repeat_interleave(repeats, dim=0), is_text.to(mask.device)], dim=1),
                "cache": repeated,
            }
            yield inputs, index


def _split_into_trees(prefixes: list[Prefix], size: int) -> Iterator[dict[Prefix, int]]:
    """
    Split sorted prefixes into trees of about `size` tokens, and map each prefix to its column.

    A prefix that is needed in two trees is in both. Each comes after the shorter prefixes that it continues.
    """
    tree: dict[Prefix, int] = {}
    for prefix in prefixes:
        if len(tree) >= size:
            yield tree
            tree = {}
        for n in range(1, len(prefix) + 1):
            tree.setdefault(prefix[:n], len(tree))
    if tree:
        yield tree


def _context_inputs(contexts: Batch, cache: Cache) -> dict[str, Any]:
    """Return the inputs of contexts by themselves."""
    return {
        "input_ids": contexts.ids[:, cache.get_seq_length() :],
        "attention_mask": contexts.mask,
        "cache": cache,
        "logits_to_keep": 1,
        **contexts.images,
    }


def _index_contexts(contexts: Batch) -> LogitIndex:
    """Return where the logits after each context are: the first ones of its row."""
    return {(row, ()): (row, 0) for row in range(len(contexts.ids))}
