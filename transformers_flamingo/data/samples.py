# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Turn documents into samples for the collator: the text rules of the paper, and cutting to a budget."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch

from ..processing_flamingo import FlamingoProcessor
from .conversations import render_conversation
from .documents import Chunk, Piece, draw_texts
from .errors import BadSampleError
from .media import load_media


def document_to_sample(
    document: list[Chunk],
    processor: FlamingoProcessor,
    rng: np.random.Generator,
    *,
    location: str,
    max_length: int | None = None,
    max_images: int | None = None,
    leading_space_probability: float = 0.5,
    next_image_probability: float = 0.0,
    append_eos: bool = False,
) -> dict[str, Any]:
    """
    Turn a document into a sample for [`FlamingoDataCollator`], by the rules of the paper (Alayrac et al. 2022, section
    2.4 and appendix A.3).

    **Text.** Each image or video is one `<image>` before its prompt and text, and each text ends with `<|endofchunk|>`. A
    conversation is rendered by the chat template of the processor, and its answers end as that template ends them.

    **Supervision.** The texts and their `<|endofchunk|>` are supervised. Markers and prompts are not. In a document with
    images, text before the first image is not supervised either, because no image explains it. So everything but
    `<image>` is supervised in an image-text pair, and only the answer in a question with its answer.

    **Cutting.** Whole chunks are removed from the end until the document fits both budgets. If nothing would be left to
    learn, text before the first image is removed instead, and if that is not enough, the first chunk that does not fit
    loses the end of its text, with its `<|endofchunk|>`. Anything after the last supervised text, such as an image that
    no text follows, is always removed, because no loss depends on it.

    Args:
        document (`list[Chunk]`): What [`Reader.read`] returned.
        processor ([`FlamingoProcessor`]): For its markers and, if `max_length` is given, its fast tokenizer.
        rng (`numpy.random.Generator`): The only source of randomness: spaces, moved texts, and which of several captions. The draws
            do not depend on the budgets.
        location (`str`): File and row of the document, for error messages: [`row_location`] of its row.
        max_length (`int`, *optional*): Maximum number of tokens, including the special tokens that the tokenizer adds.
        max_images (`int`, *optional*): Maximum number of images and videos.
        leading_space_probability (`float`, *optional*, defaults to 0.5):
            Probability that a chunk begins with a space, so that the model learns words both with and without one. The
            default is the paper's. A chat template of the language model has the spaces that it has.
        next_image_probability (`float`, *optional*, defaults to 0):
            Probability that the texts of a document see the next image instead of the previous one: on a web page, a text
            may be about either. This is the paper's `p_next`, 0.5 for web pages. The markers move: the first image then
            belongs to the text before it, and the last text keeps the last image.
        append_eos (`bool`, *optional*, defaults to `False`):
            Whether to append the tokenizer's end-of-sequence token, supervised, if it fits. OpenFlamingo does so for
            image-text pairs. Not after a conversation in a chat template of the language model, which has its own end.

    Returns:
        `dict` with `text`, `images` (`N` PIL images, or lists of frames for videos) and `supervised`, the supervised
        parts of the text as `[start, end)` in characters. Features, `N` tensors `(F, P, Dv)`, are in `image_features`
        instead of `images`. `add_special_tokens` is `False` if a chat template wrote all special tokens.

    Raises:
        BadSampleError: a text contains a special token, nothing is left to learn, or a remaining image is broken.
        ValueError: `next_image_probability` is given for a document with prompts.
    """
    _refuse_special_tokens(document, processor, location)
    document = draw_texts(document, rng)
    has_media = any(chunk.item is not None for chunk in document)
    moves = rng.random() < next_image_probability
    if moves and has_media:
        document = _see_next_image(document, location)
    spaces = rng.random(len(document)) < leading_space_probability

    is_rendered = any(chunk.turns for chunk in document) and not processor.has_few_shot_template
    needs_special_tokens = True
    if is_rendered:
        pieces, needs_special_tokens = render_conversation(document, processor, location)
    else:
        pieces = _make_pieces(document, spaces, processor)
    pieces = _drop_unsupervised_end(pieces)
    budget = max_length
    if max_length is not None and needs_special_tokens:
        budget = max(0, max_length - processor.tokenizer.num_special_tokens_to_add())
    kept = _fit(pieces, processor, budget, max_images)
    if not kept:
        raise BadSampleError(
            f"{location}: nothing to learn from in {len(document)} chunks within {max_length=} and {max_images=}. There is "
            "no text, or what comes before the first text does not fit. Remove the row, or raise the budgets."
        )
    text, supervised = _join(kept)
    if append_eos and not is_rendered and kept[-1] is pieces[-1]:
        text, supervised = _append_eos(text, supervised, processor, budget)
    # After an image or another text, something is always predicted
    is_first = kept[0].item is None and len(supervised) == 1
    if is_first and not _is_predicted(text, supervised[0], processor, needs_special_tokens):
        raise BadSampleError(
            f"{location}: nothing to learn from: only the first token of {text!r} is supervised (within {max_length=}), "
            "and nothing comes before it to predict it from. Remove the row, or raise the budget."
        )
    sample: dict[str, Any] = {"text": text, "supervised": supervised}
    if not needs_special_tokens:
        sample["add_special_tokens"] = False
    media = [piece.item for piece in kept if piece.item is not None]
    if media and all(isinstance(item, torch.Tensor) for item in media):
        return {**sample, "image_features": media}
    return {**sample, "images": [load_media(item, location) for item in media]}


def adds_special_tokens(sample: Mapping[str, Any]) -> bool:
    """Tell whether the tokenizer adds its special tokens to the text of a sample, or a chat template wrote all of them."""
    # `datasets` fills the column with `None` in rows that do not have it
    return sample.get("add_special_tokens") in (None, True)


def _make_pieces(document: list[Chunk], spaces: Iterable[bool], processor: FlamingoProcessor) -> list[Piece]:
    """Make a piece of each chunk of a few-shot prompt or of a web page."""
    pieces, seen = [], all(chunk.item is None for chunk in document)
    for chunk, space in zip(document, spaces, strict=True):
        seen = seen or chunk.item is not None
        pieces.append(_make_piece(chunk, space, seen, processor))
    return pieces


def _make_piece(chunk: Chunk, space: bool, sees_image: bool, processor: FlamingoProcessor) -> Piece:
    marker = "" if chunk.item is None else processor.image_token
    body = chunk.prompt + chunk.text
    body = " " * bool(space and body and not body[0].isspace()) + body
    text = marker + body + processor.end_of_chunk_token * bool(chunk.text)
    if not chunk.text or not sees_image:
        supervised_from = len(text)
    elif chunk.prompt:
        # A byte-level tokenizer makes the space before a word part of its token
        supervised_from = len((marker + body).removesuffix(chunk.text).rstrip(" "))
    else:
        supervised_from = len(marker)  # the leading space is part of the text
    return Piece(text, supervised_from, chunk.item, not sees_image and not chunk.prompt)


def _join(pieces: list[Piece]) -> tuple[str, list[tuple[int, int]]]:
    """Join pieces to a text, and return which parts of it are supervised."""
    starts = np.cumsum([0, *(len(piece.text) for piece in pieces)]).tolist()
    supervised = [
        (start + piece.supervised_from, start + len(piece.text))
        for start, piece in zip(starts, pieces, strict=False)
        if piece.is_supervised
    ]
    return "".join(piece.text for piece in pieces), supervised


def _append_eos(
    text: str, supervised: list[tuple[int, int]], processor: FlamingoProcessor, budget: int | None
) -> tuple[str, list[tuple[int, int]]]:
    """Append the end-of-sequence token to a text, supervised, if it fits."""
    eos = processor.tokenizer.eos_token
    if eos is None:
        raise ValueError("`append_eos` is set, but the tokenizer has no `eos_token`. Set one, or omit `append_eos`.")
    if budget is not None and len(_token_starts(text + eos, processor)) > budget:
        return text, supervised
    return text + eos, [*supervised, (len(text), len(text) + len(eos))]


def _see_next_image(document: list[Chunk], location: str) -> list[Chunk]:
    """Move each text to the next image. The last text stays with the last image."""
    if any(chunk.prompt or chunk.turns for chunk in document):
        raise ValueError(
            f"{location} has prompts, and `next_image_probability` would move its images away from their questions. It "
            "is for interleaved web pages: leave it at 0 for this dataset."
        )
    if document[0].item is not None:
        document = [Chunk(""), *document]
    media = [chunk.item for chunk in document[1:]]
    *texts, before, last = (chunk.text for chunk in document)
    texts.append(" ".join(filter(None, (before, last))))
    return [Chunk(text, item) for text, item in zip(texts, media, strict=True)]


def _drop_unsupervised_end(pieces: list[Piece]) -> list[Piece]:
    """Drop the pieces after the last supervised text: no loss depends on them."""
    learned = [index for index, piece in enumerate(pieces) if piece.is_supervised]
    return pieces[: learned[-1] + 1] if learned else []


def _fit(pieces: list[Piece], processor: FlamingoProcessor, budget: int | None, max_images: int | None) -> list[Piece]:
    """Return the pieces that fit, see [`document_to_sample`], or `[]` if nothing in them would be supervised."""
    kept = _drop_unsupervised_end(_whole_pieces(pieces, processor, budget, max_images))
    if kept or not pieces:
        return kept
    while pieces[0].is_context:
        pieces = pieces[1:]
    whole = _whole_pieces(pieces, processor, budget, max_images)
    kept = _drop_unsupervised_end(whole)
    if kept:
        return kept
    long = pieces[len(whole)]  # the first that does not fit
    if max_images is not None and sum(piece.item is not None for piece in [*whole, long]) > max_images:
        return []
    before = "".join(piece.text for piece in whole)
    text = before + long.text
    # In a loop, because a tokenizer may split a shorter text into more tokens
    while len(starts := _token_starts(text, processor)) > budget:
        text = text[: min(len(text) - 1, starts[budget])]
    if not starts or starts[-1] < len(before) + long.supervised_from:
        return []
    return [*whole, long._replace(text=text[len(before) :])]


def _whole_pieces(
    pieces: list[Piece], processor: FlamingoProcessor, budget: int | None, max_images: int | None
) -> list[Piece]:
    fits = np.ones(len(pieces), dtype=bool)
    if max_images is not None:
        fits &= np.cumsum([piece.item is not None for piece in pieces]) <= max_images
    if budget is not None:
        starts = _token_starts("".join(piece.text for piece in pieces), processor)
        ends = np.cumsum([len(piece.text) for piece in pieces])
        fits &= np.searchsorted(starts, ends) <= budget
    return pieces[: int(fits.sum())]


def _is_predicted(text: str, span: tuple[int, int], processor: FlamingoProcessor, add_special_tokens: bool) -> bool:
    """Tell whether a token that starts in `span` comes after another one, as special tokens are before a text."""
    encoding = processor.tokenizer(
        text, add_special_tokens=add_special_tokens, return_offsets_mapping=True, verbose=False
    )
    return any(span[0] <= start < span[1] for start, _ in encoding["offset_mapping"][1:])


def _token_starts(text: str, processor: FlamingoProcessor) -> list[int]:
    """Return the character at which each token starts."""
    # verbose: a document that is longer than the language model's context is cut next, so it needs no warning
    encoding = processor.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return [start for start, _ in encoding["offset_mapping"]]


def _refuse_special_tokens(document: list[Chunk], processor: FlamingoProcessor, location: str) -> None:
    tokenizer = processor.tokenizer
    names = tokenizer.special_tokens_map
    reserved = {*tokenizer.all_special_tokens, processor.image_token, processor.end_of_chunk_token}
    # The unknown token is not an instruction: text that spells it out is as unknown as it says. Unless it is the
    # end-of-sequence token too, as in GPT-2
    if names.get("unk_token") not in [token for name, token in names.items() if name != "unk_token"]:
        reserved.discard(names.get("unk_token"))
    texts = [""]  # joined across chunks with no marker or end between them: a token may form across the seam
    for chunk in document:
        if chunk.item is not None:
            texts.append("")
        texts[-1] += chunk.prompt + chunk.text
        if chunk.text:
            texts.append("")
        texts[:0] = chunk.alternatives
    for text in texts:
        found = sorted(token for token in reserved if token in text)
        if found:
            raise BadSampleError(
                f"{location}: the text contains {', '.join(map(repr, found))}, which the tokenizer would read as a "
                "special token: a marker without an image, or the end of a text that continues. Remove it from the "
                "text, or remove the row."
            )
