# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Few-shot prompts from demonstrations and from chats, with exact strings."""

import base64
import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from processors import EOC, A, B, C, assistant, bare, make_processor, png_bytes, shared_processor, user

from transformers_flamingo.processing_flamingo import FlamingoProcessor


@pytest.fixture
def processor() -> FlamingoProcessor:
    return shared_processor()


def test_custom_token_strings():
    processor = make_processor(image_token='<"im">', end_of_chunk_token="<eoc>")
    assert processor(images=A, text='<"im">a')["input_ids"][0][0] == processor.image_token_id
    chat = [
        {"role": "user", "content": [{"type": "image"}]},
        {"role": "assistant", "content": "a dog"},
    ]
    assert processor.apply_chat_template(chat) == '<"im">a dog<eoc>'


def test_few_shot_prompt(processor):
    prompt = processor.few_shot_prompt([(A, "a cat."), (B, "a dog.")], C, prefix="Output:")
    assert prompt["text"] == [f"<image>Output:a cat.{EOC}<image>Output:a dog.{EOC}<image>Output:"]
    assert prompt["images"] == [[A, B, C]]
    inputs = processor(**prompt, return_tensors="pt")
    assert torch.equal(inputs["pixel_values"][0], torch.stack([bare(A), bare(B), bare(C)]))

    question = "Question:What is it? Short answer:"
    prompt = processor.few_shot_prompt([(A, f"{question}cat")], B, question)
    assert prompt["text"] == [f"<image>{question}cat{EOC}<image>{question}"]
    zero_shot = processor.few_shot_prompt([(None, "a cat"), (None, "a dog")], C, prefix="Output:")
    assert zero_shot["text"] == [f"Output:a cat{EOC}Output:a dog{EOC}<image>Output:"]
    assert zero_shot["images"] == [[C]]
    assert processor.few_shot_prompt([], A) == {"images": [[A]], "text": ["<image>"]}
    assert processor.few_shot_prompt([], query_text="a") == {"images": [[]], "text": ["a"]}

    video = processor.few_shot_prompt([([A, B], "a cat")], [C])
    both = {key: prompt[key] + video[key] for key in video}
    inputs = processor(**both, padding=True, return_tensors="pt")
    assert inputs["frame_attention_mask"].tolist() == [[[1, 0], [1, 0]], [[1, 1], [1, 0]]]


def test_few_shot_text(processor):
    shots = [(1, "a cat"), (2, "a dog"), (0, "red")]
    assert processor.few_shot_text(shots, (1, "Output:"), separator=" ") == (
        f"<image>a cat{EOC} <image><image>a dog{EOC} red{EOC} ",
        "<image>Output:",
    )
    assert processor.few_shot_text(shots[:1]) == (f"<image>a cat{EOC}", "<image>")
    assert processor.few_shot_text([], (0, "a")) == ("", "a")
    assert processor.few_shot_text((), (3, "")) == ("", "<image>" * 3)


def test_the_two_parts_of_a_prompt_are_tokenized_as_the_whole(processor):
    """The demonstrations' part is computed once for many queries."""
    parts = processor.few_shot_text([(1, "a cat"), (0, "a dog")], (1, "What is it?"))
    ids = [processor.tokenizer.encode(text) for text in (*parts, "".join(parts))]
    assert ids[0] + ids[1] == ids[2]


def test_a_chat_is_the_prompt_of_its_demonstrations(processor):
    chat = [user(A), assistant("a cat"), user(B), assistant("a dog"), user(C)]
    prompt = processor.few_shot_prompt([(A, "a cat"), (B, "a dog")], C)
    assert prompt["text"] == [processor.apply_chat_template(chat)]


def test_few_shot_prompt_refuses_what_would_shift_the_images(processor):
    with pytest.raises(ValueError, match=r"The text of demonstration 1 is 'a <image>'"):
        processor.few_shot_prompt([(A, "a"), (B, "a <image>")], C)
    with pytest.raises(ValueError, match=r"The text of the query is '<image>'"):
        processor.few_shot_prompt([(A, "a")], C, "<image>")
    with pytest.raises(ValueError, match=r"The text of demonstration 0 is None"):
        processor.few_shot_prompt([(A, None)], C)
    with pytest.raises(ValueError, match=r"demonstration 0 is a str, not a pair"):
        processor.few_shot_prompt(["a cat"], C)


@pytest.mark.parametrize(
    ("chat", "expected"),
    [
        ([user(A)], "<image>"),
        ([user(A), assistant("a cat")], f"<image>a cat{EOC}"),
        ([user(A, "What is it?")], "<image>What is it?"),
        ([user(A, "What is it?"), assistant("a cat")], f"<image>What is it? a cat{EOC}"),
        ([user(A, "What is it?"), assistant(" a cat")], f"<image>What is it? a cat{EOC}"),
        ([user(A, "Answer:\n"), assistant("a cat")], f"<image>Answer:\na cat{EOC}"),
        ([user("What is it?", A), assistant("a cat")], f"<image>What is it? a cat{EOC}"),
        ([user(A), assistant("a"), user(B), assistant("b"), user(C)], f"<image>a{EOC}<image>b{EOC}<image>"),
        ([{"role": "system", "content": "Be brief."}, user(A, "Hi.")], "Be brief.\n<image>Hi."),
        ([{"role": "user", "content": "a dog"}, {"role": "assistant", "content": "yes"}], f"a dog yes{EOC}"),
        ([user([A, B], "What?"), assistant("a")], f"<image>What? a{EOC}"),
        ([{"role": "user", "content": ""}, assistant("a")], f"a{EOC}"),
    ],
)
def test_chat_template(processor, chat, expected):
    assert processor.apply_chat_template(chat) == expected
    assert processor.apply_chat_template([chat, chat], add_generation_prompt=True) == [expected] * 2


@given(st.lists(st.text(alphabet="ab ?.\n", max_size=6), min_size=1, max_size=3), st.text(alphabet="ab", min_size=1))
@settings(max_examples=30)
def test_ids_of_a_prompt_begin_the_ids_of_the_answered_chat(parts, answer):
    """Otherwise the model would be trained on other tokens than it is asked to continue."""
    question = [user(A, *parts)]
    asked = shared_processor().apply_chat_template(question, add_generation_prompt=True)
    answered = shared_processor().apply_chat_template([*question, assistant(answer)])
    assert answered.startswith(asked)
    if asked[-1:] not in (
        " ",
        "\n",
    ):  # a prompt that ends in a space is merged into what follows, by any byte-level BPE
        ids = shared_processor().tokenizer.encode(asked)
        assert shared_processor().tokenizer.encode(answered)[: len(ids)] == ids


def test_assistant_mask_covers_answer_and_end_of_chunk(processor):
    chat = [user(A, "What?"), assistant("a cat"), user(B), assistant("a dog")]
    inputs = processor.apply_chat_template(
        chat, tokenize=True, return_dict=True, return_tensors="pt", return_assistant_tokens_mask=True
    )
    learned = inputs["input_ids"][inputs["assistant_masks"].bool()]
    assert processor.decode(learned) == f" a cat{EOC}a dog{EOC}"


def test_continue_final_message(processor):
    chat = [user(A, "What?"), assistant("a ca")]
    assert processor.apply_chat_template(chat, continue_final_message=True) == "<image>What? a ca"


def test_chat_content_of_other_clients(processor, tmp_path):
    A.save(tmp_path / "a.png")
    uri = "data:image/png;base64," + base64.b64encode(png_bytes(A)).decode()
    # OpenAI's blocks, paths, and rows of a `datasets` column, where each block has all keys
    for block in (
        {"type": "image_url", "image_url": {"url": uri}},
        {"type": "image", "path": str(tmp_path / "a.png")},
        {"type": "image", "url": uri},
        {"type": "image", "image": A, "url": None, "text": None},
    ):
        content = [block, {"type": "text", "text": "What?", "image": None}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=True, return_dict=True, return_tensors="pt"
        )
        assert torch.equal(inputs["pixel_values"], bare(A)[None, None])
        assert block.get("url", uri) in (uri, None), "the caller's messages are left alone"
    placeholder = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What?"}]}]
    assert list(processor.apply_chat_template(placeholder, tokenize=True, return_dict=True)) == [
        "input_ids",
        "attention_mask",
    ]
    inputs = processor(text=processor.apply_chat_template(placeholder), images=A)
    assert list(inputs) == ["input_ids", "attention_mask", "pixel_values"]


def test_chat_errors(processor):
    apply = functools.partial(processor.apply_chat_template, tokenize=True, return_dict=True)
    with pytest.raises(ValueError, match=r"The video in message 0 is 'film.mp4', not frames"):
        apply([{"role": "user", "content": [{"type": "video", "path": "film.mp4"}]}])
    with pytest.raises(ValueError, match=r"Message 0 asks for audio"):
        apply([{"role": "user", "content": [{"type": "audio", "audio": np.zeros(3)}]}])
    for content in ([3], [{}], 3):
        with pytest.raises(ValueError, match=r"Message 0 has the content .* It must be a text"):
            apply([{"role": "user", "content": content}])
    for chat in ([], None, "a", 3, {"role": "user"}):
        with pytest.raises(ValueError, match=r"`conversation` is .* It must be a list of messages"):
            apply(chat)
    with pytest.raises(ValueError, match=r"Message 0 asks for table, but Flamingo reads text, images and videos only"):
        apply([{"role": "user", "content": [{"type": "table", "table": 3}]}])
    with pytest.raises(ValueError, match=r"Sample 0 has 2 `<image>` in its text but 1 images"):
        apply([user(A, "an <image>")])
    # This option keeps user text from writing markers
    inputs = apply([user(A, "an <image>")], sanitize_control_tokens=True)
    assert inputs["input_ids"][0].count(processor.image_token_id) == 1


def test_a_custom_chat_template_is_saved_and_loaded(tmp_path):
    make_processor(chat_template="{{ messages[0]['content'] }}!").save_pretrained(tmp_path)
    assert FlamingoProcessor.from_pretrained(tmp_path).apply_chat_template([{"role": "user", "content": "a"}]) == "a!"
