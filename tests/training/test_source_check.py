# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""What `check_source` counts, with numbers that are known."""

import json

import numpy as np
import pytest
from factory import IMAGE_SIZE, tiny_processor
from PIL import Image
from runs import png, source, write_pairs, write_shards

from transformers_flamingo.training import DataSource
from transformers_flamingo.training.source_check import SeenText, check_source, readable_formats


def write_rows(folder, rows: list[dict]) -> str:
    """Write rows next to ten images, `0.png` to `9.png`. Return the path of their file."""
    folder.mkdir()
    for i in range(10):
        (folder / f"{i}.png").write_bytes(png(i))
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return str(folder / "rows.jsonl")


def pairs(*texts: str) -> list[dict]:
    return [{"file_name": f"{i}.png", "text": text} for i, text in enumerate(texts)]


@pytest.mark.parametrize("streaming", [False, True])
def test_counts(tmp_path, streaming):
    path = write_shards(tmp_path / "shards", 2, 5, broken=(3, 7))
    check = check_source(source("a", path, streaming=streaming), tiny_processor())
    assert (check.total, check.rows, check.num_bad, check.good, check.images, check.videos) == (10, 10, 2, 8, 8, 0)
    # <image>, two words and `number % 3` more, <|endofchunk|>
    lengths = [4 + i % 3 for i in range(10) if i not in (3, 7)]
    assert (check.tokens, check.longest) == (sum(lengths), max(lengths))
    assert (check.words.supervised, check.words.unknown) == (sum(lengths) - 8, 0)
    assert (check.answers.count, check.repeated, check.shared, check.truncated) == (8, 0, 0, 0)
    assert [f"sample '{i:05}'" in message for i, message in zip((3, 7), check.bad, strict=True)] == [True, True]
    assert check.failure is None


def test_a_sample_of_the_rows(tmp_path):
    path = write_shards(tmp_path / "shards", 2, 5)
    check = check_source(source("a", path), tiny_processor(), max_rows=3)
    assert (check.total, check.rows) == (10, 3)
    check = check_source(source("a", path, streaming=True), tiny_processor(), max_rows=3)
    assert (check.total, check.rows) == (None, 3)


def test_repeated_rows_and_images(tmp_path):
    rows = pairs("w5", "w6", "w7", "w8")
    rows += [rows[1], {**rows[2], "text": "w9"}, rows[1], {"file_name": "copy.png", "text": "w10"}]
    path = write_rows(tmp_path / "data", rows)
    (tmp_path / "data" / "copy.png").write_bytes(png(3))  # the same image in another file
    check = check_source(source("a", path), tiny_processor())
    # The random space before a text does not make another row of it
    assert (check.repeated, check.repetition) == (2, f"{path}, row 4")
    assert (check.shared, len(check.rows_of_images)) == (3, 4)


def test_what_is_cut(tmp_path):
    path = write_rows(tmp_path / "data", pairs("w5", "w5 w6", "w5 w6 w7", "w5 " * 50))
    check = check_source(source("a", path, max_length=4), tiny_processor())
    assert (check.truncated, check.longest, check.tokens) == (2, 52, 3 + 4 + 4 + 4)
    parts = [{"type": "image", "image": "0.png"}, {"type": "text", "text": "w5"}]
    path = write_rows(tmp_path / "parts", [{"parts": parts}, {"parts": parts * 3}])
    check = check_source(DataSource(name="a", format="parts", path=path, max_images=2), tiny_processor())
    assert (check.truncated, check.images) == (1, 3)


def test_the_end_of_sequence_that_does_not_fit_counts_as_cut(tmp_path):
    path = write_rows(tmp_path / "data", pairs("w5", "w5 w6"))
    check = check_source(source("a", path, max_length=4, append_eos=True), tiny_processor())
    assert check.truncated == 1


def test_rows_as_the_model_will_see_them(tmp_path):
    parts = [
        {"type": "text", "text": "w5 w6"},
        {"type": "image", "image": "1.png"},
        {"type": "text", "text": "w7"},
        {"type": "image", "image": "2.png"},
        {"type": "video", "video": ["3.png", "4.png"]},
        {"type": "text", "text": "w8 zebra"},
    ]
    path = write_rows(tmp_path / "data", [{"parts": parts}])
    check = check_source(DataSource(name="a", format="parts", path=path), tiny_processor(), num_shown=1)
    (row,) = check.first
    assert row.location == f"{path}, row 0"
    assert row.texts == [
        SeenText(0, False, 3, "w5 w6 <|endofchunk|>"),
        SeenText(1, False, 1, "<image>"),
        SeenText(1, True, 2, "w7 <|endofchunk|>"),
        SeenText(2, False, 1, "<image>"),
        SeenText(3, False, 1, "<image>"),
        SeenText(3, True, 3, "w8 w3 <|endofchunk|>"),  # w3 is the unknown token
    ]
    assert "w8 zebra" in row.text
    assert row.images == ["8 x 8", "8 x 8", "2 frames of 8 x 8"]
    assert [tile.text.split() for tile in row.tiles] == [["w7"], [], ["w8", "w3"]]
    assert row.tiles[2].note == "row 0, video 3, 2 frames"
    for number, tile in enumerate(row.tiles, 1):
        assert tile.image.size == (IMAGE_SIZE, IMAGE_SIZE)
        assert np.abs(np.asarray(tile.image)[0, 0].astype(int) - [number * 20, number, 0]).max() <= 1


def test_no_first_token_is_learned(tmp_path):
    path = write_rows(tmp_path / "data", [{"parts": [{"type": "text", "text": "w5 w6 w7"}]}])
    check = check_source(
        DataSource(name="a", format="parts", path=path, leading_space_probability=0), tiny_processor()
    )
    assert [(part.is_learned, part.tokens) for part in check.first[0].texts] == [(False, 1), (True, 3)]
    assert check.words.supervised == 3


def test_bad_rows_are_all_named(tmp_path):
    texts = ["w5", "", "w5 <image>", "w5"]
    path = write_rows(tmp_path / "data", [*pairs(*texts), {"file_name": "none.png", "text": "w5"}, {"text": "w5"}])
    (tmp_path / "data" / "3.png").write_bytes(png(3)[:40])
    check = check_source(source("a", path), tiny_processor())
    assert [message.partition(": ")[0] for message in check.bad] == [f"{path}, row {i}" for i in (1, 2, 3, 4, 5)]
    assert check.num_bad == 5 and check.good == 1


def test_what_the_image_processor_refuses(tmp_path):
    path = write_pairs(tmp_path / "data", 3)
    Image.new("F", (8, 8), -5.0).save(tmp_path / "data" / "1.png", "TIFF")
    (message,) = check_source(source("a", path), tiny_processor()).bad
    assert "row 1: it cannot be collated" in message and "-5.0" in message


def test_images_that_do_not_fit_into_one_batch(tmp_path):
    path = write_pairs(tmp_path / "data", 3)
    Image.new("RGB", (9, 9)).save(tmp_path / "data" / "1.png")
    processor = tiny_processor()
    processor.image_processor.do_resize = processor.image_processor.do_center_crop = False
    (message,) = check_source(source("a", path), processor).bad
    assert "row 1: the image processor makes pixels of shape (3, 9, 9), and (3, 8, 8)" in message


def test_held_out_rows_have_rules_of_their_own(tmp_path):
    path = write_rows(tmp_path / "data", [{"parts": [{"type": "text", "text": "w5 w6"}]}])
    held_out = DataSource(name="a", format="parts", path=path)
    assert check_source(held_out, tiny_processor()).num_bad == 0
    (message,) = check_source(held_out, tiny_processor(), is_held_out=True).bad
    assert "no image and no prompt before it" in message
    stream = DataSource(name="a", format="parts", path=path, streaming=True)
    assert "is streamed" in check_source(stream, tiny_processor(), is_held_out=True).failure


def test_an_option_that_does_not_fit_the_rows(tmp_path):
    path = write_pairs(tmp_path / "data", 2)
    entry = source("a", path, next_image_probability=1.0, options={"prompt": "w5"})
    check = check_source(entry, tiny_processor())
    assert check.num_bad == 2 and "has prompts" in check.bad[0]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_source_that_cannot_be_read(tmp_path, streaming):
    (tmp_path / "empty.jsonl").write_text("")
    for path, message in (("nowhere.jsonl", "leads to no file"), ("empty.jsonl", "no row")):
        check = check_source(source("a", str(tmp_path / path), streaming=streaming), tiny_processor())
        assert (check.rows, check.total) == (0, None)
        assert message in check.failure


def test_a_file_that_is_cut_short(tmp_path):
    path = write_shards(tmp_path / "shards", 1, 5)
    tar = tmp_path / "shards" / "000.tar"
    tar.write_bytes(tar.read_bytes()[:8000])
    check = check_source(source("a", path, streaming=True), tiny_processor())
    assert 0 < check.rows < 5
    assert "000.tar' cannot be read to its end" in check.failure


def test_the_formats_of_the_rows(tmp_path):
    conversation = [{"from": "human", "value": "<image>w5"}, {"from": "gpt", "value": "w6"}]
    path = write_rows(tmp_path / "data", [{"image": "0.png", "conversations": conversation}])
    assert readable_formats(source("a", path)) == ["llava"]
    assert readable_formats(source("a", write_pairs(tmp_path / "pairs", 1))) == ["image_text_pairs"]


def test_unknown_words_that_are_only_read(tmp_path):
    path = write_rows(tmp_path / "data", pairs("w5", "w6"))
    check = check_source(source("a", path, options={"prompt": "which zebra w7 "}), tiny_processor())
    assert (check.words.unknown, check.words.supervised) == (0, 4)
    assert (check.read_words.unknown, check.read_words.supervised) == (4, 6)
    assert check.read_words.words == {"which": 2, "zebra": 2}
