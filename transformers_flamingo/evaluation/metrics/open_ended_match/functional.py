# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Top-1 accuracy of generated answers to open questions, as in video question answering (Alayrac et al. 2022)."""

from collections.abc import Sequence

from ..checks import as_references, check_text
from ..vqa_accuracy.functional import normalize_vqa_answer


def open_ended_match(prediction: str, references: str | Sequence[str]) -> bool:
    """
    Whether the prediction is one of the references after [`normalize_vqa_answer`]: "Two dogs." is "2 dogs".

    The whole answer must match: a reference that merely occurs in a longer answer does not count.

    Args:
        references (`str` or `Sequence[str]`): The right answer, or all that count as right.

    Raises:
        ValueError: The prediction is not a text, or there are no references.
    """
    check_text(prediction, "The prediction")
    return normalize_vqa_answer(prediction) in map(normalize_vqa_answer, as_references(references))
