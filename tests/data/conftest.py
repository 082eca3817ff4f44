# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
import datasets
import pytest
from data_factory import bpe_processor

from transformers_flamingo import FlamingoProcessor


@pytest.fixture(scope="session")
def processor() -> FlamingoProcessor:
    return bpe_processor()


@pytest.fixture(autouse=True)
def _separate_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()
