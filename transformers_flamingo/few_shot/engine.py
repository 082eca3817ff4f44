# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Inference engine for few-shot prompts: generates answers or ranks candidates, and caches images and shared prefixes.

- The latents of an image depend on that image alone, so each image is encoded once for all prompts that show it.
- Prompts that begin with the same demonstrations share the cache of that prefix, which is computed once. A query then costs
  about as much as without demonstrations: only its few tokens attend to the longer text.
- Candidates are scored from the cache of their context. The first token of each needs no further step.
"""

import copy
import math
from collections import OrderedDict
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import torch
from transformers import Cache, LogitsProcessor, LogitsProcessorList

from ..data import load_media
from ..data.encoding import encode_images
from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor
from .examples import GenerationSettings
from .prompts import MediaItem, Prompt
from .ranking import CandidateScorer


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
        model ([`FlamingoModel`]): The model, on its device. It is put into evaluation mode.
        processor ([`FlamingoProcessor`]): The processor of the model.
        batch_size (`int`, *optional*, defaults to 8): Prompts answered together, and images encoded together.
        max_candidate_tokens (`int`, *optional*, defaults to 256): Approximate number of candidate tokens computed together.
        max_cached_media (`int`, *optional*, defaults to 8192): Maximum number of encoded images and videos that are kept, on the CPU.
        shares_prefix (`bool`, *optional*, defaults to `True`):
            Whether prompts of one call that begin with the same demonstrations share the cache of these.

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
        self.model = model.eval()
        self.processor = processor
        self.batch_size = batch_size
        self.max_cached_media = max_cached_media
        self.shares_prefix = shares_prefix
        self.num_encoded = 0
        self.scorer = CandidateScorer(model, processor.tokenizer, max_candidate_tokens)
        self._latents: OrderedDict[Hashable, torch.Tensor] = OrderedDict()
        self._prefix: tuple[tuple, Cache, list[int]] | None = None

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

    def _batches(
        self, prompts: Sequence[Prompt]
    ) -> Iterator[tuple[list[int], Cache | None, torch.Tensor, torch.Tensor, dict[str, Any]]]:
        """
        Group prompts into batches of their indices, the cache of a shared prefix or `None`, the token ids of the whole texts
        `(B, T)`, their mask, and the keywords for the images that are not in the cache.

        Rows after a shared prefix are of equal length: padding would be between the prefix and the query, where it would shift
        positions. Without a prefix rows of similar length are together, so that there is little padding.
        """
        full_ids = self._token_ids([prompt.text for prompt in prompts])
        groups: dict[tuple, list[int]] = {}
        for index, prompt in enumerate(prompts):
            key = (prompt.prefix, prompt.prefix_media) if self.shares_prefix and prompt.prefix else ()
            groups.setdefault(key, []).append(index)
        for key, group in groups.items():
            prefix_ids = self._token_ids([key[0]])[0] if key else []
            if any(full_ids[index][: len(prefix_ids)] != prefix_ids for index in group):
                prefix_ids = []  # the tokenizer merged the end of the prefix with the beginning of the query
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
        """Return a copy of the cache of a prefix. The last one is kept for the next batch."""
        key = (prompt.prefix, prompt.prefix_media)
        if self._prefix is None or self._prefix[0] != key:
            self._prefix = None  # freed before the next one is made: there may not be memory for two
            outputs = self.model(
                input_ids=torch.tensor([ids], device=self.model.device),
                use_cache=True,
                logits_to_keep=1,
                **self._image_features([prompt.prefix_media]),
            )
            self._prefix = (key, outputs.cache, ids)
        return copy.deepcopy(self._prefix[1])

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
                raise _nan_error(self.model, prompts[chosen[0]])
            new = self.processor.batch_decode(generated[:, ids.shape[1] :], skip_special_tokens=True)
            for index, text in zip(chosen, new, strict=True):
                texts[index] = text
        return texts

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
            row_candidates = [candidates[index] for index in chosen]
            scores = self.scorer(
                row_candidates, outputs.logits, mask, outputs.cache, length_normalized=length_normalized
            )
            for index, row in zip(chosen, scores, strict=True):
                if not all(map(math.isfinite, row)):
                    raise _nan_error(self.model, prompts[index])
                results[index] = row
        return results


def _nan_error(model: FlamingoModel, prompt: Prompt) -> ValueError:
    return ValueError(
        f"The model gives NaN or infinite likelihoods in {str(model.dtype).removeprefix('torch.')} for the prompt {prompt.text[:200]!r}, "
        "so its answers would be meaningless. Use another dtype (float32 or bfloat16), or check the weights."
    )
