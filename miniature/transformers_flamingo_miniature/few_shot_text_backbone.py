# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Training of the language model of the few-shot demo: a tiny GPT-2 that has never seen a picture and can look up.

The shipped miniature GPT-2 was trained for captions and barely looks anything up in its context. Binding a new word needs
just that, for things that have no word at all: what an image adds to `<image>` is like no embedding. So this model reads

    red dax. blue wug. red dax. ...

with any word as key, half of the time with a random vector in its place, new in each episode, and always with noise on
it. Rows of random words repeated in one order let the ability (an induction head) appear within some hundred steps, with
positions that begin as waves of wavelengths within reach: neighbouring positions must differ for "the token before" to
be found.
"""

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import GPT2Config, GPT2LMHeadModel

from transformers_flamingo.saving_flamingo import update_folder

from .backbones import library_versions, write_training_record
from .tokenizer import NONSENSE_WORDS, build_tokenizer, miniature_vocabulary


_MAX_POSITIONS = 128
_INITIALIZER_RANGE = 0.07
_MAX_WAYS = 6
_EXAMPLES = 16
_NUM_SPECIAL_TOKENS = 3


class _Episodes:
    """Random texts that bind nonsense words to keys."""

    def __init__(self, model: GPT2LMHeadModel, tokenizer):
        self.model = model
        self.values = torch.tensor(tokenizer.convert_tokens_to_ids(list(NONSENSE_WORDS)))
        words = [w for w in miniature_vocabulary()[_NUM_SPECIAL_TOKENS:] if w.isalpha() and w not in NONSENSE_WORDS]
        self.keys = torch.tensor(tokenizer.convert_tokens_to_ids(words))
        self.stop = tokenizer.convert_tokens_to_ids(".")

    def draw(
        self, batch_size: int, made_up: float, noise: float, ways: int | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """
        Rows of `key word .`, with 2 to `_MAX_WAYS` ways each unless told.

        Returns:
            token ids `(B, T)`, their embeddings `(B, T, D)` with what became of the keys, and which words `(B, T / 3)`
            stood in the row before.
        """
        count = torch.randint(2, _MAX_WAYS + 1, (batch_size, 1)) if ways is None else torch.full((batch_size, 1), ways)
        which = (torch.rand(batch_size, _EXAMPLES) * count).long()  # (B, E)
        keys, values = (_distinct(words, batch_size).gather(1, which) for words in (self.keys, self.values))
        ids = torch.stack([keys, values, torch.full_like(which, self.stop)], dim=2).flatten(1)

        embedding = self.model.transformer.wte
        spread = embedding.weight.detach().std() * (0.5 + 1.5 * torch.rand(batch_size, 1, 1))
        vectors = torch.randn(batch_size, _MAX_WAYS, embedding.embedding_dim) * spread
        vectors = vectors.gather(1, which[..., None].expand(-1, -1, embedding.embedding_dim))
        embeds = embedding(ids)
        shown = torch.where(torch.rand(batch_size, 1, 1) < made_up, vectors, embeds[:, 0::3])
        amount = noise * torch.rand(batch_size, 1, 1) * shown.detach().std(dim=-1, keepdim=True)
        embeds = embeds.clone()
        embeds[:, 0::3] = shown + amount * torch.randn_like(shown)
        return ids, embeds, (which[:, :, None] == which[:, None, :]).tril(-1).any(-1)

    @torch.no_grad()
    def accuracy(self, ways: int, made_up: float, noise: float, rows: int = 256) -> float:
        """How often a word that stood in the row before ranks first in the whole vocabulary."""
        ids, embeds, seen = self.draw(rows, made_up, noise, ways)
        right = self.model(inputs_embeds=embeds).logits[:, 0::3].argmax(-1) == ids[:, 1::3]
        return right[seen].float().mean().item()


def _distinct(words: torch.Tensor, batch_size: int) -> torch.Tensor:
    """`_MAX_WAYS` different ones for each row."""
    return words[torch.rand(batch_size, len(words)).argsort(dim=1)[:, :_MAX_WAYS]]


def _repeat_loss(model: GPT2LMHeadModel, batch_size: int, length: int) -> torch.Tensor:
    """Loss on random words repeated in one order, from the second time on: look-up pays at every token."""
    period = torch.randint(4, 17, (batch_size, 1))
    vocabulary = model.config.vocab_size - _NUM_SPECIAL_TOKENS
    words = torch.rand(batch_size, vocabulary).argsort(dim=1)[:, :16] + _NUM_SPECIAL_TOKENS
    ids = words.gather(1, torch.arange(length + 1) % period)
    logits = model(input_ids=ids[:, :-1]).logits
    repeated = torch.arange(length) >= period - 1
    return F.cross_entropy(logits[repeated], ids[:, 1:][repeated])


def _position_waves(width: int) -> torch.Tensor:
    """Sines and cosines at `width` / 2 wavelengths, the longest as long as a prompt: (T, D)."""
    angles = torch.arange(_MAX_POSITIONS)[:, None] * 60.0 ** -torch.linspace(0, 1, width // 2)
    return 1.5 * _INITIALIZER_RANGE * math.sqrt(2) * torch.cat([angles.sin(), angles.cos()], dim=1)


def train_few_shot_text_backbone(
    output_dir: str | Path,
    *,
    steps: int,
    seed: int = 0,
    batch_size: int = 32,
    learning_rate: float = 3e-3,
    width: int = 96,
    layers: int = 3,
    noise: float = 0.5,
    made_up: float = 0.5,
    progress: bool = True,
) -> dict[str, Any]:
    """
    Train the language model and save it with its tokenizer.

    Args:
        output_dir (`str` or `Path`): Folder to write; made if missing.
        steps (`int`): Steps, each of `batch_size` episodes and half as many rows of repeated words.
        seed (`int`): Seed of weights and texts.
        batch_size (`int`): Episodes in a step.
        learning_rate (`float`): Constant for three fifths of the steps, then falling to 0 along a cosine.
        width, layers (`int`): Size. The width is a multiple of 32, the head size.
        noise (`float`): At most so much noise on a key, in its own standard deviations; it rises to this.
        made_up (`float`): Share of episodes with random vectors as keys.
        progress (`bool`): Show a progress bar.

    Returns:
        `dict`: the content of its `training.json`.
    """
    started = time.perf_counter()
    tokenizer = build_tokenizer(_MAX_POSITIONS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=len(tokenizer),
                n_positions=_MAX_POSITIONS,
                n_embd=width,
                n_layer=layers,
                n_head=width // 32,
                resid_pdrop=0.0,
                embd_pdrop=0.0,
                attn_pdrop=0.0,
                initializer_range=_INITIALIZER_RANGE,
                bos_token_id=tokenizer.bos_token_id,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        with torch.no_grad():
            model.transformer.wpe.weight.copy_(_position_waves(width))
        episodes = _Episodes(model, tokenizer)
        optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
        for step in (bar := tqdm(range(steps), desc="language model", disable=not progress)):
            repeat_loss = _repeat_loss(model, batch_size // 2, 3 * _EXAMPLES)
            ids, embeds, _ = episodes.draw(batch_size, made_up, noise * min(1.0, 1.5 * step / steps))
            logits = model(inputs_embeds=embeds).logits
            word_loss = F.cross_entropy(logits[:, 0::3].flatten(0, 1), ids[:, 1::3].flatten())
            stop_loss = F.cross_entropy(logits[:, 1::3].flatten(0, 1), ids[:, 2::3].flatten())
            fall = max(0.0, step / steps - 0.6) / 0.4
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * min(1.0, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * fall))
            optimizer.zero_grad()
            (repeat_loss + word_loss + 0.1 * stop_loss).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            bar.set_postfix(loss=f"{word_loss.item():.3f}", refresh=False)
        model.eval()
        lookup = {
            f"{name}_{ways}_ways": round(episodes.accuracy(ways, share, noise), 4)
            for name, share in (("word", 0.0), ("made_up", 1.0))
            for ways in (2, 4)
        }
    output_dir = Path(output_dir)
    with update_folder(output_dir) as partial:
        model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
    record = {
        "seed": seed,
        "steps": steps,
        "parameters": model.num_parameters(),
        "lookup": lookup,
        "training_seconds": round(time.perf_counter() - started, 1),
        "versions": library_versions(),
    }
    write_training_record(output_dir, record)
    return record
