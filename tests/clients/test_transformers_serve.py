# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Ask `transformers serve DIRECTORY --trust-remote-code` about images through the OpenAI-compatible API."""

import base64
import io
import socket
import time
from urllib.error import URLError
from urllib.request import urlopen

import pytest
from transformers import pipeline
from transformers.utils.import_utils import is_serve_available


if not is_serve_available():
    pytest.skip("transformers[serving] is not installed", allow_module_level=True)


def data_url(image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def user(image, text: str) -> dict:
    parts = [{"type": "image_url", "image_url": {"url": data_url(image)}}, {"type": "text", "text": text}]
    return {"role": "user", "content": parts}


@pytest.fixture
def serve(start_module):
    """Return a function that serves a directory and returns a client."""
    from openai import OpenAI

    def start(directory) -> OpenAI:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = str(free.getsockname()[1])
        command = ["transformers.cli.transformers", "serve", str(directory), "--trust-remote-code", "--device", "cpu"]
        process = start_module(*command, "--port", port)
        while process.poll() is None:
            try:
                urlopen(f"http://localhost:{port}/health").close()
                return OpenAI(base_url=f"http://localhost:{port}/v1", api_key="none", max_retries=0)
            except URLError:
                time.sleep(0.2)
        raise AssertionError("the server ended before it was ready")

    return start


def test_answers_are_those_of_the_model_and_depend_on_the_image(serve, saved, images):
    client = serve(saved)
    stock = pipeline("image-text-to-text", model=str(saved))
    red, blue = images

    def ask(messages: list[dict], **kwargs) -> str:
        settings = {"model": str(saved), "max_tokens": 6, "temperature": 0}
        answer = client.chat.completions.create(messages=messages, **settings, **kwargs)
        if kwargs.get("stream"):
            return "".join(chunk.choices[0].delta.content or "" for chunk in answer)
        return answer.choices[0].message.content

    def expected(images: list, text: str) -> str:
        answer = stock(images=images, text=text, max_new_tokens=6, return_full_text=False)
        return answer[0]["generated_text"].strip()

    answers = [ask([user(image, "w8")]) for image in images]
    assert answers == [expected([image], "<image>w8") for image in images]
    assert answers[0] != answers[1]
    assert ask([user(red, "w8")], stream=True) == answers[0]
    # A few-shot prompt is a conversation
    shots = [user(red, "w8"), {"role": "assistant", "content": "w9"}, user(blue, "w8")]
    assert ask(shots) == expected([red, blue], "<image>w8 w9<|endofchunk|><image>w8")


def test_an_instruct_model_and_what_a_client_may_get_wrong(serve, instruct, images):
    from openai import BadRequestError

    client = serve(instruct)
    stock = pipeline("image-text-to-text", model=str(instruct))
    red, blue = images

    def ask(*parts, **kwargs) -> str:
        messages = [{"role": "user", "content": list(parts)}]
        answer = client.chat.completions.create(
            model=str(instruct), messages=messages, max_tokens=8, temperature=0, **kwargs
        )
        return answer.choices[0].message.content

    def expected(*parts) -> str:
        answer = stock(text=[{"role": "user", "content": list(parts)}], max_new_tokens=8, return_full_text=False)
        return answer[0]["generated_text"]

    def url(value: str) -> dict:
        return {"type": "image_url", "image_url": {"url": value}}

    question = {"type": "text", "text": "a dog"}
    answer = ask(url(data_url(blue)), question)
    assert answer == expected({"type": "image", "image": blue}, question) != ask(url(data_url(red)), question)
    assert ask(question, url(data_url(blue))) == answer, "OpenAI's order: the image comes first all the same"
    assert ask(question) == expected(question)

    stop = next(letter for letter in answer if letter.isprintable() and letter != answer[0])
    assert ask(url(data_url(blue)), question, stop=[stop]) == answer[: answer.index(stop) + 1]

    for parts, message in (
        ((url("data:image/png;base64,aGVsbG8="), question), "image"),
        ((url("missing.png"), question), "missing.png"),
        (({"type": "text", "text": "<image> a"},), "1 markers, 0 images"),
        (({"type": "text", "text": "a dog " * 200},), "256"),
    ):
        with pytest.raises(BadRequestError) as refused:
            ask(*parts)
        assert message in refused.value.body["detail"]
    assert ask(url(data_url(blue)), question) == answer, "the server goes on"
