# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""A processor for the tests, offline: a tokenizer trained here, an 8 x 8 CLIP image processor, images drawn in memory."""

import functools
import io

import numpy as np
import PIL.Image
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from transformers_flamingo.processing_flamingo import FlamingoProcessor


SIZE = 8
EOC = "<|endofchunk|>"
TEXT = "a dog and a cat on the mat. Output: What is it? Question: Short answer: red green blue"


def make_tokenizer(**kwargs) -> PreTrainedTokenizerFast:
    """Train a tokenizer like that of GPT-2: byte-level BPE, no pad token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 3, trainer)
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "<|endoftext|>")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names, **kwargs)


def make_image_processor(**kwargs) -> CLIPImageProcessorPil:
    """Make CLIP's image processor for images of `SIZE`."""
    return CLIPImageProcessorPil(
        **{"size": {"shortest_edge": SIZE}, "crop_size": {"height": SIZE, "width": SIZE}, **kwargs}
    )


def make_processor(**kwargs) -> FlamingoProcessor:
    """Make a processor that a test may change."""
    return FlamingoProcessor(make_image_processor(), make_tokenizer(), **kwargs)


@functools.cache
def _processor() -> FlamingoProcessor:
    return make_processor()


def shared_processor() -> FlamingoProcessor:
    """Return one processor for all tests that do not change it, padding on the left."""
    _processor().tokenizer.padding_side = "left"
    return _processor()


def draw(seed: int, width: int = 12, height: int = 10, mode: str = "RGB") -> PIL.Image.Image:
    """Draw noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return PIL.Image.fromarray(pixels).convert(mode)


def bare(image, **kwargs) -> torch.Tensor:
    """Return what the image processor alone gives for one image: `(C, H, W)`."""
    return make_image_processor()(image, return_tensors="pt", **kwargs)["pixel_values"][0]


def pixels_of(processor: FlamingoProcessor, image, **kwargs) -> torch.Tensor:
    """Return what the whole processor gives for one image: `(C, H, W)`."""
    return processor(images=image, text="<image>", return_tensors="pt", **kwargs)["pixel_values"][0, 0]


A, B, C, D = (draw(seed) for seed in range(4))


def png_bytes(image: PIL.Image.Image) -> bytes:
    """Return the bytes of a PNG file."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def user(*content) -> dict:
    """Make a message of a user from texts, images, and videos as lists of frames."""
    kinds = {str: "text", list: "video"}
    return {
        "role": "user",
        "content": [{"type": (kind := kinds.get(type(part), "image")), kind: part} for part in content],
    }


def assistant(text: str) -> dict:
    """Make a message of the assistant."""
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}
