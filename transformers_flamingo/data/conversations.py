# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Conversations: made a document, and rendered by a chat template other than that of few-shot prompts.

The text of a sample is exactly what `processor.apply_chat_template` renders, up to the end of the last answer. In it, each answer is
supervised from the end of the generation prompt to the token that ends the turn, at which generation stops.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import jinja2

from ..chat_templates_flamingo import CONTENT_MACRO, find_assistant_turn, find_end, is_text_template
from ..processing_flamingo import FlamingoProcessor
from .documents import Chunk, Piece, Turn
from .errors import BadSampleError


_CONTENT_MACRO = jinja2.Template(CONTENT_MACRO)


def messages_to_document(
    messages: list[tuple[str, list[Any]]], location: str, *, images_first: bool | None = None, num_given: int = 0
) -> list[Chunk]:
    """
    Turn messages into a document.

    The messages of the assistant are supervised, and everything else is not. The text is that of the processor's chat
    template, so that a model is asked as it was trained. Anything after the last answer is dropped.

    Args:
        messages (`list[tuple[str, list]]`): Pairs of a role and the parts of a message, each a string, or an image or
            video as in [`Chunk`].
        location (`str`): File and row, for error messages.
        images_first (`bool`, *optional*): Whether the images of a message of the user come first. By default those of messages that
            begin with a text, as in [`~FlamingoProcessor.apply_chat_template`].
        num_given (`int`, *optional*, defaults to 0): How many of the first messages are given and not learned, those of the assistant
            included.

    Raises:
        BadSampleError: a message of the assistant is empty, or has anything but text.
    """
    document, chunk = [], Chunk("")
    last = ""  # last part of the previous message, "" after an answer
    for number, (role, parts) in enumerate(messages):
        if role == "assistant":
            answer = "".join(part for part in parts if isinstance(part, str))
            if not all(isinstance(part, str) for part in parts) or not answer.strip():
                raise BadSampleError(
                    f"{location}: a message of the assistant is {parts!r} instead of a text. Fix the row, or remove it."
                )
            if number < num_given:
                parts = [answer]
        if role == "assistant" and number >= num_given:
            gap = " " * (isinstance(last, str) and last != "" and not last[-1].isspace() and not answer[0].isspace())
            document.append(replace(chunk, text=gap + answer, turns=(*chunk.turns, Turn(role, answer))))
            chunk, last = Chunk(""), ""
            continue
        if role == "user":
            parts = _order_parts(parts, images_first)
        if last != "" and not (isinstance(last, str) and last[-1].isspace()):
            chunk, last = replace(chunk, prompt=chunk.prompt + "\n"), "\n"
        chunk = replace(chunk, turns=(*chunk.turns, Turn(role)))
        for part in parts:
            if isinstance(part, str):
                chunk = replace(chunk, prompt=chunk.prompt + part, turns=(*chunk.turns, Turn(None, part)))
            else:
                if chunk.item is not None or chunk.prompt:
                    document.append(chunk)
                    chunk = Chunk("")
                chunk = replace(chunk, item=part, turns=(*chunk.turns, Turn(None, has_image=True)))
            last = part
    return document


def render_conversation(
    document: list[Chunk], processor: FlamingoProcessor, location: str
) -> tuple[list[Piece], bool]:
    """
    Render a document of [`messages_to_document`] by the chat template of a processor.

    Args:
        document (`list[Chunk]`): The document, whose texts have no special tokens.
        processor ([`FlamingoProcessor`]): The processor.
        location (`str`): File and row, for error messages.

    Returns:
        `tuple[list[Piece], bool]`: the text, cut before each marker and after each answer, and whether the tokenizer adds special
        tokens to it.

    Raises:
        BadSampleError: the chat template refuses the conversation, or changes the texts.
        ValueError: the chat template writes nothing after an answer at which generation could stop.
    """
    messages = _messages_of(document)
    answers = [message["content"][0]["text"] for message in messages if message["role"] == "assistant"]
    # In place of each answer, to find it in the text
    cover = _find_unused_character(turn.text for chunk in document for turn in chunk.turns)
    covered = [
        {**message, "content": [{"type": "text", "text": cover}]} if message["role"] == "assistant" else message
        for message in messages
    ]
    template = processor.default_chat_template
    # They are in order, and a template of a user has no such variable
    options = {"images_first": False} if is_text_template(template) else {}
    try:
        text = processor.apply_chat_template(messages, **options)
        around = processor.apply_chat_template(covered, **options).split(cover)
        header = find_assistant_turn(processor.tokenizer, template).header
    except (jinja2.TemplateError, TypeError) as error:
        raise BadSampleError(
            f"{location}: the chat template does not accept the conversation ({error}). Fix the row, remove it, or train with another "
            "`chat_template`."
        ) from error
    count = sum(chunk.item is not None for chunk in document)
    if text.count(processor.image_token) != count:
        raise BadSampleError(
            f"{location}: the chat template writes {text.count(processor.image_token)} `{processor.image_token}` for {count} images, so it "
            "is unknown which image a marker is. Remove the row, or train with another `chat_template`."
        )
    for shown in (answers, [answer.strip() for answer in answers]):  # many templates strip the texts
        if len(around) == len(shown) + 1 and text == _join(around, shown):
            # An answer that is given has its text in a turn of its own
            turns = [turn for chunk in document for turn in chunk.turns if turn.role == "assistant"]
            learned = [turn.text != "" for turn in turns]
            return _cut(around, shown, learned, header, document, processor), processor.adds_special_tokens(text)
    raise BadSampleError(
        f"{location}: the chat template changes the answers or leaves some out, so it is unknown what is to be learned. Remove the "
        "row, or train with another `chat_template`."
    )


def _order_parts(parts: list[Any], images_first: bool | None) -> list[Any]:
    """Put the parts of a message of the user in the order in which the chat templates write them, by their own macro."""
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) == len(parts):
        return parts
    marker = _find_unused_character(texts)
    content = [{"type": "text", "text": part} if isinstance(part, str) else {"type": "image"} for part in parts]
    module = _CONTENT_MACRO.make_module({"images_first": images_first, "image_token": marker})
    first, *rest = module.flamingo_content({"role": "user", "content": content}).split(marker)
    items = (part for part in parts if not isinstance(part, str))
    ordered = [first, *(part for item, text in zip(items, rest, strict=True) for part in (item, text))]
    return [part for part in ordered if not isinstance(part, str) or part]


def _find_unused_character(texts: Iterable[str]) -> str:
    """Return a character of Unicode's private use area that is not in the texts, to put in place of something in them."""
    used = set().union(*texts)
    return next(chr(code) for code in range(0xE000, 0xF900) if chr(code) not in used)


def _messages_of(document: list[Chunk]) -> list[dict[str, Any]]:
    """Return the messages of a document, with bare markers for its images."""
    messages: list[dict[str, Any]] = []
    for turn in (turn for chunk in document for turn in chunk.turns):
        if turn.role is not None:
            messages.append({"role": turn.role, "content": []})
        if turn.has_image:
            messages[-1]["content"].append({"type": "image"})
        elif turn.text:
            messages[-1]["content"].append({"type": "text", "text": turn.text})
    return messages


def _join(around: Sequence[str], answers: Sequence[str]) -> str:
    """Put answers between the texts around them."""
    return around[0] + "".join(answer + after for answer, after in zip(answers, around[1:], strict=True))


def _cut(
    around: Sequence[str],
    answers: Sequence[str],
    learned: Sequence[bool],
    header: str,
    document: list[Chunk],
    processor: FlamingoProcessor,
) -> list[Piece]:
    """Cut a text before each marker and after each answer, of which those that are `learned` are supervised."""
    items = iter([chunk.item for chunk in document if chunk.item is not None])
    has_media = any(chunk.item is not None for chunk in document)
    pieces: list[Piece] = []
    before, seen = around[0], not has_media
    for answer, is_learned, after in zip(answers, learned, around[1:], strict=True):
        end = find_end(after, processor.tokenizer)
        if end is None:
            raise ValueError(
                f"The chat template writes {after[:40]!r} after an answer, which does not begin with a special token, so the model "
                "could not learn where to stop. Train with `chat_template: few_shot`, or give the tokenizer a template that ends each turn "
                "with a special token."
            )
        first, *marked = before.split(processor.image_token)
        texts = [(first, None)] * bool(first) + [(processor.image_token + text, next(items)) for text in marked]
        seen = seen or bool(marked)
        *earlier, (last, item) = texts or [("", None)]
        pieces += [Piece(text, len(text), image, False) for text, image in earlier]
        given = last[: last.rindex(header) + len(header)] if header in last else last
        length = after.index(end) + len(end)
        text = last + answer + after[:length]
        # A byte-level tokenizer makes the space before a word part of its token
        pieces.append(Piece(text, len(given.rstrip(" ")) if seen and is_learned else len(text), item, False))
        before = after[length:]
    return pieces
