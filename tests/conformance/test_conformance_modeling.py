# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Run on a Flamingo the tests that transformers runs on its own models: modeling, generation, configuration and training.

    TRANSFORMERS_TESTS=/path/to/transformers/tests python -m pytest tests/conformance

Gates are open: with closed gates most of these tests would test a plain language model. A test is overridden only where
it assumes something that does not hold for this model, and its comment says what.
"""

import copy
import unittest
from unittest import mock

import pytest
import torch
import transformers_suite
from factory import tiny_config
from transformers import initialization as init
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from transformers_flamingo import FlamingoConfig, FlamingoModel
from transformers_flamingo.layers_flamingo import FlamingoGatedCrossAttentionBlock
from transformers_flamingo.media_cache_flamingo import MediaCacheLayer


reason = transformers_suite.why_not()
if reason is not None:
    pytest.skip(reason, allow_module_level=True)

common = transformers_suite.load("test_modeling_common")
generation = transformers_suite.load("generation.test_utils")
configuration = transformers_suite.load("test_configuration_common")
training = transformers_suite.load("test_training_mixin")
# pytest collects a base of a `TestCase` as a test of its own if it is a name of the test module. See the end of this file.
ModelTesterMixin = common.ModelTesterMixin
GenerationTesterMixin = generation.GenerationTesterMixin
TrainingTesterMixin = training.TrainingTesterMixin
ConfigTester = configuration.ConfigTester


# Some tests limit ids to the lower part of the vocabulary, and others use the lowest ids by number.
END_OF_CHUNK, IMAGE = 40, 41
_NUM_LAYERS = {"gpt2": "n_layer"}


def _init_weights_with_open_gates(model, module, original=FlamingoModel._init_weights):
    original(model, module)
    if isinstance(module, FlamingoGatedCrossAttentionBlock):
        init.constant_(module.attn_gate, 0.5)
        init.constant_(module.ffn_gate, 0.5)


class FlamingoModelTester:
    base_model_class = FlamingoModel
    causal_lm_class = FlamingoModel
    conditional_generation_class = FlamingoModel

    def __init__(self, parent, text: str):
        self.parent = parent
        self.text = text
        self.vision = "clip"
        self.batch_size = 3
        self.seq_length = 7
        self.num_hidden_layers = 2
        self.hidden_size = 32
        self.num_attention_heads = 4
        self.vocab_size = 99
        self.is_training = True
        self.image_size = 8

    def get_config(self) -> FlamingoConfig:
        # With dropout, two passes in training mode would differ
        dropout = {
            "gpt2": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
            "opt": {"dropout": 0.0, "attention_dropout": 0.0},
        }.get(self.text, {})
        return tiny_config(
            self.text,
            self.vision,
            text_kwargs={**dropout, _NUM_LAYERS.get(self.text, "num_hidden_layers"): self.num_hidden_layers},
            image_token_id=IMAGE,
            end_of_chunk_token_id=END_OF_CHUNK,
            vision_kwargs={"vision_use_head": False} if self.vision == "siglip" else None,
        )

    def prepare_config_and_inputs_for_common(self):
        config = self.get_config()
        input_ids = common.ids_tensor([self.batch_size, self.seq_length], 50) + 42
        # Two images in each sample: one of them first, two in a row, one of them last
        for row, positions in enumerate(((0, 3), (2, 3), (1, 6))):
            input_ids[row, list(positions)] = IMAGE
        inputs = {
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
            "pixel_values": common.floats_tensor([self.batch_size, 2, 3, self.image_size, self.image_size]),
        }
        return config, inputs


class FlamingoConformance(ModelTesterMixin, GenerationTesterMixin, TrainingTesterMixin):
    text: str
    all_model_classes = (FlamingoModel,)
    all_generative_model_classes = (FlamingoModel,)
    _is_composite = True
    test_resize_embeddings = True
    model_tester = None

    def setUp(self):
        for patch in (
            mock.patch.object(FlamingoModel, "_init_weights", _init_weights_with_open_gates),
            # An instance has the value of its language model. The suite asks the class, and would skip all static caches.
            mock.patch.object(FlamingoModel, "_can_compile_fullgraph", True),
            # The suite looks up here whether a class takes labels. Third parties are in the mapping but not in its names.
            mock.patch.dict(MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES, {"flamingo": "FlamingoModel"}),
        ):
            patch.start()
            self.addCleanup(patch.stop)
        self.model_tester = FlamingoModelTester(self, self.text)
        self.config_tester = ConfigTester(
            self,
            config_class=FlamingoConfig,
            has_text_modality=False,
            common_properties=["image_token_id", "resampler_num_latents", "cross_attention_num_heads"],
        )

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        """Add images: some tests keep the text, or add samples to it, and omit the images, which is an error here."""
        inputs = super()._prepare_for_class(inputs_dict, model_class, return_labels)
        if "input_ids" in inputs and "pixel_values" not in inputs:
            markers = inputs["input_ids"] == IMAGE
            if inputs.get("attention_mask") is not None:
                markers = markers & inputs["attention_mask"].bool()
            counts = markers.sum(dim=1)
            if counts.any():
                generator = torch.Generator().manual_seed(0)
                shape = (len(counts), int(counts.max()), 3, self.model_tester.image_size, self.model_tester.image_size)
                inputs["pixel_values"] = torch.randn(shape, generator=generator)
                inputs["frame_attention_mask"] = torch.arange(shape[1]) < counts[:, None]
        return inputs

    def prepare_config_and_inputs_for_text(self, batch_size=2):
        config, inputs = super().prepare_config_and_inputs_for_generate(batch_size)
        del inputs["pixel_values"]
        inputs["input_ids"][inputs["input_ids"] == IMAGE] = IMAGE + 1
        return config, inputs

    def _check_past_key_values_for_generate(self, batch_size, cache, seq_length, config):
        # After the language model's layers there is one for each gated block, with the keys and values of the image
        num_layers = config.get_text_config().num_hidden_layers
        text_cache = copy.copy(cache)
        text_cache.layers = cache.layers[:num_layers]
        super()._check_past_key_values_for_generate(batch_size, text_cache, seq_length, config)
        media_layers = cache.layers[num_layers:]
        assert len(media_layers) == len(self.model_tester.get_config().cross_attention_layer_indices)
        assert all(isinstance(layer, MediaCacheLayer) for layer in media_layers)

    def test_generate_from_random_inputs_embeds(self):
        # The test keeps the text and omits the images, which is an error here. Use a text without images.
        with mock.patch.object(
            self, "prepare_config_and_inputs_for_generate", self.prepare_config_and_inputs_for_text
        ):
            super().test_generate_from_random_inputs_embeds()

    def test_generate_continue_from_inputs_embeds(self):
        # As above
        with mock.patch.object(
            self, "prepare_config_and_inputs_for_generate", self.prepare_config_and_inputs_for_text
        ):
            super().test_generate_continue_from_inputs_embeds()

    @unittest.skip(
        "It asks for `image_outputs`, all states of the vision encoder. They would stay in memory as long as the output, "
        "although only the latents of an image are used. `get_image_features` returns them."
    )
    def test_multimodal_outputs_are_returned(self):
        pass

    def test_config(self):
        self.config_tester.run_common_tests()

    @unittest.skip("FlamingoModel is the generative model and the base model in one, as VisionEncoderDecoderModel is.")
    def test_model_base_model_prefix(self):
        pass

    @unittest.skip(
        "It expects one entry per image. Here the features are (B, N, L, Dv): samples first, then their images."
    )
    def test_get_image_features_pooler_output(self):
        pass

    def check_training_gradient_checkpointing(self, *args, **kwargs):
        # Each parameter must get a gradient. CLIP's last layer norm acts only on its pooled output, which is not used
        # here, so use SigLIP, all of whose parameters come before its features.
        self.model_tester.vision = "siglip"
        super().check_training_gradient_checkpointing(*args, **kwargs)

    def test_training_overfit(self):
        # The suite reads `config.vocab_size`, which is a field of `text_config` here, and trains on text only
        with mock.patch.object(FlamingoConfig, "vocab_size", self.model_tester.vocab_size, create=True):
            super().test_training_overfit()

    def test_can_init_all_missing_weights(self):
        """
        Run the suite's test on the new parts only: CLIP and GPT-2 fail it by themselves, and the suite excuses models
        from before 2023.
        """
        with common.seeded_weight_init():
            built = FlamingoModel(self.model_tester.get_config())
            loaded = FlamingoModel.from_pretrained(None, config=self.model_tester.get_config(), state_dict={})
        assert not any(t.device.type == "meta" for t in [*loaded.parameters(), *loaded.buffers()])
        for name, tensor in built.state_dict().items():
            if name.startswith(("resampler.", "gated_cross_attention.")):
                assert torch.equal(loaded.state_dict()[name], tensor), name


class GPT2ConformanceTest(FlamingoConformance, unittest.TestCase):
    text = "gpt2"


class OPTConformanceTest(FlamingoConformance, unittest.TestCase):
    text = "opt"


class LlamaConformanceTest(FlamingoConformance, unittest.TestCase):
    text = "llama"


# pytest must not collect these by themselves
del ModelTesterMixin, GenerationTesterMixin, TrainingTesterMixin, FlamingoConformance
