# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Training of a Flamingo that binds new words from its prompt, with gates that start at 0.

It goes from what a closed gate has a gradient for to what it has none for (`docs/few-shot-log.md` has what failed): to
match one image with another is an effect of second order in what the images add to the text, and that is 0 at first.

1. names: `<image>red`, `<image>circle`. The resampler learns what to show, the gates open.
2. look-up: `red dax<|endofchunk|>blue wug<|endofchunk|><image>dax`. What an image adds becomes what the frozen language
   model can look up.
3. episodes, of which some begin with examples in words.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from transformers import Trainer, TrainingArguments

from transformers_flamingo.data.encoding import encode_images
from transformers_flamingo.modeling_flamingo import FlamingoModel
from transformers_flamingo.processing_flamingo import FlamingoProcessor
from transformers_flamingo.training import FlamingoDataCollator, GateHistoryCallback, parameter_groups

from .backbones import join_shipped_backbones
from .few_shot_episodes import CONTRASTS, FIELDS, PAIRS, PicturePool, sample_few_shot_episode
from .shipped import few_shot_text_backbone_path


# Examples of an episode, query included. What a position does at a number of examples is learned at that number only.
EXAMPLES = (2, 33)


class Stage(NamedTuple):
    """
    Settings of a training stage.

    `described` is as in [`episode_row`], `None` for names. `supervises_new_words` is as there.
    """

    steps: int
    batch_size: int
    learning_rate: float
    gate_learning_rate_multiplier: float
    described: float | None
    trains_ffn_gates: bool
    supervises_new_words: bool = False


# The feed-forward branches wait: once open, they rewrite words that the language model needs as they are.
STAGES = {
    "names": Stage(400, 64, 2e-3, 20.0, None, False),
    "look-up": Stage(400, 64, 3e-3, 5.0, 1.0, False, True),
    "episodes": Stage(1200, 32, 2e-3, 2.0, 0.6, True, True),
}
# Everything else has its default. The one block is before the first layer, and so before all of the look-up.
MODEL_FIELDS = {
    "cross_attention_layers": [0],
    "cross_attention_num_heads": 4,
    "cross_attention_head_dim": 32,
    "cross_attention_ffn_mult": 2,
    "resampler_num_layers": 1,
    "resampler_num_latents": 8,
    "resampler_num_heads": 4,
    "resampler_head_dim": 32,
    "resampler_ffn_mult": 2,
    "resampler_num_frames": 0,
}


def build_few_shot_flamingo(text_backbone: str | Path | None = None) -> tuple[FlamingoModel, FlamingoProcessor]:
    """
    Join two shipped backbones, frozen, by untrained parts of [`MODEL_FIELDS`]; return them with the processor.

    Args:
        text_backbone (`str` or `Path`, *optional*):
            Folder of another language model than the shipped one, [`few_shot_text_backbone_path`].
    """
    return join_shipped_backbones(text_backbone or few_shot_text_backbone_path(), **MODEL_FIELDS)


def name_row(pool: PicturePool, processor: FlamingoProcessor, rng: np.random.Generator) -> dict[str, Any]:
    """Draw a picture and its color or its shape, as a row for [`FlamingoDataCollator`]."""
    pair = PAIRS["train"][rng.integers(len(PAIRS["train"]))]
    start, word = len(processor.image_token), pair[rng.integers(2)]
    return {
        "text": processor.image_token + word + processor.end_of_chunk_token,
        "supervised": [[start, start + len(word)]],
        "pictures": pool.draw((pair,), rng),
    }


def episode_row(
    pool: PicturePool,
    processor: FlamingoProcessor,
    rng: np.random.Generator,
    described: float,
    *,
    examples: int,
    supervises_new_words: bool = False,
) -> dict[str, Any]:
    """
    Draw an episode, as a row for [`FlamingoDataCollator`]. Words of images that the row has bound before are supervised.

    Args:
        pool ([`PicturePool`]): The pictures.
        processor ([`FlamingoProcessor`]): The processor.
        rng (`numpy.random.Generator`): Source of randomness.
        described (`float`):
            Share of episodes that begin with examples that have a word (`red dax`) instead of an image, any number of
            them. With 1, all but the query have one.
        examples (`int`): Number of examples, the query included; at least 2.
        supervises_new_words (`bool`):
            Whether words that the row has not shown before are supervised too, except for its first one. They cannot be
            known, but it is known that they are none of those that were shown.
    """
    while True:
        contrast, ways = str(rng.choice(CONTRASTS)), int(rng.integers(2, 5))
        episode = sample_few_shot_episode("train", contrast, ways, examples - 1, rng, balanced=False)
        count = 0
        if described == 1:
            count = examples - 1
        elif rng.random() < described:
            count = int(rng.integers(1, examples))
        text, supervised = "", []
        for index, (pair, word) in enumerate(zip(episode.pairs, episode.words, strict=True)):
            text += f"{pair[FIELDS[contrast]]} " if index < count else processor.image_token
            if index >= count and (word in episode.words[:index] or (supervises_new_words and index > 0)):
                supervised.append([len(text), len(text) + len(word)])
            text += word + processor.end_of_chunk_token
        if supervised:
            return {"text": text, "supervised": supervised, "pictures": pool.draw(episode.pairs, rng)[count:]}


def stage_rows(
    stage: Stage, steps: int, pool: PicturePool, processor: FlamingoProcessor, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """
    Draw the rows of a stage in their order.

    The rows of a step have the same number of examples, drawn from `EXAMPLES`, so that no token is padding.

    Args:
        stage ([`Stage`]): The stage.
        steps (`int`): Number of steps.
        pool, processor, rng: As in [`episode_row`].
    """
    rows = []
    for _ in range(steps):
        if stage.described is None:
            rows += [name_row(pool, processor, rng) for _ in range(stage.batch_size)]
            continue
        examples = int(rng.integers(EXAMPLES[0], EXAMPLES[1] + 1))
        options = {"examples": examples, "supervises_new_words": stage.supervises_new_words}
        rows += [episode_row(pool, processor, rng, stage.described, **options) for _ in range(stage.batch_size)]
    return rows


def train_few_shot(
    model: FlamingoModel,
    processor: FlamingoProcessor,
    *,
    seed: int,
    scale: float = 1.0,
    output_dir: str | Path,
    pool: PicturePool | None = None,
    standardizes: bool = True,
) -> list[dict]:
    """
    Train resampler, gated block and the two new embeddings through all [`STAGES`], in place.

    Args:
        model, processor: The Flamingo. Its backbones are frozen.
        seed (`int`): Seed of pictures, episodes and their order.
        scale (`float`): Factor on the number of steps of each stage.
        output_dir (`str` or `Path`): Folder of the trainer, which saves nothing.
        pool (`PicturePool`, *optional*): Pictures to use instead of new ones.
        standardizes (`bool`): Standardize the features by the pictures first ([`~FlamingoModel.calibrate_features`]).

    Returns:
        The values of the gates as [`GateHistoryCallback`] records them, with the name of the `stage`.
    """
    pool = pool or PicturePool("train", seed)
    # The vision encoder is frozen: each picture is encoded once.
    features = torch.stack(
        encode_images(
            model,
            processor,
            pool.images,
            output="last_hidden_state",
            batch_size=128,
            device="cpu",  # where the collator puts its batches
            progress="   looking",
        )
    )
    if standardizes:
        # Latents that are standardized too were not tried with these stages
        batches = [{"mm_encoder_outputs": {"image": {"last_hidden_state": features[:, None]}}}]
        model.calibrate_features(batches, standardize_latents=False)
    rng = np.random.default_rng(seed)
    history = []
    for name, stage in STAGES.items():
        steps = max(1, round(scale * stage.steps))
        rows = stage_rows(stage, steps, pool, processor, rng)
        print(f"   stage {name}: {steps} steps of {stage.batch_size}", flush=True)
        gates = _train_stage(model, processor, name, rows, features, steps, seed, output_dir)
        history.extend({"stage": name, **entry} for entry in gates)
    model.config.use_cache = True  # the trainer has switched it off
    return history


def _train_stage(
    model: FlamingoModel,
    processor: FlamingoProcessor,
    name: str,
    rows: list[dict[str, Any]],
    features: torch.Tensor,
    steps: int,
    seed: int,
    output_dir: str | Path,
) -> list[dict]:
    """Train on the rows of a stage and return the history of the gates."""
    stage = STAGES[name]

    def with_features(batch: dict[str, list]) -> dict[str, list]:
        return {**batch, "image_features": [features[indices] for indices in batch["pictures"]]}

    for block in model.gated_cross_attention:
        block.ffn_gate.requires_grad_(stage.trains_ffn_gates)
    gates = GateHistoryCallback()
    groups = parameter_groups(
        model,
        stage.learning_rate,
        weight_decay=0.1,
        gate_learning_rate_multiplier=stage.gate_learning_rate_multiplier,
    )
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(output_dir),
            max_steps=steps,
            per_device_train_batch_size=stage.batch_size,
            lr_scheduler_type="constant_with_warmup" if name == "names" else "cosine",
            warmup_steps=min(30, steps),
            train_sampling_strategy="sequential",  # the rows of a step have the same length
            logging_steps=min(50, steps),
            save_strategy="no",
            report_to="none",
            remove_unused_columns=False,
            dataloader_pin_memory=False,  # there may be nothing to pin it for
            seed=seed,
        ),
        train_dataset=Dataset.from_list(rows).with_transform(with_features),
        data_collator=FlamingoDataCollator(processor),
        callbacks=[gates],
        optimizers=(torch.optim.AdamW(groups, betas=(0.9, 0.98)), None),
    )
    trainer.train()
    return gates.history
