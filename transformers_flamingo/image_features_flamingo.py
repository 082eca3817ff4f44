# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
From pixels or features to latents: the vision encoder, the mask of real frames, and the resampler.

The latents of an image depend on that image alone, so they can be kept and passed again. Padding is never encoded.

Shapes: `B` batch, `N` images or videos per sample, `F` frames, `C, H, W` pixels, `E` real frames of the batch, `P` patches,
`L` latents, `Dv` vision width.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, can_return_tuple

from .attention_maps_flamingo import patch_grids
from .checks_flamingo import check_finite, check_mask, check_tensors
from .host_inputs_flamingo import to_host
from .padding_flamingo import find_real_images
from .vision_encoders_flamingo import (
    check_position_interpolation,
    find_map_size,
    name_hidden_states,
    select_features,
    split_packed_images,
)


# Maximum number of images or frames per forward pass of a frozen vision encoder.
ENCODER_CHUNK_SIZE = 32


@dataclass
class FlamingoImageFeatures(BaseModelOutputWithPooling):
    """
    Output of [`FlamingoModel.get_image_features`].

    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(B, N, P, Dv)`, or `(B, N, F, P, Dv)` for video):
            Features of the vision encoder; 0 at padding.
        pooler_output (`torch.FloatTensor` of shape `(B, N, L, Dv)`): The resampled latents; 0 at padding.
        image_attention_mask (`torch.BoolTensor` of shape `(B, N)`): True where there is a real image or video.
        hidden_states, attentions (`tuple`, *optional*): Those of the vision encoder, over all real frames.
        resampler_attentions (`tuple`, *optional*):
            Where the latents looked in each layer of the resampler, at the features and at each other, if asked for:
            `(B, N, heads, L, F * P + L)`. A resampler of type "mlp" has one, the weights of its pooling. 0 at padding.
        patch_grid (`torch.LongTensor` of shape `(B, N, 3)`, *optional*):
            Frames, rows and columns of the patches, which are the last of the `P` tokens of a frame, if asked for and known.
    """

    image_attention_mask: torch.BoolTensor | None = None
    resampler_attentions: tuple[torch.FloatTensor, ...] | None = None
    patch_grid: torch.LongTensor | None = None

    def map_batch(self, fn: Callable[[torch.Tensor], torch.Tensor]) -> "FlamingoImageFeatures":
        """Apply `fn` (e.g. a slice or a repeat) to the batch dimension of the latents, the mask and what is known of them."""
        attentions, grid = self.resampler_attentions, self.patch_grid
        return FlamingoImageFeatures(
            pooler_output=fn(self.pooler_output),
            image_attention_mask=fn(self.image_attention_mask),
            resampler_attentions=None if attentions is None else tuple(fn(weights) for weights in attentions),
            patch_grid=None if grid is None else fn(grid),
        )


def check_encoder_outputs(mm_encoder_outputs: Any) -> None:
    """
    Check that `mm_encoder_outputs` holds images under the one name that is read.

    Raises:
        ValueError: it is not a dict, or has another name, which would be ignored.
    """
    if mm_encoder_outputs is None or (isinstance(mm_encoder_outputs, dict) and mm_encoder_outputs.keys() <= {"image"}):
        return
    if not isinstance(mm_encoder_outputs, dict):
        raise ValueError(
            f"`mm_encoder_outputs` is a {type(mm_encoder_outputs).__name__}. It must be a dict: `{{'image': ...}}`."
        )
    given = sorted(mm_encoder_outputs)
    raise ValueError(
        f"`mm_encoder_outputs` is a dict with {given}, but images and videos are both passed as `image`, and any other "
        "name would be ignored. Rename it."
    )


def expand_frame_mask(
    frame_attention_mask: torch.Tensor | None, shape: tuple[int, int, int], has_frames: bool
) -> torch.BoolTensor | None:
    """
    Expand a mask of images or frames to `(B, N, F)`.

    Args:
        frame_attention_mask (`torch.Tensor` of shape `(B, N)` or `(B, N, F)`, *optional*): 1 at real images or frames.
        shape (`tuple[int, int, int]`): `(B, N, F)`.
        has_frames (`bool`): Whether videos were given, so that frames may be masked.

    Returns:
        `torch.BoolTensor` of shape `(B, N, F)`, or `None` without a mask: all frames are real.

    Raises:
        ValueError: the shape or a value is wrong.
    """
    if frame_attention_mask is None:
        return None
    check_mask("frame_attention_mask", frame_attention_mask, (2, 3))
    mask = frame_attention_mask.bool()
    if mask.ndim == 2 and mask.shape == shape[:2]:
        return mask[:, :, None].expand(shape)
    if has_frames and mask.shape == shape:
        return mask
    expected = f"{tuple(shape[:2])} or {tuple(shape)}" if has_frames else f"{tuple(shape[:2])}"
    raise ValueError(
        f"`frame_attention_mask` has shape {tuple(frame_attention_mask.shape)}, but the images or features given "
        f"with it need {expected}: (B, N), or (B, N, F) for videos."
    )


def as_image_mask(frame_attention_mask: torch.Tensor) -> torch.BoolTensor:
    """Return which images have a real frame, `(B, N)`, of a mask of images `(B, N)` or frames `(B, N, F)`."""
    mask = frame_attention_mask.bool()
    return mask.any(dim=2) if mask.ndim == 3 else mask


def as_frames(
    features: torch.Tensor, frame_attention_mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.BoolTensor | None]:
    """Return features `(B, N, P, Dv)` or `(B, N, F, P, Dv)` as the latter, and the mask of their real frames `(B, N, F)`."""
    has_frames = features.ndim == 5
    features = features if has_frames else features[:, :, None]
    return features, expand_frame_mask(frame_attention_mask, features.shape[:3], has_frames)


def real_images_first(features: FlamingoImageFeatures, is_wanted: torch.BoolTensor) -> FlamingoImageFeatures:
    """Move the wanted images of each sample `(B, N)` to the front, in order, so that marker k is image k despite padding."""
    features = features.map_batch(lambda states: states)  # a copy without what is known of all images together
    device = features.pooler_output.device
    features["image_attention_mask"] = is_wanted.to(device)
    (is_wanted,) = to_host(is_wanted)
    if torch.compiler.is_compiling() or bool((is_wanted[:, 1:] & ~is_wanted[:, :-1]).any()):
        # A stable sort without a sort, which ONNX lacks: the place of each image, and then the image at each place
        wanted = is_wanted.long().cumsum(dim=1)
        others = (~is_wanted).long().cumsum(dim=1)
        place = torch.where(is_wanted, wanted, wanted[:, -1:] + others) - 1
        index = torch.arange(place.shape[1], device=place.device).expand_as(place)
        order = torch.zeros_like(place).scatter(1, place, index)

        order = order.to(device)
        # Not `take_along_dim`, which would give a graph of one batch size and one number of images
        sample = torch.arange(order.shape[0], device=device)[:, None]

        def reorder(states: torch.Tensor) -> torch.Tensor:
            return states[sample, order]

        features = features.map_batch(reorder)
    return features


class FlamingoImageFeaturesMixin:
    """The path of a [`FlamingoModel`] from images to latents: `get_image_features` and what it is made of."""

    @can_return_tuple
    def get_image_features(
        self,
        pixel_values: torch.FloatTensor,
        frame_attention_mask: torch.Tensor | None = None,
        interpolate_pos_encoding: bool | None = None,
        output_cross_attentions: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> FlamingoImageFeatures:
        """
        Encode images and videos.

        The latents of an image depend on that image alone, so they can be kept and passed again:
        `model(..., mm_encoder_outputs={"image": features})`, and likewise to `generate`.

        Args:
            pixel_values (`torch.FloatTensor` of shape `(B, N, C, H, W)`, or `(B, N, F, C, H, W)` with video):
                The pixels.
            frame_attention_mask (`torch.Tensor` of shape `(B, N)` or `(B, N, F)`, *optional*):
                1 where there is a real image or frame, 0 at padding, which is not encoded. By default images of zeros alone
                at the end of a sample are padding, unless all are, and all frames are real.
            interpolate_pos_encoding (`bool`, *optional*):
                Whether the vision encoder interpolates its position embeddings, for images of another size than its own.
            output_cross_attentions (`bool`, *optional*):
                Whether to return where the latents looked, `resampler_attentions` and `patch_grid`. The default is
                `output_attentions`.
            kwargs: Passed to the vision encoder, such as `output_hidden_states`.

        Returns:
            [`FlamingoImageFeatures`]: the latents are its `pooler_output` `(B, N, L, Dv)`.

        Raises:
            ValueError: there is no vision encoder, a shape is wrong, or the encoder cannot interpolate.
        """
        if interpolate_pos_encoding is not None:
            kwargs["interpolate_pos_encoding"] = interpolate_pos_encoding
        features, frame_mask, outputs = self._encode_images(pixel_values, frame_attention_mask, **kwargs)
        output_cross_attentions = self._outputs_cross_attentions(output_cross_attentions, kwargs)
        result = self._resample(features, frame_mask, output_cross_attentions)
        if output_cross_attentions:
            size = pixel_values.shape[-2:]
            result.patch_grid = patch_grids(features, self.config.vision_config, size, outputs["map_size"])
        result.last_hidden_state = features if pixel_values.ndim == 6 else features.squeeze(2)
        result.hidden_states, result.attentions = outputs["hidden_states"], outputs["attentions"]
        return result

    def _encode_images(
        self, pixel_values: torch.FloatTensor, frame_attention_mask: torch.Tensor | None, **kwargs
    ) -> tuple[torch.Tensor, torch.BoolTensor | None, dict[str, Any]]:
        """
        Encode images and videos, without resampling them: see [`~FlamingoModel.get_image_features`].

        Returns:
            The features `(B, N, F, P, Dv)`, the mask of real frames `(B, N, F)` on the CPU, if any, and the outputs of the vision
            encoder.
        """
        if self.vision_model is None:
            raise ValueError(
                "`pixel_values` were given, but this model has no vision encoder (config.vision_config is None). Pass "
                "precomputed features instead: `mm_encoder_outputs={'image': {'last_hidden_state': "
                "features}}` with features of shape (B, N, P, Dv), or (B, N, F, P, Dv) for video."
            )
        check_position_interpolation(self.vision_model, kwargs.get("interpolate_pos_encoding"))
        check_tensors(pixel_values=pixel_values, frame_attention_mask=frame_attention_mask)
        if pixel_values.ndim not in (5, 6):
            raise ValueError(
                f"`pixel_values` has shape {tuple(pixel_values.shape)}. It must be (B, N, C, H, W) for images or "
                "(B, N, F, C, H, W) for videos: samples, images per sample, then each image. FlamingoProcessor makes it."
            )
        if not pixel_values.is_floating_point():
            raise ValueError(
                f"`pixel_values` is of type {pixel_values.dtype}, so the pixels were not rescaled and normalized as the "
                "vision encoder needs them. Pass the images through FlamingoProcessor."
            )
        has_frames = pixel_values.ndim == 6
        if frame_attention_mask is None:
            frame_attention_mask = find_real_images(pixel_values)
        (frame_attention_mask,) = to_host(frame_attention_mask)
        frames = pixel_values if has_frames else pixel_values[:, :, None]  # (B, N, F, C, H, W)
        frame_mask = expand_frame_mask(frame_attention_mask, frames.shape[:3], has_frames)

        flat = frames.flatten(0, 2)  # (B * N * F, C, H, W)
        real = None  # (E,) where some frames are padding: the others
        if frame_mask is not None and not torch.compiler.is_compiling() and not frame_mask.all():
            real = frame_mask.flatten().nonzero().squeeze(-1).to(flat.device)
            flat = flat[real]
        if len(flat) == 0:
            raise ValueError(
                f"`pixel_values` of shape {tuple(pixel_values.shape)} holds no real image: `frame_attention_mask` has no 1, "
                "or there are no images at all. Omit `pixel_values` for text alone."
            )
        check_finite(flat, "pixel_values", "real image or frame")
        outputs = self._encode(flat, **kwargs)
        features = outputs["last_hidden_state"]
        if real is not None:
            padded = features.new_zeros(frame_mask.numel(), *features.shape[1:])
            features = padded.index_put((real,), features)
        return features.unflatten(0, frames.shape[:3]), frame_mask, outputs

    def _encode(self, frames: torch.Tensor, **kwargs) -> dict[str, Any]:
        """
        Run the vision encoder on frames `(E, C, H, W)`.

        Returns:
            Its features `(E, P, Dv)` as `last_hidden_state`, its `hidden_states` and `attentions`, if they are asked for, and
            as `map_size` height and width of the features, if they are a map.
        """
        needs_gradient = torch.is_grad_enabled() and (
            frames.requires_grad or any(p.requires_grad for p in self.vision_model.parameters())
        )
        # Without gradients only the features are kept, so in chunks the memory for the rest does not grow with the frames.
        is_whole = needs_gradient or torch.compiler.is_compiling()
        keeps_states = kwargs.get("output_hidden_states", False)
        if self.config.vision_feature_layer is not None and not keeps_states:
            kwargs["output_hidden_states"] = name_hidden_states(self.vision_model, self.config.vision_feature_layers)
        results: dict[str, list] = {"last_hidden_state": [], "hidden_states": [], "attentions": []}
        with torch.set_grad_enabled(needs_gradient):
            for chunk in [frames] if is_whole else frames.split(ENCODER_CHUNK_SIZE):
                outputs = self.vision_model(pixel_values=chunk.to(self.vision_model.dtype), return_dict=True, **kwargs)
                results["last_hidden_state"].append(
                    select_features(self.vision_model, outputs, self.config, len(chunk), tuple(chunk.shape[-2:]))
                )
                states = outputs.get("hidden_states") if keeps_states else None
                if states is not None:
                    states = tuple(split_packed_images(self.vision_model, state, len(chunk)) for state in states)
                results["hidden_states"].append(states)
                results["attentions"].append(outputs.get("attentions"))
        map_size = find_map_size(self.vision_model, outputs, self.config)

        def joined(parts: list) -> torch.Tensor | tuple[torch.Tensor, ...] | None:
            if len(parts) == 1 or parts[0] is None:
                return parts[0]
            if isinstance(parts[0], tuple):
                return tuple(torch.cat(layer) for layer in zip(*parts, strict=True))
            return torch.cat(parts)

        return {**{name: joined(parts) for name, parts in results.items()}, "map_size": map_size}

    def _outputs_cross_attentions(self, output_cross_attentions: bool | None, kwargs: dict[str, Any]) -> bool:
        """Decide whether cross-attentions are asked for. As in transformers, `output_attentions` asks for all kinds."""
        if output_cross_attentions is None:
            output_cross_attentions = kwargs.get("output_attentions")
        if output_cross_attentions is None:
            output_cross_attentions = self.config.output_attentions
        return bool(output_cross_attentions)

    def _resample(
        self, features: torch.Tensor, frame_mask: torch.BoolTensor | None, output_attentions: bool = False
    ) -> FlamingoImageFeatures:
        """Resample features `(B, N, F, P, Dv)` of real frames `(B, N, F)` to latents. Padding gets 0 and is not computed."""
        shape = features.shape[:2]
        (frame_mask,) = to_host(frame_mask)
        is_image = None if frame_mask is None else frame_mask.any(dim=2)

        def resample(*inputs: torch.Tensor | None) -> tuple[torch.Tensor, ...]:
            if not output_attentions:
                return (self.resampler(*inputs),)
            latents, attentions = self.resampler(*inputs, output_attentions=True)
            return latents, *attentions

        if frame_mask is None or (not torch.compiler.is_compiling() and frame_mask.all()):
            resampled = resample(features.flatten(0, 1))
            is_image = torch.ones(shape, dtype=torch.bool)
        elif torch.compiler.is_compiling():
            # Static shapes: padding is computed too, and then set to 0.
            latents, *attentions = resample(features.flatten(0, 1), frame_mask.flatten(0, 1))
            resampled = (latents * is_image.flatten()[:, None, None], *attentions)
        else:
            index = is_image.flatten().nonzero().squeeze(-1)
            real_frames = frame_mask.flatten(0, 1)[index]
            real_frames = None if real_frames.all() else real_frames.to(features.device)
            index = index.to(features.device)
            resampled = tuple(
                states.new_zeros(is_image.numel(), *states.shape[1:]).index_put((index,), states)
                for states in resample(features.flatten(0, 1)[index], real_frames)
            )
        latents, *attentions = (states.unflatten(0, shape) for states in resampled)
        return FlamingoImageFeatures(
            pooler_output=latents,
            image_attention_mask=is_image.to(features.device),
            resampler_attentions=tuple(attentions) if output_attentions else None,
        )

    def _gather_image_features(
        self,
        pixel_values: torch.FloatTensor | None,
        frame_attention_mask: torch.Tensor | None,
        mm_encoder_outputs: dict[str, Any] | None,
        markers: torch.BoolTensor | None,
        shows: bool,
        **kwargs,
    ) -> tuple[FlamingoImageFeatures | None, torch.BoolTensor | None]:
        """
        Return the latents of the images of a call, encoded from pixels or given, with the real images first.

        Args:
            pixel_values, mm_encoder_outputs: As in `forward`.
            frame_attention_mask (`torch.Tensor`, *optional*): As in `forward`, on the CPU (see [`HostInputs`]).
            markers (`torch.BoolTensor` of shape `(B, T)`, *optional*): The tokens that mark an image. Likewise.
            shows (`bool`): Whether to return where the latents looked, too.
            kwargs: Arguments of [`~FlamingoModel.get_image_features`].

        Returns:
            The latents and, likewise on the CPU, the mask of real images `(B, N)`; `None` twice without images.
        """
        check_encoder_outputs(mm_encoder_outputs)
        image_features = (mm_encoder_outputs or {}).get("image")
        if image_features is not None:
            if pixel_values is not None:
                raise ValueError(
                    "`pixel_values` and `mm_encoder_outputs['image']` are both given, and both are the images. Use one or "
                    "the other."
                )
            image_features = self._as_image_features(image_features, frame_attention_mask, shows)
        elif pixel_values is not None:
            if frame_attention_mask is None and markers is not None:
                (frame_attention_mask,) = to_host(find_real_images(pixel_values, markers.sum(dim=1)))
                if frame_attention_mask is not None and not frame_attention_mask.any():
                    return None, None  # the rows without images of a larger batch
            image_features = self.get_image_features(
                pixel_values, frame_attention_mask, output_cross_attentions=shows, return_dict=True, **kwargs
            )
        if image_features is None:
            return None, None
        is_image = image_features.image_attention_mask
        if frame_attention_mask is not None:
            is_image = as_image_mask(frame_attention_mask)
        (is_image,) = to_host(is_image)
        return real_images_first(image_features, is_image), is_image

    def _as_image_features(
        self,
        image_outputs: ModelOutput | dict,
        frame_attention_mask: torch.Tensor | None,
        output_attentions: bool = False,
    ) -> FlamingoImageFeatures:
        """
        Read `mm_encoder_outputs["image"]`: latents given as `pooler_output` `(B, N, L, Dv)`, or features given as
        `last_hidden_state` `(B, N, P, Dv)` or `(B, N, F, P, Dv)`, which are resampled.
        """
        if not isinstance(image_outputs, dict):
            raise ValueError(
                f"`mm_encoder_outputs['image']` is a {type(image_outputs).__name__}, but it must be what "
                "`get_image_features` returns, or a dict with `pooler_output` (latents, (B, N, L, Dv)) or "
                "`last_hidden_state` (features, (B, N, P, Dv) or (B, N, F, P, Dv))."
            )
        latents, features = image_outputs.get("pooler_output"), image_outputs.get("last_hidden_state")
        given, name = (features, "last_hidden_state") if latents is None else (latents, "pooler_output")
        check_tensors(frame_attention_mask=frame_attention_mask)
        self._check_given(given, name)
        if latents is None:
            result = self._resample(*as_frames(features, frame_attention_mask), output_attentions)
            if output_attentions:
                result.patch_grid = patch_grids(as_frames(features, None)[0], self.config.vision_config)
            return result
        is_image = image_outputs.get("image_attention_mask")
        if frame_attention_mask is not None:
            check_mask("frame_attention_mask", frame_attention_mask, (2, 3))
            is_image = as_image_mask(frame_attention_mask)
        if is_image is None:
            is_image = torch.ones(latents.shape[:2], dtype=torch.bool, device=latents.device)
        if is_image.shape != latents.shape[:2]:
            raise ValueError(
                f"The mask of the images has shape {tuple(is_image.shape)}, but `pooler_output` has "
                f"{tuple(latents.shape)}: they must agree in (B, N)."
            )
        return FlamingoImageFeatures(
            pooler_output=latents,
            image_attention_mask=is_image,
            resampler_attentions=image_outputs.get("resampler_attentions"),
            patch_grid=image_outputs.get("patch_grid"),
        )

    def _check_given(self, given: torch.Tensor | None, name: str) -> None:
        """Check latents (`name` is `pooler_output`) or features (`last_hidden_state`) of `mm_encoder_outputs["image"]`."""
        check_tensors(**{f"mm_encoder_outputs['image']['{name}']": given})
        dims = (4,) if name == "pooler_output" else (4, 5)
        if given is None or given.ndim not in dims or given.shape[-1] != self.config.vision_hidden_size:
            raise ValueError(
                f"`mm_encoder_outputs['image']` has `{name}` of shape "
                f"{None if given is None else tuple(given.shape)}. It needs `pooler_output` (latents) of shape "
                "(B, N, L, Dv), or `last_hidden_state` (features) of shape (B, N, P, Dv) or (B, N, F, P, Dv), with "
                f"Dv = {self.config.vision_hidden_size}."
            )
        if not given.is_floating_point():
            raise ValueError(
                f"`mm_encoder_outputs['image']['{name}']` is of type {given.dtype}, but features are floats: they were not "
                "made by a vision encoder, or were converted since."
            )
        check_finite(given, name, "sample")
