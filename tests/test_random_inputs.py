# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""A few fixed inputs of `fuzz.py`: each gives a result or a clear error."""

import warnings

import pytest
from fuzz import fuzz
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize("surface", ["images", "processor", "data rows", "videos"])
def test_random_inputs_are_results_or_clear_errors(surface):
    @settings(max_examples=3, derandomize=True, database=None)
    @given(seed=st.integers(0, 2**32))
    def try_some(seed):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            counts, examples = fuzz(60, seed, [surface])
        assert not examples
        assert counts[surface]["result"] and counts[surface]["clear error"]

    try_some()
