# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""What families of tasks share: their prompts, how they are answered and scored."""

import csv
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ..metrics import cider_d, open_ended_match, vqa_accuracy
from ..task import Example, GenerationSettings, Prediction, Task


@dataclass(frozen=True)
class Benchmark(Task):
    """
    A benchmark in its own files.

    Args:
        data (`str`): The folder of its annotations and media.

    Attributes:
        files (`tuple[str, ...]`): The annotations in `data`, by their published names, in which `{field}` is a field.

    Raises:
        FileNotFoundError: annotations are missing. Media are checked by [`evaluate`], those that are shown.
    """

    data: str

    files: ClassVar[tuple[str, ...]]

    def __post_init__(self):
        names = [name.format(**vars(self)) for name in self.files]
        missing = [name for name in names if not os.path.exists(os.path.join(self.data, name))]
        if missing:
            raise FileNotFoundError(
                f"{self.name} needs {', '.join(map(repr, missing))} in {self.data!r}. The docstring of "
                f"{type(self).__name__} lists its files, by their published names."
            )

    def path(self, *names: str) -> str:
        """A file in `data`."""
        return os.path.join(self.data, *names)

    def read_json(self, *names: str) -> Any:
        """A JSON file in `data`."""
        with open(self.path(*names), encoding="utf-8") as file:
            return json.load(file)

    def read_csv(self, *names: str) -> list[dict[str, str]]:
        """The rows of a CSV file in `data`."""
        with open(self.path(*names), encoding="utf-8", newline="") as file:
            return list(csv.DictReader(file))


class Captioning(Task):
    """
    Captions, as OpenFlamingo asks for them: `<image>Output:`, 3 beams, 20 tokens. `references` are captions, of which a
    demonstration shows the first. Scored by CIDEr-D times 100.
    """

    metric = "CIDEr"
    demonstration_separator = "\n"
    generation = GenerationSettings(max_new_tokens=20)

    def caption_example(self, id: Any, medium: Any, captions: Sequence[str]) -> Example:
        captions = [caption.strip() for caption in captions]
        return Example(str(id), [medium], "Output:", captions[0], references=captions)

    def postprocess(self, text: str) -> str:
        return text.split("Output", 1)[0].replace('"', "").strip()

    def score_each(self, predictions: Sequence[Prediction]) -> list[float]:
        return cider_d([p.text for p in predictions], [p.example.references for p in predictions])


class QuestionAnswering(Task):
    """
    Short answers, as OpenFlamingo asks for them: `<image>Question:{question} Short answer:`, 3 beams, 5 tokens.
    `references` are annotators' answers, of which a demonstration shows the first. Scored by VQA accuracy in percent.
    """

    metric = "accuracy"
    demonstration_separator = "\n"
    generation = GenerationSettings(max_new_tokens=5)
    prompt = "Question:{question} Short answer:"

    def question_example(self, id: Any, medium: Any, question: str, answers: Sequence[str]) -> Example:
        prompt = self.prompt.replace("{question}", question)
        return Example(str(id), [medium], prompt, answers[0] if answers else None, references=list(answers))

    def postprocess(self, text: str) -> str:
        return re.split("Question|Answer|Short", text, maxsplit=1)[0].split(", ", 1)[0].strip()

    def score_each(self, predictions: Sequence[Prediction]) -> list[float]:
        return [vqa_accuracy(p.text, p.example.references) for p in predictions]


class OpenEnded(QuestionAnswering):
    """As [`QuestionAnswering`], with few reference answers: an answer is right if it is one of them."""

    def score_each(self, predictions: Sequence[Prediction]) -> list[float]:
        return [float(open_ended_match(p.text, p.example.references)) for p in predictions]


class Choice(Task):
    """One of several candidates, ranked by mean log-likelihood; `references` is the right one. Scored by accuracy."""

    metric = "accuracy"
    generation = None

    def score_each(self, predictions: Sequence[Prediction]) -> list[float]:
        return [float(p.text == p.example.references) for p in predictions]
