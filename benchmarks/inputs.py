# Copyright 2026 The transformers-flamingo authors. Licensed under the Apache License, Version 2.0.
"""
Measure how fast images become tensors: images per second of the processor and of the data loader, next to stock parts.

    python benchmarks/inputs.py [--images 64] [--rows 128] [--repeats 5] [--workers 1]

CLIP's preprocessing at 224 px, in one process on one core. The first table starts from decoded images. Its floor is the
work that no implementation can avoid: Pillow's resize and one pass that turns pixels into numbers.

The second table starts from generated JPEG files of 640 x 480, in micro-batches of 8. It compares `DataMixture`, which
opens, decodes, renders, tokenizes and labels, with the minimum that gives a model the same images: `datasets` decodes them,
and the stock image processor and the tokenizer are called. With kept features, `datasets` reads the same rows and they are
stacked.
"""

import argparse
import functools
import io
import itertools
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import common
import datasets
import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.utils.data import DataLoader
from transformers import CLIPVisionConfig, GPT2Config, PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from transformers_flamingo import FlamingoConfig, FlamingoImageProcessor, FlamingoModel, FlamingoProcessor
from transformers_flamingo.training import DataMixture, DataSource


BATCH_SIZE = 8
CAPTION = "a photo of two red circles on a table"


def smooth_image(width: int, height: int, seed: int = 0) -> Image.Image:
    """Return a random image as smooth as a photograph: noise would make large JPEGs that are slow to decode."""
    coarse = np.random.default_rng(seed).integers(
        0, 256, (max(1, height // 16), max(1, width // 16), 3), dtype=np.uint8
    )
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer of the words of `CAPTION`."""
    words = {word: index for index, word in enumerate(dict.fromkeys(["<unk>", *CAPTION.split()]))}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", eos_token="<unk>")


def resize_and_normalize(images: list[Image.Image], processor: CLIPImageProcessorPil) -> torch.Tensor:
    """Return `(N, C, 224, 224)`, the processor's output, by Pillow's resize and one table look-up per value."""
    levels = np.arange(256, dtype=np.float32)[None] / 255
    tables = (levels - np.array(processor.image_mean, np.float32)[:, None]) / np.array(
        processor.image_std, np.float32
    )[:, None]
    pixels = np.empty((len(images), 3, 224, 224), np.float32)
    for output, image in zip(pixels, images, strict=True):
        scale = 224 / min(image.size)
        width, height = (round(side * scale) for side in image.size)
        left, top = (width - 224) // 2, (height - 224) // 2
        resized = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))[
            top : top + 224, left : left + 224
        ]
        for channel, table in enumerate(tables):
            np.take(table, resized[..., channel], out=output[channel], mode="clip")
    return torch.from_numpy(pixels)


def per_second(number: int, timing: common.Timing) -> str:
    """Format a rate."""
    return f"{number / timing.median:.0f}"


def processor_rows(arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """Time the processors on decoded images and return the rows of the first table."""
    stock = CLIPImageProcessorPil()
    processor = FlamingoProcessor(stock, tokenizer())
    converted = FlamingoProcessor(FlamingoImageProcessor(), tokenizer())
    rows = []
    for size, per_row in itertools.product(((224, 224), (640, 480), (1024, 768)), (1, 8)):
        flat = [smooth_image(*size, seed) for seed in range(arguments.images)]
        batches = [flat[start : start + per_row] for start in range(0, len(flat), per_row)]

        def ours(processor: FlamingoProcessor, batches: list[list[Image.Image]] = batches) -> None:
            for images in batches:
                processor(images=[images], text=[f"<image>{CAPTION}" * len(images)], return_tensors="pt")

        def alone(function: Callable, batches: list[list[Image.Image]] = batches) -> None:
            for images in batches:
                function(images)

        timings = common.time_in_turns(
            {
                "stock": functools.partial(alone, functools.partial(stock, return_tensors="pt")),
                "ours": functools.partial(ours, processor),
                "converted": functools.partial(ours, converted),
                "floor": functools.partial(alone, functools.partial(resize_and_normalize, processor=stock)),
            },
            arguments.repeats,
        )
        rows.append(
            {
                "pixels": f"{size[0]} x {size[1]}",
                "images per call": per_row,
                "stock image processor, images/s": per_second(len(flat), timings["stock"]),
                "FlamingoProcessor with it": per_second(len(flat), timings["ours"]),
                "with FlamingoImageProcessor": per_second(len(flat), timings["converted"]),
                "floor": per_second(len(flat), timings["floor"]),
                "time over stock": f"{timings['ours'].over(timings['stock']):.2f}",
                "FlamingoImageProcessor's": f"{timings['converted'].over(timings['stock']):.2f}",
                "spread": common.percent(max(timing.spread for timing in timings.values())),
            }
        )
    return rows


def write_files(directory: Path, num_rows: int) -> None:
    """Write `pairs.parquet` and `pairs.tar` with the same JPEGs."""
    jpegs = []
    for seed in range(num_rows):
        file = io.BytesIO()
        smooth_image(640, 480, seed).save(file, "JPEG", quality=90)
        jpegs.append(file.getvalue())
    columns = {"image": [{"bytes": jpeg, "path": None} for jpeg in jpegs], "text": [CAPTION] * num_rows}
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    datasets.Dataset.from_dict(columns, features=features).to_parquet(directory / "pairs.parquet")
    with tarfile.open(directory / "pairs.tar", "w") as tar:
        for index, jpeg in enumerate(jpegs):
            for suffix, content in (("jpg", jpeg), ("txt", CAPTION.encode())):
                member = tarfile.TarInfo(f"{index:06}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


class StockCollator:
    """The minimum that turns decoded images and their texts into tensors."""

    def __init__(self):
        self.image_processor, self.tokenizer = CLIPImageProcessorPil(), tokenizer()
        self.tokenizer.pad_token = "<unk>"

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        images = [row["image"] if "image" in row else row["jpg"] for row in rows]
        texts = [row["text"] if "text" in row else row["txt"] for row in rows]
        pixels = self.image_processor(images, return_tensors="pt")["pixel_values"]
        return {**self.tokenizer(texts, padding=True, return_tensors="pt"), "pixel_values": pixels}


def stack_features(rows: list[dict[str, Any]]) -> torch.Tensor:
    """Collate rows with kept features."""
    return torch.stack([row["image_features"] for row in rows])


def take(loader: Iterable, num_batches: int) -> None:
    """Read the first `num_batches` batches of a loader."""
    taken = sum(1 for _ in itertools.islice(iter(loader), num_batches))
    if taken != num_batches:
        raise RuntimeError(
            f"The loader gave {taken} batches instead of {num_batches}, so the loaders cannot be compared."
        )


def loader_rows(arguments: argparse.Namespace, directory: Path) -> list[dict[str, Any]]:
    """Time the loaders on files and return the rows of the second table."""
    write_files(directory, arguments.rows)
    processor = FlamingoProcessor(CLIPImageProcessorPil(), tokenizer())
    config = FlamingoConfig.from_vision_text_configs(
        CLIPVisionConfig(**common.CLIP_VIT_B_32, num_hidden_layers=1),
        GPT2Config(vocab_size=len(processor.tokenizer), n_layer=1),
        image_token_id=processor.image_token_id,
        end_of_chunk_token_id=processor.end_of_chunk_token_id,
    )
    model = FlamingoModel(config)
    model.freeze_backbones()

    def mixture(file: str, **options: Any) -> DataMixture:
        source = DataSource(
            name="pairs", format="image_text_pairs", path=str(directory / file), batch_size=BATCH_SIZE, **options
        )
        return DataMixture([source], processor)

    parquet = datasets.load_dataset("parquet", data_files=str(directory / "pairs.parquet"), split="train")
    tar = datasets.load_dataset("webdataset", data_files=str(directory / "pairs.tar"), split="train", streaming=True)
    kept = mixture("pairs.parquet", cache_features=True)
    kept.cache_features(model)
    layouts = {
        "parquet": (parquet, StockCollator(), mixture("pairs.parquet")),
        "tar, streamed": (tar, StockCollator(), mixture("pairs.tar", streaming=True)),
        "kept features": (kept.rows[0], stack_features, kept),
    }
    num_batches = arguments.rows // BATCH_SIZE
    rows = []
    for (layout, (bare, collator, ours)), workers in itertools.product(
        layouts.items(), sorted({0, arguments.workers})
    ):
        loaders = {
            "bare": DataLoader(bare, batch_size=BATCH_SIZE, num_workers=workers, collate_fn=collator),
            "ours": ours.loader(workers),
        }
        cases = {name: functools.partial(take, loader, num_batches) for name, loader in loaders.items()}
        if layout != "kept features":
            decoding = DataLoader(bare, batch_size=BATCH_SIZE, num_workers=workers, collate_fn=len)
            cases["decoding"] = functools.partial(take, decoding, num_batches)
        # Workers are other processes.
        timings = common.time_in_turns(cases, arguments.repeats, clock=time.perf_counter)
        number = num_batches * BATCH_SIZE
        rows.append(
            {
                "files": layout,
                "workers": workers,
                "`datasets` decoding alone, images/s": per_second(number, timings["decoding"])
                if "decoding" in timings
                else "",
                "and stock processors": per_second(number, timings["bare"]),
                "DataMixture": per_second(number, timings["ours"]),
                "time over stock": f"{timings['ours'].over(timings['bare']):.2f}",
                "spread": common.percent(max(timing.spread for timing in timings.values())),
            }
        )
    return rows


def main() -> None:
    """Time processors and loaders, print both tables and save them if asked to."""
    parser = common.parser(__doc__, images=64, rows=128, workers=1)
    arguments = parser.parse_args()
    datasets.disable_progress_bars()
    common.report(arguments, processor_rows(arguments), "inputs-processor")
    with tempfile.TemporaryDirectory() as name:
        datasets.config.HF_DATASETS_CACHE = Path(name) / "cache"
        common.report(arguments, loader_rows(arguments, Path(name)), "inputs-loader", clock="wall time")


if __name__ == "__main__":
    main()
