# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Run on a Flamingo the tests that transformers runs on its image-text-to-text pipeline. See `test_conformance_modeling.py`.
"""

import json
import tempfile
import unittest
from pathlib import Path
from unittest import mock

import pytest
import transformers
import transformers_suite
from factory import IMAGE_SIZE, tiny_flamingo, tiny_tokenizer
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from transformers_flamingo import FlamingoModel, FlamingoProcessor


reason = transformers_suite.why_not()
if reason is not None:
    pytest.skip(reason, allow_module_level=True)

# The suite loads its tiny models from the Hub, or from the directory that this variable names when it is imported. A model
# that is not in the summary is skipped.
MODELS = tempfile.TemporaryDirectory()
SUMMARY = {"tokenizer_classes": ["PreTrainedTokenizerFast"], "processor_classes": ["CLIPImageProcessorPil"]}
(Path(MODELS.name) / "reports").mkdir()
(Path(MODELS.name) / "reports" / "tiny_model_summary.json").write_text(json.dumps({"FlamingoModel": SUMMARY}))
with mock.patch.dict("os.environ", TRANSFORMERS_TINY_MODEL_PATH=MODELS.name):
    mixin = transformers_suite.load("test_pipeline_mixin")
# Otherwise it would be imported at the first test, without the patch of `load`
transformers_suite.load("pipelines.test_pipelines_image_text_to_text")
PipelineTesterMixin = mixin.PipelineTesterMixin


class FlamingoPipelineConformance(PipelineTesterMixin):
    text: str
    pipeline_model_mapping = {"image-text-to-text": FlamingoModel}

    def setUp(self):
        directory = Path(MODELS.name) / "flamingo" / "FlamingoModel"
        size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
        tiny_flamingo(self.text).save_pretrained(directory)
        FlamingoProcessor(CLIPImageProcessorPil(size=size, crop_size=size), tiny_tokenizer()).save_pretrained(
            directory
        )
        for patch in (
            # The suite looks up classes by name here. Third parties are in the mappings but not in their names.
            mock.patch.dict(PROCESSOR_MAPPING_NAMES, {"flamingo": "FlamingoProcessor"}),
            mock.patch.object(transformers, "FlamingoProcessor", FlamingoProcessor, create=True),
            mock.patch.object(transformers, "CLIPImageProcessorPil", CLIPImageProcessorPil, create=True),
        ):
            patch.start()
            self.addCleanup(patch.stop)

    def run(self, result=None):
        # The suite reads images relative to the root of the checkout
        with pytest.MonkeyPatch.context() as patches:
            patches.chdir(transformers_suite.checkout())
            return super().run(result)


class GPT2PipelineTest(FlamingoPipelineConformance, unittest.TestCase):
    text = "gpt2"


class OPTPipelineTest(FlamingoPipelineConformance, unittest.TestCase):
    text = "opt"


class LlamaPipelineTest(FlamingoPipelineConformance, unittest.TestCase):
    text = "llama"


# pytest must not collect these by themselves
del PipelineTesterMixin, FlamingoPipelineConformance
