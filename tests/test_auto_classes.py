# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""A saved directory loads through the Auto classes and works in the stock pipeline, with and without this package."""

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from factory import prompt, random_images, tiny_flamingo, tiny_processor
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    AutoModelForSequenceClassification,
    AutoProcessor,
    AutoTokenizer,
    pipeline,
)

from transformers_flamingo import FlamingoConfig, FlamingoForSequenceClassification, FlamingoModel, FlamingoProcessor


RED, BLUE = (Image.new("RGB", (20, 10), color) for color in ((200, 0, 0), (0, 0, 200)))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("saved") / "flamingo"
    tiny_flamingo().save_pretrained(directory)
    tiny_processor().save_pretrained(directory)
    return directory


def test_auto_classes_return_classes_of_this_package_without_asking_for_trust(saved):
    assert type(AutoConfig.from_pretrained(saved)) is FlamingoConfig
    for auto_class in (AutoModel, AutoModelForImageTextToText, AutoModelForMultimodalLM):
        model, info = auto_class.from_pretrained(saved, output_loading_info=True)
        assert type(model) is FlamingoModel
        assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert type(AutoModelForSequenceClassification.from_pretrained(saved)) is FlamingoForSequenceClassification
    assert type(AutoProcessor.from_pretrained(saved)) is FlamingoProcessor
    assert AutoTokenizer.from_pretrained(saved).convert_tokens_to_ids("<image>") == 98
    pixels = AutoImageProcessor.from_pretrained(saved)(RED, return_tensors="pt")["pixel_values"]
    assert torch.equal(pixels, tiny_processor()(images=RED, text="<image>", return_tensors="pt")["pixel_values"][0])


def test_a_loaded_model_gives_the_same_logits(saved):
    ids, images = prompt("abIcd"), random_images(1, 1)
    loaded = AutoModelForImageTextToText.from_pretrained(saved)
    with torch.no_grad():
        expected = tiny_flamingo()(input_ids=ids, pixel_values=images).logits
        assert torch.equal(loaded(input_ids=ids, pixel_values=images).logits, expected)


def test_pipeline_with_raw_text(saved):
    captioner = pipeline("image-text-to-text", model=str(saved))
    one = captioner(images=RED, text="<image> w5", max_new_tokens=4, return_full_text=False)
    assert len(one) == 1
    text = one[0]["generated_text"]
    assert len(text.split()) == 4
    assert "<image>" not in text
    full = captioner(images=RED, text="<image> w5", max_new_tokens=4)
    assert full[0]["generated_text"] == "<image> w5" + text


def test_pipeline_with_a_batch_of_different_numbers_of_images(saved):
    captioner = pipeline("image-text-to-text", model=str(saved))
    images, texts = [[RED], [RED, BLUE]], ["<image> w5", "<image> w6 <|endofchunk|> <image>"]
    arguments = {"max_new_tokens": 4, "return_full_text": False}
    together = captioner(images=images, text=texts, **arguments)
    alone = [captioner(images=i, text=t, **arguments) for i, t in zip(images, texts, strict=True)]
    assert [output["generated_text"] for output in together] == [output[0]["generated_text"] for output in alone]


def test_pipeline_with_chat_messages_one_and_many(saved):
    captioner = pipeline("image-text-to-text", model=str(saved))

    def chat(image):
        content = [{"type": "image", "image": image}, {"type": "text", "text": "w5 w6"}]
        return [{"role": "user", "content": content}]

    arguments = {"max_new_tokens": 4, "return_full_text": False}
    one = captioner(chat(RED), **arguments)[0]["generated_text"]
    raw = captioner(images=RED, text="<image>w5 w6", **arguments)[0]["generated_text"]
    assert one == raw
    many = captioner([chat(RED), chat(BLUE)], **arguments)
    assert many[0][0]["generated_text"] == one


def test_the_answer_of_the_pipeline_depends_on_the_image(saved):
    model, processor = AutoModel.from_pretrained(saved), AutoProcessor.from_pretrained(saved)
    logits = []
    for image in (RED, BLUE):
        inputs = processor(images=image, text="<image> w5", return_tensors="pt")
        with torch.no_grad():
            logits.append(model(**inputs).logits[0, -1])
    assert (logits[0] - logits[1]).abs().max() > 1e-4


def test_code_travels_with_the_checkpoint(saved):
    names = {"configuration_flamingo.py", "modeling_flamingo.py", "processing_flamingo.py"}
    assert names <= set(os.listdir(saved))
    assert set(json.loads((saved / "config.json").read_text())["auto_map"]) == {
        "AutoConfig",
        "AutoModel",
        "AutoModelForImageTextToText",
        "AutoModelForMultimodalLM",
        "AutoModelForSequenceClassification",
    }
    processor_map = json.loads((saved / "processor_config.json").read_text())["auto_map"]
    assert processor_map == {"AutoProcessor": "processing_flamingo.FlamingoProcessor"}


def test_without_the_package_the_traveling_code_does_the_same(saved, tmp_path):
    """Load in a process that cannot import this package, save again, and load that."""
    script = textwrap.dedent(
        """
        import importlib.abc, json, sys

        class Hidden(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] == "transformers_flamingo":
                    raise ModuleNotFoundError(name)

        sys.meta_path.insert(0, Hidden())
        import torch
        from PIL import Image
        from transformers import AutoConfig, AutoModel, AutoModelForImageTextToText, AutoProcessor, pipeline
        from transformers import AutoModelForSequenceClassification

        source, target = sys.argv[1:]
        trust = {"trust_remote_code": True}
        red = Image.new("RGB", (20, 10), (200, 0, 0))
        results = []
        for directory in (source, target):
            model = AutoModelForImageTextToText.from_pretrained(directory, **trust)
            processor = AutoProcessor.from_pretrained(directory, **trust)
            assert type(AutoModel.from_pretrained(directory, **trust)).__name__ == "FlamingoModel"
            captioner = pipeline("image-text-to-text", model=directory, **trust)
            results.append(captioner(images=red, text="<image> w5", max_new_tokens=4)[0]["generated_text"])
            model.save_pretrained(target)
            processor.save_pretrained(target)
        classifier = AutoModelForSequenceClassification.from_pretrained(source, num_labels=3, **trust)
        classifier.save_pretrained(target + "-classifier")
        again = AutoModelForSequenceClassification.from_pretrained(target + "-classifier", **trust)
        inputs = processor(images=red, text="<image> w5", return_tensors="pt")
        assert torch.equal(classifier(**inputs).logits, again(**inputs).logits) and again.config.num_labels == 3
        assert type(AutoModel.from_pretrained(target + "-classifier", **trust)).__name__ == "FlamingoModel"
        print(json.dumps(results))
        """
    )
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "-c", script, str(saved), str(tmp_path / "again")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    assert result.returncode == 0, result.stderr
    captioner = pipeline("image-text-to-text", model=str(saved))
    expected = captioner(images=RED, text="<image> w5", max_new_tokens=4)[0]["generated_text"]
    assert json.loads(result.stdout.strip().splitlines()[-1]) == [expected, expected]
