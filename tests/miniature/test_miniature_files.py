# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""The readers of published layouts read what the miniature writes."""

import numpy as np
import pytest

from transformers_flamingo.data import FORMATS, document_to_sample, row_location
from transformers_flamingo.processing_flamingo import FlamingoProcessor
from transformers_flamingo_miniature import text_backbone_path, vision_backbone_path
from transformers_flamingo_miniature.data import build_image_split
from transformers_flamingo_miniature.files import FILES, QUESTION_TEMPLATE, write_training_files


READERS = {
    "pairs": FORMATS["image_text_pairs"](),
    "pages": FORMATS["obelics"](),
    "questions": FORMATS["question_answering"](template=QUESTION_TEMPLATE),
    "videos": FORMATS["parts"](),
}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_training_files(tmp_path_factory.mktemp("miniature"), num_pictures=10, num_videos=2)


@pytest.fixture(scope="module")
def processor():
    return FlamingoProcessor.from_vision_text_pretrained(vision_backbone_path(), text_backbone_path())


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("streaming", [False, True])
def test_each_file_is_read_by_the_reader_of_its_layout(files, processor, name, streaming):
    rows = READERS[name].load(str(files[name]), streaming=streaming)
    rng = np.random.default_rng(0)
    rendered = [
        document_to_sample(READERS[name].read(row), processor, rng, location=row_location(row)) for row in rows
    ]
    scenes = build_image_split("train", 10)
    if name == "pairs":
        assert [row["text"].replace("> ", ">") for row in rendered] == [
            f"<image>{caption}<|endofchunk|>" for caption in scenes["caption"]
        ]
    elif name == "pages":
        assert sum(len(row["images"]) for row in rendered) == 10
        text = "".join(row["text"] for row in rendered)
        positions = [text.index(caption) for caption in dict.fromkeys(scenes["caption"])]
        assert positions == sorted(positions) and all(1 <= len(row["images"]) <= 4 for row in rendered)
    elif name == "questions":
        expected = [question for questions in scenes["questions"] for question in questions]
        assert len(rendered) == len(expected)
        for row, question in zip(rendered, expected, strict=True):
            (start, end), *_ = row["supervised"]
            assert row["text"][start:end].strip() == f"{question['answer']}<|endofchunk|>"
            assert question["question"] in row["text"][:start]
    else:
        assert [len(row["images"][0]) for row in rendered] == [4, 4]


def test_no_word_of_the_files_is_unknown_to_the_miniature_tokenizer(files, processor):
    unknown = processor.tokenizer.unk_token_id
    assert unknown is not None
    for name in FILES:
        for row in READERS[name].load(str(files[name])):
            text = document_to_sample(
                READERS[name].read(row), processor, np.random.default_rng(0), location=row_location(row)
            )["text"]
            assert unknown not in processor.tokenizer(text)["input_ids"], text


def test_splits_and_seeds_differ_and_calls_agree(tmp_path):
    texts = {}
    for name, kwargs in {"a": {}, "b": {}, "c": {"seed": 1}, "d": {"split": "test_unseen"}}.items():
        paths = write_training_files(tmp_path / name, num_pictures=6, num_videos=1, **kwargs)
        texts[name] = paths["pairs"].read_bytes(), paths["pages"].read_bytes()
    assert texts["a"] == texts["b"]
    assert texts["a"] != texts["c"] and texts["a"] != texts["d"]
