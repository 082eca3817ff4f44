# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Images and questions as a caller gives them: one or many, in any form, and decoded ahead of their use."""

import os
from collections import Counter, deque
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import replace
from itertools import repeat
from typing import Any, NamedTuple, get_args

import PIL.Image
from torch.utils.data import DataLoader

from ..data import VideoSegment, load_media
from ..data.media_files import MediaPath, check_media_file
from ..images_flamingo import find_bit_depth, open_image, read_image, to_rgb_8_bit
from ..media_flamingo import is_array
from ..processing_flamingo import FlamingoProcessor
from ..utils.literal_text import special_token_spans
from .examples import Example, GenerationSettings
from .own_images import content_digest
from .prompts import MediaItem
from .templates import QUESTION


# Arguments of `generate()` that have a parameter of their own here, or that give several answers or random ones
_REFUSED_ARGUMENTS = ("max_new_tokens", "num_beams", "length_penalty", "do_sample", "num_return_sequences")


class Row(NamedTuple):
    """An image with its question, as given."""

    image: Any
    question: Any = None


def is_single(images: Any) -> bool:
    """Tell whether what a caller gave is one image or row, and not many."""
    return isinstance(
        images, str | os.PathLike | bytes | bytearray | PIL.Image.Image | Mapping | VideoSegment
    ) or is_array(images, 2, 3)


def iterate_rows(images: Iterable[Any], questions: Any) -> Iterator[Row]:
    """
    Pair images with their questions.

    Args:
        images (`Iterable`): Images, or rows with `image` (or `video`) and perhaps `question`, as those of a dataset.
        questions: One question for all, or an iterable with one for each, or `None`.

    Raises:
        ValueError: there are more of the ones than of the others.
    """
    every = repeat(questions) if questions is None or isinstance(questions, str) else iter(questions)
    is_shared = isinstance(every, repeat)
    number, end = 0, object()
    for number, image in enumerate(iterate_items(images, "images"), 1):
        question = next(every, end)
        if question is end:
            raise ValueError(f"There are {number - 1} questions, and more images. Give a question for each image.")
        yield as_row(image, question)
    if not is_shared and next(every, end) is not end:
        raise ValueError(f"There are {number} images, and more questions. Give an image for each question.")


def as_row(image: Any, question: Any = None) -> Row:
    """
    Take the image and the question out of a row of a dataset. An image alone is returned with `question`.

    Raises:
        ValueError: it is a mapping without an image.
    """
    if not isinstance(image, Mapping) or "bytes" in image or "path" in image:
        return Row(image, question)
    own = image.get("question")
    if own is not None and not isinstance(own, str):
        raise ValueError(f"The 'question' of a row is {describe(own)}, but it must be a text. {_ONE_ROW_EACH}")
    return Row(image_of_row(image, "A row"), own if question is None else question)


_ONE_ROW_EACH = (
    "Columns of several rows, such as `dataset[:3]` or a batch of a DataLoader, must be rows: give the dataset itself, `dataset.select(range(3))`, "
    "or a list of dicts with an image each."
)


def image_of_row(row: Mapping[str, Any], name: str) -> Any:
    """
    Return the image of a row, or its video.

    Args:
        row (`Mapping`): A row with `image`, or with `video`: a list of frames, an array with 4 dimensions, or a [`VideoSegment`].
        name (`str`): Its name in messages.

    Raises:
        ValueError: it has none, or `image` has several, which may be a batch or a video.
    """
    if "image" not in row:
        if row.get("video") is not None:
            return row["video"]
        raise ValueError(
            f"{name} has {', '.join(map(repr, row)) or 'no values'}, and no 'image'. Rename the column of the images."
        )
    image = row["image"]
    if isinstance(image, list | tuple) or is_array(image, 4, 5):
        count = len(image)
        raise ValueError(
            f"{name} has {count} images in 'image', but it must have one. {_ONE_ROW_EACH} The frames of a video belong into 'video'."
        )
    return image


def iterate_items(items: Any, name: str) -> Iterator[Any]:
    """
    Iterate over an iterable, or over anything with a length and items by number, as a dataset of PyTorch.

    Raises:
        ValueError: it is neither, or gives batches.
    """
    if isinstance(items, DataLoader) and items.batch_sampler is not None:
        raise ValueError(
            f"The {name} are a DataLoader that makes batches, each of which would be read as a video. Give its dataset: batches are made here."
        )
    if isinstance(items, Iterable):
        return iter(items)
    if _has_items(items):
        return (items[number] for number in range(len(items)))
    raise ValueError(f"The {name} are a {type(items).__name__}. Give a list, an iterator or a dataset.")


def _has_items(items: Any) -> bool:
    return hasattr(items, "__getitem__") and hasattr(items, "__len__")


def as_media(image: Any, name: str) -> Any:
    """
    Return an image or video in a form that [`load_media`] reads. A file is not opened.

    Args:
        image: A path, an address, a `data:image/` URI, bytes, a dict of `bytes` and `path`, a PIL image, an array or tensor, or a
            video: a list of frames, an array with 4 dimensions, or a [`VideoSegment`].
        name (`str`): Its name in messages.

    Raises:
        ValueError: an array or a URI is not an image.
    """
    if isinstance(image, os.PathLike):
        image = os.fspath(image)
    if isinstance(image, str) and not isinstance(image, MediaPath):
        if image.startswith(("http://", "https://")):
            return MediaPath(image, allow_remote=True)  # which the caller gave, and no file named
        return open_image(image, name)[0] if image.startswith("data:image/") else image
    if is_array(image, 4) or (isinstance(image, list | tuple) and image):
        return [as_media(frame, f"{name}, frame {number}") for number, frame in enumerate(image)]
    if is_array(image, 2, 3):
        array, name = read_image(image, name)
        depth = find_bit_depth([array], [name]) if array.dtype not in ("uint8", "bool") else None
        return to_rgb_8_bit(array, name, bit_depth=depth)
    return image


def path_of(item: Any) -> str | None:
    """Return the path or address of an item that [`as_media`] returned, if it has one."""
    if isinstance(item, Mapping):
        item = item.get("path")
    return str(item) if isinstance(item, str) else None


def make_query(name: str, image: Any, question: Any, *, prompt: str, asks: bool) -> Example | ValueError:
    """
    Make the example of an image and its question. An error is returned, for a caller that continues without it.

    Args:
        name (`str`): Its name in messages, if it is not a file.
        image: What [`as_media`] takes.
        question: Its question, if `asks`.
        prompt (`str`): The text before the answer.
        asks (`bool`): Whether there must be a question.
    """
    try:
        item = as_media(image, name)
        name = path_of(item) or name
        if asks:
            if not isinstance(question, str) or not question.strip():
                raise ValueError(
                    f"{name}: the question is {question!r}, but it must be a text that is not empty. Give questions beside the images, "
                    "`predictor(images, questions)`, or rows with `image` and `question`."
                )
            prompt = prompt.replace(QUESTION, question)
        return Example(name, [item], prompt)
    except ValueError as error:
        return error


class DecodedQueries:
    """
    Queries whose images are decoded in threads, a few ahead of their use, so that few are in memory.

    Args:
        queries (`Sequence[Example | ValueError]`): The queries. An error stands for one that could not be read.
        executor (`Executor`): Its threads decode.
        window (`int`): Number of images that are decoded ahead.
        serial (`Hashable`): Told apart from it are images of other groups: the same file may have changed.
        digests (`bool`, *optional*, defaults to `False`): Whether to compute `digests`.

    Attributes:
        digests (`dict[Hashable, str]`): What [`content_digest`] returns for the images that were read so far, by key.
    """

    def __init__(
        self,
        queries: Sequence[Example | ValueError],
        executor: Executor,
        window: int,
        serial: Hashable,
        *,
        digests: bool = False,
    ):
        self.queries, self._executor, self._makes_digests = queries, executor, digests
        self.digests: dict[Hashable, str] = {}
        self.keys: list[tuple[Hashable, ...]] = []
        self._waiting: deque[tuple[Hashable, Any, str]] = deque()
        seen: dict[Hashable, Hashable] = {}
        for query in queries:
            keys = []
            for item in [] if isinstance(query, ValueError) else query.media:
                is_file = isinstance(item, str) or (isinstance(item, Mapping) and item.get("bytes") is None)
                identity = ("path", path_of(item)) if is_file else ("object", id(item))
                if identity not in seen:
                    seen[identity] = ("query", serial, len(seen))
                    self._waiting.append((seen[identity], item, query.id))
                keys.append(seen[identity])
            self.keys.append(tuple(keys))
        self._started: deque[tuple[Hashable, str, Future]] = deque()
        for _ in range(window):
            self._start()

    def _start(self) -> None:
        if self._waiting:
            key, item, name = self._waiting.popleft()
            self._started.append((key, name, self._executor.submit(self._read_item, item, name)))

    def _read_item(self, item: Any, name: str) -> tuple[Any, str | None]:
        media = load_media(item, name)
        return media, content_digest(media) if self._makes_digests else None

    def __iter__(self) -> Iterator[tuple[Hashable, MediaItem | ValueError]]:
        while self._started:
            key, name, future = self._started.popleft()
            self._start()
            try:
                media, digest = future.result()
                if digest is not None:
                    self.digests[key] = digest
                yield key, MediaItem(key, media, name)
            except ValueError as error:
                yield key, error


def is_many(images: Any) -> bool:
    """Tell whether the predictions of what a caller gave are a list: they are those of a list, a tuple or an array."""
    return isinstance(images, list | tuple) or is_array(images, 4)


def check_iterable(images: Any) -> None:
    """
    Check that images can be iterated over.

    Raises:
        ValueError: they are of another type.
    """
    if not isinstance(images, Iterable) and not _has_items(images):
        raise ValueError(
            f"The images are a {type(images).__name__}. Give an image (a path, an address, a PIL image, an array, bytes), or a list, an "
            "iterator or a dataset of them."
        )


def check_choice(name: str, value: Any, choices: Any) -> None:
    """
    Check a value of which there are few.

    Args:
        name (`str`): Name of the argument.
        value: Its value.
        choices: A `Literal`.

    Raises:
        ValueError: it is none of them.
    """
    if value not in get_args(choices):
        raise ValueError(f"`{name}` is {value!r}. It can be {', '.join(map(repr, get_args(choices)))}.")


def change_settings(
    settings: GenerationSettings, changes: dict[str, Any], arguments: dict[str, Any]
) -> GenerationSettings:
    """
    Change settings of generation as a caller asks.

    Args:
        settings ([`GenerationSettings`]): The settings.
        changes (`dict`): Values of its fields; `None` for no change.
        arguments (`dict`): Other arguments of `generate()`.

    Raises:
        ValueError: an argument has a parameter of its own, or makes answers random.
    """
    refused = [name for name in _REFUSED_ARGUMENTS if name in arguments]
    if refused:
        raise ValueError(
            f"`generate_kwargs` has {', '.join(map(repr, refused))}. `max_new_tokens`, `num_beams` and `length_penalty` are arguments of the "
            "predictor, and a prediction is one text that does not depend on chance."
        )
    given = {name: value for name, value in changes.items() if value is not None}
    return replace(settings, **given, extra=dict(arguments))


def check_text(processor: FlamingoProcessor, text: Any, name: str) -> None:
    """
    Check a text of a caller.

    Raises:
        ValueError: it is not a text, is empty, or has a special token.
    """
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{name} is {text!r}, but it must be a text that is not empty.")
    spans = special_token_spans(processor, text)
    if spans:
        token = text[slice(*spans[0])]
        raise ValueError(
            f"{name} is {text!r:.200}. It has {token!r}, which would be read as a special token: a marker without an image, or the end of a "
            "text that continues. Remove it."
        )


def describe(value: Any) -> str:
    """Describe a value of a wrong type, for a message."""
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, list | tuple) else "")


def make_demonstration(processor: FlamingoProcessor, prompt: str, task: str, number: int, shown: Any) -> Example:
    """
    Make the example of a demonstration as a caller gives it.

    Args:
        processor ([`FlamingoProcessor`]): Has the special tokens.
        prompt (`str`): The text before the answer.
        task (`str`): A key of `TEMPLATES`.
        number (`int`): Its number, which becomes its id.
        shown: A pair or triple.

    Raises:
        ValueError: it has another form, a file cannot be read, or a text is empty or has a special token.
    """
    size, form = (3, "(image, question, answer)") if task == "answer" else (2, "(image, text)")
    name = f"demonstration {number}"
    if not isinstance(shown, list | tuple) or len(shown) != size:
        raise ValueError(f"{name} is {describe(shown)}, but with `task={task!r}` it must be {form}.")
    image, *texts = shown
    for text in texts:
        check_text(processor, text, f"{name}: the text")
    item = None if image is None else as_media(image, name)
    path = path_of(item)
    if path is not None and not (isinstance(item, Mapping) and item.get("bytes") is not None):
        try:
            check_media_file(item["path"] if isinstance(item, dict) else item)
        except (OSError, ValueError) as error:
            raise ValueError(f"{name}: {path!r} cannot be read ({error}). Nothing was computed.") from error
    prompt = prompt.replace(QUESTION, texts[0]) if task == "answer" else prompt
    media = [] if item is None else [item]
    return Example(str(number), media, prompt, texts[-1], group=texts[-1] if task == "classify" else None)


def find_candidates(
    processor: FlamingoProcessor, task: str, candidates: Sequence[str] | None, demonstrations: Sequence[Example]
) -> list[str] | None:
    """
    Return the candidates: those given, or the classes of the demonstrations. `None` if texts are generated.

    Args:
        processor ([`FlamingoProcessor`]): Has the special tokens.
        task (`str`): A key of `TEMPLATES`.
        candidates (`Sequence[str]`, *optional*): Those given.
        demonstrations (`Sequence[Example]`): The demonstrations.

    Raises:
        ValueError: there are none, one is not a text or is given twice, or a demonstration is of another class.
    """
    if candidates is None:
        if task != "classify":
            return None
        candidates = list(dict.fromkeys(shown.answer for shown in demonstrations))
        if len(candidates) < 2:
            raise ValueError(
                f"The demonstrations have {len(candidates)} classes, so there is nothing to choose. Give demonstrations of two classes "
                "or more, or `candidates`."
            )
    if isinstance(candidates, str) or not candidates:
        raise ValueError(f"`candidates` is {candidates!r}, but it must be a list of texts.")
    for candidate in candidates:
        check_text(processor, candidate, "A candidate")
    repeated = sorted(candidate for candidate, times in Counter(candidates).items() if times > 1)
    if repeated:
        raise ValueError(
            f"The candidate {repeated[0]!r} is given twice, so its probability would be split. Remove one."
        )
    _check_tokens(processor, candidates)
    if task == "classify":
        known = set(candidates)
        unknown = [shown.answer for shown in demonstrations if shown.answer not in known]
        if unknown:
            raise ValueError(
                f"A demonstration is of class {unknown[0]!r}, which is not one of the candidates: {list(candidates)[:10]}. Add it, or "
                "remove the demonstration."
            )
    return list(candidates)


def _check_tokens(processor: FlamingoProcessor, candidates: Sequence[str]) -> None:
    """Check that no two candidates are the same to the model, or differ only in the space around them."""
    tokens = processor.tokenizer(list(candidates), add_special_tokens=False, verbose=False)["input_ids"]
    first: dict[Hashable, str] = {}
    for candidate, ids in zip(candidates, tokens, strict=True):
        for identity, reason in ((tuple(ids), "the same tokens"), (candidate.strip(), "the same text but for space")):
            other = first.setdefault(identity, candidate)
            if other != candidate:
                raise ValueError(
                    f"The candidates {other!r} and {candidate!r} have {reason}, so their probability would be split. Remove one, or write "
                    "them so that they differ; words that the tokenizer does not know are all alike."
                )
