# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""VQA accuracy (Antol et al. 2015, "VQA: Visual Question Answering") with the normalization of the official `vqaEval.py`."""

import re
from collections.abc import Sequence

from transformers_flamingo.evaluation.metrics.base import MetricModule, mean_score
from transformers_flamingo.evaluation.metrics.checks import as_references, check_text


_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_ARTICLES = {"a", "an", "the"}
_NUMBERS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5"}
_NUMBERS |= {"six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"}
_CONTRACTED = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've "
    "he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've "
    "needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've "
    "somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll that's "
    "there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't "
    "what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've why'll why're "
    "why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've"
)
# One missing apostrophe is restored: "dont", "couldnt've" and "couldn'tve" are known, "couldntve" is not.
_CONTRACTIONS = {
    word[:position] + word[position + 1 :]: word
    for word in _CONTRACTED.split()
    for position, character in enumerate(word)
    if character == "'"
}
_CONTRACTIONS["somebody'd"] = "somebodyd"  # an error in the official table, kept because scores depend on it


def normalize_vqa_answer(answer: str) -> str:
    """
    Normalize an answer for comparison: lower case, no articles, numbers up to ten as digits, missing apostrophes restored.

    Punctuation becomes a space. It is removed instead where that character is next to a space anywhere in the answer, or where
    the answer has a comma between digits. Full stops are removed unless a digit follows. Apostrophes and colons are kept.
    """
    text = re.sub(r"[\n\t]", " ", answer).strip()
    has_digit_comma = re.search(r"\d,\d", text) is not None
    normalized = text
    for character in _PUNCTUATION:
        removed = has_digit_comma or f"{character} " in text or f" {character}" in text
        normalized = normalized.replace(character, "" if removed else " ")
    # The official script passes a flag (32) where `count` is expected.
    normalized = re.sub(r"\.(?!\d)", "", normalized, count=32)
    words = (_NUMBERS.get(word, word) for word in normalized.lower().split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """
    Compute the accuracy of one answer, from 0 to 1: `min(n / 3, 1)`, where `n` of the other annotators gave that answer,
    averaged over leaving out each annotator in turn.

    All answers are normalized, as in OpenFlamingo. The official script normalizes the annotators' only where they differ.

    Args:
        prediction (`str`): The answer.
        answers (`Sequence[str]`): One answer per annotator, repetitions included; ten in the VQA benchmarks.

    Raises:
        ValueError: there are fewer than four answers, with which no prediction could score 1, or one is not a text.
    """
    check_text(prediction, "The prediction")
    if isinstance(answers, str) or not isinstance(answers, Sequence) or len(answers) < 4:
        raise ValueError(
            f"VQA accuracy measures agreement with 3 other annotators, so it needs at least 4 answers, not {answers!r}. "
            "With fewer references use `open_ended_match`."
        )
    normalized = normalize_vqa_answer(prediction)
    matches = sum(normalize_vqa_answer(answer) == normalized for answer in as_references(answers))
    left_in, left_out = min(matches / 3, 1), min((matches - 1) / 3, 1)
    return ((len(answers) - matches) * left_in + matches * left_out) / len(answers)


class VqaAccuracy(MetricModule):
    """VQA accuracy with the official normalization of answers, the mean over all questions, from 0 to 1."""

    source = "Antol et al. VQA: Visual Question Answering. ICCV 2015."
    inputs = "predictions: one answer per question. references: the answers of all annotators per question."

    def _compute(self, predictions: list[str], references: list[list[str]]) -> dict[str, float]:
        return {"vqa_accuracy": mean_score(vqa_accuracy, predictions, references)}
