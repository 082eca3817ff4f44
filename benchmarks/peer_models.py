# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
The models that `peers.py` compares: this package's, and one adapter for each peer with a method for each case.

OpenFlamingo and flamingo-mini compute the function of this package: theirs are built with random weights and gates at 0.5,
and their state dicts go through this package's converters. Neither runs on current transformers unchanged. Each fix is made
from outside and marked by a comment ("fixes: ..."), and none of them costs the peer time. Cases that cannot be fixed in a
few lines are omitted. flamingo-mini's `generate()` needs caches of old releases, so it decodes in a plain loop over its
`forward`, without the overhead of `generate()`, and has no beam search.

IDEFICS and Mllama are stock models of transformers with another architecture, so only their shapes can be those of ours:

- IDEFICS has the same encoder, latents, widths, heads and number of gated blocks, and as many weights in matrices, to the
  last one. It differs in RMSNorm for LayerNorm in blocks and gated linear units of 3 matrices for 2 wider ones.
- Mllama has the decoder layers and the gated blocks of IDEFICS, after instead of before each layer, and an encoder of the same
  depth and width. It has no resampler, so each image gives the blocks its 49 patches and class token instead of 64 latents.
  Its head is a matrix of its own.

In both, a token sees the last image before it, as their processors write the masks.
"""

import functools
import json
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import common
import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    CLIPVisionConfig,
    CLIPVisionModel,
    IdeficsConfig,
    IdeficsForVisionText2Text,
    LlamaConfig,
    MllamaConfig,
    MllamaForConditionalGeneration,
)

from transformers_flamingo import FlamingoConfig, FlamingoModel
from transformers_flamingo.conversion import convert_flamingo_mini, convert_open_flamingo
from transformers_flamingo.few_shot.batching import Batch as Contexts
from transformers_flamingo.few_shot.ranking import CandidateScorer


NUM_BEAMS, NUM_BEAM_TOKENS = 3, 8
# model_type -> the name of its list of decoder layers, which OpenFlamingo asks for
DECODER_LAYERS = {"opt": "model.decoder.layers", "llama": "model.layers"}

Batch = dict[str, torch.Tensor]  # input_ids (B, T), pixel_values (B, N, C, H, W)


class Side:
    """A model with a method for each case, or `None` for a case that a peer does not have."""

    name: str
    model: nn.Module
    prefill_options: dict[str, int] = {}  # keywords of `forward` for the logits of the last token alone

    def reset(self) -> None:
        """Free what the model keeps from one call to the next, gradients included."""
        self.model.zero_grad(set_to_none=True)

    def inputs(self, batch: Batch) -> Batch:
        """Return the batch as keyword arguments of the model's `forward` and `generate`."""
        return batch

    def logits(self, batch: Batch) -> torch.Tensor:
        """Return the logits of all tokens `(B, T, V)`."""
        return self.model(**self.inputs(batch)).logits

    def prefill(self, batch: Batch) -> torch.Tensor:
        """Fill a cache with the prompt, as `generate()` does, and return the logits of its last token `(B, 1, V)`."""
        return self.model(**self.inputs(batch), use_cache=True, **self.prefill_options).logits[:, -1:]

    def decode(self, batch: Batch, num_tokens: int) -> float:
        """Generate greedily and return the seconds per token after the first."""
        return common.generate(self.model, self.inputs(batch), num_tokens)

    def beam_search(self, batch: Batch) -> None:
        """Generate with beams."""
        common.generate(self.model, self.inputs(batch), NUM_BEAM_TOKENS - 1, num_beams=NUM_BEAMS)

    def training_step(self, batch: Batch, labels: torch.LongTensor) -> torch.Tensor:
        """Run forward and backward and return the loss."""
        self.model.zero_grad(set_to_none=True)
        loss = self.model(**self.inputs(batch), labels=labels, use_cache=False).loss
        loss.backward()
        return loss.detach()


class Ours(Side):
    """This package's model."""

    name = "ours"
    prefill_options = {"logits_to_keep": 1}

    def __init__(self, model: FlamingoModel):
        self.model = model
        self.scorer = CandidateScorer(model, common.processor(model).tokenizer)

    def images(self, batch: Batch) -> None:
        """Encode the images to latents."""
        self.model.get_image_features(batch["pixel_values"])

    def ranking(self, batch: Batch, candidates: torch.LongTensor) -> torch.Tensor:
        """Return log-likelihoods `(candidates,)` as few-shot evaluation computes them: the candidates are a tree behind the context."""
        ids, images = batch["input_ids"], {"pixel_values": batch["pixel_values"]}
        contexts = Contexts(indices=[0], cache=None, ids=ids, mask=torch.ones_like(ids), images=images)
        texts = [" ".join(self.scorer.tokenizer.convert_ids_to_tokens(row)) for row in candidates.tolist()]
        (scores,) = self.scorer([texts], contexts, length_normalized=False)
        return torch.tensor(scores, device=ids.device)

    def freeze(self, train_embeddings: bool) -> None:
        """Freeze both backbones, with or without the rows of the new tokens."""
        self.model.freeze_backbones(train_token_embeddings=train_embeddings)


class OpenFlamingo(Side):
    """OpenFlamingo's model around a CLIP and a language model of transformers."""

    name = "open-flamingo"

    def __init__(self, directory: Path):
        # fixes: its __init__ imports open_clip, which it needs only for vision encoders.
        sys.modules.setdefault("open_clip", ModuleType("open_clip"))
        from open_flamingo.src.flamingo import Flamingo
        from open_flamingo.src.flamingo_lm import FlamingoLMMixin
        from open_flamingo.src.utils import extend_instance

        class Mixin(FlamingoLMMixin):
            # fixes: generate() of transformers 5 omits a mask of ones, which the mixin's forward() requires.
            def forward(self, input_ids, attention_mask=None, **kwargs):
                return super().forward(input_ids, attention_mask, **kwargs)

        language_model = AutoModelForCausalLM.from_pretrained(directory / "text")
        extend_instance(language_model, Mixin)
        language_model.set_decoder_layers_attr_name(DECODER_LAYERS[language_model.config.model_type])
        vision_model = CLIPVisionModel.from_pretrained(directory / "vision")
        vocab_size, size = language_model.config.vocab_size, vision_model.config.hidden_size
        tower = SimpleNamespace(visual=OpenClipTower(vision_model))
        self.model = Flamingo(tower, language_model, vocab_size - 2, vocab_size - 1, vis_dim=size)
        open_gates(self.model, "attn_gate", "ff_gate")

    def convert(self, directory: Path) -> None:
        """Convert the model to `directory / "ours"`."""
        # Its checkpoints have no vision encoder.
        weights = {k: v for k, v in self.model.state_dict().items() if not k.startswith("vision_encoder.")}
        torch.save(weights, directory / "checkpoint.pt")
        backbones = {name: directory / name for name in ("vision", "text", "tokenizer")}
        convert_open_flamingo(
            directory / "checkpoint.pt", directory / "ours", **backbones, cross_attention_every_n_layers=1
        )

    def reset(self) -> None:
        """Free gradients, and the latents that the layers keep."""
        super().reset()
        self.model.uncache_media()

    def inputs(self, batch: Batch) -> Batch:
        """Return the batch in OpenFlamingo's names, with a dimension for frames."""
        return {"vision_x": batch["pixel_values"][:, :, None], "lang_x": batch["input_ids"]}

    def images(self, batch: Batch) -> None:
        """Encode the images to latents."""
        self.model._encode_vision_x(self.inputs(batch)["vision_x"])

    def ranking(self, batch: Batch, candidates: torch.LongTensor) -> torch.Tensor:
        """Score as its `get_rank_classifications` does: media and context are cached, then one call per token."""
        input_ids, vision_x = batch["input_ids"], self.inputs(batch)["vision_x"]
        call = functools.partial(self.model, None, clear_conditioned_layers=False, use_cache=True)
        self.model.cache_media(input_ids, vision_x)
        context = call(input_ids)
        cache, scores = context.cache, []
        for candidate in candidates:
            logits = [context.logits]
            for token in candidate:
                logits.append(call(token.view(1, 1), past_key_values=cache).logits)
            log_probabilities = torch.cat(logits, dim=1).log_softmax(dim=-1)  # of the context too: (1, T + K, V)
            chosen = log_probabilities[:, -len(candidate) - 1 : -1].gather(2, candidate[None, :, None])
            scores.append(chosen.sum())
            # fixes: the cache of transformers 5 is written in place, and the next candidate would follow this one.
            cache.crop(-len(candidate))
        self.model.uncache_media()
        return torch.stack(scores)

    def freeze(self, train_embeddings: bool) -> None:
        """Freeze as its factory does: with the whole embedding matrix, or with its `freeze_lm_embeddings`."""
        self.model.requires_grad_(False)
        self.model.perceiver.requires_grad_(True)
        self.model.lang_encoder.gated_cross_attn_layers.requires_grad_(True)
        self.model.lang_encoder.get_input_embeddings().requires_grad_(train_embeddings)


class OpenClipTower(nn.Module):
    """A CLIP vision encoder of transformers that returns the outputs of open_clip: (pooled, tokens `(B, P, Dv)`)."""

    def __init__(self, model: CLIPVisionModel):
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> tuple[None, torch.Tensor]:
        return None, self.model(pixels).last_hidden_state[:, 1:]


class FlamingoMini(Side):
    """flamingo-mini's model around a CLIP and an OPT of transformers."""

    name = "flamingo-mini"
    beam_search = None

    def __init__(self, directory: Path):
        # fixes: its processor, which is not needed, imports a module that transformers 5 no longer has.
        stub = ModuleType("transformers.models.clip.feature_extraction_clip")
        stub.CLIPFeatureExtractor = object
        sys.modules.setdefault(stub.__name__, stub)
        import flamingo_mini

        # It detects the family of the language model by the beginning of its name.
        (directory / "facebook").mkdir()
        (directory / "facebook" / "opt").symlink_to(directory / "text")
        text_config, vision_config = (AutoConfig.from_pretrained(directory / name) for name in ("text", "vision"))
        self.settings = {
            "lm": "facebook/opt",
            "clip_model_type": "vision",
            "dim": text_config.hidden_size,
            "dim_visual": vision_config.hidden_size,
        }
        before = os.getcwd()
        os.chdir(directory)
        try:
            self.model = flamingo_mini.FlamingoModel(flamingo_mini.FlamingoConfig(**self.settings))
        finally:
            os.chdir(before)
        self.image_token_id = text_config.vocab_size - 1
        open_gates(self.model, "alpha_attn", "alpha_ffw")

    def convert(self, directory: Path) -> None:
        """Convert the model to `directory / "ours"`."""
        # By hand: its save_pretrained() does not run on transformers 5.
        (directory / "theirs").mkdir()
        (directory / "theirs" / "config.json").write_text(json.dumps(self.settings))
        torch.save(self.model.state_dict(), directory / "theirs" / "pytorch_model.bin")
        backbones = {name: directory / name for name in ("vision", "text", "tokenizer")}
        convert_flamingo_mini(directory / "theirs", directory / "ours", **backbones)

    def reset(self) -> None:
        """Free gradients, and the latents, keys and values that the layers keep."""
        super().reset()
        for layer in self.model.flamingo.get_modified_layers():
            layer.condition(None, None)
            layer.kv_output = None

    def inputs(self, batch: Batch) -> Batch:
        """Return the batch with flamingo-mini's mask of image markers `(B, T)`."""
        return {**batch, "media_locations": (batch["input_ids"] == self.image_token_id).long()}

    def images(self, batch: Batch) -> None:
        """Encode the images to latents."""
        self.model.flamingo.encode_resample_visuals(batch["pixel_values"])

    def decode(self, batch: Batch, num_tokens: int) -> float:
        """Decode in a greedy loop over `forward`, without the overhead of `generate()`, and return the seconds per token."""
        inputs = self.inputs(batch)
        outputs = self.model(**inputs, use_cache=True)
        locations = inputs["media_locations"]
        start = common.read_clock(locations.device)
        for _ in range(num_tokens):
            token = outputs.logits[:, -1:].argmax(dim=-1)
            locations = nn.functional.pad(locations, (0, 1))
            outputs = self.model(token, media_locations=locations, past_key_values=outputs.cache, use_cache=True)
        return (common.read_clock(locations.device) - start) / num_tokens

    def ranking(self, batch: Batch, candidates: torch.LongTensor) -> torch.Tensor:
        """Score as its `score_sequences` does: the cache of the context is repeated for all candidates."""
        inputs, number = self.inputs(batch), len(candidates)
        context = self.model(**inputs, use_cache=True)
        # fixes: `score_sequences` repeats a tuple of keys and values, which is a cache of transformers 5 now.
        media, cache = context.cache
        media = [tuple(states.repeat_interleave(number, dim=0) for states in layer) for layer in media]
        cache.batch_repeat_interleave(number)
        locations = nn.functional.pad(inputs["media_locations"], (0, candidates.shape[1] - 1)).expand(number, -1)
        logits = self.model(candidates[:, :-1], media_locations=locations, past_key_values=(media, cache)).logits
        return score(context.logits[:, -1:], logits, candidates)

    def freeze(self, train_embeddings: bool) -> None:
        """Freeze by its own methods, which train the whole embedding matrix, or all of the language model."""
        self.model.flamingo.freeze_vm()
        self.model.flamingo.freeze_lm()
        self.model.flamingo.lm.get_input_embeddings().requires_grad_(train_embeddings)


class Idefics(Side):
    """transformers' IDEFICS, in the shapes of a CLIP and a Llama."""

    name = "idefics"
    prefill_options = {"logits_to_keep": 1}

    def __init__(self, vision_config: CLIPVisionConfig, text_config: LlamaConfig):
        vision = {
            name: getattr(vision_config, name)
            for name in ("hidden_act", "image_size", "intermediate_size", "num_attention_heads", "num_hidden_layers")
        }
        vision |= {"embed_dim": vision_config.hidden_size, "patch_size": vision_config.patch_size}
        text = text_shapes(text_config)
        del text["num_key_value_heads"]
        config = IdeficsConfig(
            **text,
            tie_word_embeddings=True,
            # Not its `additional_vocab_size`, which its loss does not count.
            vocab_size=text_config.vocab_size,
            use_resampler=True,
            vision_config=vision,
            perceiver_config={"use_resampler": True, "resampler_n_heads": 8, "resampler_head_dim": 64},
        )
        self.model = IdeficsForVisionText2Text(config)
        self.image_token_id = text_config.vocab_size - 1
        open_gates(self.model, "alpha_cross_attn", "alpha_dense")

    def inputs(self, batch: Batch) -> Batch:
        """Return the batch with the mask of the image that each token sees `(B, T, N)`."""
        return {**batch, "image_attention_mask": visible_images(batch, self.image_token_id)}

    def images(self, batch: Batch) -> torch.Tensor:
        """Encode the images to latents `(B * N, L, Dv)`."""
        features = self.model.model.vision_model(pixel_values=batch["pixel_values"].flatten(0, 1)).last_hidden_state
        return self.model.model.perceiver_resampler(features)

    def ranking(self, batch: Batch, candidates: torch.LongTensor) -> torch.Tensor:
        """Score from a cache of the context that is repeated for the candidates, as are the latents."""
        latents, mask = self.images(batch), visible_images(batch, self.image_token_id)
        number, length = candidates.shape
        call = functools.partial(self.model, use_cache=True)
        context = call(batch["input_ids"], perceiver_embeddings=latents, image_attention_mask=mask, logits_to_keep=1)
        context.cache.batch_repeat_interleave(number)
        mask = mask[:, -1:].expand(number, length - 1, -1)
        latents = latents.repeat(number, 1, 1)
        logits = call(
            candidates[:, :-1], perceiver_embeddings=latents, image_attention_mask=mask, cache=context.cache
        ).logits
        return score(context.logits, logits, candidates)

    def freeze(self, train_embeddings: bool) -> None:
        """Freeze both backbones with all embeddings."""
        self.model.requires_grad_(False)
        self.model.model.perceiver_resampler.requires_grad_(True)
        self.model.model.gated_cross_attn_layers.requires_grad_(True)


class Mllama(Side):
    """transformers' Mllama, in the shapes of a CLIP and a Llama with a cross-attention layer after each of its layers."""

    name = "mllama"
    prefill_options = {"logits_to_keep": 1}

    def __init__(self, vision_config: CLIPVisionConfig, text_config: LlamaConfig):
        depth, text = vision_config.num_hidden_layers, text_shapes(text_config)
        text["num_hidden_layers"] *= 2
        vision = {
            name: getattr(vision_config, name)
            for name in ("hidden_act", "hidden_size", "image_size", "intermediate_size", "patch_size")
        }
        # One tile for each image, no second encoder, and the least intermediate features: those of the last layer
        vision |= {"max_num_tiles": 1, "supported_aspect_ratios": [[1, 1]], "num_global_layers": 0}
        vision |= {"attention_heads": vision_config.num_attention_heads, "num_hidden_layers": depth}
        vision |= {"intermediate_layers_indices": [depth - 1], "vision_output_dim": 2 * vision_config.hidden_size}
        # Not the first layer, from whose cache transformers reads the number of tokens
        text |= {"cross_attention_layers": list(range(1, text["num_hidden_layers"], 2)), "pad_token_id": 0}
        text |= {"vocab_size": text_config.vocab_size, "bos_token_id": 1, "eos_token_id": 2}
        image_token_id = text_config.vocab_size - 1
        config = MllamaConfig(vision_config=vision, text_config=text, image_token_index=image_token_id)
        self.model = MllamaForConditionalGeneration(config)
        self.image_token_id = image_token_id
        open_gates(self.model, "cross_attn_attn_gate", "cross_attn_mlp_gate")

    def inputs(self, batch: Batch) -> Batch:
        """Return the batch with one tile for each image, and the mask of the image that each token sees `(B, T, N, 1)`."""
        pixels = batch["pixel_values"][:, :, None]
        ones = torch.ones(pixels.shape[:3], dtype=torch.long, device=pixels.device)
        mask = visible_images(batch, self.image_token_id)[..., None]
        tiles = {"aspect_ratio_ids": ones[..., 0], "aspect_ratio_mask": ones, "cross_attention_mask": mask}
        return {"input_ids": batch["input_ids"], "pixel_values": pixels, **tiles}

    def images(self, batch: Batch) -> None:
        """Encode the images to the states that the cross-attention layers see."""
        names = ("pixel_values", "aspect_ratio_ids", "aspect_ratio_mask")
        inputs = self.inputs(batch)
        features = self.model.model.vision_model(**{name: inputs[name] for name in names}).last_hidden_state
        self.model.model.multi_modal_projector(features)

    def ranking(self, batch: Batch, candidates: torch.LongTensor) -> torch.Tensor:
        """Score from a cache of the context, images included, that is repeated for the candidates."""
        inputs, (number, length) = self.inputs(batch), candidates.shape
        context = self.model(**inputs, use_cache=True, logits_to_keep=1)
        context.cache.batch_repeat_interleave(number)
        mask = inputs["cross_attention_mask"][:, -1:].expand(number, length - 1, -1, -1)
        logits = self.model(candidates[:, :-1], cross_attention_mask=mask, cache=context.cache).logits
        return score(context.logits, logits, candidates)

    def freeze(self, train_embeddings: bool) -> None:
        """Freeze encoder and language model with all embeddings, and train the layers that see images."""
        self.model.requires_grad_(False)
        self.model.model.multi_modal_projector.requires_grad_(True)
        text_model = self.model.model.language_model
        for index in text_model.cross_attention_layers:
            text_model.layers[index].requires_grad_(True)


def text_shapes(config: LlamaConfig) -> dict[str, int]:
    """Return the fields that set the shapes of a Llama's layers."""
    names = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
    return {name: getattr(config, name) for name in names}


def build_in_shapes_of_stock_peers(vision_config: CLIPVisionConfig, text_config: LlamaConfig) -> Ours:
    """
    Build this package's model with the widths that [`Idefics`] and [`Mllama`] have around the same backbones.

    Their gated blocks have the heads of the language model, and 3 matrices of its intermediate size for our 2.

    Raises:
        ValueError: 3 of its matrices are not as large as 2 of ours for any whole multiple of the width.
    """
    width, intermediate = text_config.hidden_size, text_config.intermediate_size
    if 3 * intermediate % (2 * width):
        raise ValueError(
            f"An intermediate size of {intermediate} cannot be matched with a width of {width}: 3 x {intermediate} must be a "
            f"multiple of 2 x {width}, such as with {8 * width // 3}."
        )
    config = FlamingoConfig.from_vision_text_configs(
        vision_config,
        text_config,
        cross_attention_num_heads=text_config.num_attention_heads,
        cross_attention_head_dim=width // text_config.num_attention_heads,
        cross_attention_ffn_mult=3 * intermediate // (2 * width),
        resampler_num_frames=0,
        vision_feature_select_strategy="full",
        image_token_id=text_config.vocab_size - 1,
        end_of_chunk_token_id=text_config.vocab_size - 2,
    )
    ours = Ours(FlamingoModel(config))
    open_gates(ours.model, "attn_gate", "ffn_gate")
    return ours


def open_gates(model: nn.Module, *names: str) -> None:
    """Set all parameters whose names end in one of `names` to 0.5."""
    for name, parameter in model.named_parameters():
        if name.endswith(names):
            nn.init.constant_(parameter, 0.5)


def visible_images(batch: Batch, image_token_id: int) -> torch.LongTensor:
    """Return a mask of the last image before each token `(B, T, N)`."""
    last = (batch["input_ids"] == image_token_id).cumsum(dim=1)
    numbers = torch.arange(1, batch["pixel_values"].shape[1] + 1, device=last.device)
    return (last[..., None] == numbers).long()


def score(first: torch.Tensor, others: torch.Tensor, candidates: torch.LongTensor) -> torch.Tensor:
    """
    Return log-likelihoods of the candidates `(candidates,)`.

    Args:
        first (`torch.Tensor`): Logits after the context `(1, 1, V)`.
        others (`torch.Tensor`): Logits after each token of the candidates except the last `(candidates, K - 1, V)`.
        candidates (`torch.LongTensor`): Their tokens `(candidates, K)`.
    """
    logits = torch.cat([first.expand(len(candidates), -1, -1), others], dim=1)
    return logits.log_softmax(dim=-1).gather(2, candidates[..., None]).sum(dim=(1, 2))


STOCK_PEERS: tuple[type[Side], ...] = (Idefics, Mllama)
CONVERTED_PEERS: tuple[type[Side], ...] = (OpenFlamingo, FlamingoMini)
