# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
`flamingo demo --few-shot`: a small Flamingo that binds new words from its prompt, with gates that started at 0.

An episode binds nonsense words to kinds of objects, anew each time (fast binding, Tsimpoukelli et al. 2021), in the
paper's few-shot format, and is answered by ranking its words:

    <image>dax<|endofchunk|><image>wug<|endofchunk|><image>     dax or wug?

Words and colour-shape pairs of the three splits are disjoint. The language model has read all words, but a test word never
stood beside an image in training, and no picture of a test pair was ever trained on, not even by the vision tower.

Training goes from what a closed gate has a gradient for to what it has none for (`docs/few-shot-log.md` has what failed):
to match one image with another is an effect of second order in what the images add to the text, and that is 0 at first.

1. names: `<image>red`, `<image>circle`. The resampler learns what to show, the gates open.
2. look-up: `red dax<|endofchunk|>blue wug<|endofchunk|><image>dax`. What an image adds becomes what the frozen language
   model can look up.
3. episodes, of which some begin with examples in words.
"""

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from datasets import Dataset
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, Trainer, TrainingArguments, set_seed

from transformers_flamingo.cards.plotting import ShotCurve, ShotPanel, plot_shots
from transformers_flamingo.cards.rendering import write_card
from transformers_flamingo.data.encoding import encode_images
from transformers_flamingo.modeling_flamingo import FlamingoModel
from transformers_flamingo.processing_flamingo import FlamingoProcessor
from transformers_flamingo.saving_flamingo import update_folder, write_json
from transformers_flamingo.training import FlamingoDataCollator, GateHistoryCallback, parameter_groups

from .backbones import check_seed, library_versions
from .evaluation import derangement
from .few_shot_text_backbone import train_few_shot_text_backbone
from .shipped import card_template, vision_backbone_path
from .tokenizer import HELD_OUT_NONSENSE_WORDS, NONSENSE_WORDS
from .world import BACKGROUNDS, HELD_OUT_PAIRS, SEEN_PAIRS, SIZES, SingleScene, render


Pair = tuple[str, str]

SHOTS = (0, 1, 2, 4, 8)
CONTRASTS = ("pair", "color", "shape")
# Like the held-out pairs each colour once, and none of these.
VALIDATION_PAIRS = (
    ("red", "ring"),
    ("green", "bar"),
    ("blue", "cross"),
    ("yellow", "circle"),
    ("purple", "square"),
    ("orange", "triangle"),
    ("cyan", "bar"),
    ("white", "ring"),
)
PAIRS: dict[str, tuple[Pair, ...]] = {
    "train": tuple(pair for pair in SEEN_PAIRS if pair not in VALIDATION_PAIRS),
    "validation": VALIDATION_PAIRS,
    "test": HELD_OUT_PAIRS,
}
WORDS = {"train": NONSENSE_WORDS[:12], "validation": NONSENSE_WORDS[12:16], "test": HELD_OUT_NONSENSE_WORDS}
TEXT_STEPS = 2500
# Colour and shape are learned by their own words, never together.
_FIELDS = {"pair": 0, "color": 0, "shape": 1}
_TRAINING_EXAMPLES = 10
_PICTURES_PER_PAIR = {"train": 80, "validation": 30, "test": 30}


class Stage(NamedTuple):
    """One stage of the training; `described` is as in [`episode_row`], `None` for names."""

    steps: int
    batch_size: int
    learning_rate: float
    gate_learning_rate_multiplier: float
    described: float | None
    trains_ffn_gates: bool


# The feed-forward branches wait: open, they rewrite words that the language model needs as they are.
STAGES = {
    "names": Stage(400, 64, 2e-3, 20.0, None, False),
    "look-up": Stage(400, 64, 3e-3, 5.0, 1.0, False),
    "episodes": Stage(600, 32, 2e-3, 2.0, 0.6, True),
}
# Everything else has its default. One block, before the first layer, stands before all of the look-up.
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


def few_shot_model_path() -> Path:
    """Folder of the shipped model, for `AutoModelForImageTextToText` and `AutoProcessor`."""
    return Path(__file__).parent / "few_shot_model"


@dataclass(frozen=True)
class FewShotArguments:
    """
    Settings of `flamingo demo --few-shot`.

    Args:
        output_dir (`str`): Folder of the report and, with `from_scratch`, of the model.
        seed (`int`): Seed of pictures, episodes, initial weights and order.
        from_scratch (`bool`): Train language model and Flamingo, instead of taking the shipped model.
        split (`str`): Split to measure on. What is chosen is chosen on `"validation"`.
        episodes (`int`): Episodes behind each figure.
        scale (`float`): Length of all training stages, as a multiple.
    """

    output_dir: str = field(default="flamingo-few-shot", metadata={"help": "Folder of the report and the model."})
    seed: int = field(
        default=0, metadata={"help": "Seed of the pictures, the episodes, the initial weights and the order."}
    )
    from_scratch: bool = field(default=False, metadata={"help": "Train the model instead of loading the shipped one."})
    split: str = field(default="test", metadata={"help": "Split to measure on, 'validation' or 'test'."})
    episodes: int = field(default=500, metadata={"help": "Number of episodes behind each score."})
    scale: float = field(default=1.0, metadata={"help": "Factor on the length of all training stages."})

    def __post_init__(self):
        check_seed(self.seed)
        if self.split not in ("validation", "test"):
            raise ValueError(f"`split` is {self.split!r}, but it must be 'validation' or 'test'.")
        if self.episodes < 2:
            raise ValueError(f"`episodes` is {self.episodes}, but images can only be permuted among two or more.")
        if not 0 < self.scale < math.inf:
            raise ValueError(f"`scale` is {self.scale}, but it must be above 0.")


# ---------------------------------------------------------------------------------------------------------------------
# Episodes
# ---------------------------------------------------------------------------------------------------------------------


class FewShotEpisode(NamedTuple):
    """The pair and the word of each picture, the query's last, and the words to rank."""

    pairs: tuple[Pair, ...]
    words: tuple[str, ...]
    candidates: tuple[str, ...]


def sample_few_shot_episode(
    split: str, contrast: str, ways: int, shots: int, rng: np.random.Generator, balanced: bool = True
) -> FewShotEpisode:
    """
    Draw an episode. A way is one colour-shape pair under one word; its pictures differ in all that remains.

    Args:
        split (`str`): `"train"`, `"validation"` or `"test"`: whose words and pairs.
        contrast (`str`):
            What tells the ways apart. `"pair"`: the colour, and mostly the shape too; all pairs are of the split.
            `"color"`: the colour alone, one shape throughout; `"shape"`: the shape alone. There the query's pair is of
            the split, and the others of the split or of `"train"`.
        ways, shots (`int`): Number of words, and of examples before the query.
        rng (`numpy.random.Generator`): The source of chance.
        balanced (`bool`):
            Examples are spread over the ways as evenly as possible. Otherwise each is drawn by itself, so that nothing
            follows from what was shown less often: for training.

    Raises:
        ValueError: split or contrast is unknown, or has not so many ways.
    """
    if split not in PAIRS or contrast not in CONTRASTS:
        raise ValueError(
            f"Unknown split {split!r} or contrast {contrast!r}: splits are {', '.join(PAIRS)}, contrasts "
            f"{', '.join(CONTRASTS)}."
        )
    own, field = PAIRS[split], _FIELDS[contrast]
    query = own[rng.integers(len(own))]
    if contrast == "pair":
        others = [pair for pair in own if pair[0] != query[0]]
    else:
        known = dict.fromkeys((*own, *PAIRS["train"]))
        others = [pair for pair in known if pair[field] != query[field] and pair[1 - field] == query[1 - field]]
    # One pair of each colour (or shape), by chance.
    others = list({others[i][field]: others[i] for i in rng.permutation(len(others))}.values())
    most = min(len(WORDS[split]), len(others) + 1)
    if not 2 <= ways <= most:
        raise ValueError(
            f"Episodes of {split!r} by {contrast!r} have 2 to {most} ways here, but {ways} were asked for."
        )
    pairs = [query, *(others[i] for i in rng.permutation(len(others))[: ways - 1])]
    words = [str(word) for word in rng.choice(WORDS[split], size=ways, replace=False)]
    if balanced:
        shown = [*rng.permutation(np.resize(rng.permutation(ways), shots)), 0]
    else:
        shown = rng.integers(ways, size=shots + 1)
    return FewShotEpisode(
        tuple(pairs[way] for way in shown),
        tuple(words[way] for way in shown),
        tuple(words[i] for i in rng.permutation(ways)),
    )


def few_shot_prompt(episode: FewShotEpisode, processor: FlamingoProcessor) -> str:
    """The text of an episode, without the query's word."""
    examples = (f"{processor.image_token}{word}{processor.end_of_chunk_token}" for word in episode.words[:-1])
    return "".join(examples) + processor.image_token


class PicturePool:
    """
    Pictures of single objects for one split, a number of each of its pairs and of the pairs in training.

    Args:
        split (`str`): The split. Each has pictures of its own.
        seed (`int`): Seed of the pictures.
        per_pair (`int`, *optional*): Pictures of each pair.
    """

    def __init__(self, split: str, seed: int, per_pair: int | None = None):
        rng = np.random.default_rng([seed, list(PAIRS).index(split)])
        self.per_pair = per_pair or _PICTURES_PER_PAIR[split]
        self._first: dict[Pair, int] = {}
        self.images: list[Image.Image] = []
        for color, shape in dict.fromkeys((*PAIRS[split], *PAIRS["train"])):
            self._first[color, shape] = len(self.images)
            for _ in range(self.per_pair):
                scene = SingleScene(color, shape, str(rng.choice(SIZES)), str(rng.choice(BACKGROUNDS)))
                self.images.append(render(scene, rng))

    def draw(self, pairs: tuple[Pair, ...], rng: np.random.Generator) -> list[int]:
        """The indices of different pictures of these pairs."""
        numbers = rng.choice(self.per_pair, size=len(pairs), replace=False)
        return [self._first[pair] + int(number) for pair, number in zip(pairs, numbers, strict=True)]


# ---------------------------------------------------------------------------------------------------------------------
# Training
# ---------------------------------------------------------------------------------------------------------------------


def name_row(pool: PicturePool, processor: FlamingoProcessor, rng: np.random.Generator) -> dict[str, Any]:
    """A picture and its colour or its shape, as a row for [`FlamingoDataCollator`]."""
    pair = PAIRS["train"][rng.integers(len(PAIRS["train"]))]
    start, word = len(processor.image_token), pair[rng.integers(2)]
    return {
        "text": processor.image_token + word + processor.end_of_chunk_token,
        "supervised": [[start, start + len(word)]],
        "pictures": pool.draw((pair,), rng),
    }


def episode_row(
    pool: PicturePool, processor: FlamingoProcessor, rng: np.random.Generator, described: float
) -> dict[str, Any]:
    """
    An episode, as a row for [`FlamingoDataCollator`]. Supervised are the words of images that the row has bound before.

    Args:
        described (`float`):
            This share of the episodes begins with examples that have a word (`red dax`) in place of an image, any
            number of them; with 1 in all but the query.
    """
    while True:
        contrast, ways = str(rng.choice(CONTRASTS)), int(rng.integers(2, 5))
        episode = sample_few_shot_episode("train", contrast, ways, _TRAINING_EXAMPLES - 1, rng, balanced=False)
        count = 0
        if described == 1:
            count = _TRAINING_EXAMPLES - 1
        elif rng.random() < described:
            count = int(rng.integers(1, _TRAINING_EXAMPLES))
        text, supervised = "", []
        for index, (pair, word) in enumerate(zip(episode.pairs, episode.words, strict=True)):
            text += f"{pair[_FIELDS[contrast]]} " if index < count else processor.image_token
            if index >= count and word in episode.words[:index]:
                supervised.append([len(text), len(text) + len(word)])
            text += word + processor.end_of_chunk_token
        if supervised:
            return {"text": text, "supervised": supervised, "pictures": pool.draw(episode.pairs, rng)[count:]}


def train_few_shot(
    model: FlamingoModel,
    processor: FlamingoProcessor,
    *,
    seed: int,
    scale: float = 1.0,
    output_dir: str | Path,
    pool: PicturePool | None = None,
) -> list[dict]:
    """
    Train resampler, gated block and the two new embeddings through all [`STAGES`], in place.

    Returns:
        The values of the gates as [`GateHistoryCallback`] records them, with the name of the `stage`.
    """
    pool = pool or PicturePool("train", seed)
    # The vision encoder is frozen: what it makes of a picture is computed once.
    features = torch.stack(
        encode_images(model, processor, pool.images, output="last_hidden_state", batch_size=128, progress="   looking")
    )
    rng = np.random.default_rng(seed)

    def with_features(batch: dict[str, list]) -> dict[str, list]:
        return {**batch, "image_features": [features[indices] for indices in batch["pictures"]]}

    history = []
    for name, stage in STAGES.items():
        steps = max(1, round(scale * stage.steps))
        make_row: Callable = name_row if stage.described is None else episode_row
        options = {} if stage.described is None else {"described": stage.described}
        rows = [make_row(pool, processor, rng, **options) for _ in range(steps * stage.batch_size)]
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
        print(f"   stage {name}: {steps} steps of {stage.batch_size}", flush=True)
        trainer.train()
        history.extend({"stage": name, **entry} for entry in gates.history)
    return history


# ---------------------------------------------------------------------------------------------------------------------
# Evaluation
# ---------------------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def rank_words(
    model: FlamingoModel, processor: FlamingoProcessor, episodes: list[FewShotEpisode], latents: torch.Tensor
) -> list[str]:
    """
    For each episode the one of its words with the highest log-likelihood after the prompt.

    Args:
        episodes (`list[FewShotEpisode]`): Episodes with one number of shots and of ways.
        latents (`torch.Tensor` of shape `(len(episodes), N, L, Dv)`): Their pictures, from [`encode_images`].
    """
    inputs = processor(text=[few_shot_prompt(episode, processor) for episode in episodes], return_tensors="pt")
    images = {"image": {"pooler_output": latents}}
    logits = model(**inputs.to(model.device), mm_encoder_outputs=images, logits_to_keep=1).logits[:, -1]
    # Each word is one token, and all share the normaliser: their logits rank as their log-likelihoods.
    ids = [processor.tokenizer.convert_tokens_to_ids(list(episode.candidates)) for episode in episodes]
    best = logits.gather(1, torch.tensor(ids, device=logits.device)).argmax(dim=1)
    return [episode.candidates[index] for episode, index in zip(episodes, best.tolist(), strict=True)]


def evaluate_few_shot(
    model: FlamingoModel,
    processor: FlamingoProcessor,
    *,
    split: str = "test",
    episodes: int = 500,
    seed: int = 0,
    ways: tuple[int, ...] = (2, 4),
    shots: tuple[int, ...] = SHOTS,
    pool: PicturePool | None = None,
) -> list[dict[str, Any]]:
    """
    Accuracy for each contrast, number of ways and number of shots, on new pictures.

    Args:
        split (`str`): Whose words and pairs: `"validation"` or `"test"`.
        episodes (`int`): Episodes behind each figure.
        seed (`int`): Seed of pictures and episodes.
        ways, shots (`tuple[int]`): The numbers of words, and of examples.
        pool (`PicturePool`, *optional*): Pictures to use instead of new ones.

    Returns:
        `list[dict]`, each with `contrast`, `ways`, `shots`, `n`, `image`, the accuracy, and `permuted`, the accuracy
        with the pictures of another episode (chance, if the model looks). Chance is 1 / `ways`.
    """
    model.eval()
    pool = pool or PicturePool(split, seed)
    latents = torch.stack(encode_images(model, processor, pool.images, batch_size=128))
    scores = []
    for contrast in CONTRASTS:
        for number_of_ways in ways:
            for number_of_shots in shots:
                rng = np.random.default_rng([seed, CONTRASTS.index(contrast), number_of_ways, number_of_shots])
                drawn = [
                    sample_few_shot_episode(split, contrast, number_of_ways, number_of_shots, rng)
                    for _ in range(episodes)
                ]
                pictures = torch.tensor([pool.draw(episode.pairs, rng) for episode in drawn])  # (episodes, N)
                score = {"contrast": contrast, "ways": number_of_ways, "shots": number_of_shots, "n": episodes}
                for condition, indices in (("image", pictures), ("permuted", pictures[derangement(episodes, rng)])):
                    answers = rank_words(model, processor, drawn, latents[indices])
                    right = [answer == episode.words[-1] for answer, episode in zip(answers, drawn, strict=True)]
                    score[condition] = float(np.mean(right))
                scores.append(score)
    return scores


def format_few_shot(scores: list[dict[str, Any]]) -> str:
    """The scores as a table to print."""
    lines = []
    for contrast, ways in dict.fromkeys((score["contrast"], score["ways"]) for score in scores):
        chosen = [score for score in scores if (score["contrast"], score["ways"]) == (contrast, ways)]
        if not lines:
            lines.append(f"{'shots':24}" + "".join(f"{score['shots']:8d}" for score in chosen))
        for condition in ("image", "permuted"):
            label = f"{contrast}, {ways} words" if condition == "image" else "   images permuted"
            lines.append(f"{label:24}" + "".join(f"{score[condition]:8.3f}" for score in chosen))
    return "\n".join(lines)


def plot_few_shot(path: str | Path, scores: list[dict[str, Any]]) -> None:
    """Plot accuracy against the number of shots, one panel per number of words; dotted with the images permuted."""
    panels = []
    for ways in sorted({score["ways"] for score in scores}):
        curves = []
        for index, contrast in enumerate(dict.fromkeys(score["contrast"] for score in scores)):
            chosen = [score for score in scores if (score["contrast"], score["ways"]) == (contrast, ways)]
            for condition, style in (("image", "measured"), ("permuted", "control")):
                label = f"differ in {contrast}" + ("" if condition == "image" else ", images permuted")
                values = {score["shots"]: score[condition] for score in chosen}
                curves.append(ShotCurve(label, values, f"C{index}", style))
        panels.append(ShotPanel(f"{ways} words", curves, chance=1 / ways))
    plot_shots(path, panels, "accuracy", limits=(0, 1.02))


# ---------------------------------------------------------------------------------------------------------------------
# The run
# ---------------------------------------------------------------------------------------------------------------------


def run_few_shot(arguments: FewShotArguments) -> dict[str, Any]:
    """
    Evaluate the shipped model, or train one from scratch first, and write a report.

    Returns:
        What is written to `metrics.json`: `scores` as [`evaluate_few_shot`] gives them, and what is known of the training.
    """
    output_dir = Path(arguments.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    if arguments.from_scratch:
        model_dir = output_dir / "model"
        training = _train_from_scratch(model_dir, arguments, output_dir)
    else:
        model_dir = few_shot_model_path()
        training = json.loads((model_dir / "metrics.json").read_text(encoding="utf-8"))["training"]

    print(
        f"\nBinding new words in {arguments.episodes} episodes for each figure, split {arguments.split}.", flush=True
    )
    processor = AutoProcessor.from_pretrained(model_dir)
    model = AutoModelForImageTextToText.from_pretrained(model_dir)
    scores = evaluate_few_shot(
        model, processor, split=arguments.split, episodes=arguments.episodes, seed=arguments.seed
    )
    metrics = {"arguments": {**asdict(arguments), "output_dir": None}, "training": training, "scores": scores}
    write_json(output_dir / "metrics.json", metrics)
    plot_few_shot(output_dir / "few_shot.png", scores)
    if arguments.from_scratch:
        write_json(model_dir / "metrics.json", metrics)
        write_card(card_template("few-shot"), metrics, model_dir / "README.md")
    print(format_few_shot(scores), flush=True)
    print(f"The report is in {output_dir}/: metrics.json, few_shot.png; the model is in {model_dir}/", flush=True)
    return metrics


def _train_from_scratch(model_dir: Path, arguments: FewShotArguments, output_dir: Path) -> dict[str, Any]:
    start = time.perf_counter()
    set_seed(arguments.seed)
    text_dir = output_dir / "text_model"
    print("\nTraining a language model, on text alone.", flush=True)
    text_steps = max(1, round(arguments.scale * TEXT_STEPS))
    text = train_few_shot_text_backbone(text_dir, seed=arguments.seed, steps=text_steps)
    processor = FlamingoProcessor.from_vision_text_pretrained(str(vision_backbone_path()), str(text_dir))
    model = FlamingoModel.from_vision_text_pretrained(
        str(vision_backbone_path()),
        str(text_dir),
        image_token_id=processor.image_token_id,
        end_of_chunk_token_id=processor.end_of_chunk_token_id,
        **MODEL_FIELDS,
    )
    model.freeze_backbones()
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    print(f"\nTraining a Flamingo: {trained:,} parameters. All gates are at 0.", flush=True)
    gates = train_few_shot(model, processor, seed=arguments.seed, scale=arguments.scale, output_dir=output_dir)
    with update_folder(model_dir) as partial:
        model.save_pretrained(partial)
        processor.save_pretrained(partial)
    return {
        "text_model": text,
        "trained_parameters": trained,
        "frozen_parameters": model.num_parameters() - trained,
        "stages": {name: stage._asdict() for name, stage in STAGES.items()},
        "gates": gates,
        "seconds": round(time.perf_counter() - start, 1),
        "versions": library_versions(),
    }
