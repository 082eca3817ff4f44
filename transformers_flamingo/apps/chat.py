# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
`flamingo chat DIRECTORY`: a page on which one talks with a saved Flamingo about images.

[`FlamingoChat`] is all there is to it, in plain Python: examples and turns in, the prompt and a streamed answer out.
[`build_page`] puts it on a Gradio page. The page is served from this machine alone: fonts are the system's, and nothing
is reported to anyone.
"""

import html
import os
import re
import socket
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any, Literal, get_args

import PIL.Image
import torch
from transformers import (
    BatchFeature,
    StoppingCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
)
from transformers.utils import logging

from ..files_flamingo import read_regular_file
from ..images_flamingo import open_bytes
from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor
from ..utils.literal_text import encode_literal, render_literal
from ..utils.loading import check_answer_length, load_flamingo
from ..utils.redaction import redact


logger = logging.get_logger(__name__)

# What one visitor of the page may ask of the machine that serves it.
MAX_UPLOAD = "20mb"  # of a file
MAX_PIXELS = 50_000_000  # of an image: a small file may hold a very large one
MAX_IMAGES = 32  # of a message
MAX_EXAMPLES = 64
MAX_CHARACTERS = 20_000  # of a text
MAX_NEW_TOKENS = 256
MAX_BEAMS = 16
MAX_WAITING = 16  # requests; one is answered at a time

Method = Literal["greedy", "beam", "sampling"]
Message = dict[str, Any]


@dataclass(frozen=True)
class AnswerSettings:
    """
    How an answer is generated.

    Args:
        method (`str`): `"greedy"`, `"beam"` or `"sampling"`.
        max_new_tokens (`int`): Maximum number of tokens.
        num_beams (`int`): Of beam search.
        top_k (`int`), temperature (`float`): Of sampling.

    Raises:
        ValueError: a value is of another type or out of its range.
    """

    method: Method = "greedy"
    max_new_tokens: int = 32
    num_beams: int = 3
    top_k: int = 50
    temperature: float = 1.0

    def __post_init__(self):
        if self.method not in get_args(Method):
            raise ValueError(f"`method` is {self.method!r}, but it must be one of {', '.join(get_args(Method))}.")
        for name in ("max_new_tokens", "num_beams", "top_k", "temperature"):
            value = getattr(self, name)
            if not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise ValueError(f"`{name}` is {value!r}, but it must be a number above 0.")
            if name != "temperature" and value != int(value):
                raise ValueError(f"`{name}` is {value!r}, but it must be a whole number.")

    def generate_kwargs(self) -> dict[str, Any]:
        """Return the arguments of `generate()` for this method."""
        kwargs = {
            "greedy": {"do_sample": False, "num_beams": 1},
            "beam": {"do_sample": False, "num_beams": int(self.num_beams)},
            "sampling": {"do_sample": True, "num_beams": 1, "top_k": int(self.top_k), "temperature": self.temperature},
        }
        return {"max_new_tokens": int(self.max_new_tokens), **kwargs[self.method]}


def user_message(text: str, images: list[Any]) -> Message:
    """What the user says: images first, as in the paper, then text."""
    content = [{"type": "image", "image": image} for image in images]
    return {"role": "user", "content": content + ([{"type": "text", "text": text}] if text else [])}


def assistant_message(text: str) -> Message:
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def example_messages(examples: list[tuple[Any, str]]) -> list[Message]:
    """Few-shot examples, pairs of an image or `None` and its text, as turns of a chat."""
    return [
        message
        for image, text in examples
        for message in (user_message("", [] if image is None else [image]), assistant_message(text))
    ]


class _StopWhen(StoppingCriteria):
    def __init__(self, event: Event):
        self.event = event

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs) -> torch.BoolTensor:
        return torch.full((len(input_ids),), self.event.is_set(), device=input_ids.device)


class FlamingoChat:
    """
    Answers conversations with images.

    Args:
        model ([`FlamingoModel`]): The model, on its device. It is put into evaluation mode.
        processor ([`FlamingoProcessor`]): Its processor, whose chat template makes the prompt.

    Example:

    ```python
    >>> chat = FlamingoChat.from_pretrained("flamingo-demo/model")
    >>> prompt, inputs = chat.prepare([*example_messages([("dog.png", "a dog")]), user_message("", ["cat.png"])])
    >>> prompt
    '<image>a dog<|endofchunk|><image>'
    >>> *_, answer = chat.answer(inputs, AnswerSettings("beam"))
    ```
    """

    def __init__(self, model: FlamingoModel, processor: FlamingoProcessor):
        self.model = model.eval()
        self.processor = processor

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike, dtype: str | torch.dtype = "auto") -> "FlamingoChat":
        """Load a saved Flamingo onto the accelerator, if there is one."""
        return cls(*load_flamingo(name_or_path, dtype))

    def prepare(self, messages: list[Message]) -> tuple[str, BatchFeature]:
        """
        Make the prompt that continues `messages`, as text and as inputs of the model.

        Texts are literal: `<image>`, `<|endofchunk|>` or an end-of-text token in them is ordinary text.

        Args:
            messages (`list[dict]`):
                The conversation as transformers has it, the user's turn last: see [`user_message`],
                [`assistant_message`] and [`example_messages`].

        Raises:
            ValueError: there is nothing to answer, an image cannot be read, or the tokenizer cannot express a special token as
                text.
        """
        if not messages or not messages[-1]["content"]:
            raise ValueError("There is nothing to answer: add an image or a text.")
        prompt, spans = render_literal(self.processor, messages)
        images = [part["image"] for message in messages for part in message["content"] if part["type"] == "image"]
        # As `apply_chat_template` has it: a template that writes the first token leaves the tokenizer nothing to add
        bos = self.processor.tokenizer.bos_token
        has_bos = bos is not None and prompt.startswith(bos) and (0, len(bos)) not in spans
        return prompt, encode_literal(self.processor, prompt, spans, images, add_special_tokens=not has_bos)

    def answer(self, inputs: BatchFeature, settings: AnswerSettings) -> Iterator[str]:
        """
        Generate, and yield the answer so far each time it grows: with beams once, as they are not known before the end.

        Generation stops when the iterator is closed.

        Args:
            inputs (`BatchFeature`): What [`~FlamingoChat.prepare`] returned.
            settings ([`AnswerSettings`]): How to generate.

        Raises:
            ValueError: prompt and answer have more tokens than the language model has positions.
        """
        num_tokens = inputs["input_ids"].shape[1]
        check_answer_length(self.model, num_tokens, settings.max_new_tokens)
        inputs = inputs.to(self.model.device, self.model.dtype)
        if settings.method == "beam":
            generated = self.model.generate(**inputs, **settings.generate_kwargs())
            yield self.processor.decode(generated[0, num_tokens:], skip_special_tokens=True).strip()
            return

        streamer = TextIteratorStreamer(self.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)
        closed, errors = Event(), []

        def generate() -> None:
            try:
                criteria = StoppingCriteriaList([_StopWhen(closed)])
                self.model.generate(
                    **inputs, **settings.generate_kwargs(), streamer=streamer, stopping_criteria=criteria
                )
            except Exception as error:
                errors.append(error)
                streamer.end()  # or the loop below would wait forever

        thread = Thread(target=generate)
        thread.start()
        try:
            text = ""
            for piece in streamer:
                text += piece
                if piece:
                    yield text.strip()
        finally:
            closed.set()
            thread.join()
        if errors:
            raise errors[0]
        yield text.strip()  # an answer without a word is one too


def shown(turns: list[Message]) -> list[Message]:
    """Turns as Gradio's chatbot takes them: a message for each image, and one for the text."""
    return [
        {
            "role": turn["role"],
            "content": part["text"] if part["type"] == "text" else {"path": str(part["image"])},
        }
        for turn in turns
        for part in turn["content"]
    ]


def check_upload(path: str | os.PathLike) -> None:
    """
    Check that a file that a visitor sent is an image of a size that can be shown.

    Raises:
        ValueError: it is not. The message has the name of the file, and nothing of this machine.
    """
    name = os.path.basename(path)
    try:
        with open_bytes(read_regular_file(path)) as image:  # not by Pillow alone, which runs an EPS as a program
            size = image.size
            if size[0] * size[1] <= MAX_PIXELS:
                image.load()
                return
    except PIL.Image.DecompressionBombError:
        size = None
    except Exception as error:  # each of Pillow's decoders has its own
        raise ValueError(
            f"The image {name!r} cannot be read: it is damaged, or not an image. Send another."
        ) from error
    shape = "" if size is None else f" of {size[0]} x {size[1]} pixels"
    raise ValueError(f"The image {name!r}{shape} is too large: at most {MAX_PIXELS:,} pixels. Send a smaller one.")


def check_message(text: str, images: Sequence[str]) -> None:
    """
    Check that a message is within the limits of the page.

    Raises:
        ValueError: it is too long, has too many images, or one of them cannot be read.
    """
    if len(text) > MAX_CHARACTERS:
        raise ValueError(
            f"The text has {len(text):,} characters, but at most {MAX_CHARACTERS:,} can be sent. Shorten it."
        )
    if len(images) > MAX_IMAGES:
        raise ValueError(f"The message has {len(images)} images, but at most {MAX_IMAGES} can be sent. Remove some.")
    for path in images:
        check_upload(path)


def visitor_message(error: Exception, paths: Sequence[str] = ()) -> str:
    """
    Return the words of an error for a visitor: with the names of the files that were sent, without paths of this machine and
    without secrets. A fault of the program is logged, and only said to have happened.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return (
            "This machine has not enough memory for the conversation. Remove images or examples, or begin a new chat."
        )
    if not isinstance(error, ValueError):
        logger.error("An answer failed.", exc_info=error)
        return "The answer failed by a fault of the program. Its log on the server says how."
    text = str(error)
    for path in sorted(map(str, paths), key=len, reverse=True):
        text = text.replace(path, os.path.basename(path))
    for folder in (tempfile.gettempdir(), os.getcwd(), os.path.expanduser("~")):
        if folder != os.sep:
            text = re.sub(rf"{re.escape(folder)}(/[^\s'\",:;()]+)*", lambda found: os.path.basename(found[0]), text)
    return redact(text)


CSS = """
.gradio-container {width: 100%; max-width: 1400px !important; margin: auto}
#prompt textarea {font-family: ui-monospace, monospace; font-size: 0.85rem}
#examples .caption-label {font-size: 0.7rem; max-width: 100%}
footer, button[title="Share"], button[aria-label="Share"] {display: none !important}
"""


def build_page(chat: FlamingoChat, name: str):
    """
    The page of a chat.

    Args:
        chat ([`FlamingoChat`]): What answers.
        name (`str`): The model's name, for the title.

    Returns:
        `gradio.Blocks`
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    import gradio as gr

    defaults = AnswerSettings()

    def warn(text: str) -> None:
        # Not `gr.Error`, which covers the chat and what was typed. Gradio shows HTML, and `<image>` is none.
        gr.Warning(html.escape(text), duration=None)

    def send(message: dict[str, Any], turns: list[Message], examples: list[tuple[str, str]], *settings):
        turns = [*turns, user_message(message["text"], message["files"])]
        try:
            check_message(message["text"], message["files"])
            prompt, inputs = chat.prepare([*example_messages(examples), *turns])
            yield gr.skip(), shown(turns), prompt, gr.skip()
            for answer in chat.answer(inputs, AnswerSettings(*settings)):
                answered = [*turns, assistant_message(answer)]
                yield answered, shown(answered), prompt, None
        except Exception as error:  # what was typed stays
            warn(visitor_message(error, [*message["files"], *(image for image, _ in examples)]))
            yield gr.skip(), shown(turns[:-1]), gr.skip(), gr.skip()

    def add_example(image: str | None, text: str, examples: list[tuple[str, str]]):
        if image is None or not text:
            warn("An example is an image and its text: give both.")
            return (gr.skip(),) * 4
        try:
            check_message(text, [image])
            if len(examples) >= MAX_EXAMPLES:
                raise ValueError(f"There are {MAX_EXAMPLES} examples, and no more can be added. Remove some.")
        except ValueError as error:
            warn(visitor_message(error, [image]))
            return (gr.skip(),) * 4
        examples = [*examples, (image, text)]
        return examples, examples, None, ""

    def remove_example(examples: list[tuple[str, str]]):
        return examples[:-1], examples[:-1]

    with gr.Blocks(title=f"Flamingo: {name}", analytics_enabled=False, fill_width=True) as page:
        turns, examples = gr.State([]), gr.State([])
        gr.Markdown(f"## Flamingo &nbsp;`{name}`")
        with gr.Row():
            with gr.Column(scale=3):
                chatbot = gr.Chatbot(
                    label="Chat",
                    elem_id="chat",
                    height=430,
                    render_markdown=False,
                    latex_delimiters=[],
                    buttons=["copy"],
                    placeholder="Add an image, and a text if you like, then send them.",
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
                    stop_btn=True,
                )
                prompt = gr.Textbox(
                    label="Prompt that the model continued",
                    elem_id="prompt",
                    lines=3,
                    max_lines=10,
                    interactive=False,
                    buttons=["copy"],
                )
                new_chat = gr.Button("New chat", elem_id="new-chat", size="sm")
            with gr.Column(scale=2, min_width=320):
                with gr.Accordion("Examples (shots), in front of every prompt", open=True):
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
                            image_mode=None,  # or Gradio decodes it before it is checked, an EPS by Ghostscript
                            sources=["upload"],
                            height=190,
                            buttons=[],
                            scale=1,
                            min_width=130,
                        )
                        with gr.Column(scale=1, min_width=150):
                            text = gr.Textbox(
                                label="Text", elem_id="example-text", placeholder="What the model should say", lines=2
                            )
                            add = gr.Button("Add example", elem_id="add-example", size="sm")
                            remove = gr.Button("Remove the last", elem_id="remove-example", size="sm")
                with gr.Accordion("Answer", open=True):
                    method = gr.Radio(
                        get_args(Method), value=defaults.method, label="Method", elem_id="method", show_label=False
                    )
                    max_new_tokens = gr.Slider(
                        1,
                        MAX_NEW_TOKENS,
                        defaults.max_new_tokens,
                        step=1,
                        label="Maximum of new tokens",
                        elem_id="max-new-tokens",
                    )
                    num_beams = gr.Slider(2, MAX_BEAMS, defaults.num_beams, step=1, label="Beams", visible=False)
                    top_k = gr.Slider(1, 200, defaults.top_k, step=1, label="Top k", visible=False)
                    temperature = gr.Slider(
                        0.05, 2.0, defaults.temperature, step=0.05, label="Temperature", visible=False
                    )

        settings = [method, max_new_tokens, num_beams, top_k, temperature]  # the fields of AnswerSettings
        answering = message.submit(
            send, [message, turns, examples, *settings], [turns, chatbot, prompt, message], api_name="send"
        )
        message.stop(None, cancels=[answering])
        gr.on(
            [new_chat.click, chatbot.clear],
            lambda: ([], [], ""),
            outputs=[turns, chatbot, prompt],
            cancels=[answering],
        )
        add.click(add_example, [image, text, examples], [examples, gallery, image, text])
        remove.click(remove_example, [examples], [examples, gallery])
        method.change(
            lambda method: [gr.update(visible=method == of) for of in ("beam", "sampling", "sampling")],
            [method],
            [num_beams, top_k, temperature],
        )
    return page


def check_listening(host: str, port: int | None) -> None:
    """
    Check that a page can be served at an address: of one that is not this machine's, Gradio tries every port for minutes.

    Raises:
        ValueError: it cannot.
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
) -> None:
    """
    Load a Flamingo and serve its page until it is interrupted.

    Args:
        name_or_path (`str` or `os.PathLike`): Directory or Hub name of the model.
        host (`str`): Address to listen at. The default is reached from this machine alone.
        port (`int`, *optional*): By default the first that is free from 7860.
        share (`bool`): Whether to open a public link through Gradio's servers.
        dtype (`str`): Of the parameters; `"auto"` is as saved.
    """
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    import gradio as gr

    check_listening(host, port)
    chat = FlamingoChat.from_pretrained(name_or_path, dtype)
    # Gradio's own themes fetch their fonts
    theme = gr.themes.Default(
        primary_hue="pink", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    page = build_page(chat, os.fspath(name_or_path))
    # Not `show_error`, which shows the words of any error, with the paths in it
    page.queue(max_size=MAX_WAITING, default_concurrency_limit=1)
    page.launch(
        server_name=host, server_port=port, share=share, theme=theme, css=CSS, ssr_mode=False, max_file_size=MAX_UPLOAD
    )
