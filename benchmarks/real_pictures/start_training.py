# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
What the arms of `starts.py` train on and how: features and texts that a setting computes once, and the training of one arm.

The folder of the work keeps prepared pictures, features, language models and the tower, so that nothing is computed twice.

Shapes: `R` rows, `T` text length, `P` positions, `Dv` vision width.
"""

import argparse
import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from neighbors import pixel_batches
from pictures import read_rows
from prepare import make_parser, prepare
from starts import BOTH, DRAWN_LATENTS
from torch import nn
from transformers import (
    AutoImageProcessor,
    AutoModel,
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    PretrainedConfig,
    PreTrainedModel,
)

from transformers_flamingo import FlamingoConfig, FlamingoModel
from transformers_flamingo.pretraining import VisionPretrainingArguments, pretrain_vision, read_pretraining_recipe
from transformers_flamingo.training import measure_image_use, parameter_groups


NUM_MEASURED = 96
BATCH_SIZE = 16
WARMUP_STEPS = 20
GATE_MULTIPLIER = 20.0
# With fewer steps or a lower rate the logits stay so flat that no arm differs much from another
TEXT_STEPS, TEXT_LEARNING_RATE = 1500, 3e-3
TOWER_STEPS, TOWER_WARMUP_STEPS, TOWER_BATCH_SIZE = 200, 20, 64
SMALL_BLOCKS = {"cross_attention_num_heads": 4, "cross_attention_head_dim": 32}


@dataclass(frozen=True)
class Setting:
    """
    What the arms of a setting share.

    Args:
        encoder (`Callable`): Finds the vision encoder, given the prepared folder and the folder of the work.
        text (`str`): `"words"` for a GPT-2 of its own over the words of the names, or `"smollm2"`.
        steps (`int`): Optimizer steps.
        learning_rate (`float`): Learning rate after the warm-up.
        blocks (`dict`): Fields of [`FlamingoConfig`] for the gated blocks.
    """

    encoder: Callable[[Path, Path], Path]
    text: str = "words"
    steps: int = 240
    learning_rate: float = 1e-3
    blocks: dict[str, Any] = field(default_factory=lambda: SMALL_BLOCKS)


def find_miniature(data: Path, work: Path) -> Path:
    """Return the folder of the shipped miniature CLIP."""
    from transformers_flamingo_miniature.shipped import vision_backbone_path

    return vision_backbone_path()


def find_efficientnet(data: Path, work: Path) -> Path:
    """Return the folder of EfficientNet-Lite0, which `prepare.py` wrote."""
    return data / "efficientnet-lite0"


def find_tower(data: Path, work: Path) -> Path:
    """Return the folder of a tower that is pretrained on the drawings of the three training houses, and pretrain it if needed."""
    tower = work / "tower"
    if not (tower / "config.json").is_file():
        options = {"data_path": data / "train.jsonl", "output_dir": tower, "max_steps": TOWER_STEPS}
        options |= {"warmup_steps": TOWER_WARMUP_STEPS, "per_device_train_batch_size": TOWER_BATCH_SIZE}
        options["disable_tqdm"] = True
        recipe = Path(__file__).parent / "tower.yaml"
        pretrain_vision(
            *read_pretraining_recipe(VisionPretrainingArguments, recipe, [f"--{k}={v}" for k, v in options.items()])
        )
    return tower


SETTINGS = {
    "miniature": Setting(find_miniature),
    "own_tower": Setting(find_tower),
    "smollm2": Setting(find_efficientnet, "smollm2", 120, 3e-3, {"cross_attention_layers": [20, 25]}),
}


@dataclass(frozen=True)
class Rows:
    """
    Rows of one image and its name.

    Args:
        features (`torch.Tensor` of shape `(R, P, Dv)`): The features of the images.
        input_ids, attention_mask, labels (`torch.LongTensor` of shape `(R, T)`): The texts.
    """

    features: torch.Tensor
    input_ids: torch.Tensor
    attention_mask: torch.Tensor
    labels: torch.Tensor

    def to(self, device: str | torch.device) -> "Rows":
        """Return the rows on a device."""
        return Rows(*(getattr(self, field.name).to(device) for field in fields(self)))

    def inputs(self, index: torch.Tensor, transform: nn.Module) -> dict[str, Any]:
        """Return inputs of the model for some rows, whose features go through a transform."""
        length = int(self.attention_mask[index].sum(dim=1).max())
        texts = {name: getattr(self, name)[index, :length] for name in ("input_ids", "attention_mask", "labels")}
        features = transform(self.features[index].float())[:, None]
        return {**texts, "mm_encoder_outputs": {"image": {"last_hidden_state": features}}}


@dataclass(frozen=True)
class Material:
    """
    What the arms of a setting and a number of images share.

    Args:
        train, test ([`Rows`]): Those of the training houses and of the unseen house.
        language_model (`PreTrainedModel`): Copied for each arm.
        marker, end (`int`): Ids of `<image>` and `<|endofchunk|>`.
    """

    train: Rows
    test: Rows
    language_model: PreTrainedModel
    marker: int
    end: int

    def to(self, device: str | torch.device) -> "Material":
        """Return the material on a device. The language model itself moves."""
        rows = (self.train.to(device), self.test.to(device))
        return Material(*rows, self.language_model.to(device), self.marker, self.end)


class BatchCentering(nn.Module):
    """Take away the mean over the batch, at each position; in evaluation a running mean, as a batch norm does."""

    def __init__(self, shape: Sequence[int]):
        super().__init__()
        self.register_buffer("mean", torch.zeros(*shape))
        self.is_fresh = True

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Center features `(R, P, Dv)`."""
        if not self.training:
            return features - self.mean
        mean = features.mean(dim=0)
        self.mean.lerp_(mean, 1.0 if self.is_fresh else 0.1)
        self.is_fresh = False
        return features - mean


class ImageCentering(nn.Module):
    """Take away the mean over the positions of each image."""

    def __init__(self, shape: Sequence[int]):
        super().__init__()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Center features `(R, P, Dv)`."""
        return features - features.mean(dim=1, keepdim=True)


class LearnedCentering(nn.Module):
    """Take away a parameter that starts at 0."""

    def __init__(self, shape: Sequence[int]):
        super().__init__()
        self.mean = nn.Parameter(torch.zeros(*shape))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Center features `(R, P, Dv)`."""
        return features - self.mean


TRANSFORMS = {
    "minus batch mean": BatchCentering,
    "minus image mean": ImageCentering,
    "minus learned": LearnedCentering,
}


def train_arm(
    material: Material,
    setting: Setting,
    *,
    language_model: str,
    start: str,
    features: str,
    latents: float,
    resampler: float,
    seed: int,
) -> dict[str, Any]:
    """
    Train an arm and measure it, on the device of its material.

    New parts and the order of the rows are drawn on the CPU, so they are the same on each device.

    Args:
        material ([`Material`]): What it is trained on.
        setting ([`Setting`]): How long, and with which blocks.
        language_model, start, features, latents, resampler, seed: Fields of an arm.

    Returns:
        `dict`: For `NUM_MEASURED` rows of the training houses and of the unseen house the loss with their own images and with
        others, and the loss of the former before the training, which is that of the language model alone. And steps, seconds,
        and the device.
    """
    torch.manual_seed(seed)
    shape, device = material.train.features.shape, material.train.features.device
    text = copy.deepcopy(material.language_model)
    zero_init = "projections" if start == "projections" else "gates"
    model = make_model(text.config, shape[-1], material, text, **setting.blocks, cross_attention_zero_init=zero_init)
    model.resampler.latents.data *= latents / DRAWN_LATENTS
    model.to(device)
    transform = TRANSFORMS.get(features, lambda shape: nn.Identity())(shape[1:]).to(device)
    if features in ("standardized", BOTH):
        raw = nn.Identity()
        batches = (material.train.inputs(index, raw) for index in torch.randperm(shape[0]).split(BATCH_SIZE))
        model.calibrate_features(batches, standardize_latents=features == BOTH)
    model.freeze_backbones()
    if language_model == "trained":
        model.unfreeze_backbones(vision_model=False, language_model=True)
    multiplier = GATE_MULTIPLIER if start.endswith("x20") else 1.0
    groups = parameter_groups(
        model,
        setting.learning_rate,
        gate_learning_rate_multiplier=multiplier,
        resampler_learning_rate_multiplier=resampler,
    )
    if parameters := list(transform.parameters()):
        groups.append({"params": parameters, "lr": setting.learning_rate, "weight_decay": 0.0})
    before = _measure(model, transform, material.train)["own"]
    started = time.perf_counter()
    _train(model, transform, material.train, groups, setting.steps)
    return {
        "before": before,
        "train": _measure(model, transform, material.train),
        "unseen": _measure(model, transform, material.test),
        "steps": setting.steps,
        "seconds": round(time.perf_counter() - started, 1),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
    }


def make_model(
    text_config: PretrainedConfig,
    vision_width: int,
    material: Material,
    language_model: PreTrainedModel,
    **fields: Any,
) -> FlamingoModel:
    """Make a Flamingo that takes features, with one layer of the resampler and 8 latents."""
    config = FlamingoConfig(
        vision_hidden_size=vision_width,
        text_config=text_config,
        image_token_id=material.marker,
        end_of_chunk_token_id=material.end,
        resampler_num_layers=1,
        resampler_num_latents=8,
        **fields,
    )
    return FlamingoModel(config, language_model=language_model)


def _train(model: FlamingoModel, transform: nn.Module, rows: Rows, groups: list[dict[str, Any]], steps: int) -> None:
    optimizer = torch.optim.AdamW(groups)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARMUP_STEPS))
    parameters = [parameter for group in groups for parameter in group["params"]]
    model.train()
    transform.train()
    for _ in range(steps):
        index = torch.randint(len(rows.features), (BATCH_SIZE,))
        model(**rows.inputs(index, transform)).loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()


@torch.no_grad()
def _measure(model: FlamingoModel, transform: nn.Module, rows: Rows) -> dict[str, float]:
    """Return the losses of a fixed sample of rows with their own images, and with others."""
    index = torch.tensor(np.random.RandomState(0).permutation(len(rows.features))[:NUM_MEASURED])
    transform.eval()
    measured = measure_image_use(model, rows.inputs(index, transform))
    return {"own": round(measured.loss, 4), "other": round(measured.swapped_loss, 4)}


@dataclass(frozen=True)
class Workshop:
    """
    Makes what arms train on, and keeps it in a folder.

    Args:
        data (`Path`): The folder that `prepare.py` wrote, with backbones and, for the tower, with views.
        downloads (`Path`): The folder of the packages.
        work (`Path`): The folder to keep things in.
        device (`str` or `torch.device`, *optional*, defaults to `"cpu"`): Where images are encoded and where material is.
    """

    data: Path
    downloads: Path
    work: Path
    device: str | torch.device = "cpu"

    def make(self, setting_name: str, num_images: int) -> Material:
        """Make the material of a setting and a number of images."""
        setting = SETTINGS[setting_name]
        folder = self._prepare(num_images)
        rows = {name: read_rows(folder / f"{name}.jsonl") for name in ("train", "test")}
        names = {name: [row["text"] for row in group] for name, group in rows.items()}
        make_text = {"words": self._make_words, "smollm2": self._make_smollm2}[setting.text]
        language_model, marker, end, ids = make_text(names["train"])
        encoder = None
        parts = {}
        for name, group in rows.items():
            path = self.work / f"features-{setting_name}-{num_images}-{name}.pt"
            if not path.is_file():
                encoder = encoder or setting.encoder(self.data, self.work)
                _save(encode(encoder, [folder / row["image"] for row in group], self.device), path)
            parts[name] = Rows(torch.load(path), *_pad([ids(name) for name in names[name]], end))
        return Material(parts["train"], parts["test"], language_model, marker, end).to(self.device)

    def _prepare(self, num_images: int) -> Path:
        folder = self.work / f"data-{num_images}"
        if not (folder / "prepared.json").is_file():
            options = [str(folder), "--downloads", str(self.downloads), "--rows", str(num_images), "--no-backbones"]
            arguments: argparse.Namespace = make_parser().parse_args(options)
            prepare(arguments)
        return folder

    def _make_words(self, names: Sequence[str]) -> tuple[PreTrainedModel, int, int, Callable[[str], list[int]]]:
        """Make a GPT-2 over the words of the names, trained on the names. Ids 0 to 2 are special."""
        words = {word: 3 + i for i, word in enumerate(sorted({word for name in names for word in name.split()}))}
        end, marker, begin = range(3)

        def ids(name: str) -> list[int]:
            return [begin, marker, *map(words.__getitem__, name.split()), end]

        folder = self.work / f"gpt2-{len(names)}"
        if not (folder / "config.json").is_file():
            unique = [ids(name) for name in dict.fromkeys(names)]
            train_text(unique, len(words) + 3, end).save_pretrained(folder)
        return GPT2LMHeadModel.from_pretrained(folder), marker, end, ids

    def _make_smollm2(self, names: Sequence[str]) -> tuple[PreTrainedModel, int, int, Callable[[str], list[int]]]:
        """Read SmolLM2, and add the two special tokens."""
        tokenizer = AutoTokenizer.from_pretrained(self.data / "smollm2")
        model = AutoModelForCausalLM.from_pretrained(self.data / "smollm2", dtype=torch.float32)
        end, marker = model.config.vocab_size, model.config.vocab_size + 1
        torch.manual_seed(0)
        model.resize_token_embeddings(marker + 1)

        def ids(name: str) -> list[int]:
            return [tokenizer.bos_token_id, marker, *tokenizer.encode(f" {name}", add_special_tokens=False), end]

        return model, marker, end, ids


def train_text(rows: Sequence[list[int]], vocab_size: int, end: int, steps: int = TEXT_STEPS) -> GPT2LMHeadModel:
    """
    Train a small GPT-2 on rows of tokens, which begin with a token of the beginning and one of an image.

    Args:
        rows (`Sequence[list[int]]`): The rows.
        vocab_size (`int`): Number of tokens.
        end (`int`): Id of the last token of each row.
        steps (`int`, *optional*): Optimizer steps.
    """
    torch.manual_seed(0)
    sizes = {"n_embd": 96, "n_layer": 3, "n_head": 4, "n_positions": 64}
    dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.0)
    model = GPT2LMHeadModel(GPT2Config(vocab_size=vocab_size, bos_token_id=2, eos_token_id=end, **sizes, **dropout))
    input_ids, mask, labels = _pad(rows, end)
    optimizer = torch.optim.AdamW(model.parameters(), TEXT_LEARNING_RATE)
    for _ in range(steps):
        index = torch.randint(len(rows), (32,))
        model(input_ids[index], attention_mask=mask[index], labels=labels[index]).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@torch.no_grad()
def encode(encoder: Path, paths: Sequence[Path], device: str | torch.device = "cpu") -> torch.Tensor:
    """
    Encode images as a Flamingo does: patches without class tokens, or the places of a map.

    Returns:
        `torch.Tensor` of shape `(images, P, Dv)`, in half precision, on the CPU.
    """
    vision, processor = AutoModel.from_pretrained(encoder), AutoImageProcessor.from_pretrained(encoder)
    small = GPT2Config(vocab_size=8, n_embd=8, n_layer=1, n_head=1, bos_token_id=0, eos_token_id=0)
    config = FlamingoConfig.from_vision_text_configs(vision.config, small, resampler_num_layers=1)
    model = FlamingoModel(config, vision_model=vision).eval().to(device)
    batches = (pixels[:, None].to(device) for pixels in pixel_batches(paths, processor))
    encoded = (model.get_image_features(batch, return_dict=True).last_hidden_state[:, 0] for batch in batches)
    return torch.cat([features.half().cpu() for features in encoded])


def _save(tensor: torch.Tensor, path: Path) -> None:
    """Save a tensor so that a run that was interrupted leaves no half of a file."""
    partial = path.with_suffix(".partial")
    torch.save(tensor, partial)
    partial.replace(path)


def _pad(rows: Sequence[list[int]], end: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return input ids, attention mask and labels `(R, T)`. The first two tokens of a row have no label."""
    length = max(map(len, rows))
    ids = torch.tensor([row + [end] * (length - len(row)) for row in rows])
    mask = (torch.arange(length) < torch.tensor([len(row) for row in rows])[:, None]).long()
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :2] = -100
    return ids, mask, labels
