# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Train the miniature vision backbone: a tiny CLIP, of which the vision encoder is kept.

Two things make it read every attribute, the hard ones included:

- **Contrast sets.** A batch is made of small sets of pictures that are equal (place, tilt, tones, all other attributes)
  except for one attribute. Inside a set only that attribute tells the captions apart, so no shortcut through the others
  is left. Shape, the attribute learned last, is varied most often.
- **Captions at several levels of detail.** Each picture is captioned in full and with some of its attributes only ("a
  circle", "something red"), and the contrastive loss is taken at each level. A level that mentions the shape alone
  forces a reading of shape that does not depend on color, which carries over to color-shape pairs never seen. Many
  pictures of a batch share such a caption, so each caption's target is spread over all of its pictures.
"""

import itertools
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F
from tqdm.auto import tqdm
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPTextConfig,
    CLIPVisionConfig,
    CLIPVisionModel,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from transformers_flamingo.saving_flamingo import update_folder

from .backbones import library_versions, warmup_cosine, write_training_record
from .tokenizer import build_tokenizer
from .world import (
    BACKGROUNDS,
    COLORS,
    COUNTS,
    HELD_OUT_PAIRS,
    IMAGE_SIZE,
    NUMBER_WORDS,
    PLURALS,
    SEEN_PAIRS,
    SHAPES,
    SIZES,
    ImageScene,
    is_held_out,
    render,
    sample_scene,
)


# Levels of detail and their weights in the loss: shape is learned last, color at once.
CAPTION_LEVELS = {"full": 1.0, "shape": 1.5, "color": 0.5, "rest": 1.0}
_MAX_WORDS = 12

# How often a set varies which field. Shape is the slow attribute.
_VARIED = {
    "single": (("shape", 0.5), ("color", 0.25), ("size", 0.1), ("background", 0.15)),
    "count": (("shape", 0.45), ("count", 0.35), ("color", 0.2)),
    "pair": (("left_shape", 0.3), ("right_shape", 0.3), ("left_color", 0.2), ("right_color", 0.2)),
}
_KINDS = (("single", 0.5), ("count", 0.25), ("pair", 0.25))
_VALUES = {"shape": SHAPES, "color": COLORS, "size": SIZES, "background": BACKGROUNDS, "count": COUNTS}


def partial_captions(scene: ImageScene) -> dict[str, str]:
    """
    Return the caption of a still scene at each of `CAPTION_LEVELS`, such as `{"shape": "a circle", ...}`.

    Raises:
        ValueError: the scene moves.
    """
    background = f"on a {scene.background} background"
    if scene.kind == "single":
        return {
            "full": scene.caption,
            "shape": f"a {scene.shape}",
            "color": f"something {scene.color}",
            "rest": f"something {scene.size} {background}",
        }
    if scene.kind == "count":
        return {
            "full": scene.caption,
            "shape": scene.shape if scene.count == 1 else PLURALS[scene.shape],
            "color": f"{scene.color} things",
            "rest": f"{NUMBER_WORDS[scene.count]} things {background}",
        }
    if scene.kind == "pair":
        return {
            "full": scene.caption,
            "shape": f"a {scene.left_shape} left of a {scene.right_shape}",
            "color": f"something {scene.left_color} left of something {scene.right_color}",
            "rest": f"one thing left of one thing {background}",
        }
    raise ValueError(f"Partial captions describe a still scene, not a {scene.kind!r} scene.")


def _pick(choices: tuple[tuple[str, float], ...], rng: np.random.Generator) -> str:
    names, weights = zip(*choices, strict=True)
    return str(rng.choice(names, p=weights))


def contrast_set(rng: np.random.Generator) -> list[ImageScene]:
    """Draw scenes that are equal except for one attribute, none of which shows a held-out pair."""
    kind = _pick(_KINDS, rng)
    scene = sample_scene(kind, rng, SEEN_PAIRS)
    field = _pick(_VARIED[kind], rng)
    values = _VALUES[field.removeprefix("left_").removeprefix("right_")]
    if kind == "pair" and field.endswith("shape"):
        other = scene.right_shape if field == "left_shape" else scene.left_shape
        values = tuple(value for value in values if value != other)
    return [varied for varied in (replace(scene, **{field: value}) for value in values) if not is_held_out(varied)]


def contrast_batch(batch_size: int, rng: np.random.Generator) -> tuple[list[ImageScene], list[Image.Image]]:
    """Draw `batch_size` scenes and their pictures, made of contrast sets (the last one may be cut)."""
    scenes: list[ImageScene] = []
    images: list[Image.Image] = []
    while len(scenes) < batch_size:
        seed = int(rng.integers(2**63))
        for scene in contrast_set(rng)[: batch_size - len(scenes)]:
            scenes.append(scene)
            images.append(render(scene, np.random.default_rng(seed)))
    return scenes, images


def build_image_processor() -> CLIPImageProcessorPil:
    """Make CLIP's preprocessing at the size of the miniature world, on the PIL backend."""
    return CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    )


def pixels_of(images: list[Image.Image], processor: CLIPImageProcessorPil) -> torch.Tensor:
    """
    Compute the pixel values that `processor` returns for pictures of the right size, in one array operation.

    Args:
        images (`list[PIL.Image.Image]`): RGB pictures of `IMAGE_SIZE` x `IMAGE_SIZE`.
        processor (`CLIPImageProcessorPil`): Its mean and standard deviation are used.

    Returns:
        `torch.FloatTensor` of shape `(B, C, H, W)`.
    """
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (processor.image_mean, processor.image_std))
    return ((pixels - mean) / std).contiguous()


def clip_loss(image_features: torch.Tensor, text_features: torch.Tensor, caption: torch.Tensor) -> torch.Tensor:
    """
    Compute the two-term contrastive loss where several images may have the same caption.

    Args:
        image_features (`torch.FloatTensor` of shape `(B, K)`): Normalized and scaled image embeddings.
        text_features (`torch.FloatTensor` of shape `(U, K)`): Normalized embeddings of the different captions.
        caption (`torch.LongTensor` of shape `(B,)`): Index of each image's caption among the `U`.

    Returns:
        `torch.FloatTensor` of shape `()`: the mean of the image-to-text term (cross-entropy over the `U` captions) and
        the text-to-image term (cross-entropy over the `B` images, its target uniform over the caption's images).
        Without repeated captions this is CLIP's loss.
    """
    logits = image_features @ text_features.T
    belongs = F.one_hot(caption, len(text_features)).to(logits.dtype)
    to_image = -(F.log_softmax(logits, dim=0) * belongs / belongs.sum(0)).sum(0).mean()
    return 0.5 * (F.cross_entropy(logits, caption) + to_image)


def _clip_config(vocab_size: int, end_of_text_id: int, width: int, layers: int, patch_size: int) -> CLIPConfig:
    vision = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 32),
        image_size=IMAGE_SIZE,
        patch_size=patch_size,
        hidden_act="gelu",
    )
    text = CLIPTextConfig(
        vocab_size=vocab_size,
        hidden_size=64,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=_MAX_WORDS + 1,
        hidden_act="gelu",
        bos_token_id=end_of_text_id,
        eos_token_id=end_of_text_id,
    )
    return CLIPConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=64)


def _position_waves(width: int, grid: int) -> torch.Tensor:
    """Return sines and cosines of row and column at several wavelengths, one row of `width` numbers per patch: (P, Dv)."""
    places = torch.arange(grid, dtype=torch.float32)
    frequencies = math.pi / 2 * (2 / grid) ** torch.linspace(0, 1, width // 4)
    angles = places[:, None] * frequencies  # (grid, Dv / 4)
    waves = torch.cat([angles.sin(), angles.cos()], dim=1)  # (grid, Dv / 2)
    rows, columns = waves[:, None].expand(grid, grid, -1), waves[None].expand(grid, grid, -1)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


def _initialize_embeddings(tower: CLIPVisionModel) -> None:
    """
    Give the content and the position of a patch comparable weight from the start.

    With CLIP's own initial values the position is a small perturbation of the content. A shape is a relation between positions, and
    was learned several times more slowly that way.
    """
    embeddings = tower.embeddings
    with torch.no_grad():
        nn.init.normal_(embeddings.patch_embedding.weight, std=embeddings.patch_embedding.weight[0].numel() ** -0.5)
        waves = _position_waves(embeddings.embed_dim, math.isqrt(embeddings.num_patches))
        embeddings.position_embedding.weight[1:] = 0.5 * waves


def _pooled(output: Any) -> torch.Tensor:
    return F.normalize(output.pooler_output, dim=-1)


def train_vision_backbone(
    output_dir: str | Path,
    *,
    seed: int = 0,
    steps: int = 8000,
    batch_size: int = 64,
    learning_rate: float = 7e-4,
    weight_decay: float = 0.05,
    warmup_steps: int = 200,
    width: int = 128,
    layers: int = 4,
    patch_size: int = 8,
    probe_size: int = 4000,
    progress: bool = True,
) -> dict[str, Any]:
    """
    Train a tiny `CLIPModel` on pictures and captions of the world and save its vision encoder.

    Pictures are drawn anew at every step; none shows a held-out color-shape pair. The folder then loads with `AutoModel` (a
    `CLIPVisionModel`) and `AutoImageProcessor`, and has a `training.json` with the settings and the scores.

    Args:
        output_dir (`str` or `Path`): Folder to write; created if missing.
        seed (`int`): Seed of the weights and the pictures.
        steps, batch_size, learning_rate, weight_decay, warmup_steps: Settings of AdamW with a cosine schedule.
        width, layers, patch_size (`int`): Sizes of the vision encoder. The width is a multiple of 32, the head size.
        probe_size (`int`): Number of pictures that each probe is trained on; 0 measures nothing.
        progress (`bool`): Whether to show progress bars.

    Returns:
        `dict`: the content of `training.json`.

    Raises:
        ValueError: there are no steps, or fewer than two pictures in each.
    """
    if steps < 1 or batch_size < 2:
        raise ValueError(
            f"Contrastive training needs at least 1 step of at least 2 pictures: got {steps=}, {batch_size=}."
        )
    started = time.perf_counter()
    rng = np.random.default_rng(seed)
    processor, tokenizer = build_image_processor(), build_tokenizer()
    # Weight initialization reads torch's global generator; callers keep the state of theirs
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPModel(_clip_config(len(tokenizer), tokenizer.eos_token_id, width, layers, patch_size)).train()
        _initialize_embeddings(model.vision_model)
        tower = CLIPVisionModel(model.config.vision_config)
    settings = {
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "warmup_steps": warmup_steps,
    }
    losses = _fit(model, tokenizer, processor, rng, **settings, progress=progress)
    tower.load_state_dict(model.vision_model.state_dict())
    with update_folder(output_dir) as partial:
        tower.eval().save_pretrained(partial)
        processor.save_pretrained(partial)
    record = {
        "model": "CLIPVisionModel",
        "objective": "contrastive, two-term, captions at several levels of detail",
        "seed": seed,
        "hyperparameters": settings
        | {
            "optimizer": "AdamW, betas 0.9 and 0.98, gradient norm at most 1",
            "schedule": "cosine",
            "width": width,
            "layers": layers,
            "patch_size": patch_size,
        },
        "parameters": sum(p.numel() for p in tower.parameters()),
        "training_images": steps * batch_size,
        "training_seconds": round(time.perf_counter() - started, 1),
        "held_out_pairs": [list(pair) for pair in HELD_OUT_PAIRS],
        "final_loss": round(float(np.mean(losses[-50:])), 4),
        "threads": torch.get_num_threads(),
        "versions": library_versions(),
    }
    if probe_size:
        record["probes"] = probe_vision_backbone(tower, processor, size=probe_size, seed=seed + 1, progress=progress)
    write_training_record(output_dir, record)
    return record


def _fit(
    model: CLIPModel,
    tokenizer: PreTrainedTokenizerFast,
    processor: CLIPImageProcessorPil,
    rng: np.random.Generator,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    weight_decay: float,
    warmup_steps: int,
    progress: bool,
) -> list[float]:
    """Train on contrast batches and return the loss of each step."""
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}],
        lr=learning_rate,
        betas=(0.9, 0.98),
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: warmup_cosine(step, steps, warmup_steps))

    losses: list[float] = []
    bar = tqdm(range(steps), desc="vision backbone", disable=not progress)
    for _ in bar:
        scenes, images = contrast_batch(batch_size, rng)
        loss = _batch_loss(model, tokenizer, scenes, pixels_of(images, processor))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
        bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
    return losses


def _batch_loss(
    model: CLIPModel, tokenizer: PreTrainedTokenizerFast, scenes: list[ImageScene], pixels: torch.Tensor
) -> torch.Tensor:
    """Return the contrastive loss of a batch, averaged over the levels of detail by their weights."""
    image_features = _pooled(model.get_image_features(pixel_values=pixels))
    image_features = image_features * model.logit_scale.exp().clamp(max=100)
    captions = [partial_captions(scene) for scene in scenes]
    texts = {level: [caption[level] for caption in captions] for level in CAPTION_LEVELS}
    # The text tower reads every different caption of the batch once
    different = {text: index for index, text in enumerate(dict.fromkeys(itertools.chain(*texts.values())))}
    tokens = tokenizer([f"{text}{tokenizer.eos_token}" for text in different], padding=True, return_tensors="pt")
    text_features = _pooled(
        model.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
    )
    loss = torch.zeros(())
    for level, weight in CAPTION_LEVELS.items():
        rows, caption = torch.unique(torch.tensor([different[text] for text in texts[level]]), return_inverse=True)
        loss = loss + weight * clip_loss(image_features, text_features[rows], caption)
    return loss / sum(CAPTION_LEVELS.values())


def _batches(size: int, batch_size: int = 250) -> Iterator[slice]:
    for start in range(0, size, batch_size):
        yield slice(start, start + batch_size)


@torch.no_grad()
def encode_patches(tower: CLIPVisionModel, pixels: torch.Tensor) -> torch.Tensor:
    """
    Compute the features that a Flamingo model reads: patch tokens before the last layer norm.

    Args:
        tower (`CLIPVisionModel`): The vision encoder.
        pixels (`torch.FloatTensor` of shape `(B, C, H, W)`): Preprocessed pictures.

    Returns:
        `torch.FloatTensor` of shape `(B, P, Dv)`.
    """
    return torch.cat([tower(pixel_values=pixels[part]).last_hidden_state[:, 1:] for part in _batches(len(pixels))])


class _AttentionProbe(nn.Module):
    """Softmax-weighted means of the patch tokens, then one linear layer: a lower bound of what a resampler can read."""

    def __init__(self, width: int, classes: int, heads: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.score = nn.Linear(width, heads)
        self.classify = nn.Linear(heads * width, classes)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        # (B, P, Dv) -> weights (B, P, heads) -> means (B, heads * Dv) -> (B, classes)
        features = self.norm(features)
        weights = self.score(features).softmax(dim=1)
        return self.classify(torch.einsum("bph,bpd->bhd", weights, features).flatten(1))


def _labels(scenes: list[ImageScene], attribute: str, classes: tuple[Any, ...]) -> torch.Tensor:
    return torch.tensor([classes.index(getattr(scene, attribute)) for scene in scenes])


# The attribute read by each probe, on which kind of scene, and its classes.
_PROBES = {
    "color": ("single", "color", COLORS),
    "shape": ("single", "shape", SHAPES),
    "size": ("single", "size", SIZES),
    "background": ("single", "background", BACKGROUNDS),
    "count": ("count", "count", COUNTS),
    "left_color": ("pair", "left_color", COLORS),
    "left_shape": ("pair", "left_shape", SHAPES),
}


def probe_vision_backbone(
    tower: CLIPVisionModel,
    processor: CLIPImageProcessorPil,
    *,
    size: int = 4000,
    test_size: int = 1000,
    steps: int = 400,
    seed: int = 1,
    progress: bool = True,
) -> dict[str, Any]:
    """
    Measure what small attention probes can read off the frozen patch tokens.

    Probes are trained on pictures of seen pairs and tested on new pictures of seen pairs and of held-out pairs. The `left_*` probes
    read the left one of two objects, so they measure place too.

    Args:
        tower (`CLIPVisionModel`): The vision encoder.
        processor (`CLIPImageProcessorPil`): Its preprocessing.
        size, test_size (`int`): Number of pictures of each kind of scene to train on and to test on.
        steps (`int`): Training steps of each probe.
        seed (`int`): Seed of pictures and probes.
        progress (`bool`): Whether to show a progress bar.

    Returns:
        `dict`: `{"seen": {probe: accuracy}, "held_out": {probe: accuracy}, "train_size": ..., "test_size": ...}`.
    """
    rng = np.random.default_rng(seed)

    def features_of(
        kind: str, count: int, pairs: tuple[tuple[str, str], ...]
    ) -> tuple[list[ImageScene], torch.Tensor]:
        scenes = [sample_scene(kind, rng, pairs) for _ in range(count)]
        return scenes, encode_patches(tower, pixels_of([render(scene, rng) for scene in scenes], processor))

    was_training = tower.training
    tower.eval()
    data = {
        kind: {
            "train": features_of(kind, size, SEEN_PAIRS),
            "seen": features_of(kind, test_size, SEEN_PAIRS),
            "held_out": features_of(kind, test_size, HELD_OUT_PAIRS),
        }
        for kind in dict.fromkeys(kind for kind, _, _ in _PROBES.values())
    }
    tower.train(was_training)
    result: dict[str, Any] = {"seen": {}, "held_out": {}, "train_size": size, "test_size": test_size}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for name, (kind, attribute, classes) in tqdm(_PROBES.items(), desc="probes", disable=not progress):
            scenes, features = data[kind]["train"]
            probe = _train_probe(features, _labels(scenes, attribute, classes), len(classes), steps)
            for split in ("seen", "held_out"):
                scenes, features = data[kind][split]
                with torch.no_grad():
                    is_right = probe(features).argmax(-1) == _labels(scenes, attribute, classes)
                result[split][name] = round(is_right.float().mean().item(), 4)
    return result


def _train_probe(features: torch.Tensor, labels: torch.Tensor, num_classes: int, steps: int) -> _AttentionProbe:
    """Train a probe on patch features (N, P, Dv) and their labels (N,), from torch's global generator."""
    probe = _AttentionProbe(features.shape[-1], num_classes)
    optimizer = torch.optim.AdamW(probe.parameters(), lr=3e-3, weight_decay=0.01)
    for _ in range(steps):
        rows = torch.randint(len(features), (min(256, len(features)),))
        loss = F.cross_entropy(probe(features[rows]), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return probe
