# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Training of the miniature language model: a tiny GPT-2 that has never seen an image.

It is trained by the function behind `flamingo pretrain text`, on the rows of [`TextRows`]: it writes captions, answers
questions, and looks up in its context which word was bound to a thing, for things that have no word as well.
"""

import math
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
# Neighboring positions must differ for "the token before" to be found: with wavelengths up to 10,000, as is usual, no
# look-up was learned (docs/few-shot-log.md).
_LONGEST_WAVE = 60.0
_WAVE_AMPLITUDE = 1.5


def position_waves(positions: int, width: int) -> torch.Tensor:
    """Return sines and cosines of the position at `width` / 2 wavelengths, `(positions, width)`."""
    angles = torch.arange(positions)[:, None] * _LONGEST_WAVE ** -torch.linspace(0, 1, width // 2)
    return _WAVE_AMPLITUDE * _INITIALIZER_RANGE * math.sqrt(2) * torch.cat([angles.sin(), angles.cos()], dim=1)


@dataclass(frozen=True)
class TextBackboneSettings:
    """Size of the miniature language model and settings of its training.

    The defaults are those of the one of `flamingo demo --few-shot`. That of `flamingo demo` is older, and its record has its
    own: 3500 steps of rows of 48 tokens.

    Args:
        steps (`int`): Optimizer steps.
        batch_tokens (`int`): Tokens in each of them, at most.
        first_row_length, row_length (`int`): Tokens of a row at the beginning and at the end, multiples of 3.
        learning_rate, weight_decay, warmup_steps: Of AdamW. The rate is constant for three fifths of the steps, then
            falls to 0 along a cosine.
        noise, made_up (`float`): As in [`TextRows`].
        width, layers, max_positions (`int`): Size of the model. The width is a multiple of 32, the head size.

    Raises:
        ValueError: there is no step, or the rows do not fit.
    """

    steps: int = 5000
    batch_tokens: int = 2400
    first_row_length: int = 48
    row_length: int = 120
    learning_rate: float = 3e-3
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
    """Build the model from random weights (torch's global generator) and [`position_waves`]."""
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=settings.max_positions,
        n_embd=settings.width,
        n_layer=settings.layers,
        n_head=settings.width // 32,
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
