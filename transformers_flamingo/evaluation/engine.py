# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Answers prompts, by generation or by ranking of candidates, and computes nothing twice.

- The latents of an image depend on it alone: each is encoded once, however many prompts show it.
- Prompts that begin with the same demonstrations share the cache of that prefix, which is computed once. After it, a
  query costs what it costs without demonstrations, but for the attention of its few tokens to the longer text.
- Candidates are scored from the cache of their context. The first token of each needs no further step at all.
"""

import copy
import math
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import torch
from transformers import Cache, LogitsProcessor, LogitsProcessorList
from transformers.cache_utils import DynamicLayer

from ..data import load_media
from ..data.encoding import encode_images
from ..media_cache_flamingo import MediaCacheLayer
from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor
from .task import Example, GenerationSettings


# The first tokens of a candidate.
Beginning = tuple[int, ...]
# (row of the batch, beginning of a candidate) -> where the logits behind it are: their first two indices
Places = dict[tuple[int, Beginning], tuple[int, int]]


@dataclass(frozen=True)
class MediaItem:
    """
    An image or video in a prompt.

    Args:
        key (`Hashable`): Its name: media of one key are the same, and are encoded once.
        data (`Any`): The image, as anything that [`decode_image`] takes, a list of frames, or a [`VideoSegment`].
        location (`str`): For error messages.
    """

    key: Hashable
    data: Any = field(compare=False, repr=False)
    location: str = field(compare=False, default="A prompt")


@dataclass(frozen=True)
class Prompt:
    """
    What is asked: `prefix + query`, with one `<image>` for each item.

    Args:
        prefix (`str`): The demonstrations. It ends after a `<|endofchunk|>` and what separates it from the query.
        query (`str`): What is to be continued.
        prefix_media, query_media (`tuple[MediaItem, ...]`): The media of both.
    """

    prefix: str
    query: str
    prefix_media: tuple[MediaItem, ...] = ()
    query_media: tuple[MediaItem, ...] = ()

    @property
    def text(self) -> str:
        return self.prefix + self.query

    @property
    def media(self) -> tuple[MediaItem, ...]:
        return self.prefix_media + self.query_media


class _NanWatch(LogitsProcessor):
    """Note whether any logit was NaN, without waiting for the accelerator at each step."""

    def __init__(self):
        self.found: torch.Tensor | None = None

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        is_nan = scores.isnan().any()
        self.found = is_nan if self.found is None else self.found | is_nan
        return scores


class FewShotEngine:
    """
    A model that answers prompts.

    Args:
        model ([`FlamingoModel`]): The model, on its device. It is put into evaluation mode.
        processor ([`FlamingoProcessor`]): Its processor.
        batch_size (`int`, *optional*, defaults to 8): Prompts answered together, and images encoded together.
        max_candidate_tokens (`int`, *optional*, defaults to 256): About this many tokens of candidates are computed together.
        max_cached_media (`int`, *optional*, defaults to 8192): Maximum number of media that are kept encoded, on the CPU.
        shares_prefix (`bool`, *optional*, defaults to `True`):
            Whether prompts of one call that begin with the same demonstrations share their cache.

    Attributes:
        num_encoded (`int`): Media encoded so far.
    """

    def __init__(
        self,
        model: FlamingoModel,
        processor: FlamingoProcessor,
        *,
        batch_size: int = 8,
        max_candidate_tokens: int = 256,
        max_cached_media: int = 8192,
        shares_prefix: bool = True,
    ):
        self.model = model.eval()
        self.processor = processor
        self.batch_size = batch_size
        self.max_candidate_tokens = max_candidate_tokens
        self.max_cached_media = max_cached_media
        self.shares_prefix = shares_prefix
        self.num_encoded = 0
        self._latents: OrderedDict[Hashable, torch.Tensor] = OrderedDict()
        self._prefix: tuple[tuple, Cache, list[int]] | None = None

    # Images.

    @torch.inference_mode()
    def encode(self, media: Sequence[MediaItem]) -> None:
        """Encode those of `media` that are not encoded yet, in batches."""
        wanted = {item.key: item for item in media}
        new = [item for key, item in wanted.items() if key not in self._latents]
        for key in wanted.keys() & self._latents.keys():
            self._latents.move_to_end(key)
        images = (load_media(item.data, item.location) for item in new)
        latents = encode_images(self.model, self.processor, images, batch_size=self.batch_size, device="cpu")
        for item, item_latents in zip(new, latents, strict=True):
            self._latents[item.key] = item_latents.clone()  # without those of its batch
        self.num_encoded += len(new)
        while len(self._latents) > max(self.max_cached_media, len(wanted)):
            self._latents.popitem(last=False)

    def _image_features(self, rows: Sequence[Sequence[MediaItem]]) -> dict[str, Any]:
        """Keywords for the model: the latents of each row, padded to the longest."""
        longest = max(map(len, rows))
        if longest == 0:
            return {}
        some = self._latents[next(item.key for row in rows for item in row)]
        latents = some.new_zeros(len(rows), longest, *some.shape)  # (B, N, L, Dv)
        for index, row in enumerate(rows):
            for place, item in enumerate(row):
                latents[index, place] = self._latents[item.key]
        mask = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
        device = self.model.device
        features = {"pooler_output": latents.to(device)}
        return {"mm_encoder_outputs": {"image": features}, "frame_attention_mask": mask.long().to(device)}

    # Batches.

    def _token_ids(self, texts: Sequence[str], **kwargs) -> list[list[int]]:
        return self.processor.tokenizer(list(texts), **kwargs)["input_ids"]

    def _batches(self, prompts: Sequence[Prompt]):
        """
        Batches of prompts: their indices, the cache of a shared prefix or `None`, the token ids that come after it with
        their mask, and the media that come after it. Rows after a prefix are of equal length, so that nothing is padded
        between them and the prefix.
        """
        full_ids = self._token_ids([prompt.text for prompt in prompts])
        groups: dict[tuple, list[int]] = {}
        for index, prompt in enumerate(prompts):
            key = (prompt.prefix, prompt.prefix_media) if self.shares_prefix and prompt.prefix else ()
            groups.setdefault(key, []).append(index)
        for key, group in groups.items():
            prefix_ids = self._token_ids([key[0]])[0] if key else []
            if any(full_ids[index][: len(prefix_ids)] != prefix_ids for index in group):
                prefix_ids = []  # the tokenizer joins the end of the prefix with the beginning of the query
            buckets: dict[int, list[int]] = {}
            for index in sorted(group, key=lambda index: len(full_ids[index])):
                buckets.setdefault(len(full_ids[index]) if prefix_ids else 0, []).append(index)
            for bucket in buckets.values():
                for start in range(0, len(bucket), self.batch_size):
                    chosen = bucket[start : start + self.batch_size]
                    batch = [prompts[index] for index in chosen]
                    self.encode([item for prompt in batch for item in prompt.media])
                    cache = self._prefix_cache(batch[0], prefix_ids) if prefix_ids else None
                    longest = max(len(full_ids[index]) for index in chosen)
                    ids = torch.full((len(chosen), longest), self.processor.tokenizer.pad_token_id)
                    mask = torch.zeros_like(ids)
                    for row, index in enumerate(chosen):
                        ids[row, longest - len(full_ids[index]) :] = torch.tensor(full_ids[index])
                        mask[row, longest - len(full_ids[index]) :] = 1
                    media = [prompt.query_media if prefix_ids else prompt.media for prompt in batch]
                    device = self.model.device
                    yield chosen, cache, ids.to(device), mask.to(device), self._image_features(media)

    def _prefix_cache(self, prompt: Prompt, ids: list[int]) -> Cache:
        """The cache of a prefix. The last one is kept."""
        key = (prompt.prefix, prompt.prefix_media)
        if self._prefix is None or self._prefix[0] != key:
            self._prefix = None  # before the next is made: there may not be room for two
            outputs = self.model(
                input_ids=torch.tensor([ids], device=self.model.device),
                use_cache=True,
                logits_to_keep=1,
                **self._image_features([prompt.prefix_media]),
            )
            self._prefix = (key, outputs.cache, ids)
        return copy.deepcopy(self._prefix[1])

    # Answers.

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Prompt], settings: GenerationSettings) -> list[str]:
        """
        Generate a text after each prompt, and return it without special tokens.

        Raises:
            ValueError: the model gives NaN.
        """
        texts = [""] * len(prompts)
        for chosen, cache, ids, mask, images in self._batches(prompts):
            if cache is not None:
                cache.batch_repeat_interleave(len(chosen) * settings.num_beams)
            watch = _NanWatch()
            generated = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                cache=cache,
                **images,
                max_new_tokens=settings.max_new_tokens,
                num_beams=settings.num_beams,
                do_sample=False,
                logits_processor=LogitsProcessorList([watch]),
                **({"length_penalty": settings.length_penalty} if settings.num_beams > 1 else {}),
                **{"eos_token_id": self.model.config.end_of_chunk_token_id, **settings.extra},
            )
            if watch.found is not None and bool(watch.found):
                raise _not_numbers(self.model, prompts[chosen[0]])
            new = self.processor.batch_decode(generated[:, ids.shape[1] :], skip_special_tokens=True)
            for index, text in zip(chosen, new, strict=True):
                texts[index] = text
        return texts

    @torch.inference_mode()
    def rank(
        self, prompts: Sequence[Prompt], candidates: Sequence[Sequence[str]], *, length_normalised: bool = True
    ) -> list[list[float]]:
        """
        The log-likelihood of each candidate after its prompt.

        Candidates are tokenized by themselves and scored without `<|endofchunk|>`, as in OpenFlamingo.

        Args:
            prompts (`Sequence[Prompt]`): The contexts.
            candidates (`Sequence[Sequence[str]]`): Those of each prompt.
            length_normalised (`bool`, *optional*, defaults to `True`): The mean over the tokens, not the sum.

        Raises:
            ValueError: a candidate has no token, or the model gives NaN.
        """
        results: list[list[float]] = [[] for _ in prompts]
        for chosen, cache, ids, mask, images in self._batches(prompts):
            num_past = 0 if cache is None else cache.get_seq_length()
            if cache is not None:
                cache.batch_repeat_interleave(len(chosen))
            outputs = self.model(
                input_ids=ids[:, num_past:],
                attention_mask=mask,
                cache=cache,
                use_cache=True,
                logits_to_keep=1,
                **images,
            )
            own = [candidates[index] for index in chosen]
            scores = self._score_candidates(own, outputs.logits, mask, outputs.cache, length_normalised)
            for index, row in zip(chosen, scores, strict=True):
                if not all(map(math.isfinite, row)):
                    raise _not_numbers(self.model, prompts[index])
                results[index] = row
        return results

    def _score_candidates(
        self,
        candidates: list[Sequence[str]],
        context_logits: torch.Tensor,
        mask: torch.Tensor,
        cache: Cache,
        length_normalised: bool,
    ) -> list[list[float]]:
        """
        Scores of the candidates of each row, given the logits `(B, 1, V)` behind its context, and its mask and cache.

        Candidates share what they begin with: what is computed are the distinct beginnings. The last token of a
        candidate is looked up behind the beginning before it, and computed only if another candidate continues it.
        """
        flat = [candidate for own in candidates for candidate in own]
        flat_ids = self._token_ids(flat, add_special_tokens=False) if flat else []
        for candidate, ids in zip(flat, flat_ids, strict=True):
            if not ids:
                raise ValueError(f"The candidate {candidate!r} has no token, so it has no likelihood. Remove it.")
        remaining = iter(flat_ids)
        all_ids = [[tuple(next(remaining)) for _ in own] for own in candidates]
        next_tokens: dict[tuple[int, Beginning], set[int]] = {}
        for row, own in enumerate(all_ids):
            for ids in own:
                for length, token in enumerate(ids):
                    next_tokens.setdefault((row, ids[:length]), set()).add(token)
        beginnings = [sorted({ids[:n] for ids in own for n in range(1, len(ids))}) for own in all_ids]
        behind_contexts = {(row, ()): (row, 0) for row, own in enumerate(all_ids) if own}
        log_probs = self._look_up(next_tokens, behind_contexts, context_logits)
        layout = self._as_trees if self._takes_trees(cache) else self._as_rows
        for inputs, places in layout(beginnings, mask, cache):
            # Nothing holds on to the logits of one chunk while those of the next are made
            log_probs |= self._look_up(next_tokens, places, self.model(**inputs, use_cache=True).logits)
        return [
            [
                sum(log_probs[row, ids[:n]] for n in range(1, len(ids) + 1)) / (len(ids) if length_normalised else 1)
                for ids in own
            ]
            for row, own in enumerate(all_ids)
        ]

    @staticmethod
    def _look_up(
        next_tokens: dict[tuple[int, Beginning], set[int]], places: Places, logits: torch.Tensor
    ) -> dict[tuple[int, Beginning], float]:
        """The log-probability of the last token of each beginning that is one token longer than those in `places`."""
        wanted = [(*key, token, *place) for key, place in places.items() for token in next_tokens[key]]
        if not wanted:
            return {}
        token, i, j = torch.tensor([item[2:] for item in wanted], device=logits.device).unbind(dim=1)
        # No softmax of the whole vocabulary is written down
        values = logits[i, j, token].float() - logits.float().logsumexp(dim=-1)[i, j]
        return {
            (row, (*beginning, last)): value
            for (row, beginning, last, *_), value in zip(wanted, values.tolist(), strict=True)
        }

    def _takes_trees(self, cache: Cache) -> bool:
        """
        Whether it is certain that attention and positions are those that are asked for: masks and positions of any form are
        taken by language models with the library's attention interface, but not by its flash kernels, nor where a layer
        forgets what is far away in the cache. ALiBi and masks of a model's own count from one column to the next.
        """
        language_model = self.model.language_model
        return (
            language_model.is_backend_compatible()
            and self.model.accepts_position_ids
            and language_model.config._attn_implementation in ("eager", "sdpa")
            and all(type(layer) in (DynamicLayer, MediaCacheLayer) for layer in cache.layers)
        )

    def _as_trees(
        self, beginnings: list[list[Beginning]], mask: torch.Tensor, cache: Cache
    ) -> Iterator[tuple[dict[str, Any], Places]]:
        """
        Inputs of the model in which all beginnings follow the context in one row, as a tree: each token sees the context and
        those before it in its own beginning. No context is copied.
        """
        size = max(1, self.max_candidate_tokens // len(mask))
        for trees in zip_longest(*(_trees(own, size) for own in beginnings), fillvalue={}):
            length = max(map(len, trees))
            ids = torch.full((len(trees), length), self.processor.tokenizer.pad_token_id)
            depths = torch.ones_like(ids)
            for row, tree in enumerate(trees):
                ids[row, : len(tree)] = torch.tensor([beginning[-1] for beginning in tree], dtype=torch.long)
                depths[row, : len(tree)] = torch.tensor([len(beginning) for beginning in tree], dtype=torch.long)
            sees = torch.zeros(len(trees), length, length, dtype=torch.bool)
            is_before = [
                (row, place, tree[beginning[:n]])
                for row, tree in enumerate(trees)
                for beginning, place in tree.items()
                for n in range(1, len(beginning) + 1)
            ]
            sees[torch.tensor(is_before).unbind(dim=1)] = True
            sees = torch.cat([mask.bool()[:, None].expand(-1, length, -1), sees.to(mask.device)], dim=-1)
            dtype = self.model.language_model.dtype
            hidden = torch.zeros(sees.shape, dtype=dtype, device=mask.device)
            inputs = {
                "input_ids": ids.to(mask.device),
                "attention_mask": hidden.masked_fill(~sees, torch.finfo(dtype).min)[:, None],  # (B, 1, T, past + T)
                "position_ids": mask.sum(dim=1, keepdim=True) + depths.to(mask.device) - 1,
                "cache": cache,
            }
            yield inputs, {(row, ids): (row, j) for row, tree in enumerate(trees) for ids, j in tree.items()}
            cache.crop(-length)

    def _as_rows(
        self, beginnings: list[list[Beginning]], mask: torch.Tensor, cache: Cache
    ) -> Iterator[tuple[dict[str, Any], Places]]:
        """The same with a row for each longest beginning, after a copy of its context: for any language model."""
        all_paths = [
            sorted(
                (ids for ids, after in zip_longest(own, own[1:], fillvalue=()) if after[: len(ids)] != ids), key=len
            )
            for own in beginnings
        ]
        longest = max((len(path) for paths in all_paths for path in paths), default=1)
        size = max(1, self.max_candidate_tokens // (len(mask) * longest))
        for start in range(0, max(map(len, all_paths)), size):
            chunk = [paths[start : start + size] for paths in all_paths]
            repeats = max(map(len, chunk))
            width = max(len(path) for paths in chunk for path in paths)
            ids = torch.full((len(chunk) * repeats, width), self.processor.tokenizer.pad_token_id)
            is_text = torch.zeros_like(ids)
            places: Places = {}
            for row, paths in enumerate(chunk):
                for i, path in enumerate(paths, row * repeats):
                    ids[i, : len(path)] = torch.tensor(path)
                    is_text[i, : len(path)] = 1
                    places |= {(row, path[:n]): (i, n - 1) for n in range(1, len(path) + 1)}
            repeated = copy.deepcopy(cache)
            repeated.batch_repeat_interleave(repeats)
            inputs = {
                "input_ids": ids.to(mask.device),
                "attention_mask": torch.cat([mask.repeat_interleave(repeats, dim=0), is_text.to(mask.device)], dim=1),
                "cache": repeated,
            }
            yield inputs, places


def _not_numbers(model: FlamingoModel, prompt: Prompt) -> ValueError:
    return ValueError(
        f"The model gives NaN or infinite likelihoods in {str(model.dtype).removeprefix('torch.')} for the prompt {prompt.text[:200]!r}, "
        "so its answers would be meaningless. Use another dtype (float32 or bfloat16), or check the weights."
    )


def _trees(beginnings: list[Beginning], size: int) -> Iterator[dict[Beginning, int]]:
    """
    Sorted beginnings in chunks of about `size`, each with its place. One that is needed in two chunks is in both, and all
    come after what they begin with.
    """
    tree: dict[Beginning, int] = {}
    for beginning in beginnings:
        if len(tree) >= size:
            yield tree
            tree = {}
        for n in range(1, len(beginning) + 1):
            tree.setdefault(beginning[:n], len(tree))
    if tree:
        yield tree


def media_of(example: Example, kind: str) -> list[MediaItem]:
    """The media of an example; `kind` is where it is from, such as `"query"`: ids are unique in a split only."""
    return [MediaItem((kind, example.id, i), data, f"{kind} {example.id!r}") for i, data in enumerate(example.media)]
