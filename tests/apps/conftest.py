# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""A tiny chat and its images."""

import pytest
from factory import tiny_flamingo, tiny_processor
from PIL import Image

from transformers_flamingo.apps.chat import FlamingoChat


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> list[str]:
    directory = tmp_path_factory.mktemp("images")
    paths = [directory / f"{color}.png" for color in ("red", "blue")]
    for path in paths:
        Image.new("RGB", (20, 10), path.stem).save(path)
    return [str(path) for path in paths]


@pytest.fixture(scope="module")
def chat() -> FlamingoChat:
    return FlamingoChat(tiny_flamingo(gates=2.0), tiny_processor())
