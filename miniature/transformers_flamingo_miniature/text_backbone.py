# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Training of the miniature language model: a tiny GPT-2 that has never seen an image.

It is trained by the function behind `flamingo pretrain text`, on the rows of [`TextRows`]: it writes captions, answers
questions, and looks up in its context which word was bound to a thing, for things that have no word as well.
"""

import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, Trainer, TrainingArguments

from transformers_flamingo.pretraining import train_language_model
from transformers_flamingo.saving_flamingo import update_folder

from .backbones import library_versions, write_training_record
from .text_evaluation import evaluate_text_backbone
from .text_rows import TextRows, embed_with_noisy_keys
from .tokenizer import build_tokenizer


# GPT-2's 0.02 suits widths near a thousand; a tiny model learns much faster from larger weights.
_INITIALIZER_RANGE = 0.07
_HEAD_SIZE = 32
# Radians per token of the position's waves, from the fastest to the slowest: neighboring positions must differ for "the
# token before" to be found. The waves have as many channels as a head, so that words and positions can be told apart.
_WAVE_FREQUENCIES = 2.5 ** torch.linspace(1, -4, _HEAD_SIZE // 2)
_WAVE_AMPLITUDE = 0.26
# Strengths of the start of look-up: how sharply its two heads attend, and how loudly the first repeats.
_PREVIOUS_TOKEN_GAIN = 2.0
_MATCH_GAIN = 3.0
_REPETITION = 0.3


def position_waves(positions: int, width: int) -> torch.Tensor:
    """Return sines and cosines of the position in the first channels and 0 in the others, `(positions, width)`."""
    angles = torch.arange(positions)[:, None] * _WAVE_FREQUENCIES
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)
    return nn.functional.pad(_WAVE_AMPLITUDE * waves, (0, width - _HEAD_SIZE))


def start_lookup(model: GPT2LMHeadModel) -> None:
    """Give two heads of an untrained model the attention of look-up: an induction head.

    The first head of layer 0 attends to the token before and repeats it. The first head of layer 1 attends to where that
    repetition equals the own token, and so to what followed it. What is done with what is found is left to the training.
    Without this start a model of this size finds a cheaper rule: whether a key is the first one of the row, or the second.
    The words introduced later are then guessed (`docs/few-shot-log.md`).

    Args:
        model (`GPT2LMHeadModel`): At least two layers, with [`position_waves`]. The heads draw from torch's global generator.
    """
    width, words = model.config.n_embd, model.config.n_embd - _HEAD_SIZE
    before, after = (block.attn for block in model.transformer.h[:2])
    # Orthonormal maps from the channels of words to a head's, and from there to other directions of the same channels.
    read, write = (
        nn.functional.pad(torch.linalg.qr(torch.randn(words, _HEAD_SIZE)).Q, (0, 0, _HEAD_SIZE, 0)) for _ in range(2)
    )
    sin, cos = torch.eye(_HEAD_SIZE).chunk(2)  # the channels of a head
    step_sin, step_cos = _WAVE_FREQUENCIES.sin()[:, None], _WAVE_FREQUENCIES.cos()[:, None]
    with torch.no_grad():
        query, key, value = before.c_attn.weight.split(width, dim=1)
        key[:, :_HEAD_SIZE] = 0
        key[:_HEAD_SIZE, :_HEAD_SIZE] = _PREVIOUS_TOKEN_GAIN * torch.eye(_HEAD_SIZE)
        query[:, :_HEAD_SIZE] = 0
        # The own waves, turned back by a token.
        query[:_HEAD_SIZE, :_HEAD_SIZE] = _PREVIOUS_TOKEN_GAIN * torch.cat(
            [step_cos * sin + step_sin * cos, step_cos * cos - step_sin * sin]
        )
        value[:, :_HEAD_SIZE] = read
        before.c_proj.weight[:_HEAD_SIZE] = _REPETITION * write.T
        query, key, _ = after.c_attn.weight.split(width, dim=1)
        query[:, :_HEAD_SIZE] = _MATCH_GAIN * read
        key[:, :_HEAD_SIZE] = _MATCH_GAIN * write


@dataclass(frozen=True)
class TextBackboneSettings:
    """Size of the miniature language model and settings of its training.

    The defaults are those of the one of `flamingo demo --few-shot`. That of `flamingo demo` is older: it had to find look-up by
    itself, at a learning rate that [`start_lookup`] does not survive.

    Args:
        steps (`int`): Optimizer steps.
        batch_tokens (`int`): Tokens in each of them, at most.
        first_row_length, row_length (`int`): Tokens of a row at the beginning and at the end, multiples of 3.
        learning_rate, weight_decay, warmup_steps: Of AdamW. The rate is constant for three fifths of the steps, then
            falls to 0 along a cosine.
        noise, made_up (`float`): As in [`TextRows`].
        width, layers, max_positions (`int`): Size of the model. The width is a multiple of 32, the head size, and there are at least
            64 channels and two layers ([`start_lookup`]).

    Raises:
        ValueError: there is no step, the rows do not fit, or the model is too small to look anything up.
    """

    steps: int = 3000
    batch_tokens: int = 2400
    first_row_length: int = 48
    row_length: int = 120
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_steps: int = 50
    noise: float = 0.5
    made_up: float = 0.5
    width: int = 96
    layers: int = 3
    max_positions: int = 512

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"`steps` is {self.steps}, but it must be at least 1.")
        if self.width < 2 * _HEAD_SIZE or self.width % _HEAD_SIZE or self.layers < 2:
            raise ValueError(
                f"A model of {self.layers} layers and width {self.width} cannot look anything up: that takes two layers, and a "
                f"width that is a multiple of {_HEAD_SIZE} and at least {2 * _HEAD_SIZE}. Change `layers` or `width`."
            )
        for name in ("first_row_length", "row_length"):
            length = getattr(self, name)
            if not 0 < length < self.max_positions or length % 3:
                raise ValueError(
                    f"Rows of {length} tokens do not fit into {self.max_positions} positions as examples of 3 tokens "
                    f"each. Change `{name}`."
                )
            if length > self.batch_tokens:
                raise ValueError(
                    f"`{name}` is {length}, but a batch has {self.batch_tokens} tokens. Raise `batch_tokens`."
                )


def build_text_backbone(tokenizer: PreTrainedTokenizerFast, settings: TextBackboneSettings) -> GPT2LMHeadModel:
    """Build the model from random weights (torch's global generator), [`position_waves`] and [`start_lookup`]."""
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=settings.max_positions,
        n_embd=settings.width,
        n_layer=settings.layers,
        n_head=settings.width // _HEAD_SIZE,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        initializer_range=_INITIALIZER_RANGE,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        model.transformer.wpe.weight.copy_(position_waves(settings.max_positions, settings.width))
    start_lookup(model)
    return model


class LookupTrainer(Trainer):
    """`Trainer` on [`TextRows`], which replaces keys by made-up vectors and adds noise to them."""

    def compute_loss(self, model: nn.Module, inputs: dict[str, torch.Tensor], *args, **kwargs) -> Any:
        """Compute the model's loss, as `Trainer.compute_loss`."""
        inputs = {name: tensor[0] for name, tensor in inputs.items()}  # an item of [`TextRows`] is a whole batch
        disturbance = (inputs.pop(name) for name in ("input_ids", "keys", "made_up", "noise"))
        inputs["inputs_embeds"] = embed_with_noisy_keys(model.get_input_embeddings(), *disturbance)
        return super().compute_loss(model, inputs, *args, **kwargs)


def train_text_backbone(
    output_dir: str | Path,
    *,
    seed: int = 0,
    settings: TextBackboneSettings = TextBackboneSettings(),
    device: Literal["cpu", "cuda"] = "cpu",
    evaluation_size: int = 500,
    progress: bool = True,
) -> dict[str, Any]:
    """Train a tiny GPT-2 on text of the world and save it with its tokenizer.

    The folder then loads with `AutoModelForCausalLM` and `AutoTokenizer`, and holds a `training.json` with the settings
    and the measured figures.

    Args:
        output_dir (`str` or `Path`): Folder to write; it is created if it does not exist.
        seed (`int`): Seed of the weights and of the texts.
        settings ([`TextBackboneSettings`], *optional*): Size and training.
        device (`str`): Where to train. A GPU is faster, and rounds differently: a seed then gives other weights.
        evaluation_size (`int`): Texts per measured figure; 0 measures nothing.
        progress (`bool`): Show a progress bar.

    Returns:
        `dict`: the content of `training.json`.
    """
    started = time.perf_counter()
    tokenizer = build_tokenizer(settings.max_positions)
    rows = TextRows(
        tokenizer,
        settings.steps,
        tokens=settings.batch_tokens,
        lengths=(settings.first_row_length, settings.row_length),
        max_positions=settings.max_positions,
        noise=settings.noise,
        made_up=settings.made_up,
        seed=seed,
    )
    # Weights, made-up keys and noise read torch's global generator, whose state is restored for the caller. What the
    # trainer saves includes its arguments and its lock, so it saves elsewhere.
    with torch.random.fork_rng(devices=[]), tempfile.TemporaryDirectory() as trainer_dir:
        torch.manual_seed(seed)
        model = build_text_backbone(tokenizer, settings)
        training = TrainingArguments(
            output_dir=trainer_dir,
            max_steps=settings.steps,
            per_device_train_batch_size=1,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            adam_beta2=0.98,
            max_grad_norm=1.0,
            lr_scheduler_type="warmup_stable_decay",
            lr_scheduler_kwargs={"num_decay_steps": settings.steps * 2 // 5},
            warmup_steps=settings.warmup_steps,
            train_sampling_strategy="sequential",  # the order of the batches is the curriculum
            dataloader_pin_memory=False,
            use_cpu=device == "cpu",
            logging_steps=min(50, settings.steps),
            save_strategy="no",
            report_to="none",
            disable_tqdm=not progress,
            seed=seed,
        )
        train_language_model(model, tokenizer, rows, training, LookupTrainer)
    model.cpu()
    record = {
        "model": "GPT2LMHeadModel",
        "objective": "next token, text only",
        "seed": seed,
        "device": device,
        "hyperparameters": {
            **asdict(settings),
            "optimizer": "AdamW, betas 0.9 and 0.98, gradient norm at most 1",
            "schedule": "constant, then cosine for the last two fifths",
            "start": "two heads attend as look-up does",
        },
        "parameters": model.num_parameters(),
        "vocabulary": len(tokenizer),
        "training_tokens": settings.steps * settings.batch_tokens,
        "training_seconds": round(time.perf_counter() - started, 1),
        "versions": library_versions(),
    }
    model.config.use_cache = True  # the trainer has switched it off
    with update_folder(Path(output_dir)) as partial:
        model.eval().save_pretrained(partial)
        tokenizer.save_pretrained(partial)
    if evaluation_size:
        record["evaluation"] = evaluate_text_backbone(model, tokenizer, size=evaluation_size, seed=seed + 1)
    write_training_record(output_dir, record)
    return record
