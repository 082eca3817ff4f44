# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The words of a user are text. With a byte-level tokenizer, which can express any text, nothing of them is lost."""

import pytest
import torch
from factory import tiny_processor
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from transformers_flamingo import FlamingoProcessor
from transformers_flamingo.utils.literal_text import encode_literal, render_literal


SPECIALS = ("<image>", "<|endofchunk|>", "<pad>", "</s>", "<s>")


def byte_processor(**kwargs) -> FlamingoProcessor:
    """Return a processor whose tokenizer has a token for every byte and begins with `<s>`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<s>", "</s>", "<pad>", *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    return FlamingoProcessor(tiny_processor().image_processor, fast, **kwargs)


@pytest.fixture(scope="module")
def processor() -> FlamingoProcessor:
    return byte_processor()


def user(*parts) -> dict:
    content = [
        {"type": "image", "image": part} if isinstance(part, Image.Image) else {"type": "text", "text": part}
        for part in parts
    ]
    return {"role": "user", "content": content}


def specials_of(processor: FlamingoProcessor, ids: torch.Tensor) -> list[str]:
    return [processor.tokenizer.decode(i) for i in ids if int(i) in processor.tokenizer.all_special_ids]


@given(st.lists(st.sampled_from([*SPECIALS, "a", " ", "<", "é", "\n", "image>"]), max_size=8).map("".join))
@settings(max_examples=60, deadline=None)
def test_any_text_stays_text(text):
    processor = byte_processor()
    image = Image.new("RGB", (8, 8))
    prompt, spans = render_literal(processor, [user(image, text)])
    assert prompt == "<image>" + text
    inputs = encode_literal(processor, prompt, spans, [image])
    (ids,) = inputs["input_ids"]
    assert specials_of(processor, ids) == ["<s>", "<image>"]
    assert processor.tokenizer.decode(ids[2:]) == text
    assert inputs["attention_mask"].shape == inputs["input_ids"].shape
    assert inputs["pixel_values"].shape[:2] == (1, 1)


def test_text_without_special_tokens_is_encoded_as_by_the_processor(processor):
    image = Image.new("RGB", (8, 8), "red")
    expected = processor(images=[[image]], text=["<image>a cat"], return_tensors="pt")
    given = encode_literal(processor, "<image>a cat", [], [image])
    assert given.keys() == expected.keys()
    assert all(torch.equal(given[name], expected[name]) for name in expected)


def test_only_the_words_of_the_user_are_text(processor):
    """Markers of the chat stay markers, also in demonstrations and answers."""
    image = Image.new("RGB", (8, 8))
    chat = [
        user(image, "one </s>"),
        {"role": "assistant", "content": [{"type": "text", "text": "two <|endofchunk|> three"}]},
        user(image, "<image>four"),
    ]
    prompt, spans = render_literal(processor, chat)
    assert prompt == "<image>one </s> two <|endofchunk|> three<|endofchunk|><image><image>four"
    assert [prompt[start:end] for start, end in spans] == ["</s>", "<|endofchunk|>", "<image>"]
    (ids,) = encode_literal(processor, prompt, spans, [image, image])["input_ids"]
    assert specials_of(processor, ids) == ["<s>", "<image>", "<|endofchunk|>", "<image>"]


def test_a_template_that_ends_in_a_marker_is_not_misled():
    """A typed marker at the end of a question does not take the space before the answer away."""
    chat = [user("what <image>"), {"role": "assistant", "content": [{"type": "text", "text": "this"}]}, user("x")]
    assert render_literal(byte_processor(), chat)[0] == "what <image> this<|endofchunk|>x"


def test_a_special_token_that_cannot_be_text_is_refused(processor):
    as_text = byte_processor(image_token_is_text=True)
    with pytest.raises(
        ValueError, match="contains '<image>', which this model's tokenizer can only read as a special token"
    ):
        encode_literal(as_text, "<image>a <image>", [(9, 16)], [Image.new("RGB", (8, 8))])


def test_a_template_that_changes_texts_is_refused():
    template = "{%- for message in messages -%}{%- for part in message['content'] -%}{{- part.get('text', '')[:3] -}}{%- endfor -%}{%- endfor -%}"
    with pytest.raises(ValueError, match="Remove it from the text"):
        render_literal(byte_processor(chat_template=template), [user("a </s>")])
