# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Test that the panel of shots labels images as the predictor does."""

import pytest
from PIL import Image

from transformers_flamingo import FewShotPredictor


gr = pytest.importorskip("gradio")

from transformers_flamingo.apps.chat_labels import CLASS, TEXT, LabelActions  # noqa: E402


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> list[str]:
    folder = tmp_path_factory.mktemp("labels")
    paths = [folder / f"{color}.png" for color in ("green", "white", "broken", "black")]
    for path in paths:
        Image.new("RGB", (20, 10), path.stem).save(path) if path.stem != "broken" else path.write_bytes(b"no")
    return [str(path) for path in paths]


@pytest.mark.parametrize(
    ("kind", "question", "task"),
    [(CLASS, "", "classify"), (TEXT, "", "caption"), (TEXT, " w9", "answer"), (CLASS, "w9", "answer")],
)
def test_labels_are_those_of_the_predictor(chat, images, files, kind, question, task):
    examples = [(images[0], "w5 w6"), (images[1], "w7"), (images[1], "w7")]
    asked = question.strip()
    shots = [(image, asked, text) if asked else (image, text) for image, text in examples]
    candidates = ["w5 w6", "w7"] if kind == CLASS else None
    predictor = FewShotPredictor(chat.model, chat.processor, shots, task, candidates=candidates, on_error="skip")
    expected = predictor(files, asked or None)
    tables = list(LabelActions(chat).label(files, examples, kind, question))
    assert [len(table) for table in tables] == [1, 2, 3, 4]
    for (name, text, score), prediction, file in zip(tables[-1], expected, files, strict=True):
        assert name in file
        if name == "broken.png":
            assert "broken.png" in text and "cannot be decoded" in text and "/" not in text
        else:
            assert text == prediction.text
            assert score == (None if kind == TEXT else pytest.approx(prediction.score, abs=1e-3))


def test_errors_are_warnings(chat, images, files):
    label = LabelActions(chat).label
    for arguments, message in (
        (([], [], TEXT, ""), "There is nothing to label"),
        ((files * 17, [], TEXT, ""), "There are 68 images, but at most 64"),
        ((files, [(images[0], "w5")], CLASS, ""), "Add examples with two different texts"),
        ((files, [(images[0], "w5 <image>")], TEXT, ""), "It has &#x27;&lt;image&gt;"),
        ((files, [], TEXT, "w8 " * 10_000), "The text has 30,000 characters"),
    ):
        with pytest.warns(UserWarning, match=message):
            assert list(label(*arguments)) == [[]]
