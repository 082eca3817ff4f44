# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""One sample of each published format, read from a file and collated."""

import json
from base64 import b64encode

import numpy as np
import pytest
from data_factory import (
    both,
    embedded,
    first,
    learned,
    number_of,
    numbered_image,
    png,
    sample,
    video_file,
    write_jsonl,
    write_png,
    write_tar,
)
from datasets import Dataset, Features, Image, List, Value

from transformers_flamingo.data import FORMATS, BadSampleError, Chunk, document_to_sample, row_location
from transformers_flamingo.training import DataSource


EOC = "<|endofchunk|>"


# Image-text pairs


@both
@pytest.mark.parametrize("kind", ["tar", "parquet", "csv", "jsonl"])
def test_image_text_pairs(kind, streaming, tmp_path, processor):
    path = tmp_path / f"metadata.{kind}"
    write_png(tmp_path / "images" / "a.png", 1)
    if kind == "tar":
        write_tar(path, {"000.jpg": png(1), "000.txt": b" a red cat\n", "000.json": b"{}"})
    elif kind == "parquet":
        rows = [{"image": embedded(1), "text": "a red cat"}]
        Dataset.from_list(rows, features=Features({"image": Image(), "text": Value("string")})).to_parquet(path)
    elif kind == "csv":
        path.write_text("file_name,text\nimages/a.png,a red cat\n")
    else:
        write_jsonl(path, [{"file_name": "images/a.png", "caption": "a red cat"}])
    assert sample("image_text_pairs", path, processor, streaming) == (
        f"<image>a red cat{EOC}",
        [1],
        [f"a red cat{EOC}"],
    )
    text, _, taught = sample("image_text_pairs", path, processor, streaming, prompt="Output:")
    assert (text, taught) == (f"<image>Output:a red cat{EOC}", [f"a red cat{EOC}"])


# Interleaved documents


@both
def test_obelics(streaming, tmp_path, processor):
    rows = [
        {
            "images": [None, embedded(1), None, embedded(2), embedded(3), None, None],
            "texts": ["my pets", None, "a cat ", None, None, "two dogs", "at home"],
            "metadata": "[]",
        }
    ]
    features = Features({"images": List(Image()), "texts": List(Value("string")), "metadata": Value("string")})
    Dataset.from_list(rows, features=features).to_parquet(tmp_path / "a.parquet")
    assert sample("obelics", tmp_path, processor, streaming) == (
        f"my pets{EOC}<image>a cat{EOC}<image><image>two dogs\n\nat home{EOC}",
        [1, 2, 3],
        [f"a cat{EOC}", f"two dogs\n\nat home{EOC}"],
    )


def mmc4_page(pixels):
    """Return a page of two images whose order differs from that of their sentences, and one that matches nothing well."""
    matches = [(1, 2, 0.30), (2, 0, 0.31), (3, 1, 0.10)]
    return {
        "text_list": ["sentence 0.", "sentence 1.", "sentence 2.", "sentence 3."],
        "image_info": [
            {
                "image_name": f"{number}.png",
                "raw_url": None,
                "matched_text_index": sentence,
                "matched_sim": similarity,
                **pixels(number),
            }
            for number, sentence, similarity in matches
        ],
        "similarity_matrix": [[0.2, 0.2, 0.3, 0.1], [0.31, 0.2, 0.3, 0.1], [0.1, 0.1, 0.1, 0.1]],
        "url": "a.html",
        "could_have_url_duplicate": 0,
    }


def base64_pixels(number):
    return {"image_base64": b64encode(png(number)).decode()}


@both
@pytest.mark.parametrize("kind", ["jsonl", "tar", "files"])
def test_mmc4(kind, streaming, tmp_path, processor):
    path = tmp_path / ("shard.tar" if kind == "tar" else "shard.jsonl")
    page = mmc4_page((lambda number: {}) if kind == "files" else base64_pixels)
    if kind == "files":
        for number in (1, 2, 3):
            write_png(tmp_path / "images" / f"{number}.png", number)
    if kind == "tar":
        write_tar(path, {"0.json": json.dumps(page).encode()})
    else:
        write_jsonl(path, [page])
    options = {"media_root": str(tmp_path / "images")} if kind == "files" else {}
    # Images stand in the order of their sentences, not of `image_info`
    assert sample("mmc4", path, processor, streaming, **options) == (
        f"<image>sentence 0. sentence 1.{EOC}<image>sentence 2. sentence 3.{EOC}",
        [2, 1],
        [f"sentence 0. sentence 1.{EOC}", f"sentence 2. sentence 3.{EOC}"],
    )
    assert sample("mmc4", path, processor, streaming, min_similarity=0.305, **options)[:2] == (
        f"<image>sentence 0. sentence 1. sentence 2. sentence 3.{EOC}",
        [2],
    )
    assert sample("mmc4", path, processor, streaming, min_similarity=0.0, **options)[1] == [2, 3, 1]


def test_mmc4_images_of_one_sentence_keep_their_order(tmp_path, processor):
    page = mmc4_page(base64_pixels)
    for image in page["image_info"]:
        image["matched_text_index"] = 1
    write_jsonl(tmp_path / "a.jsonl", [page])
    text, numbers, taught = sample("mmc4", tmp_path, processor)
    assert text == f"sentence 0.{EOC}<image><image>sentence 1. sentence 2. sentence 3.{EOC}"
    assert numbers == [1, 2]
    assert taught == [f"sentence 1. sentence 2. sentence 3.{EOC}"]


@both
def test_mmc4_pages_without_images_are_skipped(streaming, tmp_path, caplog):
    pages = [mmc4_page(lambda number: {}), mmc4_page(base64_pixels), mmc4_page(lambda number: {"matched_sim": 0.1})]
    write_jsonl(tmp_path / "a.jsonl", [*pages, {"text_list": ["no images column"]}])
    rows = FORMATS["mmc4"]().load(str(tmp_path), streaming=streaming)
    # What is broken stays, so that it is reported and counted
    assert [row_location(row)[-5:] for row in rows] == ["row 1", "row 3"]
    assert ("2 of 4 rows are skipped" in caplog.text) is not streaming
    write_jsonl(tmp_path / "a.jsonl", pages[:1])
    with pytest.raises(
        ValueError, match="no row in .* that is kept: they have no|none of 1 rows is kept, because they have no"
    ):
        DataSource(name="a", format="mmc4", path=str(tmp_path), streaming=streaming).load()


@both
def test_parts(streaming, tmp_path, processor):
    write_png(tmp_path / "a.png", 1)
    video_file(tmp_path / "a.mp4", frames=10, rate=4)
    parts = [
        {"type": "text", "text": "my pets"},
        {"type": "image", "image": "a.png"},
        {"type": "text", "text": "a cat"},
        {"type": "text", "text": "at home"},
        {"type": "video", "video": "a.mp4"},
        {"type": "text", "text": "a dog"},
    ]
    write_jsonl(tmp_path / "a.jsonl", [{"parts": parts}])
    reader, row = first("parts", tmp_path, streaming, fps=2, max_frames=3)
    row = document_to_sample(
        reader.read(row), processor, np.random.default_rng(0), location="", leading_space_probability=0
    )
    assert row["text"] == f"my pets{EOC}<image>a cat at home{EOC}<image>a dog{EOC}"
    assert number_of(row["images"][0]) == 1
    assert [round(number_of(frame) / 20) for frame in row["images"][1]] == [0, 2, 4]
    assert learned(row, processor) == [f"a cat at home{EOC}", f"a dog{EOC}"]


def test_parts_in_columns(tmp_path, processor):
    """`datasets` gives every part every key, and `None` where it has no value."""
    part = {"type": Value("string"), "text": Value("string"), "image": Image()}
    parts = [{"type": "image", "text": None, "image": embedded(1)}, {"type": "text", "text": "a cat", "image": None}]
    Dataset.from_list([{"parts": parts}], features=Features({"parts": List(part)})).to_parquet(tmp_path / "a.parquet")
    assert sample("parts", tmp_path, processor)[:2] == (f"<image>a cat{EOC}", [1])


# Questions and conversations


@both
@pytest.mark.parametrize(
    ("answers", "answer"),
    [
        ({"answers": ["gray", "red", "red "]}, "red"),
        ({"answers": [{"answer": "gray", "answer_id": 1}, {"answer": "red", "answer_id": 2}]}, "gray"),
        ({"answer": "red"}, "red"),
    ],
)
def test_question_answering(answers, answer, streaming, tmp_path, processor):
    write_png(tmp_path / "a.png", 1)
    write_jsonl(tmp_path / "a.jsonl", [{"image": "a.png", "question": "what color?", **answers}])
    assert sample("question_answering", tmp_path, processor, streaming) == (
        f"<image>Question:what color? Short answer:{answer}{EOC}",
        [1],
        [f"{answer}{EOC}"],
    )
    text, _, taught = sample("question_answering", tmp_path, processor, streaming, template="Q: {question} A: ")
    assert (text, taught) == (f"<image>Q: what color? A: {answer}{EOC}", [f" {answer}{EOC}"])


@both
def test_llava(streaming, tmp_path, processor):
    for number in (1, 2):
        write_png(tmp_path / "coco" / f"{number}.png", number)
    records = [
        {
            "id": "0",
            "image": "coco/1.png",
            "conversations": [
                {"from": "human", "value": "<image>\nWhat is it?"},
                {"from": "gpt", "value": "A cat."},
                {"from": "human", "value": "Is it red?"},
                {"from": "gpt", "value": "No."},
            ],
        },
        {
            "id": 1,
            "image": ["coco/1.png", "coco/2.png"],
            "conversations": [
                {"from": "human", "value": "Compare\n<image>\nwith\n<image>"},
                {"from": "gpt", "value": "Both."},
            ],
        },
        {"id": 2, "conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]},
    ]
    expected = [
        (f"<image>What is it? A cat.{EOC}Is it red? No.{EOC}", [1], [f" A cat.{EOC}", f" No.{EOC}"]),
        (f"<image><image>Compare with Both.{EOC}", [1, 2], [f" Both.{EOC}"]),
        (f"Hi Hello{EOC}", [], [f" Hello{EOC}"]),
    ]
    for number, record in enumerate(records):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps([record]))
        assert sample("llava", path, processor, streaming, media_root=str(tmp_path)) == expected[number]


MESSAGES = [
    {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
    {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
    {"role": "user", "content": [{"type": "text", "text": "And this?"}, {"type": "image"}]},
    {"role": "assistant", "content": "A dog."},
]


@both
def test_messages(streaming, tmp_path, processor):
    for number in (1, 2):
        write_png(tmp_path / f"{number}.png", number)
    write_jsonl(tmp_path / "a.jsonl", [{"messages": MESSAGES, "images": ["1.png", "2.png"]}])
    assert sample("messages", tmp_path, processor, streaming) == (
        f"Be brief.\n<image>What is it? A cat.{EOC}<image>And this? A dog.{EOC}",
        [1, 2],
        [f" A cat.{EOC}", f" A dog.{EOC}"],
    )


def test_messages_in_columns(tmp_path, processor):
    part = {"type": Value("string"), "text": Value("string")}
    features = Features({"messages": List({"role": Value("string"), "content": List(part)}), "images": List(Image())})
    content = [{"type": "image", "text": None}, {"type": "text", "text": "What?"}]
    messages = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": [{"type": "text", "text": "A."}]},
    ]
    rows = [{"messages": messages, "images": [embedded(1)]}]
    Dataset.from_list(rows, features=features).to_parquet(tmp_path / "a.parquet")
    assert sample("messages", tmp_path, processor)[:2] == (f"<image>What? A.{EOC}", [1])


@pytest.mark.parametrize("last", ["A dog.", " A dog."])
@pytest.mark.parametrize("question", ["What is it?", "What is it?\n", ""])
@pytest.mark.parametrize("order", [1, -1])
def test_conversations_are_trained_as_the_chat_template_asks(order, question, last, tmp_path, processor):
    user = [{"type": "image"}, *([{"type": "text", "text": question}] if question else [])][::order]
    messages = [*MESSAGES, {"role": "user", "content": user}, {"role": "assistant", "content": last}]
    write_jsonl(tmp_path / "a.jsonl", [{"messages": messages, "images": ["a.png"] * 3}])
    write_png(tmp_path / "a.png", 1)
    assert sample("messages", tmp_path, processor)[0] == processor.apply_chat_template(messages)


def test_images_of_messages_without_markers_come_first(tmp_path, processor):
    write_png(tmp_path / "a.png", 1)
    messages = [{"role": "user", "content": "What is it?"}, {"role": "assistant", "content": "A cat."}]
    write_jsonl(tmp_path / "a.jsonl", [{"messages": messages, "image": "a.png"}])
    assert sample("messages", tmp_path, processor)[:2] == (f"<image>What is it? A cat.{EOC}", [1])


# Videos


@both
@pytest.mark.parametrize("kind", ["tar", "csv"])
def test_video_text_pairs(kind, streaming, tmp_path, processor):
    data = video_file(tmp_path / "a.mp4", frames=10, rate=4)
    if kind == "tar":
        write_tar(tmp_path / "a.tar", {"0.mp4": data, "0.txt": b"a dog runs"})
    else:
        (tmp_path / "a.csv").write_text("file_name,text\na.mp4,a dog runs\n")
    reader, row = first("video_text_pairs", tmp_path, streaming, max_frames=2)
    row = document_to_sample(
        reader.read(row), processor, np.random.default_rng(0), location="", leading_space_probability=0
    )
    assert row["text"] == f"<image>a dog runs{EOC}"
    assert [[round(number_of(frame) / 20) for frame in frames] for frames in row["images"]] == [[0, 4]]
    assert learned(row, processor) == [f"a dog runs{EOC}"]


# Bad data

IMAGE_INFO = {"image_base64": "AAAA", "image_name": "a.png", "matched_sim": 1.0}
USER, GPT = {"from": "human", "value": "What?"}, {"from": "gpt", "value": "A cat."}
ASKS, ANSWERS = {"role": "user", "content": "What?"}, {"role": "assistant", "content": "A cat."}


@pytest.mark.parametrize(
    ("name", "bad", "message"),
    [
        (
            "image_text_pairs",
            {"file_name": "a.png", "title": "a"},
            r"no value in 'text' or .* are \['file_name', 'title'\]",
        ),
        ("image_text_pairs", {"text": "a"}, "no value in 'image' or 'file_name'"),
        ("image_text_pairs", {"file_name": "a.png", "text": " "}, "the text in 'text' or .* is ' '"),
        ("image_text_pairs", {"file_name": "a.png", "text": 7}, "the text in 'text' or .* is 7"),
        ("obelics", {"images": ["a.png"], "texts": [None, "a"]}, "'images' has length 1, and 'texts' 2"),
        ("obelics", {"images": ["a.png", None], "texts": [None, None]}, "index 1 has neither an image nor a text"),
        ("obelics", {"images": ["a.png"], "texts": ["a"]}, "index 0 has both an image and a text"),
        ("mmc4", {"text_list": ["a"]}, "no value in 'image_info'"),
        ("mmc4", {"text_list": ["a"], "image_info": [{"image_name": "a.png"}]}, "image 0 has only"),
        ("mmc4", {"text_list": ["a"], "image_info": [{**IMAGE_INFO, "matched_text_index": 1}]}, "to sentence 1 of 1"),
        (
            "mmc4",
            {"text_list": ["a"], "image_info": [{**IMAGE_INFO, "image_base64": "A", "matched_text_index": 0}]},
            "'image_base64' of 'a.png'",
        ),
        ("parts", {"parts": [{"type": "audio"}]}, "a part of type 'audio'"),
        ("parts", {"parts": [{"type": "image", "text": "a"}]}, "a part of type 'image' without a value"),
        ("parts", {"parts": [{"type": "video", "video": "none.mp4"}]}, "the video '.*none.mp4' cannot be read"),
        ("question_answering", {"image": "a.png", "question": "what?", "answers": [""]}, "no answer"),
        ("question_answering", {"image": "a.png", "answer": "red"}, "no value in 'question'"),
        (
            "llava",
            {"conversations": [{"from": "human", "value": "<image>"}, GPT]},
            "1 `<image>` .* and 0 images in 'image'",
        ),
        ("llava", {"image": "a.png", "conversations": [USER, GPT]}, "0 `<image>` .* and 1 image in 'image'"),
        ("llava", {"conversations": [{"from": "user", "value": "a"}]}, "needs 'from'"),
        ("llava", {"conversations": [USER, {**GPT, "value": ""}]}, "a message of the assistant"),
        (
            "messages",
            {"messages": [{**ASKS, "content": [{"type": "image"}]}, ANSWERS]},
            "1 part of type image .* and 0 images",
        ),
        ("messages", {"messages": [{**ASKS, "content": [{"type": "audio"}]}]}, "Message 0 asks for audio"),
        ("messages", {"messages": [ASKS, {**ANSWERS, "content": []}]}, "a message of the assistant"),
        ("video_text_pairs", {"file_name": "none.mp4", "text": "a"}, "the video '.*none.mp4' cannot be read"),
    ],
)
@both
def test_bad_rows_name_file_and_row(streaming, name, bad, message, tmp_path):
    path = tmp_path / "data.jsonl"
    good = {"text_list": ["a"], "image_info": [{**IMAGE_INFO, "matched_text_index": 0}]}  # kept by MMC4's filter
    write_jsonl(path, [good, bad])
    reader = FORMATS[name]()
    _, row = reader.load(str(path), streaming=streaming)
    with pytest.raises(BadSampleError, match=f"data.jsonl, row 1: .*{message}"):
        reader.read(row)


def test_a_broken_image_in_a_tar_names_file_and_sample(tmp_path, processor):
    write_tar(tmp_path / "a.tar", {"007.jpg": b"<html>", "007.txt": b"a cat"})
    with pytest.raises(BadSampleError, match="a.tar, sample '007': the image '007.jpg' cannot be decoded"):
        sample("image_text_pairs", tmp_path, processor)


def test_a_marker_in_a_caption_names_file_and_row(tmp_path, processor):
    (tmp_path / "a.csv").write_text("file_name,text\na.png,see <image>\n")
    with pytest.raises(BadSampleError, match="a.csv, row 0: the text contains '<image>'"):
        sample("image_text_pairs", tmp_path, processor)


def test_documents_hold_images_as_they_come():
    row = {"image": numbered_image(1), "text": "a cat"}
    assert FORMATS["image_text_pairs"]().read(row) == [Chunk("a cat", row["image"])]
