# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Inference engine for few-shot prompts: generates answers or ranks candidates, and caches images and shared prefixes.

- The latents of an image depend on that image alone, so each image is encoded once for all prompts that show it.
- Prompts that begin with the same demonstrations share the cache of these, which is computed once. A query then costs about as
  much as without demonstrations: only its few tokens attend to the longer text. A prompt may end where others show more
  demonstrations: the prefix of 32 serves 4, 8 and 16 (`batching.py`, `shared_prefixes.py`).
- Candidates follow their context as one tree, which is computed with it in one call of the model.
"""

import math
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import torch
from transformers import LogitsProcessor, LogitsProcessorList

from ..data import load_media
from ..data.encoding import encode_images
from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor
from .batching import Batch, PrefixKey, Row, batch_continued, batch_whole, make_rows, pad_left
from .examples import GenerationSettings
from .model_state import in_evaluation_mode
from .prompts import MediaItem, Prompt
from .ranking import CandidateScorer
from .shared_prefixes import SharedPrefixes, can_align


class _NanWatch(LogitsProcessor):
    """Record whether any logit was NaN, without waiting for the accelerator at each step."""

    def __init__(self):
        self.found: torch.Tensor | None = None

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        is_nan = scores.isnan().any()
        self.found = is_nan if self.found is None else self.found | is_nan
        return scores


class FewShotEngine:
    """
    Inference engine that generates texts after prompts, or ranks candidates.

    Args:
        model ([`FlamingoModel`]): The model, on its device. It is in evaluation mode while it computes.
        processor ([`FlamingoProcessor`]): The processor of the model.
        batch_size (`int`, *optional*, defaults to 8): Prompts answered together, and images encoded together.
        max_candidate_tokens (`int`, *optional*, defaults to 256): Approximate number of candidate tokens computed together.
        max_cached_media (`int`, *optional*, defaults to 8192): Maximum number of encoded images and videos that are kept, on the CPU.
        shares_prefix (`bool`, *optional*, defaults to `True`):
            Whether prompts of one call that begin with the same demonstrations share the cache of these. If they have at most
            `batch_size` beginnings, the cache is kept for the next call.

    Attributes:
        num_encoded (`int`): Number of images and videos encoded so far.
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
        self.model = model
        self.processor = processor
        self.batch_size = batch_size
        self.max_cached_media = max_cached_media
        self.shares_prefix = shares_prefix
        self.num_encoded = 0
        self.scorer = CandidateScorer(model, processor.tokenizer, max_candidate_tokens)
        self._latents: OrderedDict[Hashable, torch.Tensor] = OrderedDict()
        self._kept: SharedPrefixes | None = None
        self._aligns = can_align(model)

    def reset(self) -> None:
        """Forget the images and prefixes that are computed, for a model whose weights have changed."""
        self._latents.clear()
        self._kept = None

    @in_evaluation_mode
    @torch.inference_mode()
    def encode(self, media: Sequence[MediaItem]) -> None:
        """Encode the items of `media` that are not encoded yet, in batches."""
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
        """Return the keywords of the model for the latents of each row, padded to the longest row."""
        longest = max(map(len, rows))
        if longest == 0:
            return {}
        first = self._latents[next(item.key for row in rows for item in row)]
        latents = first.new_zeros(len(rows), longest, *first.shape)  # (B, N, L, Dv)
        for i, row in enumerate(rows):
            for j, item in enumerate(row):
                latents[i, j] = self._latents[item.key]
        mask = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
        device = self.model.device
        features = {"pooler_output": latents.to(device)}
        return {"mm_encoder_outputs": {"image": features}, "frame_attention_mask": mask.long().to(device)}

    def _token_ids(self, texts: Sequence[str], **kwargs) -> list[list[int]]:
        return self.processor.tokenizer(list(texts), **kwargs)["input_ids"]

    def _batches(self, prompts: Sequence[Prompt]) -> Iterator[Batch]:
        """Make batches of prompts. Images are encoded, and shared prefixes computed, when the first batch needs them."""
        aligns = self._aligns
        kept = self._kept.keys if self._kept is not None else ()
        config = self.model.config
        markers = config.image_token_ids or [config.image_token_id]
        rows = make_rows(prompts, self._token_ids, markers, kept=kept, nests=aligns)
        by_trunk: dict[PrefixKey, list[Row]] = {}
        for row in rows if self.shares_prefix else ():
            if row.trunk is not None:
                by_trunk.setdefault(row.trunk, []).append(row)
        # That of a single prefix may serve the next call. Others are worth it only for several prompts.
        shared = {key: group for key, group in by_trunk.items() if len(by_trunk) == 1 or len(group) > 1 or key in kept}
        continued = {row.index for group in shared.values() for row in group}
        whole = [row for row in rows if row.index not in continued]
        # Padding on the left shifts positions that count it
        for batch in batch_whole(whole, self.batch_size, pads=not self.model._counts_padding):
            yield self._make_batch(prompts, batch)
        for prefixes in self._shared_prefixes(list(shared), self.batch_size if aligns else 1):
            group = [row for key in prefixes.keys for row in shared.get(key, ())]
            for batch, width in batch_continued(group, self.batch_size, aligns=aligns):
                yield self._make_batch(prompts, batch, prefixes, width)

    def _shared_prefixes(self, keys: list[PrefixKey], size: int) -> Iterator[SharedPrefixes]:
        """Compute prefixes, `size` at a time. If these are all, they are kept for the next call."""
        if self._kept is not None and keys and set(keys) <= set(self._kept.keys):
            yield self._kept
            return
        self._kept = None  # freed before the next ones are made: there may not be memory for both
        ids = dict(zip(keys, self._token_ids([text for text, _ in keys]), strict=True)) if keys else {}
        ordered = sorted(keys, key=lambda key: len(ids[key]))
        for start in range(0, len(ordered), size):
            chosen = ordered[start : start + size]
            self.encode([item for _, media in chosen for item in media])
            prefixes = SharedPrefixes(
                self.model,
                chosen,
                [ids[key] for key in chosen],
                self._image_features([media for _, media in chosen]),
                self.processor.tokenizer.pad_token_id,
            )
            if len(chosen) == len(keys):
                self._kept = prefixes
            yield prefixes
            del prefixes

    def _make_batch(
        self, prompts: Sequence[Prompt], rows: list[Row], prefixes: SharedPrefixes | None = None, width: int = 0
    ) -> Batch:
        """Make the inputs of rows, which continue shared prefixes with their last `width` tokens, or have none."""
        asked = [prompts[row.index] for row in rows]
        media = [prompt.query_media if prefixes else prompt.media for prompt in asked]
        self.encode([item for items in media for item in items])
        features = self._image_features(media)  # before others are encoded, for which these may have to go
        cache = None if prefixes is None else prefixes.continue_with(rows, width, lambda: self._last_latents(asked))
        ids, mask = pad_left([row.ids for row in rows], self.processor.tokenizer.pad_token_id)
        device = self.model.device
        indices = [row.index for row in rows]
        return Batch(indices, cache, ids.to(device), mask.to(device), features)

    def _last_latents(self, prompts: Sequence[Prompt]) -> torch.Tensor | None:
        """Return the latents of the last image before each query `(B, L, Dv)`, 0 where there is none; `None` if there are none at all."""
        last = [prompt.prefix_media[-1:] for prompt in prompts]
        self.encode([item for items in last for item in items])
        features = self._image_features(last)
        return features["mm_encoder_outputs"]["image"]["pooler_output"][:, 0] if features else None

    @in_evaluation_mode
    @torch.inference_mode()
    def generate(self, prompts: Sequence[Prompt], settings: GenerationSettings) -> list[str]:
        """
        Generate a text after each prompt.

        Args:
            prompts (`Sequence[Prompt]`): The prompts.
            settings ([`GenerationSettings`]): Length, beams and other arguments of `generate()`.

        Returns:
            `list[str]`: The texts without special tokens.

        Raises:
            ValueError: the model gives NaN.
        """
        texts = [""] * len(prompts)
        for batch in self._batches(prompts):
            if batch.cache is not None and not self._aligns:
                # `generate()` repeats caches of full attention itself, after it has computed the query once
                batch.cache.batch_repeat_interleave(settings.num_beams)
            watch = _NanWatch()
            generated = self.model.generate(
                input_ids=batch.ids,
                attention_mask=batch.mask,
                cache=batch.cache,
                **batch.images,
                max_new_tokens=settings.max_new_tokens,
                num_beams=settings.num_beams,
                do_sample=False,
                logits_processor=LogitsProcessorList([watch]),
                **({"length_penalty": settings.length_penalty} if settings.num_beams > 1 else {}),
                **{"eos_token_id": self.model.config.end_of_chunk_token_id, **settings.extra},
            )
            if watch.found is not None and bool(watch.found):
                raise _nan_error(self.model, prompts[batch.indices[0]])
            new = self.processor.batch_decode(generated[:, batch.ids.shape[1] :], skip_special_tokens=True)
            for index, text in zip(batch.indices, new, strict=True):
                texts[index] = text
        return texts

    @in_evaluation_mode
    @torch.inference_mode()
    def rank(
        self, prompts: Sequence[Prompt], candidates: Sequence[Sequence[str]], *, length_normalized: bool = True
    ) -> list[list[float]]:
        """
        Compute the log-likelihood of each candidate after its prompt.

        Candidates are tokenized separately from the prompt and scored without `<|endofchunk|>`, as in OpenFlamingo.

        Args:
            prompts (`Sequence[Prompt]`): The contexts.
            candidates (`Sequence[Sequence[str]]`): The candidates of each prompt.
            length_normalized (`bool`, *optional*, defaults to `True`): Whether to return the mean over tokens instead of the sum.

        Returns:
            `list[list[float]]`: The log-likelihoods, in nats, of the candidates of each prompt.

        Raises:
            ValueError: a candidate has no token, or the model gives NaN.
        """
        results: list[list[float]] = [[] for _ in prompts]
        for batch in self._batches(prompts):
            chosen = [candidates[index] for index in batch.indices]
            scores = self.scorer(chosen, batch, length_normalized=length_normalized)
            for index, row in zip(batch.indices, scores, strict=True):
                if not all(map(math.isfinite, row)):
                    raise _nan_error(self.model, prompts[index])
                results[index] = row
        return results


def _nan_error(model: FlamingoModel, prompt: Prompt) -> ValueError:
    return ValueError(
        f"The model gives NaN or infinite likelihoods in {str(model.dtype).removeprefix('torch.')} for the prompt {prompt.text[:200]!r}, "
        "so its answers would be meaningless. Use another dtype (float32 or bfloat16), or check the weights."
    )
