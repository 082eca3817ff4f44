# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The word-level tokenizer: every word of the world is one token, and text survives the round trip."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from transformers_flamingo_miniature.texts import TEXT_KINDS, sample_text
from transformers_flamingo_miniature.tokenizer import (
    HELD_OUT_NONSENSE_WORDS,
    NONSENSE_WORDS,
    build_tokenizer,
    miniature_vocabulary,
)
from transformers_flamingo_miniature.vision_backbone import contrast_batch, partial_captions


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    build_tokenizer().save_pretrained(folder)
    return AutoTokenizer.from_pretrained(folder)


def test_vocabulary():
    vocabulary = miniature_vocabulary()
    assert len(vocabulary) == len(set(vocabulary))
    assert vocabulary[:3] == ("<|endoftext|>", "<|pad|>", "<|unk|>")
    assert set(HELD_OUT_NONSENSE_WORDS) < set(NONSENSE_WORDS) < set(vocabulary)
    assert len(NONSENSE_WORDS) == 24 and len(HELD_OUT_NONSENSE_WORDS) == 8


def test_special_tokens(tokenizer):
    assert tokenizer.is_fast and len(tokenizer) == len(miniature_vocabulary())
    assert (tokenizer.bos_token, tokenizer.eos_token) == ("<|endoftext|>", "<|endoftext|>")
    assert (tokenizer.eos_token_id, tokenizer.pad_token_id, tokenizer.unk_token_id) == (0, 1, 2)
    assert tokenizer.model_max_length == 512


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("a small red circle", ["a", "small", "red", "circle"]),
        ("question: what color? answer: red", ["question", ":", "what", "color", "?", "answer", ":", "red"]),
        ("Three Blue BARS.", ["three", "blue", "bars", "."]),
        ("a zebra", ["a", "<|unk|>"]),
    ],
)
def test_tokens(tokenizer, text, tokens):
    assert tokenizer.tokenize(text) == tokens
    assert tokenizer("")["input_ids"] == []


@given(kind=st.sampled_from(TEXT_KINDS), seed=st.integers(0, 2**32))
@settings(max_examples=80)
def test_round_trip_of_every_text(kind, seed):
    tokenizer = build_tokenizer()
    text = sample_text(kind, np.random.default_rng(seed))
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == text


def test_partial_captions_have_no_unknown_word(tokenizer):
    scenes, _ = contrast_batch(60, np.random.default_rng(0))
    texts = [text for scene in scenes for text in partial_captions(scene).values()]
    assert all(tokenizer.unk_token_id not in ids for ids in tokenizer(texts)["input_ids"])


def test_special_tokens_of_flamingo_can_be_added(tokenizer):
    tokenizer = build_tokenizer()
    size = len(tokenizer)
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|endofchunk|>", "<image>"]})
    ids = tokenizer("<image>a red circle<|endofchunk|><image>question: what color? answer:")["input_ids"]
    assert tokenizer.convert_ids_to_tokens(ids) == [
        "<image>", "a", "red", "circle", "<|endofchunk|>", "<image>",
        "question", ":", "what", "color", "?", "answer", ":",
    ]  # fmt: skip
    assert (ids[4], ids[0]) == (size, size + 1)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a red circle question: what color? answer:"
