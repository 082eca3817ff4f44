# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The page of the chat in a real browser (chromium or chrome, driven by playwright)."""

import asyncio
import base64
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest
from factory import EOS, tiny_flamingo, tiny_processor

from transformers_flamingo import FewShotPredictor
from transformers_flamingo.apps.chat import EMPTY_ANSWER, AnswerSettings, example_messages, user_message


pytest.importorskip("gradio")

from transformers_flamingo.apps.chat_page import build_page, serve_page


BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def answers(chat, messages, **settings) -> list[str]:
    return list(chat.answer(chat.prepare(messages)[1], AnswerSettings(**settings)))


@pytest.fixture(scope="module")
def command_address(tmp_path_factory):
    """Run `flamingo chat` with a tiny model in a process of its own, and yield its address."""
    directory = tmp_path_factory.mktemp("model")
    tiny_flamingo(gates=2.0).save_pretrained(directory)
    tiny_processor().save_pretrained(directory)
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "transformers_flamingo_cli", "chat", str(directory)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        lines = iter(process.stdout.readline, "")
        yield next(found[0] for line in lines if (found := re.search(r"http://127\.0\.0\.1:\d+", line)))
    finally:
        process.terminate()
        process.wait(timeout=20)


def test_the_page_has_limits_of_uploads_and_of_its_queue(command_address):
    upload = f"{command_address}/gradio_api/upload"
    small = httpx.post(upload, files={"files": ("small.png", b"x" * 1000)}, timeout=60)
    large = httpx.post(upload, files={"files": ("large.png", b"x" * (20_000_000 + 2**20 * 2))}, timeout=60)
    assert (small.status_code, large.status_code) == (200, 413)
    config = httpx.get(f"{command_address}/config", timeout=60).json()
    assert config["max_file_size"] == 20 * 2**20
    assert config["show_error"] is False


class Gate:
    """Lets the model of a chat take its steps, or holds it before the next one."""

    def __init__(self, model):
        self.opened = threading.Event()
        self.opened.set()
        self.steps = 0
        model.register_forward_pre_hook(self._pass, with_kwargs=True)

    def _pass(self, module, args, kwargs) -> None:
        self.steps += 1
        assert self.opened.wait(timeout=60)


@pytest.fixture(scope="module")
def gate(chat) -> Gate:
    return Gate(chat.model)


@pytest.fixture(scope="module")
def address(chat, gate, images):
    loops, new_event_loop = [], asyncio.new_event_loop
    with pytest.MonkeyPatch.context() as patch:
        # Gradio makes an event loop for each of its locks, and closes none: their sockets would be found by the garbage
        # collector, in some later test
        patch.setattr(asyncio, "new_event_loop", lambda: loops.append(new_event_loop()) or loops[-1])
        page = build_page(chat, "tiny", images)
        url = serve_page(page, "127.0.0.1", None, blocks=False)
    yield url.rstrip("/")
    page.close()
    asyncio.set_event_loop(None)
    for loop in loops:
        if not loop.is_running():
            loop.close()


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api")
    if BROWSER is None:
        pytest.skip("no chromium or chrome is installed")
    sync_api.expect.set_options(timeout=60_000)  # of the slowest machine; none of this waits longer than it must
    with sync_api.sync_playwright() as playwright:
        # Without a sandbox: CI runs as root in a container
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield browser
        browser.close()


class Visitor:
    """A page of the chat in a browser, and what a visitor does there."""

    def __init__(self, browser, address: str, **options):
        self.page = browser.new_page(**options)
        self.page.set_default_timeout(60_000)
        self.requested: list[str] = []
        self.page.on("request", lambda request: self.requested.append(request.url))
        self.page.goto(address)
        self.message, self.prompt = self.page.locator("#message textarea"), self.page.locator("#prompt textarea")
        self.said = self.page.locator("#chat [data-testid=bot]")
        self.asked = self.page.locator("#chat [data-testid=user]")
        self.thumbnails = self.page.locator("#message .thumbnail-item")
        self.submit, self.stop = (
            self.page.locator("#message .submit-button"),
            self.page.locator("#message .stop-button"),
        )

    def add_image(self, image: str) -> None:
        with self.page.expect_file_chooser() as chooser:
            self.page.locator("#message [data-testid=upload-button]").click()
        chooser.value.set_files(image)
        self.thumbnails.first.wait_for()

    def send(self, image: str, text: str) -> None:
        self.add_image(image)
        self.message.fill(text)
        self.message.press("Enter")


@pytest.fixture
def visitor(browser, address, gate):
    visitor = Visitor(browser, address)
    yield visitor
    gate.opened.set()
    visitor.page.close()


@pytest.fixture
def expect():
    return pytest.importorskip("playwright.sync_api").expect


def test_messages_examples_and_beam_search(visitor, address, chat, images, expect):
    page = visitor.page
    expected = [answers(chat, [user_message("w8", [image])])[-1] for image in images]
    for image, answer in zip(images, expected, strict=True):
        visitor.send(image, "w8")
        expect(visitor.prompt).to_have_value("<image>w8")
        expect(visitor.said).to_contain_text([answer])
        page.locator("#new-chat").click()
        expect(visitor.prompt).to_have_value("")

    # An example, which comes before the message in the prompt
    page.locator("#example-image input[type=file]").set_input_files(images[0])
    page.locator("#example-image img").wait_for()
    page.locator("#example-text textarea").fill("w5 w6")
    page.locator("#add-example").click()
    page.locator("#examples img").wait_for()
    page.locator("#method").get_by_text("beam").click()
    page.get_by_label("Beams").first.wait_for()
    visitor.send(images[1], "w8")
    expect(visitor.prompt).to_have_value("<image>w5 w6<|endofchunk|><image>w8")
    messages = [*example_messages([(images[0], "w5 w6")]), user_message("w8", images[1:])]
    expect(visitor.said).to_contain_text(answers(chat, messages, method="beam"))

    # An error is shown, and the message is in its box again
    expect(visitor.submit).to_be_visible()
    long = "w8 " * 150
    visitor.message.fill(long)
    visitor.message.press("Enter")
    expect(page.locator(".toast-body")).to_contain_text("the language model has 128 positions")
    expect(visitor.message).to_have_value(long)
    expect(visitor.submit).to_be_visible()

    assert all(url.startswith((address, "data:", "blob:")) for url in visitor.requested), (
        "a file was fetched from another host"
    )


def test_a_message_shows_at_once_and_stop_ends_its_answer(visitor, gate, images, expect):
    expect(visitor.submit).to_be_visible()
    expect(visitor.stop).to_have_count(0)
    gate.opened.clear()
    visitor.send(images[0], "w8")
    # The model has not taken a step, the message is there, and its box is empty
    expect(visitor.asked).to_have_count(2)  # the image and the text
    expect(visitor.message).to_have_value("")
    expect(visitor.thumbnails).to_have_count(0)
    expect(visitor.said).to_have_count(0)
    expect(visitor.stop).to_be_visible()
    expect(visitor.submit).to_have_count(0)
    # A second message has to wait
    visitor.message.fill("w9")
    visitor.message.press("Enter")
    expect(visitor.page.locator(".toast-body")).to_contain_text("An answer is being given")
    expect(visitor.asked).to_have_count(2)
    visitor.message.fill("")
    # Without an answer, the message goes back into its box
    visitor.stop.click()
    gate.opened.set()
    expect(visitor.submit).to_be_visible()
    expect(visitor.stop).to_have_count(0)
    expect(visitor.message).to_have_value("w8")
    expect(visitor.thumbnails).to_have_count(1)
    expect(visitor.asked).to_have_count(0)
    # and can be sent again
    visitor.message.press("Enter")
    expect(visitor.said).to_have_count(1)
    expect(visitor.submit).to_be_visible()


def test_retry_and_edit(visitor, chat, images, expect):
    first, second = (answers(chat, [user_message(text, images[:1])])[-1] for text in ("w8", "w20"))
    visitor.send(images[0], "w8")
    expect(visitor.said).to_contain_text([first])
    expect(visitor.submit).to_be_visible()
    visitor.page.locator("#method").get_by_text("beam").click()
    visitor.page.locator("#chat [aria-label=Retry]").click()
    expect(visitor.said).to_contain_text(answers(chat, [user_message("w8", images[:1])], method="beam"))
    expect(visitor.submit).to_be_visible()
    visitor.page.locator("#method").get_by_text("greedy").click()
    visitor.page.locator("#chat [aria-label=Edit]").last.click()
    visitor.page.locator("#chat textarea").last.fill("w20")
    visitor.page.locator("#chat [aria-label=Submit]").click()
    expect(visitor.prompt).to_have_value("<image>w20")
    expect(visitor.said).to_contain_text([second])
    expect(visitor.asked).to_have_count(2)


def test_an_example_image_and_what_the_model_looked_at(visitor, images, expect):
    page = visitor.page
    expect(page.locator("#attention")).to_be_hidden()
    page.locator("#chat").get_by_text("blue", exact=True).click()
    expect(visitor.thumbnails).to_have_count(1)
    page.locator("#show-attention input").check()
    expect(page.locator("#attention")).to_be_visible()
    visitor.message.press("Enter")
    expect(visitor.submit).to_be_visible()
    expect(page.locator("#attention img").first).to_be_visible()
    words = visitor.said.first.inner_text().split()
    expect(page.locator("#attention .caption-label")).to_have_text(words)


def test_an_image_that_is_dropped_anywhere_goes_to_the_message(visitor, images, expect):
    content = base64.b64encode(Path(images[0]).read_bytes()).decode()
    transfer = visitor.page.evaluate_handle(
        """(content) => {
            const transfer = new DataTransfer();
            const bytes = Uint8Array.from(atob(content), (character) => character.charCodeAt(0));
            transfer.items.add(new File([bytes], "red.png", {type: "image/png"}));
            return transfer;
        }""",
        content,
    )
    visitor.page.dispatch_event("#method", "dragenter", {"dataTransfer": transfer})
    expect(visitor.page.locator("body.dropping")).to_have_count(1)
    visitor.page.dispatch_event("#method", "drop", {"dataTransfer": transfer})
    expect(visitor.page.locator("body.dropping")).to_have_count(0)
    expect(visitor.thumbnails).to_have_count(1)


def test_an_empty_answer_says_so(visitor, chat, images, expect, monkeypatch):
    monkeypatch.setattr(chat.model.generation_config, "suppress_tokens", [i for i in range(99) if i != EOS])
    visitor.send(images[0], "w8")
    expect(visitor.said).to_have_text(EMPTY_ANSWER)
    expect(visitor.submit).to_be_visible()


def test_images_are_labeled_after_the_examples(visitor, chat, images, expect):
    page = visitor.page
    for number, (image, text) in enumerate(zip(images, ("w5 w6", "w7"), strict=True), 1):
        page.locator("#example-image input[type=file]").set_input_files(image)
        page.locator("#example-image img").wait_for()
        page.locator("#example-text textarea").fill(text)
        page.locator("#add-example").click()
        expect(page.locator("#examples img")).to_have_count(number)
    page.get_by_text("Label images after these examples").click()
    page.locator("#label-images input[type=file]").set_input_files(images)
    expect(page.locator("#label-images")).to_contain_text("blue")
    page.locator("#label").click()
    examples = list(zip(images, ("w5 w6", "w7"), strict=True))
    predictor = FewShotPredictor(chat.model, chat.processor, examples, "classify")
    table = page.locator("#label-table")
    for name, prediction in zip(("red.png", "blue.png"), predictor(images), strict=True):
        for cell in (name, prediction.text, str(round(prediction.score, 3))):
            expect(table).to_contain_text(cell)


def test_on_a_phone_the_examples_are_folded_away(browser, address, expect):
    phone = Visitor(browser, address, viewport={"width": 390, "height": 844})
    expect(phone.message).to_be_in_viewport()
    # Not there yet would be hidden, too, and a click would come before the folding
    expect(phone.page.locator("#example-text")).to_be_attached()
    expect(phone.page.locator("#example-text")).to_be_hidden()
    assert phone.page.evaluate("document.documentElement.scrollWidth") <= 390
    phone.page.get_by_text("Examples (shots)").click()
    expect(phone.page.locator("#example-text")).to_be_visible()
    phone.page.close()
