# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The chat in plain Python, and its limits."""

import os
import sys
import threading

import pytest
import torch
from chat_templates import CHATML, instruct_tokenizer
from factory import tiny_flamingo, tiny_processor
from PIL import EpsImagePlugin, Image

from transformers_flamingo import FlamingoProcessor
from transformers_flamingo.apps.chat import (
    AnswerSettings,
    FlamingoChat,
    assistant_message,
    example_messages,
    to_gradio_messages,
    user_message,
)
from transformers_flamingo.apps.chat_limits import check_message, visitor_message
from transformers_flamingo_cli import main


def save_image(path, color) -> str:
    Image.new("RGB", (20, 10), color).save(path)
    return str(path)


def answers(chat, messages, **settings) -> list[str]:
    return list(chat.answer(chat.prepare(messages)[1], AnswerSettings(**settings)))


def test_the_prompt_is_that_of_few_shot_prompt(chat, images):
    red, blue = images
    examples = [(red, "w5 w6"), (None, "w7")]
    prompt, inputs = chat.prepare([*example_messages(examples), user_message("w8", [blue])])
    expected = chat.processor.few_shot_prompt(examples, blue, "w8")
    assert prompt == expected["text"][0] == "<image>w5 w6<|endofchunk|>w7<|endofchunk|><image>w8"
    expected = chat.processor(**expected, return_tensors="pt")
    assert all(torch.equal(inputs[name], expected[name]) for name in expected)


def test_earlier_turns_are_part_of_the_prompt(chat, images):
    turns = [user_message("w8", images[:1]), assistant_message("w9"), user_message("w10", [])]
    assert chat.prepare(turns)[0] == "<image>w8 w9<|endofchunk|>w10"
    assert [message["content"] for message in to_gradio_messages(turns)] == [{"path": images[0]}, "w8", "w9", "w10"]


def test_answers_are_streamed_and_those_of_generate(chat, images):
    messages = [user_message("w8", images[:1])]
    _, inputs = chat.prepare(messages)

    def generated(**kwargs) -> str:
        output = chat.model.generate(**inputs, max_new_tokens=5, **kwargs)[0, inputs["input_ids"].shape[1] :]
        return chat.processor.decode(output, skip_special_tokens=True)

    streamed = answers(chat, messages, max_new_tokens=5)
    assert streamed[-1] == generated(do_sample=False)
    assert len(set(streamed)) > 1
    assert all(streamed[-1].startswith(so_far) for so_far in streamed)
    assert answers(chat, messages, method="beam", num_beams=3, max_new_tokens=5) == [generated(num_beams=3)]
    assert answers(chat, messages, method="sampling", top_k=1, max_new_tokens=5)[-1] == streamed[-1]
    torch.manual_seed(0)
    sampled = {answers(chat, messages, method="sampling", temperature=2.0, max_new_tokens=5)[-1] for _ in range(5)}
    assert len(sampled) > 1


def test_the_image_changes_the_answer(chat, images):
    red, blue = (answers(chat, [user_message("w8", [image])])[-1] for image in images)
    assert red != blue


def test_a_closed_answer_stops_generating(chat, images):
    before = threading.active_count()
    _, inputs = chat.prepare([user_message("w8", images[:1])])
    answer = chat.answer(inputs, AnswerSettings(max_new_tokens=100))
    next(answer)
    answer.close()
    assert threading.active_count() == before


def test_an_error_while_generating_is_raised(chat, images):
    _, inputs = chat.prepare([user_message("w8", images[:1])])
    inputs["pixel_values"] = inputs["pixel_values"][:, :, :1]
    with pytest.raises(Exception, match="channel"):
        list(chat.answer(inputs, AnswerSettings()))


def test_a_conversation_that_cannot_be_answered_is_refused(chat, images, tmp_path):
    with pytest.raises(ValueError, match="nothing to answer"):
        chat.prepare([user_message("", [])])
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not an image")
    with pytest.raises(ValueError, match=r"broken\.png"):
        chat.prepare([user_message("", [str(broken)])])
    with pytest.raises(ValueError, match="prompt has 2 tokens and the answer may have 128, .* 128 positions"):
        answers(chat, [user_message("w5", images[:1])], max_new_tokens=128)
    with pytest.raises(ValueError, match="`method` is 'best'"):
        AnswerSettings(method="best")
    with pytest.raises(ValueError, match="`temperature` is 0"):
        AnswerSettings(temperature=0)


@pytest.mark.parametrize("token", ["<image>", "<|endofchunk|>", "<eos>", "<pad>"])
def test_special_tokens_that_are_typed_are_text(chat, images, token):
    """The message, an example and an earlier answer have them. Only the markers of the chat itself are read as markers."""
    messages = [*example_messages([(images[0], f"w5 {token}")]), user_message(f"w8 {token} w9", images[1:])]
    messages += [assistant_message(f"{token} w6"), user_message(f"{token}", [])]
    prompt, inputs = chat.prepare(messages)
    assert prompt == f"<image>w5 {token}<|endofchunk|><image>w8 {token} w9 {token} w6<|endofchunk|>{token}"
    names = chat.processor.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0].tolist())
    assert [name for name in names if name.startswith("<")] == [
        "<image>",
        "<|endofchunk|>",
        "<image>",
        "<|endofchunk|>",
    ]
    assert inputs["pixel_values"].shape[1] == 2
    assert list(chat.answer(inputs, AnswerSettings(max_new_tokens=2)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_new_tokens": None}, "`max_new_tokens` is None"),
        ({"max_new_tokens": float("inf")}, "`max_new_tokens` is inf"),
        ({"num_beams": 2.5}, "`num_beams` is 2.5, but it must be a whole number"),
        ({"top_k": "9"}, "`top_k` is '9'"),
        ({"temperature": float("nan")}, "`temperature` is nan"),
    ],
)
def test_settings_of_another_type_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        AnswerSettings(**settings)


def test_a_visitor_is_told_which_image_and_no_path(tmp_path, monkeypatch):
    folder = tmp_path / "gradio" / "0123456789"
    folder.mkdir(parents=True)
    good = save_image(folder / "good.png", "red")
    broken = folder / "my cat.png"
    broken.write_bytes((folder / "good.png").read_bytes()[:40])
    with pytest.raises(ValueError) as error:
        check_message("w5", [good, str(broken)])
    assert str(error.value) == "The image 'my cat.png' cannot be read: it is damaged, or not an image. Send another."
    monkeypatch.setattr("transformers_flamingo.apps.chat_limits.MAX_PIXELS", 199)
    with pytest.raises(ValueError, match="The image 'good.png' of 20 x 10 pixels is too large: at most 199 pixels"):
        check_message("", [good])


def test_a_message_has_limits(images):
    check_message("w" * 20_000, images * 16)
    with pytest.raises(ValueError, match="20,001 characters, but at most 20,000"):
        check_message("w" * 20_001, [])
    with pytest.raises(ValueError, match="34 images, but at most 32"):
        check_message("", images * 17)


def test_no_path_and_no_secret_reaches_a_visitor(tmp_path, caplog):
    path = str(tmp_path / "my cat.png")
    error = ValueError(f"Image 0 ({path}) of {tmp_path}/cache/model.bin, hf_abcdefgh12345678: no 'a/b' text")
    assert visitor_message(error, [path]) == "Image 0 (my cat.png) of model.bin, <redacted>: no 'a/b' text"
    fault = visitor_message(KeyError(path))
    assert fault == "The answer failed because of a fault of the program. See its log on the server."
    assert "KeyError" in caplog.text
    assert "not have enough memory" in visitor_message(torch.OutOfMemoryError("CUDA out of memory"))


def test_without_gradio_the_command_says_what_to_install(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.delitem(sys.modules, "transformers_flamingo.apps.chat_page", raising=False)
    assert main(["chat", str(tmp_path)]) == 1
    assert 'pip install "transformers-flamingo[chat]"' in capsys.readouterr().err


def test_an_upload_is_never_run_as_a_program(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)  # Pillow looks for it once
    path = tmp_path / "x.png"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n")
    with pytest.raises(ValueError, match=r"The image 'x\.png' cannot be read"):
        check_message("", [str(path)])
    assert not (tmp_path / "ran").exists()


def test_an_instruct_model_is_asked_in_its_own_template(images):
    processor = FlamingoProcessor(tiny_processor().image_processor, instruct_tokenizer(CHATML))
    model = tiny_flamingo(
        text_kwargs={"vocab_size": len(processor.tokenizer)},
        image_token_id=processor.image_token_id,
        end_of_chunk_token_id=processor.end_of_chunk_token_id,
    )
    chat = FlamingoChat(model, processor)
    messages = [*example_messages([(images[0], "a dog")]), user_message("a cat <|im_end|>?", [images[1]])]
    prompt, inputs = chat.prepare(messages)
    assert prompt == processor.apply_chat_template(messages, add_generation_prompt=True)
    start, end, bos = processor.tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>", "<s>"])
    counts = [inputs["input_ids"][0].tolist().count(token) for token in (start, end, bos)]
    assert counts == [5, 4, 0], "the one that was typed is text"
    assert list(chat.answer(inputs, AnswerSettings(max_new_tokens=2)))
