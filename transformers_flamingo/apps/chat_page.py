# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
The page of `flamingo chat`, by Gradio: its layout, and what happens when a visitor sends a message or adds an example.

The page is served from this machine alone: it uses fonts of the system, and reports nothing to anyone.
"""

import html
import os
import socket
from collections.abc import Iterator
from typing import Any, NamedTuple, get_args


os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # Gradio reads it when it is imported

import gradio as gr

from .chat import (
    AnswerSettings,
    FlamingoChat,
    Message,
    Method,
    assistant_message,
    example_messages,
    to_gradio_messages,
    user_message,
)
from .chat_limits import (
    MAX_BEAMS,
    MAX_CHARACTERS,
    MAX_EXAMPLES,
    MAX_NEW_TOKENS,
    MAX_UPLOAD,
    MAX_WAITING,
    check_message,
    visitor_message,
)


Example = tuple[str, str]  # path of an image, text

CSS = """
.gradio-container {width: 100%; max-width: 1400px !important; margin: auto}
#prompt textarea {font-family: ui-monospace, monospace; font-size: 0.85rem}
#examples .caption-label {font-size: 0.7rem; max-width: 100%}
footer, button[title="Share"], button[aria-label="Share"] {display: none !important}
"""


class ConversationParts(NamedTuple):
    """Components of the conversation."""

    chatbot: gr.Chatbot
    message: gr.MultimodalTextbox
    prompt: gr.Textbox
    new_chat: gr.Button


class ExampleParts(NamedTuple):
    """Components of the few-shot examples."""

    gallery: gr.Gallery
    image: gr.Image
    text: gr.Textbox
    add: gr.Button
    remove: gr.Button


class SettingParts(NamedTuple):
    """Components of the settings: the fields of [`AnswerSettings`], in their order."""

    method: gr.Radio
    max_new_tokens: gr.Slider
    num_beams: gr.Slider
    top_k: gr.Slider
    temperature: gr.Slider


class PageActions:
    """
    Actions of the page: functions of a visitor's state and input that return updates of components.

    The state, turns and examples, is kept by Gradio for each visitor.

    Args:
        chat ([`FlamingoChat`]): Answers the messages.
    """

    def __init__(self, chat: FlamingoChat):
        self.chat = chat

    def send(
        self, message: dict[str, Any], turns: list[Message], examples: list[Example], *settings: Any
    ) -> Iterator[tuple]:
        """Answer a message, and yield turns, chatbot, prompt and message box each time the answer grows."""
        turns = [*turns, user_message(message["text"], message["files"])]
        try:
            check_message(message["text"], message["files"])
            prompt, inputs = self.chat.prepare([*example_messages(examples), *turns])
            yield gr.skip(), to_gradio_messages(turns), prompt, gr.skip()
            for answer in self.chat.answer(inputs, AnswerSettings(*settings)):
                answered = [*turns, assistant_message(answer)]
                yield answered, to_gradio_messages(answered), prompt, None
        except Exception as error:  # the message stays in its box
            _warn(visitor_message(error, [*message["files"], *(image for image, _ in examples)]))
            yield gr.skip(), to_gradio_messages(turns[:-1]), gr.skip(), gr.skip()

    def add_example(self, image: str | None, text: str, examples: list[Example]) -> tuple:
        """Add an example, and return examples, gallery, image box and text box."""
        unchanged = (gr.skip(),) * 4
        if image is None or not text:
            _warn("An example is an image and its text. Give both.")
            return unchanged
        try:
            check_message(text, [image])
            if len(examples) >= MAX_EXAMPLES:
                raise ValueError(f"There are {MAX_EXAMPLES} examples already, the maximum. Remove some.")
        except ValueError as error:
            _warn(visitor_message(error, [image]))
            return unchanged
        examples = [*examples, (image, text)]
        return examples, examples, None, ""

    def remove_example(self, examples: list[Example]) -> tuple:
        """Remove the last example, and return examples and gallery."""
        return examples[:-1], examples[:-1]

    def start_new_chat(self) -> tuple:
        """Return empty turns, chatbot and prompt."""
        return [], [], ""

    def choose_method(self, method: Method) -> list:
        """Return updates that show the settings of this method alone: beams, top k and temperature."""
        return [gr.update(visible=method == name) for name in ("beam", "sampling", "sampling")]


def _warn(text: str) -> None:
    # `gr.Error` would cover the chat and the message box. Gradio renders HTML, so `<image>` is escaped
    gr.Warning(html.escape(text), duration=None)


def build_page(chat: FlamingoChat, name: str) -> gr.Blocks:
    """
    Build the page of a chat.

    Args:
        chat ([`FlamingoChat`]): Answers the messages.
        name (`str`): Name of the model, for the title.
    """
    actions = PageActions(chat)
    with gr.Blocks(title=f"Flamingo: {name}", analytics_enabled=False, fill_width=True) as page:
        turns, examples = gr.State([]), gr.State([])
        gr.Markdown(f"## Flamingo &nbsp;`{name}`")
        with gr.Row():
            with gr.Column(scale=3):
                conversation = _lay_out_conversation()
            with gr.Column(scale=2, min_width=320):
                with gr.Accordion("Examples (shots), in front of every prompt", open=True):
                    example = _lay_out_examples()
                with gr.Accordion("Answer", open=True):
                    settings = _lay_out_settings()

        chatbot, message, prompt, new_chat = conversation
        answering = message.submit(
            actions.send, [message, turns, examples, *settings], [turns, chatbot, prompt, message], api_name="send"
        )
        message.stop(None, cancels=[answering])
        gr.on(
            [new_chat.click, chatbot.clear],
            actions.start_new_chat,
            outputs=[turns, chatbot, prompt],
            cancels=[answering],
        )
        example.add.click(
            actions.add_example,
            [example.image, example.text, examples],
            [examples, example.gallery, example.image, example.text],
        )
        example.remove.click(actions.remove_example, [examples], [examples, example.gallery])
        settings.method.change(
            actions.choose_method, [settings.method], [settings.num_beams, settings.top_k, settings.temperature]
        )
    return page


def _lay_out_conversation() -> ConversationParts:
    return ConversationParts(
        chatbot=gr.Chatbot(
            label="Chat",
            elem_id="chat",
            height=430,
            render_markdown=False,
            latex_delimiters=[],
            buttons=["copy"],
            placeholder="Add an image, and a text if you like, then send them.",
        ),
        message=gr.MultimodalTextbox(
            label="Message",
            elem_id="message",
            show_label=False,
            file_types=["image"],
            file_count="multiple",
            placeholder="Text after the image, such as 'question: what color? answer:'",
            max_plain_text_length=MAX_CHARACTERS,
            autofocus=True,
            stop_btn=True,
        ),
        prompt=gr.Textbox(
            label="Prompt that the model continued",
            elem_id="prompt",
            lines=3,
            max_lines=10,
            interactive=False,
            buttons=["copy"],
        ),
        new_chat=gr.Button("New chat", elem_id="new-chat", size="sm"),
    )


def _lay_out_examples() -> ExampleParts:
    gallery = gr.Gallery(
        show_label=False,
        elem_id="examples",
        columns=3,
        fit_columns=False,
        object_fit="contain",
        height=170,
        interactive=False,
        buttons=[],
    )
    with gr.Row():
        image = gr.Image(
            label="Image",
            elem_id="example-image",
            type="filepath",
            image_mode=None,  # otherwise Gradio decodes it before it is checked, an EPS by Ghostscript
            sources=["upload"],
            height=190,
            buttons=[],
            scale=1,
            min_width=130,
        )
        with gr.Column(scale=1, min_width=150):
            text = gr.Textbox(label="Text", elem_id="example-text", placeholder="What the model should say", lines=2)
            add = gr.Button("Add example", elem_id="add-example", size="sm")
            remove = gr.Button("Remove the last", elem_id="remove-example", size="sm")
    return ExampleParts(gallery, image, text, add, remove)


def _lay_out_settings() -> SettingParts:
    defaults = AnswerSettings()
    return SettingParts(
        method=gr.Radio(get_args(Method), value=defaults.method, label="Method", elem_id="method", show_label=False),
        max_new_tokens=gr.Slider(
            1,
            MAX_NEW_TOKENS,
            defaults.max_new_tokens,
            step=1,
            label="Maximum number of new tokens",
            elem_id="max-new-tokens",
        ),
        num_beams=gr.Slider(2, MAX_BEAMS, defaults.num_beams, step=1, label="Beams", visible=False),
        top_k=gr.Slider(1, 200, defaults.top_k, step=1, label="Top k", visible=False),
        temperature=gr.Slider(0.05, 2.0, defaults.temperature, step=0.05, label="Temperature", visible=False),
    )


def check_listening(host: str, port: int | None) -> None:
    """
    Check that a page can be served at an address. Gradio would try every port for minutes if it is not one of this machine.

    Raises:
        ValueError: the address is not one of this machine, or the port is taken.
    """
    try:
        with socket.create_server((host, port or 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            pass
    except OSError as error:
        raise ValueError(
            f"No page can be served at {host!r}{f', port {port}' if port else ''}: {error.strerror or error}. Give an address of this "
            "machine, such as 127.0.0.1, and a port that is free."
        ) from error


def run_chat(
    name_or_path: str | os.PathLike,
    host: str = "127.0.0.1",
    port: int | None = None,
    share: bool = False,
    dtype: str = "auto",
    chat_template: str | None = None,
) -> None:
    """
    Load a Flamingo and serve its page until it is interrupted.

    Args:
        name_or_path (`str` or `os.PathLike`): Directory or Hub name of the model.
        host (`str`, *optional*, defaults to `"127.0.0.1"`): Address to listen on. The default is reached only from this machine.
        port (`int`, *optional*): By default the first that is free from 7860.
        share (`bool`, *optional*, defaults to `False`): Whether to open a public link through Gradio's servers.
        dtype (`str`, *optional*, defaults to `"auto"`): Data type of the weights; `"auto"` is as saved.
        chat_template (`str`, *optional*): `"text"` or `"few_shot"`, instead of the template that was saved.

    Raises:
        ValueError: the page cannot be served at this address, or the model cannot be loaded.
    """
    check_listening(host, port)
    chat = FlamingoChat.from_pretrained(name_or_path, dtype)
    if chat_template is not None:
        chat.processor.set_chat_template(chat_template)
    # Gradio's own themes fetch their fonts
    theme = gr.themes.Default(
        primary_hue="pink", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    page = build_page(chat, os.fspath(name_or_path))
    # Not `show_error`, which shows the message of any error with the paths in it
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=1)
    page.launch(
        server_name=host, server_port=port, share=share, theme=theme, css=CSS, ssr_mode=False, max_file_size=MAX_UPLOAD
    )
