# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Export a Flamingo with the exporters of transformers: to `torch.export`, ONNX, ExecuTorch and OpenVINO.

The stock `export_for_generation` takes a vision-language model apart at its decoder, and expects images among the embeddings of
the text. Here they enter between the decoder layers, so there are three other parts.
"""

from collections.abc import MutableMapping
from typing import Any

import torch
from torch import nn
from transformers import GenerationConfig
from transformers.exporters import ExportedModel, HfExporter
from transformers.exporters.configs import ExportConfigMixin
from transformers.exporters.utils import decompose_prefill_decode

from ..conditioning_flamingo import passes_keywords
from ..image_features_flamingo import FlamingoImageFeatures
from ..modeling_flamingo import FlamingoModel


class FlamingoImageEncoder(nn.Module):
    """
    The part of a [`FlamingoModel`] that turns images into latents, as a module that can be exported on its own.

    Args:
        model (`FlamingoModel`): The model, whose weights it shares.
    """

    def __init__(self, model: FlamingoModel):
        super().__init__()
        self.config = model.config
        self.model = model

    def forward(
        self, pixel_values: torch.FloatTensor, frame_attention_mask: torch.Tensor | None = None
    ) -> FlamingoImageFeatures:
        """Return the latents `(B, N, L, Dv)` of images as `pooler_output`, and which of them are real."""
        features = self.model.get_image_features(pixel_values, frame_attention_mask, return_dict=True)
        return FlamingoImageFeatures(
            pooler_output=features.pooler_output, image_attention_mask=features.image_attention_mask
        )


def export_for_generation(
    exporter: HfExporter,
    model: FlamingoModel,
    inputs: MutableMapping[str, Any],
    config: ExportConfigMixin | dict[str, ExportConfigMixin],
    *,
    max_cache_len: int,
    generation_config: GenerationConfig | None = None,
) -> ExportedModel:
    """
    Export a model as three graphs, for generation with a static cache.

    | graph           | takes                                                                         | gives                 |
    |-----------------|-------------------------------------------------------------------------------|-----------------------|
    | `image_encoder` | `pixel_values`                                                                | latents of the images |
    | `prefill`       | `input_ids`, `position_ids`, the latents as `mm_encoder_outputs`, a new cache | logits, the cache     |
    | `decode`        | one token, its position, the cache, `attention_mask` `(B, 1, 1, max_cache_len)`: which places of it are text | the same |

    After the prompt the last image is in the cache. Which image a token of the prompt sees is found in the graph. Its checks of
    numbers are assertions in `torch.export`, and are not in ONNX: give one image for each marker.

    Args:
        exporter (`HfExporter`): Exporter of transformers, such as `OnnxExporter()`.
        model ([`FlamingoModel`]): The model, in evaluation mode.
        inputs (`dict`): Inputs of `generate()` with `pixel_values`. Their shapes are those of the graphs.
        config (`ExportConfigMixin` or `dict[str, ExportConfigMixin]`): That of the exporter; one for all, or one for each graph.
        max_cache_len (`int`): Number of tokens of the prompt and the answer that the cache has room for.
        generation_config (`GenerationConfig`, *optional*): Saved with the graphs; by default that of the model.

    Returns:
        `transformers.exporters.ExportedModel`: it is saved and loaded as any other, and `components[name]` is a graph.

    Raises:
        ValueError: there are no pixels, the prompt does not fit into the cache, the cache is longer than the language model has
            positions, or the language model cannot be exported with images.
    """
    pixel_values, input_ids = inputs.get("pixel_values"), inputs.get("input_ids")
    if pixel_values is None or input_ids is None:
        raise ValueError(
            "`inputs` needs `input_ids` and `pixel_values`: the graphs are traced with them. Give what the processor returns for a "
            f"prompt with an image. Got {sorted(inputs)}."
        )
    if not passes_keywords(model.language_model):
        raise ValueError(
            f"{type(model.language_model).__name__} cannot be exported with images: it drops keywords before it calls its layers, and "
            "nothing else brings images to them in a graph. Use a language model that passes them on (GPT-2, OPT, Llama, Qwen, ...)."
        )
    if max_cache_len <= input_ids.shape[1]:
        raise ValueError(
            f"`max_cache_len` is {max_cache_len}, but the prompt has {input_ids.shape[1]} tokens, and at least one more is "
            "generated. Raise it to the longest prompt and answer."
        )
    if model.max_text_length is not None and max_cache_len > model.max_text_length:
        raise ValueError(
            f"`max_cache_len` is {max_cache_len}, but the language model has positions for {model.max_text_length} tokens, and a graph "
            "does not say that there are no more. Lower it."
        )
    generation_config = generation_config or model.generation_config
    capture = GenerationConfig(**{**generation_config.to_diff_dict(), "cache_implementation": "static"})
    capture.max_cache_len, capture.num_beams = max_cache_len, 1
    image_inputs = {
        name: inputs[name] for name in ("pixel_values", "frame_attention_mask") if inputs.get(name) is not None
    }
    parts = {
        "image_encoder": (FlamingoImageEncoder(model).eval(), image_inputs),
        **decompose_prefill_decode(model, dict(inputs), generation_config=capture),
    }
    for _, part_inputs in parts.values():
        part_inputs.pop("media_index", None)  # it follows from the markers
    components = {
        name: exporter.export(part, part_inputs, config[name] if isinstance(config, dict) else config).components[
            "model"
        ]
        for name, (part, part_inputs) in parts.items()
    }
    return ExportedModel(components, exporter.export_format, config=model.config, generation_config=generation_config)
