# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
`flamingo chat DIRECTORY`: a page on which one talks with a saved Flamingo about images.

[`FlamingoChat`] is all there is to it, in plain Python: examples and turns in, the prompt and a streamed answer out.
[`build_page`] puts it on a Gradio page. The page is served from this machine alone: fonts are the system's, and nothing
is reported to anyone.
"""

import html
import os
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any, Literal, get_args

import torch
from transformers import (
    AutoModelForImageTextToText,
    AutoProcessor,
    BatchFeature,
    StoppingCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
)

from .modeling_flamingo import FlamingoModel
from .processing_flamingo import FlamingoProcessor


Method = Literal["greedy", "beam", "sampling"]
Message = dict[str, Any]


@dataclass(frozen=True)
class AnswerSettings:
    """
    How an answer is generated.

    Args:
        method (`str`): `"greedy"`, `"beam"` or `"sampling"`.
        max_new_tokens (`int`): Tokens at most.
        num_beams (`int`): Of beam search.
        top_k (`int`), temperature (`float`): Of sampling.
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
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` is {getattr(self, name)}, but it must be more than 0.")

    def generate_kwargs(self) -> dict[str, Any]:
        """The arguments of `generate()`, of which those of other methods are no part."""
        kwargs = {
            "greedy": {"do_sample": False, "num_beams": 1},
            "beam": {"do_sample": False, "num_beams": self.num_beams},
            "sampling": {"do_sample": True, "num_beams": 1, "top_k": self.top_k, "temperature": self.temperature},
        }
        return {"max_new_tokens": self.max_new_tokens, **kwargs[self.method]}


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
        device = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
        processor = AutoProcessor.from_pretrained(name_or_path)
        return cls(AutoModelForImageTextToText.from_pretrained(name_or_path, dtype=dtype).to(device), processor)

    def prepare(self, messages: list[Message]) -> tuple[str, BatchFeature]:
        """
        The prompt that continues `messages`, as text and as inputs of the model.

        Args:
            messages (`list[dict]`):
                The conversation as transformers has it, the user's turn last: see [`user_message`],
                [`assistant_message`] and [`example_messages`].

        Raises:
            ValueError: there is nothing to answer, or an image cannot be read.
        """
        if not messages or not messages[-1]["content"]:
            raise ValueError("There is nothing to answer: add an image or a text.")
        prompt = self.processor.apply_chat_template(messages, add_generation_prompt=True)
        inputs = self.processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        return prompt, inputs

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
        limit = getattr(self.model.config.text_config, "max_position_embeddings", None)
        if limit is not None and num_tokens + settings.max_new_tokens > limit:
            raise ValueError(
                f"The prompt has {num_tokens} tokens and the answer may have {settings.max_new_tokens}, but the language "
                f"model has {limit} positions. Remove examples, begin a new chat, or allow fewer new tokens."
            )
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
                streamer.end()  # or the loop below would wait for ever

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
            prompt, inputs = chat.prepare([*example_messages(examples), *turns])
            yield gr.skip(), shown(turns), prompt, gr.skip()
            for answer in chat.answer(inputs, AnswerSettings(*settings)):
                answered = [*turns, assistant_message(answer)]
                yield answered, shown(answered), prompt, None
        except ValueError as error:  # what the user can mend; what was typed stays
            warn(str(error))
            yield gr.skip(), shown(turns[:-1]), gr.skip(), gr.skip()

    def add_example(image: str | None, text: str, examples: list[tuple[str, str]]):
        if image is None or not text:
            warn("An example is an image and its text: give both.")
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
                        1, 256, defaults.max_new_tokens, step=1, label="New tokens at most", elem_id="max-new-tokens"
                    )
                    num_beams = gr.Slider(2, 16, defaults.num_beams, step=1, label="Beams", visible=False)
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

    chat = FlamingoChat.from_pretrained(name_or_path, dtype)
    # Gradio's own themes fetch their fonts
    theme = gr.themes.Default(
        primary_hue="pink", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
    )
    page = build_page(chat, os.fspath(name_or_path))
    page.launch(server_name=host, server_port=port, share=share, theme=theme, css=CSS, ssr_mode=False, show_error=True)
