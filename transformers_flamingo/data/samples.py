# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""From a document to a sample for the collator: the text rules of the paper, and how a document is cut to fit."""

from typing import Any, NamedTuple

import numpy as np
import torch

from ..processing_flamingo import FlamingoProcessor
from .documents import Chunk
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
    A document as a row for [`FlamingoDataCollator`], by the rules of the paper (Alayrac et al. 2022, section 2.4 and
    appendix A.3).

    **Text.** Each item is one `<image>` before its prompt and text, and each text ends with `<|endofchunk|>`.

    **What is learned**: the texts with their `<|endofchunk|>`, and neither markers nor prompts. In a document with
    images, text before the first of them is only read: no image explains it. So of an image-text pair everything but
    `<image>` is learned, and of a question with its answer only the answer.

    **Cutting.** Whole chunks are left out from the end until the document fits both budgets. Only where that would
    leave nothing to learn, text before the first image is left out, and if that does not suffice, the first chunk
    that does not fit loses the end of its text, with its `<|endofchunk|>`. What stands behind the last learned text,
    such as an image that no text follows, is always left out: no loss depends on it.

    Args:
        document (`list[Chunk]`): What a reader's `read` returned.
        processor ([`FlamingoProcessor`]): For its markers and, if `max_length` is given, its fast tokenizer.
        rng (`numpy.random.Generator`): The only source of chance. What is drawn does not depend on the budgets.
        location (`str`): File and row of the document, for error messages: [`row_location`] of its row.
        max_length (`int`, *optional*): Token budget, with the special tokens that the tokenizer adds.
        max_images (`int`, *optional*): Budget of images and videos.
        leading_space_probability (`float`, *optional*, defaults to 0.5):
            How often a chunk begins with a space, so that the model learns words both with and without one. The
            paper's 0.5.
        next_image_probability (`float`, *optional*, defaults to 0):
            How often the texts of a document see the image behind them in place of the one before: on a web page
            nobody knows which of the two a text is about. The paper's `p_next`, which is 0.5 for web pages. The
            markers move: the first image then belongs to the text before it, and the last text keeps the last image.
        append_eos (`bool`, *optional*, defaults to `False`):
            Whether the tokenizer's end of sequence follows the last `<|endofchunk|>`, and is learned, where it fits.
            OpenFlamingo does so for image-text pairs.

    Returns:
        `dict` with `text`, `images` (PIL images, and lists of frames for videos) and `supervised`, the learned parts
        of the text as `[start, end)` in characters. Where media are features, `image_features` stands for `images`.

    Raises:
        BadSampleError: a text contains a special token, nothing is left to learn, or an image that is kept is broken.
        ValueError: `next_image_probability` is given for a document with prompts.
    """
    _refuse_special_tokens(document, processor, location)
    has_media = any(chunk.item is not None for chunk in document)
    moves = rng.random() < next_image_probability
    if moves and has_media:
        document = _see_next_image(document, location)
    spaces = rng.random(len(document)) < leading_space_probability

    pieces, seen = [], not has_media
    for chunk, space in zip(document, spaces, strict=True):
        seen = seen or chunk.item is not None
        pieces.append(_piece(chunk, space, seen, processor))
    pieces = _without_unlearned_end(pieces)
    kept = _fit(pieces, processor, max_length, max_images)
    if not kept:
        raise BadSampleError(
            f"{location}: nothing to learn from, in {len(document)} chunks within {max_length=} and {max_images=}. There "
            "is no text, or what must be read before the first text does not fit. Leave the row out, or raise the "
            "budgets."
        )

    text = "".join(piece.text for piece in kept)
    starts = np.cumsum([0, *(len(piece.text) for piece in kept)]).tolist()
    supervised = [
        (start + piece.learned_from, start + len(piece.text))
        for start, piece in zip(starts, kept, strict=False)
        if piece.is_learned
    ]
    if append_eos and kept[-1] is pieces[-1]:
        eos = processor.tokenizer.eos_token
        if eos is None:
            raise ValueError("`append_eos` was given, but the tokenizer has no `eos_token`. Set one, or leave it out.")
        if max_length is None or len(_token_starts(text + eos, processor)) <= _budget(max_length, processor):
            supervised.append((len(text), len(text) + len(eos)))
            text += eos
    # Behind an image or another text, something is always predicted
    if kept[0].item is None and len(supervised) == 1 and not _is_predicted(text, supervised[0], processor):
        raise BadSampleError(
            f"{location}: nothing to learn from: all that is learned of {text!r} is its first token, which nothing comes before "
            f"to predict it from (within {max_length=}). Remove the row, or raise the budget."
        )
    media = [piece.item for piece in kept if piece.item is not None]
    if media and all(isinstance(item, torch.Tensor) for item in media):
        return {"text": text, "supervised": supervised, "image_features": media}
    return {"text": text, "supervised": supervised, "images": [load_media(item, location) for item in media]}


class _Piece(NamedTuple):
    """A chunk as it stands in the text."""

    text: str
    learned_from: int  # character; the end of the text if nothing of it is learned
    item: Any
    is_context: bool  # text that is only read, and belongs to no question: it can go

    @property
    def is_learned(self) -> bool:
        return self.learned_from < len(self.text)


def _piece(chunk: Chunk, space: bool, sees_image: bool, processor: FlamingoProcessor) -> _Piece:
    marker = "" if chunk.item is None else processor.image_token
    body = chunk.prompt + chunk.text
    body = " " * bool(space and body and not body[0].isspace()) + body
    text = marker + body + processor.end_of_chunk_token * bool(chunk.text)
    if not chunk.text or not sees_image:
        learned_from = len(text)
    elif chunk.prompt:
        # A byte-level tokenizer makes the space before a word a part of its token
        learned_from = len((marker + body).removesuffix(chunk.text).rstrip(" "))
    else:
        learned_from = len(marker)  # the leading space is a part of the text
    return _Piece(text, learned_from, chunk.item, not sees_image and not chunk.prompt)


def _see_next_image(document: list[Chunk], location: str) -> list[Chunk]:
    """Each text moves to the image behind it; the last text stays with the last image."""
    if any(chunk.prompt for chunk in document):
        raise ValueError(
            f"{location} has prompts, and `next_image_probability` would move its images away from their questions. It "
            "is for interleaved web pages: leave it at 0 for this data set."
        )
    if document[0].item is not None:
        document = [Chunk(""), *document]
    media = [chunk.item for chunk in document[1:]]
    *texts, before, last = (chunk.text for chunk in document)
    texts.append(" ".join(filter(None, (before, last))))
    return [Chunk(text, item) for text, item in zip(texts, media, strict=True)]


def _without_unlearned_end(pieces: list[_Piece]) -> list[_Piece]:
    """No loss depends on what stands behind the last learned text."""
    learned = [index for index, piece in enumerate(pieces) if piece.is_learned]
    return pieces[: learned[-1] + 1] if learned else []


def _fit(
    pieces: list[_Piece], processor: FlamingoProcessor, max_length: int | None, max_images: int | None
) -> list[_Piece]:
    """The pieces that fit, see [`document_to_sample`]; `[]` if nothing could be learned from what fits."""
    kept = _without_unlearned_end(_whole_pieces(pieces, processor, max_length, max_images))
    if kept or not pieces:
        return kept
    while pieces[0].is_context:
        pieces = pieces[1:]
    whole = _whole_pieces(pieces, processor, max_length, max_images)
    kept = _without_unlearned_end(whole)
    if kept:
        return kept
    long = pieces[len(whole)]
    if max_images is not None and sum(piece.item is not None for piece in [*whole, long]) > max_images:
        return []
    before = "".join(piece.text for piece in whole)
    text, budget = before + long.text, _budget(max_length, processor)
    # Not once: a tokenizer may split a shorter text into more tokens
    while len(starts := _token_starts(text, processor)) > budget:
        text = text[: min(len(text) - 1, starts[budget])]
    if not starts or starts[-1] < len(before) + long.learned_from:
        return []
    return [*whole, long._replace(text=text[len(before) :])]


def _whole_pieces(
    pieces: list[_Piece], processor: FlamingoProcessor, max_length: int | None, max_images: int | None
) -> list[_Piece]:
    fits = np.ones(len(pieces), dtype=bool)
    if max_images is not None:
        fits &= np.cumsum([piece.item is not None for piece in pieces]) <= max_images
    if max_length is not None:
        starts = _token_starts("".join(piece.text for piece in pieces), processor)
        ends = np.cumsum([len(piece.text) for piece in pieces])
        fits &= np.searchsorted(starts, ends) <= _budget(max_length, processor)
    return pieces[: int(fits.sum())]


def _is_predicted(text: str, span: tuple[int, int], processor: FlamingoProcessor) -> bool:
    """Tell whether a token that starts in `span` comes after another one, as special tokens are before a text."""
    encoding = processor.tokenizer(text, return_offsets_mapping=True, verbose=False)
    return any(span[0] <= start < span[1] for start, _ in encoding["offset_mapping"][1:])


def _token_starts(text: str, processor: FlamingoProcessor) -> list[int]:
    """Where each token starts, in characters."""
    # verbose: no warning that a document is longer than the language model's context, because it is about to be cut
    encoding = processor.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    return [start for start, _ in encoding["offset_mapping"]]


def _budget(max_length: int, processor: FlamingoProcessor) -> int:
    return max(0, max_length - processor.tokenizer.num_special_tokens_to_add())


def _refuse_special_tokens(document: list[Chunk], processor: FlamingoProcessor, location: str) -> None:
    tokenizer = processor.tokenizer
    # The unknown token is no instruction: text that spells it out is as unknown as it says
    reserved = {*tokenizer.all_special_tokens, processor.image_token, processor.end_of_chunk_token}
    reserved.discard(tokenizer.unk_token)
    texts = [""]  # what stands together, without a marker or an end between
    for chunk in document:
        if chunk.item is not None:
            texts.append("")
        texts[-1] += chunk.prompt + chunk.text
        if chunk.text:
            texts.append("")
    for text in texts:
        found = sorted(token for token in reserved if token in text)
        if found:
            raise BadSampleError(
                f"{location}: the text contains {', '.join(map(repr, found))}, which the tokenizer would read as a "
                "special token: a marker without an image, or the end of a text that goes on. Remove it from the "
                "text, or remove the row."
            )
