# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Give a few examples, then label any number of images: few-shot prediction for users, on top of the engine that evaluation uses."""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, Literal, get_args

import numpy as np
import torch
from tqdm.auto import tqdm

from ..data.media_files import check_media_file
from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor
from ..utils.literal_text import special_token_spans
from ..utils.loading import load_flamingo
from .demonstrations import Demonstrations, Selection
from .engine import FewShotEngine
from .examples import Example
from .fitting import PromptLengths
from .inputs import (
    DecodedQueries,
    as_media,
    as_row,
    check_iterable,
    is_many,
    is_single,
    iterate_rows,
    path_of,
)
from .prompts import MediaItem, Prompt, build_prompt
from .retrieval import ImageEmbedder
from .templates import QUESTION, TEMPLATES


FewShotTask = Literal["caption", "answer", "classify"]
OnError = Literal["raise", "skip"]

# Arguments of `generate()` that have a parameter of their own here, or that give several answers or random ones
_REFUSED_ARGUMENTS = ("max_new_tokens", "num_beams", "length_penalty", "do_sample", "num_return_sequences")
# Batches that are read together, so that prompts of similar length can be computed together
_GROUP = 4
_MAX_THREADS = 8


@dataclass(frozen=True)
class FewShotPrediction:
    """
    The answer to one query.

    Args:
        text (`str`, *optional*): The caption, answer or class. `None` if there is an `error`.
        score (`float`, *optional*): The probability of `text` among the candidates. `None` if the text was generated.
        probabilities (`dict[str, float]`, *optional*): The probability of each candidate, in their order.
        demonstrations (`tuple[int, ...]`, *optional*): Which demonstrations were shown, in their order: indices of those that were given.
        error (`str`, *optional*): Why there is no answer, with `on_error="skip"`.
    """

    text: str | None
    score: float | None = None
    probabilities: dict[str, float] | None = None
    demonstrations: tuple[int, ...] = ()
    error: str | None = None


class FewShotPredictor:
    r"""
    Label images after a few examples.

    The demonstrations are encoded once and, with `selection="fixed"`, their part of the prompt is computed once for all queries. Images are
    decoded in threads while others are computed.

    Args:
        model ([`FlamingoModel`]): The model, on its device. It is put into evaluation mode.
        processor ([`FlamingoProcessor`]): Its processor.
        demonstrations (`Sequence`, *optional*, defaults to `()`):
            Pairs `(image, text)`; with `task="answer"` triples `(image, question, answer)`. An image is a path, an address, bytes, a dict of
            `bytes` and `path`, a PIL image, an array, a video (a list of frames or a [`VideoSegment`]), or `None` for a text alone.
        task (`str`, *optional*, defaults to `"caption"`):
            `"caption"`: a text about the image. `"answer"`: the answer to a question. `"classify"`: the best of the candidates, which by
            default are the texts of the demonstrations. The prompts are OpenFlamingo's.
        candidates (`Sequence[str]`, *optional*):
            The possible texts. They are ranked instead of generated, and each gets a probability: the softmax of their log-likelihoods. By
            default a log-likelihood is the mean over the tokens of the candidate, as OpenFlamingo ranks, see `length_normalized`.
        selection (`str`, *optional*, defaults to `"fixed"`):
            `"fixed"`: the same demonstrations for all queries: all that are given in their order or, with a smaller `top_k`, a random set.
            `"random"`: a random set for each query. `"rices"`: those whose image is most similar to the query's, the most similar last. Random
            sets of `"classify"` have about as many of each class.
        top_k (`int`, *optional*): Number of demonstrations of a query. By default all if they are fixed, and otherwise at most 8.
        prompt (`str`, *optional*): The text between an image and its answer. By default `"Output:"`, and
            `"Question:{question} Short answer:"` of an answer.
        separator (`str`, *optional*): Text after each demonstration and its `<|endofchunk|>`.
        batch_size (`int`, *optional*, defaults to 8): Queries computed together.
        max_new_tokens (`int`, *optional*): Maximum number of tokens of a generated text. By default 20, and 5 of an answer.
        num_beams (`int`, *optional*, defaults to 3): Number of beams of a generated text.
        length_penalty (`float`, *optional*, defaults to 0.0): Exponent of the length in the score of a beam.
        generate_kwargs (`dict`, *optional*): Other arguments of `generate()`.
        length_normalized (`bool`, *optional*, defaults to `True`):
            Whether candidates are ranked by the mean log-likelihood of their tokens. With `False` it is the sum, so that the probabilities
            are those of the model, given that one of the candidates follows; long candidates are then less likely.
        clip (`str`, *optional*): Name or folder of a CLIP or SigLIP that compares images for `"rices"`. By default the model's own encoder.
        seed (`int`, *optional*, defaults to 0): Seed of random sets.
        on_error (`str`, *optional*, defaults to `"raise"`):
            What happens to an image that cannot be read, a question that does not fit, or a model that gives NaN for it. `"raise"`: an
            error. `"skip"`: its prediction has the `error` and no text, and the others are made.

    Raises:
        ValueError: an argument does not fit the others, a text has a special token, or the demonstrations do not fit into the positions of the
            language model. Nothing was computed then.

    Example:

    ```python
    >>> predictor = FewShotPredictor(model, processor, [("cat.png", "a cat"), ("dog.png", "a dog")], task="classify")
    >>> predictor("bird.png")
    FewShotPrediction(text='a cat', score=0.61, probabilities={'a cat': 0.61, 'a dog': 0.39}, demonstrations=(0, 1), error=None)
    >>> predictor(["bird.png", "fish.png"])  # a list for a list
    >>> for prediction in predictor(stream_of_images):  # one after the other for an iterator or a dataset
    ...     print(prediction.text)
    ```
    """

    def __init__(
        self,
        model: FlamingoModel,
        processor: FlamingoProcessor,
        demonstrations: Sequence[Any] = (),
        task: FewShotTask = "caption",
        *,
        candidates: Sequence[str] | None = None,
        selection: Selection = "fixed",
        top_k: int | None = None,
        prompt: str | None = None,
        separator: str | None = None,
        batch_size: int = 8,
        max_new_tokens: int | None = None,
        num_beams: int | None = None,
        length_penalty: float | None = None,
        generate_kwargs: dict[str, Any] | None = None,
        length_normalized: bool = True,
        clip: str | None = None,
        seed: int = 0,
        on_error: OnError = "raise",
    ):
        _check_choice("task", task, FewShotTask)
        _check_choice("on_error", on_error, OnError)
        if batch_size < 1:
            raise ValueError(f"`batch_size` is {batch_size}, but it must be at least 1.")
        template = TEMPLATES[task]
        self.model, self.processor, self.task, self.batch_size = model, processor, task, batch_size
        self.prompt = template.prompt if prompt is None else prompt
        self.separator = template.separator if separator is None else separator
        self.length_normalized, self.on_error = length_normalized, on_error
        self._cut = template.cut
        if task == "answer" and QUESTION not in self.prompt:
            raise ValueError(f"`prompt` is {self.prompt!r}, without {QUESTION}, so no prompt would have its question.")
        given = {"max_new_tokens": max_new_tokens, "num_beams": num_beams, "length_penalty": length_penalty}
        given = {name: value for name, value in given.items() if value is not None}
        self.generation = replace(template.generation, **given, extra=_check_arguments(generate_kwargs or {}))
        self.demonstrations = [self._as_demonstration(number, shown) for number, shown in enumerate(demonstrations)]
        self.candidates = self._check_candidates(candidates)
        self.engine = self._make_engine(selection)
        self.top_k = self._check_top_k(top_k, selection)
        self._embedder = (
            ImageEmbedder(model, processor, clip=clip, batch_size=batch_size) if selection == "rices" else None
        )
        self._vectors: dict[Any, np.ndarray] = {}  # of the images of the group that is computed
        self._asked: Sequence[Any] = ()
        self._num_groups = 0
        # A smaller `top_k` of fixed demonstrations is drawn here; all of them are shown as they are
        self.pool = Demonstrations(
            self.demonstrations,
            selection=selection,
            support_size=None,
            seed=seed,
            balanced=task == "classify" and selection != "rices" and self.top_k > 0,
            embed=self._embed if selection == "rices" else None,
        )
        self._lengths = PromptLengths(model, processor, self.separator, self._answer_length())
        shortest = Example("query", [None], self.prompt.replace(QUESTION, ""))
        is_pool = selection != "fixed"
        self._lengths.check_demonstrations(
            self.demonstrations if is_pool else self._choose(shortest), shortest, is_pool=is_pool, count=self.top_k
        )

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike,
        demonstrations: Sequence[Any] = (),
        task: FewShotTask = "caption",
        *,
        dtype: str | torch.dtype = "auto",
        device: str | torch.device | None = None,
        **kwargs: Any,
    ) -> "FewShotPredictor":
        """
        Load a saved Flamingo, onto the accelerator if there is one, and make a predictor of it.

        Args:
            name_or_path, dtype, device: As in [`~utils.loading.load_flamingo`].
            demonstrations, task, kwargs: As for the class.
        """
        return cls(*load_flamingo(name_or_path, dtype, device), demonstrations, task, **kwargs)

    def __call__(
        self, images: Any, questions: Any = None, *, show_progress_bar: bool = False
    ) -> FewShotPrediction | list[FewShotPrediction] | Iterator[FewShotPrediction]:
        """
        Predict.

        Args:
            images: An image in any form that a demonstration may have; a list of them; or an iterator or a dataset, whose rows may
                also be mappings with `image` and `question`. An iterator is read at most `8 * batch_size` images ahead.
            questions (*optional*): The question, or one for each image. Needed with `task="answer"`, unless rows have it.
            show_progress_bar (`bool`, *optional*, defaults to `False`): Whether to show a progress bar.

        Returns:
            A [`FewShotPrediction`] for an image, a list for a list, and an iterator, which computes while it is read, for anything else.

        Raises:
            ValueError: a question is missing, or an image cannot be read and `on_error` is `"raise"`.
        """
        if questions is not None and self.task != "answer":
            raise ValueError(f"There are questions, but the task is {self.task!r}. Use `task='answer'`, or omit them.")
        if is_single(images):
            return next(self.predict_examples([self._as_query(0, *as_row(images, questions))]))
        check_iterable(images)
        rows = enumerate(iterate_rows(images, questions))
        total = len(images) if hasattr(images, "__len__") else None
        predictions = self.predict_examples((self._as_query(number, *row) for number, row in rows))
        predictions = _with_progress(predictions, total, self.task) if show_progress_bar else predictions
        return list(predictions) if is_many(images) else predictions

    def predict_examples(self, queries: Iterable[Example | ValueError]) -> Iterator[FewShotPrediction]:
        """
        Predict the answers to examples with a prompt, one after the other.

        Args:
            queries (`Iterable[Example | ValueError]`): The queries. An error stands for one that could not be read.
        """
        remaining = iter(queries)
        size, window = _GROUP * self.batch_size, 2 * self.batch_size
        with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as executor:

            def read() -> DecodedQueries:
                self._num_groups += 1  # of all calls: latents are kept by the number
                return DecodedQueries(list(islice(remaining, size)), executor, window, self._num_groups)

            group = read()
            while group.queries:
                following = read()  # is decoded while this one is computed
                yield from self._predict(group)
                group = following

    def _predict(self, group: DecodedQueries) -> list[FewShotPrediction]:
        """Predict the answers to a group of queries."""
        failed = self._encode(group)
        problems: list[ValueError | None] = []
        for query, keys in zip(group.queries, group.keys, strict=True):
            own = (
                query if isinstance(query, ValueError) else next((failed[key] for key in keys if key in failed), None)
            )
            problems.append(own)
        good = [i for i, problem in enumerate(problems) if problem is None]
        shown = {i: self._choose(group.queries[i], group.keys[i]) for i in good}
        too_long = self._lengths.find_too_long([group.queries[i] for i in good], [shown[i] for i in good])
        for i, problem in zip(good, too_long, strict=True):
            if problem is not None:
                problems[i] = ValueError(f"{group.queries[i].id}: {problem}")
        self._raise_first(problems)
        good = [i for i in good if problems[i] is None]
        prompts = [self._build_prompt(group.queries[i], shown[i], group.keys[i]) for i in good]
        predictions = [FewShotPrediction(None, error=None if p is None else str(p)) for p in problems]
        for i, answer in zip(good, self._compute(prompts), strict=True):
            indices = tuple(int(example.id) for example in shown[i])
            predictions[i] = replace(answer, demonstrations=indices if answer.error is None else ())
        return predictions

    def _encode(self, group: DecodedQueries) -> dict[Any, ValueError]:
        """Encode the images of a group, each batch when it is decoded, and return the errors of those that cannot be."""
        failed: dict[Any, ValueError] = {}
        self._vectors.clear()
        images = iter(group)
        while batch := list(islice(images, self.batch_size)):
            failed |= {key: item for key, item in batch if isinstance(item, ValueError)}
            self._raise_first(failed.values())
            items = [item for _, item in batch if isinstance(item, MediaItem)]
            for item, error in zip(items, self._isolate(self._encode_items, items), strict=True):
                if error is not None:
                    failed[item.key] = error
        return failed

    def _encode_items(self, items: Sequence[MediaItem]) -> list[None]:
        self.engine.encode(items)
        if self._embedder is not None:
            examples = [Example(str(item.key), [item.data], "") for item in items]
            self._vectors |= zip([item.key for item in items], self._embedder(examples, "query"), strict=True)
        return [None] * len(items)

    def _compute(self, prompts: Sequence[Prompt]) -> list[FewShotPrediction]:
        """Answer prompts whose images are encoded."""
        answers = self._isolate(self._generate if self.candidates is None else self._rank, prompts)
        return [
            FewShotPrediction(None, error=str(answer)) if isinstance(answer, ValueError) else answer
            for answer in answers
        ]

    def _generate(self, prompts: Sequence[Prompt]) -> list[FewShotPrediction]:
        texts = self.engine.generate(prompts, self.generation)
        return [FewShotPrediction(self._cut(text)) for text in texts]

    def _rank(self, prompts: Sequence[Prompt]) -> list[FewShotPrediction]:
        likelihoods = self.engine.rank(
            prompts, [self.candidates] * len(prompts), length_normalized=self.length_normalized
        )
        predictions = []
        for row in likelihoods:
            weights = np.exp(np.array(row) - max(row))
            probabilities = (weights / weights.sum()).tolist()
            best = int(np.argmax(row))
            by_candidate = dict(zip(self.candidates, probabilities, strict=True))
            predictions.append(FewShotPrediction(self.candidates[best], probabilities[best], by_candidate))
        return predictions

    def _isolate(self, function: Any, items: Sequence[Any]) -> list[Any]:
        """Return the results of a function of many items. With `on_error="skip"`, the error of an item is its result."""
        if not items:
            return []
        try:
            return function(items)
        except ValueError as error:
            if self.on_error == "raise":
                raise
            if len(items) == 1:
                return [error]
        return [result for item in items for result in self._isolate(function, [item])]

    def _raise_first(self, problems: Iterable[ValueError | None]) -> None:
        if self.on_error == "raise":
            for problem in problems:
                if problem is not None:
                    raise problem

    def _choose(self, query: Example, keys: Sequence[Any] = ()) -> list[Example]:
        if self.pool.selection == "fixed" and self.top_k == len(self.demonstrations):
            return self.demonstrations  # in the order of the caller
        self._asked = keys
        return self.pool.choose(query, self.top_k)

    def _embed(self, examples: Sequence[Example], kind: str) -> np.ndarray:
        """Return vectors of the pool, or that of the query which is asked, for [`Demonstrations`]."""
        return self._embedder(examples, kind) if kind == "support" else self._vectors[self._asked[0]][None]

    def _build_prompt(self, query: Example, shown: Sequence[Example], keys: Sequence[Any]) -> Prompt:
        prompt = build_prompt(self.processor, query, shown, separator=self.separator)
        # The images are encoded already, and not kept
        media = [MediaItem(key, None, item.location) for key, item in zip(keys, prompt.query_media, strict=True)]
        return replace(prompt, query_media=tuple(media))

    def _as_query(self, number: int, image: Any, question: Any) -> Example | ValueError:
        """Make the example of an image and its question. An error is returned, for `on_error`."""
        name = f"image {number}"
        try:
            item = as_media(image, name)
            name = path_of(item) or name  # so that the random choice for a file is the same in any call
            prompt = self.prompt
            if self.task == "answer":
                prompt = self.prompt.replace(QUESTION, _check_text(self.processor, question, f"{name}: the question"))
            return Example(name, [item], prompt)
        except ValueError as error:
            return error

    def _as_demonstration(self, number: int, shown: Any) -> Example:
        """Make the example of a demonstration as a caller gives it."""
        size, form = (3, "(image, question, answer)") if self.task == "answer" else (2, "(image, text)")
        name = f"demonstration {number}"
        if not isinstance(shown, list | tuple) or len(shown) != size:
            raise ValueError(f"{name} is {_describe(shown)}, but with `task={self.task!r}` it must be {form}.")
        image, *texts = shown
        for text in texts:
            _check_text(self.processor, text, f"{name}: the text")
        item = None if image is None else as_media(image, name)
        path = path_of(item)
        if path is not None:
            try:
                check_media_file(item["path"] if isinstance(item, dict) else item)
            except (OSError, ValueError) as error:
                raise ValueError(f"{name}: {path!r} cannot be read ({error}). Nothing was computed.") from error
        prompt = self.prompt.replace(QUESTION, texts[0]) if self.task == "answer" else self.prompt
        media = [] if item is None else [item]
        return Example(str(number), media, prompt, texts[-1], group=texts[-1] if self.task == "classify" else None)

    def _check_candidates(self, candidates: Sequence[str] | None) -> list[str] | None:
        """Return the candidates: those given, or the classes of the demonstrations."""
        if candidates is None:
            if self.task != "classify":
                return None
            candidates = list(dict.fromkeys(shown.answer for shown in self.demonstrations))
            if len(candidates) < 2:
                raise ValueError(
                    f"The demonstrations have {len(candidates)} classes, so there is nothing to choose. Give demonstrations of two classes "
                    "or more, or `candidates`."
                )
        if isinstance(candidates, str) or not candidates:
            raise ValueError(f"`candidates` is {candidates!r}, but it must be a list of texts.")
        for candidate in candidates:
            _check_text(self.processor, candidate, "A candidate")
        repeated = sorted({candidate for candidate in candidates if list(candidates).count(candidate) > 1})
        if repeated:
            raise ValueError(
                f"The candidate {repeated[0]!r} is given twice, so its probability would be split. Remove one."
            )
        if self.task == "classify":
            unknown = [shown.answer for shown in self.demonstrations if shown.answer not in set(candidates)]
            if unknown:
                raise ValueError(
                    f"A demonstration is of class {unknown[0]!r}, which is not one of the candidates: {list(candidates)[:10]}. Add it, or "
                    "remove the demonstration."
                )
        return list(candidates)

    def _check_top_k(self, top_k: int | None, selection: str) -> int:
        available = len(self.demonstrations)
        if top_k is None:
            return available if selection == "fixed" else min(8, available)
        if not 0 <= top_k <= available:
            raise ValueError(
                f"`top_k` is {top_k}, but it must be from 0 to {available}, the number of demonstrations."
            )
        return top_k

    def _answer_length(self) -> int:
        """Return the number of positions of the longest answer. Its last token is not fed to the model."""
        if self.candidates is None:
            return self.generation.max_new_tokens - 1
        ids = self.processor.tokenizer(self.candidates, add_special_tokens=False)["input_ids"]
        return max(map(len, ids)) - 1

    def _make_engine(self, selection: str) -> FewShotEngine:
        # Queries come once, so only the demonstrations are worth keeping, and a group with its successor
        kept = min(len(self.demonstrations), 8192) + 2 * _GROUP * self.batch_size
        return FewShotEngine(
            self.model,
            self.processor,
            batch_size=self.batch_size,
            max_cached_media=kept,
            shares_prefix=selection == "fixed",
        )

    def __getstate__(self) -> dict[str, Any]:
        # Without what was computed: a worker has another device, and computes its own
        return {**self.__dict__, "engine": None, "_vectors": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.engine = self._make_engine(self.pool.selection)


def _check_choice(name: str, value: Any, choices: Any) -> None:
    if value not in get_args(choices):
        raise ValueError(f"`{name}` is {value!r}. It can be {', '.join(map(repr, get_args(choices)))}.")


def _check_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """Check arguments of `generate()` that a caller gives."""
    refused = [name for name in _REFUSED_ARGUMENTS if name in arguments]
    if refused:
        raise ValueError(
            f"`generate_kwargs` has {', '.join(map(repr, refused))}. `max_new_tokens`, `num_beams` and `length_penalty` are arguments of the "
            "predictor, and a prediction is one text that does not depend on chance."
        )
    return dict(arguments)


def _check_text(processor: FlamingoProcessor, text: Any, name: str) -> str:
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
    return text


def _describe(value: Any) -> str:
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, list | tuple) else "")


def _with_progress(
    predictions: Iterator[FewShotPrediction], total: int | None, task: str
) -> Iterator[FewShotPrediction]:
    with tqdm(total=total, desc=task, unit="image") as bar:
        for prediction in predictions:
            bar.update()
            yield prediction
