# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
import pytest

from transformers_flamingo.utils.names import count_of, summarize_names


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


def test_a_number_with_its_noun():
    assert [count_of(number, "row") for number in (0, 1, 2, 1000)] == ["0 rows", "1 row", "2 rows", "1,000 rows"]
