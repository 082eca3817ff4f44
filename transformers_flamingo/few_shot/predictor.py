# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Give a few examples, then label any number of images: few-shot prediction for users, on top of the engine that evaluation uses."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from tqdm.auto import tqdm

from ..modeling_flamingo import FlamingoModel
from ..processing_flamingo import FlamingoProcessor
from ..saving_flamingo import json_value
from ..utils.fingerprint import fingerprint, fingerprint_weights
from ..utils.loading import load_flamingo
from .arguments import check_generate_kwargs, check_index_dir, check_integer, check_parts, check_values, find_top_k
from .demonstration_forms import find_demonstrations
from .demonstrations import Demonstrations, Selection
from .engine import FewShotEngine
from .examples import Example
from .fitting import PromptLengths
from .image_index import media_fingerprint
from .inputs import (
    DecodedQueries,
    as_row,
    change_settings,
    check_choice,
    check_iterable,
    check_text,
    find_candidates,
    is_many,
    is_single,
    iterate_rows,
    make_demonstration,
    make_query,
)
from .model_state import WeightWatch
from .own_images import OwnImages
from .prompts import MediaItem, Prompt, build_prompt, media_of
from .retrieval import ImageEmbedder
from .templates import QUESTION, TEMPLATES, check_prompt


if TYPE_CHECKING:
    from accelerate import PartialState

FewShotTask = Literal["caption", "answer", "classify"]
OnError = Literal["raise", "skip"]

# Batches that are read together, so that prompts of similar length can be computed together
_GROUP = 4
_MAX_THREADS = 8
# Encoded demonstrations that are kept, of a large pool
_MAX_KEPT = 8192
# Demonstrations less similar to a query are other images; the others are compared pixel by pixel
_LEAST_SAME = 0.98
# Another number for each change of what is chosen, so that a file of predictions is of one way.
# 2: random ones are drawn by content, and no image is its own demonstration.
_CHOICE_VERSION = 2


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
        model ([`FlamingoModel`]): The model, on its device. It is in evaluation mode while it computes, and then in its own again.
        processor ([`FlamingoProcessor`]): Its processor.
        demonstrations (`Sequence`, *optional*, defaults to `()`):
            Pairs `(image, text)`; with `task="answer"` triples `(image, question, answer)`; rows with these names, as dicts or of a dataset;
            or the path of a folder, file or pattern of any layout that training reads. An image is a path, an address, bytes, a dict of
            `bytes` and `path`, a PIL image, an array, a video (a list of frames or a [`VideoSegment`]), or `None` for a text alone.
        task (`str`, *optional*):
            `"caption"`: a text about the image. `"answer"`: the answer to a question. `"classify"`: the best of the candidates, which by
            default are the texts of the demonstrations. The prompts are OpenFlamingo's. By default it is `"caption"` or, if the
            demonstrations are a path, the task of their layout.
        candidates (`Sequence[str]`, *optional*):
            The possible texts. They are ranked instead of generated, and each gets a probability: the softmax of their log-likelihoods. By
            default a log-likelihood is the mean over the tokens of the candidate, as OpenFlamingo ranks, see `length_normalized`.
        selection (`str`, *optional*, defaults to `"fixed"`):
            `"fixed"`: the same demonstrations for all queries: all that are given in their order or, with a smaller `top_k`, a random set.
            `"random"`: a random set for each image, drawn by its pixels: the same wherever it is, in whatever form, and for all questions about
            it. `"rices"`: those whose image is most similar to the query's, the most similar last. Random sets of `"classify"` have about as
            many of each class. `"random"` and `"rices"` never show a query its own image with its answer; there is one fewer if all are shown.
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
        index_dir (`str`, *optional*): Folder that keeps the embeddings of the demonstrations' images, which `"rices"` compares with: they are
            computed once for each image, encoder and preprocessing. See [`ImageIndex`].
        faiss (`str`, *optional*): Search by an index of faiss, such as `"HNSW32"`, for very large pools. By default the search is exact.
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
        demonstrations: Any = (),
        task: FewShotTask | None = None,
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
        index_dir: str | os.PathLike | None = None,
        faiss: str | None = None,
        seed: int = 0,
        on_error: OnError = "raise",
    ):
        given = {"max_new_tokens": max_new_tokens, "num_beams": num_beams, "length_penalty": length_penalty}
        check_parts(model, processor)
        if task is not None:
            check_choice("task", task, FewShotTask)
        check_choice("on_error", on_error, OnError)
        check_values(
            **given,
            batch_size=batch_size,
            seed=seed,
            top_k=top_k,
            prompt=prompt,
            separator=separator,
            clip=clip,
            faiss=faiss,
        )
        check_generate_kwargs(generate_kwargs)
        demonstrations, task = find_demonstrations(demonstrations, task)
        template = TEMPLATES[task]
        self.model, self.processor, self.task, self.batch_size = model, processor, task, batch_size
        self.prompt = template.prompt if prompt is None else prompt
        self.separator = template.separator if separator is None else separator
        self.length_normalized, self.on_error, self.faiss = length_normalized, on_error, faiss
        self._cut = template.cut
        check_prompt(self.prompt, has_question=task == "answer")
        self.generation = change_settings(template.generation, given, generate_kwargs or {})
        self.demonstrations = [
            make_demonstration(processor, self.prompt, task, *shown) for shown in enumerate(demonstrations)
        ]
        self.candidates = find_candidates(processor, task, candidates, self.demonstrations)
        self.top_k = find_top_k(top_k, selection, len(self.demonstrations))
        self.engine = self._make_engine()
        check_index_dir(index_dir)
        self._embedder = self._make_embedder(selection, clip, index_dir, faiss)
        self._vectors: dict[Any, np.ndarray] = {}  # of the images of the group that is computed
        self._num_groups, self._own_images = 0, OwnImages()
        self._weights = WeightWatch(model)
        # A smaller `top_k` of fixed demonstrations is drawn here; all of them are shown as they are
        self.pool = Demonstrations(
            self.demonstrations,
            selection=selection,
            support_size=None,
            seed=seed,
            balanced=task == "classify" and selection != "rices" and self.top_k > 0,
            embed=self._embedder,
            index_dir=index_dir,
            faiss=faiss,
        )
        self._lengths = PromptLengths(model, processor, self.separator, self._answer_length())
        self._check_lengths()

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike,
        demonstrations: Any = (),
        task: FewShotTask | None = None,
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
        self, images: Any, questions: Any = None, *, show_progress_bar: bool = False, batch_size: int | None = None
    ) -> FewShotPrediction | list[FewShotPrediction] | Iterator[FewShotPrediction]:
        """
        Predict.

        Args:
            images: An image in any form that a demonstration may have; a list of them; or an iterator or a dataset, whose rows may
                also be mappings with `image` (or `video`, of frames) and `question`. An iterator is read at most `8 * batch_size` images ahead.
            questions (*optional*): The question, or one for each image. Needed with `task="answer"`, unless rows have it.
            show_progress_bar (`bool`, *optional*, defaults to `False`): Whether to show a progress bar.
            batch_size (`int`, *optional*): Queries computed together. By default that of the predictor.

        Returns:
            A [`FewShotPrediction`] for an image, a list for a list, and an iterator, which computes while it is read, for anything else.

        Raises:
            ValueError: a question is missing, or an image cannot be read and `on_error` is `"raise"`.
        """
        if questions is not None and self.task != "answer":
            raise ValueError(f"There are questions, but the task is {self.task!r}. Use `task='answer'`, or omit them.")
        check_integer("batch_size", batch_size, 1)
        if is_single(images):
            return next(self.predict_examples([self._make_query(0, *as_row(images, questions))]))
        check_iterable(images)
        rows = enumerate(iterate_rows(images, questions))
        total = len(images) if hasattr(images, "__len__") else None
        queries = (self._make_query(number, *row) for number, row in rows)
        predictions = self.predict_examples(queries, batch_size=batch_size)
        predictions = _with_progress(predictions, total, self.task) if show_progress_bar else predictions
        return list(predictions) if is_many(images) else predictions

    def settings(self) -> dict[str, Any]:
        """Return what predictions depend on, as values that JSON can express: settings, and fingerprints of model and demonstrations."""
        shown = (
            repr((d.prompt, d.answer, [media_fingerprint(item) for item in d.media])) for d in self.demonstrations
        )
        return {
            "weights": fingerprint_weights(self.model.state_dict()),
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "task": self.task,
            "prompt": self.prompt,
            "separator": self.separator,
            "candidates": self.candidates,
            "length_normalized": self.length_normalized,
            "generation": None if self.candidates is not None else json_value(asdict(self.generation)),
            "demonstrations": fingerprint(shown),
            "num_demonstrations": len(self.demonstrations),
            "selection": self.pool.selection,
            "top_k": self.top_k,
            "seed": self.pool.seed,
            "choice": _CHOICE_VERSION,
            "embedder": None if self._embedder is None else self._embedder.fingerprint,
            "faiss": self.faiss,
        }

    def build_index(self, state: "PartialState | None" = None) -> None:
        """
        Embed the images of the demonstrations that `"rices"` compares with, which otherwise happens at the first prediction.

        Args:
            state (`PartialState`, *optional*): Processes that share the work, if there is an `index_dir`.
        """
        if self.pool.index is not None and self.top_k:
            self.pool.index.build(state)

    def reset(self) -> None:
        """
        Forget what was computed. Weights that an optimizer, `load_state_dict` or a change of adapters has changed are noticed at the next
        prediction; those written through `parameter.data`, as DeepSpeed does, are not.
        """
        self.engine.reset()
        if self.pool.index is not None:
            self.pool.index.reset()

    def predict_examples(
        self, queries: Iterable[Example | ValueError], *, batch_size: int | None = None
    ) -> Iterator[FewShotPrediction]:
        """
        Predict the answers to examples with a prompt, one after the other.

        Args:
            queries (`Iterable[Example | ValueError]`): The queries. An error stands for one that could not be read.
            batch_size (`int`, *optional*): Queries computed together. By default that of the predictor.
        """
        remaining = iter(queries)
        batch_size = batch_size or self.batch_size
        size, window, digests = _GROUP * batch_size, 2 * batch_size, self._needs_digests()
        with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1)) as executor:

            def read() -> DecodedQueries:
                self._num_groups += 1  # of all calls: latents are kept by the number
                rows = list(islice(remaining, size))
                return DecodedQueries(rows, executor, window, self._num_groups, digests=digests)

            group = read()
            while group.queries:
                following = read()  # is decoded while this one is computed
                self._set_batch_size(batch_size)  # at each group: calls may alternate
                yield from self._predict(group)
                group = following

    def _predict(self, group: DecodedQueries) -> list[FewShotPrediction]:
        """Predict the answers to a group of queries."""
        if self._weights.have_changed():  # else old and new ones would be mixed without a word
            self.engine.reset()
        if self._embedder is not None and self._embedder.has_changed():
            self.pool.index.reset()
        failed = self._encode(group)
        problems: list[ValueError | None] = []
        for query, keys in zip(group.queries, group.keys, strict=True):
            own = query if isinstance(query, ValueError) else self._check_query(query)
            problems.append(own or next((failed[key] for key in keys if key in failed), None))
        good = [i for i, problem in enumerate(problems) if problem is None]
        chosen = self._choose([group.queries[i] for i in good], [group.keys[i] for i in good], group.digests)
        shown = dict(zip(good, chosen, strict=True))
        too_long = self._lengths.find_too_long([group.queries[i] for i in good], [shown[i] for i in good])
        for i, problem in zip(good, too_long, strict=True):
            if problem is not None:
                problems[i] = ValueError(f"{group.queries[i].id}: {problem}")
        self._raise_first(problems)
        good = [i for i in good if problems[i] is None]
        # Apart, because a demonstration that cannot be read is not the fault of a query
        self.engine.encode([item for i in good for example in shown[i] for item in media_of(example, "support")])
        prompts = [self._build_prompt(group.queries[i], shown[i], group.keys[i]) for i in good]
        predictions = [FewShotPrediction(None, error=None if p is None else str(p)) for p in problems]
        for i, answer in zip(good, self._compute(prompts), strict=True):
            indices = tuple(int(example.id) for example in shown[i])
            predictions[i] = replace(answer, demonstrations=indices if answer.error is None else ())
        return predictions

    def _check_query(self, query: Example) -> ValueError | None:
        """Return the error of a query with a special token in its text, or without the image that others are compared with."""
        if self._embedder is not None and not query.media:
            return ValueError(f"{query.id}: it has no image to compare. Add one, or use another `selection`.")
        try:
            check_text(self.processor, query.prompt or "-", f"{query.id}: the text")
        except ValueError as error:
            return error
        return None

    def _encode(self, group: DecodedQueries) -> dict[Any, ValueError]:
        """Encode the images of a group, each batch when it is decoded, and return the errors of those that cannot be."""
        failed: dict[Any, ValueError] = {}
        self._vectors.clear()
        images = iter(group)
        while batch := list(islice(images, self.engine.batch_size)):
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

    def _needs_digests(self) -> bool:
        return self.pool.selection != "fixed" and self.top_k > 0

    def _choose(
        self, queries: Sequence[Example], keys: Sequence[Sequence[Any]], digests: Mapping[Any, str]
    ) -> list[list[Example]]:
        """Choose the demonstrations of queries whose images are encoded."""
        if self.pool.selection == "fixed" and self.top_k == len(self.demonstrations):
            return [self.demonstrations] * len(queries)  # in the order of the caller
        if not self.top_k:
            return [[] for _ in queries]
        if self.pool.selection == "fixed" or not queries:
            return self.pool.choose_many(queries, self.top_k)
        images = [digests[own[0]] for own in keys]

        def draw(indices: list[int], count: int) -> list[list[tuple[Example, bool]]]:
            # By its content, wherever an image is and however it is given; of more, the first are those of fewer
            named = [replace(queries[i], id=images[i]) for i in indices]
            return [[(shown, True) for shown in drawn] for drawn in self.pool.choose_many(named, count)]

        def search(indices: list[int], count: int) -> list[list[tuple[Example, bool]]]:
            vectors = np.stack([self._vectors[keys[i][0]] for i in indices])
            found = zip(*self.pool.index.search_vectors(vectors, count), strict=True)
            return [
                [(self.pool.pool[row], value > _LEAST_SAME) for row, value in zip(rows, values, strict=True)]
                for rows, values in found
            ]

        is_drawn = self.pool.index is None
        chosen = self._own_images.choose(images, self.top_k, len(self.demonstrations), draw if is_drawn else search)
        return chosen if is_drawn else [nearest[::-1] for nearest in chosen]

    def _build_prompt(self, query: Example, shown: Sequence[Example], keys: Sequence[Any]) -> Prompt:
        prompt = build_prompt(self.processor, query, shown, separator=self.separator)
        # The images are encoded already, and not kept
        media = [MediaItem(key, None, item.location) for key, item in zip(keys, prompt.query_media, strict=True)]
        return replace(prompt, query_media=tuple(media))

    def _make_query(self, number: int, image: Any, question: Any) -> Example | ValueError:
        return make_query(f"image {number}", image, question, prompt=self.prompt, asks=self.task == "answer")

    def _answer_length(self) -> int:
        """Return the number of positions of the longest answer. Its last token is not fed to the model."""
        if self.candidates is None:
            return self.generation.max_new_tokens - 1
        ids = self.processor.tokenizer(self.candidates, add_special_tokens=False, verbose=False)["input_ids"]
        return max(map(len, ids)) - 1

    def _check_lengths(self) -> None:
        """Check that the shortest query fits after the longest demonstrations."""
        shortest = Example("query", [None], self.prompt.replace(QUESTION, ""))
        is_pool = self.pool.selection != "fixed"
        shown = self.demonstrations if is_pool else self._choose([shortest], [], {})[0]
        self._lengths.check_demonstrations(shown, shortest, is_pool=is_pool, count=self.top_k)

    def _make_embedder(self, selection: str, clip: str | None, *others: Any) -> ImageEmbedder | None:
        if selection == "rices":
            return ImageEmbedder(self.model, self.processor, clip=clip, batch_size=self.batch_size)
        if any(value is not None for value in (clip, *others)):
            raise ValueError(
                f"`clip`, `index_dir` and `faiss` compare images, and with `selection={selection!r}` none are. Use `selection='rices'`, or "
                "omit them."
            )
        return None

    def _make_engine(self) -> FewShotEngine:
        kept = self._num_kept(self.batch_size)
        return FewShotEngine(self.model, self.processor, batch_size=self.batch_size, max_cached_media=kept)

    def _num_kept(self, batch_size: int) -> int:
        # Queries come once, so only the demonstrations are worth keeping, and what one group needs
        group = _GROUP * batch_size
        return min(len(self.demonstrations), max(_MAX_KEPT, group * self.top_k)) + 2 * group

    def _set_batch_size(self, batch_size: int) -> None:
        self.engine.batch_size, self.engine.max_cached_media = batch_size, self._num_kept(batch_size)
        if self._embedder is not None:
            self._embedder.batch_size = batch_size

    def __getstate__(self) -> dict[str, Any]:
        # Without what was computed: a worker has another device, and computes its own
        return {**self.__dict__, "engine": None, "_vectors": {}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.engine = self._make_engine()


def _with_progress(
    predictions: Iterator[FewShotPrediction], total: int | None, task: str
) -> Iterator[FewShotPrediction]:
    with tqdm(total=total, desc=task, unit="image") as bar:
        for prediction in predictions:
            bar.update()
            yield prediction
