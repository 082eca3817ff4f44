# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
The Flamingo model: what it is made of, and its forward pass.

How an image reaches a token. The vision encoder and the resampler turn each image into `L` latents that depend on that
image alone. Some decoder layers of the stock, unmodified language model are preceded by a gated block, in which token `t`
attends to the latents of one image: the last one marked at or before it. A stateless forward pre-hook on the decoder layer
applies the block to the `FlamingoContext` that `forward` passes down through the language model as a keyword. The modules
hold no per-call state.

| concern                                        | file                        |
|------------------------------------------------|-----------------------------|
| resampler, attention, gated block              | `layers_flamingo.py`        |
| which image a token sees                       | `visibility_flamingo.py`    |
| pixels or features to latents                  | `image_features_flamingo.py`|
| which vision encoders fit, and their features  | `vision_encoders_flamingo.py`|
| what all images have in common, taken away     | `feature_standardization_flamingo.py`|
| how a stock language model gets the images     | `conditioning_flamingo.py`  |
| the cache of the last image                    | `media_cache_flamingo.py`   |
| `generate()`                                   | `generation_flamingo.py`    |
| what it looked at                              | `attention_maps_flamingo.py`|
| the loss at supervised positions               | `loss_flamingo.py`          |
| the head of a classifier or reward model       | `sequence_classification_flamingo.py`|
| arguments and outputs of a forward pass        | `outputs_flamingo.py`       |
| what `freeze_backbones()` leaves trainable     | `token_rows_flamingo.py`    |
| training beside a quantized language model     | `quantization_flamingo.py`  |
| padding among the images, without a mask       | `padding_flamingo.py`       |
| joining, loading and saving                    | `pretrained_flamingo.py`    |

Shapes, in this file and everywhere: `B` batch, `N` images or videos per sample, `F` frames, `C, H, W` pixels, `P` patches,
`L` latents, `T` text length, `D` text width, `Dv` vision width, `V` vocabulary.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel
from transformers import (
    initialization as init,
)
from transformers.cache_utils import Cache
from transformers.masking_utils import create_causal_mask
from transformers.processing_utils import Unpack
from transformers.utils import ModelOutput, TransformersKwargs, can_return_tuple
from transformers.utils.deprecation import deprecate_kwarg
from transformers.utils.generic import is_flash_attention_requested

from .attention_maps_flamingo import SEEN, add_seen
from .checks_flamingo import (
    check_mask,
    check_mask_shape,
    check_padding_side,
    check_tensors,
    check_text,
    check_text_length,
    is_padding_mask,
)
from .compatibility_flamingo import require_private_names
from .conditioning_flamingo import CONTEXT_KEYWORD, build_context, register_block_hooks, use_context
from .configuration_flamingo import FlamingoConfig
from .feature_standardization_flamingo import (
    FlamingoFeatureStandardization,
    FlamingoFeatureStandardizationMixin,
    prepare_for_loading,
)
from .generation_flamingo import FlamingoGenerationMixin
from .host_inputs_flamingo import HostInputs, to_host
from .image_features_flamingo import FlamingoImageFeatures, FlamingoImageFeaturesMixin
from .language_models_flamingo import (
    build_language_model,
    check_language_model,
    counts_padding,
    find_first_position,
    find_max_text_length,
    infer_position_ids,
    replace_decoder,
)
from .layers_flamingo import FlamingoGatedCrossAttentionBlock, FlamingoPerceiverResampler
from .loss_flamingo import FlamingoLossMixin
from .mpt_flamingo import add_mpt_qk_norm, check_mpt_qk_norm
from .outputs_flamingo import FlamingoInputs, FlamingoOutput
from .pretrained_flamingo import FlamingoPretrainedMixin
from .sequence_classification_flamingo import FlamingoSequenceClassificationMixin
from .token_rows_flamingo import FlamingoFreezingMixin, TokenRows
from .visibility_flamingo import (
    build_flash_kwargs,
    check_image_counts,
    check_media_index,
    compute_media_index,
    find_documents,
    find_markers,
)
from .vision_encoders_flamingo import build_vision_model, check_vision_model


# The private names of transformers that this file overrides. CONTRIBUTING.md says what each is for.
require_private_names(PreTrainedModel, _can_compile_fullgraph=None, _init_weights=("module",))


@dataclass(frozen=True)
class FlamingoBody:
    """
    A Flamingo without a head: its `base_model`.

    It is called as [`FlamingoModel`] is, except for `labels` and `logits_to_keep`, and returns the language model's
    `last_hidden_state` `(B, T, D)`, from which a head makes logits, and `image_hidden_states`. Trainers that fuse head and loss
    call it (TRL's `SFTTrainer`). They read the head's weight themselves, so after `freeze_backbones()` the output rows of the
    new tokens get no gradient there.

    Args:
        model (`FlamingoPreTrainedModel`):
            The whole model. The body has no modules of its own, so parameters keep their names.
    """

    model: "FlamingoPreTrainedModel"
    _tp_plan = _pp_plan = None

    @deprecate_kwarg("past_key_values", "5.40.0", new_name="cache")
    @can_return_tuple
    def __call__(self, input_ids: torch.LongTensor | None = None, **kwargs) -> ModelOutput:
        """Run the language model's body on text and images."""
        names = {f.name for f in fields(FlamingoInputs)} & kwargs.keys()
        inputs = FlamingoInputs(input_ids=input_ids, **{name: kwargs.pop(name) for name in names})
        outputs, image_features = self.model._forward_backbone(self.model.language_model.base_model, inputs, **kwargs)
        states = outputs.last_hidden_state
        if self.model.training and image_features is None and torch.is_grad_enabled():
            outputs["last_hidden_state"] = self.model._with_zero_gradients(None, states)[1]
        if image_features is not None:
            outputs["image_hidden_states"] = image_features.pooler_output
        return outputs

    @property
    def get_image_features(self) -> Callable[..., FlamingoImageFeatures]:
        """Return the model's method itself: `generate()` looks for it here and reads its signature."""
        return self.model.get_image_features


class FlamingoPreTrainedModel(
    FlamingoFreezingMixin,
    FlamingoFeatureStandardizationMixin,
    FlamingoImageFeaturesMixin,
    FlamingoLossMixin,
    FlamingoPretrainedMixin,
    PreTrainedModel,
):
    """
    Join the parts of a Flamingo and run its body: the base of [`FlamingoModel`] and [`FlamingoForSequenceClassification`].

    The backbones are stock transformers models: their parameters keep their own names under `vision_model.` and
    `language_model.`. The new parts are `resampler` and `gated_cross_attention`, one block for each decoder layer in
    `config.cross_attention_layer_indices`.

    Args:
        config ([`FlamingoConfig`]): The configuration.
        vision_model (`PreTrainedModel`, *optional*): An existing vision encoder. By default it is built from `config`.
        language_model (`PreTrainedModel`, *optional*): An existing causal language model. By default it is built, too.

    Attributes:
        max_text_length (`int`, *optional*):
            Number of tokens that the language model has positions for; `None` if it computes positions without a limit.
        accepts_position_ids (`bool`): Whether the language model accepts `position_ids`.

    Raises:
        ValueError: a backbone does not fit, or the vocabulary of the language model lacks the special tokens.
    """

    config_class = FlamingoConfig
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _no_split_modules = ["FlamingoGatedCrossAttentionBlock", "FlamingoPerceiverResampler"]
    _skip_keys_device_placement = ["cache", CONTEXT_KEYWORD]
    # The language model ties its own head. It is empty instead of None, because only then PEFT looks for tied modules in the submodules.
    _tied_weights_keys = {}
    _supports_sdpa = True
    # The mean of the features may be a hundred times what differs between images, and bfloat16 has eight bits.
    _keep_in_fp32_modules_strict = ["standardization"]
    # Flash and flex attention are not declared, so they are refused for the gated blocks: neither was tried. A backbone may
    # have its own: `attn_implementation={"text_config": "flash_attention_2", "": "sdpa"}`.

    def __init__(
        self,
        config: FlamingoConfig,
        vision_model: PreTrainedModel | None = None,
        language_model: PreTrainedModel | None = None,
    ):
        super().__init__(config)
        vocab_size = config.text_config.vocab_size
        for name in ("image_token_id", "end_of_chunk_token_id"):
            if getattr(config, name) >= vocab_size:
                raise ValueError(
                    f"`{name}` is {getattr(config, name)}, but the language model's vocabulary has {vocab_size} rows. "
                    "Resize its embeddings first (`resize_token_embeddings`), or use "
                    "`FlamingoModel.from_vision_text_pretrained`, which does it."
                )
        if vision_model is None and config.vision_config is not None:
            vision_model = build_vision_model(config.vision_config)
        check_vision_model(vision_model, config)
        if language_model is None:
            language_model = build_language_model(config.text_config)
            add_mpt_qk_norm(language_model)

        self.vision_model = vision_model
        self.language_model = language_model
        self.resampler = FlamingoPerceiverResampler(config)
        self.gated_cross_attention = nn.ModuleList(
            FlamingoGatedCrossAttentionBlock(config) for _ in config.cross_attention_layer_indices
        )
        self.input_token_rows: TokenRows | None = None
        self.output_token_rows: TokenRows | None = None

        check_mpt_qk_norm(language_model)
        check_language_model(language_model)
        self.max_text_length = find_max_text_length(language_model)
        parameters = inspect.signature(type(language_model).forward).parameters
        register_block_hooks(language_model)
        self.accepts_position_ids = "position_ids" in parameters
        self._first_position = find_first_position(language_model)
        self._counts_padding = counts_padding(language_model, self.max_text_length)
        self._accepts_kwargs = any(p.kind is p.VAR_KEYWORD for p in parameters.values())

        self._can_compile_fullgraph = language_model._can_compile_fullgraph
        self._checkpoints_reentrantly = False
        self.register_load_state_dict_pre_hook(prepare_for_loading)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """
        Initialize the new parts. The backbones initialize themselves.

        | parameter                          | value                                                                  |
        |------------------------------------|------------------------------------------------------------------------|
        | `attn_gate`, `ffn_gate`            | 0, so that the language model starts unchanged (paper, section 2.2)    |
        | with `zero_init="projections"`     | gates 1, and instead `attention.o_proj` and `mlp.fc2` 0                |
        | weights of linear maps             | uniform in +-1/sqrt(fan in), the default of `nn.Linear`                |
        | layer norms                        | weight 1, bias 0                                                       |
        | `latents`                          | normal, 0.3: larger ones hide the images, smaller ones become alike    |
        | `frame_embeddings`                 | normal, 0.02: small next to features, as a single image gets one too   |
        """
        opens = self.config.cross_attention_zero_init == "projections"
        if isinstance(module, nn.Linear):
            if opens and getattr(module, "ends_branch", False):
                init.zeros_(module.weight)
            else:
                init.kaiming_uniform_(module.weight, a=5**0.5)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, FlamingoPerceiverResampler):
            if module.latents is not None:
                init.normal_(module.latents, std=0.3)
            if module.frame_embeddings is not None:
                init.normal_(module.frame_embeddings, std=0.02)
        elif isinstance(module, FlamingoFeatureStandardization):
            if module.mean is not None:
                init.zeros_(module.mean)
                init.ones_(module.scale)
        elif isinstance(module, FlamingoGatedCrossAttentionBlock):
            for gate in (module.attn_gate, module.ffn_gate):
                if gate is not None:
                    init.constant_(gate, float(opens))

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Compute activations anew in backward: see [`~PreTrainedModel.activation_checkpointing_enable`]."""
        given = activation_checkpointing_kwargs
        # transformers passes `use_reentrant=False` without arguments, and torch takes it as True if it is not among them.
        self._checkpoints_reentrantly = given is not None and given.get("use_reentrant") is not False
        super().activation_checkpointing_enable(activation_checkpointing_kwargs, **kwargs)

    def enable_input_require_grads(self) -> None:
        """
        Make the output of the embeddings require a gradient, where checkpointing needs it: only if it is reentrant.

        transformers and peft always ask for it. A gradient would then run through the frozen layers below the first gated block
        for nothing, and `torch.compile` would break the graph at each embedding.
        """
        self.disable_input_require_grads()  # of an earlier call, whose hooks would stay
        if self._checkpoints_reentrantly or not self.is_activation_checkpointing:
            super().enable_input_require_grads()

    @property
    def base_model(self) -> FlamingoBody:
        """Return the model without the head, by the name that every transformers model has for it."""
        return FlamingoBody(self)

    # Embeddings and decoder are those of the language model.

    def get_input_embeddings(self) -> nn.Module:
        """Return the input embedding of the language model."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the input embedding of the language model."""
        self.language_model.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Return the head of the language model."""
        return self.language_model.get_output_embeddings()

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Replace the head of the language model."""
        self.language_model.set_output_embeddings(new_embeddings)

    def get_decoder(self) -> nn.Module:
        """Return the decoder of the language model."""
        return self.language_model.get_decoder()

    def set_decoder(self, decoder: nn.Module) -> None:
        """Replace the decoder of the language model, and condition the new one on images."""
        replace_decoder(self.language_model, decoder)
        register_block_hooks(self.language_model)

    @property
    def _has_full_attention(self) -> bool:
        """Tell whether one mask is right for all layers of the language model."""
        config = self.language_model.config
        layer_types = getattr(config, "layer_types", None) or ["full_attention"]
        return getattr(config, "sliding_window", None) is None and set(layer_types) == {"full_attention"}

    def _forward_backbone(
        self, language_model: nn.Module, inputs: FlamingoInputs, host: HostInputs | None = None, **kwargs
    ) -> tuple[ModelOutput, FlamingoImageFeatures | None]:
        """
        Run the language model, or its body without the head, on text and images.

        Args:
            language_model (`nn.Module`): The language model or its body.
            inputs ([`FlamingoInputs`]): Text and images.
            host ([`HostInputs`], *optional*): Their copies on the CPU, if they are made already.
            kwargs: Passed to the language model.

        Returns:
            Its outputs, and the latents of the images of this call, if any.
        """
        input_ids, inputs_embeds, position_ids = inputs.input_ids, inputs.inputs_embeds, inputs.position_ids
        attention_mask, cache = inputs.attention_mask, inputs.cache
        check_tensors(attention_mask=attention_mask, position_ids=position_ids, media_index=inputs.media_index)
        host = HostInputs.of(inputs) if host is None else host
        shape = check_text(host.input_ids, inputs_embeds, self.config.text_config.vocab_size)
        self._check_mask_and_length(shape, host.attention_mask, host.position_ids, cache)
        if not torch.compiler.is_compiling():
            self.refresh_token_rows()

        media_index, markers = host.media_index, None
        if media_index is None:
            markers = self.find_markers(host.input_ids, inputs_embeds, host.attention_mask)
            if shape[1] > 1:
                (markers,) = to_host(markers)  # those of embeddings
        shows = self._outputs_cross_attentions(inputs.output_cross_attentions, kwargs)
        image_features, is_image = self._gather_image_features(
            inputs.pixel_values,
            host.frame_attention_mask,
            inputs.mm_encoder_outputs,
            markers,
            shows,
            interpolate_pos_encoding=inputs.interpolate_pos_encoding,
        )
        documents = None
        if attention_mask is None and cache is None:
            documents = find_documents(host.position_ids, shape, inputs.use_cache)
        if markers is not None:
            # Markers in `image_token_ids` are ordinary text as long as there is no image.
            if is_image is not None or self.config.image_token_ids is None:
                check_image_counts(markers, is_image)
            media_index = compute_media_index(markers, documents)
        elif image_features is not None or cache is None:  # not at each new token, where it would wait for the GPU
            check_media_index(media_index, shape, is_image)

        use_cache = inputs.use_cache
        if use_cache is None:
            default = self.config.use_cache and getattr(self.config.text_config, "use_cache", True)
            use_cache = documents is None and default
        if self.training and self.is_activation_checkpointing:
            use_cache = False
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config.text_config)

        context = build_context(
            blocks=dict(zip(self.config.cross_attention_layer_indices, self.gated_cross_attention, strict=True)),
            latents=None if image_features is None else image_features.pooler_output,
            media_index=media_index,
            attention_mask=host.attention_mask,
            cache=cache,
            num_text_layers=self.config.text_config.num_hidden_layers,
        )
        context.attentions = {} if shows else None
        if self.accepts_position_ids:
            kwargs["position_ids"] = infer_position_ids(
                position_ids, attention_mask, media_index.shape[1], self._first_position
            )
        is_flash = self._accepts_kwargs and is_flash_attention_requested(self.language_model.config)
        if documents is not None and is_flash:
            kwargs |= build_flash_kwargs(documents, self.get_input_embeddings().weight.device)
        elif documents is not None and self._has_full_attention:
            # Several language models (OPT, MPT, Falcon) make their mask without looking at the positions.
            like = self.get_input_embeddings().weight.new_empty(*shape, 0, dtype=self.dtype)
            attention_mask = create_causal_mask(
                self.language_model.config, like, attention_mask=None, cache=None, position_ids=position_ids
            )
        if self._accepts_kwargs:
            kwargs[CONTEXT_KEYWORD] = context
        with use_context(context):
            outputs = language_model(
                input_ids=input_ids,
                inputs_embeds=inputs_embeds,
                attention_mask=attention_mask,
                cache=cache,
                use_cache=use_cache,
                return_dict=True,
                **kwargs,
            )
        if not context.applied:
            raise RuntimeError(
                f"{type(self.language_model).__name__} did not pass the images down to its decoder layers, so it would "
                "silently ignore them. If this model is compiled, do not compile it: this language model drops "
                "keywords. If its decoder or layers were replaced, use `set_decoder`."
            )
        if shows:
            seen_index = media_index.to(outputs[0].device)
            add_seen(outputs, context.attentions, image_features, seen_index, self.config)
        return outputs, image_features

    def _check_mask_and_length(
        self,
        shape: torch.Size,
        attention_mask: torch.Tensor | None,
        position_ids: torch.LongTensor | None,
        cache: Cache | None,
    ) -> None:
        """Check the mask of a text of `shape` `(B, T)`, and that the language model has positions for the text."""
        # Not at each step of a generation, whose mask was checked with the prompt: on a GPU it would launch kernels
        if shape[1] > 1 or (isinstance(attention_mask, torch.Tensor) and attention_mask.device.type == "cpu"):
            check_mask("attention_mask", attention_mask, (2, 4))
        if torch.compiler.is_compiling():
            return
        num_past_tokens = 0 if cache is None else cache.get_seq_length()
        if not isinstance(num_past_tokens, int):
            return  # that of a static cache is on the device, and `generate()` has checked
        if is_padding_mask(attention_mask):
            check_mask_shape(attention_mask.shape, shape, num_past_tokens)
            if self._counts_padding and num_past_tokens == 0:
                check_padding_side(attention_mask, type(self.language_model).__name__)
        check_text_length(self.max_text_length, shape, num_past_tokens, attention_mask, position_ids)

    def find_markers(
        self,
        input_ids: torch.LongTensor | None,
        inputs_embeds: torch.Tensor | None,
        attention_mask: torch.Tensor | None,
    ) -> torch.BoolTensor:
        """Find the tokens that mark an image, padding aside: `(B, T)`."""
        marker_ids = self.config.image_token_ids or [self.config.image_token_id]
        return find_markers(input_ids, inputs_embeds, attention_mask, marker_ids, self.get_input_embeddings())


class FlamingoModel(FlamingoGenerationMixin, FlamingoPreTrainedModel):
    """
    Flamingo: a vision encoder and a causal language model joined by a Perceiver resampler and gated cross-attention
    (Alayrac et al. 2022). The language-model head is included, and `generate()` is the stock one.

    Arguments, attributes and errors are those of [`FlamingoPreTrainedModel`].
    """

    def __init__(
        self,
        config: FlamingoConfig,
        vision_model: PreTrainedModel | None = None,
        language_model: PreTrainedModel | None = None,
    ):
        super().__init__(config, vision_model, language_model)
        # transformers derives it from the class name otherwise, and "FlamingoModel" does not name a loss.
        self.loss_type = "ForCausalLM"
        self._set_default_generation_config()
        self.post_init()

    # `past_key_values` is the name that transformers itself had until 5.24, and accepts until 5.40.
    @deprecate_kwarg("past_key_values", "5.40.0", new_name="cache")
    @can_return_tuple
    def forward(
        self,
        input_ids: torch.LongTensor | None = None,
        attention_mask: torch.Tensor | None = None,
        pixel_values: torch.FloatTensor | None = None,
        frame_attention_mask: torch.Tensor | None = None,
        labels: torch.LongTensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        position_ids: torch.LongTensor | None = None,
        mm_encoder_outputs: dict[str, Any] | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        media_index: torch.LongTensor | None = None,
        skip_logits: bool | None = None,
        interpolate_pos_encoding: bool | None = None,
        output_cross_attentions: bool | None = None,
        **kwargs: Unpack[TransformersKwargs],
    ) -> FlamingoOutput:
        """
        Run the language model on text and images.

        Args:
            input_ids (`torch.LongTensor` of shape `(B, T)`, *optional*):
                The text, with one `<image>` for each image or video of the sample, in their order.
            attention_mask (`torch.Tensor` of shape `(B, T)`, or with a cache `(B, past + T)`, *optional*):
                1 at text, 0 at padding. With padding on the left, positions are counted from the first real token,
                as `generate()` does.
            pixel_values (`torch.FloatTensor` of shape `(B, N, C, H, W)` or `(B, N, F, C, H, W)`, *optional*):
                Images, or videos. With a cache, only those marked in the new text.
            frame_attention_mask (`torch.Tensor` of shape `(B, N)` or `(B, N, F)`, *optional*):
                1 where there is a real image or frame. By default images of zeros alone that follow those that a sample
                marks are padding, as [`FlamingoProcessor`] pads, and all frames are real. A compiled model needs the mask.
            labels (`torch.LongTensor` of shape `(B, T)`, *optional*):
                Ids to predict. They are shifted inside, and -100 is not supervised. In training mode logits are made at
                supervised positions only, a few at a time, and are not returned: see `skip_logits`.
            cache (`Cache`, *optional*):
                The cache that an earlier call returned. It holds the text so far and the last image.
            inputs_embeds (`torch.FloatTensor` of shape `(B, T, D)`, *optional*):
                Embeddings instead of `input_ids`. `<image>` is recognized by its embedding.
            position_ids (`torch.LongTensor` of shape `(B, T)`, *optional*):
                Positions in the text. Where they restart, without `attention_mask` and cache, another document begins, which
                sees neither text nor images of the one before it. Each padding token has position 0.
                `training.check_packing` tells whether the language model keeps documents apart.
            mm_encoder_outputs (`dict`, *optional*):
                `{"image": ...}` instead of `pixel_values`: the output of [`~FlamingoModel.get_image_features`], or a
                dict with `pooler_output`, the latents `(B, N, L, Dv)`, or with `last_hidden_state`, precomputed features
                `(B, N, P, Dv)` or `(B, N, F, P, Dv)`.
            use_cache (`bool`, *optional*): Whether to return a cache.
            logits_to_keep (`int` or `torch.Tensor`, *optional*, defaults to 0):
                Number of last positions to compute logits at (0: all), or a tensor of positions.
            media_index (`torch.LongTensor` of shape `(B, T)`, *optional*):
                The image of this call that each token sees, from 1. With 0, a token sees the image in the cache, or none. A
                later token sees the image of the last token, and `generate()` takes the argument for the prompt. By default
                it is derived from the `<image>` tokens and the documents in `position_ids`, and the number of `<image>`
                tokens is checked against the number of images.
            skip_logits (`bool`, *optional*):
                Whether to return the loss without logits. The default is True in training mode if there are `labels` (and no
                `logits_to_keep`).
            interpolate_pos_encoding (`bool`, *optional*):
                As in [`~FlamingoModel.get_image_features`], for images of another size than that of the vision encoder.
            output_cross_attentions (`bool`, *optional*):
                Whether to return where the tokens and the latents looked, from which [`attention_maps`] makes maps of the images.
                The default is `output_attentions`, which also asks the language model for its attentions.

        Returns:
            [`FlamingoOutput`]

        Raises:
            ValueError: the number of markers differs from the number of images, `media_index` names an image that is
                not there, a shape is wrong, no token is supervised, or packed documents are to be cached.
        """
        inputs = FlamingoInputs(
            input_ids=input_ids,
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
        )
        loss, logits, outputs, image_features = self._forward_with_loss(
            inputs, labels, logits_to_keep, skip_logits, **kwargs
        )
        return FlamingoOutput(
            loss=loss,
            logits=logits,
            cache=outputs.cache,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
            image_hidden_states=None if image_features is None else image_features.pooler_output,
            **{name: outputs.get(name) for name in SEEN},
        )


class FlamingoForSequenceClassification(FlamingoSequenceClassificationMixin, FlamingoPreTrainedModel):
    """
    A Flamingo that gives scores to a text with its images: a classifier, a regression, or a reward model with one label.

    See [`FlamingoSequenceClassificationMixin`]. Arguments, attributes and errors are those of [`FlamingoPreTrainedModel`].
    """


FlamingoModel.register_for_auto_class("AutoModelForImageTextToText")
FlamingoForSequenceClassification.register_for_auto_class("AutoModelForSequenceClassification")

__all__ = ["FlamingoForSequenceClassification", "FlamingoModel"]
