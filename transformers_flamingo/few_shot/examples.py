# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Queries and demonstrations, and how answers are generated."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Example:
    """
    An example that is asked (a query) or shown (a demonstration).

    Args:
        id (`str`): Identifier, unique within its split.
        media (`list`):
            Images in order, each a path, URL, PIL image or an undecoded `{"bytes", "path"}` dict, or a video as a list
            of frames or a [`VideoSegment`]. An `<image>` for each comes before `prompt`.
        prompt (`str`): The text before the answer, such as `"Question:What is it? Short answer:"`.
        answer (`str`, *optional*): The text that completes the prompt of a demonstration. `None` if the example cannot be one.
        references (`Any`): What the metric compares a prediction with: captions, the answers of ten annotators, a label.
        candidates (`list[str]`, *optional*): The possible answers, for a task that ranks them.
        group (`str`, *optional*): The class, for class-balanced demonstrations.
    """

    id: str
    media: list[Any]
    prompt: str
    answer: str | None = None
    references: Any = None
    candidates: list[str] | None = None
    group: str | None = None


@dataclass(frozen=True)
class GenerationSettings:
    """
    Arguments of `generate()`. The defaults are OpenFlamingo's; generation stops at `<|endofchunk|>` only.

    Args:
        max_new_tokens (`int`, *optional*, defaults to 20): Maximum number of generated tokens.
        num_beams (`int`, *optional*, defaults to 3): Number of beams.
        length_penalty (`float`, *optional*, defaults to 0.0): Exponent of the length in the score of a beam.
        extra (`dict`, *optional*): Other arguments, which override these.
    """

    max_new_tokens: int = 20
    num_beams: int = 3
    length_penalty: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)
