# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Flamingo (Alayrac et al. 2022) for transformers. Importing this package registers it with the `Auto*` classes."""

# ruff: noqa: E402
from .utils.versions import warn_about_untested_versions


warn_about_untested_versions()  # first: with an untested release the imports below may fail

from huggingface_hub import ModelCard
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoModelForSequenceClassification,
    AutoProcessor,
)
from transformers.pipelines import PIPELINE_REGISTRY

from .attention_maps_flamingo import attention_maps
from .configuration_flamingo import FlamingoConfig
from .image_processing_flamingo import FlamingoImageProcessor
from .modeling_flamingo import FlamingoForSequenceClassification, FlamingoModel
from .processing_flamingo import FlamingoProcessor


def _make_card(model: FlamingoModel, repo_id: str) -> ModelCard:
    """Make the card of a model that `push_to_hub` publishes in a repository."""
    from .cards.model_card import FlamingoModelCardData  # the templates are read when they are needed
    from .cards.origins import find_name

    own_name = find_name(model.config.name_or_path)
    base_model = [own_name] if own_name and own_name != repo_id else []
    return FlamingoModelCardData.from_model(model, base_model=base_model).to_model_card()


FlamingoModel.make_card = _make_card

AutoConfig.register(FlamingoConfig.model_type, FlamingoConfig)
AutoModel.register(FlamingoConfig, FlamingoModel)
AutoModelForImageTextToText.register(FlamingoConfig, FlamingoModel)
AutoModelForMultimodalLM.register(FlamingoConfig, FlamingoModel)
AutoModelForSequenceClassification.register(FlamingoConfig, FlamingoForSequenceClassification)
AutoImageProcessor.register(FlamingoConfig, image_processor_classes={"pil": FlamingoImageProcessor})
AutoProcessor.register(FlamingoConfig, FlamingoProcessor)
# By its name, as transformers has its own pipelines: it is imported when one is made
PIPELINE_REGISTRY.supported_tasks["few-shot-image-to-text"] = {
    "impl": "transformers_flamingo.few_shot.pipeline.FewShotPipeline",
    "pt": (AutoModelForImageTextToText,),
    "type": "multimodal",
}


def __getattr__(name: str) -> object:
    """Import the predictor when it is asked for: it needs more than a model does."""
    if name == "FewShotPredictor":
        from .few_shot.predictor import FewShotPredictor

        return FewShotPredictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "FlamingoConfig",
    "FlamingoForSequenceClassification",
    "FlamingoImageProcessor",
    "FlamingoModel",
    "FlamingoProcessor",
    "attention_maps",
]
