# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Build the word-level tokenizer of the miniature world."""

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from .world import BACKGROUNDS, COLORS, COUNTS, DIRECTIONS, NUMBER_WORDS, PLURALS, QUESTION_TOPICS, SHAPES, SIZES


# Words without a meaning of their own, to be bound to what is seen by examples in the prompt (fast binding, Tsimpoukelli
# et al. 2021). The held-out ones occur in text, but never in a training prompt with images.
NONSENSE_WORDS = (
    "dax", "blicket", "wug", "fep", "toma", "zorp", "kiki", "bouba", "gazzer", "lorp", "mib", "nax",
    "pimwit", "quib", "rell", "snurf", "tulver", "vash", "wix", "yamp", "zibble", "blorn", "crog", "dwib",
)  # fmt: skip
HELD_OUT_NONSENSE_WORDS = NONSENSE_WORDS[-8:]

_FUNCTION_WORDS = (
    "a", "an", "and", "answer", "background", "color", "describe", "direction", "does", "image", "is", "it", "like",
    "many", "how", "move", "moves", "of", "no", "object", "objects", "on", "or", "picture", "position", "question",
    "same", "size", "something", "that", "the", "thing", "things", "this", "to", "two", "video", "way", "what", "where",
    "which", "with", "yes", "shape", "count", "four", "one", "three",
)  # fmt: skip
_PUNCTUATION = (".", ",", ":", ";", "?", "!")

END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"
UNKNOWN = "<|unk|>"


def miniature_vocabulary() -> tuple[str, ...]:
    """Return all tokens of the miniature world in the order of their ids: special tokens, punctuation, then words, sorted."""
    words = {
        *SHAPES, *PLURALS.values(), *COLORS, *SIZES, *BACKGROUNDS, *DIRECTIONS, *QUESTION_TOPICS, *NONSENSE_WORDS,
        *(NUMBER_WORDS[count] for count in COUNTS), *_FUNCTION_WORDS,
    }  # fmt: skip
    return (END_OF_TEXT, PAD, UNKNOWN, *_PUNCTUATION, *sorted(words))


def build_tokenizer(model_max_length: int = 512) -> PreTrainedTokenizerFast:
    """
    Build a word-level tokenizer for the miniature world, as a fast tokenizer that `AutoTokenizer` loads.

    Words and punctuation marks are one token each; case is folded, so that a user may type "What color?". Decoding puts
    single spaces between words and none before punctuation. `<image>` and `<|endofchunk|>` are not in the vocabulary:
    they are added when a Flamingo is assembled, as for any other language model.

    Args:
        model_max_length (`int`, *optional*, defaults to 512): Maximum number of tokens of a text.
    """
    vocabulary = {token: index for index, token in enumerate(miniature_vocabulary())}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    # Lower-casing belongs in the normalizer, which skips added special tokens.
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation(behavior="isolated")]
    )
    # The WordPiece decoder joins tokens by spaces ("##" never occurs here); its own clean-up does not know ":".
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.WordPiece(prefix="##", cleanup=False),
            decoders.Fuse(),
            *(decoders.Replace(f" {mark}", mark) for mark in _PUNCTUATION),
        ]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        pad_token=PAD,
        unk_token=UNKNOWN,
        model_max_length=model_max_length,
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )
