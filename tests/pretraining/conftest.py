# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Fixtures of the pretraining tests."""

import datasets
import pytest
from runs import write_pairs


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


@pytest.fixture
def pairs(tmp_path) -> str:
    return write_pairs(tmp_path / "pairs", 12)
