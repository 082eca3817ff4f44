# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Standardization of vision features and latents: take away what all images have in common.

The features of different images share a large part: the same mean at each position and channel. The layer norm of the
resampler keeps it, and what differs between images is small next to it. With few images, a small encoder, or a domain that
the encoder was not made for (emoji, X-rays, screenshots), a new model then learns to use the text alone. So the features
are standardized by statistics of the training images before they are resampled:

    features = (features - mean) / scale

`mean` belongs to a position and a channel, `scale` to a channel. Both are estimated once, before the first training step, by
[`~FlamingoModel.calibrate_features`], and saved with the resampler. Where nothing was estimated, as in converted
checkpoints, features stay as they are.

The same happens behind a resampler that has learned latents. What it returns for a latent begins as that latent, the same for all
images, and a new model would learn from that part first (`docs/real-pictures-log.md`). So each latent loses its mean over the
training images, as it is before the first step, too.

Shapes: `B` batch, `N` images or videos per sample, `F` frames, `P` patches, `G` positions of the statistics, `L` latents, `Dv`
vision width.
"""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn
from transformers.utils import logging

from .configuration_flamingo import FlamingoConfig
from .image_features_flamingo import as_frames


logger = logging.get_logger(__name__)

# A channel that is (almost) the same in all images would be scaled up to nothing but noise, so the scale of a channel is at
# least this share of the scale of all channels together.
MIN_RELATIVE_SCALE = 0.01
# Images by which latents are standardized: their features are kept until those of the features are known.
MAX_IMAGES_FOR_LATENTS = 128
STATISTICS = ("mean", "scale", "latent_mean", "latent_scale")


class CalibrationError(ValueError):
    """Images from which no statistics can be estimated."""


class FlamingoFeatureStandardization(nn.Module):
    """
    Subtract the mean of the training images from features and from latents, and divide by their scale.

    Args:
        config ([`FlamingoConfig`]): `resampler_feature_positions` is `G`; 0 stands for none. `resampler_standardizes_latents`
            says whether there are statistics of latents.

    Attributes:
        mean (`torch.FloatTensor` of shape `(G, Dv)`, *optional*): Mean over the images. `None` leaves features as they are.
        scale (`torch.FloatTensor` of shape `(Dv,)`, *optional*): Standard deviation over images and positions, around `mean`.
        latent_mean (`torch.FloatTensor` of shape `(L, Dv)`, *optional*): Likewise of the latents that the resampler returns.
        latent_scale (`torch.FloatTensor` of shape `(Dv,)`, *optional*): Their standard deviation, around `latent_mean`.
    """

    def __init__(self, config: FlamingoConfig):
        super().__init__()
        for name in STATISTICS:
            self.register_buffer(name, None)
        if config.resampler_feature_positions > 0:
            self.allocate("mean", torch.Size([config.resampler_feature_positions, config.vision_hidden_size]))
        if config.resampler_standardizes_latents:
            self.allocate("latent_mean", torch.Size([config.resampler_num_latents, config.vision_hidden_size]))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Standardize features `(M, F, P, Dv)`, in float32 at least: the common part may be a hundred times the rest."""
        if self.mean is None:
            return features
        mean = resize_positions(self.mean.float(), features.shape[-2])
        return (features.float() - mean) / self.scale.float()

    def standardize_latents(self, latents: torch.Tensor) -> torch.Tensor:
        """Standardize latents `(M, L, Dv)`, in float32 at least."""
        if self.latent_mean is None:
            return latents
        return ((latents.float() - self.latent_mean.float()) / self.latent_scale.float()).to(latents.dtype)

    def allocate(self, name: str, shape: torch.Size, device: torch.device | str | None = None) -> None:
        """Make room for a mean, `"mean"` or `"latent_mean"`, of the given shape, and for its scale."""
        setattr(self, name, torch.empty(shape, dtype=torch.float32, device=device))
        setattr(self, name.replace("mean", "scale"), torch.empty(shape[-1], dtype=torch.float32, device=device))


def prepare_for_loading(model: nn.Module, state_dict: dict[str, torch.Tensor], prefix: str, *args: Any) -> None:
    """
    Let a model take the statistics in a state dict, which may have been calibrated when this model was not.

    A hook of `load_state_dict`. PEFT saves the resampler's tensors without the names of its wrapper, and puts these names
    back only for tensors that the model has. Without this, the statistics of an adapter would be dropped without a word.
    """
    for path, module in model.named_modules():
        if not isinstance(module, FlamingoFeatureStandardization):
            continue
        bare_path = re.sub(r"\b(original_module|modules_to_save\.[^.]+)\.", "", path)
        for name in STATISTICS:
            if f"{prefix}{bare_path}.{name}" in state_dict:
                state_dict.setdefault(f"{prefix}{path}.{name}", state_dict[f"{prefix}{bare_path}.{name}"])
        for name in ("mean", "latent_mean"):
            mean, saved = getattr(module, name), state_dict.get(f"{prefix}{path}.{name}")
            if saved is not None and (mean is None or mean.shape != saved.shape):
                module.allocate(name, saved.shape, saved.device if mean is None else mean.device)


def resize_positions(mean: torch.Tensor, num_positions: int) -> torch.Tensor:
    """
    Resize a mean `(G, Dv)` to the number of patches of other images: `(P, Dv)` or `(1, Dv)`.

    Between square grids it is interpolated, as vision encoders do with their position embeddings. Otherwise, all positions
    get the mean over them.
    """
    if len(mean) in (1, num_positions):
        return mean
    old, new = math.isqrt(len(mean)), math.isqrt(num_positions)
    if old**2 != len(mean) or new**2 != num_positions:
        return mean.mean(dim=0, keepdim=True)
    grid = mean.T.unflatten(1, (old, old))[None]
    return nn.functional.interpolate(grid, size=(new, new), mode="bilinear").flatten(2)[0].T


def _check_is_batch(batch: Any) -> None:
    """Refuse what is not a batch of the model: it would be skipped as one without images."""
    wanted = "but `calibrate_features` reads batches as `forward` takes them: dictionaries with `pixel_values` or `mm_encoder_outputs`"
    if not isinstance(batch, Mapping):
        raise ValueError(f"`batches` has a {type(batch).__name__}, {wanted}. Pass a `DataLoader` with a collator.")
    if not batch.keys() & {"input_ids", "pixel_values", "mm_encoder_outputs"}:
        raise ValueError(
            f"`batches` has rows with {', '.join(map(repr, batch)) or 'no values'}, {wanted}. Pass a `DataLoader` of these rows whose "
            "`collate_fn` is a `FlamingoDataCollator`, or a `DataMixture`'s `loader()`."
        )


class FeatureStatistics:
    """
    Mean and scale of features, added up in float64.

    Attributes:
        num_images (`int`): Number of images and frames so far.
    """

    def __init__(self):
        self.num_images = 0
        # By number of positions: images of other sizes have other grids
        self._counts: dict[int, int] = {}
        self._sums: dict[int, torch.Tensor] = {}
        self._squares: dict[int, torch.Tensor] = {}

    def add(self, features: torch.Tensor) -> None:
        """Count the features `(E, P, Dv)` of images."""
        num_positions = features.shape[1]
        features = features.double() if features.device.type != "mps" else features.float()  # which has no float64
        total, squares = features.sum(dim=0), features.square().sum(dim=0)
        if num_positions in self._sums:
            total, squares = total + self._sums[num_positions], squares + self._squares[num_positions]
        self._sums[num_positions], self._squares[num_positions] = total, squares
        self._counts[num_positions] = self._counts.get(num_positions, 0) + len(features)
        self.num_images += len(features)

    def compute(self) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Compute `mean` `(G, Dv)` and `scale` `(Dv,)`. If images have different numbers of positions, `G` is 1.

        Raises:
            CalibrationError: there are fewer than two images, or all have the same features.
        """
        if self.num_images < 2:
            raise CalibrationError(
                f"Features were to be standardized by {self.num_images} images. What images have in common shows only "
                "if there are several: give more of the training images."
            )
        if len(self._sums) == 1:
            ((num_positions, total),) = self._sums.items()
            count = self._counts[num_positions]
            squares = self._squares[num_positions]
        else:
            count = sum(self._counts[p] * p for p in self._sums)
            total = sum(t.sum(dim=0, keepdim=True) for t in self._sums.values())
            squares = sum(t.sum(dim=0, keepdim=True) for t in self._squares.values())
        mean = total / count
        scale = (squares / count - mean.square()).clamp(min=0).mean(dim=0).sqrt()
        overall = scale.square().mean().sqrt()
        # Rounding of the sums alone may give a little more than 0
        if not overall > 1e-6 * mean.square().mean().sqrt():
            raise CalibrationError(
                f"Features were to be standardized by {self.num_images} images, but all of them have the same features, so "
                "no model could tell them apart. Check that the images differ and that the vision encoder has its weights."
            )
        return mean.float(), scale.clamp(min=MIN_RELATIVE_SCALE * overall).float()


class FlamingoFeatureStandardizationMixin:
    """The standardization of a [`FlamingoModel`]: `calibrate_features` and what it needs."""

    @torch.no_grad()
    def calibrate_features(
        self,
        batches: Iterable[Mapping[str, Any]] | torch.Tensor,
        max_images: int = 2048,
        standardize_latents: bool = True,
    ) -> int:
        """
        Estimate the statistics that vision features are standardized by, from training images, and those of the latents that
        the resampler makes of the first 128 images.

        Call it once, before the training of a new model. [`FlamingoTrainer`] does it itself. The statistics are buffers of
        the resampler, are saved with it, and stay as they are.

        ```python
        loader = DataLoader(dataset, batch_size=32, shuffle=True, collate_fn=collator)
        model.calibrate_features(loader)
        ```

        Args:
            batches (iterable of `dict`, or `torch.Tensor` of shape `(B, N, C, H, W)` or `(B, N, F, C, H, W)`):
                Batches as `forward` takes them, such as those of a `DataLoader`, or the pixels of one. Of each batch,
                `pixel_values` or `mm_encoder_outputs` and `frame_attention_mask` are read. Batches without images are
                skipped.
            max_images (`int`, *optional*, defaults to 2048):
                Number of images and frames after which the rest is not read. It should be a random sample of the images.
            standardize_latents (`bool`, *optional*, defaults to `True`):
                Whether latents are standardized too, where the resampler has learned ones.

        Returns:
            `int`: The number of images and frames that were used.

        Raises:
            CalibrationError: there are fewer than two images, or all have the same features.
            ValueError: a batch is none, or has latents instead of features.
        """
        if isinstance(batches, torch.Tensor):
            batches = [{"pixel_values": batches}]
        elif isinstance(batches, Mapping):
            batches = [batches]
        if not self.ignores_images():
            logger.warning(
                "The features of a model are being calibrated that already uses its images. Its resampler was trained on "
                "features as they were, so it will see others. Call `calibrate_features` before the training."
            )
        statistics, kept, num_kept = FeatureStatistics(), [], 0
        for batch in batches:
            _check_is_batch(batch)
            features = self._select_real_features(batch)
            if features is not None:
                statistics.add(features)
                kept.append(features[: MAX_IMAGES_FOR_LATENTS - num_kept])
                num_kept += len(kept[-1])
            if statistics.num_images >= max_images:
                break
        mean, scale = statistics.compute()
        before = self.feature_statistics
        self.set_feature_statistics({"mean": mean, "scale": scale})
        if standardize_latents and self.resampler.latents is not None:
            try:
                self._standardize_latents_of(kept)
            except CalibrationError:
                self.set_feature_statistics(before)
                raise
        return statistics.num_images

    def _standardize_latents_of(self, images: list[torch.Tensor]) -> None:
        """Add the statistics of the latents of images or frames, given as features `(E, P, Dv)`, to those of the features."""
        statistics = FeatureStatistics()
        for features in images:
            if len(features):
                statistics.add(self.resampler(features[:, None]))  # (E, P, Dv) -> (E, L, Dv)
        mean, scale = statistics.compute()
        self.set_feature_statistics({**self.feature_statistics, "latent_mean": mean, "latent_scale": scale})

    def ignores_images(self) -> bool:
        """Return whether no image can change what the model computes: a gate or last projection of each branch is 0."""
        return not any(
            block.attention.o_proj.weight.any() and (block.attn_gate is None or bool(block.attn_gate.any()))
            for block in self.gated_cross_attention
        )

    def _select_real_features(self, batch: Mapping[str, Any]) -> torch.Tensor | None:
        """Return the features `(E, P, Dv)` of the real images and frames of a batch, or `None` if there are none."""
        device, mask = self.resampler.norm.weight.device, batch.get("frame_attention_mask")
        mask = None if mask is None else mask.to(device)
        given = (batch.get("mm_encoder_outputs") or {}).get("image")
        if batch.get("pixel_values") is not None:
            if mask is not None and not mask.any():
                return None
            interpolates = batch.get("interpolate_pos_encoding")
            kwargs = {} if interpolates is None else {"interpolate_pos_encoding": interpolates}
            features, mask, _ = self._encode_images(batch["pixel_values"].to(device), mask, **kwargs)
        elif given is not None:
            features = given.get("last_hidden_state")
            if features is None:
                raise ValueError(
                    "`mm_encoder_outputs['image']` has no `last_hidden_state`. The features themselves are standardized, so "
                    "latents (`pooler_output`) are not enough."
                )
            self._check_given(features, "last_hidden_state")
            features, mask = as_frames(features.to(device), mask)
        else:
            return None
        return features.flatten(0, 2) if mask is None else features[mask]

    @property
    def feature_statistics(self) -> dict[str, torch.FloatTensor | None]:
        """
        Return what vision features and latents are standardized by: `mean` `(G, Dv)` and `scale` `(Dv,)` of features,
        `latent_mean` `(L, Dv)` and `latent_scale` `(Dv,)` of latents, `None` where there is none.
        """
        *_, module = self._standardizations()  # of PEFT's two copies, the one that is used
        return {name: getattr(module, name) for name in STATISTICS}

    def set_feature_statistics(self, statistics: Mapping[str, torch.Tensor | None]) -> None:
        """
        Set the statistics that vision features and latents are standardized by, or leave them as they are.

        Args:
            statistics (`Mapping[str, torch.Tensor]`): As in `feature_statistics`. What is missing or `None` is not standardized.
        """
        device = self.resampler.norm.weight.device
        for module in self._standardizations():
            for name in STATISTICS:
                value = statistics.get(name)
                setattr(module, name, None if value is None else value.to(device, copy=True))
        self.update_feature_config()

    def _standardizations(self) -> list[FlamingoFeatureStandardization]:
        """Return the module, and that of the copy of the resampler that PEFT trains, if any."""
        return [m for m in self.resampler.modules() if isinstance(m, FlamingoFeatureStandardization)]

    def update_feature_config(self) -> None:
        """Write which statistics there are to the config, which a file of the model is loaded by."""
        statistics = self.feature_statistics
        self.config.resampler_feature_positions = 0 if statistics["mean"] is None else len(statistics["mean"])
        self.config.resampler_standardizes_latents = statistics["latent_mean"] is not None
