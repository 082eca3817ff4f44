# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
import pytest

from transformers_flamingo.utils.names import summarize_names


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], "none"),
        (["a"], "a"),
        (["a", "b"], "a, b"),
        (["a", "b", "c"], "a, b, and 1 more"),
        (["a" * 201], "a" * 200 + "..."),
    ],
)
def test_a_list_of_names_is_cut(names, expected):
    assert summarize_names(names, limit=2) == expected
    assert summarize_names(iter(names), limit=2) == expected
