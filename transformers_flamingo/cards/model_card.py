# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Model cards, generated: every number in a card comes from the record of the run that it describes.

A card is one Jinja template in `templates/` filled with a record, the JSON that a run wrote. An unknown name in a
template is an error, so that a card never shows an empty fact.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from jinja2 import Environment, PackageLoader, StrictUndefined

from ..modeling_flamingo import FlamingoModel
from ..saving_flamingo import write_text
from ..utils.redaction import redact


# The kinds of card, one template each.
KINDS = ("demo", "few-shot", "miniature-clip", "miniature-gpt2")

_environment = Environment(
    loader=PackageLoader("transformers_flamingo.cards", "templates"),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # Markdown, of numbers and names that we wrote
)


def _format(value: Any, specification: str) -> str:
    str(value)  # an unknown name raises here, with its name
    return format(value, specification)


def _cell(value: Any) -> str:
    """A value in a table: on one line, and without the signs that end a cell or begin a tag."""
    text = " ".join(str(value).split())
    for sign in "\\|<>*_`[]":
        text = text.replace(sign, f"\\{sign}")
    return text


_environment.filters["cell"] = _cell
_environment.filters["thousands"] = lambda value: _format(value, ",")
_environment.filters["decimals"] = lambda value, digits: _format(value, f".{digits}f")


def render_model_card(kind: str, record: dict[str, Any]) -> str:
    """
    The text of a card.

    Args:
        kind (`str`): One of [`KINDS`].
        record (`dict`): What the run wrote about itself; `record` in the template.

    Raises:
        ValueError: `kind` is unknown.
        jinja2.UndefinedError: the record lacks something that the template shows.
    """
    if kind not in KINDS:
        raise ValueError(f"Unknown kind of model card {kind!r}: known kinds are {', '.join(KINDS)}.")
    return _environment.get_template(f"{kind}.md").render(record=record)


def write_model_card(kind: str, record: dict[str, Any], path: str | Path) -> None:
    """Render a card, check that the Hub could read its metadata, and write it to `path`."""
    text = render_model_card(kind, record)
    ModelCard(text)  # parses the metadata block
    write_text(path, text)


@dataclass
class FlamingoModelCardData:
    """
    The facts about one Flamingo, for its card. What is not known stays out of the card: there is no empty row.

    [`~FlamingoModelCardData.from_model`] fills in what the model itself says.

    Args:
        parameters (`dict[str, int]`): Number of parameters of each part.
        num_trainable (`int`): How many of them require a gradient.
        architecture (`dict[str, Any]`): Sizes and settings by name.
        backbones (`list[dict]`): For each: `part`, `type`, `layers`, `width`, and `name` on the Hub.
        versions (`dict[str, str]`): Of the libraries.
        model_name (`str`, *optional*): Heading of the card.
        source (`str`, *optional*): What it was made from: "the OpenFlamingo checkpoint ...".
        license, language (`str`, *optional*): For the Hub.
        data_mixture (`list[dict]`, *optional*): The data sets it was trained on, each with `name`, and what is known.
        hyperparameters (`dict[str, Any]`, *optional*): Of the training.
        scores (`list[dict]`, *optional*):
            Each with `task`, `metric`, `shots` and `value`, and perhaps `std` over seeds, `blind`, the score without
            images, and what it was measured on: `queries` (their number), `split`, `seeds` and `demonstrations`.
        notes (`list[str]`, *optional*): Sentences on limits and differences.
    """

    parameters: dict[str, int]
    num_trainable: int
    architecture: dict[str, Any]
    backbones: list[dict[str, Any]]
    versions: dict[str, str]
    model_name: str | None = None
    source: str | None = None
    license: str | None = None
    language: str | None = None
    data_mixture: Sequence[dict[str, Any]] = ()
    hyperparameters: dict[str, Any] = field(default_factory=dict)
    scores: Sequence[dict[str, Any]] = ()
    notes: Sequence[str] = ()

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
        Read the facts off a model. It may be on the meta device.

        Args:
            model ([`FlamingoModel`]): The model.
            vision_name, text_name (`str`, *optional*):
                Names of the backbones; by default those that they were loaded by. Only names of Hub repositories
                reach the card, and no path of this machine.
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
        frames = config.resampler_num_frames
        architecture = {
            "gated blocks": f"before decoder layers {', '.join(map(str, config.cross_attention_layer_indices))}; {every}",
            "gates": {"tanh": "tanh, as in the paper", "none": "none"}[config.cross_attention_gating],
            "resampler": f"{config.resampler_type}; {config.resampler_num_layers} layers",
            "latents of an image or video": config.resampler_num_latents,
            "frames of a video": f"{frames} have a learned embedding"
            if frames
            else "without embeddings of their place",
            "vision features": f"of width {config.vision_hidden_size}; "
            + {"default": "patches alone", "full": "the class token too"}[config.vision_feature_select_strategy],
            "token ids": f"{config.image_token_id} of an image, {config.end_of_chunk_token_id} of the end of a chunk",
            "dtype": str(model.dtype).removeprefix("torch."),
        }
        return cls(
            parameters={name: _count(part) for name, part in parts.items() if part is not None},
            num_trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
            architecture=architecture,
            backbones=[_backbone(name, *given) for name, given in configs.items() if given[0] is not None],
            versions=package_versions("torch", "transformers", "transformers-flamingo", "huggingface_hub"),
            **facts,
        )

    def to_model_card(self) -> ModelCard:
        """The card, with the metadata that the Hub reads."""
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
            tags=["flamingo", "vision-language", "few-shot"],
            license=self.license,
            language=self.language,
            base_model=[backbone["name"] for backbone in self.backbones if "name" in backbone] or None,
            datasets=[s["name"] for s in self.data_mixture if "/" in s["name"] and _is_hub_name(s["name"])] or None,
            model_name=(self.model_name or "Flamingo") if results else None,
            eval_results=results or None,
        )
        mixture = [source | {"name": _public_name(source["name"])} for source in self.data_mixture]
        table = _score_table(self.scores)
        body = _environment.get_template("flamingo.md").render(card=self, mixture=mixture, table=table)
        return ModelCard(redact(f"---\n{data.to_yaml()}\n---\n\n{body}"))

    def save(self, path: str | os.PathLike) -> None:
        """Write the card, whole or not at all."""
        write_text(path, self.to_model_card().content)


def _count(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _is_hub_name(name: Any) -> bool:
    """Whether this can be the name of a repository, `OWNER/NAME` or `NAME`, and is no file here."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not os.path.exists(name)


def _public_name(name: str) -> str:
    """The name itself, or of a path its last part: where it lay on this machine is nobody else's business."""
    return name if _is_hub_name(name) else os.path.basename(os.path.normpath(name))


def _backbone(part: str, config: Any, name: str | None) -> dict[str, Any]:
    result = {"part": part, "type": config.model_type, "layers": config.num_hidden_layers}
    result["width"] = getattr(config, "hidden_size", "")
    name = name or getattr(config, "name_or_path", None)
    if name and _is_hub_name(name):
        result["name"] = name
    return result


def package_versions(*packages: str) -> dict[str, str]:
    """The versions of those packages that are installed."""
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
