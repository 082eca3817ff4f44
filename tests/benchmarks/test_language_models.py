# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The table of all causal language models: nothing is missing in it, and it says what its script finds."""

import json
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
import transformers
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


SCRIPT = Path(__file__).parents[2] / "benchmarks" / "language_models.py"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="the source distribution has no benchmarks")


@pytest.fixture(scope="module")
def script():
    spec = spec_from_file_location("benchmarks_language_models", SCRIPT)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def result(script):
    return json.loads(script.RESULTS.read_text(encoding="utf-8"))


def test_every_entry_has_a_verdict(result):
    if transformers.__version__ != result["transformers"]:
        pytest.skip("the table is of another release: run `python benchmarks/language_models.py --save`")
    assert [row["type"] for row in result["rows"]] == sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    assert {row["verdict"] for row in result["rows"]} == {"works", "refused"}
    assert all(row["remark"] for row in result["rows"] if row["verdict"] == "refused")


def test_the_docs_have_the_table(script, result):
    assert script.table(result["rows"]) in script.DOCS.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "model_type",
    [
        "llama",
        "bloom",  # passes no keywords to its layers
        "bamba",  # layers of two kinds
        "gemma3",  # a multimodal model
        "roberta",  # as a decoder
        "marian",  # cannot be padded on the left
        "mamba",
        "musicgen",
        "blt",
    ],
)
def test_the_script_finds_what_the_table_says(script, result, model_type):
    assert script.verdict(model_type) == next(row for row in result["rows"] if row["type"] == model_type)
