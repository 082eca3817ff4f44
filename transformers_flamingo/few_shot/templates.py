# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Prompts of the kinds of tasks, and how an answer is taken out of a generated text: OpenFlamingo's. Evaluation and predictions share them."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from .examples import GenerationSettings


#: The place of the question in a prompt.
QUESTION = "{question}"


def check_prompt(prompt: str, *, has_question: bool, name: str = "prompt") -> None:
    """
    Check the text between an image and its answer. A place that nothing fills would be shown to the model as it is written.

    Args:
        prompt (`str`): The text.
        has_question (`bool`): Whether the task asks questions.
        name (`str`, *optional*, defaults to `"prompt"`): Name of the argument, for messages.

    Raises:
        ValueError: a question has no place, or there is a place that nothing fills.
    """
    if has_question and QUESTION not in prompt:
        raise ValueError(f"`{name}` is {prompt!r}, without {QUESTION}, so no prompt would have its question. Add it.")
    if not has_question and QUESTION in prompt:
        raise ValueError(
            f"`{name}` is {prompt!r}, with {QUESTION}, but the task asks no question. Remove it, or use a task with questions."
        )
    other = re.search(r"\{(?!question\})\w+\}", prompt)
    if other is not None:
        raise ValueError(
            f"`{name}` is {prompt!r}, with {other[0]}, which nothing fills in, so the model would read it as it is. Remove it."
        )


def cut_caption(text: str) -> str:
    """Cut a generated caption where the next demonstration would begin, as OpenFlamingo does."""
    return text.split("Output", 1)[0].replace('"', "").strip()


def cut_answer(text: str) -> str:
    """Cut a generated answer where the next question or a list of answers would begin, as OpenFlamingo does."""
    return re.split("Question|Answer|Short", text, maxsplit=1)[0].split(", ", 1)[0].strip()


@dataclass(frozen=True)
class TaskTemplate:
    """
    Describe how demonstrations and queries of a kind of task are written.

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
