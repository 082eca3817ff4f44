# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Chat with a Flamingo about images, in plain Python: examples and turns in, the prompt and a streamed answer out.

[`FlamingoChat`] calls the model, on conversations in the format of transformers' chat templates. The page of `flamingo chat` is in
[`chat_page`].
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Event, Thread
from typing import Any, Literal, get_args

import torch
from transformers import (
    BatchFeature,
    StoppingCriteria,
    StoppingCriteriaList,
    TextIteratorStreamer,
)
from transformers.utils import ModelOutput

from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor
from ..utils.literal_text import encode_literal, render_literal
from ..utils.loading import check_answer_length, load_flamingo


Method = Literal["greedy", "beam", "sampling"]
Message = dict[str, Any]

# Shown instead of an answer without a word
EMPTY_ANSWER = (
    "(The answer is empty: the model ended it at once. Ask in the words that it was trained on, add an example of an answer, or "
    "choose sampling.)"
)


@dataclass(frozen=True)
class AnswerSettings:
    """
    Settings of the generation of an answer.

    Args:
        method (`str`, *optional*, defaults to `"greedy"`): `"greedy"`, `"beam"` or `"sampling"`.
        max_new_tokens (`int`, *optional*, defaults to 32): Maximum number of tokens of the answer.
        num_beams (`int`, *optional*, defaults to 3): Number of beams of beam search.
        top_k (`int`, *optional*, defaults to 50): Number of most likely tokens that sampling chooses from.
        temperature (`float`, *optional*, defaults to 1.0): Temperature of sampling.

    Raises:
        ValueError: a value has the wrong type or is out of its range.
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
    """Make a turn of the user: images first, as in the paper, then text."""
    content = [{"type": "image", "image": image} for image in images]
    return {"role": "user", "content": content + ([{"type": "text", "text": text}] if text else [])}


def assistant_message(text: str) -> Message:
    """Make a turn of the model."""
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def example_messages(examples: list[tuple[Any, str]]) -> list[Message]:
    """Make turns of a chat from few-shot examples, which are pairs of an image or `None` and its text."""
    return [
        message
        for image, text in examples
        for message in (user_message("", [] if image is None else [image]), assistant_message(text))
    ]


class _StopWhen(StoppingCriteria):
    def __init__(self, *events: Event):
        self.events = events

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor, **kwargs) -> torch.BoolTensor:
        return torch.full((len(input_ids),), any(event.is_set() for event in self.events), device=input_ids.device)


class FlamingoChat:
    """
    Answer conversations with images.

    Args:
        model ([`FlamingoModel`]): The model, on its device. It is put into evaluation mode.
        processor ([`FlamingoProcessor`]): Its processor, whose chat template builds the prompt.

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
        Build the prompt that continues `messages`, as text and as inputs of the model.

        Texts are literal: `<image>`, `<|endofchunk|>` or an end-of-text token in them is ordinary text.

        Args:
            messages (`list[dict]`):
                The conversation in the format of transformers, with the user's turn last: see [`user_message`],
                [`assistant_message`] and [`example_messages`].

        Returns:
            `tuple[str, BatchFeature]`: the prompt, and a batch of one.

        Raises:
            ValueError: there is nothing to answer, an image cannot be read, or the tokenizer cannot express a special token as
                text.
        """
        if not messages or not messages[-1]["content"]:
            raise ValueError("There is nothing to answer: add an image or a text.")
        prompt, spans = render_literal(self.processor, messages)
        images = [part["image"] for message in messages for part in message["content"] if part["type"] == "image"]
        # As in `apply_chat_template`. A token that was typed is none of the template's
        adds_special_tokens = self.processor.adds_special_tokens("" if spans and spans[0][0] == 0 else prompt)
        return prompt, encode_literal(self.processor, prompt, spans, images, add_special_tokens=adds_special_tokens)

    def answer(
        self,
        inputs: BatchFeature,
        settings: AnswerSettings,
        on_end: Callable[[ModelOutput], None] | None = None,
        stop: Event | None = None,
    ) -> Iterator[str]:
        """
        Generate an answer, and yield all of it so far each time it grows. Beam search yields once, because its answer is not known
        before the end.

        Generation stops when the iterator is closed.

        Args:
            inputs (`BatchFeature`): The inputs that [`~FlamingoChat.prepare`] returned.
            settings ([`AnswerSettings`]): The settings of the generation.
            on_end (`Callable`, *optional*):
                Called at the end with the outputs of `generate()`, which then say what the model looked at (see
                [`attention_maps`]). Without it nothing of that is computed.
            stop (`threading.Event`, *optional*): Ends the answer where it is, from another thread, when it is set.

        Raises:
            ValueError: prompt and answer have more tokens than the language model has positions.
        """
        num_tokens = inputs["input_ids"].shape[1]
        check_answer_length(self.model, num_tokens, settings.max_new_tokens)
        inputs = inputs.to(self.model.device, self.model.dtype)
        closed, errors, outputs = Event(), [], []
        kwargs = settings.generate_kwargs()
        kwargs["stopping_criteria"] = StoppingCriteriaList([_StopWhen(closed, stop or closed)])
        if on_end is not None:
            kwargs |= {"output_cross_attentions": True, "return_dict_in_generate": True}
        if settings.method == "beam":
            generated = self.model.generate(**inputs, **kwargs)
            tokens = generated if on_end is None else generated.sequences
            yield self.processor.decode(tokens[0, num_tokens:], skip_special_tokens=True).strip()
            if on_end is not None:
                on_end(generated)
            return

        streamer = TextIteratorStreamer(self.processor.tokenizer, skip_prompt=True, skip_special_tokens=True)

        def generate() -> None:
            try:
                outputs.append(self.model.generate(**inputs, **kwargs, streamer=streamer))
            except Exception as error:
                errors.append(error)
                streamer.end()  # otherwise the loop below waits forever

        thread = Thread(target=generate)
        thread.start()
        try:
            text = ""
            for piece in streamer:
                text += piece
                if text.strip() and piece:
                    yield text.strip()
        finally:
            closed.set()
            thread.join()
        if errors:
            raise errors[0]
        yield text.strip()  # also if the answer is empty
        if on_end is not None:
            on_end(outputs[0])


def to_gradio_messages(turns: list[Message]) -> list[Message]:
    """Convert turns to the format of Gradio's chatbot: a message for each image, and one for the text. An empty answer says so."""
    return [
        {
            "role": turn["role"],
            "content": (part["text"] or EMPTY_ANSWER) if part["type"] == "text" else {"path": str(part["image"])},
        }
        for turn in turns
        for part in turn["content"]
    ]


def find_turn(turns: list[Message], index: int) -> int:
    """Find the turn of a message of Gradio's chatbot, by the place of the message in [`to_gradio_messages`]."""
    for number, turn in enumerate(turns):
        index -= len(turn["content"])
        if index < 0:
            return number
    raise ValueError("There is no such message any more: the conversation has changed since.")
