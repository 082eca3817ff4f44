# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Test the official normalization on pairs, and the accuracy by hand and against its definition."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transformers_flamingo.evaluation.metrics import normalize_vqa_answer, open_ended_match, vqa_accuracy


PAIRS = {
    "The Dog": "dog",
    "a cat on an apple": "cat on apple",
    "Two": "2",
    "none": "0",
    "ten dogs": "10 dogs",
    "eleven": "eleven",
    "yes.": "yes",
    "yes!": "yes",
    "3.5": "3.5",
    "No. 5": "no 5",
    "u.s.": "us",
    "1,000": "1000",
    "1,000/day": "1000day",  # a comma between digits removes all punctuation
    "red,white": "red white",
    "red, white": "red white",
    "red,white, blue": "redwhite blue",  # one comma next to a space removes all commas
    "black/white": "black white",
    "black / white": "black white",
    "x-ray": "x ray",
    "t-shirt - red": "tshirt red",
    "(left)": "left",
    "10:30": "10:30",
    "man's": "man's",
    "dont": "don't",
    "don't": "don't",
    "couldnt've": "couldn't've",
    "couldn'tve": "couldn't've",
    "couldntve": "couldntve",
    "twas": "'twas",
    "oclock": "o'clock",
    "yall": "y'all",
    "Im": "im",  # capitalized in the official table, so never found
    "somebody'd": "somebodyd",
    "\tyes\n": "yes",
    "top\nleft": "top left",
    "a": "",
    "": "",
}


@pytest.mark.parametrize("answer", PAIRS)
def test_normalization_is_the_official_one(answer):
    assert normalize_vqa_answer(answer) == PAIRS[answer]


def slow_normalize(answer):
    """The official rules again, a character and a word at a time; for words without contractions."""
    text = answer.replace("\n", " ").replace("\t", " ").strip()
    comma = any(a.isdigit() and b == "," and c.isdigit() for a, b, c in zip(text, text[1:], text[2:], strict=False))
    kept = []
    for character in text:
        if character in """;/[]"{}()=+\\_-><@`,?!""":
            kept.append("" if comma or character + " " in text or " " + character in text else " ")
        else:
            kept.append(character)
    text = "".join(kept)
    dots = [c == "." and not (i + 1 < len(text) and text[i + 1].isdigit()) for i, c in enumerate(text)]
    text = "".join(c for c, dot in zip(text, dots, strict=True) if not dot)
    digits = {"zero": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8}
    digits |= {"nine": 9, "ten": 10, "none": 0}
    words = [str(digits.get(word, word)) for word in text.lower().split()]
    return " ".join(word for word in words if word not in ("a", "an", "the"))


ANSWERS = st.text(alphabet="abT12,.;/[]\"{}()=+\\_-><@`?!:' \n\t", max_size=20) | st.lists(
    st.sampled_from(["The", "an", "Two", "none", "ten", "cat", "1,000", "3.5", "u.s.", "yes,", "a/b", "-", "x-ray"])
).map(" ".join)


@given(ANSWERS)
def test_normalization_equals_a_second_implementation(answer):
    assert normalize_vqa_answer(answer) == slow_normalize(answer)


@pytest.mark.parametrize(
    ("matches", "expected"),
    [
        (0, 0.0),
        (1, 0.3),  # leaving out the one: 0; leaving out one of the nine others: 1/3. 9/10 * 1/3
        (2, 0.6),  # 8/10 * 2/3 + 2/10 * 1/3
        (3, 0.9),  # 7/10 * 1 + 3/10 * 2/3
        (4, 1.0),  # at least three are left, whoever is left out
        (10, 1.0),
    ],
)
def test_accuracy_by_hand(matches, expected):
    answers = ["a red car."] * matches + [f"other {i}" for i in range(10 - matches)]
    assert vqa_accuracy("Red car", answers) == pytest.approx(expected)


def test_all_answers_are_normalized_even_if_they_agree():
    assert vqa_accuracy("2", ["Two."] * 10) == 1


@given(st.lists(st.sampled_from(["yes", "Yes.", "no", "2", "two", "the cat"]), min_size=4, max_size=12), st.data())
def test_accuracy_equals_its_definition_and_ignores_order(answers, data):
    prediction = data.draw(st.sampled_from(["yes", "No", "two", "cat", "dog"]))
    left_out = []
    for i in range(len(answers)):
        others = answers[:i] + answers[i + 1 :]
        left_out.append(min(sum(slow_normalize(answer) == slow_normalize(prediction) for answer in others) / 3, 1))
    accuracy = vqa_accuracy(prediction, answers)
    assert accuracy == pytest.approx(sum(left_out) / len(left_out))
    assert 0 <= accuracy <= 1
    assert vqa_accuracy(prediction, data.draw(st.permutations(answers))) == accuracy


@pytest.mark.parametrize("answers", [[], ["yes"] * 3, "yes yes"])
def test_too_few_answers_are_an_error(answers):
    with pytest.raises(ValueError, match="at least 4 answers.*open_ended_match"):
        vqa_accuracy("yes", answers)


def test_open_ended_match_compares_whole_normalized_answers():
    assert open_ended_match("Two dogs.", "2 dogs")
    assert open_ended_match("a guitar", ["piano", "guitar"])
    assert not open_ended_match("a cat", "a dog")
    assert not open_ended_match("a guitar solo", "guitar")
    assert not open_ended_match("", ["guitar"])
