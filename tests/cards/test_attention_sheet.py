# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest
import torch
from factory import END_OF_CHUNK, random_images, tiny_flamingo, tiny_processor
from PIL import Image
from transformers.generation import GenerateDecoderOnlyOutput

from transformers_flamingo import attention_maps
from transformers_flamingo.cards.attention_sheet import (
    WordAttention,
    draw_attention_sheet,
    find_word_attention,
    image_in_view,
    overlay_attention,
)


def test_a_strong_patch_is_bright_and_a_weak_one_dark():
    weights = np.array([[0.7, 0.1], [0.1, 0.1]])
    drawn = np.asarray(overlay_attention(Image.new("RGB", (20, 10), "gray"), weights), dtype=float).mean(axis=-1)
    assert drawn.shape == (336, 672)
    corners = [drawn[:60, :100], drawn[:60, -100:], drawn[-60:, :100], drawn[-60:, -100:]]
    brightness = [corner.mean() for corner in corners]
    assert brightness[0] > 40 + max(brightness[1:])
    # On the scale of a word that was stronger, it is less bright
    weaker = np.asarray(overlay_attention(Image.new("RGB", (20, 10), "gray"), weights, strongest=1.4), dtype=float)
    assert weaker.mean(axis=-1)[:60, :100].mean() < brightness[0] - 20


def test_the_peak_is_relative_to_an_even_map():
    assert WordAttention("even", np.full((4, 4), 1 / 16)).peak == pytest.approx(1)
    assert WordAttention("one patch", np.eye(4)[:1] * np.eye(4)[:, :1]).peak == pytest.approx(16)


def test_words_of_an_answer_have_the_mean_of_their_tokens():
    model, processor = tiny_flamingo(gates=2.0), tiny_processor()
    inputs = {"input_ids": torch.tensor([[98, 8]]), "pixel_values": random_images(1, 1)}
    outputs = model.generate(
        **inputs, max_new_tokens=4, output_cross_attentions=True, return_dict_in_generate=True, do_sample=False
    )
    words = find_word_attention(processor, outputs, num_prompt_tokens=2)
    answer = processor.decode(outputs.sequences[0, 2:], skip_special_tokens=True)
    assert [word.word for word in words] == answer.split()
    maps = attention_maps(outputs)[0, :, 0]
    for word, weights in zip(words, maps, strict=True):
        assert np.allclose(word.weights, weights)


class Pieces:
    """A tokenizer whose tokens are parts of words."""

    def decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        return "".join({5: " tri", 6: "angle", 7: " red", END_OF_CHUNK: ""}[i] for i in ids).lstrip()


def test_parts_of_words_are_joined_and_special_tokens_left_out():
    one_hot = torch.eye(4)
    outputs = GenerateDecoderOnlyOutput(sequences=torch.tensor([[98, 7, 5, 6, END_OF_CHUNK]]))
    # Step t looks at latent t alone, and latent t at patch t
    outputs["cross_attentions"] = tuple((one_hot[t].view(1, 1, 1, 4),) for t in range(4))
    outputs["resampler_attentions"] = (torch.cat([one_hot, torch.zeros(4, 4)], dim=1).view(1, 1, 1, 4, 8),)
    outputs["patch_grid"] = torch.tensor([[[1, 2, 2]]])
    outputs["media_index"] = torch.tensor([[1]])
    words = find_word_attention(Pieces(), outputs, num_prompt_tokens=1)
    assert [word.word for word in words] == ["red", "triangle"]
    assert words[0].weights.tolist() == [[1, 0], [0, 0]]
    assert words[1].weights.tolist() == [[0, 0.5], [0.5, 0]]


def test_the_image_in_view_is_the_last_real_one():
    processor = tiny_processor()
    colors = [Image.new("RGB", (8, 8), color) for color in ("red", "lime", "blue")]
    texts = ["<image>" * 2, "<image>" * 3]
    inputs = processor(images=[colors[:2], colors], text=texts, padding=True, return_tensors="pt")
    one = {name: value[:1] for name, value in inputs.items()}
    assert image_in_view(processor, one).getpixel((3, 3)) == (0, 255, 0)
    assert image_in_view(processor, {"input_ids": torch.ones(1, 2)}) is None
    video = processor(images=[[colors]], text=["<image>"], return_tensors="pt")
    assert image_in_view(processor, video).getpixel((3, 3)) == (255, 0, 0)


def test_a_sheet_has_the_image_and_each_word(tmp_path):
    image = Image.new("RGB", (8, 8), (1, 200, 3))
    weights = np.full((2, 2), 0.25)
    small = draw_attention_sheet(tmp_path / "a" / "sheet.png", image, [WordAttention("word", weights)])
    large = draw_attention_sheet(tmp_path / "b.png", image, [WordAttention("word", weights)] * 8)
    assert (1, 200, 3) in {color for _, color in small.getcolors(10**6)}
    assert large.height > small.height
    assert Image.open(tmp_path / "a" / "sheet.png").size == small.size
    draw_attention_sheet(tmp_path / "empty.png", image, [])
