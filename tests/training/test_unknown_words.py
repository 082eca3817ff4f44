# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Which of the tokens that are learned are unknown to the tokenizer, and the words behind them."""

import pytest
import torch
from factory import IMAGE_SIZE
from processors import make_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from transformers_flamingo import FlamingoProcessor
from transformers_flamingo.data import FlamingoDataCollator
from transformers_flamingo.training.unknown_words import MAX_UNKNOWN_SHARE, UnknownWords


def processor(tokenizer) -> FlamingoProcessor:
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    return FlamingoProcessor(CLIPImageProcessorPil(size=size, crop_size=size), tokenizer)


def words_of(*known: str) -> FlamingoProcessor:
    """Return a processor that knows these words alone."""
    vocabulary = {word: i for i, word in enumerate(("<unk>", "<eos>", *known))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return processor(PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", eos_token="<eos>"))


def count(processor: FlamingoProcessor, *rows: dict) -> UnknownWords:
    words, collator = UnknownWords(processor), FlamingoDataCollator(processor)
    for row in rows:
        row = {"supervised": [(len("<image>"), len(row["text"]))], **row, "image_features": [torch.zeros(1, 1)]}
        words.add(row, collator([row])["labels"][0])
    return words


def test_only_what_is_learned_is_counted():
    words = count(
        words_of("a", "red", "what", "?"),
        {"text": "<image>whose cat? a red zebra<|endofchunk|>", "supervised": [(17, 43)]},
        {"text": "<image>a zebra-crossing<|endofchunk|>"},
    )
    # a red zebra <|endofchunk|>, and a zebra - crossing <|endofchunk|>
    assert (words.supervised, words.unknown) == (9, 4)
    assert words.words == {"zebra": 2, "-": 1, "crossing": 1}
    assert words.share == pytest.approx(4 / 9)
    assert words.is_too_large
    text = words.describe()
    assert "44.4% of the tokens to learn (4 of 9) are '<unk>'" in text
    assert "'zebra' (2)" in text and "Choose a `text` backbone" in text
    assert "tokens to generate" in words.describe("generate")


def test_the_limit():
    known = words_of("a")
    row = {"text": "<image>" + "a " * 18 + "{}<|endofchunk|>"}
    few = count(known, {"text": row["text"].format("b")})
    assert few.share == MAX_UNKNOWN_SHARE
    assert not few.is_too_large
    assert count(known, {"text": row["text"].format("b c")}).is_too_large


def test_the_most_frequent_words_are_named():
    text = "<image>" + " ".join(f"w{i:02}" for i in range(12)) + " w11<|endofchunk|>"
    said = count(words_of(), {"text": text}).describe()
    assert "words: 'w11' (2), 'w00' (1)," in said
    assert "and 4 others" in said


def test_a_byte_level_tokenizer_knows_everything_even_if_its_end_is_named_unknown():
    gpt2 = processor(make_tokenizer())
    assert gpt2.tokenizer.unk_token == gpt2.tokenizer.eos_token
    words = count(gpt2, {"text": "<image>日本語 🍎 zebra<|endofchunk|><|endoftext|>"})
    assert words.supervised > 10
    assert (words.unknown, words.share) == (0, 0)


def bare(model) -> FlamingoProcessor:
    """Return a processor whose tokenizer names no unknown token."""
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return processor(PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>"))


def test_a_tokenizer_that_refuses_what_it_does_not_know():
    words = count(bare(models.WordLevel({"a": 0, "<eos>": 1})), {"text": "<image>a<|endofchunk|>"})
    assert (words.token, words.name, words.supervised, words.unknown) == (None, None, 2, 0)


def test_an_unknown_token_that_the_tokenizer_does_not_name():
    model = models.Unigram([("?", 0.0), ("a", 0.0), ("<eos>", 0.0)], unk_id=0)
    words = count(bare(model), {"text": "<image>a bc<|endofchunk|>"})
    assert (words.token, words.supervised, words.unknown, words.words) == ("?", 3, 1, {"bc": 1})


def test_a_tokenizer_that_drops_what_it_does_not_know():
    letters = {"a": 0, "b": 1, "<eos>": 2}
    words = count(
        bare(models.BPE(letters, [])),
        {"text": "<image>zz ab ac<|endofchunk|>", "supervised": [(10, 29)]},
    )
    # a b, the a of ac, <|endofchunk|>, and what is dropped
    assert (words.name, words.supervised, words.unknown, words.words) == ("dropped", 5, 1, {"ac": 1})
    assert "are dropped" in words.describe() and "learn to leave them out" in words.describe()


def test_a_text_that_spells_the_unknown_token_is_unknown():
    assert count(words_of("a"), {"text": "<image>a <unk><|endofchunk|>"}).unknown == 1


def test_a_part_of_a_word_is_named_with_its_word():
    tokenizer = Tokenizer(models.WordPiece({"[UNK]": 0, "caf": 1, "a": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("é", "isolated")
    pieces = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]")
    assert count(processor(pieces), {"text": "<image>café<|endofchunk|>"}).words == {"café": 1}
