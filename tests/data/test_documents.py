# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
from data_factory import numbered_image

from transformers_flamingo.data import Chunk, interleave


CAT, DOG = numbered_image(1), numbered_image(2)


def test_interleave():
    assert interleave(["a", " ", "b ", CAT, DOG, " c", "d"], separator="\n\n") == [
        Chunk("a\n\nb"),
        Chunk("", CAT),
        Chunk("c\n\nd", DOG),
    ]
