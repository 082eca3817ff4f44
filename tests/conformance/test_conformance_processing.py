# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Run on a FlamingoProcessor the tests that transformers runs on its own processors. See `test_conformance_modeling.py`.
"""

import unittest
from unittest import mock

import pytest
import torch
import transformers_suite
from factory import tiny_tokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from transformers_flamingo import FlamingoProcessor


reason = transformers_suite.why_not()
if reason is not None:
    pytest.skip(reason, allow_module_level=True)

common = transformers_suite.load("test_processing_common")
ProcessorTesterMixin = common.ProcessorTesterMixin

# The suite's images are on the Hub. This one is in the checkout.
IMAGE_FILE = str(transformers_suite.checkout() / "tests/fixtures/tests_samples/COCO/000000039769.png")


class FlamingoProcessorConformanceTest(ProcessorTesterMixin, unittest.TestCase):
    processor_class = FlamingoProcessor

    @classmethod
    def setUpClass(cls):
        for patch in (
            mock.patch.dict(common.MODALITY_INPUT_DATA, {"images": [IMAGE_FILE, IMAGE_FILE]}),
            mock.patch.object(common, "url_to_local_path", return_value=IMAGE_FILE),
            # The suite uses a factor of -1.0 to see whether a keyword arrived. It is refused here, so use one near 0.
            mock.patch.dict(
                common.MODALITY_TEST_SPECS["images"],
                {"init_time_kwargs": {"do_rescale": True, "rescale_factor": 1e-6}},
            ),
            # A class that travels with its code writes `auto_map` to the object that is saved, and the suite compares that
            # object with the loaded one. Classes of transformers do not travel.
            mock.patch.object(FlamingoProcessor, "_auto_class", None),
        ):
            patch.start()
            cls.addClassCleanup(patch.stop)
        super().setUpClass()

    @classmethod
    def _setup_tokenizer(cls):
        return tiny_tokenizer()

    @classmethod
    def _setup_image_processor(cls):
        return CLIPImageProcessorPil()

    def _get_valid_processor_kwargs_names(self):
        # The suite forbids a name that is an argument of both the processor and its call. `bit_depth` is both, because most
        # users have images of one depth, which is saved with the processor.
        return super()._get_valid_processor_kwargs_names() - {"bit_depth"}

    def test_subprocessor_defaults_1_images(self):
        # The suite expects `pixel_values` of (B, C, H, W). Here they are (B, N, C, H, W), by sample and image.
        processor, image = self.get_processor(), self.prepare_images_inputs()
        expected = processor.image_processor(image, return_tensors="pt")["pixel_values"]
        assert torch.equal(processor(images=image, return_tensors="pt")["pixel_values"][:, 0], expected)

    def test_model_input_names(self):
        # Images and videos in two arguments are refused, because both are marked with `<image>`. Pass only the image.
        with mock.patch.object(self, "prepare_videos_inputs", return_value=None):
            super().test_model_input_names()

    def test_flat_kwarg_applied_when_modality_dict_lacks_it(self):
        # As above
        with mock.patch.object(self, "prepare_videos_inputs", return_value=None):
            super().test_flat_kwarg_applied_when_modality_dict_lacks_it()


# pytest must not collect it by itself
del ProcessorTesterMixin
