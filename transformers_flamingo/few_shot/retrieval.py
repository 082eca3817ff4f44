# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Image embeddings for the retrieval of demonstrations (RICES: Yang et al. 2022; paper, section 2.5)."""

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch
from transformers import AutoConfig, AutoImageProcessor, AutoModel, PreTrainedModel

from ..data import load_media
from ..data.encoding import encode_images
from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor
from ..utils.fingerprint import fingerprint, fingerprint_weights
from ..utils.loading import check_name
from .examples import Example
from .model_state import WeightWatch, in_evaluation_mode
from .prompts import media_of


# Returns vectors of unit length, (len(examples), width), for examples of the split "support" or "query"
Embed = Callable[[Sequence[Example], str], np.ndarray]


class ImageEmbedder:
    """
    Embedder of the first image or video of examples.

    By default an embedding is the mean of the patch features of the model's own vision encoder. With `clip` it is the image
    embedding of a two-tower model, as in OpenFlamingo (`openai/clip-vit-large-patch14`). That of a video is the mean over its
    frames. Embeddings have unit length.

    Args:
        model ([`FlamingoModel`]): The model.
        processor ([`FlamingoProcessor`]): The processor of the model.
        clip (`str`, *optional*): Name or directory of a CLIP or SigLIP.
        batch_size (`int`, *optional*, defaults to 32): Images or videos encoded together.

    Raises:
        ValueError: the model has no vision encoder and there is no `clip`, or `clip` does not have two towers.
    """

    def __init__(
        self, model: FlamingoModel, processor: FlamingoProcessor, *, clip: str | None = None, batch_size: int = 32
    ):
        self.model, self.processor, self.batch_size = model, processor, batch_size
        self.clip = None
        if clip is not None:
            self.clip = _load_clip(clip).to(model.device).eval()
            self.clip_image_processor = AutoImageProcessor.from_pretrained(clip)
        elif model.vision_model is None:
            raise ValueError("The model has no vision encoder to compare images with. Set `clip` to a CLIP or SigLIP.")
        self._weights = WeightWatch(model.vision_model if self.clip is None else self.clip)

    def has_changed(self) -> bool:
        """Return whether the weights of the encoder have changed since the last call."""
        return self._weights.have_changed()

    @cached_property
    def fingerprint(self) -> str:
        """Return the fingerprint of all that an embedding depends on besides its image: encoder, its weights, and how pixels are made."""
        if self.clip is None:
            config, encoder, pixels = self.model.config, self.model.vision_model, self.processor.image_processor
            facts = [
                config.vision_config.to_json_string(),
                config.vision_feature_select_strategy,
                repr(config.vision_feature_layers),
            ]
        else:
            encoder, pixels = self.clip, self.clip_image_processor
            facts = [encoder.config.to_json_string()]
        facts += [type(pixels).__name__, pixels.to_json_string(), fingerprint_weights(encoder.state_dict())]
        return fingerprint(facts)

    def __call__(self, examples: Sequence[Example], kind: str = "support") -> np.ndarray:
        """
        Return the embeddings of examples.

        Args:
            examples (`Sequence[Example]`): The examples.
            kind (`str`, *optional*, defaults to `"support"`): The split they are from, for error messages.

        Returns:
            `np.ndarray` of shape `(len(examples), width)`.

        Raises:
            ValueError: an example has no image.
        """
        starts = range(0, len(examples), self.batch_size)
        return np.concatenate([self._embed(examples[start : start + self.batch_size], kind) for start in starts])

    @in_evaluation_mode
    @torch.inference_mode()
    def _embed(self, examples: Sequence[Example], kind: str) -> np.ndarray:
        videos = []  # an image is a video of one frame
        for example in examples:
            media = media_of(example, kind)
            if not media:
                raise ValueError(f"{kind} {example.id!r} has no image, so there is nothing to compare.")
            loaded = load_media(media[0].data, media[0].location)
            frames = loaded if isinstance(loaded, list) else [loaded]
            videos.append([frame.convert("RGB") for frame in frames])
        if self.clip is None:
            features = encode_images(
                self.model, self.processor, videos, output="last_hidden_state", batch_size=self.batch_size
            )
            vectors = [frames.mean(dim=1) for frames in features]  # of the patches
        else:
            frames = [frame for video in videos for frame in video]
            pixels = self.clip_image_processor(frames, return_tensors="pt")["pixel_values"].to(self.model.device)
            embeddings = self.clip.get_image_features(pixel_values=pixels)
            embeddings = getattr(embeddings, "pooler_output", embeddings)
            vectors = embeddings.split([len(video) for video in videos])
        means = [vector.float().mean(dim=0) for vector in vectors]  # of the frames
        return torch.nn.functional.normalize(torch.stack(means), dim=-1).cpu().numpy()


def _load_clip(name: str) -> PreTrainedModel:
    check_name(name)
    config = AutoConfig.from_pretrained(name)
    if config.model_type == "flamingo" or not all(hasattr(config, f"{tower}_config") for tower in ("vision", "text")):
        raise ValueError(
            f"{name!r} is a model of type {config.model_type!r}, which cannot compare images on its own. Use a CLIP or SigLIP with both "
            "towers."
        )
    clip, info = AutoModel.from_pretrained(name, output_loading_info=True)
    if info["missing_keys"]:
        raise ValueError(
            f"{name!r} lacks {len(info['missing_keys'])} weights, such as {sorted(info['missing_keys'])[0]}. They would be random. "
            "Fetch it again."
        )
    return clip
