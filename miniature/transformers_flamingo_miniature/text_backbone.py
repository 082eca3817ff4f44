# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Training of the miniature language model: a tiny GPT-2 that has never seen a picture.

It is trained on four kinds of text, each with uniformly random content, so that without a picture it can only guess:

- captions of random scenes, all colour-shape pairs included: `a small red circle on a striped background`
- questions with answers: `question: what color? answer: red`
- a caption and a question about it: `three blue bars. question: how many? answer: three`
- episodes that bind nonsense words to attributes: `red dax. blue wug. red dax. blue wug.`

The last kind gives the model what few-shot prompts need later: to look up in its context which word went with a thing.
That ability (an induction head) appears late, and more easily if it is the only way to a lower loss. Training therefore
starts with episodes of one-word keys and with repeated words only, goes on when the *measured* look-up accuracy reaches
its goal or after a given number of steps, and then blends the other texts in slowly: a sudden change of the mixture
destroys what was learned.
"""

import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from transformers_flamingo.saving_flamingo import update_folder

from .backbones import library_versions, warmup_cosine, write_training_record
from .tokenizer import NONSENSE_WORDS, build_tokenizer, miniature_vocabulary
from .world import (
    ALL_PAIRS,
    BACKGROUNDS,
    COLORS,
    COUNTS,
    DIRECTIONS,
    SCENE_KINDS,
    SHAPES,
    SIZES,
    CountScene,
    PairScene,
    Scene,
    SingleScene,
    VideoScene,
    answer_prompt,
    answer_text,
    sample_scene,
)


TEXT_KINDS = ("caption", "question", "caption_question", "binding")
# Shares of the final mixture, in rows.
_MIXTURE = {"caption": 0.25, "question": 0.2, "caption_question": 0.2, "binding": 0.35}
# A nonsense word that the context determines counts this much more: it is one token in three of an episode, and the
# only one that look-up can improve.
_BINDING_WEIGHT = 4.0
# GPT-2's 0.02 suits widths near a thousand; a tiny model learns much faster from larger weights.
_INITIALIZER_RANGE = 0.07
_KEYS = {
    "color": COLORS,
    "shape": SHAPES,
    "pair": tuple(f"{color} {shape}" for color, shape in ALL_PAIRS),
}


class Episode(NamedTuple):
    """A text that binds nonsense words to keys.

    `pairs` are its (key, word) examples in order; a word is bound to one key throughout. `text` joins them.
    """

    pairs: tuple[tuple[str, str], ...]

    @property
    def text(self) -> str:
        return " ".join(f"{key} {word}." for key, word in self.pairs)


def sample_episode(
    rng: np.random.Generator, keys: str = "color", ways: int = 2, examples: int = 8, repeat: bool = False
) -> Episode:
    """Bind `ways` random nonsense words to as many random keys and show `examples` random ones of these bindings.

    Args:
        rng (`numpy.random.Generator`): the source of chance.
        keys (`str`): what words are bound to: `"color"`, `"shape"` or `"pair"` (a colour and a shape).
        ways, examples (`int`): number of bindings and length of the episode.
        repeat (`bool`): run through all bindings in one order again and again instead of drawing each at random.
    """
    if keys not in _KEYS:
        raise ValueError(f"Unknown keys {keys!r}: an episode binds words to {', '.join(_KEYS)}.")
    chosen = rng.choice(_KEYS[keys], size=ways, replace=False)
    words = rng.choice(NONSENSE_WORDS, size=ways, replace=False)
    order = np.resize(rng.permutation(ways), examples) if repeat else rng.integers(ways, size=examples)
    return Episode(tuple((str(chosen[i]), str(words[i])) for i in order))


def sample_text(kind: str, rng: np.random.Generator) -> str:
    """One random text of a kind in `TEXT_KINDS`."""
    if kind == "binding":
        keys = str(rng.choice(tuple(_KEYS), p=(0.35, 0.35, 0.3)))
        return sample_episode(rng, keys, ways=int(rng.integers(2, 5)), examples=int(rng.integers(4, 13))).text
    if kind not in TEXT_KINDS:
        raise ValueError(f"Unknown kind of text {kind!r}: known kinds are {', '.join(TEXT_KINDS)}.")
    scene = sample_scene(str(rng.choice(SCENE_KINDS, p=(0.4, 0.25, 0.2, 0.15))), rng)
    if kind == "caption":
        return scene.caption
    asked = scene.questions[rng.integers(len(scene.questions))]
    text = answer_text(asked.question, asked.answer)
    return text if kind == "question" else f"{scene.caption}. {text}"


def _sample_row(kind: str, length: int, tokenizer: PreTrainedTokenizerFast, rng: np.random.Generator) -> list[int]:
    """Texts of one kind (captions and questions mixed), each ended by the end-of-text token, `length` + 1 tokens."""
    end = tokenizer.eos_token_id
    # Called for every text: the wrapper around the tokenizer costs more than the training step would.
    encode = tokenizer.backend_tokenizer.encode
    # Half of the rows start with a text, half with the end of the text before: both occur in use.
    row = [end] if rng.random() < 0.5 else []
    while len(row) <= length:
        if kind == "lookup":
            # Many ways, because guessing among few is nearly as good as looking up.
            keys, ways = str(rng.choice(("color", "shape"))), int(rng.integers(3, 7))
            text = sample_episode(rng, keys, ways, examples=20, repeat=rng.random() < 0.5).text
        elif kind == "repeat":
            # Any words, again and again in one order: here look-up pays at every token, so it is found soonest.
            words = rng.choice(miniature_vocabulary()[3:], size=int(rng.integers(4, 17)), replace=False)
            text = " ".join(np.resize(words, length))
        elif kind == "binding":
            text = sample_text("binding", rng)
        else:
            plain = TEXT_KINDS[:3]
            shares = np.array([_MIXTURE[name] for name in plain])
            text = sample_text(str(rng.choice(plain, p=shares / shares.sum())), rng)
        row += [*encode(text).ids, end]
    return row[: length + 1]


def _weights(rows: torch.Tensor, nonsense: torch.Tensor, end: int) -> torch.Tensor:
    """Loss weight of each token of `rows` (B, T): more for a nonsense word that its own text has bound before."""
    text = (rows == end).cumsum(1)
    same = (rows[:, :, None] == rows[:, None, :]) & (text[:, :, None] == text[:, None, :])
    seen_before = same.tril(-1).any(-1)
    return torch.where(torch.isin(rows, nonsense) & seen_before, _BINDING_WEIGHT, 1.0)


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
    """How often the model names the word that its context has bound to the last key. Chance is 1 / `ways`.

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


def _position_waves(positions: int, width: int) -> torch.Tensor:
    """Sines and cosines of the position at `width` / 2 wavelengths, as large as the random embeddings: (T, D)."""
    frequencies = 10_000 ** -torch.linspace(0, 1, width // 2)
    angles = torch.arange(positions, dtype=torch.float32)[:, None] * frequencies
    return _INITIALIZER_RANGE * math.sqrt(2) * torch.cat([angles.sin(), angles.cos()], dim=1)


def train_text_backbone(
    output_dir: str | Path,
    *,
    seed: int = 0,
    steps: int = 4500,
    max_lookup_steps: int = 500,
    lookup_goal: float = 0.95,
    batch_size: int = 32,
    row_length: int = 64,
    learning_rate: float = 2e-3,
    weight_decay: float = 0.05,
    warmup_steps: int = 50,
    width: int = 96,
    layers: int = 3,
    max_positions: int = 512,
    evaluation_size: int = 500,
    progress: bool = True,
) -> dict[str, Any]:
    """Train a tiny GPT-2 on text of the world and save it with its tokenizer.

    The folder then loads with `AutoModelForCausalLM` and `AutoTokenizer`, and holds a `training.json` with the settings
    and the measured figures.

    Args:
        output_dir (`str` or `Path`): folder to write; made if missing.
        seed (`int`): seed of the weights and of the texts.
        steps (`int`): steps after the look-up stage; the first half of them blends the other texts in.
        max_lookup_steps (`int`): at most so many steps of the look-up stage; 0 leaves it out.
        lookup_goal (`float`): measured look-up accuracy that ends the look-up stage.
        batch_size, row_length, learning_rate, weight_decay, warmup_steps: AdamW on rows of `row_length` tokens; the
            rate is constant in the look-up stage and falls to 0 along a cosine afterwards.
        width, layers, max_positions (`int`): size of the model. The width is a multiple of 32, the head size.
        evaluation_size (`int`): texts per measured figure; 0 measures nothing.
        progress (`bool`): show progress bars.

    Returns:
        `dict`: the content of `training.json`.
    """
    if steps < 1 or max_lookup_steps < 0:
        raise ValueError(f"Expected at least 1 step and no negative look-up stage: got {steps=}, {max_lookup_steps=}.")
    if row_length >= max_positions:
        raise ValueError(f"Rows of {row_length} tokens do not fit into {max_positions} positions.")
    started = time.perf_counter()
    rng, check_rng = np.random.default_rng(seed), np.random.default_rng((seed, 1))
    tokenizer = build_tokenizer(max_positions)
    end = tokenizer.eos_token_id
    nonsense = torch.tensor(tokenizer.convert_tokens_to_ids(list(NONSENSE_WORDS)))
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=max_positions,
        n_embd=width,
        n_layer=layers,
        n_head=max(1, width // 32),
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=_INITIALIZER_RANGE,
        bos_token_id=end,
        eos_token_id=end,
        pad_token_id=tokenizer.pad_token_id,
    )
    # Weight initialisation reads torch's global generator; callers keep their own state of it.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = GPT2LMHeadModel(config).train()
    # To look at "the token before" is one linear map of these, and has to be learned position by position otherwise.
    with torch.no_grad():
        model.transformer.wpe.weight.copy_(_position_waves(max_positions, width))
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=learning_rate,
        betas=(0.9, 0.98),
    )

    def step(lookup: float, factor: float) -> float:
        kinds = [
            rng.choice(("lookup", "repeat"), p=(0.7, 0.3))
            if rng.random() < lookup
            else ("binding" if rng.random() < _MIXTURE["binding"] else "plain")
            for _ in range(batch_size)
        ]
        rows = torch.tensor([_sample_row(kind, row_length, tokenizer, rng) for kind in kinds])  # (B, T + 1)
        # Later positions would stay untrained if every row began at 0: up to half of the rows begin anywhere.
        offsets = rng.integers(max_positions - row_length, size=batch_size)
        offsets *= rng.random(batch_size) < 0.5 * (1 - lookup)
        positions = torch.from_numpy(offsets)[:, None] + torch.arange(row_length)
        logits = model(input_ids=rows[:, :-1], position_ids=positions).logits
        weights = _weights(rows, nonsense, end)[:, 1:]
        token_loss = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="none")
        loss = (token_loss * weights.flatten()).sum() / weights.sum()
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * factor
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    lookup_steps, reached = 0, 0.0
    bar = tqdm(range(max_lookup_steps), desc="language model, look-up", disable=not progress)
    for lookup_steps in bar:
        loss = step(lookup=1.0, factor=min(1.0, (lookup_steps + 1) / warmup_steps))
        if lookup_steps % 25 == 24:
            model.eval()
            reached = min(
                lookup_accuracy(model, tokenizer, check_rng, keys=keys, ways=3) for keys in ("color", "shape")
            )
            model.train()
            bar.set_postfix(loss=f"{loss:.3f}", accuracy=f"{reached:.2f}", refresh=False)
            if reached >= lookup_goal:
                break
    bar.close()
    for index in (bar := tqdm(range(steps), desc="language model, all texts", disable=not progress)):
        warm = 0 if max_lookup_steps else warmup_steps
        loss = step(
            lookup=max(0.0, 1 - 2 * index / steps) if max_lookup_steps else 0.0,
            factor=warmup_cosine(index, steps, warm),
        )
        bar.set_postfix(loss=f"{loss:.3f}", refresh=False)

    output_dir = Path(output_dir)
    with update_folder(output_dir) as partial:
        model.eval().save_pretrained(partial)
        tokenizer.save_pretrained(partial)
    record = {
        "model": "GPT2LMHeadModel",
        "objective": "next token, text only",
        "seed": seed,
        "hyperparameters": {
            "steps": steps,
            "max_lookup_steps": max_lookup_steps,
            "lookup_goal": lookup_goal,
            "batch_size": batch_size,
            "row_length": row_length,
            "learning_rate": learning_rate,
            "weight_decay": weight_decay,
            "warmup_steps": warmup_steps,
            "optimizer": "AdamW, betas 0.9 and 0.98, gradient norm at most 1",
            "schedule": "constant in the look-up stage, then cosine",
            "width": width,
            "layers": layers,
            "max_positions": max_positions,
            "mixture": _MIXTURE,
        },
        "parameters": model.num_parameters(),
        "vocabulary": len(tokenizer),
        "lookup_steps": lookup_steps + 1 if max_lookup_steps else 0,
        "lookup_accuracy_at_switch": round(reached, 4),
        "training_tokens": (steps + (lookup_steps + 1 if max_lookup_steps else 0)) * batch_size * row_length,
        "training_seconds": round(time.perf_counter() - started, 1),
        "threads": torch.get_num_threads(),
        "versions": library_versions(),
    }
    if evaluation_size:
        record["evaluation"] = evaluate_text_backbone(model, tokenizer, size=evaluation_size, seed=seed + 1)
    write_training_record(output_dir, record)
    return record


def all_captions() -> frozenset[str]:
    """Every caption that the world can produce."""
    scenes: list[Scene] = []
    for color, shape in ALL_PAIRS:
        for background in BACKGROUNDS:
            scenes += [SingleScene(color, shape, size, background) for size in SIZES]
            scenes += [CountScene(color, shape, count, background) for count in COUNTS]
            scenes += [VideoScene(color, shape, direction, background) for direction in DIRECTIONS]
        scenes += [PairScene(color, shape, *other, BACKGROUNDS[0]) for other in ALL_PAIRS if other[1] != shape]
    return frozenset(scene.caption for scene in scenes)


@torch.no_grad()
def text_perplexity(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> float:
    """Perplexity per token of `texts`, each read after an end-of-text token and followed by one.

    The first word is not counted: it depends on the mixture of text kinds, which is not a property of the text.
    """
    end = tokenizer.eos_token
    batch = tokenizer([f"{end}{text}{end}" for text in texts], padding=True, return_tensors="pt")
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    # Position t predicts token t + 1; token 1 is the first word.
    counted = batch["attention_mask"][:, 2:].bool()
    return math.exp(F.cross_entropy(logits[:, 1:-1][counted], batch["input_ids"][:, 2:][counted]).item())


def evaluate_text_backbone(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, *, size: int = 500, seed: int = 1
) -> dict[str, Any]:
    """Measure the language model on fresh text.

    Returns:
        `dict`: `perplexity` of captions and questions; `valid_captions`, the share of sampled continuations that are
        captions of the world word for word; `answer_from_caption`, accuracy on questions about a caption in the text;
        `blind_answer`, the highest probability that the model gives an answer to a question without a caption (chance
        if it has no bias); `lookup`, accuracies of `lookup_accuracy` per kind of key and number of ways.
    """
    rng = np.random.default_rng(seed)
    model.eval()
    perplexity = {
        kind: round(text_perplexity(model, tokenizer, [sample_text(kind, rng) for _ in range(size)]), 4)
        for kind in TEXT_KINDS[:3]
    }

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

    right = 0
    for _ in range(size):
        scene = sample_scene(str(rng.choice(SCENE_KINDS)), rng)
        asked = scene.questions[rng.integers(len(scene.questions))]
        prompt = tokenizer(f"{scene.caption}. {answer_prompt(asked.question)}", return_tensors="pt")
        guess = model(input_ids=prompt["input_ids"]).logits[0, -1].argmax().item()
        right += tokenizer.decode([guess]) == asked.answer
    blind = {}
    for question in ("what color?", "what shape?", "what size?", "what background?", "how many?"):
        prompt = tokenizer(answer_prompt(question), return_tensors="pt")
        blind[question] = round(model(input_ids=prompt["input_ids"]).logits[0, -1].softmax(-1).max().item(), 4)
    return {
        "size": size,
        "perplexity": perplexity,
        "valid_captions": round(sum(caption in known for caption in captions) / size, 4),
        "answer_from_caption": round(right / size, 4),
        "blind_answer": blind,
        "lookup": {
            f"{keys}_{ways}_ways": round(
                lookup_accuracy(model, tokenizer, rng, keys=keys, ways=ways, episodes=size), 4
            )
            for keys in _KEYS
            for ways in (2, 4)
        },
    }
