# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Calls of the processor, its files, and saving and loading it."""

import base64
import functools
import http.server
import json
import os
import threading
import warnings

import numpy as np
import PIL.Image
import pytest
import torch
from processors import (
    EOC,
    SIZE,
    A,
    B,
    C,
    D,
    assistant,
    bare,
    draw,
    make_image_processor,
    make_processor,
    make_tokenizer,
    pixels_of,
    png_bytes,
    shared_processor,
    user,
)
from tokenizers import processors
from transformers import AutoImageProcessor, AutoTokenizer
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from transformers_flamingo.processing_flamingo import FlamingoProcessor


@pytest.fixture
def processor() -> FlamingoProcessor:
    return shared_processor()


@pytest.mark.parametrize("tokens", [{"image_token": ""}, {"image_token": EOC}])
def test_equal_or_empty_tokens_are_refused(tokens):
    with pytest.raises(ValueError, match="two different, non-empty strings"):
        make_processor(**tokens)


def test_construction_and_call_are_quiet(capfd, caplog):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make_processor()(images=[A, B], text=["<image>a", "<image>a dog"], padding=True, return_tensors="pt")
    out = capfd.readouterr()
    assert (out.out, out.err, caplog.records) == ("", "", [])


def test_batch_exactly(processor):
    batch = {"images": [[A], [B, C], []], "text": ["<image>a", "<image><image>", "a"], "padding": True}
    inputs = processor(**batch, return_frame_attention_mask=True)
    eoc = processor.end_of_chunk_token_id
    image, pad, a = eoc + 1, eoc + 2, processor.tokenizer.encode("a")[0]
    assert inputs["input_ids"] == [[image, a], [image, image], [pad, a]]
    assert inputs["attention_mask"] == [[1, 1], [1, 1], [0, 1]]
    assert inputs["frame_attention_mask"] == [[1, 0], [1, 1], [0, 0]]
    assert [sample.shape for sample in inputs["pixel_values"]] == [(2, 3, SIZE, SIZE)] * 3
    assert set(inputs) == set(processor.model_input_names)
    tensors = processor(**batch, return_frame_attention_mask=True, return_tensors="pt")
    assert set(processor(**batch)) == set(inputs) - {"frame_attention_mask"}, "clients may not know it"
    expected = torch.zeros(3, 2, 3, SIZE, SIZE)
    expected[0, 0], expected[1, 0], expected[1, 1] = bare(A), bare(B), bare(C)
    assert torch.equal(tensors["pixel_values"], expected)
    assert tensors["frame_attention_mask"].tolist() == inputs["frame_attention_mask"]
    assert tensors["frame_attention_mask"].dtype == torch.int64
    arrays = processor(images=A, text="<image>", return_tensors="np")
    assert {type(value) for value in arrays.values()} == {np.ndarray}


def test_text_alone_and_images_alone(processor):
    assert list(processor(text="a dog")) == ["input_ids", "attention_mask"]
    assert list(processor(text=["a", "a"], images=[[], []])) == ["input_ids", "attention_mask"]
    assert processor(text="<image>a")["input_ids"] == [processor.tokenizer.encode("<image>a")], "precomputed features"
    inputs = processor(images=[A, B], return_tensors="pt")
    assert set(inputs) == {"pixel_values"}
    assert inputs["pixel_values"].shape == (1, 2, 3, SIZE, SIZE)
    assert processor(images=[[A], [B]], return_tensors="pt")["pixel_values"].shape == (2, 1, 3, SIZE, SIZE)


def test_input_is_not_modified(processor):
    images, text = [[A], [B]], ["<image>a", "<image>"]
    array = np.asarray(C).copy()
    processor(images=images, text=text, padding=True)
    processor(images=[array], text="<image>")
    assert images == [[A], [B]]
    assert text == ["<image>a", "<image>"]
    assert np.array_equal(array, np.asarray(C))


def test_padding_side(processor):
    texts = ["a", "a dog and a cat"]
    assert processor(text=texts, padding=True)["attention_mask"][0][0] == 0
    assert processor(text=texts, padding=True, padding_side="right")["attention_mask"][0][0] == 1
    assert processor(text=texts, padding=True)["attention_mask"][0][0] == 0
    processor.tokenizer.padding_side = "right"
    assert processor(text=texts, padding=True)["attention_mask"][0][0] == 1


def test_truncation_may_cut_text_but_no_marker(processor):
    text = "<image>a dog and a cat"
    inputs = processor(images=A, text=text, truncation=True, max_length=3)
    assert len(inputs["input_ids"][0]) == 3
    assert inputs["input_ids"][0][0] == processor.image_token_id
    for images in ([[A, B]], None):
        with pytest.raises(ValueError, match=r"Got ids=\[1\] and text=\[2\].*increase `max_length`"):
            processor(images=images, text=f"{text}<image>", truncation=True, max_length=3)


def test_optional_outputs_of_the_mixin(processor):
    inputs = processor(images=A, text="a<image>", return_mm_token_type_ids=True, return_text_replacement_offsets=True)
    assert inputs["mm_token_type_ids"] == [[0, 1]]
    assert [offset["span"] for offset in inputs["text_replacement_offsets"][0]] == [(1, 8)]
    tokenizer = make_tokenizer(model_input_names=["input_ids", "token_type_ids", "attention_mask"])
    processor = FlamingoProcessor(make_image_processor(), tokenizer)
    assert "token_type_ids" in tokenizer("a")
    assert list(processor(text="a")) == ["input_ids", "attention_mask"]
    assert "token_type_ids" not in processor.model_input_names


@pytest.mark.parametrize(
    ("images", "text", "message"),
    [
        ([[], [A]], ["<image> a", "b"], r"Sample 0 has 1 `<image>` in its text but 0 images"),
        ([[A], [A, B]], ["<image>", "<image>"], r"Sample 1 has 1 `<image>` in its text but 2 images.*Add or remove"),
        ([[A], [B]], "<image><image>", r"for 2 samples, but there are 1 texts"),
        ([A, B, C], ["<image>", "<image>"], r"flat list of 3 for 2 texts with \[1, 1\] `<image>` markers"),
        ([], ["<image>"], r"Sample 0 has 1 `<image>` in its text but 0 images"),
        (A, "no marker", r"Sample 0 has 0 `<image>` in its text but 1 images"),
    ],
)
def test_wrong_counts(processor, images, text, message):
    with pytest.raises(ValueError, match=message) as error:
        processor(images=images, text=text)
    # The words of the stock check, which callers may look for
    assert " tokens in the prompts should be the same as the number of " in str(error.value)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([[A], [B, None]], r"Image 1 of sample 1 is None, not an image"),
        ([A, None], r"Image 0 of sample 1 is None, not an image.*empty list"),
        ([[A], [3]], r"Image 0 of sample 1 is a int, not an image"),
        ([A, [B]], r"mixes lists with single images: element 0 is a Image"),
        ([[A], [[]]], r"Video 0 of sample 1 has no frames"),
        ([[A], [[B, None]]], r"Frame 1 of video 0 of sample 1 is None"),
        ([[np.zeros((2, 3, 4, 5, 5))], [A]], r"Image 0 of sample 0 is an array of shape \(2, 3, 4, 5, 5\)"),
        ([[np.zeros((0, 4, 3), np.uint8)], [A]], r"array of shape \(0, 4, 3\)"),
        ([[np.zeros((5, 4, 2), np.uint8)], [A]], r"1, 3 or 4 channels neither first nor last"),
        ([[PIL.Image.new("RGB", (0, 5))], [A]], r"Image 0 of sample 0 is 0 x 5: it has no pixels"),
        ([[PIL.Image.new("La", (5, 5))], [A]], r"Image 0 of sample 0 has the mode 'La'"),
    ],
)
def test_what_is_not_an_image_is_named(processor, images, message):
    texts = ["<image>" * (len(sample) if isinstance(sample, list) else 1) for sample in images]
    with pytest.raises(ValueError, match=message):
        processor(images=images, text=texts)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, "called without input"),
        ({"text": []}, "non-empty list of strings"),
        ({"text": ["a", 3]}, r"Got a list of \['int', 'str'\]"),
        ({"text": "a", "audio": np.zeros(3)}, "text, images and videos only"),
    ],
)
def test_wrong_input(processor, inputs, message):
    with pytest.raises(ValueError, match=message):
        processor(**inputs)


def test_paths_uris_and_base64(processor, tmp_path):
    A.save(tmp_path / "a.png")
    encoded = base64.b64encode(png_bytes(A)).decode()
    wrapped = base64.encodebytes(png_bytes(A)).decode()
    for image in (tmp_path / "a.png", str(tmp_path / "a.png"), f"data:image/png;base64,{encoded}", encoded, wrapped):
        assert torch.equal(pixels_of(processor, image), bare(A))


def test_urls(processor, tmp_path):
    A.save(tmp_path / "a.png")
    (tmp_path / "page.png").write_text("<html>not found</html>")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args):
            pass

    handler = functools.partial(Handler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert torch.equal(pixels_of(processor, f"{url}/a.png"), bare(A))
        with pytest.raises(ValueError, match=r"http://127.0.0.1:\d+/page.png'\) is not an image that Pillow can read"):
            pixels_of(processor, f"{url}/page.png")
        server.shutdown()


def test_bad_files_are_named(processor, tmp_path):
    data = png_bytes(draw(0, 60, 60))
    (tmp_path / "truncated.png").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.png").write_text("not an image")
    with pytest.raises(ValueError, match=r"Image 1 of sample 0 \('.*truncated.png'\) cannot be decoded.*truncated"):
        processor(images=[A, str(tmp_path / "truncated.png")], text="<image><image>")
    with (
        PIL.Image.open(tmp_path / "truncated.png") as image,
        pytest.raises(ValueError, match=r"truncated.png'\) cannot"),
    ):
        pixels_of(processor, image)
    with pytest.raises(ValueError, match=r"Image 0 of sample 0 \('.*text.png'\) is not an image that Pillow can read"):
        pixels_of(processor, str(tmp_path / "text.png"))
    for missing in ("missing.png", "missing file ü.png"):
        with pytest.raises(ValueError, match=rf"\('{missing}'\) is not an image: there is no such file"):
            pixels_of(processor, missing)
    with pytest.raises(ValueError, match=r"\(\d+ characters\)"):
        pixels_of(processor, "x" * 5000)


def test_decompression_bombs_are_refused(processor, tmp_path, monkeypatch):
    draw(0, 40, 30).save(tmp_path / "bomb.png")
    encoded = base64.b64encode((tmp_path / "bomb.png").read_bytes()).decode()
    # Between the limit and twice the limit Pillow only warns, above it raises an error that names no file
    for limit in (1199, 599):
        monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", limit)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for image in (str(tmp_path / "bomb.png"), tmp_path / "bomb.png", encoded):
                with pytest.raises(ValueError, match=rf"Image 0 of sample 0 \(.*limit of {limit} .*MAX_IMAGE_PIXELS"):
                    pixels_of(processor, image)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="limit of 599"):
            pixels_of(processor, str(tmp_path / "bomb.png"))
    with pytest.raises(ValueError, match=r"40 x 30 = 1200 pixels, more than the limit of 599.*decompression bomb"):
        pixels_of(processor, draw(0, 40, 30))
    monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", None)
    assert pixels_of(processor, draw(0, 40, 30)).shape == (3, SIZE, SIZE)


def test_rows_of_bytes_and_path_are_images(processor):
    """Rows of `datasets.Image(decode=False)` are accepted wherever an image is."""
    row, other = ({"bytes": png_bytes(image), "path": None} for image in (A, B))
    assert torch.equal(pixels_of(processor, row), bare(A))
    assert torch.equal(pixels_of(processor, png_bytes(A)), bare(A))
    inputs = processor(
        images=[[row], [other, row]], text=["<image>", "<image><image>"], padding=True, return_tensors="pt"
    )
    assert torch.equal(inputs["pixel_values"][1], torch.stack([bare(B), bare(A)]))
    flat = processor(images=[row, other], text=["<image>", "<image>"], return_tensors="pt")
    assert torch.equal(flat["pixel_values"][:, 0], torch.stack([bare(A), bare(B)]))
    prompt = processor.few_shot_prompt([(row, "a")], other)
    assert torch.equal(processor(**prompt, return_tensors="pt")["pixel_values"][0], torch.stack([bare(A), bare(B)]))
    for videos in ([row, other], [[row, other]], [[[row, other]]]):
        inputs = processor(videos=videos, text="<image>", return_tensors="pt")
        assert torch.equal(inputs["pixel_values"][0, 0], torch.stack([bare(A), bare(B)]))
    chat = [{"role": "user", "content": [{"type": "image", "image": row}]}]
    inputs = processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")
    assert torch.equal(inputs["pixel_values"][0, 0], bare(A))
    with pytest.raises(ValueError, match=r"Image 1 of sample 0 \('b.png'\) is not an image that Pillow can read"):
        processor(images=[row, {"bytes": b"abc", "path": "b.png"}], text="<image><image>")


def test_fifos_and_devices_are_refused(processor, tmp_path):
    os.mkfifo(tmp_path / "fifo.png")
    for path in (str(tmp_path / "fifo.png"), tmp_path / "fifo.png", "/dev/zero", {"path": "/dev/zero"}):
        with pytest.raises(
            ValueError, match=r"Image 0 of sample 0 \('/.*'\) cannot be read: it is a .*, not a regular file"
        ):
            pixels_of(processor, path)


@pytest.mark.parametrize("name", ["text_kwargs", "images_kwargs", "videos_kwargs", "processor_kwargs"])
@pytest.mark.parametrize("wrong", [3, "a", [("padding", True)]])
def test_keyword_arguments_must_be_dicts(processor, name, wrong):
    call = functools.partial(processor, images=A, text="<image>")
    if name == "processor_kwargs":
        call = functools.partial(processor.apply_chat_template, [user(A)], tokenize=True, return_dict=True)
    with pytest.raises(ValueError, match=rf"`{name}` is .* It must be a dict of keyword arguments"):
        call(**{name: wrong})


@pytest.mark.parametrize("text", [3, b"a", {"a": 1}, 1.5])
def test_text_of_another_type(processor, text):
    with pytest.raises(ValueError, match=f"`text` must be a string .* Got a {type(text).__name__}"):
        processor(text=text)


def test_half_a_surrogate_pair_is_named(processor):
    with pytest.raises(
        ValueError, match=r"The text of sample 1 has half of a surrogate pair, '\\ud800', at position 2"
    ):
        processor(text=["a", "a \ud800"])


@pytest.mark.parametrize(
    "kwargs", [{}, {"return_tensors": "pt", "padding": True}, {"padding": "max_length", "max_length": 4}]
)
def test_text_without_tokens_is_refused(processor, kwargs):
    with pytest.raises(ValueError, match=r"The text of sample 1 is '', which has no tokens"):
        processor(text=["a", ""], **kwargs)
    # A text that gets a token from the tokenizer is accepted
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    assert FlamingoProcessor(make_image_processor(), tokenizer)(text="")["input_ids"] == [[0]]


@pytest.mark.parametrize("max_length", [0, -1])
def test_max_length_without_tokens(processor, max_length):
    with pytest.raises(ValueError, match=f"`max_length` is {max_length}"):
        processor(text="a", truncation=True, max_length=max_length)


def test_an_argument_of_the_wrong_type_is_a_value_error(processor):
    with pytest.raises(ValueError, match=r"An argument of this call has the wrong type.*'do_resize'"):
        processor(images=A, text="<image>", do_resize="yes")


def test_chat_to_tensors(processor):
    chat = [user(A, "What?"), assistant("a cat"), user([B, C], "And?", D)]
    inputs = processor.apply_chat_template(
        chat, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
    )
    expected = processor(
        text=f"<image>What? a cat{EOC}<image>And?<image>", images=[[A, [B, C], D]], return_tensors="pt"
    )
    assert inputs.keys() == expected.keys()
    assert all(torch.equal(inputs[key], expected[key]) for key in expected)
    assert inputs["frame_attention_mask"].tolist() == [[[1, 0], [1, 1], [1, 0]]]


def test_batch_of_chats(processor):
    inputs = processor.apply_chat_template(
        [[user("a dog?")], [user(A, B)]],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs={"padding": True, "return_frame_attention_mask": True},
    )
    assert inputs["frame_attention_mask"].tolist() == [[0, 0], [1, 1]]
    text_only = processor.apply_chat_template([[user("a dog?")]], tokenize=True, return_dict=True)
    assert list(text_only) == ["input_ids", "attention_mask"]


def test_round_trip(tmp_path):
    processor = make_processor()
    saved = processor.save_pretrained(tmp_path / "one")
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [
        "backbone_files_flamingo.py",
        "chat_template.jinja",
        "chat_templates_flamingo.py",
        "checks_flamingo.py",
        "client_errors_flamingo.py",
        "compatibility_flamingo.py",
        "files_flamingo.py",
        "images_flamingo.py",
        "media_flamingo.py",
        "messages_flamingo.py",
        "pixels_flamingo.py",
        "processing_flamingo.py",
        "processor_config.json",
        "prompts_flamingo.py",
        "tokenizer.json",
        "tokenizer_config.json",
        "tokenizers_flamingo.py",
    ]
    stored = json.loads((tmp_path / "one" / "processor_config.json").read_text())
    assert stored["image_processor"]["image_processor_type"] == "CLIPImageProcessor"
    assert (stored["image_token"], stored["end_of_chunk_token"]) == ("<image>", EOC)
    assert len(saved) == 1
    again = FlamingoProcessor.from_pretrained(tmp_path / "one")
    again.save_pretrained(tmp_path / "two")
    again = FlamingoProcessor.from_pretrained(tmp_path / "two")
    # Saving records the code that travels on the saved object.
    assert {**again.to_dict(), "auto_map": None} == {**processor.to_dict(), "auto_map": None}
    assert again.chat_template == processor.chat_template
    for name in ("image_token_id", "end_of_chunk_token_id", "image_token", "end_of_chunk_token"):
        assert getattr(again, name) == getattr(processor, name)
    assert again.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    call = {"images": [[A], [B, C]], "text": ["<image>a dog", "<image>a<image>"]}
    one, two = (p(**call, padding=True, return_tensors="pt") for p in (processor, again))
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert AutoTokenizer.from_pretrained(tmp_path / "two").convert_tokens_to_ids("<image>") == again.image_token_id
    assert AutoImageProcessor.from_pretrained(tmp_path / "two").size["shortest_edge"] == SIZE


def test_from_vision_text_pretrained(tmp_path, capfd):
    make_image_processor().save_pretrained(tmp_path / "vision")
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "text only"
    tokenizer.save_pretrained(tmp_path / "text")
    processor = FlamingoProcessor.from_vision_text_pretrained(
        tmp_path / "vision",
        tmp_path / "text",
        image_token="<im>",
        vision_do_normalize=False,
        text_model_max_length=77,
        local_files_only=True,
    )
    assert isinstance(processor.image_processor, CLIPImageProcessorPil)
    assert processor.image_processor.do_normalize is False
    assert processor.tokenizer.model_max_length == 77
    assert processor.image_token == "<im>"
    assert processor.chat_template != "text only"
    assert torch.equal(
        processor(images=A, text="<im>", return_tensors="pt")["pixel_values"][0, 0], bare(A, do_normalize=False)
    )
    assert "torchvision" not in capfd.readouterr().err


def test_decoding_as_the_pipeline_does(processor):
    """`ImageTextToTextPipeline` finds the decoded prompt at the start of the decoded output and cuts it off."""
    prompts = [f"<image>a cat{EOC}<image>", "<image>What is it?"]
    inputs = processor(images=[[A, B], [C]], text=prompts, padding=True, return_tensors="pt")
    answers = [" a dog", " a dog"]
    tail = processor.tokenizer(answers, return_tensors="pt")["input_ids"]
    end = torch.full((2, 1), processor.end_of_chunk_token_id)
    generated = torch.cat([inputs["input_ids"], tail, end], dim=1)
    decoded_prompts = processor.post_process_image_text_to_text(inputs["input_ids"])
    decoded = processor.post_process_image_text_to_text(generated)
    assert decoded_prompts == ["a cat", "What is it?"]
    assert [text[len(p) :] for text, p in zip(decoded, decoded_prompts, strict=True)] == answers
    assert processor.batch_decode(generated, skip_special_tokens=True) == decoded
    assert processor.decode(generated[1], skip_special_tokens=True) == decoded[1]
    assert processor.batch_decode(generated[:, inputs["input_ids"].shape[1] :]) == [f" a dog{EOC}"] * 2


def test_empty_lists_of_media_mean_none(processor):
    """Evaluation harnesses pass every kind of media to every processor."""
    expected = processor(images=[[A], [B, C]], text=["<image>a", "<image><image>"], padding=True, return_tensors="pt")
    for images in ([[A], [B, C]], [A, B, C]):
        inputs = processor(
            images=images,
            videos=[],
            audios=[],
            text=["<image>a", "<image><image>"],
            padding=True,
            return_tensors="pt",
        )
        assert inputs.keys() == expected.keys()
        assert all(torch.equal(inputs[name], expected[name]) for name in expected)
    video = processor(videos=[[A, B]], text="<image>a")
    assert processor(images=[], videos=[[A, B]], audio=[], text="<image>a").keys() == video.keys()
    text = processor(text=["a", "a dog"])
    assert dict(processor(images=[], videos=[], audios=None, text=["a", "a dog"])) == dict(text)
    with pytest.raises(ValueError, match="Sample 0 has 1 `<image>` in its text but 0 images"):
        processor(images=[], videos=[], text="<image>a")
    for name in ("audio", "audios"):
        with pytest.raises(ValueError, match=f"`{name}` was given, but Flamingo reads text, images and videos only"):
            processor(images=A, text="<image>a", **{name: ["a.wav"]})
