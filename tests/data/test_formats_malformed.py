# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Malformed rows are bad samples that name file and row, whatever is wrong with them."""

import math

import pytest
from data_factory import number_of, numbered_image, png

from transformers_flamingo.data import FORMATS, BadSampleError, load_media
from transformers_flamingo.data.columns import FILE, JSON, ROW, TAR_FILE, TAR_KEY


LLAVA = ({"from": "human", "value": "<image> what?"}, {"from": "gpt", "value": "a"})
MESSAGES = ({"role": "user", "content": "what?"}, {"role": "assistant", "content": "a"})


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
        # What used to be left out, or taken for something else, without a word
        ("obelics", {"images": [None, "a.png"], "texts": ["a", math.nan]}),
        ("obelics", {"images": [None, None], "texts": "ab"}),
        ("obelics", {"images": [None, {"bytes": None, "path": None}], "texts": ["a", None]}),
        ("mmc4", {"text_list": ["a", None], "image_info": []}),
        ("mmc4", {"text_list": "ab", "image_info": []}),
        ("mmc4", {"text_list": ["a"], "image_info": [{"matched_sim": math.nan, "matched_text_index": 0}]}),
        ("mmc4", {"text_list": ["a", "b"], "image_info": [{"matched_sim": 1.0, "matched_text_index": 0.5}]}),
        ("parts", {"parts": [{"type": "text", "text": 7}]}),
        ("parts", {"parts": [{"type": "image", "image": ["a.png", "b.png"]}, {"type": "text", "text": "a"}]}),
        ("parts", {"parts": [{"type": "image", "image": ""}, {"type": "text", "text": "a"}]}),
        ("parts", {"parts": {"type": "text", "text": "a"}}),
        ("question_answering", {"image": "a.png", "question": "what?", "answers": ["yes", 2, 2]}),
        ("question_answering", {"image": "a.png", "question": "what?", "answers": [{"answer": "a"}, {"reply": "b"}]}),
        ("llava", {"image": [None], "conversations": [*LLAVA]}),
        ("llava", {"image": "a.png", "images": ["b.png"], "conversations": [*LLAVA]}),
        ("messages", {"images": [None], "messages": [*MESSAGES]}),
        ("messages", {"images": [{"bytes": None, "path": None}], "messages": [*MESSAGES]}),
        ("messages", {"images": {"bytes": b"", "path": None}, "messages": [*MESSAGES]}),
        ("messages", {"images": ["a.png"], "image": "b.png", "messages": [*MESSAGES]}),
        ("image_text_pairs", {"image": {"bytes": "a.png", "path": None}, "text": "bytes that are a text"}),
        ("image_text_pairs", {"image": {"path": None}, "text": "a"}),
        ("image_text_pairs", {"image": "a.png", "text": math.nan}),
        ("image_text_pairs", {"image": "a.png", "text": b"bytes"}),
        ("image_text_pairs", {"image": "a.png", "text": "a lone surrogate \ud800"}),
        ("video_text_pairs", {"video": [], "text": "no frames"}),
        ("video_text_pairs", {"video": [None], "text": "no frame"}),
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


PIXELS = {"bytes": png(1), "path": None}


@pytest.mark.parametrize(
    ("name", "row"),
    [
        ("image_text_pairs", {"image": PIXELS, "text": "a"}),
        ("obelics", {"images": [PIXELS, None], "texts": [None, "a"]}),
        ("parts", {"parts": [{"type": "image", "image": PIXELS}, {"type": "text", "text": "a"}]}),
        ("question_answering", {"image": PIXELS, "question": "what?", "answers": ["a", "", None]}),
        ("llava", {"image": PIXELS, "conversations": [*LLAVA]}),
        ("llava", {"images": [PIXELS], "conversations": [*LLAVA]}),
        ("messages", {"image": PIXELS, "messages": [*MESSAGES]}),
        ("messages", {"images": [PIXELS], "messages": [*MESSAGES]}),
        ("video_text_pairs", {"video": [PIXELS], "text": "a"}),
    ],
)
def test_images_as_bytes_and_path(name, row):
    """This is how `datasets.Image(decode=False)` stores them."""
    (chunk,) = FORMATS[name]().read({**row, FILE: "data.parquet", ROW: 0})
    assert chunk.text.strip() == "a"
    item = load_media(chunk.item, "")
    assert number_of(item[0] if name == "video_text_pairs" else item) == 1


def test_frames_beyond_the_budget_are_dropped():
    frames = [numbered_image(i) for i in range(5)]
    (chunk,) = FORMATS["video_text_pairs"](max_frames=3).read({"video": frames, "text": "a"})
    assert [number_of(frame) for frame in chunk.item] == [0, 1, 2]
    row = {"parts": [{"type": "video", "video": frames}, {"type": "text", "text": "a"}]}
    (chunk,) = FORMATS["parts"](max_frames=3).read(row)
    assert [number_of(frame) for frame in chunk.item] == [0, 1, 2]


def test_a_record_cannot_claim_another_origin():
    row = {JSON: '{"__url__": "other.tar", "__file__": "other.json", "text": "a"}', FILE: "data.jsonl", ROW: 7}
    with pytest.raises(BadSampleError, match="^data.jsonl, row 7: no value in 'image'"):
        FORMATS["image_text_pairs"]().read(row)


def test_paths_in_a_tar_start_at_its_folder():
    row = {TAR_FILE: "folder/a.tar", TAR_KEY: "0", "image": "a.png", "text": "a"}
    (chunk,) = FORMATS["image_text_pairs"]().read(row)
    assert chunk.item["path"] == "folder/a.png"
