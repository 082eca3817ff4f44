# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Measurements of the miniature language model on fresh text."""

import math
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import GPT2LMHeadModel, PreTrainedTokenizerFast, default_data_collator

from .text_rows import embed_with_noisy_keys, lookup_row
from .texts import KEYS, TEXT_KINDS, Episode, all_captions, sample_episode, sample_text
from .world import SCENE_KINDS, answer_prompt, sample_scene


@torch.no_grad()
def lookup_accuracy(
    model: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerFast,
    rng: np.random.Generator,
    *,
    keys: str = "color",
    ways: int = 2,
    episodes: int = 64,
) -> float:
    """Return how often the model names the word that its context has bound to the last key. Chance is 1 / `ways`.

    Every way is shown twice in random order before the query, and all answers compete: the whole vocabulary.
    """
    texts, answers = [], []
    for _ in range(episodes):
        bindings = sorted(set(sample_episode(rng, keys, ways, examples=32).pairs))
        shown = [bindings[i] for i in rng.permutation(np.repeat(np.arange(len(bindings)), 2))]
        key, word = bindings[rng.integers(len(bindings))]
        texts.append(f"{Episode(tuple(shown)).text} {key}")
        answers.append(tokenizer.convert_tokens_to_ids(word))
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    last = batch["attention_mask"].sum(1) - 1
    right = (logits[torch.arange(episodes), last].argmax(-1) == torch.tensor(answers)).sum().item()
    return right / episodes


@torch.no_grad()
def noisy_lookup_accuracy(
    model: GPT2LMHeadModel,
    tokenizer: PreTrainedTokenizerFast,
    rng: np.random.Generator,
    *,
    made_up: bool,
    ways: int = 2,
    noise: float = 0.5,
    rows: int = 256,
) -> float:
    """Measure the look-up of any words, or of random vectors, under noise as in training (torch's global generator).

    Counted are the words that the row has shown before, among the whole vocabulary.
    """
    batch = default_data_collator([lookup_row(rng, tokenizer, 48, ways) for _ in range(rows)])
    disturbance = torch.full((rows,), made_up), noise * torch.rand(rows)
    embeds = embed_with_noisy_keys(model.get_input_embeddings(), batch["input_ids"], batch["keys"], *disturbance)
    right = model(inputs_embeds=embeds).logits[:, 0::3].argmax(-1) == batch["input_ids"][:, 1::3]
    which = batch["keys"][:, 0::3]
    seen = (which[:, :, None] == which[:, None, :]).tril(-1).any(-1)
    return right[seen].float().mean().item()


@torch.no_grad()
def text_perplexity(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> float:
    """Return the perplexity per token of `texts`, each read after an end-of-text token and followed by one.

    The first word is not counted: it depends on the mixture of text kinds, which is not a property of the text.
    """
    end = tokenizer.eos_token
    batch = tokenizer([f"{end}{text}{end}" for text in texts], padding=True, return_tensors="pt")
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    # Position t predicts token t + 1; token 1 is the first word.
    counted = batch["attention_mask"][:, 2:].bool()
    return math.exp(F.cross_entropy(logits[:, 1:-1][counted], batch["input_ids"][:, 2:][counted]).item())


@torch.no_grad()
def valid_caption_share(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, rng: np.random.Generator, *, size: int, seed: int
) -> float:
    """Return the share of sampled continuations of two words that are captions of the world word for word."""
    starts = [" ".join(sample_text("caption", rng).split()[:2]) for _ in range(size)]
    prompts = tokenizer(starts, padding=True, padding_side="left", return_tensors="pt")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sampled = model.generate(
            input_ids=prompts["input_ids"],
            attention_mask=prompts["attention_mask"],
            do_sample=True,
            top_k=0,
            max_new_tokens=16,
        )
    known = all_captions()
    # A full stop leads on to a question about the caption.
    captions = [text.split(".")[0] for text in tokenizer.batch_decode(sampled, skip_special_tokens=True)]
    return sum(caption in known for caption in captions) / size


@torch.no_grad()
def answer_accuracy(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, rng: np.random.Generator, *, size: int
) -> float:
    """Return the accuracy on questions about a caption that comes before them in the text."""
    right = 0
    for _ in range(size):
        scene = sample_scene(str(rng.choice(SCENE_KINDS)), rng)
        asked = scene.questions[rng.integers(len(scene.questions))]
        prompt = tokenizer(f"{scene.caption}. {answer_prompt(asked.question)}", return_tensors="pt")
        guess = model(input_ids=prompt["input_ids"]).logits[0, -1].argmax().item()
        right += tokenizer.decode([guess]) == asked.answer
    return right / size


@torch.no_grad()
def blind_answer(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, question: str) -> float:
    """Return the highest probability of an answer to a question without a caption: chance, if there is no bias."""
    prompt = tokenizer(answer_prompt(question), return_tensors="pt")
    return model(input_ids=prompt["input_ids"]).logits[0, -1].softmax(-1).max().item()


def evaluate_text_backbone(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, *, size: int = 500, seed: int = 1
) -> dict[str, Any]:
    """Measure the language model on fresh text.

    Args:
        model (`GPT2LMHeadModel`): The language model; it is set to evaluation mode.
        tokenizer (`PreTrainedTokenizerFast`): Its tokenizer.
        size (`int`): Texts behind each figure.
        seed (`int`): Seed of the texts.

    Returns:
        `dict`: `perplexity` of captions and questions; `valid_captions`; `answer_from_caption`; `blind_answer` for each
        question; `lookup`, [`lookup_accuracy`] by kind of key and number of ways, and [`noisy_lookup_accuracy`] of any
        words and of made-up vectors.
    """
    rng = np.random.default_rng(seed)
    model.eval()
    perplexity = {
        kind: text_perplexity(model, tokenizer, [sample_text(kind, rng) for _ in range(size)])
        for kind in TEXT_KINDS[:3]
    }
    valid_captions = valid_caption_share(model, tokenizer, rng, size=size, seed=seed)
    answer_from_caption = answer_accuracy(model, tokenizer, rng, size=size)
    blind = {
        question: blind_answer(model, tokenizer, question)
        for question in ("what color?", "what shape?", "what size?", "what background?", "how many?")
    }
    lookup = {
        f"{keys}_{ways}_ways": lookup_accuracy(model, tokenizer, rng, keys=keys, ways=ways, episodes=size)
        for keys in KEYS
        for ways in (2, 4)
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        lookup |= {
            f"noisy_{name}_{ways}_ways": noisy_lookup_accuracy(
                model, tokenizer, rng, made_up=name == "made_up", ways=ways, rows=size
            )
            for name in ("word", "made_up")
            for ways in (2, 4)
        }

    def rounded(figures: dict[str, float]) -> dict[str, float]:
        return {name: round(value, 4) for name, value in figures.items()}

    return {
        "size": size,
        "perplexity": rounded(perplexity),
        "valid_captions": round(valid_captions, 4),
        "answer_from_caption": round(answer_from_caption, 4),
        "blind_answer": rounded(blind),
        "lookup": rounded(lookup),
    }
