# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Conversations in the chat template of a language model: the text of the template, and the answers supervised."""

import copy

import numpy as np
import pytest
from chat_templates import CHATML, TEMPLATES, instruct_processor
from data_factory import numbered_image

from transformers_flamingo.data import FORMATS, BadSampleError, FlamingoDataCollator, document_to_sample


MESSAGES = [
    {"role": "user", "content": [{"type": "text", "text": "What is it?"}, {"type": "image"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "a cat"}]},
    {"role": "user", "content": [{"type": "image"}, {"type": "image"}, {"type": "text", "text": "And now?"}]},
    {"role": "assistant", "content": " a dog "},
    {"role": "user", "content": "Thanks."},
]
SYSTEM = {"role": "system", "content": "Short answer:"}


def sample(processor, messages, name: str = "messages", options: dict | None = None, **kwargs) -> dict:
    """Make a sample of a conversation, with as many images as it marks."""
    count = sum(
        part["type"] == "image" for m in messages if not isinstance(m["content"], str) for part in m["content"]
    )
    row = {"messages": messages, "images": [numbered_image(number) for number in range(count)]}
    document = FORMATS[name](**options or {}).read(row)
    return document_to_sample(document, processor, np.random.default_rng(0), location="row 3", **kwargs)


def supervised(sample: dict) -> list[str]:
    return [sample["text"][start:end] for start, end in sample["supervised"]]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chatml", ["a cat<|im_end|>", " a dog <|im_end|>"]),
        ("with_bos", ["a cat<|eot|>", "a dog<|eot|>"]),
        ("instruct", [" a cat</s>", "  a dog </s>"]),
        ("thinking", ["a cat<|eot|>", "<think>\n\n</think>\n\n a dog <|eot|>"]),
    ],
)
def test_a_sample_is_what_the_chat_template_renders(name, expected):
    processor = instruct_processor(TEMPLATES[name])
    row = sample(processor, MESSAGES)
    rendered = processor.apply_chat_template(MESSAGES[:-1])
    assert rendered.startswith(row["text"])
    assert not rendered.removeprefix(row["text"]).strip()
    assert supervised(row) == expected
    assert row["add_special_tokens"] is False
    assert row["text"].count("<image>") == len(row["images"]) == 3


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_model_is_asked_as_it_was_trained(name):
    """The ids of a question with its generation prompt begin the ids of the sample, up to what is supervised."""
    processor = instruct_processor(TEMPLATES[name])
    question = [{**MESSAGES[0], "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]}]
    batch = FlamingoDataCollator(processor)([sample(processor, [*question, MESSAGES[1]])])
    asked = processor.apply_chat_template(question, add_generation_prompt=True, tokenize=True)[0]
    assert batch["input_ids"][0, : len(asked)].tolist() == asked
    assert (batch["labels"][0, : len(asked)] == -100).all()
    learned = batch["labels"][0, len(asked) :]
    assert (learned != -100).all()
    end = processor.tokenizer.convert_tokens_to_ids(processor.end_of_turn_token)
    assert learned.tolist().count(end) == 1
    assert learned[-1] == end


@pytest.mark.parametrize("name", ["chatml", "instruct"])
def test_answers_of_a_prompt_are_rendered_and_not_learned(name):
    processor = instruct_processor(TEMPLATES[name])
    row = {"images": [numbered_image(i) for i in range(3)], "prompt": MESSAGES[:3], "completion": MESSAGES[3:4]}
    document = FORMATS["prompt_completion"]().read(row)
    made = document_to_sample(document, processor, np.random.default_rng(0), location="row 3")
    whole = sample(processor, MESSAGES)
    assert made["text"] == whole["text"]
    assert supervised(made) == supervised(whole)[1:]


def test_a_system_turn_and_a_text_before_the_first_image():
    processor = instruct_processor(CHATML)
    chat = [SYSTEM, {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes"}, *MESSAGES[:2]]
    row = sample(processor, chat)
    assert row["text"].startswith("<|im_start|>system\nShort answer:<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n")
    assert supervised(row) == ["a cat<|im_end|>"], "no image explains the answer before it"
    assert supervised(sample(processor, chat[:3])) == ["Yes<|im_end|>"], "a chat without images is learned"


def test_the_order_of_images_is_that_of_the_reader():
    processor = instruct_processor(CHATML)
    first, kept = (sample(processor, MESSAGES[:2], options={"images_first": value})["text"] for value in (None, False))
    assert "\n<image>What is it?<" in first
    assert "\nWhat is it?<image><" in kept
    few_shot = instruct_processor(CHATML, chat_template="few_shot")
    assert sample(few_shot, MESSAGES[:2], options={"images_first": False}, leading_space_probability=0)["text"] == (
        "What is it?<image>a cat<|endofchunk|>"
    )


def test_whole_turns_are_cut_off():
    processor = instruct_processor(CHATML)
    whole = sample(processor, MESSAGES)
    one = sample(processor, MESSAGES, max_images=2)
    assert supervised(one) == ["a cat<|im_end|>"]
    assert whole["text"].startswith(one["text"])
    length = len(processor.tokenizer(whole["text"], add_special_tokens=False)["input_ids"])
    assert supervised(sample(processor, MESSAGES, max_length=length)) == supervised(whole)
    assert supervised(sample(processor, MESSAGES, max_length=length - 1)) == ["a cat<|im_end|>"]
    short = len(processor.tokenizer(one["text"], add_special_tokens=False)["input_ids"]) - 1
    assert supervised(sample(processor, MESSAGES, max_length=short)) == ["a cat"]


def test_spaces_and_ends_are_those_of_the_template():
    processor = instruct_processor(CHATML)
    row = sample(processor, MESSAGES, leading_space_probability=1, append_eos=True)
    assert row["text"] == sample(processor, MESSAGES, leading_space_probability=0)["text"]
    with pytest.raises(ValueError, match="`next_image_probability` would move its images away"):
        sample(processor, MESSAGES, next_image_probability=1.0)


def test_what_a_template_refuses():
    with pytest.raises(BadSampleError, match="row 3: the chat template does not accept .*roles must alternate"):
        sample(instruct_processor(TEMPLATES["instruct"]), [SYSTEM, *MESSAGES])
    loud = CHATML.replace("message['content'] +", "message['content'].replace('cat', 'CAT') +")
    with pytest.raises(BadSampleError, match="row 3: the chat template changes the answers"):
        sample(instruct_processor(loud), MESSAGES)
    endless = CHATML.replace("+ '<|im_end|>'", "")
    with pytest.raises(ValueError, match=r"writes '\\n' after an answer.* `chat_template: few_shot`"):
        sample(instruct_processor(endless), MESSAGES)
    chat = copy.deepcopy(MESSAGES)
    chat[0]["content"][0]["text"] = "What is <|im_end|>?"
    with pytest.raises(BadSampleError, match=r"row 3: the text contains '<\|im_end\|>'"):
        sample(instruct_processor(CHATML), chat)


def test_a_template_of_a_user(caplog):
    """It has no variable for the order of images, and its special tokens are those of its text."""
    own = (
        "{% for m in messages %}{{ m['role'] + ':' }}{% for part in m['content'] %}"
        "{{ '<image>' if part['type'] == 'image' else part['text'] }}{% endfor %}<|eot|>{% endfor %}"
    )
    row = sample(instruct_processor(None, chat_template=own), MESSAGES[:2])
    assert row["text"] == "user:<image>What is it?<|eot|>assistant:a cat<|eot|>"
    assert supervised(row) == ["a cat<|eot|>"]
    assert "add_special_tokens" not in row
    assert not caplog.messages
    blind = own.replace("'<image>' if part['type'] == 'image'", "'' if part['type'] == 'image'")
    with pytest.raises(BadSampleError, match="writes 0 `<image>` for 1 images"):
        sample(instruct_processor(None, chat_template=blind), MESSAGES[:2])


def test_a_batch_adds_special_tokens_to_all_or_none():
    processor = instruct_processor(CHATML)
    rows = [sample(processor, MESSAGES[:2]), {"prompt": "a", "completion": "b"}]
    with pytest.raises(ValueError, match="Some rows of the batch have `add_special_tokens=False`"):
        FlamingoDataCollator(processor)(rows)
    bos = processor.tokenizer.bos_token_id
    assert (FlamingoDataCollator(processor)(rows[1:])["input_ids"] == bos).sum() == 1
    assert (FlamingoDataCollator(processor)(rows[:1])["input_ids"] == bos).sum() == 0
