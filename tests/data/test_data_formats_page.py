# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The page of the formats says what their classes say."""

import pytest
from data_formats import PAGE, START, describe_options, make_sections

from transformers_flamingo.data import FORMATS


def test_the_page_is_that_of_the_classes():
    _, start, sections = PAGE.read_text(encoding="utf-8").partition(START)
    assert start + sections == make_sections(), "run tests/data_formats.py"


@pytest.mark.parametrize("name", FORMATS)
def test_each_format_has_columns_and_documents_its_options(name):
    assert any(column.is_required for column in FORMATS[name].columns)
    describe_options(FORMATS[name])  # a KeyError names the option without a text
