# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
The model card of any Flamingo: what the model says of itself, and what a run knows of its training, its data and its scores.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from ..modeling_flamingo import FlamingoModel
from ..saving_flamingo import write_text
from ..utils.redaction import redact
from .origins import find_name, find_origins, is_hub_name, public_name
from .rendering import TEMPLATES, render_card


@dataclass
class FlamingoModelCardData:
    """
    Facts about one Flamingo, for its card. A fact that is not known is left out of the card: there are no empty rows.

    [`~FlamingoModelCardData.from_model`] reads off the model what the model itself says.

    Args:
        parameters (`dict[str, int]`): Number of parameters by part.
        num_trainable (`int`): Number of parameters that require a gradient.
        architecture (`dict[str, Any]`): Sizes and settings by name.
        backbones (`list[dict]`):
            For each: `part`, `type`, `layers`, `width`, and its `name` on the Hub, or `local_name`, that of its folder, with
            `origins`, the names on the Hub of what that folder says it was made from.
        versions (`dict[str, str]`): Versions of the libraries.
        model_name (`str`, *optional*): Heading of the card.
        source (`str`, *optional*): What the model was converted from: "the OpenFlamingo checkpoint ...".
        license, language (`str`, *optional*): Metadata for the Hub.
        tags (`list[str]`, *optional*): Further tags for the Hub.
        base_model (`list[str]`, *optional*):
            Names on the Hub of the models that this one was made from; by default those of the backbones.
        datasets (`list[str]`, *optional*):
            Names on the Hub of the datasets, in addition to the names in `data_mixture` that are `OWNER/NAME`.
        data_mixture (`list[dict]`, *optional*): The datasets it was trained on, each with `name` and whatever else is known.
        hyperparameters (`dict[str, Any]`, *optional*): Hyperparameters of the training.
        scores (`list[dict]`, *optional*):
            Each with `task`, `metric`, `shots` and `value`, and optionally `std` over seeds, `blind` (the score without
            images), and what it was measured on: `queries` (their number), `split`, `seeds` and `demonstrations`.
        notes (`list[str]`, *optional*): Sentences about limits and differences.
        image_use (`dict`, *optional*):
            Whether the model uses its images: `is_used`, `text` (the same in words), and `sources`, each with `name`,
            `measurements`, `loss`, `swapped_loss` and `swapped_for`.
    """

    parameters: dict[str, int]
    num_trainable: int
    architecture: dict[str, Any]
    backbones: list[dict[str, Any]]
    versions: dict[str, str]
    model_name: str | None = None
    source: str | None = None
    license: str | None = None
    language: str | list[str] | None = None
    tags: Sequence[str] = ()
    base_model: Sequence[str] = ()
    datasets: Sequence[str] = ()
    data_mixture: Sequence[dict[str, Any]] = ()
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    scores: Sequence[dict[str, Any]] = ()
    notes: Sequence[str] = ()
    image_use: Mapping[str, Any] | None = None

    @classmethod
    def from_model(
        cls,
        model: FlamingoModel,
        *,
        vision_name: str | None = None,
        text_name: str | None = None,
        **facts: Any,
    ) -> "FlamingoModelCardData":
        """
        Read the facts off a model, which may be on the meta device.

        Args:
            model ([`FlamingoModel`]): The model.
            vision_name, text_name (`str`, *optional*):
                Names of the backbones; by default the names that they were loaded by. Of a local path only the last part
                reaches the card.
            facts: Other fields of this class.
        """
        config = model.config
        parts = {
            "vision encoder": model.vision_model,
            "resampler": model.resampler,
            "gated cross-attention": model.gated_cross_attention,
            "language model": model.language_model,
        }
        configs = {
            "vision encoder": (config.vision_config, vision_name),
            "language model": (config.text_config, text_name),
        }
        every = f"{config.cross_attention_num_heads} heads of width {config.cross_attention_head_dim}"
        frames, layers = config.resampler_num_frames, config.vision_feature_layers
        architecture = {
            "gated blocks": f"before decoder layers {', '.join(map(str, config.cross_attention_layer_indices))}; {every}",
            "gates": config.cross_attention_gating
            + (", as in the paper" if config.cross_attention_gating == "tanh" else ""),
            "resampler": f"{config.resampler_type}; {config.resampler_num_layers} layers",
            "latents of an image or video": config.resampler_num_latents,
            "frames of a video": f"{frames} have a learned embedding"
            if frames
            else "without embeddings of their place",
            "vision features": f"of width {config.vision_hidden_size}; "
            + {"default": "patches alone", "full": "the class token too"}[config.vision_feature_select_strategy]
            + ("" if layers is None else f"; hidden states {', '.join(map(str, layers))} of the encoder")
            + (", standardized by those of training images" if config.resampler_feature_positions else ""),
            "token ids": f"{config.image_token_id} of an image, {config.end_of_chunk_token_id} of the end of a chunk",
            "dtype": str(model.dtype).removeprefix("torch."),
        }
        backbones = [_backbone(name, *given) for name, given in configs.items() if given[0] is not None]
        # A saved model forgets the names of local backbones, but the card next to it may know their origins
        if not facts.get("base_model") and not _base_models(backbones) and os.path.isdir(config.name_or_path or ""):
            facts["base_model"] = find_origins(config.name_or_path)
        return cls(
            parameters={name: _count(part) for name, part in parts.items() if part is not None},
            num_trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
            architecture=architecture,
            backbones=backbones,
            versions=package_versions("torch", "transformers", "transformers-flamingo", "huggingface_hub"),
            **facts,
        )

    def to_model_card(self) -> ModelCard:
        """Return the card with the metadata that the Hub reads. Secrets and local paths are removed."""
        results = [
            EvalResult(
                task_type="image-text-to-text",
                dataset_type=score["task"],
                dataset_name=score["task"],
                dataset_config=f"{score['shots']} shots",  # the Hub tells results apart by it
                dataset_split=score.get("split"),
                dataset_args={name: score[name] for name in _MEASURED_ON if score.get(name) is not None} or None,
                metric_type=score["metric"],
                metric_value=score["value"],
                metric_name=f"{score['metric']}, {score['shots']} shots",
            )
            for score in self.scores
        ]
        data = ModelCardData(
            library_name="transformers",
            pipeline_tag="image-text-to-text",
            tags=_distinct(["flamingo", "vision-language", "few-shot", *self.tags]),
            license=self.license,
            language=self.language,
            base_model=_distinct(self.base_model or _base_models(self.backbones)) or None,
            datasets=_distinct([*filter(_is_owned, (s["name"] for s in self.data_mixture)), *self.datasets]) or None,
            model_name=(self.model_name or "Flamingo") if results else None,
            eval_results=results or None,
        )
        mixture = [source | {"name": public_name(source["name"])} for source in self.data_mixture]
        table = _score_table(self.scores)
        body = render_card(TEMPLATES / "flamingo.md", card=self, mixture=mixture, table=table)
        return ModelCard(redact(f"---\n{data.to_yaml()}\n---\n\n{body}"))

    def save(self, path: str | os.PathLike) -> None:
        """Write the card, atomically."""
        write_text(path, self.to_model_card().content)


def _count(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _is_owned(name: str) -> bool:
    """Check that a name of a dataset is `OWNER/NAME`: a name without an owner is more likely one of the user's own."""
    return "/" in name and is_hub_name(name)


def _distinct(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _base_models(backbones: Sequence[dict[str, Any]]) -> list[str]:
    """Return the names on the Hub of backbones, or of what these were made from."""
    return [
        name
        for backbone in backbones
        for name in ([backbone["name"]] if "name" in backbone else backbone.get("origins", ()))
    ]


def _backbone(part: str, config: Any, name: str | None) -> dict[str, Any]:
    result = {"part": part, "type": config.model_type, "layers": config.num_hidden_layers}
    result["width"] = getattr(config, "hidden_size", "")
    name = name or getattr(config, "name_or_path", None)
    if hub_name := find_name(name):
        result["name"] = hub_name
    elif name:
        result["local_name"] = public_name(name)
        result["origins"] = find_origins(name)
    return result


def package_versions(*packages: str) -> dict[str, str]:
    """Return the versions of those packages that are installed, by package."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # run from its sources
            continue
    return found


_MEASURED_ON = ("queries", "seeds", "demonstrations")


def _score_table(scores: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """
    Arrange scores as a table: a row for each task, metric and what it was measured on, a column for each number of shots.
    """
    shots = sorted({score["shots"] for score in scores})
    facts = [name for name in ("split", *_MEASURED_ON) if any(score.get(name) is not None for score in scores)]
    rows: dict[tuple[str, ...], dict[int, str]] = {}
    for score in scores:
        text = f"{score['value']:.3g}" if abs(score["value"]) < 1 else f"{score['value']:.1f}"
        text += f" (std {score['std']:.2g})" if score.get("std") is not None else ""
        text += f", blind {score['blind']:.3g}" if score.get("blind") is not None else ""
        row = (score["task"], score["metric"], *(_fact(score.get(name)) for name in facts))
        rows.setdefault(row, {})[score["shots"]] = text
    return {"shots": shots, "facts": facts, "rows": rows}


def _fact(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)
