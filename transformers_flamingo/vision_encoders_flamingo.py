# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Which vision encoders fit, and which of their outputs are the features of an image.

Encoders return a sequence of tokens or a map, of the last layer or of each, with or without class and register tokens.
`select_features` makes one sequence of patches of them. It refuses what it does not understand, and `check_vision_model` calls
it when a model is built, with the shapes that the encoder returns for blank images, so that a wrong width or layer is an
error then and not at the first image.

Letters in shapes: `E` images or frames, `C, H, W` pixels, `P` patches, `Dv` vision width.

The file travels with a checkpoint as remote code: it stays flat and imports only its siblings.
"""

import inspect
from collections.abc import Mapping
from itertools import chain
from typing import Any

import torch
from torch import nn
from transformers import MODEL_MAPPING, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils import logging

from .configuration_flamingo import FlamingoConfig


logger = logging.get_logger(__name__)

# Leading tokens that are not patches, where `patch_size` does not tell their number.
_LEADING_TOKENS = {"depth_pro": 1, "dinov3_convnext": 1, "pvt": 1}
# Maps with channels in the last dimension, for those whose sides are as long as they are deep.
_CHANNELS_LAST = ("dinat", "sam2_hiera_det_model", "sam2_vision_model")
# Inputs that tell which patches of a packed row belong to which image. Some models need them though they have a default.
_PACKING_INPUTS = (
    "grid_thw",
    "image_grid_thw",
    "target_sizes",
    "pixel_position_ids",
    "pixel_attention_mask",
    "spatial_shapes",
)
_USE_ANOTHER = "Use an encoder that takes images alone (CLIP, SigLIP, DINOv2, ...)."
# What encoders returned for blank images in this process, by class and configuration. A process may build many models of one kind,
# each in less time than this takes, and a new model asks for its width before it is built. On "meta" it takes no memory.
_PROBED: dict[tuple[type, str, bool], Mapping[str, Any] | None] = {}


def build_vision_model(vision_config: PreTrainedConfig) -> PreTrainedModel:
    """
    Build a vision encoder with random weights, as `AutoModel` does.

    Raises:
        ValueError: `AutoModel` has none of this type, as for the towers of some multimodal models.
    """
    # `AutoModel` would import all models to list them in its own message
    if type(vision_config) not in MODEL_MAPPING and "AutoModel" not in (
        getattr(vision_config, "auto_map", None) or {}
    ):
        raise ValueError(
            f"`AutoModel` has no model for a {type(vision_config).__name__} (`model_type` {vision_config.model_type!r}), so it "
            "cannot be the vision encoder. Use another one, or register its class with `AutoModel.register`."
        )
    return AutoModel.from_config(vision_config)


def check_vision_model(vision_model: PreTrainedModel | None, config: FlamingoConfig) -> None:
    """
    Check that a vision encoder takes single images, and that its features are those that `config` describes.

    Raises:
        ValueError: it masks patches, sees the frames of a video together, needs other inputs than pixels, or has no such
            layer or width.
    """
    if vision_model is None:
        return
    if reason := _find_unusable_input(vision_model):
        raise ValueError(f"The vision encoder is a {type(vision_model).__name__}, which does not fit: {reason}")
    layers = config.vision_feature_layers
    num_queries = getattr(vision_model.config, "num_queries", None)
    if num_queries and layers is None and config.vision_feature_select_strategy == "default":
        raise ValueError(
            f"The vision encoder is a {type(vision_model).__name__}, a detector: its outputs are {num_queries} queries "
            "(`num_queries`), each of an object, and not the patches of an image, which "
            '`vision_feature_select_strategy="default"` keeps. Use its backbone, or set it to "full" to take the queries.'
        )
    outputs = probe_vision_model(vision_model, layers is not None)
    if outputs is not None:
        select_features(vision_model, outputs, config, 2, find_image_size(vision_model.config))


def _find_unusable_input(vision_model: PreTrainedModel) -> str | None:
    """Tell why a vision encoder cannot be given images one by one, or return `None` if it can."""
    config, kind = vision_model.config, type(vision_model)
    mask_ratio = getattr(config, "mask_ratio", None)
    # Hiera's configuration always has the ratio, and it masks nothing unless it is being pretrained
    if mask_ratio and all(getattr(module, "is_mae", True) for module in vision_model.modules()):
        return (
            f"with `mask_ratio={mask_ratio}` it masks that share of each image at random and shuffles the rest, so the same "
            "image would never give the same features. Use the encoder without masking that has the same weights, such as "
            "`ViTModel.from_pretrained` for a ViT-MAE checkpoint."
        )
    parameters = inspect.signature(kind.forward).parameters
    modalities = getattr(kind, "input_modalities", None) or ()
    modalities = (modalities,) if isinstance(modalities, str) else tuple(modalities)
    sees_videos = "video" in modalities and "image" not in modalities
    counts_frames = "pixel_values" in parameters and isinstance(getattr(config, "num_frames", None), int)
    if sees_videos or "pixel_values_videos" in parameters or counts_frames:
        return (
            "it sees the frames of a video together, and Flamingo encodes each frame alone and joins them in its resampler. "
            f"{_USE_ANOTHER} Or compute the features of each video yourself, and pass them as `mm_encoder_outputs` to a model "
            "without vision encoder (`vision_config=None`, `vision_hidden_size=...`)."
        )
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    needed = [
        name
        for name, parameter in parameters.items()
        if parameter.kind not in kinds
        and name not in ("self", "pixel_values")
        and (parameter.default is parameter.empty or name in _PACKING_INPUTS)
    ]
    names = ", ".join(f"`{name}`" for name in needed or [vision_model.main_input_name])
    if "pixel_values" not in parameters:
        return (
            f"it takes {names}, which its own processor makes of an image, instead of `pixel_values`. {_USE_ANOTHER}"
        )
    if needed:
        hint = ""
        if config.model_type == "siglip2_vision_model":
            hint = (
                " SigLIP 2 has checkpoints of one resolution too, such as google/siglip2-base-patch16-224, which are a "
                "`siglip_vision_model`."
            )
        return f"besides pixels it needs {names}, which its own processor makes. {_USE_ANOTHER}{hint}"
    if "input_ids" in parameters:
        return "it takes text too. Use the vision encoder of this model alone, if it has one."
    return None


def find_image_size(config: Any) -> tuple[int, int]:
    """Return the size of the images that a vision encoder was made for, or 224 if it takes any."""
    size = getattr(config, "image_size", None) or getattr(getattr(config, "backbone_config", None), "image_size", None)
    if size is None and isinstance(trained_with := getattr(config, "pretrained_cfg", None), dict):  # timm
        size = trained_with.get("input_size", (3, 224, 224))[1:]
    size = size or 224
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def probe_vision_model(vision_model: PreTrainedModel, with_hidden_states: bool = False) -> Mapping[str, Any] | None:
    """
    Return what a vision encoder returns for two blank images, as shapes alone, on the device `meta`.

    Nothing is computed, so it takes a fraction of a second for any size, and is done once for encoders of one class and configuration.
    Returns `None` if the encoder cannot run there, for example because it reads values of tensors, or is quantized or on several
    devices; then its first image will show.
    """
    # Hooks of accelerate and layers of quantizers would do something with the weights
    if getattr(vision_model, "is_quantized", False) or hasattr(vision_model, "hf_device_map"):
        return None
    kind = type(vision_model), vision_model.config.to_json_string(), with_hidden_states
    if kind not in _PROBED:
        _PROBED[kind] = _run_on_meta(vision_model, with_hidden_states)
    return _PROBED[kind]


@torch.no_grad()
def _run_on_meta(vision_model: PreTrainedModel, with_hidden_states: bool) -> Mapping[str, Any] | None:
    config = vision_model.config
    channels = getattr(config, "num_channels", None) or getattr(config, "in_chans", None) or 3
    modes = [(module, module.training) for module in vision_model.modules()]
    try:
        tensors = chain(vision_model.named_parameters(), vision_model.named_buffers())
        state = {name: tensor.detach().to("meta") for name, tensor in tensors}
        images = torch.empty(2, channels, *find_image_size(config), dtype=vision_model.dtype, device="meta")
        kwargs = {"output_hidden_states": True} if with_hidden_states else {}
        vision_model.eval()
        return torch.func.functional_call(
            vision_model, state, kwargs={"pixel_values": images, "return_dict": True, **kwargs}
        )
    except Exception as error:  # of whatever kind: an encoder may do anything
        logger.debug(f"{type(vision_model).__name__} was not checked with blank images: {error!r}")
        return None
    finally:
        for module, mode in modes:
            module.training = mode


def name_hidden_states(vision_model: PreTrainedModel, layers: list[int]) -> bool | list[int]:
    """
    Return the `output_hidden_states` that makes a vision encoder keep the hidden states of `layers` in their places.

    Kept alone, they take little memory. Only encoders of transformers with layers of one kind can do that: those of stages keep
    all, and those of timm would number them anew.
    """
    has_layers = isinstance(getattr(vision_model.config, "num_hidden_layers", None), int)
    return layers if has_layers and vision_model.config.model_type != "timm_wrapper" else True


def check_position_interpolation(vision_model: PreTrainedModel, interpolate_pos_encoding: bool | None) -> None:
    """
    Check that a vision encoder knows `interpolate_pos_encoding`, if it is given.

    Raises:
        ValueError: it does not, and most would ignore it.
    """
    if interpolate_pos_encoding is None:
        return
    if "interpolate_pos_encoding" not in inspect.signature(type(vision_model).forward).parameters:
        raise ValueError(
            f"`interpolate_pos_encoding` is {interpolate_pos_encoding}, but {type(vision_model).__name__} has no such argument: "
            "it takes images of any size as they are (DINOv2, DINOv3 and convolutional networks do), or of its own size alone. "
            "Omit it."
        )


def measure_width(vision_model: PreTrainedModel, layers: list[int] | None) -> int | None:
    """Return the width of the features of a vision encoder whose configuration does not tell, or `None` if it is unknown."""
    outputs = probe_vision_model(vision_model, layers is not None)
    if outputs is None:
        return None
    tensors = _find_layers(vision_model, outputs, layers)
    if not all(tensor.ndim in (3, 4) for tensor in tensors):
        return None
    # A square image has a square map
    has_channels_last = [t.ndim == 3 or (t.shape[1] == t.shape[2] != t.shape[3]) for t in tensors]
    return sum(t.shape[-1] if last else t.shape[1] for t, last in zip(tensors, has_channels_last, strict=True))


def select_features(
    vision_model: PreTrainedModel,
    outputs: Mapping[str, Any],
    config: FlamingoConfig,
    num_images: int,
    image_size: tuple[int, int],
) -> torch.Tensor:
    """
    Select the features that `vision_feature_layer` and `vision_feature_select_strategy` ask for from the outputs of a vision
    encoder.

    A map `(E, Dv, height, width)`, as convolutional networks return it, or `(E, height, width, Dv)`, has no other tokens: its
    places are the patches, row by row. Several layers are concatenated along the channels.

    Args:
        vision_model (`PreTrainedModel`): The vision encoder.
        outputs (`ModelOutput`): What it returned.
        config ([`FlamingoConfig`]): Describes the features.
        num_images (`int`): `E`.
        image_size (`tuple[int, int]`): `(H, W)`.

    Returns:
        `torch.Tensor` of shape `(E, P, Dv)`.

    Raises:
        ValueError: there is no such layer or width, or it is unknown which tokens are patches.
    """
    layers, width = config.vision_feature_layers, config.vision_hidden_size
    tensors = _find_layers(vision_model, outputs, layers)
    name, shapes = type(vision_model).__name__, [tuple(tensor.shape) for tensor in tensors]
    parts = []
    for tensor in tensors:
        tensor = split_packed_images(vision_model, tensor, num_images)
        if tensor.ndim == 4:
            tensor = _flatten_map(vision_model, tensor, width // len(tensors))
        elif tensor.ndim == 3 and config.vision_feature_select_strategy == "default":
            tensor = tensor[:, _find_patches(vision_model, tensor.shape[1], image_size, layers is not None)]
        parts.append(tensor)
    if any(part.ndim != 3 or len(part) != num_images for part in parts):
        raise ValueError(
            f"{name} returns features of shape {_join(shapes)} for {num_images} images, but a sequence (images, P, Dv) or a "
            "map (images, Dv, height, width) is needed. Use an encoder that returns one of these, or pass features yourself "
            "as `mm_encoder_outputs`."
        )
    if len({part.shape[1] for part in parts}) > 1:
        raise ValueError(
            f"The layers {layers} of {name} (`vision_feature_layer`) have different numbers of places: their outputs are of "
            f"shape {_join(shapes)}, so they cannot be joined along the channels. Choose layers of one stage."
        )
    features = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
    if features.shape[-1] != width:
        raise ValueError(
            f"{name} returns features of shape {_join(shapes)} for {num_images} images, of width {features.shape[-1]}, but "
            f"`vision_hidden_size` = {width}. Build the model with `vision_hidden_size={features.shape[-1]}`, or omit it if "
            "the configuration of the encoder names its width."
        )
    return features


def _join(shapes: list[tuple[int, ...]]) -> str:
    return " and ".join(map(str, shapes))


def _find_layers(
    vision_model: PreTrainedModel, outputs: Mapping[str, Any], layers: list[int] | None
) -> list[torch.Tensor]:
    """Return the output of a vision encoder, or those of its `layers`."""
    name = type(vision_model).__name__
    if layers is None:
        features = outputs.get("last_hidden_state")
        if features is None:
            raise ValueError(
                f"{name} returns no `last_hidden_state`, but {', '.join(outputs)}: it is a model for another task or a backbone "
                "for one. Use an encoder that returns features, such as the one it was built on."
            )
        return [features]
    hidden_states = outputs.get("hidden_states")
    if not hidden_states:
        raise ValueError(
            f"`vision_feature_layer` is {layers}, but {name} gives no hidden states of its layers. Omit it, to use the output "
            "of the encoder, or use another encoder."
        )
    count = len(hidden_states)
    wrong = [layer for layer in layers if not -count <= layer < count]
    if wrong:
        raise ValueError(
            f"`vision_feature_layer` is {layers}, but {name} has hidden states {-count} to {count - 1}, of which 0 are its "
            f"embeddings: {wrong} do not exist."
        )
    return [hidden_states[layer] for layer in layers]


def split_packed_images(vision_model: PreTrainedModel, features: torch.Tensor, num_images: int) -> torch.Tensor:
    """Return the features `(E, P, Dv)` of an encoder that packs all images into one sequence `(1, E * P, Dv)`."""
    if vision_model.config.model_type == "pixtral" and features.ndim == 3 and len(features) == 1:
        return features.unflatten(1, (num_images, -1)).squeeze(0)
    return features


def _flatten_map(vision_model: PreTrainedModel, features: torch.Tensor, width: int) -> torch.Tensor:
    """Return the places of a map, row by row: `(E, P, Dv)`."""
    if _has_channels_last(vision_model, features, width):
        return features.flatten(1, 2)
    return features.flatten(2).transpose(1, 2)


def _has_channels_last(vision_model: PreTrainedModel, features: torch.Tensor, width: int) -> bool:
    is_first, is_last = features.shape[1] == width, features.shape[3] == width
    return is_last and (not is_first or vision_model.config.model_type in _CHANNELS_LAST)


def find_map_size(
    vision_model: PreTrainedModel, outputs: Mapping[str, Any], config: FlamingoConfig
) -> tuple[int, ...]:
    """Return height and width of the map that a vision encoder returned, or `()` if it is a sequence."""
    layers = config.vision_feature_layers
    features = _find_layers(vision_model, outputs, layers)[0]
    if features.ndim != 4:
        return ()
    width = config.vision_hidden_size // len(layers or [None])
    return tuple(features.shape[1:3] if _has_channels_last(vision_model, features, width) else features.shape[2:])


def _find_patches(
    vision_model: PreTrainedModel, num_tokens: int, image_size: tuple[int, int], is_hidden_state: bool
) -> slice:
    """Find which tokens of a sequence are patches: not a class token (CLIP, ViT), registers (DINOv3) or detections (YOLOS)."""
    config, kind = vision_model.config, vision_model.config.model_type
    num_leading = None
    if kind == "timm_wrapper":
        num_leading = _count_leading_tokens_of_timm(vision_model.timm_model)
    elif kind in _LEADING_TOKENS:
        # In stages before the last one there may be none
        num_leading = None if is_hidden_state else _LEADING_TOKENS[kind]
    else:
        backbone = getattr(config, "backbone_config", None)
        stride = getattr(config, "patch_stride", None) or getattr(config, "patch_size", None)
        stride = stride or getattr(backbone, "patch_size", None)
        if stride is not None:
            stride = (stride, stride) if isinstance(stride, int) else stride
            num_trailing = config.num_detection_tokens if kind == "yolos" else 0
            grid = image_size[0] // stride[0], image_size[1] // stride[1]
            num_leading = _count_leading_tokens(num_tokens - num_trailing, grid)
            if num_leading is not None:
                return slice(num_leading, num_tokens - num_trailing)
    if num_leading is None:
        raise ValueError(
            f'`vision_feature_select_strategy` is "default", which keeps the patches of {type(vision_model).__name__}, but '
            f"nothing tells which of its {num_tokens} tokens are patches of an image of {image_size[0]} x {image_size[1]} "
            '(`patch_size` of its configuration, if it has one, does not). Set it to "full" to keep all tokens.'
        )
    return slice(num_leading, num_tokens)


def _count_leading_tokens(num_tokens: int, grid: tuple[int, int]) -> int | None:
    """Return how many tokens come before those of a grid of patches, or of one that stages have halved; `None` if unclear."""
    height, width = grid
    if num_tokens >= height * width:
        return num_tokens - height * width
    for stage in range(1, 7):
        factor = 2**stage
        if num_tokens in ((height // factor) * (width // factor), -(-height // factor) * -(-width // factor)):
            return 0
    return None


def _count_leading_tokens_of_timm(model: nn.Module) -> int | None:
    """Return the number of tokens before the patches of a model of timm, or `None` if it does not tell."""
    count = getattr(model, "num_prefix_tokens", None)
    if count is None and getattr(model, "cls_token", None) is None:
        return 0
    return count
