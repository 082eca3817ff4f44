# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Scores of a text with its images: the head of [`FlamingoForSequenceClassification`], as a mixin.

It is that of transformers (`GenericForSequenceClassification`): a linear map `score` from the hidden state of the last real
token. That token saw the whole text, and of the images the last one; the images before it reach it through the text, as they
do where a text is generated.

Shapes: `B` batch, `N` images or videos per sample, `L` latents, `T` text length, `D` text width, `Dv` vision width.

The file travels with a checkpoint as remote code: it stays flat and imports only its siblings.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache
from transformers.modeling_outputs import SequenceClassifierOutputWithPast
from transformers.processing_utils import Unpack
from transformers.utils import TransformersKwargs, can_return_tuple
from transformers.utils.deprecation import deprecate_kwarg

from .attention_maps_flamingo import SEEN
from .checks_flamingo import check_tensors, is_padding_mask


@dataclass
class FlamingoSequenceClassifierOutput(SequenceClassifierOutputWithPast):
    """
    Output of [`FlamingoForSequenceClassification`]. The fields that are not described here are those of [`FlamingoOutput`].

    Args:
        loss (`torch.FloatTensor`, *optional*): The loss of `config.problem_type`, if `labels` were given.
        logits (`torch.FloatTensor` of shape `(B, num_labels)`): The scores.
    """

    image_hidden_states: torch.FloatTensor | None = None
    cross_attentions: tuple[torch.FloatTensor] | None = None
    resampler_attentions: tuple[torch.FloatTensor] | None = None
    patch_grid: torch.LongTensor | None = None
    media_index: torch.LongTensor | None = None


def find_last_tokens(
    shape: tuple[int, int],
    input_ids: torch.LongTensor | None,
    attention_mask: torch.Tensor | None,
    pad_token_id: int | None,
) -> torch.LongTensor:
    """
    Find the last token of each sample that is not padding, with padding on either side.

    The mask tells it. Without one, padding is what has the id of the padding token, as in transformers.

    Args:
        shape (`tuple[int, int]`): `(B, T)`.
        input_ids (`torch.LongTensor` of shape `(B, T)`, *optional*): The text, if it is not given as embeddings.
        attention_mask (`torch.Tensor` of shape `(B, past + T)`, *optional*): 1 at text, 0 at padding.
        pad_token_id (`int`, *optional*): The id of the padding token.

    Returns:
        `torch.LongTensor` of shape `(B,)`.

    Raises:
        ValueError: nothing tells the padding of several samples, or a sample is padding alone (seen on the CPU).
    """
    if is_padding_mask(attention_mask):
        is_text = attention_mask[:, -shape[1] :].bool()
    elif input_ids is not None and pad_token_id is not None:
        is_text = input_ids != pad_token_id
    elif shape[0] == 1 or input_ids is None:
        device = None if input_ids is None else input_ids.device
        return torch.full((shape[0],), shape[1] - 1, device=device)  # embeddings without a mask have no padding
    else:
        raise ValueError(
            f"The batch has {shape[0]} samples and neither an `attention_mask` nor a padding token, so nothing tells the last token "
            "of each, from which the scores are computed. Pass the `attention_mask` of the processor, or set `config.pad_token_id`."
        )
    if not torch.compiler.is_compiling() and is_text.device.type == "cpu" and not is_text.any(dim=1).all():
        sample = int((~is_text.any(dim=1)).nonzero()[0])
        raise ValueError(
            f"Sample {sample} of {shape[0]} (counted from 0) has no token that is not padding, so it has no scores. Remove it, or start "
            "its text with a token, such as the tokenizer's `bos_token`."
        )
    positions = torch.arange(shape[1], device=is_text.device)
    return (positions * is_text).argmax(dim=1)


def check_class_labels(labels: torch.Tensor, num_samples: int, config: PreTrainedConfig) -> torch.Tensor:
    """
    Check that labels are those of `config.problem_type`. The losses of torch would broadcast others to a wrong number.

    Args:
        labels (`torch.Tensor`): The labels.
        num_samples (`int`): `B`.
        config ([`FlamingoConfig`]): Its `problem_type` is chosen as in transformers, if it is `None`.

    Returns:
        The labels, as floats where the loss needs floats.

    Raises:
        ValueError: the shape, the type or a value is another.
    """
    check_tensors(labels=labels)
    num_labels, problem = config.num_labels, config.problem_type
    if problem is None and num_labels == 1:
        problem = "regression"
    elif problem is None:
        problem = "multi_label_classification" if labels.is_floating_point() else "single_label_classification"
    is_single = problem == "single_label_classification"
    shapes = {(num_samples, num_labels)}
    if is_single or (problem == "regression" and num_labels == 1):
        shapes = {(num_samples,), (num_samples, 1)}
    if tuple(labels.shape) not in shapes or (is_single and labels.is_floating_point()):
        wanted = "whole numbers" if is_single else "numbers"
        raise ValueError(
            f"`labels` is of type {labels.dtype} and shape {tuple(labels.shape)}, but {problem} with {num_labels} labels needs {wanted} "
            f"of shape {' or '.join(map(str, sorted(shapes)))}. Fix the labels, `config.problem_type` (regression, "
            "single_label_classification or multi_label_classification) or `config.num_labels`."
        )
    if is_single:
        labels = labels.long()
        outside = ((labels < 0) | (labels >= num_labels)) & (labels != -100)
        if outside.any() or (labels == -100).all():
            raise ValueError(
                f"`labels` are {labels.flatten().tolist()}, but classes are 0 to {num_labels - 1}, or -100 where none is known, and one at "
                "least must be known. Fix the labels or `config.num_labels`."
            )
        return labels
    labels = labels if labels.is_floating_point() else labels.float()
    if not labels.isfinite().all():
        raise ValueError(
            f"`labels` are {labels.tolist()}. Labels that are NaN or infinite make such a loss: fix them."
        )
    return labels


class FlamingoSequenceClassificationMixin:
    """
    The head of [`FlamingoForSequenceClassification`]: `score` `(num_labels, D)`, which has no bias, as in transformers.

    Parameters of a [`FlamingoModel`] keep their names, so its checkpoint is loaded as it is and `score` is new:
    `AutoModelForSequenceClassification.from_pretrained(directory, num_labels=1)`. The head of the language model stays in the
    model and is not used. Where it is a matrix of its own, it is not trained.

    `freeze_backbones()` leaves `score`, the resampler, the gated blocks and the rows of the new tokens in the input embedding
    trainable.
    """

    # The loss is a mean over the samples of a batch, which `Trainer` has to average over accumulated batches.
    accepts_loss_kwargs = False
    uses_lm_head = False

    def __init__(self, config: PreTrainedConfig, *args, **kwargs):
        super().__init__(config, *args, **kwargs)
        self.num_labels = config.num_labels
        # OPT-350m ends with a projection to the width of its embeddings
        width = getattr(config.text_config, "word_embed_proj_dim", None) or config.text_config.hidden_size
        self.score = nn.Linear(width, config.num_labels, bias=False)
        self._freeze_lm_head()
        self.post_init()

    @classmethod
    def from_pretrained(cls, *args, **kwargs):
        """Load a model as [`FlamingoModel.from_pretrained`] does, from its own checkpoint or from that of a [`FlamingoModel`]."""
        loaded = super().from_pretrained(*args, **kwargs)
        # Loaded weights are new parameters
        (loaded[0] if isinstance(loaded, tuple) else loaded)._freeze_lm_head()
        return loaded

    def unfreeze_backbones(self, *args, **kwargs) -> None:
        """Make the backbones trainable again, as [`~FlamingoModel.unfreeze_backbones`] does, but not the unused head."""
        super().unfreeze_backbones(*args, **kwargs)
        self._freeze_lm_head()

    def _freeze_lm_head(self) -> None:
        """Freeze the head of the language model, unless it is the input embedding: processes would wait for its gradient."""
        head = self.get_output_embeddings()
        if head.weight is not self.get_input_embeddings().weight:
            head.requires_grad_(False)

    @deprecate_kwarg("past_key_values", "5.40.0", new_name="cache")
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        frame_attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        use_cache: bool | None = None,
        media_index: torch.LongTensor | None = None,
        interpolate_pos_encoding: bool | None = None,
        output_cross_attentions: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> FlamingoSequenceClassifierOutput:
        """
        Score texts with their images.

        Args:
            labels (`torch.Tensor`, *optional*):
                By `config.problem_type`: with `"single_label_classification"` the class of each sample `(B,)`, with
                `"multi_label_classification"` 1 or 0 for each label `(B, num_labels)`, with `"regression"` values `(B,)` or
                `(B, num_labels)`. By default the first call with labels decides: one label is a regression, whole numbers are
                classes, and floats are several labels at a time.
            kwargs: The other arguments are those of [`FlamingoModel.forward`].

        Returns:
            [`FlamingoSequenceClassifierOutput`]

        Raises:
            ValueError: as in [`FlamingoModel.forward`], or the last token of a sample is not known, or the labels do not fit.
        """
        outputs = self.base_model(
            input_ids,
            attention_mask=attention_mask,
            pixel_values=pixel_values,
            frame_attention_mask=frame_attention_mask,
            cache=cache,
            inputs_embeds=inputs_embeds,
            position_ids=position_ids,
            mm_encoder_outputs=mm_encoder_outputs,
            use_cache=use_cache,
            media_index=media_index,
            interpolate_pos_encoding=interpolate_pos_encoding,
            output_cross_attentions=output_cross_attentions,
            **kwargs,
        )
        states = outputs.last_hidden_state  # (B, T, D)
        pad_token_id = self.config.pad_token_id
        if pad_token_id is None:
            pad_token_id = self.config.text_config.pad_token_id
        last = find_last_tokens(states.shape[:2], input_ids, attention_mask, pad_token_id).to(states.device)
        logits = self.score(states[torch.arange(len(states), device=states.device), last])
        loss = None
        if labels is not None:
            labels = check_class_labels(labels, len(states), self.config)
            loss = self.loss_function(logits=logits, labels=labels, pooled_logits=logits, config=self.config)
        return FlamingoSequenceClassifierOutput(
            loss=loss,
            logits=logits,
            cache=outputs.cache,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            **{name: outputs.get(name) for name in ("image_hidden_states", *SEEN)},
        )
