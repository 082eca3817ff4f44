# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
The page of `flamingo chat`, by Gradio: its layout, and which action of [`chat_actions`] follows which event.

The page is served from this machine alone: it uses fonts of the system, and reports nothing to anyone.
"""

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, get_args


os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # Gradio reads it when it is imported

import gradio as gr

from .chat import AnswerSettings, FlamingoChat, Method
from .chat_actions import PageActions
from .chat_assets import CSS, HEAD, check_example_images, draw_example_images
from .chat_labels import lay_out_labels
from .chat_limits import MAX_BEAMS, MAX_CHARACTERS, MAX_NEW_TOKENS, MAX_UPLOAD, MAX_WAITING


class ConversationParts(NamedTuple):
    """Components of the conversation."""

    chatbot: gr.Chatbot
    message: gr.MultimodalTextbox
    new_chat: gr.Button
    attention_area: gr.Column
    attention: gr.Gallery
    prompt: gr.Textbox


class ExampleParts(NamedTuple):
    """Components of the few-shot examples."""

    gallery: gr.Gallery
    image: gr.Image
    text: gr.Textbox
    add: gr.Button
    remove: gr.Button


class SettingParts(NamedTuple):
    """Components of the settings: whether to show what was looked at, then the fields of [`AnswerSettings`], in their order."""

    shows_attention: gr.Checkbox
    method: gr.Radio
    max_new_tokens: gr.Slider
    num_beams: gr.Slider
    top_k: gr.Slider
    temperature: gr.Slider


def build_page(chat: FlamingoChat, name: str, example_images: Sequence[str | Path] = ()) -> gr.Blocks:
    """
    Build the page of a chat.

    Args:
        chat ([`FlamingoChat`]): Answers the messages.
        name (`str`): Name of the model, for the title.
        example_images (`Sequence[str]`, *optional*): Files of images that an empty chat offers.
    """
    actions = PageActions(chat, example_images)
    with gr.Blocks(title=f"Flamingo: {name}", analytics_enabled=False, fill_width=True) as page:
        turns, pending, examples = gr.State([]), gr.State(None), gr.State([])
        width = gr.Number(visible=False)
        gr.Markdown(f"## Flamingo &nbsp;`{name}`")
        with gr.Row():
            with gr.Column(scale=3):
                conversation = _lay_out_conversation(example_images)
            with gr.Column(scale=2, min_width=320):
                with gr.Accordion("Examples (shots), in front of every prompt", open=True, elem_id="shots") as shots:
                    example = _lay_out_examples()
                    lay_out_labels(chat, examples)
                with gr.Accordion("Answer", open=True) as answer:
                    settings = _lay_out_settings()
        page.load(
            actions.fold,
            [width],
            [shots, answer],
            js="() => window.innerWidth",
            show_progress="hidden",
            api_name=False,
        )
        _connect_conversation(actions, conversation, settings, turns, pending, examples)
        example.add.click(
            actions.add_example,
            [example.image, example.text, examples],
            [examples, example.gallery, example.image, example.text],
            concurrency_limit=None,
        )
        example.remove.click(actions.remove_example, [examples], [examples, example.gallery], concurrency_limit=None)
        settings.method.change(
            actions.choose_method,
            [settings.method],
            [settings.num_beams, settings.top_k, settings.temperature],
            concurrency_limit=None,
        )
    return page


def _connect_conversation(
    actions: PageActions,
    conversation: ConversationParts,
    settings: SettingParts,
    turns: gr.State,
    pending: gr.State,
    examples: gr.State,
) -> None:
    """Connect the events of the conversation with their actions. Only answers wait in the queue."""
    chatbot, message, new_chat, attention_area, attention, prompt = conversation
    changed = [turns, chatbot, message, pending]
    at_once = {"concurrency_limit": None, "show_progress": "hidden"}
    begun = [
        message.submit(actions.take, [message, turns, pending], changed, api_name="send", **at_once),
        chatbot.retry(actions.retry, [turns, pending], changed, api_name=False, **at_once),
        chatbot.edit(actions.edit, [turns, pending], changed, api_name=False, **at_once),
    ]
    answering = [
        event.success(
            actions.answer,
            [turns, pending, examples, *settings],
            [*changed, prompt, attention],
            api_name="answer" if event is begun[0] else False,
            show_progress="minimal",
            show_progress_on=chatbot,
            concurrency_id="answer",
        )
        for event in begun
    ]
    message.stop(actions.stop, [turns, pending], changed, api_name=False, **at_once)
    gr.on(
        [new_chat.click, chatbot.clear],
        actions.start_new_chat,
        [pending],
        [*changed, prompt, attention],
        cancels=answering,
        api_name=False,
        **at_once,
    )
    settings.shows_attention.change(
        actions.choose_attention, [settings.shows_attention], [attention_area], api_name=False, **at_once
    )
    chatbot.example_select(actions.choose_example, None, [message], api_name=False, **at_once)


def _lay_out_conversation(example_images: Sequence[str | Path]) -> ConversationParts:
    chatbot = gr.Chatbot(
        label="Chat",
        elem_id="chat",
        height=430,
        render_markdown=False,
        latex_delimiters=[],
        buttons=["copy"],
        editable="user",
        group_consecutive_messages=False,  # a group of an image and a text fails in Gradio when it is edited
        feedback_options=None,
        examples=[
            {"text": "", "display_text": Path(path).stem.replace("_", " "), "files": [str(path)], "icon": str(path)}
            for path in example_images
        ],
        placeholder="Add an image, and a text if you like, then send them. An image can be dropped anywhere.",
    )
    message = gr.MultimodalTextbox(
        label="Message",
        elem_id="message",
        show_label=False,
        file_types=["image"],
        file_count="multiple",
        placeholder="Text after the image, such as 'question: what color? answer:'",
        max_plain_text_length=MAX_CHARACTERS,
        autofocus=True,
    )
    new_chat = gr.Button("New chat", elem_id="new-chat", size="sm")
    with gr.Column(visible=False) as attention_area:
        gr.Markdown("What the model looked at while it wrote each word: dark is little, bright is much")
        attention = gr.Gallery(
            show_label=False,
            elem_id="attention",
            columns=6,
            object_fit="contain",
            height="auto",
            interactive=False,
            buttons=[],
            format="png",
        )
    prompt = gr.Textbox(
        label="Prompt that the model continued",
        elem_id="prompt",
        lines=3,
        max_lines=10,
        interactive=False,
        buttons=["copy"],
    )
    return ConversationParts(chatbot, message, new_chat, attention_area, attention, prompt)


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
        shows_attention=gr.Checkbox(label="Show what the model looked at for each word", elem_id="show-attention"),
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
    example_images: Sequence[str | Path] | None = None,
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
        example_images (`Sequence[str]`, *optional*): Files of images that an empty chat offers. By default three are drawn.

    Raises:
        ValueError: the page cannot be served at this address, an example image cannot be read, or the model cannot be loaded.
    """
    check_listening(host, port)
    check_example_images(example_images or ())
    chat = FlamingoChat.from_pretrained(name_or_path, dtype)
    if chat_template is not None:
        chat.processor.set_chat_template(chat_template)
    images = draw_example_images() if example_images is None else example_images
    serve_page(build_page(chat, os.fspath(name_or_path), images), host, port, share)


def serve_page(page: gr.Blocks, host: str, port: int | None, share: bool = False, *, blocks: bool = True) -> str:
    """
    Serve a page, and return its address.

    Args:
        page (`gr.Blocks`): The page, see [`build_page`].
        host, port, share: As in [`run_chat`].
        blocks (`bool`, *optional*, defaults to `True`): Whether to return only when it is interrupted.
    """
    # Gradio's own themes fetch their fonts
    theme = gr.themes.Default(
        primary_hue="pink", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    # Not `show_error`, which shows the message of any error with the paths in it
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=1)
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        share=share,
        theme=theme,
        css=CSS,
        head=HEAD,
        ssr_mode=False,
        max_file_size=MAX_UPLOAD,
        prevent_thread_lock=not blocks,
    )
    return address
