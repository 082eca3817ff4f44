# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
`flamingo demo`: train a Flamingo that has truly learned to see, in minutes on a CPU, without any download.

It draws a world of colored shapes and joins the two shipped backbones, a vision encoder and a language model that were trained
apart. It trains resampler, gated blocks and the two new embeddings with the stock `Trainer`, saves the model, loads it through the
`Auto*` classes, measures it on held-out pictures with the right, permuted and blank images, and writes a report.
"""

import math
import platform
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import accelerate
import datasets
import torch
import transformers
from datasets import Dataset
from transformers import AutoModelForImageTextToText, Trainer, TrainingArguments, pipeline, set_seed

from transformers_flamingo.cards.plotting import plot_captions, plot_gates, plot_losses
from transformers_flamingo.cards.rendering import write_card
from transformers_flamingo.data.encoding import encode_images
from transformers_flamingo.modeling_flamingo import FlamingoModel
from transformers_flamingo.processing_flamingo import FlamingoProcessor
from transformers_flamingo.saving_flamingo import update_folder, write_json
from transformers_flamingo.training import FlamingoDataCollator, GateHistoryCallback, parameter_groups

from .backbones import check_seed, join_shipped_backbones
from .data import build_image_split
from .evaluation import CONDITIONS, evaluate_miniature
from .shipped import card_template
from .world import answer_prompt


@dataclass(frozen=True)
class DemoArguments:
    """
    Settings of `flamingo demo`.

    Args:
        output_dir (`str`): Folder of the report and, under `model/`, of the model.
        seed (`int`): Seed of the pictures, the initial weights and the order.
        max_steps (`int`): Number of optimizer steps.
        batch_size (`int`): Rows (a picture with a text) in a step.
        learning_rate (`float`): Peak learning rate of AdamW.
        gate_learning_rate_multiplier (`float`): Learning rate multiplier for the gates.
        train_size (`int`): Number of pictures to train on.
        test_size (`int`): Number of pictures in each of the two test splits.
        num_captions (`int`): Number of pictures on the contact sheet.

    Raises:
        ValueError: a value is out of range.
    """

    output_dir: str = field(default="flamingo-demo", metadata={"help": "Folder of the report and the model."})
    seed: int = field(default=0, metadata={"help": "Seed of the pictures, the initial weights and the order."})
    max_steps: int = field(default=2000, metadata={"help": "Number of optimizer steps."})
    batch_size: int = field(default=48, metadata={"help": "Rows (a picture with a text) in a step."})
    learning_rate: float = field(default=2e-3, metadata={"help": "Peak learning rate of AdamW."})
    gate_learning_rate_multiplier: float = field(
        default=20.0, metadata={"help": "Learning rate multiplier for the gates."}
    )
    train_size: int = field(default=8000, metadata={"help": "Number of pictures to train on."})
    test_size: int = field(default=500, metadata={"help": "Number of pictures in each of the two test splits."})
    num_captions: int = field(default=16, metadata={"help": "Number of pictures on the contact sheet."})

    def __post_init__(self):
        check_seed(self.seed)
        for name in ("max_steps", "batch_size", "train_size", "num_captions"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` is {getattr(self, name)}, but it must be at least 1.")
        for name in ("learning_rate", "gate_learning_rate_multiplier"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` is {getattr(self, name)}, but it must be a number above 0.")
        if self.test_size < 2:
            raise ValueError(f"`test_size` is {self.test_size}, but images can only be permuted among two or more.")


# The architecture of the miniature. All other fields have their defaults.
MODEL_FIELDS = {
    "resampler_num_layers": 2,
    "resampler_num_latents": 16,
    "resampler_num_heads": 4,
    "resampler_head_dim": 32,
    "resampler_num_frames": 4,
    "cross_attention_num_heads": 4,
    "cross_attention_head_dim": 32,
}


def build_miniature_flamingo() -> tuple[FlamingoModel, FlamingoProcessor]:
    """Join the two shipped backbones, frozen, by untrained blocks, and return the model with its processor."""
    return join_shipped_backbones(**MODEL_FIELDS)


def training_rows(scenes: Dataset, features: torch.Tensor, processor: FlamingoProcessor) -> Dataset:
    """
    Make rows for [`FlamingoDataCollator`]: each scene once with its caption and once with each of its questions.

    Args:
        scenes (`datasets.Dataset`): A split of [`build_image_split`].
        features (`torch.Tensor` of shape `(len(scenes), P, Dv)`):
            The features of their pictures. They are in memory once: rows hold an index, and look them up when a batch is made.
        processor ([`FlamingoProcessor`]): Its special tokens are used.

    Returns:
        `datasets.Dataset` with the columns `scene`, `prompt`, `completion` and, made on access, `image_features`.
    """
    rows = []
    for index, (caption, questions) in enumerate(zip(scenes["caption"], scenes["questions"], strict=True)):
        texts = [("", caption)] + [(answer_prompt(q["question"]), " " + q["answer"]) for q in questions]
        rows.extend(
            {
                "scene": index,
                "prompt": processor.image_token + prompt,
                "completion": completion + processor.end_of_chunk_token,
            }
            for prompt, completion in texts
        )

    def with_features(batch: dict[str, list]) -> dict[str, list]:
        return {**batch, "image_features": [features[index][None] for index in batch["scene"]]}

    return Dataset.from_list(rows).with_transform(with_features)


def run_demo(arguments: DemoArguments) -> dict[str, Any]:
    """
    Run the whole demo.

    Args:
        arguments ([`DemoArguments`]): The settings.

    Returns:
        `dict`: the content of `metrics.json`.

    Raises:
        OSError: the output folder cannot be written.
    """
    start = time.perf_counter()
    output_dir = Path(arguments.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    set_seed(arguments.seed)

    _say(f"1. Drawing {arguments.train_size} pictures of colored shapes to learn from, and others to test on.")
    sizes = {
        "train": arguments.train_size,
        "validation": max(arguments.test_size // 4, 1),
        "test": arguments.test_size,
        "test_unseen": arguments.test_size,
    }
    scenes = {split: build_image_split(split, size, seed=arguments.seed) for split, size in sizes.items()}

    _say("2. Joining a vision encoder that has never read and a language model that has never seen.")
    model, processor = build_miniature_flamingo()
    facts = _describe_model(model)
    print(
        f"   {facts['num_frozen_parameters']:,} parameters stay frozen, {facts['num_trained_parameters']:,} are trained. All gates "
        "are at 0.",
        flush=True,
    )

    _say(f"3. Training for {arguments.max_steps} steps of {arguments.batch_size} captions, questions and answers.")
    training_start = time.perf_counter()
    facts |= _train(model, processor, scenes["train"], scenes["validation"], arguments)
    training_seconds = time.perf_counter() - training_start

    _say("4. Saving the model, and loading it with AutoModelForImageTextToText and pipeline(), as anyone would.")
    model_dir = output_dir / "model"
    with update_folder(model_dir) as partial:
        model.save_pretrained(partial)
        processor.save_pretrained(partial)
    model = AutoModelForImageTextToText.from_pretrained(model_dir)

    _say("5. Measuring on held-out pictures: with the right image, with permuted images, with a blank image.")
    scores = {
        name: evaluate_miniature(model, processor, scenes[split], seed=arguments.seed, progress=f"   {name} pairs")
        for name, split in (("seen", "test"), ("unseen", "test_unseen"))
    }
    samples = _caption_samples(model_dir, scenes["test"], arguments.num_captions)
    metrics = {
        "arguments": {**asdict(arguments), "output_dir": None},
        **facts,
        "scores": scores,
        "samples": [{key: sample[key] for key in ("caption", "truth")} for sample in samples],
        "seconds": {"training": training_seconds, "total": time.perf_counter() - start},
        "versions": {
            "python": platform.python_version(),
            **{module.__name__: module.__version__ for module in (torch, transformers, datasets, accelerate)},
        },
    }
    _write_report(output_dir, metrics, samples, model.config.cross_attention_layer_indices)
    write_card(card_template("demo"), metrics, model_dir / "README.md")

    print(format_scores(scores), flush=True)
    _say(f"Done in {metrics['seconds']['total']:.0f} s. The report is in {output_dir}/:")
    print("   metrics.json, loss.png, gates.png, captions.png, and the model with its card in model/", flush=True)
    print(f"   Caption a picture: flamingo caption {output_dir / 'example.png'} --model {model_dir}", flush=True)
    return metrics


def _describe_model(model: FlamingoModel) -> dict[str, Any]:
    """Return the part of the record that describes the model."""
    return {
        "num_trained_parameters": sum(p.numel() for p in model.parameters() if p.requires_grad),
        "num_frozen_parameters": sum(p.numel() for p in model.parameters() if not p.requires_grad),
        "backbones": {
            name: {"type": config.model_type, "width": config.hidden_size, "layers": config.num_hidden_layers}
            for name, config in (("vision", model.config.vision_config), ("text", model.config.text_config))
        },
    }


def _train(
    model: FlamingoModel,
    processor: FlamingoProcessor,
    train: Dataset,
    validation: Dataset,
    arguments: DemoArguments,
) -> dict[str, Any]:
    """Train with the stock `Trainer`, and return the part of the record that describes the training."""
    # The vision encoder is frozen, so the features of a picture are computed once
    options = {"output": "last_hidden_state", "batch_size": 128}
    rows = {}
    for name, split in (("training", train), ("validation", validation)):
        progress = f"   looking at the {name} pictures"
        features = encode_images(model, processor, list(split["image"]), progress=progress, **options)
        rows[name] = training_rows(split, torch.stack(features), processor)
    gates = GateHistoryCallback()
    groups = parameter_groups(
        model,
        arguments.learning_rate,
        weight_decay=0.1,
        gate_learning_rate_multiplier=arguments.gate_learning_rate_multiplier,
    )
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=arguments.output_dir,
            max_steps=arguments.max_steps,
            per_device_train_batch_size=arguments.batch_size,
            per_device_eval_batch_size=2 * arguments.batch_size,
            lr_scheduler_type="cosine",
            warmup_steps=min(50, arguments.max_steps // 10),
            logging_steps=min(50, arguments.max_steps),
            eval_strategy="steps",
            eval_steps=max(arguments.max_steps // 4, 1),
            save_strategy="no",
            report_to="none",
            remove_unused_columns=False,
            dataloader_pin_memory=False,  # there may be nothing to pin it for
            seed=arguments.seed,
        ),
        train_dataset=rows["training"],
        eval_dataset=rows["validation"],
        data_collator=FlamingoDataCollator(processor),
        callbacks=[gates],
        optimizers=(torch.optim.AdamW(groups, betas=(0.9, 0.98)), None),
    )
    trainer.train()
    losses = [(entry["step"], entry["loss"]) for entry in trainer.state.log_history if "loss" in entry]
    evals = [(entry["step"], entry["eval_loss"]) for entry in trainer.state.log_history if "eval_loss" in entry]
    return {
        "training_rows": len(rows["training"]),
        "final_train_loss": losses[-1][1],
        "final_validation_loss": evals[-1][1] if evals else None,
        "train_losses": losses,
        "validation_losses": evals,
        "gates": gates.history,
    }


def _write_report(
    output_dir: Path, metrics: dict[str, Any], samples: list[dict[str, Any]], layers: Sequence[int]
) -> None:
    """Write `metrics.json`, the figures, and one picture to try the model on."""
    write_json(output_dir / "metrics.json", metrics)
    evals = metrics["validation_losses"]
    plot_losses(output_dir / "loss.png", {"training": metrics["train_losses"]}, {"validation": evals} if evals else {})
    plot_gates(output_dir / "gates.png", metrics["gates"], layers)
    images, captions, truths = ([sample[key] for sample in samples] for key in ("image", "caption", "truth"))
    plot_captions(output_dir / "captions.png", images, captions, truths)
    images[0].save(output_dir / "example.png")


def _caption_samples(model_dir: Path, scenes: Dataset, count: int) -> list[dict[str, Any]]:
    """Caption the first pictures with the stock pipeline, from the saved folder."""
    captioner = pipeline("image-text-to-text", model=str(model_dir))
    chosen = scenes.select(range(min(count, len(scenes))))
    images = list(chosen["image"])
    chats = [[{"role": "user", "content": [{"type": "image", "image": image}]}] for image in images]
    outputs = captioner(chats, return_full_text=False, generate_kwargs={"max_new_tokens": 16, "do_sample": False})
    captions = [output[0]["generated_text"].strip() for output in outputs]
    return [
        {"image": image, "caption": caption, "truth": truth}
        for image, caption, truth in zip(images, captions, chosen["caption"], strict=True)
    ]


def format_scores(scores: dict[str, dict[str, dict[str, float]]]) -> str:
    """Format the scores of [`evaluate_miniature`] by split as a table to print."""
    lines = []
    for split, by_name in scores.items():
        lines.append("")
        lines.append(
            f"{'color-shape pairs ' + split:40} {'n':>5} " + "".join(f"{c:>10}" for c in CONDITIONS) + "    chance"
        )
        for name, values in by_name.items():
            numbers = "".join(f"{values[condition]:10.3f}" for condition in CONDITIONS)
            lines.append(f"{name:40} {values['n']:5d} {numbers}{values['chance']:10.3f}")
    return "\n".join(lines)


def _say(text: str) -> None:
    print(f"\n{text}", flush=True)
