# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Answers prompts, by generation or by ranking of candidates, and computes nothing twice.

- The latents of an image depend on it alone: each is encoded once, however many prompts show it.
- Prompts that begin with the same demonstrations share the cache of that prefix, which is computed once. After it, a
  query costs what it costs without demonstrations, but for the attention of its few tokens to the longer text.
- Candidates are scored from the cache of their context. The first token of each needs no further step at all.
"""

import copy
from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import Cache

from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor
from ..training.data import decode_image
from .task import Example, GenerationSettings
from .video import Video


@dataclass(frozen=True)
class Medium:
    """
    An image or video in a prompt.

    Args:
        key (`Hashable`): Its name: media of one key are the same, and are encoded once.
        data (`Any`): The image, as anything that [`decode_image`] takes, a list of frames, or a [`Video`].
        where (`str`): For error messages.
    """

    key: Hashable
    data: Any = field(compare=False, repr=False)
    where: str = field(compare=False, default="A prompt")


@dataclass(frozen=True)
class Prompt:
    """
    What is asked: `prefix + query`, with one `<image>` for each medium.

    Args:
        prefix (`str`): The demonstrations. It ends after a `<|endofchunk|>` and what separates it from the query.
        query (`str`): What is to be continued.
        prefix_media, query_media (`tuple[Medium, ...]`): The media of both.
    """

    prefix: str
    query: str
    prefix_media: tuple[Medium, ...] = ()
    query_media: tuple[Medium, ...] = ()

    @property
    def text(self) -> str:
        return self.prefix + self.query

    @property
    def media(self) -> tuple[Medium, ...]:
        return self.prefix_media + self.query_media


class FewShotEngine:
    """
    A model that answers prompts.

    Args:
        model ([`FlamingoModel`]): The model, on its device. It is put into evaluation mode.
        processor ([`FlamingoProcessor`]): Its processor.
        batch_size (`int`, *optional*, defaults to 8): Prompts answered together, and images encoded together.
        candidate_batch_size (`int`, *optional*, defaults to 64): Candidates scored together.
        max_cached_media (`int`, *optional*, defaults to 8192): So many media are kept encoded, on the CPU.
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
        candidate_batch_size: int = 64,
        max_cached_media: int = 8192,
        shares_prefix: bool = True,
    ):
        self.model = model.eval()
        self.processor = processor
        self.batch_size = batch_size
        self.candidate_batch_size = candidate_batch_size
        self.max_cached_media = max_cached_media
        self.shares_prefix = shares_prefix
        self.num_encoded = 0
        self._latents: OrderedDict[Hashable, torch.Tensor] = OrderedDict()
        self._prefix: tuple[tuple, Cache, list[int]] | None = None

    # Images.

    @torch.inference_mode()
    def encode(self, media: Sequence[Medium]) -> None:
        """Encode those of `media` that are not encoded yet, in batches."""
        wanted = {medium.key: medium for medium in media}
        new = [medium for key, medium in wanted.items() if key not in self._latents]
        for key in wanted.keys() & self._latents.keys():
            self._latents.move_to_end(key)
        for start in range(0, len(new), self.batch_size):
            batch = new[start : start + self.batch_size]
            inputs = self.processor(
                images=[[decode_medium(medium)] for medium in batch],
                text=[self.processor.image_token] * len(batch),
                return_tensors="pt",
            ).to(self.model.device)
            latents = self.model.get_image_features(
                inputs["pixel_values"], inputs["frame_attention_mask"]
            ).pooler_output
            self.num_encoded += len(batch)
            for medium, own in zip(batch, latents[:, 0].cpu(), strict=True):
                self._latents[medium.key] = own.clone()
        while len(self._latents) > max(self.max_cached_media, len(wanted)):
            self._latents.popitem(last=False)

    def _image_features(self, rows: Sequence[Sequence[Medium]]) -> dict[str, Any]:
        """Keywords for the model: the latents of each row, padded to the longest."""
        longest = max(map(len, rows))
        if longest == 0:
            return {}
        some = self._latents[next(medium.key for row in rows for medium in row)]
        latents = some.new_zeros(len(rows), longest, *some.shape)  # (B, N, L, Dv)
        for index, row in enumerate(rows):
            for place, medium in enumerate(row):
                latents[index, place] = self._latents[medium.key]
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
                    self.encode([medium for prompt in batch for medium in prompt.media])
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
            self._prefix = (key, outputs.past_key_values, ids)
        return copy.deepcopy(self._prefix[1])

    # Answers.

    @torch.inference_mode()
    def generate(self, prompts: Sequence[Prompt], settings: GenerationSettings) -> list[str]:
        """The generated text after each prompt, without special tokens."""
        texts = [""] * len(prompts)
        for chosen, cache, ids, mask, images in self._batches(prompts):
            if cache is not None:
                cache.batch_repeat_interleave(len(chosen) * settings.num_beams)
            generated = self.model.generate(
                input_ids=ids,
                attention_mask=mask,
                past_key_values=cache,
                **images,
                max_new_tokens=settings.max_new_tokens,
                num_beams=settings.num_beams,
                do_sample=False,
                **({"length_penalty": settings.length_penalty} if settings.num_beams > 1 else {}),
                **{"eos_token_id": self.model.config.end_of_chunk_token_id, **settings.extra},
            )
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
            ValueError: a candidate has no token.
        """
        results: list[list[float]] = [[] for _ in prompts]
        for chosen, cache, ids, mask, images in self._batches(prompts):
            num_past = 0 if cache is None else cache.get_seq_length()
            if cache is not None:
                cache.batch_repeat_interleave(len(chosen))
            outputs = self.model(
                input_ids=ids[:, num_past:],
                attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
                **images,
            )
            first = outputs.logits[:, -1].float().log_softmax(dim=-1)  # (B, V)
            rows = [(row, candidate) for row, index in enumerate(chosen) for candidate in candidates[index]]
            scores = self._score_candidates(rows, first, mask, outputs.past_key_values, length_normalised)
            for (row, _), score in zip(rows, scores, strict=True):
                results[chosen[row]].append(score)
        return results

    def _score_candidates(
        self,
        rows: list[tuple[int, str]],
        first: torch.Tensor,
        mask: torch.Tensor,
        cache: Cache,
        length_normalised: bool,
    ) -> list[float]:
        """Scores of (row of the batch, candidate) pairs."""
        all_ids = self._token_ids([candidate for _, candidate in rows], add_special_tokens=False)
        empty = [candidate for (_, candidate), ids in zip(rows, all_ids, strict=True) if not ids]
        if empty:
            raise ValueError(f"The candidate {empty[0]!r} has no token, so it has no likelihood. Leave it out.")
        sums = [first[row, ids[0]].item() for (row, _), ids in zip(rows, all_ids, strict=True)]
        # Candidates of like length together; those of one token are done
        longer = sorted((i for i, ids in enumerate(all_ids) if len(ids) > 1), key=lambda i: len(all_ids[i]))
        for start in range(0, len(longer), self.candidate_batch_size):
            chosen = longer[start : start + self.candidate_batch_size]
            width = len(all_ids[chosen[-1]]) - 1
            ids = torch.full((len(chosen), width), self.processor.tokenizer.pad_token_id)
            targets = torch.full((len(chosen), width), -100)
            for place, i in enumerate(chosen):
                ids[place, : len(all_ids[i]) - 1] = torch.tensor(all_ids[i][:-1])
                targets[place, : len(all_ids[i]) - 1] = torch.tensor(all_ids[i][1:])
            ids, targets = ids.to(mask.device), targets.to(mask.device)
            context = torch.tensor([rows[i][0] for i in chosen], device=mask.device)
            repeated = copy.deepcopy(cache)
            repeated.batch_select_indices(context)
            logits = self.model(
                input_ids=ids,
                attention_mask=torch.cat([mask[context], (targets != -100).long()], dim=1),
                past_key_values=repeated,
            ).logits
            losses = torch.nn.functional.cross_entropy(
                logits.float().flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="none"
            )
            for i, loss in zip(chosen, losses.view(len(chosen), width).sum(dim=1).tolist(), strict=True):
                sums[i] -= loss
        return [total / len(ids) if length_normalised else total for total, ids in zip(sums, all_ids, strict=True)]


def decode_medium(medium: Medium) -> Any:
    """The image, or the list of frames."""
    if isinstance(medium.data, Video):
        return medium.data.frames(medium.where)
    if isinstance(medium.data, list | tuple):
        return [decode_image(frame, medium.where) for frame in medium.data]
    return decode_image(medium.data, medium.where)


def media_of(example: Example, kind: str) -> list[Medium]:
    """The media of an example; `kind` is where it is from, such as `"query"`: ids are unique in a split only."""
    return [Medium((kind, example.id, i), data, f"{kind} {example.id!r}") for i, data in enumerate(example.media)]
