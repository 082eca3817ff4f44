# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
The hooks of the stock `generate()`, as a mixin.

Images are encoded once, before the prompt is expanded for beams, and a prompt is computed once for all its beams. Each step
then attends to the one image in the cache, and finds the values of the gates there, too: nothing is to be fused before inference.

Shapes: `B` batch, `T` text length.
"""

from typing import Any

import torch
from transformers import DynamicCache, GenerationConfig, GenerationMixin
from transformers.cache_utils import Cache, DynamicLayer, DynamicSlidingWindowLayer
from transformers.utils import ModelOutput, logging
from transformers.utils.deprecation import deprecate_kwarg

from .attention_maps_flamingo import current_record, record_generation
from .checks_flamingo import check_mask_shape, check_text, check_text_length, is_padding_mask
from .client_errors_flamingo import blames_the_client
from .compatibility_flamingo import require_private_names
from .image_features_flamingo import FlamingoImageFeatures, check_encoder_outputs, real_images_first
from .media_cache_flamingo import MediaCacheLayer
from .padding_flamingo import find_real_images
from .visibility_flamingo import check_image_counts, check_media_index, compute_media_index


logger = logging.get_logger(__name__)

# The private names of transformers that this file overrides or reads. CONTRIBUTING.md says what each is for.
require_private_names(
    GenerationMixin,
    _prefill=("input_ids", "generation_config", "model_kwargs", "is_first_iteration"),
    _maybe_prepare_encoder_kwargs_for_generation=(
        "inputs_tensor",
        "model_kwargs",
        "model_input_name",
        "generation_config",
    ),
    _expand_multimodal_outputs=("input_ids", "mm_encoder_output", "expand_size", "inputs_embeds"),
    _update_model_kwargs_for_generation=("outputs", "model_kwargs", "is_encoder_decoder", "num_new_tokens"),
)
require_private_names(GenerationConfig, _mask_length=None)


def _is_of_prompts(cache: DynamicCache, num_prompts: int) -> bool:
    """Return whether a cache is empty or has one row for each prompt, and can be repeated for the beams of each."""
    known = (DynamicLayer, DynamicSlidingWindowLayer, MediaCacheLayer)
    text_layers = [layer for layer in cache.layers if not isinstance(layer, MediaCacheLayer)]
    if not all(type(layer) in known for layer in cache.layers):
        return False
    return all(len(layer.keys) == num_prompts for layer in text_layers if layer.get_seq_length() > 0)


class FlamingoGenerationMixin(GenerationMixin):
    """Stock generation, with images: `generate()` of a [`FlamingoModel`]."""

    @blames_the_client
    def generate(self, *args, tokenizer: Any = None, **kwargs) -> ModelOutput | torch.LongTensor:
        """
        Generate as `GenerationMixin.generate` does.

        `tokenizer`, which `stop_strings` needs, may be the processor: `transformers serve` passes that.

        With `output_attentions=True` or `output_cross_attentions=True`, and `return_dict_in_generate=True`, the output also has
        what [`attention_maps`] needs: for each new token the `cross_attentions` of each block, and `resampler_attentions`,
        `patch_grid` and `media_index` of the prompt.
        """
        if tokenizer is not None:
            kwargs["tokenizer"] = getattr(tokenizer, "tokenizer", tokenizer)
        with record_generation() as record:
            outputs = super().generate(*args, **kwargs)
        record.add_to(outputs)
        return outputs

    def generate_batch(self, inputs: list[list[int]], *args, **kwargs):
        """
        Continue texts as `GenerationMixin.generate_batch` does, by continuous batching.

        Raises:
            ValueError: a text marks an image. Continuous batching takes tokens alone.
        """
        marks = set(self.config.image_token_ids or [self.config.image_token_id])
        # Markers in `image_token_ids` are ordinary text as long as there is no image.
        marked = (
            [] if self.config.image_token_ids else [i for i, text in enumerate(inputs) if marks.intersection(text)]
        )
        if marked:
            raise ValueError(
                f"The texts {marked[:8]} have `<image>` markers, but continuous batching takes tokens alone, so there is no "
                "image to see. Call `generate()` for texts with images; it takes a padded batch of them."
            )
        return super().generate_batch(inputs, *args, **kwargs)

    def _set_default_generation_config(self) -> None:
        """
        Stop at `<|endofchunk|>` and wherever the language model stops, and never generate an `<image>` token.

        Instruct models name their end-of-turn tokens in the generation config only. Its other settings, such as sampling,
        were chosen for chats and are not copied.
        """
        config, text = self.generation_config, self.language_model.generation_config or GenerationConfig()
        text_config = self.config.text_config

        def token_ids(name: str) -> list[int]:
            given = [getattr(source, name, None) for source in (text, text_config)]
            return [i for ids in given if ids is not None for i in ([ids] if isinstance(ids, int) else ids)]

        config.bos_token_id = next(iter(token_ids("bos_token_id")), None)
        pad = self.config.pad_token_id
        config.pad_token_id = next(iter(token_ids("pad_token_id")), self.config.end_of_chunk_token_id)
        config.pad_token_id = config.pad_token_id if pad is None else pad
        config.eos_token_id = list(dict.fromkeys([self.config.end_of_chunk_token_id, *token_ids("eos_token_id")]))
        for name in ("begin_suppress_tokens", "bad_words_ids", "suppress_tokens"):
            setattr(config, name, getattr(text, name, None))
        if self.config.image_token_ids is None:  # markers in `image_token_ids` are ordinary text, and may be generated
            config.suppress_tokens = [*(config.suppress_tokens or ()), self.config.image_token_id]

    def _maybe_prepare_encoder_kwargs_for_generation(
        self,
        inputs_tensor: torch.Tensor,
        model_kwargs: dict[str, Any],
        model_input_name: str | None,
        generation_config,
    ) -> dict[str, Any]:
        """Check the prompt, and encode each image once for the whole of `generate()`."""
        markers, num_cached_tokens = self._check_prompt(
            inputs_tensor, model_kwargs, model_input_name, generation_config
        )
        frame_attention_mask = model_kwargs.get("frame_attention_mask")
        pixel_values = model_kwargs.get("pixel_values")
        if frame_attention_mask is None and pixel_values is not None and model_kwargs.get("media_index") is None:
            num_markers = markers[:, num_cached_tokens:].sum(dim=1)
            frame_attention_mask = find_real_images(pixel_values, num_markers)
            if frame_attention_mask is not None:
                model_kwargs["frame_attention_mask"] = frame_attention_mask
                pixel_values = pixel_values if frame_attention_mask.any() else None
        if pixel_values is None:
            model_kwargs.pop("pixel_values", None)  # its presence means images to the stock method
        check_encoder_outputs(model_kwargs.get("mm_encoder_outputs"))
        asked = model_kwargs.get("output_cross_attentions")
        shows = self._outputs_cross_attentions(asked, model_kwargs)
        if asked and not generation_config.return_dict_in_generate:
            logger.warning(
                "`output_cross_attentions=True` has no effect, because generate() returns nothing but tokens. Pass "
                "`return_dict_in_generate=True`, too."
            )
        shows = shows and bool(generation_config.return_dict_in_generate)
        model_kwargs["output_cross_attentions"] = shows
        # A copy: the stock method writes into the caller's dict.
        model_kwargs["mm_encoder_outputs"] = dict(model_kwargs.get("mm_encoder_outputs") or {})
        model_kwargs = super()._maybe_prepare_encoder_kwargs_for_generation(
            inputs_tensor, model_kwargs, model_input_name, generation_config
        )
        image_features = model_kwargs["mm_encoder_outputs"].get("image")
        if image_features is not None:
            by_marker = model_input_name == "input_ids" and model_kwargs.get("media_index") is None
            if generation_config.prefill_chunk_size is not None and not by_marker:
                raise ValueError(
                    "`prefill_chunk_size` was given with images and with `inputs_embeds` or `media_index`. A part of the text "
                    "gets the images that it marks, so it needs `input_ids` with markers. Remove `prefill_chunk_size`."
                )
            image_features = self._as_image_features(image_features, frame_attention_mask, shows)
        # Not passed on as an argument: the assistant of assisted decoding gets those too, and may be another model
        model_kwargs.pop("output_cross_attentions", None)
        current_record().shows = shows

        if num_cached_tokens > 0:
            image_features = self._drop_cached_images(image_features, markers, num_cached_tokens)
            markers = markers[:, num_cached_tokens:]
        is_image = None if image_features is None else image_features.image_attention_mask
        if model_kwargs.get("media_index") is not None:
            check_media_index(model_kwargs["media_index"], markers.shape, is_image)
        # Markers in `image_token_ids` are ordinary text as long as there is no image.
        elif is_image is not None or self.config.image_token_ids is None:
            check_image_counts(markers, is_image)
        model_kwargs["mm_encoder_outputs"] = {} if image_features is None else {"image": image_features}
        current_record().num_prompt_tokens = markers.shape[1]
        return model_kwargs

    def _check_prompt(
        self,
        inputs_tensor: torch.Tensor,
        model_kwargs: dict[str, Any],
        model_input_name: str | None,
        generation_config: GenerationConfig,
    ) -> tuple[torch.BoolTensor, int]:
        """
        Check the text of a prompt, and limit what is generated to the positions of the language model.

        Returns:
            True at the `<image>` tokens `(B, T)`, and how many tokens at the start of the prompt the cache holds.
        """
        input_ids, inputs_embeds = inputs_tensor, None
        if model_input_name == "inputs_embeds":
            input_ids, inputs_embeds = None, inputs_tensor
        shape = check_text(input_ids, inputs_embeds, self.config.text_config.vocab_size)
        cache, attention_mask = model_kwargs.get("cache"), model_kwargs.get("attention_mask")
        num_past_tokens = 0 if cache is None else int(cache.get_seq_length())
        if num_past_tokens > 0 and model_kwargs.get("media_index") is not None:
            raise ValueError(
                "`media_index` counts the images of one call, so it cannot be combined with a `cache` that holds text. Pass "
                "the whole prompt without a cache, or call `forward`."
            )
        # The text may be the whole conversation or only its new part. The mask tells, as in `_prefill`. A mask of ones was
        # dropped by `generate()`, which keeps its length.
        mask_length = generation_config._mask_length if attention_mask is None else attention_mask.shape[1]
        is_whole = num_past_tokens > 0 and (inputs_embeds is not None or mask_length == shape[1])
        length = shape[1] if is_whole else num_past_tokens + shape[1]
        if is_whole and length <= num_past_tokens:
            raise ValueError(
                f"The cache holds {num_past_tokens} tokens and the text has {length}, so nothing in it is new. Pass the whole "
                "conversation, or the new text alone with an `attention_mask` that covers both."
            )
        if attention_mask is None or is_padding_mask(attention_mask):
            check_mask_shape((shape[0], mask_length), shape, length - shape[1])
        check_text_length(self.max_text_length, (shape[0], length), 0, attention_mask)
        self._limit_new_tokens(generation_config, length, attention_mask)
        return self.find_markers(input_ids, inputs_embeds, attention_mask), num_past_tokens if is_whole else 0

    def _limit_new_tokens(
        self, generation_config: GenerationConfig, length: int, attention_mask: torch.Tensor | None
    ) -> None:
        """Stop `generate()` where the positions of the language model end, after a text of `length` tokens."""
        if self.max_text_length is None:
            return
        max_length = generation_config.max_length
        # The library's default, 20, is a number of new tokens.
        has_default = generation_config.max_new_tokens is None and max_length in (None, 20)
        new_tokens = 20 if has_default else generation_config.max_new_tokens
        new_tokens = max_length - length if new_tokens is None else new_tokens
        # The last token is not fed to the model, so it needs no position.
        if length + new_tokens - 1 <= self.max_text_length:
            return
        if is_padding_mask(attention_mask):
            length = int(attention_mask.sum(dim=1).max())
        room = self.max_text_length - length + 1
        if new_tokens > room:
            logger.warning(
                f"The text has {length} tokens and {new_tokens} more were asked for, but the language model has positions "
                f"for {self.max_text_length}: at most {room} are generated."
            )
            generation_config.max_new_tokens, generation_config.max_length = room, None

    @staticmethod
    def _drop_cached_images(
        image_features: FlamingoImageFeatures | None, markers: torch.BoolTensor, num_past_tokens: int
    ) -> FlamingoImageFeatures | None:
        """Drop the images whose markers the cache already holds, if all images of the conversation are given."""
        if image_features is None:
            return None
        is_image = image_features.image_attention_mask.to(markers.device)
        if len(is_image) != len(markers) or not torch.equal(is_image.sum(dim=1), markers.sum(dim=1)):
            return image_features
        num_cached = markers[:, :num_past_tokens].sum(dim=1, keepdim=True)
        is_new = is_image & (is_image.cumsum(dim=1) > num_cached)
        if not is_new.any():
            return None
        return real_images_first(image_features, is_new.to(image_features.pooler_output.device))

    def _prefill(
        self,
        input_ids: torch.LongTensor,
        generation_config,
        model_kwargs: dict[str, Any],
        is_first_iteration: bool = True,
    ) -> ModelOutput:
        """
        Compute the prompt as the stock method does, but once for all its beams or sequences, and repeat the cache.

        So all beams of a prompt share its image in the cache. A cache that holds text may have a row for each prompt, or be
        repeated already, as the stock method needs it.
        """
        cache = model_kwargs.get("cache")
        in_chunks = cache is not None and generation_config.prefill_chunk_size is not None
        if in_chunks and is_first_iteration and model_kwargs.get("mm_encoder_outputs"):
            return self._prefill_in_chunks(input_ids, generation_config, model_kwargs)
        repeats = max(generation_config.num_beams, generation_config.num_return_sequences)
        position_ids = model_kwargs.get("position_ids")
        if (
            repeats == 1
            or not is_first_iteration
            or type(cache) is not DynamicCache
            or not _is_of_prompts(cache, len(input_ids) // repeats)
            or generation_config.prefill_chunk_size is not None
            or (position_ids is not None and position_ids.ndim != 2)
        ):
            return super()._prefill(input_ids, generation_config, model_kwargs, is_first_iteration)
        once = {
            name: value[::repeats] if isinstance(value, torch.Tensor) and len(value) == len(input_ids) else value
            for name, value in model_kwargs.items()
        }
        once["mm_encoder_outputs"] = {
            name: features.map_batch(lambda states: states[::repeats])
            for name, features in model_kwargs["mm_encoder_outputs"].items()
        }
        outputs = super()._prefill(input_ids[::repeats], generation_config, once, is_first_iteration)
        cache.batch_repeat_interleave(repeats)
        for name, value in outputs.items():
            if isinstance(value, torch.Tensor):
                outputs[name] = value.repeat_interleave(repeats, dim=0)
            elif isinstance(value, tuple):
                outputs[name] = tuple(states.repeat_interleave(repeats, dim=0) for states in value)
        return outputs

    def _update_model_kwargs_for_generation(
        self,
        outputs: ModelOutput,
        model_kwargs: dict[str, Any],
        is_encoder_decoder: bool = False,
        num_new_tokens: int = 1,
    ) -> dict[str, Any]:
        """Update the arguments of the next step as the stock method does, and record what this step looked at."""
        current_record().append(outputs, num_new_tokens)
        return super()._update_model_kwargs_for_generation(outputs, model_kwargs, is_encoder_decoder, num_new_tokens)

    def _prefill_in_chunks(
        self, input_ids: torch.LongTensor, generation_config: GenerationConfig, model_kwargs: dict[str, Any]
    ) -> ModelOutput:
        """
        Compute a prompt with images in parts of `prefill_chunk_size` tokens. A part gets the images that it marks.

        Until its first marker, it sees the image in the cache. The stock method would give it rows of features.
        """
        cache, attention_mask = model_kwargs["cache"], model_kwargs.get("attention_mask")
        num_past_tokens = int(cache.get_seq_length())
        mask_length = generation_config._mask_length if attention_mask is None else attention_mask.shape[1]
        if mask_length == input_ids.shape[1]:  # the whole conversation, see `_check_prompt`
            input_ids = input_ids[:, num_past_tokens:]
        markers = self.find_markers(input_ids, None, attention_mask)
        features = model_kwargs["mm_encoder_outputs"]["image"]
        is_image = features.image_attention_mask
        number = is_image.cumsum(dim=1)  # (B, N), from 1
        marked = torch.zeros_like(number[:, :1])  # (B, 1): the images that were marked before
        size = generation_config.prefill_chunk_size
        for start in range(0, input_ids.shape[1], size):
            end = min(start + size, input_ids.shape[1])
            before, marked = marked, marked + markers[:, start:end].sum(dim=1, keepdim=True).to(marked.device)
            is_new = is_image & (before < number) & (number <= marked)
            parts = {**model_kwargs, "mm_encoder_outputs": {}}
            if is_new.any():
                parts["mm_encoder_outputs"] = {"image": real_images_first(features, is_new)}
            if attention_mask is not None:
                parts["attention_mask"] = attention_mask[:, : num_past_tokens + end]
            if parts.get("position_ids") is not None:
                parts["position_ids"] = parts["position_ids"][..., num_past_tokens + start : num_past_tokens + end]
            model_inputs = self.prepare_inputs_for_generation(
                input_ids[:, start:end], is_first_iteration=True, **parts
            )
            outputs = self(**model_inputs, return_dict=True)
        if outputs.get("cross_attentions"):
            # Among all images of the prompt, which the tokens of the last part saw in the cache
            features = real_images_first(features, is_image)
            outputs["media_index"] = outputs["media_index"] + before.to(outputs["media_index"].device)
            outputs["resampler_attentions"], outputs["patch_grid"] = features.resampler_attentions, features.patch_grid
        return outputs

    def _expand_multimodal_outputs(
        self,
        input_ids: torch.LongTensor,
        mm_encoder_output: dict,
        expand_size: int = 1,
        inputs_embeds: torch.FloatTensor | None = None,
    ) -> dict[str, FlamingoImageFeatures]:
        """Repeat the latents for each beam. The stock method takes one placeholder token for one row of features."""
        return {
            name: features.map_batch(lambda states: states.repeat_interleave(expand_size, dim=0))
            for name, features in mm_encoder_output.items()
        }

    @deprecate_kwarg("past_key_values", "5.40.0", new_name="cache")
    def prepare_inputs_for_generation(
        self,
        input_ids: torch.LongTensor,
        next_sequence_length: int | None = None,
        cache: Cache | None = None,
        attention_mask: torch.LongTensor | None = None,
        inputs_embeds: torch.FloatTensor | None = None,
        is_first_iteration: bool | None = False,
        media_index: torch.LongTensor | None = None,
        **kwargs,
    ) -> dict[str, Any]:
        """Prepare the inputs of one step as the stock method does, and add which image each new token sees."""
        model_inputs = super().prepare_inputs_for_generation(
            input_ids,
            next_sequence_length=next_sequence_length,
            cache=cache,
            attention_mask=attention_mask,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **kwargs,
        )
        # The prompt is checked before the first step. Later a marker may be a candidate of assisted decoding that will be
        # rejected, or one that the user asked for: it has no image of its own and keeps the one before it.
        new_ids, new_embeds = model_inputs.get("input_ids"), model_inputs.get("inputs_embeds")
        text = new_embeds if new_ids is None else new_ids
        image_features = (model_inputs.get("mm_encoder_outputs") or {}).get("image")
        if image_features is None:
            media_index = torch.zeros(text.shape[:2], dtype=torch.long, device=text.device)
        elif media_index is None:
            markers = self.find_markers(new_ids, new_embeds, attention_mask)
            num_images = image_features.image_attention_mask.sum(dim=1, keepdim=True).to(markers.device)
            media_index = compute_media_index(markers).minimum(num_images)
        else:
            # Generated tokens see what the last token of the prompt sees.
            num_new_tokens = max(text.shape[1] - media_index.shape[1], 0)
            media_index = torch.cat([media_index, media_index[:, -1:].expand(-1, num_new_tokens)], dim=1)
        model_inputs["media_index"] = media_index
        if current_record().shows is not None:
            model_inputs["output_cross_attentions"] = current_record().shows
        # PEFT's prompt learning puts a method of its own in front of this one for as long as it generates
        is_prompt_learning = "prepare_inputs_for_generation" in vars(self)
        return self._prepare_prompt_learning(model_inputs) if is_prompt_learning else model_inputs

    @staticmethod
    def _prepare_prompt_learning(model_inputs: dict[str, Any]) -> dict[str, Any]:
        """
        Prepare inputs of a step for PEFT's prompt learning, which puts its virtual tokens before the text of the first step.

        It looks for the cache under the name of older releases, and without one would add its tokens at every step. Where
        the whole text is computed, which image each token sees is left to `forward`, which gets the tokens too.
        """
        cache = model_inputs.pop("cache", None)
        if cache is not None:
            model_inputs["past_key_values"] = cache
        if cache is None or cache.get_seq_length() == 0:
            model_inputs.pop("media_index")
        return model_inputs
