# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Base classes of tasks: reading of published files, prompts, and scores of each family of tasks."""

import csv
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

from ...few_shot.examples import Example
from ...few_shot.templates import ANSWER, CAPTION
from ..metrics import cider_d, open_ended_match, vqa_accuracy
from ..task import Prediction, Task


T = TypeVar("T")


@dataclass(frozen=True)
class Benchmark(Task):
    """
    A benchmark in its published files.

    Args:
        data (`str`): The folder of its annotations and media.

    Attributes:
        files (`tuple[str, ...]`): The published names of the annotations in `data`. `{field}` in a name is the value of a field.

    Raises:
        FileNotFoundError: there is no such folder, or annotations are missing. [`evaluate`] checks the media that are shown.
    """

    data: str

    files: ClassVar[tuple[str, ...]]

    def __post_init__(self):
        if not os.path.isdir(self.data):
            what = "a file" if os.path.exists(self.data) else "a folder that does not exist"
            raise FileNotFoundError(
                f"{self.name} reads its files from {self.data!r}, which is {what}. Give a folder with them: `flamingo evaluate --task "
                f"{self.name} --help` lists them, by their published names."
            )
        names = [name.format(**vars(self)) for name in self.files]
        missing = [name for name in names if not os.path.exists(os.path.join(self.data, name))]
        if missing:
            raise FileNotFoundError(
                f"{self.name} needs {', '.join(map(repr, missing))} in {self.data!r}. `flamingo evaluate --task "
                f"{self.name} --help` lists its files, by their published names."
            )

    def path(self, *names: str) -> str:
        """Return the path of a file in `data`."""
        return os.path.join(self.data, *names)

    def read_json(self, *names: str) -> Any:
        """Read a JSON file in `data`."""
        path = self.path(*names)
        with open(path, encoding="utf-8") as file:
            try:
                return json.load(file)
            except ValueError as error:
                raise ValueError(f"{self.name}: {path!r} is not JSON ({error}). Fetch it again.") from error

    def read_lists(self, name: str, *keys: str) -> list[list]:
        """Read the lists under `keys` of a JSON file in `data`."""
        content = self.read_json(name)
        for key in keys:
            if not isinstance(content, dict) or not isinstance(content.get(key), list):
                raise ValueError(f"{self.name}: {self.path(name)!r} has no list {key!r}. Use the published file.")
        return [content[key] for key in keys]

    def read_csv(self, *names: str) -> list[dict[str, str]]:
        """Read the rows of a CSV file in `data`."""
        path = self.path(*names)
        with open(path, encoding="utf-8", newline="") as file:
            try:
                return list(csv.DictReader(file))
            except (csv.Error, UnicodeDecodeError) as error:
                raise ValueError(f"{self.name}: {path!r} is not a CSV file ({error}). Fetch it again.") from error

    def build(self, file: str, rows: Iterable[Any], make: Callable[[Any], T | None]) -> list[T]:
        """
        Convert each row to an example, or to a part of one.

        Args:
            file (`str`): The file in `data` that the rows are from, for the error message.
            rows (`Iterable`): The rows.
            make (`Callable`): Converts a row. It returns `None` for a row that is not used.

        Returns:
            `list`: The results that are not `None`.

        Raises:
            ValueError: a row lacks a field, or has an impossible value. The message names file and row.
        """
        if not isinstance(rows, Iterable):
            raise ValueError(
                f"{self.name}: {self.path(file)!r} holds a {type(rows).__name__}, not rows. Use the published file."
            )
        made = []
        for number, row in enumerate(rows):
            try:
                made.append(make(row))
            except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
                what = f"it has no {error}" if isinstance(error, KeyError) else f"{error}"
                raise ValueError(
                    f"{self.name}: {self.path(file)!r}, row {number}: {what}. Use the published file of a split that has answers, "
                    "or fix the row."
                ) from error
        return [value for value in made if value is not None]


class Captioning(Task):
    """
    Captioning, with OpenFlamingo's prompt and settings: `<image>Output:`, 3 beams, 20 tokens.

    `references` are captions, of which a demonstration shows the first. The score is CIDEr-D times 100.
    """

    metric = "CIDEr"
    demonstration_separator = CAPTION.separator
    generation = CAPTION.generation

    def caption_example(self, id: Any, item: Any, captions: Sequence[str]) -> Example:
        """
        Make the example of an image or video and its captions.

        Raises:
            ValueError: there are no captions.
        """
        if isinstance(captions, str) or not captions:
            raise ValueError(f"the captions of {id!r} are {captions!r}, not a list with at least one")
        captions = [caption.strip() for caption in captions]
        return Example(str(id), [item], CAPTION.prompt, captions[0], references=captions)

    def postprocess(self, text: str) -> str:
        """Cut a generated text where the next demonstration would begin, as OpenFlamingo does."""
        return CAPTION.cut(text)

    def score_each(self, predictions: Sequence[Prediction]) -> list[float]:
        """Compute CIDEr-D of each caption, from 0 to 10."""
        return cider_d([p.text for p in predictions], [p.example.references for p in predictions])


class QuestionAnswering(Task):
    """
    Visual question answering, with OpenFlamingo's prompt and settings: `<image>Question:{question} Short answer:`, 3 beams, 5 tokens.

    `references` are the annotators' answers, of which a demonstration shows the first. The score is VQA accuracy in percent.
    """

    metric = "accuracy"
    demonstration_separator = ANSWER.separator
    generation = ANSWER.generation
    prompt = ANSWER.prompt

    def question_example(self, id: Any, item: Any, question: str, answers: Sequence[str]) -> Example:
        """
        Make the example of an image or video, a question and its answers.

        Raises:
            ValueError: there are no answers.
        """
        prompt = self.prompt.replace("{question}", question)
        if isinstance(answers, str) or not answers:
            raise ValueError(f"the answers to {id!r} are {answers!r}, not a list with at least one")
        return Example(str(id), [item], prompt, answers[0], references=list(answers))

    def postprocess(self, text: str) -> str:
        """Cut a generated text where the next question or a list of answers would begin, as OpenFlamingo does."""
        return ANSWER.cut(text)

    def score_each(self, predictions: Sequence[Prediction]) -> list[float]:
        """Compute the VQA accuracy of each answer, from 0 to 1."""
        return [vqa_accuracy(p.text, p.example.references) for p in predictions]


class OpenEnded(QuestionAnswering):
    """Question answering with few reference answers: an answer is right if it is one of them. The score is accuracy in percent."""

    def score_each(self, predictions: Sequence[Prediction]) -> list[float]:
        """Score each answer 1 if it is one of the references after VQA normalization, else 0."""
        return [float(open_ended_match(p.text, p.example.references)) for p in predictions]


class Choice(Task):
    """A choice between candidates, ranked by mean log-likelihood. `references` is the right one. The score is accuracy in percent."""

    metric = "accuracy"
    generation = None

    def score_each(self, predictions: Sequence[Prediction]) -> list[float]:
        """
        Score each prediction 1 if it is the right candidate, else 0.

        Raises:
            ValueError: the right answer is not a candidate.
        """
        for p in predictions:
            if p.example.references not in p.example.candidates:
                raise ValueError(
                    f"The answer {p.example.references!r} is not one of the candidates {p.example.candidates[:10]!r}, so no "
                    "prediction could be right."
                )
        return [float(p.text == p.example.references) for p in predictions]
