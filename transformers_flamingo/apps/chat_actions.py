# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
What happens on the page of `flamingo chat` when a visitor sends, repeats or edits a message, stops an answer, or adds an example.

A message is taken and shown at once, also while the model answers someone else. Then its answer waits in the queue.
"""

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event
from typing import Any

import gradio as gr
from PIL import Image
from transformers.utils import ModelOutput

from ..cards.attention_sheet import find_word_attention, image_in_view, overlay_attention
from .chat import (
    AnswerSettings,
    FlamingoChat,
    Message,
    Method,
    assistant_message,
    example_messages,
    find_turn,
    to_gradio_messages,
    user_message,
)
from .chat_limits import MAX_EXAMPLES, check_message, visitor_message


Example = tuple[str, str]  # path of an image, text
WordImage = tuple[Image.Image, str]  # an image with what was looked at, and the word

# An update of the message box: there is something to send, and nothing to stop
IDLE = gr.update(submit_btn=True, stop_btn=False)
# Below this width a page is that of a phone, in pixels of CSS
PHONE_WIDTH = 768


@dataclass
class Pending:
    """
    An answer that is being given, or waits in the queue.

    Args:
        stop (`threading.Event`): Ends it where it is.
        has_begun (`bool`): Whether it is not waiting any more.
    """

    stop: Event = field(default_factory=Event)
    has_begun: bool = False


class PageActions:
    """
    Actions of the page: functions of a visitor's state and input that return updates of components.

    The state is kept by Gradio for each visitor: the turns, the examples, and the pending answer, if there is one. The actions
    that change the conversation return updates of `(turns, chatbot, message box, pending)`, in this order.

    Args:
        chat ([`FlamingoChat`]): Answers the messages.
        example_images (`Sequence[str]`, *optional*): Files of the images that an empty chat offers.
    """

    def __init__(self, chat: FlamingoChat, example_images: Sequence[str | Path] = ()):
        self.chat = chat
        self.example_images = [str(path) for path in example_images]

    def take(self, message: dict[str, Any], turns: list[Message], pending: Pending | None) -> tuple:
        """Take a message out of its box and show it, unless it cannot be sent."""
        text, images = message["text"], message["files"]
        try:
            _check_idle(pending)
            if not text and not images:
                raise ValueError("There is nothing to send: add an image or a text.")
            check_message(text, images)
        except ValueError as error:
            raise _as_warning(error, images) from error
        return self._begin([*turns, user_message(text, images)])

    def retry(self, turns: list[Message], pending: Pending | None, data: gr.RetryData) -> tuple:
        """Take back the answer to a message, and all that follows."""
        try:
            _check_idle(pending)
            # Whether the message or its answer was clicked, the message is the last one of the visitor up to there
            number = find_turn(turns, _as_index(data.index))
            while number > 0 and turns[number]["role"] != "user":
                number -= 1
        except ValueError as error:
            raise _as_warning(error) from error
        return self._begin(turns[: number + 1])

    def edit(self, turns: list[Message], pending: Pending | None, data: gr.EditData) -> tuple:
        """Replace the text of a message, and take back all that follows."""
        text = _as_text(data.value)
        try:
            _check_idle(pending)
            number = find_turn(turns, _as_index(data.index))
            turn = turns[number]
            images = [part["image"] for part in turn["content"] if part["type"] == "image"]
            if turn["role"] != "user" or (not text and not images):
                raise ValueError("Only a text of yours can be edited, and it cannot be emptied if it has no image.")
            check_message(text, images)
        except ValueError as error:
            raise _as_warning(error) from error
        return self._begin([*turns[:number], user_message(text, images)])

    def _begin(self, turns: list[Message]) -> tuple:
        box = gr.update(value=None, submit_btn=False, stop_btn=True)
        return turns, to_gradio_messages(turns), box, Pending()

    def answer(
        self,
        turns: list[Message],
        pending: Pending | None,
        examples: list[Example],
        shows_attention: bool,
        *settings: Any,
    ) -> Iterator[tuple]:
        """
        Answer the last message, and yield `(turns, chatbot, message box, pending, prompt, gallery)` each time the answer grows.

        The gallery shows what the model looked at, if the visitor wants to see it.
        """
        if pending is None or pending.stop.is_set():  # stopped while it waited
            yield (gr.skip(),) * 6
            return
        pending.has_begun = True
        outputs: list[ModelOutput] = []
        shown = ""
        try:
            prompt, inputs = self.chat.prepare([*example_messages(examples), *turns])
            yield *(gr.skip(),) * 4, prompt, []
            on_end = outputs.append if shows_attention else None
            for answer in self.chat.answer(inputs, AnswerSettings(*settings), on_end, pending.stop):
                if shown or not pending.stop.is_set():
                    shown, answered = answer, [*turns, assistant_message(answer)]
                    yield answered, to_gradio_messages(answered), *(gr.skip(),) * 4
            if not shown and pending.stop.is_set():
                yield *_take_back(turns), gr.skip(), gr.skip()
                return
            gallery = self._draw(inputs, outputs) if shows_attention else []
            yield gr.skip(), gr.skip(), IDLE, None, gr.skip(), gallery
        except Exception as error:  # the message goes back into its box
            back = _take_back(turns)
            _warn(visitor_message(error, [*back[2]["value"]["files"], *(image for image, _ in examples)]))
            yield *back, gr.skip(), gr.skip()
        finally:
            pending.stop.set()  # also if the visitor has left: then Gradio closes this generator

    def _draw(self, inputs: dict[str, Any], outputs: list[ModelOutput]) -> list[WordImage]:
        """Draw what was looked at for each word. An answer stays if nothing says so, as without an image."""
        image = image_in_view(self.chat.processor, inputs)
        if image is None or not outputs:
            return []
        try:
            words = find_word_attention(self.chat.processor, outputs[0], inputs["input_ids"].shape[1])
        except ValueError as error:
            _warn(visitor_message(error))
            return []
        strongest = max((float(word.weights.max()) for word in words), default=1.0)
        return [(overlay_attention(image, word.weights, strongest), word.word) for word in words]

    def stop(self, turns: list[Message], pending: Pending | None) -> tuple:
        """End an answer where it is. One that has begun says so itself; of one that waits, the message goes back into its box."""
        if pending is None:
            return gr.skip(), gr.skip(), IDLE, gr.skip()
        pending.stop.set()
        return (gr.skip(),) * 4 if pending.has_begun else _take_back(turns)

    def start_new_chat(self, pending: Pending | None) -> tuple:
        """Stop an answer, and return empty turns, chatbot, prompt and gallery, and a box that is ready."""
        if pending is not None:
            pending.stop.set()
        return [], [], IDLE, None, "", []

    def choose_example(self, data: gr.SelectData) -> dict[str, Any]:
        """Put an example image into the message box."""
        # By its number: the event also names a file, but a visitor could name any file of this machine there
        return {"text": "", "files": [self.example_images[int(data.index)]]}

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

    def choose_method(self, method: Method) -> list:
        """Return updates that show the settings of this method alone: beams, top k and temperature."""
        return [gr.update(visible=method == name) for name in ("beam", "sampling", "sampling")]

    def choose_attention(self, shows: bool) -> dict[str, Any]:
        """Return an update that shows or hides what the model looked at."""
        return gr.update(visible=shows)

    def fold(self, width: float) -> tuple:
        """Return updates that fold the examples and the settings away on a phone, whose page they would fill."""
        return (gr.update(open=width >= PHONE_WIDTH),) * 2


def _check_idle(pending: Pending | None) -> None:
    if pending is not None:
        raise ValueError("An answer is being given. Wait for its end, or stop it.")


def _take_back(turns: list[Message]) -> tuple:
    """Return updates of the conversation that put the last message of the visitor back into its box."""
    parts = turns[-1]["content"]
    text = "".join(part["text"] for part in parts if part["type"] == "text")
    files = [part["image"] for part in parts if part["type"] == "image"]
    return turns[:-1], to_gradio_messages(turns[:-1]), {**IDLE, "value": {"text": text, "files": files}}, None


def _as_index(index: int | tuple[int, int]) -> int:
    return index if isinstance(index, int) else index[0]


def _as_text(value: Any) -> str:
    """Return the text of an edited message, which Gradio gives as it is or as a list of parts."""
    parts = value if isinstance(value, list) else [value]
    return "".join(part if isinstance(part, str) else part.get("text") or "" for part in parts)


def _as_warning(error: ValueError, paths: list[str] | tuple[str, ...] = ()) -> gr.Error:
    """Warn a visitor, and make the error that ends the chain of events without a second message."""
    _warn(visitor_message(error, paths))
    return gr.Error("", visible=False, print_exception=False)


def _warn(text: str) -> None:
    # `gr.Error` would cover the chat and the message box. Gradio renders HTML, so `<image>` is escaped
    gr.Warning(html.escape(text), duration=None)
