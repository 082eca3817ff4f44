# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Encode the words of a user as text, even if they contain special tokens.

A tokenizer reads `<|endofchunk|>`, `<image>` or `</s>` in a text as an instruction: the chunk ends, an image is marked, the text is
over. In a prompt that is built around a user's words, only the markers that were added around them may be read like this.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from transformers import BatchFeature

from ..processing_flamingo import FlamingoProcessor


Span = tuple[int, int]


def special_token_spans(processor: FlamingoProcessor, text: str) -> list[Span]:
    """
    Return the positions of special tokens in `text`, as pairs of start and end in characters. The unknown token is not one of them.

    Raises:
        ValueError: the text has half of a surrogate pair, such as a byte of the command line that is not UTF-8.
    """
    if (half := re.search("[\ud800-\udfff]", text)) is not None:
        raise ValueError(
            f"The text {text!r} has half of a character at {half.start()}, which no tokenizer reads. Remove it, or write the text in "
            "UTF-8."
        )
    tokens = sorted(_special_tokens(processor), key=len, reverse=True)
    return [found.span() for found in re.finditer("|".join(map(re.escape, tokens)), text)]


def encode_literal(
    processor: FlamingoProcessor,
    text: str,
    spans: Sequence[Span],
    images: Sequence[Any],
    *,
    add_special_tokens: bool = True,
) -> BatchFeature:
    """
    Encode one prompt in which some special tokens are ordinary text.

    Args:
        processor ([`FlamingoProcessor`]): The processor.
        text (`str`): The prompt, with an `<image>` for each image.
        spans (`Sequence[tuple[int, int]]`): Positions of special tokens that are a user's text, see [`special_token_spans`].
        images (`Sequence`): One sample's images or videos, in the order of their markers.
        add_special_tokens (`bool`, *optional*, defaults to `True`): Whether the tokenizer adds its own.

    Returns:
        [`BatchFeature`]: a batch of one, as tensors.

    Raises:
        ValueError: the tokenizer cannot express a special token as text, or an image cannot be read.
    """
    typed = [text[start:end] for start, end in spans]
    if not typed:
        return processor(
            images=[list(images)] if images else None,
            text=[text],
            add_special_tokens=add_special_tokens,
            return_tensors="pt",
        )
    tokenizer = processor.tokenizer
    if not tokenizer.is_fast or (processor.image_token_is_text and processor.image_token in typed):
        raise _refused(typed[0])
    encoding = tokenizer(text, add_special_tokens=add_special_tokens, return_offsets_mapping=True, verbose=False)
    ids = _replace_specials(processor, encoding["input_ids"], encoding["offset_mapping"], text, spans)
    pixels = processor(images=[list(images)], return_tensors="pt") if images else {}
    input_ids = torch.tensor([ids])
    return BatchFeature({"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids), **pixels})


def render_literal(processor: FlamingoProcessor, messages: list[dict[str, Any]]) -> tuple[str, list[Span]]:
    """
    Render a chat whose texts are literal: a special token in one of them is ordinary text, also for the template.

    Args:
        processor ([`FlamingoProcessor`]): The processor, with its chat template.
        messages (`list[dict]`): The conversation. Contents are lists of parts.

    Returns:
        `tuple[str, list[tuple[int, int]]]`: the prompt that continues the chat, and the positions of special tokens in it that are
        ordinary text.

    Raises:
        ValueError: the chat template changes the texts, so that their special tokens cannot be told from its own.
    """
    texts = [part["text"] for message in messages for part in message["content"] if part["type"] == "text"]
    used = set().union(*texts)
    # The template sees a character of Unicode's private use area in place of each character of a typed special token
    cover = next(chr(code) for code in range(0xE000, 0xF900) if chr(code) not in used)
    tokens = [text[start:end] for text in texts for start, end in special_token_spans(processor, text)]

    def covered(part: dict[str, Any]) -> dict[str, Any]:
        if part["type"] != "text":
            return part
        text = part["text"]
        for start, end in special_token_spans(processor, text):
            text = text[:start] + cover * (end - start) + text[end:]
        return {**part, "text": text}

    chat = [{**message, "content": [covered(part) for part in message["content"]]} for message in messages]
    prompt = processor.apply_chat_template(chat, add_generation_prompt=True)
    places = [place for place, character in enumerate(prompt) if character == cover]
    if len(places) != sum(map(len, tokens)):
        raise _refused(tokens[0])
    characters, spans = list(prompt), []
    for token in tokens:
        covered_places, places = places[: len(token)], places[len(token) :]
        start, end = covered_places[0], covered_places[-1] + 1
        spans.append((start, end))
        characters[start:end] = token
    return "".join(characters), spans


def _replace_specials(
    processor: FlamingoProcessor, ids: list[int], offsets: list[Span], text: str, spans: Sequence[Span]
) -> list[int]:
    specials = set(processor.tokenizer.convert_tokens_to_ids(sorted(_special_tokens(processor))))
    result, place = [], 0
    for start, end in spans:
        while place < len(ids) and (offsets[place][1] <= start or offsets[place][0] == offsets[place][1]):
            result.append(ids[place])
            place += 1
        if place < len(ids) and ids[place] in specials:
            result += _as_text(processor, text[start:end], specials)
            place += 1
    return result + ids[place:]


def _as_text(processor: FlamingoProcessor, token: str, specials: set[int]) -> list[int]:
    ids = processor.tokenizer(token, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    if not ids or specials.intersection(ids):
        raise _refused(token)
    return ids


def _special_tokens(processor: FlamingoProcessor) -> set[str]:
    tokenizer = processor.tokenizer
    added = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    tokens = {*tokenizer.all_special_tokens, *added, processor.image_token, processor.end_of_chunk_token}
    return tokens - {tokenizer.unk_token, ""}


def _refused(token: str) -> ValueError:
    return ValueError(
        f"The text contains {token!r}, which this model's tokenizer can only read as a special token: a marker without an image, "
        "or the end of a text that continues. Remove it from the text."
    )
