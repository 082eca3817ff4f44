# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Test that the predictor is a pipeline of transformers, by its name."""

import pickle
from dataclasses import asdict

import pytest
from factory import tiny_flamingo, tiny_processor
from transformers import pipeline
from words import draw_image

from transformers_flamingo import FewShotPredictor
from transformers_flamingo.few_shot.pipeline import FewShotPipeline


SHOTS = [(draw_image(1), "w4"), (draw_image(2), "w5")]
IMAGES = [draw_image(number) for number in (3, 4, 5)]


def test_it_gives_what_the_predictor_gives(tmp_path):
    model, processor = tiny_flamingo(), tiny_processor()
    expected = [
        asdict(p) for p in FewShotPredictor(model, processor, SHOTS, "classify", selection="rices", top_k=1)(IMAGES)
    ]
    for part in (model, processor):
        part.save_pretrained(tmp_path / "model")
    settings = {"few_shot_task": "classify", "selection": "rices", "top_k": 1, "batch_size": 2, "device": "cpu"}
    loaded = pipeline("few-shot-image-to-text", model=str(tmp_path / "model"), demonstrations=SHOTS, **settings)
    assert loaded(IMAGES) == list(loaded(iter(IMAGES))) == expected
    assert (
        loaded(IMAGES[0]) == loaded.run_single(IMAGES[0], {}, {}, {}) == pickle.loads(pickle.dumps(loaded))(IMAGES[0])
    )
    loaded.save_pretrained(tmp_path / "saved")
    again = pipeline("few-shot-image-to-text", model=str(tmp_path / "saved"), demonstrations=SHOTS, **settings)
    assert again(IMAGES[0]) == loaded(IMAGES[0])

    asked = [(image, "w9", text) for image, text in SHOTS]
    answers = pipeline(
        "few-shot-image-to-text",
        model=model,
        processor=processor,
        demonstrations=asked,
        few_shot_task="answer",
        device="cpu",
    )
    assert (
        answers(IMAGES[0], "w8")["text"] == FewShotPredictor(model, processor, asked, "answer")(IMAGES[0], "w8").text
    )
    assert answers(IMAGES[0], question="w8", batch_size=4) == answers(IMAGES[0], "w8")
    with pytest.raises(ValueError, match="which are the same argument"):
        answers(IMAGES[0], "w8", question="w8")


def test_errors():
    parts = {"model": tiny_flamingo(), "device": "cpu"}
    with pytest.raises(ValueError, match="'top' is no argument of the pipeline. They are candidates, selection"):
        pipeline("few-shot-image-to-text", processor=tiny_processor(), top=3, **parts)
    with pytest.raises(ValueError, match="has no processor"):
        FewShotPipeline(**parts)
