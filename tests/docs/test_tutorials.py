# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The code of each tutorial runs from its first line to its last, and prints what the page shows; a training has two steps."""

from importlib.util import find_spec
from pathlib import Path

import pytest
from page_blocks import check_page


ROOT = Path(__file__).parents[2]
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
NEEDS = {"lora-4bit": "bitsandbytes", "video": "av"}
# The one has no block that runs, and the other needs a Hub: tests/hub/test_hub_tutorial.py
IN_PROCESS = [page for page in TUTORIALS if page.stem not in ("real-pictures", "share-on-the-hub")]
ENDS = ("## What can go wrong", "Read on:")


@pytest.mark.parametrize("page", IN_PROCESS, ids=lambda page: page.stem)
def test_a_tutorial_runs(page, tmp_path, monkeypatch):
    if page.stem in NEEDS and find_spec(NEEDS[page.stem]) is None:
        pytest.skip(f"needs {NEEDS[page.stem]}")
    monkeypatch.chdir(tmp_path)
    if page.stem == "continue-open-flamingo":
        (tmp_path / "tiny").symlink_to(ROOT / "tests" / "golden" / "open_flamingo" / "gpt_neox_every2")
    assert check_page(page, max_steps=2) > 0


def test_all_tutorials_are_there():
    assert [page.stem for page in TUTORIALS] == [
        "captions",
        "continue-open-flamingo",
        "label-images",
        "lora-4bit",
        "own-encoder",
        "real-pictures",
        "share-on-the-hub",
        "video",
        "vqa",
    ]
    for page in TUTORIALS:
        text = page.read_text(encoding="utf-8")
        assert text.splitlines()[2].startswith("You get "), page
        assert page.stem == "real-pictures" or all(words in text for words in ENDS), page
