# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Special tokens of Flamingo on any tokenizer, and tokenizers whose files are odd."""

import json

import pytest
from processors import EOC, make_image_processor, make_processor, make_tokenizer
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer

from transformers_flamingo.processing_flamingo import FlamingoProcessor


def test_special_tokens_are_added_in_the_order_of_openflamingo():
    tokenizer = make_tokenizer()
    size = len(tokenizer)
    processor = FlamingoProcessor(make_image_processor(), tokenizer)
    assert processor.end_of_chunk_token_id == size
    assert processor.image_token_id == size + 1
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<PAD>", size + 2)
    assert len(tokenizer) == size + 3
    assert {EOC, "<image>", "<PAD>"} <= set(tokenizer.all_special_tokens)
    assert tokenizer.encode(f"<image>a{EOC}") == [size + 1, *tokenizer.encode("a"), size]
    assert (processor.image_token, processor.end_of_chunk_token) == ("<image>", EOC)


def test_existing_tokens_keep_their_ids_and_become_special():
    tokenizer = make_tokenizer(pad_token="<|endoftext|>")
    tokenizer.add_tokens(["<image>"])
    tokenizer.add_special_tokens({"extra_special_tokens": ["<other>"]})
    image_id, size = tokenizer.convert_tokens_to_ids("<image>"), len(tokenizer)
    processor = FlamingoProcessor(make_image_processor(), tokenizer)
    assert processor.image_token_id == image_id
    assert processor.end_of_chunk_token_id == size
    assert len(tokenizer) == size + 1
    assert tokenizer.pad_token == "<|endoftext|>"
    assert processor.decode(tokenizer.encode(f"a <image><other>dog{EOC}"), skip_special_tokens=True) == "a dog"
    FlamingoProcessor(make_image_processor(), tokenizer)
    assert len(tokenizer) == size + 1, "a second processor on one tokenizer adds nothing"


def test_padding_is_left_again_after_saving_a_processor_that_padded_right(tmp_path):
    processor = make_processor()
    processor(text=["a", "a dog"], padding=True, padding_side="right")
    processor.save_pretrained(tmp_path)
    # The processor sets the attribute for this reason: tokenizer.json remembers the side of the last call
    assert AutoTokenizer.from_pretrained(tmp_path).padding_side == "right"
    again = FlamingoProcessor.from_pretrained(tmp_path)
    assert again(text=["a", "a dog"], padding=True)["attention_mask"][0][0] == 0


def save_llama(folder, **tokens) -> None:
    """Save a tokenizer with SentencePiece's own pieces, and a config with other names for some of them."""
    vocabulary = {"<unk>": 0, "<s>": 1, "</s>": 2, "▁a": 3, "▁": 4, "a": 5}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("▁", "a")], unk_token="<unk>"))
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    folder.mkdir()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps(tokens))


@pytest.mark.parametrize(
    "cls", ["LLaMATokenizer", "LlamaTokenizer", "PreTrainedTokenizerFast", "GPT2Tokenizer", "GPTNeoXTokenizer"]
)
@pytest.mark.parametrize("empty", [["unk"], ["bos", "eos", "unk"], ["pad"], ["eos"]])
@pytest.mark.parametrize("form", ["", {"__type": "AddedToken", "content": ""}])
def test_special_tokens_whose_name_is_empty(tmp_path, cls, empty, form):
    """transformers looks up the unknown token as that of an unknown token, in an endless recursion."""
    save_llama(tmp_path / "text", tokenizer_class=cls, **{f"{name}_token": form for name in empty})
    make_image_processor().save_pretrained(tmp_path / "vision")
    processor = FlamingoProcessor.from_vision_text_pretrained(tmp_path / "vision", tmp_path / "text")
    tokenizer = processor.tokenizer
    names = {"unk": "<unk>", "bos": "<s>", "eos": "</s>"}
    for name in empty:
        assert getattr(tokenizer, f"{name}_token") == names.get(name, "<PAD>")
    assert None not in tokenizer.all_special_ids
    assert "" not in tokenizer.all_special_tokens
    assert len({processor.image_token_id, processor.end_of_chunk_token_id, tokenizer.pad_token_id}) == 3
    processor.save_pretrained(tmp_path / "saved")
    again = FlamingoProcessor.from_pretrained(tmp_path / "saved")
    assert again.tokenizer.all_special_ids == tokenizer.all_special_ids
    assert again(text="a<image>")["input_ids"] == processor(text="a<image>")["input_ids"]


def test_an_empty_token_that_no_vocabulary_has_is_unset():
    tokenizer = make_tokenizer()
    tokenizer.unk_token = tokenizer.bos_token = ""
    with pytest.raises(RecursionError):
        tokenizer.convert_tokens_to_ids("no such token")
    processor = FlamingoProcessor(make_image_processor(), tokenizer)
    assert (tokenizer.unk_token, tokenizer.bos_token) == (None, None)
    assert processor(text="a dog", images=None)["input_ids"] == [tokenizer.encode("a dog")]


def test_the_tokenizer_names_the_image_token(tmp_path):
    """Stock clients read `tokenizer.image_token`."""
    processor = make_processor()
    ids = (processor.end_of_chunk_token_id, processor.image_token_id, processor.tokenizer.pad_token_id)
    for step in range(2):
        assert processor.tokenizer.image_token == processor.image_token == "<image>"
        assert processor.tokenizer.image_token_id == processor.image_token_id
        assert (processor.end_of_chunk_token_id, processor.image_token_id, processor.tokenizer.pad_token_id) == ids
        processor.save_pretrained(tmp_path / str(step))
        assert AutoTokenizer.from_pretrained(tmp_path / str(step)).image_token == "<image>"
        processor = FlamingoProcessor.from_pretrained(tmp_path / str(step))
    # A tokenizer that was saved before the token had a name
    old = make_tokenizer()
    old.add_special_tokens({"extra_special_tokens": [EOC, "<image>"]})
    old.save_pretrained(tmp_path / "old")
    old = FlamingoProcessor(make_image_processor(), AutoTokenizer.from_pretrained(tmp_path / "old"))
    assert (old.end_of_chunk_token_id, old.image_token_id, old.tokenizer.image_token) == (*ids[:2], "<image>")
    assert "<image>" not in make_processor(image_token_is_text=True).tokenizer.get_vocab()
