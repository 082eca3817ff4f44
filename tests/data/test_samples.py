# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
import re

import numpy as np
import pytest
from data_factory import learned, number_of, numbered_image, png
from factory import tiny_processor
from hypothesis import given, settings
from hypothesis import strategies as st
from processors import make_processor
from tokenizers.processors import TemplateProcessing

from transformers_flamingo.data import FORMATS, BadSampleError, Chunk, document_to_sample
from transformers_flamingo.data.samples import _see_next_image
from transformers_flamingo.training import FlamingoDataCollator


EOC = "<|endofchunk|>"
CAT, DOG = numbered_image(1), numbered_image(2)
LOCATION = "web.jsonl, row 7"


def row_of(document, processor, *, seed=0, **kwargs):
    kwargs = {"location": LOCATION, "leading_space_probability": 0, **kwargs}
    return document_to_sample(document, processor, np.random.default_rng(seed), **kwargs)


def numbers(row):
    return [number_of(image) for image in row["images"]]


@pytest.mark.parametrize(
    ("document", "text", "taught"),
    [
        ([Chunk("a cat", CAT)], f"<image>a cat{EOC}", [f"a cat{EOC}"]),
        ([Chunk(" a cat", CAT, "Output:")], f"<image>Output: a cat{EOC}", [f" a cat{EOC}"]),
        (
            [Chunk("my pets"), Chunk("a cat", CAT), Chunk("a dog", DOG)],
            f"my pets{EOC}<image>a cat{EOC}<image>a dog{EOC}",
            [f"a cat{EOC}", f"a dog{EOC}"],
        ),
        # A second question about the same image
        (
            [Chunk("red", CAT, "what? "), Chunk("blue", prompt="and? ")],
            f"<image>what? red{EOC}and? blue{EOC}",
            [f" red{EOC}", f" blue{EOC}"],
        ),
        ([Chunk("", prompt="what is "), Chunk("red", CAT)], f"what is <image>red{EOC}", [f"red{EOC}"]),
        ([Chunk("", CAT), Chunk("pets", DOG)], f"<image><image>pets{EOC}", [f"pets{EOC}"]),
        ([Chunk("no image"), Chunk("at all")], f"no image{EOC}at all{EOC}", [f"no image{EOC}at all{EOC}"]),
    ],
)
def test_text_and_its_supervised_parts(document, text, taught, processor):
    row = row_of(document, processor)
    assert row["text"] == text
    assert learned(row, processor) == taught
    assert len(row["images"]) == text.count("<image>")


def test_half_of_the_chunks_begin_with_a_space(processor):
    document = [Chunk("a cat", CAT), Chunk(" a dog", DOG), Chunk("", CAT), Chunk("red", DOG, "what? ")]
    row = row_of(document, processor, leading_space_probability=1)
    assert row["text"] == f"<image> a cat{EOC}<image> a dog{EOC}<image><image> what? red{EOC}"
    assert learned(row, processor) == [f" a cat{EOC}", f" a dog{EOC}", f" red{EOC}"]
    rng = np.random.default_rng(0)
    texts = [document_to_sample([Chunk("a", CAT)], processor, rng, location=LOCATION)["text"] for _ in range(400)]
    assert 160 < sum(text == f"<image> a{EOC}" for text in texts) < 240


def test_texts_see_the_next_image(processor):
    web_page = [Chunk("t0"), Chunk("t1", CAT), Chunk("t2", DOG)]
    row = row_of(web_page, processor, next_image_probability=1)
    assert row["text"] == f"<image>t0{EOC}<image>t1 t2{EOC}"
    assert numbers(row) == [1, 2]
    assert learned(row, processor) == [f"t0{EOC}", f"t1 t2{EOC}"]
    row = row_of(web_page[1:], processor, next_image_probability=1)
    assert row["text"] == f"<image><image>t1 t2{EOC}"  # nothing stands before the first image
    single = row_of([Chunk("t1", CAT)], processor, next_image_probability=1)
    assert single["text"] == f"<image>t1{EOC}"
    moved = [
        row_of(web_page, processor, seed=seed, next_image_probability=0.5)["text"].startswith("<image>")
        for seed in range(200)
    ]
    assert 70 < sum(moved) < 130


def test_markers_do_not_move_away_from_questions(processor):
    with pytest.raises(ValueError, match="row 7 has prompts"):
        row_of([Chunk("red", CAT, "what? ")], processor, next_image_probability=1)


def test_end_of_sequence(processor):
    row = row_of([Chunk("a cat", CAT)], processor, append_eos=True)
    assert row["text"] == f"<image>a cat{EOC}<eos>"
    assert learned(row, processor) == [f"a cat{EOC}<eos>"]
    # Not after a document that continues, and not beyond the budget
    cut = row_of([Chunk("a cat", CAT), Chunk("a dog", DOG)], processor, append_eos=True, max_images=1)
    assert cut["text"] == f"<image>a cat{EOC}"
    tokens = len(processor.tokenizer(row["text"])["input_ids"])
    assert row_of([Chunk("a cat", CAT)], processor, append_eos=True, max_length=tokens) == row
    shorter = row_of([Chunk("a cat", CAT)], processor, append_eos=True, max_length=tokens - 1)
    assert shorter["text"] == f"<image>a cat{EOC}"


def test_cutting_at_chunk_borders():
    processor = tiny_processor()  # one token for each word
    document = [Chunk("w5 w6"), Chunk("w7", CAT), Chunk("w8", DOG)]  # 3, 3 and 3 tokens

    def text(**budgets):
        return row_of(document, processor, **budgets)["text"]

    assert text(max_length=9) == f"w5 w6{EOC}<image>w7{EOC}<image>w8{EOC}"
    assert text(max_length=8) == text(max_length=6) == text(max_images=1) == f"w5 w6{EOC}<image>w7{EOC}"
    # No room for an image behind the text that is only read: that text goes
    assert text(max_length=5) == text(max_length=3) == f"<image>w7{EOC}"
    # The first chunk alone is too long: it loses its end, and so its end of chunk
    assert text(max_length=2) == "<image>w7"
    with pytest.raises(BadSampleError, match="web.jsonl, row 7: nothing to learn .* max_length=1"):
        text(max_length=1)
    with pytest.raises(BadSampleError, match="max_images=0"):
        text(max_images=0)


def test_a_question_is_not_separated_from_its_answer():
    processor = tiny_processor()
    document = [Chunk("", prompt="w5 w6"), Chunk("w7 w8", CAT)]
    assert row_of(document, processor, max_length=4)["text"] == "w5 w6<image>w7 "
    with pytest.raises(BadSampleError, match="what comes before the first text"):
        row_of(document, processor, max_length=3)


def test_only_images_that_are_kept_are_decoded(processor):
    document = [Chunk("a cat", png(1)), Chunk("a dog", b"broken")]
    assert numbers(row_of(document, processor, max_images=1)) == [1]
    with pytest.raises(BadSampleError, match="web.jsonl, row 7: the image cannot be decoded"):
        row_of(document, processor)


def test_a_video_is_a_list_of_frames(processor):
    row = row_of([Chunk("a cat runs", [png(1), DOG])], processor)
    assert [number_of(frame) for frame in row["images"][0]] == [1, 2]
    assert learned(row, processor) == [f"a cat runs{EOC}"]


def test_the_end_of_sequence_is_refused_even_if_it_is_named_the_unknown_token_too():
    """As in GPT-2."""
    gpt2 = make_processor()
    assert gpt2.tokenizer.unk_token == gpt2.tokenizer.eos_token
    with pytest.raises(BadSampleError, match=r"the text contains '<\|endoftext\|>'"):
        row_of([Chunk("a cat<|endoftext|>", CAT)], gpt2)


@pytest.mark.parametrize("field", ["text", "prompt"])
@pytest.mark.parametrize("marker", ["<image>", EOC, "<eos>"])
def test_markers_in_the_text_are_refused(marker, field, processor):
    chunk = Chunk("a cat", CAT)
    chunk = Chunk(**{**vars(chunk), field: f"see{marker}there"})
    with pytest.raises(BadSampleError) as error:
        row_of([Chunk("first", DOG), chunk], processor)
    assert str(error.value).startswith(f"{LOCATION}: the text contains {marker!r}")


@pytest.mark.parametrize(
    "document",
    [
        [Chunk("ge>", None, "<ima")],
        [Chunk("", None, "see <ima"), Chunk("ge> a cat")],
        [Chunk("", None, "<"), Chunk("", None, "ima"), Chunk("ge>")],
    ],
)
def test_markers_across_parts_of_a_text_are_refused(document, processor):
    with pytest.raises(BadSampleError, match="web.jsonl, row 7: the text contains '<image>'"):
        row_of(document, processor)


@pytest.mark.parametrize("marker", ["<image>", EOC, "<eos>"])
@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("image_text_pairs", lambda text: {"image": CAT, "text": text}),
        ("obelics", lambda text: {"images": [CAT, None], "texts": [None, text]}),
        ("mmc4", lambda text: {"text_list": [text, "b"], "image_info": []}),
        ("parts", lambda text: {"parts": [{"type": "image", "image": CAT}, {"type": "text", "text": text}]}),
        ("question_answering", lambda text: {"image": CAT, "question": text, "answers": ["a"]}),
        ("question_answering", lambda text: {"image": CAT, "question": "what?", "answers": [text]}),
        ("llava", lambda text: {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": text}]}),
        (
            "messages",
            lambda text: {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "a"}]},
        ),
        ("video_text_pairs", lambda text: {"video": [CAT], "text": text}),
    ],
)
def test_no_format_lets_markers_in(name, make, marker, processor):
    with pytest.raises(BadSampleError, match=re.escape(f"{LOCATION}: the text contains {marker!r}")):
        row_of(FORMATS[name]().read(make(f"so {marker}.")), processor)


@pytest.mark.parametrize("document", [[], [Chunk("", CAT)], [Chunk("", CAT, "what?")], [Chunk("w5"), Chunk("", CAT)]])
def test_nothing_to_learn(document, processor):
    with pytest.raises(BadSampleError, match="web.jsonl, row 7: nothing to learn"):
        row_of(document, processor)


def test_a_text_whose_only_supervised_token_is_its_first():
    """Nothing comes before the first token, so it is never predicted."""
    processor = tiny_processor()  # each word is a token, and none is added
    document = [Chunk("w5 w6")]
    assert row_of(document, processor, max_length=2)["text"] == "w5 w6"
    with pytest.raises(BadSampleError, match="web.jsonl, row 7: nothing to learn from: only the first token of 'w5 '"):
        row_of(document, processor, max_length=1)
    # Behind an image, a prompt or a token that the tokenizer adds it is predicted
    assert row_of([Chunk("w5 w6", CAT)], processor, max_length=2)["text"].strip() == "<image>w5"
    assert row_of([Chunk("w6 w7", None, "w5 ")], processor, max_length=2)["text"].strip() == "w5 w6"
    processor.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="w3 $A", special_tokens=[("w3", processor.tokenizer.convert_tokens_to_ids("w3"))]
    )
    row = row_of(document, processor, max_length=2)
    assert row["text"].strip() == "w5"
    assert FlamingoDataCollator(processor)([row])["labels"].tolist()[0][1:] == [5]


# Images are numbered in document order, and each text names the image that it follows, which shows when one moves.
WORDS = st.lists(st.sampled_from(["a", "red", "cat", "dog.", "ü", "🦩", "\n"]), max_size=6).map(" ".join)
PAGES = st.lists(st.tuples(st.booleans(), WORDS), min_size=1, max_size=7)


def page(shape):
    document, image = [], 0
    for has_image, words in shape:
        image += has_image
        document.append(
            Chunk(f"[{image}]{words}" if words.strip() else "", numbered_image(image) if has_image else None)
        )
    return document


@settings(max_examples=300)
@given(
    shape=PAGES,
    max_length=st.none() | st.integers(1, 60),
    max_images=st.none() | st.integers(1, 5),
    space=st.sampled_from([0, 0.5, 1]),
    append_eos=st.booleans(),
    seed=st.integers(0, 3),
)
def test_no_image_leaves_its_place_and_no_text_is_lost(
    shape, max_length, max_images, space, append_eos, seed, processor
):
    document = page(shape)
    kwargs = {"leading_space_probability": space, "append_eos": append_eos, "seed": seed}
    try:
        whole = row_of(document, processor, **kwargs)
    except BadSampleError:
        first = next((i for i, chunk in enumerate(document) if chunk.item is not None), 0)
        assert not any(chunk.text for chunk in document[first:])
        return
    assert whole == row_of(document, processor, **kwargs)
    # All text up to the end of the document is there, in order
    pieces = whole["text"].removesuffix("<eos>").replace("<image>", "").split(EOC)
    assert [piece.removeprefix(" ") for piece in pieces if piece] == [chunk.text for chunk in document if chunk.text]
    try:
        row = row_of(document, processor, max_length=max_length, max_images=max_images, **kwargs)
    except BadSampleError:
        return
    assert max_length is None or len(processor.tokenizer(row["text"])["input_ids"]) <= max_length
    assert max_images is None or len(row["images"]) <= max_images
    _, *behind_images = row["text"].split("<image>")
    assert numbers(row) == list(range(1, len(behind_images) + 1))
    for number, behind in zip(numbers(row), behind_images, strict=True):
        assert not behind.strip() or behind.strip().startswith(f"[{number}]"[: len(behind.strip())])
    # What is kept is a piece of the whole: the beginning, or that without what stands before the first image
    kept = row["text"].removesuffix("<eos>")
    assert kept and (whole["text"].startswith(kept) or whole["text"].partition("<image>")[2].startswith(kept[7:]))
    assert learned(row, processor)


@settings(max_examples=100)
@given(shape=PAGES)
def test_moving_markers_keeps_all_images_and_texts_in_order(shape):
    document = page(shape)
    if all(chunk.item is None for chunk in document):
        return
    moved = _see_next_image(document, LOCATION)

    def media(chunks):
        return [chunk.item for chunk in chunks if chunk.item is not None]

    def words(chunks):
        return " ".join(chunk.text for chunk in chunks).split()

    assert media(moved) == media(document)
    assert words(moved) == words(document)
    assert moved[-1].text.endswith(document[-1].text)
