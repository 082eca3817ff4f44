# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Prompts of the kinds of tasks, and how an answer is taken out of a generated text: OpenFlamingo's. Evaluation and predictions share them."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from .examples import GenerationSettings


#: The place of the question in a prompt.
QUESTION = "{question}"


def cut_caption(text: str) -> str:
    """Cut a generated caption where the next demonstration would begin, as OpenFlamingo does."""
    return text.split("Output", 1)[0].replace('"', "").strip()


def cut_answer(text: str) -> str:
    """Cut a generated answer where the next question or a list of answers would begin, as OpenFlamingo does."""
    return re.split("Question|Answer|Short", text, maxsplit=1)[0].split(", ", 1)[0].strip()


@dataclass(frozen=True)
class TaskTemplate:
    """
    How demonstrations and queries of a kind of task are written.

    Args:
        prompt (`str`): The text between an image and its answer. `{question}` in it is the question.
        separator (`str`): Text after the `<|endofchunk|>` of each demonstration.
        generation (`GenerationSettings`): Settings of generated answers.
        cut (`Callable`): Takes the answer out of a generated text.
    """

    prompt: str
    separator: str
    generation: GenerationSettings
    cut: Callable[[str], str]


CAPTION = TaskTemplate("Output:", "\n", GenerationSettings(max_new_tokens=20), cut_caption)
ANSWER = TaskTemplate("Question:{question} Short answer:", "\n", GenerationSettings(max_new_tokens=5), cut_answer)
# Names of classes are ranked, and no text follows the end of a demonstration
CLASSIFY = TaskTemplate("Output:", "", GenerationSettings(max_new_tokens=20), cut_caption)

#: The templates by the names of tasks.
TEMPLATES = {"caption": CAPTION, "answer": ANSWER, "classify": CLASSIFY}
