# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Messages that lack something, in each of the chat templates and in training data, with the number of the message."""

import dataclasses
from types import SimpleNamespace

import pytest
from chat_templates import CHATML, instruct_processor

from transformers_flamingo.data import FORMATS, BadSampleError


GOOD = {"role": "user", "content": "Hi"}
BAD = [
    ({"content": "a"}, "has no `role` \\(it has 'content'\\)"),
    ({"from": "human", "value": "a"}, "has no `role` \\(it has 'from', 'value'\\)"),
    ({"role": None, "content": "a"}, "has no `role`"),
    ({"role": 1, "content": "a"}, "has the role 1. It must be a string"),
    ({"role": "user"}, "has no `content` \\(it has 'role'\\), so there is nothing to read"),
    ({"role": "user", "text": "a"}, "has no `content` \\(it has 'role', 'text'\\)"),
    ({"role": "user", "content": 5}, "has the content 5. It must be a text"),
    ({"role": "user", "content": ["a"]}, "has the content 'a'. It must be a text, or a list of blocks"),
    ({"role": "user", "content": [{"text": "a"}]}, "has the content .* It must be a text, or a list of blocks"),
    ({"role": "user", "content": [{"type": "text"}]}, "has a part of type text whose `text` is None \\(it has 'type'\\)"),
    ({"role": "user", "content": [{"type": "text", "content": "a"}]}, "has .*is None \\(it has 'type', 'content'\\)"),
    ({"role": "user", "content": [{"type": "text", "text": 5}]}, "has .*whose `text` is 5"),
    ({"role": "user", "content": [{"type": "audio"}]}, "asks for audio, but Flamingo reads text, images and videos"),
    ({"role": "user", "content": [{"type": "image_url"}]}, "asks for image_url"),
    ("Hi", "is 'Hi'. A message is a dict such as"),
]  # fmt: skip


@pytest.mark.parametrize("template", ["text", "few_shot"])
@pytest.mark.parametrize(("message", "expected"), BAD, ids=[str(message) for message, _ in BAD])
def test_a_message_that_lacks_something_is_named(template, message, expected):
    processor = instruct_processor(CHATML, chat_template=template)
    for tokenize in (False, True):
        with pytest.raises(ValueError, match=f"Message 1 {expected}"):
            processor.apply_chat_template([GOOD, message], tokenize=tokenize)
    with pytest.raises(ValueError, match=f"Message 0 of conversation 1 {expected}"):
        processor.apply_chat_template([[GOOD], [message]])


@pytest.mark.parametrize(("message", "expected"), BAD, ids=[str(message) for message, _ in BAD])
def test_a_row_of_training_data_that_lacks_something_is_named(message, expected):
    with pytest.raises(BadSampleError, match=f"a.jsonl, row 3: Message 1 {expected}.* Fix the row, or remove it"):
        FORMATS["messages"]().read({"messages": [GOOD, message], "__row__": 3, "__file__": "a.jsonl"})


def test_what_transformers_takes_is_taken():
    processor = instruct_processor(CHATML, chat_template="few_shot")
    message_type = dataclasses.make_dataclass("Message", ["role", "content"])
    pydantic = SimpleNamespace(model_dump=lambda: GOOD)
    called = {"role": "assistant", "content": None, "tool_calls": [{"type": "function"}]}
    assert processor.apply_chat_template([message_type("user", "Hi")]) == "Hi"
    assert processor.apply_chat_template([pydantic]) == "Hi"
    assert processor.apply_chat_template([GOOD, called]) == "Hi <|endofchunk|>"
    assert processor.apply_chat_template([{"role": "user", "content": []}]) == ""
    # A template of a user reads what it likes
    own = "{% for message in messages %}{{ message['value'] }}{% endfor %}"
    assert processor.apply_chat_template([{"from": "human", "value": "Hi"}], own) == "Hi"
    with pytest.raises(ValueError, match="Conversation 1 of the batch is {"):
        processor.apply_chat_template([[GOOD], GOOD])


@pytest.mark.parametrize("value", ["false", 1, 0])
def test_an_order_that_is_no_truth_value_is_refused(value):
    """In Jinja the text "false" is true."""
    with pytest.raises(ValueError, match=f"`images_first` is {value!r}. It must be True, False or None"):
        instruct_processor(CHATML).apply_chat_template([GOOD], images_first=value)
    for name in ("messages", "llava"):
        with pytest.raises(ValueError, match=f"`images_first` is {value!r}. It must be true or false"):
            FORMATS[name](images_first=value)
    for name in FORMATS:
        with pytest.raises(ValueError, match=f"`allow_remote` is {value!r}. It must be true or false"):
            FORMATS[name](allow_remote=value)
