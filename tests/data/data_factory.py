# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""Images, files and a processor for the tests of the data."""

import io
import json
import tarfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from factory import IMAGE_SIZE
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from transformers_flamingo import FlamingoProcessor
from transformers_flamingo.data import (
    FORMATS,
    BadSampleError,
    FlamingoDataCollator,
    Reader,
    document_to_sample,
    row_location,
)


both = pytest.mark.parametrize("streaming", [False, True])


def bpe_processor() -> FlamingoProcessor:
    """Return a processor with a byte-level BPE as that of GPT-2: any text round-trips, and a space is part of the word after it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=["<eos>"])
    tokenizer.train_from_iterator(["a red cat, a blue dog. Question:what is it? Short answer:"] * 5, trainer)
    size = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>", pad_token="<eos>")
    return FlamingoProcessor(CLIPImageProcessorPil(size=size, crop_size=size), fast)


def numbered_image(number: int) -> Image.Image:
    """Return an image that [`number_of`] recognizes."""
    return Image.new("RGB", (IMAGE_SIZE, IMAGE_SIZE), (number, 0, 0))


def number_of(image: Image.Image) -> int:
    """Return the number of an image of [`numbered_image`]."""
    return image.getpixel((0, 0))[0]


def png(number: int) -> bytes:
    """Return the file of a numbered image."""
    buffer = io.BytesIO()
    numbered_image(number).save(buffer, "PNG")
    return buffer.getvalue()


def video_file(path, *, frames: int, rate: int, codec: str = "mpeg4", options: dict | None = None) -> bytes:
    """Write a video whose frame i is gray, 20 * i bright, and return the bytes of its file."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width = stream.height = 16
        stream.pix_fmt, stream.time_base = "rgb8" if codec == "gif" else "yuv420p", Fraction(1, rate)
        for index in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (16, 16), (20 * index,) * 3))))
        container.mux(stream.encode())
    return path.read_bytes()


def learned(row: dict, processor: FlamingoProcessor) -> list[str]:
    """Return the texts that the labels of the collator teach, one for each run of supervised tokens."""
    labels = FlamingoDataCollator(processor)([row])["labels"][0]
    runs = torch.tensor_split(labels, (labels.ne(-100).diff().nonzero().flatten() + 1).tolist())
    return [processor.decode(run) for run in runs if run[0] != -100]


def first(name, path, streaming=False, split=None, **options):
    """Return the reader of a format and the first row of its files."""
    reader = FORMATS[name](**options)
    row = next(iter(reader.load(str(path), split=split, streaming=streaming)))
    return reader, row


def sample(name, path, processor, streaming=False, split=None, **options):
    """Return the text of the first row, the numbers of its images, and the texts that its labels teach."""
    reader, row = first(name, path, streaming, split, **options)
    row = document_to_sample(
        reader.read(row), processor, np.random.default_rng(0), location=row_location(row), leading_space_probability=0
    )
    return row["text"], [number_of(image) for image in row["images"]], learned(row, processor)


def write_png(path, number):
    """Write a numbered image into a folder that may not exist yet."""
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(png(number))


def embedded(number):
    """Return a numbered image as a column of `datasets` has it."""
    return {"bytes": png(number), "path": None}


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def write_jsonl(path: Path, records: list) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def texts_or_errors(reader: Reader, path: str | Path, streaming: bool) -> list[str]:
    """Return the text of each row, or the error of a bad one."""
    found = []
    for row in reader.load(str(path), streaming=streaming):
        try:
            found.append(reader.read(row)[0].text)
        except BadSampleError as error:
            found.append(str(error))
    return found


#: Members of a `.tar` of four pairs.
PAIRS = {f"{i}.{kind}": png(i) if kind == "jpg" else f"text {i}".encode() for i in range(4) for kind in ("jpg", "txt")}
