# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Rows that are not what a reader reads are bad samples with file and row, whatever is wrong with them."""

import pytest

from transformers_flamingo.training.data import FORMATS, BadSampleError
from transformers_flamingo.training.data.sources import FILE, ROW


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("messages", {"messages": [{"content": "no role"}]}),
        ("messages", {"messages": "a text"}),
        ("messages", {"messages": [{"role": "user", "content": None}]}),
        ("messages", {"messages": [{"role": "user", "content": [{"text": "no type"}]}]}),
        ("messages", {"messages": [{"role": "user", "content": [{"type": "text", "text": None}]}], "image": "a.png"}),
        ("messages", {"messages": [{"role": "robot", "content": "beep"}]}),
        ("llava", {"conversations": "a text"}),
        ("llava", {"conversations": ["a text"]}),
        ("parts", {"parts": ["a text"]}),
        ("parts", {"parts": [{"type": "video", "video": []}, {"type": "text", "text": "a"}]}),
        ("question_answering", {"image": "a.png", "question": "what?", "answers": 3}),
        ("question_answering", {"image": ["a.png", "b.png"], "question": "what?", "answers": ["a"]}),
        ("image_text_pairs", {"image": ["a.png", "b.png"], "text": "two"}),
        ("mmc4", {"text_list": ["a"], "image_info": [{"matched_sim": None, "matched_text_index": 0}]}),
        ("mmc4", {"text_list": ["a"], "image_info": ["b"]}),
    ],
)
def test_a_malformed_row_names_file_and_row(name, row):
    with pytest.raises(BadSampleError, match="data.jsonl, row 7"):
        FORMATS[name]().read({**row, FILE: "data.jsonl", ROW: 7})


def test_answers_as_a_dict_of_lists():
    row = {"image": "a.png", "question": "what?", "answers": {"answer": ["red", "blue", "red"], "id": [1, 2, 3]}}
    (chunk,) = FORMATS["question_answering"]().read({**row, FILE: "data.parquet", ROW: 0})
    assert chunk.text == "red"


def test_a_template_without_the_question():
    with pytest.raises(ValueError, match="without {question}"):
        FORMATS["question_answering"](template="Answer:")
