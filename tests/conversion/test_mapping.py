# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The mapping table of a conversion as text."""

from transformers_flamingo.conversion import format_table
from transformers_flamingo.conversion.mapping import MappedKey


def test_the_table_as_text():
    table = [MappedKey("a.b", "model.long", (2, 3)), MappedKey("bias", None, (), "an old buffer")]
    assert format_table(table) == (
        "SOURCE  TARGET      SHAPE   REASON\n"
        "a.b     model.long  2x3     converted\n"
        "bias    -           scalar  an old buffer"
    )
