# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Training rows of the miniature language model.

In-context look-up (an induction head) emerges late, and only if nothing cheaper lowers the loss. So training begins with
rows that reward nothing else, and the texts of the world are blended in slowly: an abrupt change of the mixture destroys
what was learned. Look-up is found in short rows only, and works at the positions that it was trained at only, so rows
begin short and then grow (`docs/few-shot-log.md`). Three kinds of rows:

- repeat: random words, again and again in one order. Look-up pays at every token, so it is found soonest here.
- look-up: `red dax. blue wug. red dax.`, with any word as key, or a random vector instead of its embedding, and noise on
  the key: what an image adds to `<image>` resembles the embedding of no word.
- plain: captions, questions and episodes, as in [`texts`].
"""

import numpy as np
import torch
from torch import nn
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerFast, default_data_collator

from .texts import sample_text
from .tokenizer import NONSENSE_WORDS, miniature_vocabulary


MAX_WAYS = 6
IGNORED = -100  # the label of tokens without a loss, as in transformers
NO_KEY = -1
# At this progress the plain rows begin, and at this one they reach their share.
_BLEND = (0.1, 0.4)
_PLAIN_SHARE = 0.45
# Between these the rows grow.
_GROWTH = (0.1, 0.4)
_REPEAT_SHARE = 0.3  # of the other rows
_BINDING_SHARE = 0.2  # of the plain rows
_PERIODS = (4, 16)
_NUM_SPECIAL_TOKENS = 3


def plain_share(progress: float) -> float:
    """Return the share of plain rows at `progress`, 0 to 1, through the training."""
    start, end = _BLEND
    return _PLAIN_SHARE * min(max((progress - start) / (end - start), 0.0), 1.0)


def row_length(progress: float, lengths: tuple[int, int]) -> int:
    """Return the tokens of a row, a multiple of 3, at `progress`, 0 to 1, through the training.

    Args:
        progress (`float`): Where in the training.
        lengths (`tuple[int, int]`): Tokens of a row at the beginning and at the end.
    """
    start, end = _GROWTH
    share = min(max((progress - start) / (end - start), 0.0), 1.0)
    return 3 * round((lengths[0] + share * (lengths[1] - lengths[0])) / 3)


def lookup_row(
    rng: np.random.Generator, tokenizer: PreTrainedTokenizerFast, length: int, ways: int | None = None
) -> dict[str, torch.Tensor]:
    """Draw a row of `key word.` examples; only the words have labels.

    Args:
        rng (`numpy.random.Generator`): Source of randomness.
        tokenizer (`PreTrainedTokenizerFast`): The tokenizer.
        length (`int`): Tokens of the row `T`, three per example.
        ways (`int`, *optional*): Number of bindings; 2 to `MAX_WAYS` by default.

    Returns:
        `dict`: `input_ids`, `labels` and `keys`, the number of the binding at each key and `NO_KEY` elsewhere, all `(T,)`.
    """
    ways = ways or int(rng.integers(2, MAX_WAYS + 1))
    which = rng.integers(ways, size=length // 3)
    names = [w for w in miniature_vocabulary()[_NUM_SPECIAL_TOKENS:] if w.isalpha() and w not in NONSENSE_WORDS]
    chosen, words = (rng.choice(choices, size=ways, replace=False) for choices in (names, NONSENSE_WORDS))
    ids = np.full(length, tokenizer.convert_tokens_to_ids("."))
    labels, keys = np.full(length, IGNORED), np.full(length, NO_KEY)
    ids[0::3] = np.array(tokenizer.convert_tokens_to_ids(list(chosen)))[which]
    ids[1::3] = labels[1::3] = np.array(tokenizer.convert_tokens_to_ids(list(words)))[which]
    keys[0::3] = which
    return {"input_ids": torch.from_numpy(ids), "labels": torch.from_numpy(labels), "keys": torch.from_numpy(keys)}


def embed_with_noisy_keys(
    embedding: nn.Embedding, input_ids: torch.Tensor, keys: torch.Tensor, made_up: torch.Tensor, noise: torch.Tensor
) -> torch.Tensor:
    """Embed rows of look-up text with random vectors as keys, and noise on the keys.

    Args:
        embedding (`nn.Embedding`): The embedding of words.
        input_ids, keys (`torch.Tensor` of shape `(B, T)`): As in [`lookup_row`].
        made_up (`torch.Tensor` of shape `(B,)`): Whether the keys of a row become random vectors, one per binding.
        noise (`torch.Tensor` of shape `(B,)`): Standard deviation of the noise, as a multiple of the key's own.

    Returns:
        `torch.Tensor` of shape `(B, T, D)`.
    """
    embeds = embedding(input_ids)
    rows, _, width = embeds.shape
    spread = embedding.weight.detach().std() * (0.5 + 1.5 * torch.rand(rows, 1, 1, device=embeds.device))
    vectors = torch.randn(rows, MAX_WAYS, width, device=embeds.device) * spread
    vectors = vectors.gather(1, keys.clamp(min=0)[..., None].expand(-1, -1, width))
    is_key = (keys != NO_KEY)[..., None]
    embeds = torch.where(is_key & made_up[:, None, None], vectors, embeds)
    amount = noise[:, None, None] * embeds.detach().std(dim=-1, keepdim=True) * is_key
    return embeds + amount * torch.randn_like(embeds)


class TextRows(Dataset):
    """All batches of a training run in their order. Batch `i` depends on the seed and `i` only.

    Each is a `dict` of `input_ids`, `labels`, `position_ids` and `keys` (see [`lookup_row`]), all `(B, T)`, with
    `made_up`, whether the keys of a row become random vectors, and `noise` on them, in standard deviations of the key,
    both `(B,)`. `T` is as [`row_length`] says, and `B` as many rows as `tokens` suffice for.

    Args:
        tokenizer (`PreTrainedTokenizerFast`): The tokenizer.
        steps (`int`): Number of batches.
        tokens (`int`): Tokens of a batch, at most.
        lengths (`tuple[int, int]`): Tokens of a row at the beginning and at the end, multiples of 3.
        max_positions (`int`): Positions of the model.
        noise (`float`): Largest noise on keys, reached after two thirds of the batches.
        made_up (`float`): Share of look-up rows whose keys are random vectors.
        seed (`int`): Seed of the rows.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        steps: int,
        *,
        tokens: int,
        lengths: tuple[int, int],
        max_positions: int,
        noise: float,
        made_up: float,
        seed: int,
    ):
        self.tokenizer = tokenizer
        self.steps = steps
        self.tokens = tokens
        self.lengths = lengths
        self.max_positions = max_positions
        self.noise = noise
        self.made_up = made_up
        self.seed = seed

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if not 0 <= index < self.steps:
            raise IndexError(f"Batch {index} of {self.steps}.")  # ends a `for` loop over the batches
        rng = np.random.default_rng((self.seed, index))
        progress = index / self.steps
        length = row_length(progress, self.lengths)
        return default_data_collator([self._row(rng, progress, length) for _ in range(self.tokens // length)])

    def _row(self, rng: np.random.Generator, progress: float, length: int) -> dict[str, torch.Tensor | bool | float]:
        row = {"keys": torch.full((length,), NO_KEY)}
        start, made_up, noise = 0, False, 0.0
        if rng.random() < plain_share(progress):
            row["input_ids"] = row["labels"] = torch.tensor(self._plain(rng, length))
            if rng.random() < 0.5:  # later positions would stay untrained
                start = int(rng.integers(self.max_positions - length))
        elif rng.random() < _REPEAT_SHARE:
            period = int(rng.integers(_PERIODS[0], _PERIODS[1] + 1))
            vocabulary = len(miniature_vocabulary()) - _NUM_SPECIAL_TOKENS
            words = rng.choice(vocabulary, size=period, replace=False) + _NUM_SPECIAL_TOKENS
            row["input_ids"] = torch.from_numpy(np.resize(words, length))
            row["labels"] = row["input_ids"].clone()
            row["labels"][:period] = IGNORED
        else:
            row = lookup_row(rng, self.tokenizer, length)
            made_up = bool(rng.random() < self.made_up)
            noise = self.noise * min(1.0, 1.5 * progress) * rng.random()
        return {**row, "position_ids": torch.arange(start, start + length), "made_up": made_up, "noise": noise}

    def _plain(self, rng: np.random.Generator, length: int) -> list[int]:
        """Draw `length` tokens of texts, each followed by the end-of-text token."""
        end = self.tokenizer.eos_token_id
        # Called for every text: the wrapper around the tokenizer costs more than the training step would.
        encode = self.tokenizer.backend_tokenizer.encode
        # Half of the rows start with a text, half with the end of the text before: both occur in use.
        row = [end] if rng.random() < 0.5 else []
        kinds = ("binding",) if rng.random() < _BINDING_SHARE else ("caption", "question", "caption_question")
        while len(row) < length:
            row += [*encode(sample_text(str(rng.choice(kinds)), rng)).ids, end]
        return row[:length]
