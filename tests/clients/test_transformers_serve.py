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
def client(saved, start_module):
    from openai import OpenAI

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    command = ["transformers.cli.transformers", "serve", str(saved), "--trust-remote-code", "--device", "cpu"]
    process = start_module(*command, "--port", port)
    while process.poll() is None:
        try:
            urlopen(f"http://localhost:{port}/health").close()
            return OpenAI(base_url=f"http://localhost:{port}/v1", api_key="none", max_retries=0)
        except URLError:
            time.sleep(0.2)
    raise AssertionError("the server ended before it was ready")


def test_answers_are_those_of_the_model_and_depend_on_the_image(client, saved, images):
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
